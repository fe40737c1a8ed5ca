/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page that is missing, or that is written for the first time.
 *
 * The fault is on the thread that wants the page, so nobody is woken and the bytes are in its cache; what is left to
 * save is faults, and waiting for a disk. Where they follow each other the pages that are next come along: neighbours,
 * decompressed side by side and put in place by one system call, or pages at equal steps. What was read is put in place
 * write-protected: if it is only read it goes again without a call that has to interrupt the program's CPUs, and a copy
 * of it that is kept stays good. What is written is not.
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

/*
 * Whether what is stored of a page stays when the page comes in by a read. In the pool it would take memory that other
 * pages could have, to save compressing it once more, which the library's thread does: of a set of 1.25 times the cap
 * half were out for that, instead of a third. On a file it saves a write. What clones hold too is stored anyway.
 */
static bool keeps_stored(const struct spw_space *s, uint32_t o)
{
	spw_entry_t e = spw__page_held(s, o);
	enum spw_kind kind = spw_kind(s->layer, e);

	return kind == SPW_SLOT || kind == SPW_FRAME || spw_count(s->layer, e) > 1;
}

/* What became of a page that is in place now. */
static uint8_t arrived(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t state, bool backed, bool write)
{
	if (backed && spw__age_recent(s, o))
		state |= SPW__MAIN;
	else
		state &= ~SPW__MAIN;
	state |= SPW__IN;
	if (!backed)
		return state;
	if (!write)
		state |= SPW__PROT;
	if (!write && keeps_stored(s, o))
		return state | SPW__BACKED;
	return spw__page_let_go(s, seat, o, state);
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

/* Pages that one fault brings, of one nature, each BUSY. The first is the one that was asked for. */
struct run {
	uint32_t position[SPW__WINDOW];
	uint8_t state[SPW__WINDOW];
	unsigned n;
	int64_t step;       /* bytes from one to the next, or a multiple of that */
	bool fresh;         /* never stored: zeros */
	uint32_t from_file; /* a bit for each */
	uint64_t began;     /* ns */
};

/* Have the page at va come along, if it is of the run's nature and can be had without waiting. */
static bool take_along(struct spw_region *r, struct spw__seat *seat, struct run *run, uint64_t va)
{
	struct spw_space *s = r->space;
	uint8_t *state = &run->state[run->n];
	uint32_t o, now;

	if (!spw__position_if(r, va, &o) || !spw__page_try(s, o, state))
		return false;
	spw_entry_t e = spw__page_held(s, o);
	enum spw_kind kind = spw_kind(s->layer, e);

	/* Another leaf may have been given back. A page at steps that would have to be waited for speaks when asked. */
	if (*state & SPW__IN || kind == SPW_FRAME || (kind == SPW_FREE) != run->fresh ||
	    !spw__position_if(r, va, &now) || now != o ||
	    (run->step != SPW_PAGE && !spw_expect(s->layer, seat->work, e, true))) {
		spw__page_unlock(s, o, *state);
		return false;
	}
	run->from_file |= (uint32_t)(kind == SPW_SLOT) << run->n;
	run->position[run->n++] = o;
	return true;
}

/* The pages behind the first, `most` in all. At steps those that cannot come are left out, else they end it. */
static void gather(struct spw_region *r, struct spw__seat *seat, struct run *run, unsigned most)
{
	uint64_t va = spw__page_va(r->space, run->position[0]);

	if (most > 1 && run->step != SPW_PAGE)
		spw_expect(r->space->layer, seat->work, spw__page_held(r->space, run->position[0]), true);
	for (unsigned i = 1; i < most; i++) {
		va += (uint64_t)run->step;
		if (!take_along(r, seat, run, va) && run->step == SPW_PAGE)
			break;
	}
}

/*
 * Restore them. Reads of several from a file are under way together; all have ended when this returns, so that none
 * interrupts what the program waits for. How many are there, from the first on; *err: why not the next.
 */
static unsigned restore_all(struct spw_space *s, struct spw__seat *seat, const struct run *run, spw_slot_t *where,
			    int *err)
{
	bool several = run->from_file & (run->from_file - 1);
	unsigned good = 0;

	for (unsigned i = 0; i < run->n && several && run->step == SPW_PAGE; i++)
		spw_expect(s->layer, seat->work, spw__page_held(s, run->position[i]), false);
	*err = 0;
	while (good < run->n && !*err) {
		*err = restore(s, seat, spw__page_held(s, run->position[good]), seat->window + (size_t)good * SPW_PAGE,
			       where);
		good += !*err;
	}
	if (several || run->step != SPW_PAGE)
		spw_settle(s->layer, seat->work);
	return good;
}

static void count_return(struct spw_space *s, const struct run *run)
{
	uint64_t each = (spw__plat_now_ns() - run->began) / run->n;

	for (unsigned i = 0; i < run->n; i++)
		spw__split_in(&s->split, spw__page_held(s, run->position[i]), run->from_file >> i & 1, each);
}

/* Their bytes are in the seat's window, or they are fresh. */
static void place_run(struct spw_space *s, struct spw__seat *seat, struct run *run, bool write)
{
	const char *bytes = run->fresh ? s->zeros : seat->window;
	bool protect = !run->fresh && !write;

	/* Neighbours by one call. */
	for (unsigned i = 0, n = run->step == SPW_PAGE ? run->n : 1; i < run->n; i += n)
		put_in_place(s, spw__page_va(s, run->position[i]), bytes + (size_t)i * SPW_PAGE, n, protect);
	for (unsigned i = 0; i < run->n; i++)
		run->state[i] = arrived(s, seat, run->position[i], run->state[i], !run->fresh, write);
	spw__queue_push(s, run->position, run->state, run->n);
	for (unsigned i = 0; i < run->n; i++)
		spw__page_unlock(s, run->position[i], run->state[i] | SPW__QUEUED);
	seat->in += run->fresh ? 0 : run->n;
}

/*
 * Page o is missing, and BUSY in `state`; it and `most` - 1 others, `step` apart, may come: so many have been counted.
 * As spw__lib_bring(), but lets go of it.
 */
static int bring_many(struct spw_region *r, struct spw__seat *seat, uint32_t o, uint8_t state, unsigned most,
		      int64_t step, bool write, spw_slot_t *where)
{
	struct spw_space *s = r->space;
	enum spw_kind kind = spw_kind(s->layer, spw__page_held(s, o));
	struct run run = {
		.position = {o},
		.state = {state},
		.n = 1,
		.step = step,
		.fresh = kind == SPW_FREE,
		.from_file = kind == SPW_SLOT,
	};
	int ret = 0;

	if (kind == SPW_FRAME) {
		ret = spw__lib_bring(s, seat, o, &state, write, where);
		if (ret == 0)
			spw__queue_push(s, &o, &state, 1);
		spw__page_unlock(s, o, ret ? state : state | SPW__QUEUED);
		spw__room_give(s, ret ? most : most - 1);
		return ret;
	}
	if (!run.fresh)
		run.began = spw__plat_now_ns();
	/* What was never touched at steps may never be. */
	if (!run.fresh || step == SPW_PAGE)
		gather(r, seat, &run, most);
	if (!run.fresh) {
		unsigned all = run.n;

		run.n = restore_all(s, seat, &run, where, &ret);
		for (unsigned i = run.n; i < all; i++)
			spw__page_unlock(s, run.position[i], run.state[i]);
		if (run.n)
			count_return(s, &run);
	}
	if (run.n)
		place_run(s, seat, &run, write);
	spw__room_give(s, most - run.n);
	return run.n ? 0 : ret;
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
	int64_t step;
	unsigned most = spw__lib_ahead(r, va, &step), left = SPW_CLUSTER - o % SPW_CLUSTER;
	uint64_t end = step > 0 ? (r->base + r->bytes - va - 1) / (uint64_t)step : (va - r->base) / (uint64_t)-step;

	if (step == SPW_PAGE)
		most = most < left ? most : left;
	most = most <= end ? most : (unsigned)end + 1;
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
			ret = bring_many(r, seat, o, state, counted, step, write, &where);
			seat->faults += ret == 0;
		} else {
			ret = state & SPW__IN ? 0 : -EAGAIN;
			if (ret == 0 && write && state & SPW__PROT) {
				open_many(s, seat, o, state, step == SPW_PAGE ? most : 1);
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
