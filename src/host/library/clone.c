/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clones: another page table over the same entries.
 *
 * To copy a region that is mostly out would bring all of it in. The clone holds the entries instead, each counted once
 * more. A page that is in has the bytes nowhere else, or has them behind its entry as well: it becomes the frame of its
 * entry, where the other page table finds it. Nothing is compressed, read or copied for the clone; what is shared ends
 * page by page, when either side writes (page.c). Pinned pages alone are copied.
 */
#include "host/library/library.h"

#include <errno.h>
#include <string.h>

/* Page o is IN and BUSY: the frame of its entry from now on, and written to by nobody who does not ask. */
static int make_frame(struct spw_space *s, uint32_t o, uint8_t *state)
{
	spw_entry_t e;
	int ret = spw__page_entry(s, o, &e);

	if (ret)
		return ret;
	if (!(*state & SPW__PROT))
		spw__page_protect(s, o, 1, true);
	*state |= SPW__PROT;
	if (*state & SPW__FRAME)
		return 0;
	ret = spw_cache_add(s->layer, e, o);
	if (ret == 0)
		*state |= SPW__FRAME;
	/* Another page is its frame already. */
	return ret == -EEXIST ? 0 : ret;
}

/* A pinned page may be written to by the kernel, which does not ask: c gets a copy of it. o is BUSY. */
static int copy_page(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint32_t c)
{
	int ret;

	memcpy(seat->window, (const void *)(uintptr_t)spw__page_va(s, o), SPW_PAGE);
	do
		ret = spw_store(s->layer, seat->work, (spw_entry_t){c}, seat->window, SPW_NO_FRAME);
	while (ret == -ENOSPC && spw__pool_wait(s));
	return ret == -ENOSPC ? -ENOMEM : ret;
}

/* c, of the clone, is to have what o has. */
static int share_page(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint32_t c)
{
	uint8_t state = spw__page_lock(s, o);

	if (state & SPW__PINNED) {
		int err = copy_page(s, seat, o, c);

		spw__page_unlock(s, o, state);
		return err;
	}
	int ret = state & SPW__IN ? make_frame(s, o, &state) : 0;
	spw_entry_t e = spw__page_held(s, o);

	if (ret == 0 && spw_kind(s->layer, e) != SPW_FREE)
		ret = spw_dup(s->layer, &e, 1);
	else
		e.idx = c;
	if (ret == 0)
		spw__page_hold(s, c, e);
	spw__page_unlock(s, o, state);
	return ret;
}

static int share_leaf(struct spw_region *r, struct spw_region *clone, struct spw__seat *seat, uint64_t number)
{
	struct spw_space *s = r->space;
	uint64_t at = number * SPW__LEAF_BYTES, pages = (r->bytes - at) / SPW_PAGE;
	uint32_t o, c;

	if (!spw__position_if(r, r->base + at, &o))
		return 0;
	int ret = spw__position(clone, clone->base + at, &c);

	if (ret)
		return ret;
	__atomic_store_n(&s->leaf[o / SPW_CLUSTER].shared, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&s->leaf[c / SPW_CLUSTER].shared, 1, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < SPW_CLUSTER && i < pages && !ret; i++)
		ret = share_page(s, seat, o + i, c + i);
	return ret;
}

/* A page that parts from the others takes an entry that knows of no region. False: it may not go everywhere. */
static bool may_part(struct spw_region *r)
{
	sigset_t old;

	spw__signals_block(&old);
	spw__spin_lock(&r->lock);
	bool all = r->tiers == SPW__ALL_TIERS;

	r->cloned |= all;
	spw__spin_unlock(&r->lock);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return all;
}

int spw_region_clone(struct spw_region *r, struct spw_region **out)
{
	struct spw_region *clone;

	if (!may_part(r))
		return -EPERM;
	int ret = spw_region_create(r->space, r->bytes, &clone);

	if (ret == 0)
		clone->cloned = true;

	for (uint64_t i = 0; i < r->span / SPW__LEAF_BYTES && !ret; i++) {
		struct spw__call c;

		spw__call_begin(r->space, &c);
		ret = share_leaf(r, clone, c.seat, i);
		spw__call_end(r->space, &c);
		if (ret)
			spw_region_destroy(clone);
	}
	if (ret == 0)
		*out = clone;
	return ret;
}
