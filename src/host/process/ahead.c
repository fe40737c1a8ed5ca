/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching pages before they are asked for.
 *
 * A fault costs two context switches, and ten times what it costs to restore a page. So the neighbours should come
 * along, if they are going to be used; if not, each takes the place of one that may be.
 *
 * Streams are easy to know: a fault where the last window ended. Most programs have something weaker: they come back
 * to a place and use what lies around it, in no order. So a second fault in a block of 64 KiB, soon after the first,
 * brings two pages, the next one four, until it is the block; and a fault in the block next to it begins where that
 * one is.
 *
 * Whether fetching pays cannot be seen, for pages that are in place make no fault. The kernel's own readahead leaves
 * what it has read unmapped, and pays a fault for each page to know. Here one page of some windows is left out, on
 * trial: if it is asked for soon, the others are taken to be in use as well. Where less than half of the trials
 * succeed, the next smaller window is fetched instead, and the trials go on: without fetching anything.
 */
#include "host/process/ahead.h"
#include "space/space.h"

#include <stdbool.h>

#define BLOCK_BYTES (16u * SPW_PAGE)
#define SOON        512u /* faults */
#define TRIAL_EACH  8u   /* windows */
#define WORTH_PARTS 16   /* of it, that a trial has in it */
#define WORTH_ONE   1024

unsigned spw__ahead_stream(struct spw__ahead *h, uint64_t va)
{
	for (unsigned i = 0; i < SPW__AHEAD_STREAMS; i++) {
		if (h->stream[i].next != va || !h->stream[i].window)
			continue;
		if (h->stream[i].window < SPW__WINDOW_MAX)
			h->stream[i].window *= 2;
		return h->stream[i].window;
	}
	unsigned i = h->stream_hand++ % SPW__AHEAD_STREAMS;

	h->stream[i].next = va;
	h->stream[i].window = 1;
	return 1;
}

void spw__ahead_advance(struct spw__ahead *h, uint64_t va, unsigned pages)
{
	for (unsigned i = 0; i < SPW__AHEAD_STREAMS; i++) {
		if (h->stream[i].next == va)
			h->stream[i].next = va + (uint64_t)pages * SPW_PAGE;
	}
}

static void judge(struct spw__ahead *h, uint32_t level, bool asked_for)
{
	h->worth[level] += ((asked_for ? WORTH_ONE : -WORTH_ONE) - h->worth[level]) / WORTH_PARTS;
}

static unsigned trial_of(uint64_t va)
{
	return (unsigned)(va / SPW_PAGE % SPW__AHEAD_TRIALS);
}

/* The level of the fault in this block, by what was soon before. */
static uint32_t level_of(const struct spw__ahead *h, uint32_t block)
{
	uint32_t level = 0;

	for (uint32_t b = block - 1; b <= block + 1; b++) {
		unsigned i = b % SPW__AHEAD_BLOCKS;
		uint32_t here = h->late[i].level + (b == block);

		if (h->late[i].block == b && h->faults - h->late[i].when < SOON && here > level)
			level = here;
	}
	return level < SPW__AHEAD_LEVELS ? level : SPW__AHEAD_LEVELS - 1;
}

static bool on_trial(const struct spw__ahead *h)
{
	return h->faults % TRIAL_EACH == 0;
}

static struct spw__ahead_span around(struct spw__ahead *h, uint64_t va)
{
	uint32_t block = (uint32_t)(va / BLOCK_BYTES);
	unsigned i = block % SPW__AHEAD_BLOCKS;

	h->level = level_of(h, block);
	h->late[i].block = block;
	h->late[i].when = h->faults;
	h->late[i].level = h->level;
	uint32_t level = h->level;

	if (!on_trial(h))
		while (h->worth[level] < 0)
			level--;
	uint64_t bytes = (uint64_t)SPW_PAGE << level, from = va / bytes * bytes;

	return (struct spw__ahead_span){from, from + bytes};
}

struct spw__ahead_span spw__ahead_wanted(struct spw__ahead *h, uint64_t va)
{
	unsigned t = trial_of(va), stream = spw__ahead_stream(h, va);

	if (h->trial[t].va == va) {
		judge(h, h->trial[t].level, true);
		h->trial[t].va = 0;
	}
	h->faults++;
	h->level = 0;
	return stream > 1 ? (struct spw__ahead_span){va, va + (uint64_t)stream * SPW_PAGE} : around(h, va);
}

struct spw__ahead_span spw__ahead_choose(struct spw__ahead *h, uint64_t va, struct spw__ahead_span out)
{
	if (!h->level || out.to - out.from == SPW_PAGE || !on_trial(h))
		return out;
	/* At an end, for what is fetched is one piece. */
	bool last = out.to - SPW_PAGE > va;
	uint64_t left = last ? out.to - SPW_PAGE : out.from;
	unsigned t = trial_of(left);

	if (h->trial[t].va)
		judge(h, h->trial[t].level, false);
	h->trial[t].va = left;
	h->trial[t].level = h->level;
	if (h->worth[h->level] < 0)
		return (struct spw__ahead_span){va, va + SPW_PAGE};
	return last ? (struct spw__ahead_span){out.from, left} : (struct spw__ahead_span){left + SPW_PAGE, out.to};
}
