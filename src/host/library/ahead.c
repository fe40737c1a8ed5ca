/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many pages one fault brings.
 *
 * A page that nobody asks for takes the room of one that somebody may, and nothing tells that it was not asked for:
 * pages that are in place make no fault. So only what is plain is followed: a fault where the last window ended, and
 * equal steps; the window grows as long as that goes on. Streams are the region's, for a thread may read several at
 * once, and threads may take turns with one. (Where a thread of the space serves the faults, it is the one whose steps
 * are seen.)
 */
#include "host/library/library.h"

#define FIRST_WINDOW 4u /* pages, when two faults followed each other */

static unsigned stream(struct spw_region *r, uint64_t va)
{
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

unsigned spw__lib_ahead(struct spw_region *r, uint64_t va, int64_t *step)
{
	unsigned n;

	*step = SPW_PAGE;
	if (__atomic_load_n(&r->advice, __ATOMIC_RELAXED) == SPW_RANDOM)
		return 1;
	n = stream(r, va);
	return n > 1 ? n : spw__strides_next(&r->strides, (uint64_t)pthread_self(), va, step);
}
