/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page: its lock, and the entry that it holds.
 *
 * A page that was read from a file is as good there as in memory: to free its entry when it comes in, as a swap cache
 * of one page table would, means to compress and write it again when it goes. Here it keeps its entry and is
 * write-protected; whoever writes to it first lets the entry go. What was in the pool goes from there when it comes in:
 * it would take memory twice.
 *
 * An entry may have other holders: clones. Then one of their pages may be its frame, and the bytes nowhere else. That
 * page cannot let go before the bytes are in a tier.
 */
#include "host/library/library.h"
#include "host/uffd.h"
#include "platform/platform.h"
#include "platform/sys.h"
#include "tier/zswap.h"

#include <errno.h>

#define HELD_NONE  1u
#define HELD_ENTRY 2u

bool spw__page_try(struct spw_space *s, uint32_t o, uint8_t *state)
{
	uint8_t now = __atomic_load_n(&s->state[o], __ATOMIC_RELAXED);

	if (now & SPW__BUSY || !__atomic_compare_exchange_n(&s->state[o], &now, now | SPW__BUSY, false,
							    __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return false;
	*state = now;
	return true;
}

uint8_t spw__page_lock(struct spw_space *s, uint32_t o)
{
	uint8_t state;

	for (unsigned spins = 0; !spw__page_try(s, o, &state); spins++)
		spw__plat_relax(spins);
	return state;
}

void spw__page_unlock(struct spw_space *s, uint32_t o, uint8_t state)
{
	__atomic_store_n(&s->state[o], state, __ATOMIC_RELEASE);
}

void spw__range_protect(const struct spw_space *s, uint64_t va, uint64_t bytes, bool on)
{
	int ret;

	while ((ret = spw__uffd_protect(s->uffd, (void *)(uintptr_t)va, bytes, on)) == -EAGAIN)
		spw__sys0(SYS_sched_yield);
	if (ret)
		spw__lib_die("cannot protect a page", -ret);
}

void spw__page_protect(const struct spw_space *s, uint32_t o, unsigned n, bool on)
{
	spw__range_protect(s, spw__page_va(s, o), (uint64_t)n * SPW_PAGE, on);
}

spw_entry_t spw__page_held(const struct spw_space *s, uint32_t o)
{
	uint32_t held = 0;

	if (__atomic_load_n(&s->leaf[o / SPW_CLUSTER].shared, __ATOMIC_ACQUIRE))
		held = s->held[o];
	return (spw_entry_t){held == 0 ? o : held == HELD_NONE ? SPW_ENTRY_NONE : held - HELD_ENTRY};
}

void spw__page_hold(struct spw_space *s, uint32_t o, spw_entry_t e)
{
	if (__atomic_load_n(&s->leaf[o / SPW_CLUSTER].shared, __ATOMIC_ACQUIRE))
		s->held[o] = e.idx == o ? 0 : e.idx == SPW_ENTRY_NONE ? HELD_NONE : e.idx + HELD_ENTRY;
}

int spw__page_entry(struct spw_space *s, uint32_t o, spw_entry_t *e)
{
	int ret = 0;

	*e = spw__page_held(s, o);
	if (e->idx != SPW_ENTRY_NONE)
		return 0;
	/* Once no clone holds its own any more, nobody but this page brings it to life again. */
	e->idx = o;
	if (spw_kind(s->layer, *e) != SPW_FREE)
		ret = spw_alloc(s->layer, e, 1);
	if (!ret)
		spw__page_hold(s, o, *e);
	return ret;
}

/* Under an entry that others hold, or for want of any other place: the cap has to give way. */
static void store_surely(struct spw_space *s, struct spw__seat *seat, spw_entry_t e, uint32_t o)
{
	const void *page = (const void *)(uintptr_t)spw__page_va(s, o);
	int ret;

	while ((ret = spw_store(s->layer, seat->work, e, page, o)) != 0) {
		if (ret == -ENOSPC && spw__pool_wait(s))
			continue;
		if (ret != -ENOSPC)
			spw__lib_die("cannot keep a page that a clone shares", -ret);
		seat->overs++;
		spw__zswap_set_size(s->zswap, UINT64_MAX);
	}
	seat->stored++;
}

uint8_t spw__page_let_go(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t state)
{
	spw_entry_t e = spw__page_held(s, o);

	if (e.idx == SPW_ENTRY_NONE)
		return state;
	if (state & SPW__FRAME && spw_count(s->layer, e) == 1) {
		if (spw_cache_del(s->layer, e, o, false))
			spw__lib_die("a page is not the frame of its entry", 0);
	} else {
		if (state & SPW__FRAME && state & SPW__BACKED)
			spw_cache_del(s->layer, e, o, true);
		else if (state & SPW__FRAME)
			store_surely(s, seat, e, o);
		spw_free(s->layer, &e, 1);
	}
	spw__page_hold(s, o, (spw_entry_t){e.idx == o && spw_kind(s->layer, e) == SPW_FREE ? o : SPW_ENTRY_NONE});
	return state & ~(SPW__FRAME | SPW__BACKED);
}

uint8_t spw__page_own(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t state)
{
	if (state & (SPW__BACKED | SPW__FRAME))
		state = spw__page_let_go(s, seat, o, state);
	return state & ~SPW__PROT;
}

int spw__page_store(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t *state)
{
	spw_entry_t e;
	int ret = spw__page_entry(s, o, &e);

	if (ret)
		return ret;
	ret = spw_store(s->layer, seat->work, e, (const void *)(uintptr_t)spw__page_va(s, o),
			*state & SPW__FRAME ? o : SPW_NO_FRAME);
	if (ret)
		return ret;
	*state = (*state | SPW__BACKED) & ~SPW__FRAME;
	seat->stored++;
	return 0;
}
