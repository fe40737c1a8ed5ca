/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another size for a region.
 *
 * In place where its leaves reach, or where the addresses behind them are free. Else the mapping moves, as with
 * mremap(2): the pages that are in go with it, their leaves get another address, and what is out stays where it is, for
 * no entry says where its page is mapped.
 *
 * A mapping that moves loses its registration, and with it the protection of pages that are clean. Nobody uses the
 * region meanwhile but who takes its pages out, so all of them are held.
 */
#include "host/library/library.h"
#include "platform/sys.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static uint64_t leaves(uint64_t span)
{
	return span / SPW__LEAF_BYTES;
}

/* Room for more clusters; none taken. */
static int widen(struct spw_region *r, uint64_t span)
{
	if (leaves(span) <= r->most)
		return 0;
	uint32_t *wider = spw__lib_map(leaves(span) * sizeof(*wider));

	if (!wider)
		return -ENOMEM;
	memcpy(wider, r->cluster, leaves(r->span) * sizeof(*wider));
	munmap(r->cluster, r->most * sizeof(*wider));
	r->cluster = wider;
	r->most = leaves(span);
	return 0;
}

static int shrink(struct spw_region *r, uint64_t bytes, uint64_t span)
{
	sigset_t signals;

	if (spw__region_has_pins(r, r->base + bytes, r->base + r->bytes))
		return -EBUSY;
	spw__region_discard(r, r->base + bytes, r->base + r->bytes);
	r->bytes = bytes;
	if (span == r->span)
		return 0;
	spw__signals_block(&signals);
	spw__region_say(r->base + span, r->span - span, NULL);
	spw__region_drop_leaves(r, r->base + span);
	munmap((void *)(uintptr_t)(r->base + span), r->span - span);
	pthread_sigmask(SIG_SETMASK, &signals, NULL);
	r->span = span;
	return 0;
}

/* The addresses behind it. */
static int extend(struct spw_region *r, uint64_t span)
{
	uint64_t end = r->base + r->span;
	long p = spw__sys6(SYS_mmap, (long)end, (long)(span - r->span), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != (long)end) {
		/* A kernel that does not know the flag takes the address for a hint. */
		if (p > 0 || p < -(long)SPW_PAGE)
			munmap((void *)p, span - r->span);
		return -EEXIST;
	}
	int ret = spw__region_prepare(r->space, end, span - r->span);

	if (ret)
		munmap((void *)(uintptr_t)end, span - r->span);
	return ret;
}

/* Every page of it. */
static void hold_all(struct spw_region *r, bool hold)
{
	struct spw_space *s = r->space;

	for (uint64_t i = 0; i < leaves(r->span); i++) {
		for (uint32_t p = 0; r->cluster[i] && p < SPW_CLUSTER; p++) {
			uint32_t o = (r->cluster[i] - 1) * SPW_CLUSTER + p;

			if (hold)
				s->state[o] = spw__page_lock(s, o) | SPW__BUSY;
			else
				spw__page_unlock(s, o, s->state[o] & ~SPW__BUSY);
		}
	}
}

/* The pages of the region are at `base` now, registered anew: whether they can be written to is to be as it was. */
static void settle(struct spw_region *r, uint64_t base)
{
	struct spw_space *s = r->space;

	for (uint64_t i = 0; i < leaves(r->span); i++) {
		uint32_t c = r->cluster[i] - 1;

		if (!r->cluster[i])
			continue;
		s->leaf[c].va = base + i * SPW__LEAF_BYTES;
		/* Before Linux 6.4 all of it must be one mapping, as a leaf is. */
		spw__range_protect(s, s->leaf[c].va, SPW__LEAF_BYTES, true);
		for (uint32_t o = c * SPW_CLUSTER; o < (c + 1) * SPW_CLUSTER; o++)
			s->state[o] |= s->state[o] & SPW__IN ? SPW__PROT : 0;
	}
}

/*
 * Leaf by leaf: what was made longer in place can be several mappings, of which mremap(2) takes one at a time. Nothing
 * is undone half way: where it fails, it is for want of mappings, and at the first.
 */
