/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions: the memory of a program that is a space's, and how an address finds its page.
 *
 * A fault comes with an address, in a signal handler, where no list may be walked that somebody else changes. So one
 * flat table, reserved over all user addresses, says for each leaf (2 MiB) which region it is of; it is the process's,
 * for the handler of SIGBUS is. The way back, from a position to its address, is one load from the leaf's record: pages
 * move with their leaf when a region is resized, and nothing that is out is touched.
 */
#include "host/library/library.h"
#include "host/uffd.h"
#include "platform/platform.h"
#include "platform/sys.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define USER_BITS 47
#define LEAVES    (1ull << (USER_BITS - 21))

static struct spw_region **region_of; /* A by address / SPW__LEAF_BYTES */

int spw__regions_init(void)
{
	struct spw_region **table = __atomic_load_n(&region_of, __ATOMIC_ACQUIRE), **none = NULL;

	if (table)
		return 0;
	table = spw__plat_reserve(LEAVES * sizeof(*table));
	if (!table)
		return -ENOMEM;
	/* What a child of fork(2) has at these addresses is not its parent's, whose pages a fault would be served. */
	madvise(table, LEAVES * sizeof(*table), MADV_WIPEONFORK);
	if (!__atomic_compare_exchange_n(&region_of, &none, table, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		spw__plat_release(table, LEAVES * sizeof(*table));
	return 0;
}

struct spw_region *spw__region_at(uint64_t va)
{
	struct spw_region **table = __atomic_load_n(&region_of, __ATOMIC_ACQUIRE);
	struct spw_region *r = NULL;

	if (table && va >> USER_BITS == 0)
		r = __atomic_load_n(&table[va / SPW__LEAF_BYTES], __ATOMIC_ACQUIRE);
	return r && va - r->base < r->bytes ? r : NULL;
}

void spw__region_say(uint64_t base, uint64_t span, struct spw_region *r)
{
	for (uint64_t va = base; va < base + span; va += SPW__LEAF_BYTES)
		__atomic_store_n(&region_of[va / SPW__LEAF_BYTES], r, __ATOMIC_RELEASE);
}

void *spw__lib_map(size_t bytes)
{
	long p = spw__sys6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p < 0 && p > -(long)SPW_PAGE ? NULL : (void *)p;
}

bool spw__position_if(struct spw_region *r, uint64_t va, uint32_t *o)
{
	uint32_t c = __atomic_load_n(&r->cluster[(va - r->base) / SPW__LEAF_BYTES], __ATOMIC_ACQUIRE);

	*o = (c - 1) * SPW_CLUSTER + (uint32_t)((va - r->base) / SPW_PAGE) % SPW_CLUSTER;
	return c;
}

bool spw__position_next(struct spw_region *r, uint64_t *va, uint64_t to, uint32_t *o)
{
	for (; *va < to; *va = (*va | (SPW__LEAF_BYTES - 1)) + 1)
		if (spw__position_if(r, *va, o))
			return true;
	return false;
}

void spw__leaves_give(struct spw_space *s, uint64_t n)
{
	__atomic_sub_fetch(&s->used, n, __ATOMIC_RELAXED);
}

/* Give back the leaves whose entries nobody holds any more. */
static void bury(struct spw_space *s)
{
	spw__spin_lock(&s->zombie_lock);
	for (uint32_t *link = &s->zombies; *link;) {
		struct spw__leaf *l = &s->leaf[*link - 1];

		if (spw_cluster_give(s->layer, *link - 1) == -EBUSY) {
			link = &l->next;
		} else {
			*link = l->next;
			spw__leaves_give(s, 1);
		}
	}
	spw__spin_unlock(&s->zombie_lock);
}

int spw__leaves_take(struct spw_space *s, uint64_t n)
{
	sigset_t old;

	for (unsigned again = 0; again < 2; again++) {
		if (__atomic_add_fetch(&s->used, n, __ATOMIC_RELAXED) <= s->leaves)
			return 0;
		spw__leaves_give(s, n);
		/* Clones that held entries of regions that are gone may have let go of the last. */
		spw__signals_block(&old);
		bury(s);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	return -ENOMEM;
}

static int make_leaf(struct spw_region *r, uint64_t number)
{
	struct spw_space *s = r->space;
	uint32_t c = 0;
	int ret = 0;

	spw__spin_lock(&r->lock);
	if (!r->cluster[number]) {
		ret = spw_cluster_take(s->layer, &c);
		if (!ret) {
			spw_cluster_allow(s->layer, c, __atomic_load_n(&r->tiers, __ATOMIC_RELAXED));
			s->leaf[c].va = r->base + number * SPW__LEAF_BYTES;
			__atomic_store_n(&s->leaf[c].shared, 0, __ATOMIC_RELEASE);
			__atomic_store_n(&r->cluster[number], c + 1, __ATOMIC_RELEASE);
		}
	}
	spw__spin_unlock(&r->lock);
	return ret;
}

int spw__position(struct spw_region *r, uint64_t va, uint32_t *o)
{
	int ret = 0;

	if (spw__position_if(r, va, o))
		return 0;
	ret = make_leaf(r, (va - r->base) / SPW__LEAF_BYTES);
	if (ret)
		return ret;
	spw__position_if(r, va, o);
	return 0;
}

/* ---- the mapping ---- */

/* Registered last: with what was mapped before, nothing faults. */
int spw__region_prepare(const struct spw_space *s, uint64_t base, uint64_t span)
{
	void *p = (void *)(uintptr_t)base;

	if (madvise(p, span, MADV_DONTFORK))
		return -errno;
	madvise(p, span, MADV_NOHUGEPAGE); /* pages come and go one by one; a kernel without huge pages refuses */
	return spw__uffd_register(s->uffd, p, span, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
}

/* Addresses that begin with a leaf. 0: none. */
static uint64_t map_leaves(uint64_t span)
{
	uint64_t at = (uintptr_t)spw__lib_map(span), base;

	/* Beside another region, as often as not: then the kernel makes one mapping of both, and has few of them. */
	if (at % SPW__LEAF_BYTES == 0)
		return at;
	munmap((void *)(uintptr_t)at, span);
	at = (uintptr_t)spw__lib_map(span + SPW__LEAF_BYTES);
	base = spw__round_up(at, SPW__LEAF_BYTES);
	if (!at)
		return 0;
	if (base != at)
		munmap((void *)(uintptr_t)at, base - at);
	munmap((void *)(uintptr_t)(base + span), at + SPW__LEAF_BYTES - base);
	return base;
}

int spw__region_map(const struct spw_space *s, uint64_t span, uint64_t *base)
{
	*base = map_leaves(span);
	if (!*base)
		return -ENOMEM;
	int ret = spw__region_prepare(s, *base, span);

	if (ret)
		munmap((void *)(uintptr_t)*base, span);
	return ret;
}

static struct spw_region *make_record(struct spw_space *s, uint64_t bytes, uint64_t span)
{
	struct spw_region *r = spw__lib_map(sizeof(*r));

	if (!r)
		return NULL;
	*r = (struct spw_region){.space = s,
				 .bytes = spw__round_up(bytes, SPW_PAGE),
				 .span = span,
				 .most = span / SPW__LEAF_BYTES,
				 .tiers = SPW__ALL_TIERS};
	r->cluster = spw__lib_map(r->most * sizeof(*r->cluster));
	if (r->cluster)
		return r;
	munmap(r, sizeof(*r));
	return NULL;
}

static void free_record(struct spw_region *r)
{
	munmap(r->cluster, r->most * sizeof(*r->cluster));
	munmap(r, sizeof(*r));
}

int spw_region_create(struct spw_space *s, size_t bytes, struct spw_region **out)
{
	uint64_t span = spw__round_up(bytes, SPW__LEAF_BYTES);
	int ret = -ENOMEM;

	if (!bytes)
		return -EINVAL;
	if (span < bytes || spw__leaves_take(s, span / SPW__LEAF_BYTES))
		return -ENOMEM;
	struct spw_region *r = make_record(s, bytes, span);

	if (r)
		ret = spw__region_map(s, span, &r->base);
	if (ret) {
		if (r)
			free_record(r);
		spw__leaves_give(s, span / SPW__LEAF_BYTES);
		return ret;
	}
	spw__region_say(r->base, span, r);
	__atomic_add_fetch(&s->regions, 1, __ATOMIC_RELEASE);
	*out = r;
	return 0;
}

/* ---- discarding ---- */

/* [from, to) of one leaf: as if it had never been touched. */
static void discard_pages(struct spw_space *s, struct spw__seat *seat, uint32_t from, uint32_t to)
{
	uint64_t resident = 0;

	for (uint32_t o = from; o < to;) {
		uint32_t batch[SPW__BATCH];
		unsigned n = 0, in = 0;
		uint8_t state[SPW__BATCH];

		for (; o < to && n < SPW__BATCH; o++, n++) {
			batch[n] = o;
			state[n] = spw__page_let_go(s, seat, o, spw__page_lock(s, o));
		}
		uint32_t there[SPW__BATCH];

		for (unsigned i = 0; i < n; i++)
			if (state[i] & SPW__IN)
				there[in++] = batch[i];
		spw__drop(s, there, in);
		resident += in;
		for (unsigned i = 0; i < n; i++) {
			if (state[i] & SPW__PINNED)
				__atomic_sub_fetch(&s->pinned, 1, __ATOMIC_RELAXED);
			s->pins[batch[i]] = 0;
			spw__page_unlock(s, batch[i], state[i] & SPW__QUEUED);
		}
	}
	spw__room_give(s, resident);
}

void spw__region_discard(struct spw_region *r, uint64_t from, uint64_t to)
{
	/* Who finds no room now has to wait for it, not to take it. */
	__atomic_store_n(&r->space->full, 0, __ATOMIC_RELEASE);
	for (uint64_t va = from, end; va < to; va = end) {
		struct spw__call c;
		uint32_t o;

		end = (va / SPW__LEAF_BYTES + 1) * SPW__LEAF_BYTES;
		end = end < to ? end : to;
		if (!spw__position_if(r, va, &o))
			continue;
		spw__call_begin(r->space, &c);
		discard_pages(r->space, c.seat, o, o + (uint32_t)((end - va) / SPW_PAGE));
		spw__call_end(r->space, &c);
	}
}

/* The leaves from the one of `from` on, which nothing is in any more. */
void spw__region_drop_leaves(struct spw_region *r, uint64_t from)
{
	struct spw_space *s = r->space;

	for (uint64_t i = (from - r->base) / SPW__LEAF_BYTES; i < r->span / SPW__LEAF_BYTES; i++) {
		uint32_t c = r->cluster[i];

		if (!c) {
			spw__leaves_give(s, 1);
			continue;
		}
		__atomic_store_n(&r->cluster[i], 0, __ATOMIC_RELEASE);
		if (s->leaf[c - 1].shared)
			memset(&s->held[(size_t)(c - 1) * SPW_CLUSTER], 0, SPW_CLUSTER * sizeof(*s->held));
		spw__spin_lock(&s->zombie_lock);
		s->leaf[c - 1].next = s->zombies;
		s->zombies = c;
		spw__spin_unlock(&s->zombie_lock);
	}
	bury(s);
}

void spw_region_destroy(struct spw_region *r)
{
	struct spw_space *s = r->space;
	sigset_t signals;

	spw__handler_pass(s);
	spw__region_discard(r, r->base, r->base + r->bytes);
	spw__signals_block(&signals);
	spw__region_say(r->base, r->span, NULL);
	spw__region_drop_leaves(r, r->base);
	munmap((void *)(uintptr_t)r->base, r->span);
	free_record(r);
	pthread_sigmask(SIG_SETMASK, &signals, NULL);
	__atomic_sub_fetch(&s->regions, 1, __ATOMIC_RELEASE);
	spw__kick(s);
}

void *spw_region_address(const struct spw_region *r)
{
	return (void *)(uintptr_t)r->base;
}

size_t spw_region_size(const struct spw_region *r)
{
	return r->bytes;
}

/* ---- tiers ---- */

int spw_region_allow(struct spw_region *r, uint32_t tiers)
{
	sigset_t old;
	int ret = 0;

	if (tiers & ~SPW__ALL_TIERS || !(tiers & 1))
		return -EINVAL;
	spw__signals_block(&old);
	spw__spin_lock(&r->lock);
	if (r->cloned || tiers & ~r->tiers)
		ret = -EPERM;
	else
		__atomic_store_n(&r->tiers, tiers, __ATOMIC_RELAXED);
	for (uint64_t i = 0; !ret && i < r->span / SPW__LEAF_BYTES; i++)
		if (r->cluster[i])
			ret = spw_cluster_allow(r->space->layer, r->cluster[i] - 1, tiers);
	spw__spin_unlock(&r->lock);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

/* ---- advice and figures ---- */

bool spw__region_has(const struct spw_region *r, size_t offset, size_t bytes)
{
	return offset % SPW_PAGE == 0 && bytes % SPW_PAGE == 0 && offset <= r->bytes && bytes <= r->bytes - offset;
}

bool spw__region_has_pins(struct spw_region *r, uint64_t from, uint64_t to)
{
	uint32_t o;

	for (uint64_t va = from; spw__position_next(r, &va, to, &o); va += SPW_PAGE) {
		if (__atomic_load_n(&r->space->state[o], __ATOMIC_RELAXED) & SPW__PINNED)
			return true;
	}
	return false;
}

static void fetch(struct spw_region *r, uint64_t from, uint64_t to)
{
	struct spw_space *s = r->space;
	uint64_t room = spw__budget(s) / 4 * 3;

	uint32_t o;

	for (uint64_t va = from; room && spw__position_next(r, &va, to, &o); va += SPW_PAGE) {
		struct spw__call c;

		if (__atomic_load_n(&s->state[o], __ATOMIC_RELAXED) & SPW__IN)
			continue;
		spw__call_begin(s, &c);
		spw__lib_fault(r, c.seat, va, false);
		spw__call_end(s, &c);
		room--;
	}
}

static void chill(struct spw_region *r, uint64_t from, uint64_t to)
{
	struct spw_space *s = r->space;
	uint8_t state[SPW__BATCH];
	int ret = 0;

	for (uint64_t va = from, begin = va; va < to && !ret; begin = va) {
		struct spw__call c;
		unsigned n = 0;

		spw__call_begin(s, &c);
		for (uint32_t o; n < SPW__BATCH && spw__position_next(r, &va, to, &o); va += SPW_PAGE) {
			state[n] = spw__page_lock(s, o);
			if (state[n] & SPW__IN && !(state[n] & SPW__PINNED))
				c.seat->position[n++] = o;
			else
				spw__page_unlock(s, o, state[n]);
		}
		ret = spw__take_out(s, c.seat, c.seat->position, state, n);
		spw__call_end(s, &c);
		if (ret == -ENOSPC && spw__pool_wait(s)) {
			ret = 0;
			va = begin;
		}
	}
}

int spw_region_advise(struct spw_region *r, size_t offset, size_t bytes, enum spw_advice advice)
{
	uint64_t from = r->base + offset, to = from + bytes;

	if (!spw__region_has(r, offset, bytes))
		return -EINVAL;
	switch (advice) {
	case SPW_NORMAL:
	case SPW_RANDOM:
		__atomic_store_n(&r->advice, advice, __ATOMIC_RELAXED);
		return 0;
	case SPW_WILLNEED:
		fetch(r, from, to);
		return 0;
	case SPW_COLD:
		chill(r, from, to);
		return 0;
	case SPW_DISCARD:
		if (spw__region_has_pins(r, from, to))
			return -EBUSY;
		spw__region_discard(r, from, to);
		return 0;
	}
	return -EINVAL;
}

static void add_page(const struct spw_space *s, uint32_t o, struct spw_region_stats *st)
{
	uint8_t state = __atomic_load_n(&s->state[o], __ATOMIC_RELAXED);
	spw_entry_t e = spw__page_held(s, o);
	bool out = !(state & SPW__IN) && spw_kind(s->layer, e) != SPW_FREE;

	st->resident_bytes += state & SPW__IN ? SPW_PAGE : 0;
	st->pinned_bytes += state & SPW__PINNED ? SPW_PAGE : 0;
	st->out_bytes += out ? SPW_PAGE : 0;
	if ((out || state & (SPW__BACKED | SPW__FRAME)) && spw_count(s->layer, e) > 1)
		st->shared_bytes += SPW_PAGE;
}

void spw_region_stats(struct spw_region *r, struct spw_region_stats *out, size_t size)
{
	struct spw_region_stats st = {.bytes = r->bytes};
	sigset_t old;
	uint32_t o;

	spw__signals_block(&old);
	for (uint64_t va = r->base; spw__position_next(r, &va, r->base + r->bytes, &o); va += SPW_PAGE)
		add_page(r->space, o, &st);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	spw__stats_give(out, size, &st, sizeof(st));
}
