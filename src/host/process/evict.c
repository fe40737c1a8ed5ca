/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking cold pages out of the program.
 *
 * User space has no accessed bits. So the sweep takes pages in order of address, a run of 64 KiB at a time, and lets
 * them prove that they are in use by being taken back from their frame; such a run is left alone for the next sweeps
 * (its age). What is present is asked of the kernel a leaf at a time (/proc/self/pagemap).
 *
 * Safety rests on one call. UFFDIO_MOVE through the first userfaultfd fails with -EAGAIN from the moment the program
 * begins to unmap, remap, discard or fork a registered range until we have read the event about it, and we read events
 * only under the lock that is held here. So what the move takes is what the page table says: the page of a range
 * that is still registered. The one gap, a madvise(2) that was let go but has not run, is event.c's quarantine.
 */
#include "host/process/evict.h"
#include "host/process/agent.h"
#include "host/process/cow.h"
#include "host/process/pagemap.h"
#include "host/uffd.h"
#include "platform/sys.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* The kernel's ioctl to search a page map (Linux 6.7), newer than Debian 12's headers: struct pm_scan_arg. */
#define PAGEMAP_SCAN 0xc0606610
#define SCAN_FILE    (1u << 2)
#define SCAN_PRESENT (1u << 3)
#define SCAN_ZERO    (1u << 5)
#define SPAN_BYTES   (64u * SPW_PAGE) /* swept at a time: pages that a mask holds */
#define AGE_STUCK    8                /* sweeps to leave a run alone that the kernel would not move */

/* The pages, of up to 64, that have all of `bits` in the page map. */
static uint64_t having(const uint64_t *pm, unsigned n, uint64_t bits)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < n; i++) {
		if ((pm[i] & bits) == bits)
			mask |= 1ull << i;
	}
	return mask;
}

/* The pages, of up to 64, that are in memory, or under migration. */
static uint64_t there(const uint64_t *pm, unsigned n)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < n; i++) {
		if (spw__pm_there(pm[i]))
			mask |= 1ull << i;
	}
	return mask;
}

void spw__evict_record(struct spw__agent *a, uint64_t va, uint64_t mask, unsigned n)
{
	struct spw__frames *f = &a->frames;
	unsigned out = 0;

	for (unsigned i = 0; i < n; i++) {
		uint32_t frame = (uint32_t)((f->head + i) % SPW_FRAMES);

		if (!(mask >> i & 1))
			continue;
		spw_entry_t e;
		int ret = spw__pt_entry(&a->pt, va + (uint64_t)i * SPW_PAGE, &e);

		ret = ret ? ret : spw_cache_add(a->space, e, frame);
		if (ret)
			spw__agent_die("cannot record a page that it took out", -ret);
		__atomic_store_n(&f->owner[frame], e.idx, __ATOMIC_RELAXED);
		f->home[frame] = va + (uint64_t)i * SPW_PAGE;
		out++;
	}
	spw__pt_went_out(&a->pt, va, out);
	f->head += n;
}

/*
 * Which of the n frames from `first` on hold a page. Asked after the move, of the frames: what the program's range
 * showed before it may have changed meanwhile (a page of zeros written to, a page under migration).
 */
static uint64_t arrived(const struct spw__agent *a, uint32_t first, unsigned n)
{
	uint64_t pm[64];

	if (!spw__pm_read(a, (uintptr_t)spw__frame_at(&a->frames, first), pm, n))
		spw__agent_die("cannot read its own page map", EIO);
	return there(pm, n);
}

/*
 * Which of n pages went over to the frames from `first` on, when the kernel counts `counted`. Linux 6.18 does not count
 * pages that it moves after it had to look at one again, and then says EEXIST, for they are there. A page that went is
 * in its frame and no longer at va: what else is in a frame has been put there by somebody who looked at it.
 */
static uint64_t went(const struct spw__agent *a, uint64_t va, uint32_t first, unsigned n, unsigned counted)
{
	uint64_t over = arrived(a, first, n), pm[64];

	if (counted == n || !(over >> counted))
		return over;
	if (!spw__pm_read(a, va, pm, n))
		spw__agent_die("cannot read its own page map", EIO);

	return over & ~(there(pm, n) >> counted << counted);
}

