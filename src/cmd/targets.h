/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_TARGETS_H
#define SPW_CMD_TARGETS_H
/* Who keeps how much of the cap. */
#include <stdint.h>

#define SPW_TARGET_FLOOR (4ull << 20) /* no process is asked to stay below this */

struct spw_share {
	uint64_t resident, shared; /* as in struct spw_ctl_proc */
	uint64_t heat;             /* pages that came back soon, in the last second */
	uint64_t target;           /* out: the resident size to hold, less what is shared */
	unsigned record;           /* the caller's */
};

/*
 * Set the target of each of n processes that share `limit` with `other` bytes of uncapped ones; elapsed_ns is the
 * time since the last call. Reorders them.
 */
void spw__targets(struct spw_share *s, unsigned n, uint64_t limit, uint64_t other, uint64_t elapsed_ns);

#endif
