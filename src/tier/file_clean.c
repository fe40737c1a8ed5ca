/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Cleaning: making room out of segments that are partly dead.
 *
 * Moving the live rest of a segment costs a read and a write of that rest, so nothing is moved while there is room, and
 * only what is a quarter dead while it gets scarce. When there is none, anything that wins a block is better than
 * telling the caller that a file with dead space in it is full. A segment that a fork shares comes free only when
 * the other side lets go too: moving our objects would only add a copy, so it is left alone.
 *
 * Where there is room on a lower tier, room is made by age instead: what has been on the file longest without being read
 * (reading frees it) goes down, so that what is written next finds room here. Nothing comes up but by being used, so
 * nothing goes back and forth.
 */
#include "tier/file_internal.h"

#include <string.h>

#define SCAN        8192u /* segments looked at a call */
#define SCARCE      8u    /* free space is, below one part in */
#define WORTH       (SPW__SEG_UNITS / 4)
#define WORTH_TIGHT (SPW__BLOCK / SPW_UNIT)
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

/* The segment that wins most, of those that win `worth` units. */
static uint32_t choose(struct spw__file *f, uint32_t worth)
{
	uint32_t top = SPW__LOAD(f->top), best = SPW__SEGS_NONE;

	for (uint32_t i = 0; i < SCAN && i < top; i++) {
		uint32_t seg = (f->cursor + i) % top, dead = SPW__LOAD(f->dead[seg]);

		if (dead >= worth && movable(f, seg)) {
			best = seg;
			worth = dead + 1;
		}
	}
	if (top)
		f->cursor = (f->cursor + SCAN) % top;
	return best;
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
	if (!in_flight(f))
		memset(f->cleaned, 0, sizeof(f->cleaned));
	place.seg = oldest ? choose_oldest(f) : choose(f, free <= tight ? WORTH_TIGHT : WORTH);
	if (place.seg == SPW__SEGS_NONE || spw__plat_commit(data, SPW_FILE_SEGMENT) || !pin(f, place.seg))
		return false;
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
		f->reading = open_segment(f, oldest);
	}
	while (f->reading && n < max) {
		f->reading = spw__seg_next(&f->reader, &e[n], &s[n], &objs[n], &bad);
		n += f->reading;
	}
	SPW__ADD(f->errors, bad);
	__atomic_store_n(&f->cleaning, n > 0, __ATOMIC_RELAXED);
	if (!n) {
		close_segment(f);
		if (f->clean_used)
			spw__plat_discard(spw__clean_buffer(f), SPW_FILE_SEGMENT);
		f->clean_used = false;
	}
	return n;
}

void spw__file_clean_done(struct spw_tier *t)
{
	struct spw__file *f = spw__file_of(t);

	__atomic_store_n(&f->cleaning, false, __ATOMIC_RELAXED);
	if (!f->reading)
		close_segment(f);
}
