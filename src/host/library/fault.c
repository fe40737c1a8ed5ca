/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page that is missing, or that is written for the first time.
 *
 * The fault is on the thread that wants the page, so nobody is woken and the bytes are in its cache; what is left to
 * save is faults. Where they follow each other the neighbours come along, decompressed side by side and put in place
 * by one system call. What was read is put in place write-protected, for its stored copy to stay good; what is written
 * is not.
 *
 * Pages are put in place by UFFDIO_COPY, never written to where they will be: until they are whole another thread must
 * not see them.
 */
#include "host/library/library.h"
#include "host/uffd.h"
#include "platform/platform.h"
#include "platform/sys.h"

#include <errno.h>
#include <string.h>

#define FIRST_WINDOW 4u /* pages, when two faults followed each other */

/* ---- readahead ---- */

/* How many pages, from the one at va on, this fault is to bring. */
static unsigned window(struct spw_region *r, uint64_t va)
{
	if (__atomic_load_n(&r->advice, __ATOMIC_RELAXED) == SPW_RANDOM)
		return 1;
	for (unsigned i = 0; i < SPW__LIB_STREAMS; i++) {
		struct spw__stream *st = &r->stream[i];
		uint32_t w = __atomic_load_n(&st->window, __ATOMIC_RELAXED);

		if (__atomic_load_n(&st->next, __ATOMIC_RELAXED) != va)
			continue;
		w = w < FIRST_WINDOW ? FIRST_WINDOW : w * 2 > SPW__WINDOW ? SPW__WINDOW : w * 2;
		__atomic_store_n(&st->window, w, __ATOMIC_RELAXED);
		__atomic_store_n(&st->next, va + (uint64_t)w * SPW_PAGE, __ATOMIC_RELAXED);
		return w;
	}
	struct spw__stream *st = &r->stream[__atomic_fetch_add(&r->hand, 1, __ATOMIC_RELAXED) % SPW__LIB_STREAMS];

	__atomic_store_n(&st->next, va + SPW_PAGE, __ATOMIC_RELAXED);
	__atomic_store_n(&st->window, 1, __ATOMIC_RELAXED);
	return 1;
}

/* ---- putting in place ---- */

/* Bytes at `from` become n pages at va, which are missing and BUSY. */
static void put_in_place(const struct spw_space *s, uint64_t va, const char *from, unsigned n, bool protect)
{
	for (size_t done = 0, all = (size_t)n * SPW_PAGE; done < all;) {
		void *to = (void *)(uintptr_t)(va + done);
		long ret = protect ? spw__uffd_copy_protected(s->uffd, to, from + done, all - done)
				   : spw__uffd_copy_quiet(s->uffd, to, from + done, all - done);

		if (ret > 0)
			done += (size_t)ret;
		else if (ret == -EAGAIN)
			spw__sys0(SYS_sched_yield);
		else
			spw__lib_die("cannot put a page in its place", (int)-ret);
	}
}

/* The frame of an entry is a page of another region, or of this one. 0; -EAGAIN: not now. */
static int copy_frame(struct spw_space *s, uint32_t o, spw_entry_t e, bool protect)
{
	uint32_t frame, now;
	uint8_t state;
	int ret = -EAGAIN;

	if (spw_cache_get(s->layer, e, &frame) || frame == o || !spw__page_try(s, frame, &state))
		return -EAGAIN;

	if (spw_cache_get(s->layer, e, &now) == 0 && now == frame) {
		put_in_place(s, spw__page_va(s, o), (const char *)(uintptr_t)spw__page_va(s, frame), 1, protect);
		ret = 0;
	}
	spw__page_unlock(s, frame, state);
	return ret;
}

/* What became of a page that is in place now. */
static uint8_t arrived(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t state, bool backed, bool write)
{
	if (backed && spw__age_recent(s, o))
		state |= SPW__MAIN;
	else
		state &= ~SPW__MAIN;
	if (backed && write)
		state = spw__page_let_go(s, seat, o, state);
	return state | SPW__IN | (backed && !write ? SPW__PROT | SPW__BACKED : 0);
}

