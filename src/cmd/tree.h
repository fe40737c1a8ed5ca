/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_TREE_H
#define SPW_CMD_TREE_H
/* The processes below this one: who they are, what they take, and how much of it each may keep. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cmd/region.h"
#include "cmd/swaps.h"

/* A program that ran without the cap, by name; several processes of one name are one line. */
struct spw_uncapped {
	char comm[16];
	unsigned processes;
	uint64_t peak_bytes; /* of the largest */
};
#define SPW_UNCAPPED_NAMES 16u

/* The sample in which the most pages were out. */
struct spw_peak {
	uint64_t swapped_pages, metadata_bytes;
};

struct spw_tree {
	const struct spw_region *region;
	struct spw_swaps *swaps;
	pid_t program;
	const char *name;            /* of the program, as it was called */
	struct spw_process *process; /* known ones */
	unsigned processes, room;
	int own_statm;      /* of this process, which counts too */
	uint64_t own_bytes; /* of the supervisor, at the last walk */
	uint64_t now_ns, last_ns, next_walk_ns;
	struct spw_verdict *verdict; /* of executables seen, by device and inode */
	unsigned verdicts, next_verdict;

	uint64_t resident_peak_bytes;
	uint64_t exceeded_bytes; /* over the cap at the most */
	bool settling;           /* the cap was lowered, and the tree has not been under it since */
	struct spw_peak peak;
	uint64_t merged_pages_peak; /* pages out that shared the entry of another, at the most */
	unsigned uncapped_processes;
	struct spw_uncapped uncapped[SPW_UNCAPPED_NAMES];
	unsigned uncapped_names; /* further ones are counted only */
};

/* 0 or -ENOMEM. program: the process at the top. */
int spw__tree_open(struct spw_tree *t, const struct spw_region *r, struct spw_swaps *s, pid_t program,
		   const char *name);

/*
 * Account once: read what every process takes, give back what dead ones held, set the targets. `changed` says that
 * the tree is known to have changed, so that it is walked at once. Returns the nanoseconds after which to come back.
 */
uint64_t spw__tree_tick(struct spw_tree *t, bool changed);

/* The process is of that group from now on, whatever it executes. */
void spw__tree_join(struct spw_tree *t, pid_t pid, uint32_t group);

/* Another cap, from now on. */
void spw__tree_limit(struct spw_tree *t, uint64_t bytes);

/* Let every agent look at the control region at once. */
void spw__tree_kick(const struct spw_tree *t);

/* SIGKILL everything below this process, new ones too, and wait for it. */
void spw__tree_kill(void);

#endif
