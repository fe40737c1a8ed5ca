/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins: pages that the kernel may use.
 *
 * The kernel does not fault on behalf of a program whose faults come to itself: a system call that meets a page which
 * is out, or writes to one that is write-protected, fails with EFAULT. Nor may a page go while a device writes to it.
 * So a pinned page is in, may be written, and stays.
 */
#include "host/library/library.h"
#include "platform/platform.h"

#include <errno.h>

#define PINS_MOST   UINT8_MAX
#define PINNED_PART 2u /* a space has at most its budget / this pinned */

/* 0, -EDQUOT: too many pins; else as spw__lib_bring(). */
static int pin_page(struct spw_space *s, struct spw__seat *seat, uint32_t o)
{
	spw_slot_t where;
	int ret = 0;

	spw__room_take(s, seat, 1);
	uint8_t state = spw__page_lock(s, o);
	bool came = !(state & SPW__IN);

	if (s->pins[o] == PINS_MOST)
		ret = -EDQUOT;
	else if (came)
		ret = spw__lib_bring(s, seat, o, &state, true, &where);
	if (ret == 0) {
		if (state & SPW__PROT) {
			state = spw__page_own(s, seat, o, state);
			spw__page_protect(s, o, 1, false);
		}
		state |= SPW__PINNED;
		if (!s->pins[o]++)
			__atomic_add_fetch(&s->pinned, 1, __ATOMIC_RELAXED);
	}
	spw__page_unlock(s, o, state);
	if (ret || !came)
		spw__room_give(s, 1);
	return ret;
}

/* One pin of it less. */
static void unpin_page(struct spw_space *s, uint32_t o)
{
	uint8_t state = spw__page_lock(s, o);

	if (s->pins[o] && !--s->pins[o]) {
		__atomic_sub_fetch(&s->pinned, 1, __ATOMIC_RELAXED);
		state &= ~SPW__PINNED;
		if (!(state & SPW__QUEUED))
			spw__queue_push(s, &o, &state, 1);
		state |= SPW__QUEUED;
	}
	spw__page_unlock(s, o, state);
}

static void unpin(struct spw_region *r, uint64_t from, uint64_t to)
{
	uint32_t o;

	for (uint64_t va = from; spw__position_next(r, &va, to, &o); va += SPW_PAGE)
		unpin_page(r->space, o);
}

/* Pages of the range that are not pinned yet. */
static uint64_t unpinned(struct spw_region *r, uint64_t from, uint64_t to)
{
	uint64_t n = 0;
	uint32_t o;

	for (uint64_t va = from; va < to; va += SPW_PAGE)
		n += !spw__position_if(r, va, &o) || !__atomic_load_n(&r->space->pins[o], __ATOMIC_RELAXED);
	return n;
}

int spw_region_pin(struct spw_region *r, size_t offset, size_t bytes)
{
	struct spw_space *s = r->space;
	uint64_t from = r->base + offset, va = from;
	int ret = 0;

	if (!spw__region_has(r, offset, bytes))
		return -EINVAL;
	if (__atomic_load_n(&s->pinned, __ATOMIC_RELAXED) + unpinned(r, from, from + bytes) >
	    spw__budget(s) / PINNED_PART)
		return -ENOMEM;
	while (va < from + bytes && !ret) {
		struct spw__call c;
		uint32_t o;

		spw__call_begin(s, &c);
		ret = spw__position(r, va, &o);
		for (unsigned spins = 0; !ret && (ret = pin_page(s, c.seat, o)) == -EAGAIN; ret = 0)
			spw__plat_relax(spins++);
		if (ret)
			unpin(r, from, va);
		spw__call_end(s, &c);
		va += SPW_PAGE;
	}
	return ret == -EDQUOT ? -EAGAIN : ret;
}

int spw_region_unpin(struct spw_region *r, size_t offset, size_t bytes)
{
	struct spw__call c;

	if (!spw__region_has(r, offset, bytes))
		return -EINVAL;
	spw__call_begin(r->space, &c);
	unpin(r, r->base + offset, r->base + offset + bytes);
	spw__call_end(r->space, &c);
	return 0;
}