/*
 * Move n neighbouring pages of one leaf. Pages gone over, or -errno if none: -EAGAIN an event waits, -ENOSPC no room in
 * the ring, else the kernel will not move them.
 */
static int take(struct spw__agent *a, uint64_t va, unsigned n)
{
	struct spw__frames *f = &a->frames;
	uint32_t first = (uint32_t)(f->head % SPW_FRAMES);

	if (f->head - f->tail + n > SPW_FRAMES - SPW_FRAMES_BATCH)
		return -ENOSPC;
	if (first + n > SPW_FRAMES) {
		f->head += SPW_FRAMES - first;
		return take(a, va, n);
	}
	if (!a->move)
		return spw__copy_take(a, va, n);
	int ret = spw__pt_reserve(&a->pt, va);

	if (ret)
		return ret;
	long done = spw__uffd_move(a->uffd, spw__frame_at(f, first), (void *)(uintptr_t)va, (size_t)n * SPW_PAGE);
	unsigned counted = done > 0 ? (unsigned)((uint64_t)done / SPW_PAGE) : 0;
	uint64_t over = went(a, va, first, n, counted);
	unsigned moved = counted < n && over >> counted ? 64u - (unsigned)__builtin_clzll(over) : counted;

	if (moved)
		spw__evict_record(a, va, over, moved);
	else if (done == -EEXIST)
		f->head++; /* a frame that is not empty is nobody's: past it */
	spw__pt_settle(&a->pt, va);
	return moved ? (int)moved : done ? (int)done : -EBUSY;
}

/* The pages, of n at va, whose run has not been in use lately. Every other run grows a step older. */
static uint64_t cold(struct spw__agent *a, uint64_t va, unsigned n)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < n;) {
		uint64_t at = va + (uint64_t)i * SPW_PAGE;
		unsigned stop = i + (unsigned)((SPW_RUN_BYTES - at % SPW_RUN_BYTES) / SPW_PAGE);
		uint8_t *age = spw__pt_age(&a->pt, at);

		stop = stop < n ? stop : n;
		if (*age)
			(*age)--;
		else
			mask |= (~0ull >> (64 - (stop - i))) << i;
		i = stop;
	}
	return mask;
}

/*
 * The pages, of n at va, that are memory (not the zero page) and are not ours alone. Only a kernel that has UFFDIO_MOVE
 * can tell.
 */
static uint64_t shared(const struct spw__agent *a, uint64_t va, unsigned n, uint64_t exclusive)
{
	struct {
		uint64_t start, end, categories;
	} found[64];
	struct {
		uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
		uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
	} arg = {.size = sizeof(arg),
		 .start = va,
		 .end = va + (uint64_t)n * SPW_PAGE,
		 .vec = (uintptr_t)found,
		 .vec_len = 64,
		 .category_inverted = SCAN_FILE | SCAN_ZERO,
		 .category_mask = SCAN_PRESENT | SCAN_FILE | SCAN_ZERO,
		 .return_mask = SCAN_PRESENT};
	long count = spw__sys3(SYS_ioctl, a->pagemap_fd, PAGEMAP_SCAN, &arg);
	uint64_t mask = 0;

	for (long i = 0; i < count; i++) {
		for (uint64_t at = found[i].start; at < found[i].end; at += SPW_PAGE)
			mask |= 1ull << ((at - va) / SPW_PAGE);
	}
	return mask & ~exclusive;
}

/*
 * Up to 64 neighbouring pages of one leaf. As few calls as can be: each one that moves something interrupts every CPU
 * that the program runs on. Pages taken, or -EAGAIN / -ENOSPC / -ENOMEM.
 */