static int move_pages(uint64_t from, uint64_t to, uint64_t span)
{
	for (uint64_t at = 0; at < span; at += SPW__LEAF_BYTES) {
		if (mremap((void *)(uintptr_t)(from + at), SPW__LEAF_BYTES, SPW__LEAF_BYTES,
			   MREMAP_MAYMOVE | MREMAP_FIXED, (void *)(uintptr_t)(to + at)) != MAP_FAILED)
			continue;
		if (at)
			spw__lib_die("cannot move all of a region", errno);
		return -errno;
	}
	return 0;
}

/*
 * Addresses with a margin. The kernel makes one mapping of what was moved and a neighbour that is registered with the
 * same userfaultfd, and then takes the registration away from all of it (seen on Linux 6.18): the neighbour would read
 * zeros for what is out.
 */
struct apart {
	char *all;
	uint64_t bytes, base, span;
};

static int map_apart(struct apart *m, uint64_t span)
{
	m->span = span;
	m->bytes = span + 3 * SPW__LEAF_BYTES;
	m->all = mmap(NULL, m->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->all == MAP_FAILED)
		return -errno;
	m->base = ((uintptr_t)m->all / SPW__LEAF_BYTES + 2) * SPW__LEAF_BYTES;
	if (mmap((void *)(uintptr_t)m->base, span, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED)
		return 0;
	int ret = -errno;

	munmap(m->all, m->bytes);
	return ret;
}

static void free_margins(const struct apart *m)
{
	uint64_t before = m->base - (uintptr_t)m->all;

	munmap(m->all, before);
	munmap((void *)(uintptr_t)(m->base + m->span), m->bytes - before - m->span);
}

static int move(struct spw_region *r, uint64_t span)
{
	struct spw_space *s = r->space;
	uint64_t old = r->base;
	sigset_t signals;
	struct apart m = {0};
	int ret = map_apart(&m, span);

	if (ret)
		return ret;
	spw__signals_block(&signals);
	hold_all(r, true);
	/* As soon as the pages have moved, another region may come to where they were. */
	spw__region_say(old, r->span, NULL);
	ret = move_pages(old, m.base, r->span);
	if (ret) {
		spw__region_say(old, r->span, r);
		munmap((void *)(uintptr_t)m.base, span);
	} else {
		ret = spw__region_prepare(s, m.base, span);
		if (ret)
			spw__lib_die("cannot register a region that was moved", -ret);
		settle(r, m.base);
		r->base = m.base;
	}
	hold_all(r, false);
	free_margins(&m);
	pthread_sigmask(SIG_SETMASK, &signals, NULL);
	return ret;
}

static int grow(struct spw_region *r, uint64_t span)
{
	uint64_t more = leaves(span) - leaves(r->span);
	int ret = spw__leaves_take(r->space, more);
	sigset_t signals;

	if (ret)
		return ret;
	spw__signals_block(&signals);
	ret = widen(r, span);
	pthread_sigmask(SIG_SETMASK, &signals, NULL);
	if (ret == 0 && extend(r, span))
		ret = spw__region_has_pins(r, r->base, r->base + r->bytes) ? -EBUSY : move(r, span);
	if (ret) {
		spw__leaves_give(r->space, more);
		return ret;
	}
	spw__region_say(r->base, span, r);
	r->span = span;
	return 0;
}

int spw_region_resize(struct spw_region *r, size_t bytes)
{
	uint64_t whole = spw__round_up(bytes, SPW_PAGE);
	uint64_t span = spw__round_up(whole, SPW__LEAF_BYTES);
	int ret = 0;

	if (!bytes || span < bytes)
		return bytes ? -ENOMEM : -EINVAL;
	spw__handler_pass(r->space);
	if (whole < r->bytes)
		return shrink(r, whole, span);
	if (span > r->span)
		ret = grow(r, span);
	if (ret == 0)
		r->bytes = whole;
	return ret;
}