/* Restore the page of a stored entry to `to`. As spw_load(), but of a FRAME -EAGAIN. */
static int restore(struct spw_space *s, struct spw__seat *seat, spw_entry_t e, char *to, spw_slot_t *where)
{
	int ret = spw_load(s->layer, seat->work, e, to, where);

	/* FREE, of an entry that was not: its holder is this page, so that cannot be. */
	if (ret == -ENOENT)
		spw__lib_die("an entry is gone that a page holds", 0);
	return ret == -EEXIST ? -EAGAIN : ret;
}

int spw__lib_bring(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t *state, bool write,
		   spw_slot_t *where)
{
	spw_entry_t e = spw__page_held(s, o);
	enum spw_kind kind = spw_kind(s->layer, e);
	uint64_t va = spw__page_va(s, o);
	int ret = 0;

	if (kind == SPW_FREE) {
		put_in_place(s, va, s->zeros, 1, false);
	} else if (kind == SPW_FRAME) {
		ret = copy_frame(s, o, e, !write);
	} else {
		ret = restore(s, seat, e, seat->window, where);
		if (ret == 0)
			put_in_place(s, va, seat->window, 1, !write);
	}
	if (ret)
		return ret;
	seat->in += kind != SPW_FREE;
	*state = arrived(s, seat, o, *state, kind != SPW_FREE, write);
	return 0;
}

/* ---- missing pages ---- */

/* Pages behind the first that come along: a run of one nature, each BUSY. */
struct run {
	uint8_t state[SPW__WINDOW];
	uint32_t first;
	unsigned n;
	bool fresh;         /* never stored: zeros */
	uint32_t from_file; /* a bit for each */
	uint64_t began;     /* ns */
};

/* Take the page behind the run along, if it is of the run's nature and can be had without waiting. */
static bool extend(struct spw_space *s, struct spw__seat *seat, struct run *run)
{
	uint32_t o = run->first + run->n;
	uint8_t *state = &run->state[run->n];
	spw_slot_t where;

	if (!spw__page_try(s, o, state))
		return false;
	spw_entry_t e = spw__page_held(s, o);
	enum spw_kind kind = spw_kind(s->layer, e);
	bool fits = !(*state & SPW__IN) && kind != SPW_FRAME && (kind == SPW_FREE) == run->fresh;

	if (fits && !run->fresh)
		fits = !restore(s, seat, e, seat->window + (size_t)run->n * SPW_PAGE, &where);
	run->from_file |= (uint32_t)(fits && kind == SPW_SLOT) << run->n;
	if (fits)
		run->n++;
	else
		spw__page_unlock(s, o, *state);
	return fits;
}

static void count_return(struct spw_space *s, const struct run *run)
{
	uint64_t each = (spw__plat_now_ns() - run->began) / run->n;

	for (unsigned i = 0; i < run->n; i++)
		spw__split_in(&s->split, spw__page_held(s, run->first + i), run->from_file >> i & 1, each);
}

/* The first page of the run is there; bring those that follow it along. `most` have been counted. */
static void bring_run(struct spw_space *s, struct spw__seat *seat, struct run *run, unsigned most, bool write)
{
	uint32_t position[SPW__WINDOW];

	while (run->n < most && extend(s, seat, run))
		;
	if (!run->fresh)
		count_return(s, run);
	put_in_place(s, spw__page_va(s, run->first), run->fresh ? s->zeros : seat->window, run->n,
		     !run->fresh && !write);
	for (unsigned i = 0; i < run->n; i++) {
		position[i] = run->first + i;
		run->state[i] = arrived(s, seat, position[i], run->state[i], !run->fresh, write);
	}
	spw__queue_push(s, position, run->state, run->n);
	for (unsigned i = 0; i < run->n; i++)
		spw__page_unlock(s, position[i], run->state[i] | SPW__QUEUED);
	seat->in += run->fresh ? 0 : run->n;
}

