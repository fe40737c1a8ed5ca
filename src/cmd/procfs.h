/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_PROCFS_H
#define SPW_CMD_PROCFS_H
/* What /proc says of one process. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct spw_stat {
	char comm[16];
	bool dead; /* a zombie with no thread left */
	pid_t parent;
	uint64_t start_time; /* tells a reused pid */
};

/* 0, or -ESRCH. */
int spw__proc_stat(pid_t pid, struct spw_stat *out);

/* Resident bytes through an open /proc/PID/statm. 0, or -ESRCH. */
int spw__proc_resident(int statm, uint64_t *bytes);
int spw__proc_open_statm(pid_t pid);
/* What this process takes, without what others have as well: its proportional share. 0, or -ENOTSUP. */
int spw__proc_own_share(uint64_t *bytes);

/* Call fn for each child of each thread of pid. */
void spw__proc_children(pid_t pid, void (*fn)(void *ctx, pid_t child), void *ctx);

/* Is a file of this name mapped by pid? */
bool spw__proc_maps(pid_t pid, const char *name);

#endif