static int sweep_span(struct spw__agent *a, uint64_t va, const uint64_t *pm, unsigned n)
{
	/* Worth taking: ours alone, which neither a fork-shared page nor the zero page is. */
	uint64_t mask = having(pm, n, SPW_PM_PRESENT | SPW_PM_EXCLUSIVE), present = having(pm, n, SPW_PM_PRESENT);
	uint64_t theirs = a->shared_left && mask != present ? shared(a, va, n, mask) : 0;
	uint64_t open = mask | theirs ? cold(a, va, n) : 0;
	int taken = 0;

	theirs &= open;
	if (theirs) {
		unsigned first = (unsigned)__builtin_ctzll(theirs);
		uint64_t here = va + (uint64_t)first * SPW_PAGE;

		if (here != a->stuck) {
			uint64_t run = ~(theirs >> first);

			a->busy = here;
			a->busy_bytes = (uint64_t)(run ? __builtin_ctzll(run) : 64) * SPW_PAGE;
			return 0;
		}
	}
	mask &= open;
	for (unsigned at = 0; mask >> at;) {
		at += (unsigned)__builtin_ctzll(mask >> at);
		uint64_t here = va + (uint64_t)at * SPW_PAGE, closed = ~(open >> at);
		uint64_t wanted = closed ? mask >> at & ((closed & -closed) - 1) : mask >> at;

		/* A move takes all that lies between, too; a copy must find every page there. */
		n = a->move   ? 64u - (unsigned)__builtin_clzll(wanted)
		    : ~wanted ? (unsigned)__builtin_ctzll(~wanted)
			      : 64u;
		int ret = take(a, here, n);

		if (ret == -EAGAIN || ret == -ENOSPC || ret == -ENOMEM)
			return taken ? taken : ret;
		if (ret == -EBUSY && a->move && here != a->stuck) {
			a->busy = here;
			a->busy_bytes = (uint64_t)(~wanted ? __builtin_ctzll(~wanted) : 64) * SPW_PAGE;
			return taken;
		}
		if (ret < 0) {
			*spw__pt_age(&a->pt, here) = AGE_STUCK;
			ret = a->move ? 1 : (int)n; /* what stays: go on behind it */
		} else {
			taken += __builtin_popcountll(wanted & (~0ull >> (64 - ret)));
		}
		at += (unsigned)ret;
		if (at >= 64)
			break;
	}
	return taken;
}

/* Sweep on from the hand through the rest of its leaf. Pages taken, or -EAGAIN / -ENOSPC. *wrapped on the way round. */
static int sweep_leaf(struct spw__agent *a, unsigned wanted, bool *wrapped)
{
	const struct spw__region *g = spw__regions_at(&a->regions, a->hand);
	static uint64_t pm[SPW_CLUSTER]; /* one sweeper at a time, under the lock */
	int taken = 0;

	if (a->owed_count && !spw__uffd_changing(a->uffd, a->ctl))
		spw__event_forget_owed(a);
	if (!g) {
		a->hand = 0;
		*wrapped = true;
		return 0;
	}
	uint64_t va = a->hand > g->start ? a->hand : g->start;
	uint64_t end = (va / SPW_LEAF_BYTES + 1) * SPW_LEAF_BYTES;

	end = end < g->end ? end : g->end;
	a->hand = end;
	if (!spw__event_clear(a, va, end))
		return 0;
	if (!spw__pm_read(a, va, pm, (end - va) / SPW_PAGE))
		return 0;
	for (uint64_t at = va; at < end;) {
		uint64_t stop = (at / SPAN_BYTES + 1) * SPAN_BYTES;

		stop = stop < end ? stop : end;
		int ret = sweep_span(a, at, pm + (at - va) / SPW_PAGE, (unsigned)((stop - at) / SPW_PAGE));

		if (ret < 0) {
			a->hand = at;
			return taken ? taken : ret;
		}
		taken += ret;
		if (a->busy)
			break; /* the hand comes back here */
		at = stop;
		/* A copy lets the lock go: what the page map said of the rest may be over. */
		if (taken >= (int)wanted || (ret && !a->move)) {
			a->hand = at;
			break;
		}
	}
	return taken;
}

/*
 * The kernel keeps a page that a fork shared marked as such until it is next written, even when the other side is long
 * gone, and does not move it. Ask for write faults that write nothing, then try again once. (A page pinned for I/O
 * stays as it is.)
 * The lock is not held: if the page went meanwhile, the handler serves the fault. Of a write it must not have to, for
 * writes wait for the room that is to be made here.
 */