/* Page o is missing, and BUSY in `state`; it and `most` - 1 others may come. As spw__lib_bring(), but lets go of it. */
static int bring_many(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t state, unsigned most, bool write,
		      spw_slot_t *where)
{
	struct run run = {.first = o, .n = 1, .state = {state}};
	spw_entry_t e = spw__page_held(s, o);
	enum spw_kind kind = spw_kind(s->layer, e);
	int ret = 0;

	if (kind == SPW_FRAME) {
		ret = spw__lib_bring(s, seat, o, &state, write, where);
		if (ret == 0)
			spw__queue_push(s, &o, &state, 1);
		spw__page_unlock(s, o, ret ? state : state | SPW__QUEUED);
		spw__room_give(s, ret ? most : most - 1);
		return ret;
	}
	run.fresh = kind == SPW_FREE;
	run.from_file = kind == SPW_SLOT;
	if (!run.fresh) {
		run.began = spw__plat_now_ns();
		ret = restore(s, seat, e, seat->window, where);
	}
	if (ret) {
		spw__page_unlock(s, o, state);
		spw__room_give(s, most);
		return ret;
	}
	bring_run(s, seat, &run, most, write);
	spw__room_give(s, most - run.n);
	return 0;
}

/* ---- first writes ---- */

/* Page o is IN, PROT and BUSY in `state`; it and up to `most` - 1 behind it may be written from now on. */
static void open_many(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t state, unsigned most)
{
	uint8_t after[SPW__WINDOW];
	unsigned n = 1;

	after[0] = spw__page_own(s, seat, o, state);
	for (; n < most && spw__page_try(s, o + n, &state); n++) {
		if ((state & (SPW__IN | SPW__PROT)) != (SPW__IN | SPW__PROT)) {
			spw__page_unlock(s, o + n, state);
			break;
		}
		after[n] = spw__page_own(s, seat, o + n, state);
	}
	spw__page_protect(s, o, n, false);
	for (unsigned i = 0; i < n; i++)
		spw__page_unlock(s, o + i, after[i]);
}

void spw__lib_fault(struct spw_region *r, struct spw__seat *seat, uint64_t va, bool write)
{
	struct spw_space *s = r->space;
	spw_slot_t where = SPW_SLOT_NONE;
	uint32_t o;
	int ret;

	if (spw__position(r, va, &o))
		spw__lib_die("has no memory for a leaf of pages", ENOMEM);
	unsigned most = window(r, va), left = SPW_CLUSTER - o % SPW_CLUSTER;
	uint64_t end = (r->base + r->bytes - va) / SPW_PAGE;

	most = most < left ? most : left;
	most = most < end ? most : (unsigned)end;
	for (unsigned spins = 0;; spins++) {
		uint8_t state = __atomic_load_n(&s->state[o], __ATOMIC_RELAXED);
		unsigned counted = 0;

		/* Room is made before the page is taken: whoever waits for it would wait for that too. */
		if (!(state & SPW__IN)) {
			spw__room_take(s, seat, 1);
			counted = 1 + spw__room_try(s, most - 1);
		}
		state = spw__page_lock(s, o);
		if (!(state & SPW__IN) && counted) {
			ret = bring_many(s, seat, o, state, counted, write, &where);
			seat->faults += ret == 0;
		} else {
			ret = state & SPW__IN ? 0 : -EAGAIN;
			if (ret == 0 && write && state & SPW__PROT) {
				open_many(s, seat, o, state, most);
				seat->write_faults++;
			} else {
				spw__page_unlock(s, o, state);
			}
			spw__room_give(s, counted);
		}
		if (ret == 0)
			return;
		if (ret != -EAGAIN)
			spw__lib_lost(va, where, ret);
		spw__plat_relax(spins);
	}
}
