/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Orphans: slots under a move whose entry was freed or stored anew meanwhile. Only the move's completion may free
 * them (see descriptor.h), and nothing else remembers them. The child of a fork gets a copy of the objects but never
 * the completion, so without this list they would stay in its tiers for good. It is unordered and searched from
 * the front: moves complete in the order in which they were started, and cancels are few.
 *
 * There is always room: a move starts only when every move in flight, itself included, has a place.
 */
#include "space/internal.h"

#define IN_PAGE (SPW_PAGE / sizeof(uint64_t))

int spw__orphan_reserve(struct spw__space *sp)
{
	uint32_t n = SPW__LOAD(sp->in_flight);

	if (n >= SPW__MOVES_MAX)
		return -EAGAIN;
	return n % IN_PAGE == 0 ? spw__plat_commit(&sp->orphan[n], SPW_PAGE) : 0;
}

void spw__orphan_add(struct spw__space *sp, spw_slot_t s)
{
	spw__spin_lock(&sp->lock);
	sp->orphan[SPW__ADD(sp->orphans, 1)] = s.v;
	sp->orphans_touched = true;
	spw__spin_unlock(&sp->lock);
}

void spw__orphan_remove(struct spw__space *sp, spw_slot_t s)
{
	uint32_t i = 0;

	spw__spin_lock(&sp->lock);
	while (i < sp->orphans && sp->orphan[i] != s.v)
		i++;
	if (i < sp->orphans)
		sp->orphan[i] = sp->orphan[SPW__SUB(sp->orphans, 1) - 1];
	spw__spin_unlock(&sp->lock);
}

void spw__orphan_trim(struct spw__space *sp)
{
	if (SPW__LOAD(sp->in_flight) || !sp->orphans_touched)
		return;
	sp->orphans_touched = false;
	spw__plat_discard(sp->orphan, SPW__MOVES_MAX * sizeof(uint64_t));
}
