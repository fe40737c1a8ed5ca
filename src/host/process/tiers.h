/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_TIERS_H
#define SPW_PROCESS_TIERS_H
/* The tiers outside of RAM as this process has them: opened, mapped, and added to its space. See tiers.c. */
#include "host/control.h"
#include "tier/file.h"

#include <stdbool.h>

struct spw__agent;

/* One that is open. */
struct spw__open_tier {
	struct spw_tier *tier; /* NULL: none */
	uint32_t generation;
	/* A file's. */
	int fd;
	struct spw_file_io io;
	struct spw_file_shared *shared;
	size_t shared_bytes;
	bool draining;
	bool dead;                       /* draining, for it has failed */
	bool rescued;                    /* and what is still on it cannot be read */
	struct spw_tier_stats published; /* as last added to the tier's counters */
};

struct spw__tiers {
	uint32_t changes; /* of the table that were looked at */
	bool pool;        /* pages may stay in the pool; else it is only the way to a file */
	unsigned files;   /* open ones */
	unsigned draining;
	bool rescuing;               /* one that is dead may have more that can be read */
	bool no_room;                /* and that has no room anywhere, for now */
	uint64_t retry_at, retry_ns; /* when to try again what could not be opened, 0 = there is none; and the pause */
	struct spw__open_tier open[SPW_CTL_TIERS];
};

/*
 * Follow the table in the control region: open what is new and may be used, begin to empty what is to go. What cannot
 * be opened is named in the record, and tried again with back-off. Before the handler runs, or with agent.work held and
 * not the host lock.
 */
void spw__tiers_follow(struct spw__agent *a);
/*
 * Go on emptying what is to go, at most until `until` (ns), and close what is empty. True: there is more to do. With
 * agent.work held, not the host lock.
 */
bool spw__tiers_drain(struct spw__agent *a, uint64_t until);
/* In a forked child: open anew the files that the parent had open. 0 or -errno. */
int spw__tiers_reopen(struct spw__agent *a);
/* Give back what process `slot` held on any file, where that can be opened. */
void spw__tiers_reap(const struct spw_ctl *c, unsigned slot);
/* Whether small reads are watched (tier/file.h), of all files. Any thread. */
void spw__tiers_watch(struct spw__agent *a, bool on);
/* Tell the tree what is on each, and what was done there since. Returns the bytes of their bookkeeping. agent.work. */
uint64_t spw__tiers_publish(struct spw__agent *a);
#endif
