/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Cleaning: making room out of segments that are partly dead.
 *
 * Moving the live rest of a segment costs a read and a write of that rest, so nothing is moved while there is room, and
 * only what is a quarter dead while it gets scarce. When there is none, dead space has to be found before the caller
 * may be told that the file is full. It may lie a little in each segment, so that moving the rest of any wins less than
 * the end of a batch wastes. So it is gathered, down to a quarter of a block a segment: a pass fills fewer segments
 * than it reads, but to their ends, and stops. The segment in which it stops is then dead by what was won, the next
 * pass begins with it, and once it is a quarter dead it is worth a batch that ends anywhere. A segment that was filled
 * has nothing dead, so each pass leaves fewer of them to clean, and there is a last one.
 *
 * A segment that a fork shares comes free only when the other side lets go too: moving our objects would only add a
 * copy, so it is left alone.
 *
 * Where there is room on a lower tier, room is made by age instead: what has been on the file longest without being
 * read (reading frees it) goes down, so that what is written next finds room here. Nothing comes up but by being used,
 * so nothing goes back and forth.
 */
#include "tier/file_internal.h"

#include <string.h>

#define SCAN        8192u /* segments looked at a call; all, if none of these is worth it */
#define SCARCE      8u    /* free space is, below one part in */
#define WORTH       (SPW__SEG_UNITS / 4)
#define WORTH_TIGHT (SPW__BLOCK / SPW_UNIT / 4)
/*
 * The only free segment must take all of the first that is cleaned, even if packed anew it has one object's room less.
 */
#define WORTH_FIRST (SPW__BLOCK / SPW_UNIT + 2)
#define WORTH_ALL   (SPW__MIN_BATCH / SPW_UNIT) /* of all together: less is no room for an object */
#define TRIM        16u

/* Free blocks of segments that are free go back to the filesystem once half of what was ever used is free. */
static void trim(struct spw__file *f, uint32_t taken)
{
	uint32_t seg;

	if (!f->sh->discard || !f->io.discard || taken > SPW__LOAD(f->sh->top) / 2)
		return;
	for (unsigned i = 0; i < TRIM && !spw__seg_claim_used(f->sh, f->proc, &seg); i++) {
		f->io.discard(f->io.ctx, spw__seg_offset(f->sh, seg), SPW_FILE_SEGMENT);
		spw__seg_punched(f->sh, seg);
	}
}

static bool cleaned_lately(const struct spw__file *f, uint32_t seg)
{
	for (uint32_t i = 0; i < SPW__CLEANED; i++)
		if (f->cleaned[i] == seg + 1)
			return true;
	return false;
}

/* Whether a segment's objects are all ours, written, and not on their way already. */
static bool movable(const struct spw__file *f, uint32_t seg)
{
	uint32_t live = SPW__LOAD(f->live[seg]);

	return live && live < SPW__PIN && !cleaned_lately(f, seg) && spw__seg_exclusive(f->sh, seg, f->proc);
}

/* The segment that was written first. */
static uint32_t choose_oldest(struct spw__file *f)
{
	uint32_t top = SPW__LOAD(f->top), best = SPW__SEGS_NONE;
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i < SCAN && i < top; i++) {
		uint32_t seg = (f->cursor + i) % top;
		uint64_t gen = spw__seg_generation(f->sh, seg);

		if (gen < least && movable(f, seg)) {
			best = seg;
			least = gen;
		}
	}
	if (top)
		f->cursor = (f->cursor + SCAN) % top;
	return best;
}

/*
 * Plan to clean the segments that win most, of those that win `worth` units; the first is the one that wins most,
 * `first` at least. If even that is not worth a batch, their dead space is gathered in one of them: cleaning may claim
 * one segment less.
 */
static void plan(struct spw__file *f, uint32_t worth, uint32_t first)
{
	uint32_t top = SPW__LOAD(f->top), won[SPW__PASS] = {0}, most = SPW__PASS - 1, i;
	uint64_t sum = 0;
	bool gather;

	memset(f->plan, 0xff, sizeof(f->plan));
	for (i = 0; i < top && (i < SCAN || won[most] < WORTH); i++) {
		uint32_t seg = (f->cursor + i) % top, dead = SPW__LOAD(f->dead[seg]), at = 0;

		if (dead < worth || !movable(f, seg))
			continue;
		sum += dead;
		if (dead <= won[0])
			continue;
		for (; at < most && dead > won[at + 1]; at++) {
			won[at] = won[at + 1];
			f->plan[at] = f->plan[at + 1];
		}
		won[at] = dead;
		f->plan[at] = seg;
	}
	f->cursor = top ? (f->cursor + i) % top : 0;
	f->planned = 0;
	if (sum < WORTH_ALL || won[most] < first)
		return;
	f->planned = SPW__PASS;
	gather = won[most] < WORTH && won[0];
	__atomic_store_n(&f->may_claim, gather ? SPW__PASS - 1 : SPW__BATCHES, __ATOMIC_RELAXED);
}