static void unshare(struct spw__agent *a)
{
	/*
	 * What is taken out here is one copy less, and the other side's part of it. While the program changes its
	 * mappings it cannot be opened, and must not be written to: the handler could not serve that either, and this
	 * thread would not read the event.
	 */
	if (a->guarded && spw__cow_open(a, a->busy, a->busy_bytes, a->busy_bytes / 2)) {
		a->busy = 0;
		return;
	}
	spw__sys3(SYS_madvise, a->busy, a->busy_bytes, MADV_POPULATE_WRITE);
	a->hand = a->busy / SPW_RUN_BYTES * SPW_RUN_BYTES;
	a->stuck = a->busy;
	a->busy = 0;
}

unsigned spw__evict(struct spw__agent *a, unsigned pages, bool may_fault)
{
	unsigned taken = 0, rounds = 0;
	bool wrapped = false;

	/* Ages are at most AGE_STUCK, so some sweeps later even a hot page goes if nothing else does. */
	while (taken < pages && rounds < 2) {
		spw__lock(&a->lock);
		int ret = sweep_leaf(a, pages - taken, &wrapped);

		if (ret == -EAGAIN)
			spw__fault_drain(a);
		spw__unlock(&a->lock);
		if (ret == -EAGAIN)
			spw__sys0(SYS_sched_yield); /* the program's thread has to run before moves work again */
		if (a->busy && !may_fault)
			return taken + (ret > 0 ? (unsigned)ret : 0);
		if (a->busy)
			unshare(a);
		if (ret == -ENOSPC || ret == -ENOMEM)
			break;
		taken += ret > 0 ? (unsigned)ret : 0;
		a->own += ret > 0 ? (unsigned)ret : 0;
		if (wrapped) {
			a->own_last = a->own;
			a->own = 0;
			rounds++;
		}
		wrapped = false;
	}
	return taken;
}

/* Put one page back; it is in `frame`. False: it has been moved to another address meanwhile. */
static bool undo_one(struct spw__agent *a, uint64_t va, spw_entry_t e, uint32_t frame)
{
	for (;;) {
		int ret = spw__frame_return(a, va, e, frame);

		if (ret == 0) {
			spw__uffd_wake(a->uffd, (void *)(uintptr_t)va, SPW_PAGE);
			spw__pt_came_in(&a->pt, va, 1);
			return true;
		}
		/*
		 * The mapping may be gone and the event about it still to come: the kernel looks for the mapping first.
		 */
		bool changing = ret == -EAGAIN || (ret == -ENOENT && spw__uffd_changing(a->uffd, a->ctl));

		spw__fault_drain(a);
		spw__sys0(SYS_sched_yield);
		if (spw_kind(a->space, e) != SPW_FRAME)
			return true;
		if (spw__pt_lookup(&a->pt, va).idx != e.idx)
			return false;
		if (!changing)
			spw__agent_die("cannot put a page back before a fork", -ret);
	}
}

/* Every page that is still where it was taken from. Whether others are left. */
static bool undo_ring(struct spw__agent *a)
{
	struct spw__frames *f = &a->frames;
	bool strays = false;
	uint32_t now;

	for (uint64_t pos = f->tail; pos < f->head; pos++) {
		uint32_t frame = (uint32_t)(pos % SPW_FRAMES);
		spw_entry_t e = {f->owner[frame]};

		if (e.idx == SPW_ENTRY_NONE || spw_cache_get(a->space, e, &now) || now != frame)
			continue;
		if (spw__pt_lookup(&a->pt, f->home[frame]).idx != e.idx || !undo_one(a, f->home[frame], e, frame))
			strays = true;
	}
	return strays;
}

/* A page that mremap(2) moved since is found only from its new address. */
static void undo_strays(struct spw__agent *a)
{
	uint32_t frame;

	for (uint32_t i = 0; i < a->regions.count; i++) {
		struct spw__region g = a->regions.at[i];

		for (uint64_t va = g.start; (va = spw__pt_next_out(&a->pt, va, g.end)) < g.end; va += SPW_PAGE) {
			spw_entry_t e = spw__pt_lookup(&a->pt, va);

			if (spw_cache_get(a->space, e, &frame) == 0)
				undo_one(a, va, e, frame);
		}
	}
}

void spw__evict_undo(struct spw__agent *a)
{
	/* Again, for the program may go on moving them. */
	while (undo_ring(a))
		undo_strays(a);
}
