/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * fork: the child's copy of the space.
 *
 * The copy of the memory is a copy of every entry and every object in RAM; what is on a shared file, the tiers share
 * out in fork_prepare. What no copy brings are the completions of moves in flight: they arrive in the parent only. So
 * in the child every move is over, and its object is where it was; an object whose entry let go of it during the
 * move is an orphan, and freed here because no completion will.
 */
#include "space/internal.h"

int spw_fork_prepare(struct spw__space *sp, unsigned child)
{
	for (struct spw_tier **t = sp->order; *t; t++) {
		int rc = (*t)->ops->fork_prepare ? (*t)->ops->fork_prepare(*t, child) : 0;

		if (!rc)
			continue;
		while (t-- > sp->order)
			if ((*t)->ops->fork_failed)
				(*t)->ops->fork_failed(*t, child);
		return rc;
	}
	return 0;
}

void spw_fork_failed(struct spw__space *sp, unsigned child)
{
	for (struct spw_tier **t = sp->order; *t; t++)
		if ((*t)->ops->fork_failed)
			(*t)->ops->fork_failed(*t, child);
}

/* Nor does any thread come along that would unlock an entry: the parent may load pages while it forks. */
static void settle(struct spw__space *sp, uint32_t c)
{
	for (unsigned i = 0; i < SPW_CLUSTER; i++) {
		uint64_t *d = &sp->desc[(size_t)c * SPW_CLUSTER + i], w = *d;

		if (w & SPW__LOCK)
			*d = w &= ~SPW__LOCK;
		if (spw__word_kind(w) == SPW_FRAME)
			d = &sp->frame[spw__word_payload(w)];
		if (*d & SPW__MOVING)
			*d &= ~SPW__MOVING;
	}
}

void spw_fork_child(struct spw__space *sp, unsigned child)
{
	for (struct spw_tier **t = sp->order; *t; t++)
		if ((*t)->ops->fork_child)
			(*t)->ops->fork_child(*t, child);
	for (uint32_t c = 0; c < sp->ever; c++)
		if (sp->table[c].live)
			settle(sp, c);
	while (sp->orphans)
		spw__slot_free(sp, (spw_slot_t){sp->orphan[--sp->orphans]});
	sp->in_flight = 0;
	memset(sp->under_move, 0, sizeof(sp->under_move));
	spw__orphan_trim(sp);
}