/* The next segment that is planned. */
static uint32_t choose(struct spw__file *f)
{
	while (f->planned) {
		uint32_t seg = f->plan[--f->planned];

		if (seg != SPW__SEGS_NONE && movable(f, seg))
			return seg;
	}
	return SPW__SEGS_NONE;
}

static bool in_flight(struct spw__file *f)
{
	bool any = false;

	spw__spin_lock(&f->lock);
	for (unsigned i = 0; i < SPW__BATCHES; i++)
		any |= f->batch[i].state != SPW__BATCH_FREE;
	spw__spin_unlock(&f->lock);
	return any;
}

/* Pinned, the segment cannot be freed and filled with other objects at the same slots while these are looked at. */
static bool pin(struct spw__file *f, uint32_t seg)
{
	uint32_t live = SPW__LOAD(f->live[seg]);

	while (live && live < SPW__PIN)
		if (__atomic_compare_exchange_n(&f->live[seg], &live, live + SPW__PIN, false, __ATOMIC_ACQ_REL,
						__ATOMIC_RELAXED))
			return true;
	return false;
}

static void close_segment(struct spw__file *f)
{
	if (f->clean_seg != SPW__SEGS_NONE)
		spw__file_unpin(f, f->clean_seg);
	f->clean_seg = SPW__SEGS_NONE;
}

/* Read back a segment worth cleaning. False if there is none. */
static bool open_segment(struct spw__file *f, bool oldest)
{
	uint32_t n = f->sh->usable, taken = spw__segs_taken(f->sh), free = n - taken;
	uint32_t tight = spw__file_reserve(f->sh) + 1, scarce = n / SCARCE > tight ? n / SCARCE : tight;
	uint8_t *data = spw__clean_buffer(f);
	struct spw__seg_place place = {.seal = &f->seal, .tier = f->tier.number};
	int64_t got;

	if (free > scarce) {
		trim(f, taken);
		return false;
	}
	/* Moves in flight may be what empties a segment. With none, it was left half cleaned. */
	if (!f->pass && !in_flight(f))
		memset(f->cleaned, 0, sizeof(f->cleaned));
	if (!f->pass && !oldest)
		plan(f, free > tight ? WORTH : WORTH_TIGHT, free > 1 ? 0 : WORTH_FIRST);
	place.seg = oldest ? choose_oldest(f) : choose(f);
	if (place.seg == SPW__SEGS_NONE || spw__plat_commit(data, SPW_FILE_SEGMENT) || !pin(f, place.seg))
		return false;
	f->pass++;
	f->clean_seg = place.seg;
	f->clean_used = true;
	f->cleaned[f->cleaned_n++ % SPW__CLEANED] = place.seg + 1;
	place.gen = spw__seg_generation(f->sh, place.seg);
	place.offset = spw__seg_offset(f->sh, place.seg);
	got = f->io.read(f->io.ctx, data, SPW_FILE_SEGMENT, place.offset);
	if (got <= 0) {
		SPW__ADD(f->errors, 1);
		return false;
	}
	/* The last segment's end may not be in the file yet. */
	memset(data + got, 0, SPW_FILE_SEGMENT - (size_t)got);
	spw__seg_reader_init(&f->reader, &place, data);
	return true;
}

unsigned spw__file_clean(struct spw_tier *t, bool oldest, spw_entry_t *e, spw_slot_t *s, struct spw_obj *objs,
			 unsigned max)
{
	struct spw__file *f = spw__file_of(t);
	uint64_t bad = 0;
	unsigned n = 0;

	if (!f->reading) {
		close_segment(f);
		f->reading = f->pass < SPW__PASS && open_segment(f, oldest);
	}
	while (f->reading && n < max) {
		f->reading = spw__seg_next(&f->reader, &e[n], &s[n], &objs[n], &bad);
		n += f->reading;
	}
	SPW__ADD(f->errors, bad);
	if (!n) {
		close_segment(f);
		if (f->clean_used && !f->pass)
			spw__plat_discard(spw__clean_buffer(f), SPW_FILE_SEGMENT);
		f->clean_used &= f->pass > 0;
	}
	return n;
}

void spw__file_clean_done(struct spw_tier *t)
{
	struct spw__file *f = spw__file_of(t);

	__atomic_store_n(&f->may_claim, 0, __ATOMIC_RELAXED);
	f->pass = 0;
	/* Objects that were named and found no room stay where they are: the rest alone would not empty the segment. */
	f->reading = false;
	close_segment(f);
}
