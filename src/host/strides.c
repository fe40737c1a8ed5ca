/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strides.
 *
 * A column of a table, every so-manieth record: each page is asked for by a fault of its own, and read from a file by a
 * read of its own, one after the other, while readahead sees no two neighbours. So where three pages in a row lie
 * equally far from each other, forth or back, the next ones come along: two, then four, then eight, as long as each
 * window is followed by the next. Where steps are left out, maybe because these pages were there already, maybe because
 * nobody wants them, the window is halved, and below one page the step is another.
 *
 * Steps are a thread's: between the pages of two threads there is no equal distance. Two that meet in one place by
 * chance see no stride, or fetch a page for nothing.
 */
#include "host/strides.h"

unsigned spw__strides_next(struct spw__strides *s, uint64_t thread, uint64_t va, int64_t *step)
{
	/* Multiplied, for threads may lie whole stacks apart (Knuth, The Art of Computer Programming, 6.4). */
	unsigned i = thread * 0x9e3779b97f4a7c15 >> 32 & (SPW__STRIDERS - 1);
	int64_t d = (int64_t)(va - __atomic_load_n(&s->of[i].last, __ATOMIC_RELAXED));
	int64_t was = __atomic_load_n(&s->of[i].step, __ATOMIC_RELAXED);
	uint32_t w = __atomic_load_n(&s->of[i].window, __ATOMIC_RELAXED);
	int64_t steps = was && d % was == 0 ? d / was : 0;

	if (d == 0) /* read, and now written */
		return 1;
	__atomic_store_n(&s->of[i].last, va, __ATOMIC_RELAXED);
	if (steps == w)
		w = w * 2 > SPW__STRIDES ? SPW__STRIDES : w * 2;
	else if (steps > w)
		w /= 2;
	else if (steps < 1)
		w = 0;
	if (w == 0) {
		w = 1;
		__atomic_store_n(&s->of[i].step, d, __ATOMIC_RELAXED);
	}
	if (w > 1)
		*step = was;
	__atomic_store_n(&s->of[i].window, w, __ATOMIC_RELAXED);
	return w;
}
