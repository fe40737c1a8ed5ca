/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_HOST_COUNTED_H
#define SPW_HOST_COUNTED_H
/* What ghosts count: the agents hold themselves to it, and the supervisor takes no ghost away that is needed for it. */
#include "host/control.h"

#include <stdbool.h>

/*
 * Whether pages without bytes of their own count. To a file they could never go and make room, so only where there is
 * none.
 */
static inline bool spw__ghosts_count_same(const struct spw_ctl *c)
{
	for (const struct spw_ctl_tier *t = c->tier; t < c->tier + SPW_CTL_TIERS; t++) {
		if (__atomic_load_n(&t->state, __ATOMIC_RELAXED) == SPW_CTL_ON && t->kind == SPW_CTL_FILE)
			return false;
	}
	return true;
}

/* Pages in the pools of all processes but `self`, NULL: of all. Some ms old. */
static inline uint64_t spw__ghosts_counted(const struct spw_ctl *c, const struct spw_ctl_proc *self)
{
	bool same = spw__ghosts_count_same(c);
	uint64_t pages = 0;

	for (const struct spw_ctl_proc *r = c->proc; r < c->proc + SPW_CTL_PROCS; r++) {
		if (r == self || __atomic_load_n(&r->pid, __ATOMIC_RELAXED) <= 0)
			continue;
		pages += __atomic_load_n(&r->pool_pages, __ATOMIC_RELAXED);
		pages += same ? __atomic_load_n(&r->same_pages, __ATOMIC_RELAXED) : 0;
	}
	return pages;
}
#endif
