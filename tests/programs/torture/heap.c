/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on the heap. One lock, for nobody else may move the break while a worker looks at it. */
#include "torture.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_mutex_t heap = PTHREAD_MUTEX_INITIALIZER;

void heap_fork_child(void)
{
	pthread_mutex_init(&heap, NULL);
}

static void fill_from(struct worker *w, struct range *r, uint32_t first)
{
	for (uint32_t i = first; i < r->pages; i++)
		write_page(w, r, i);
}

void op_heap(struct worker *w)
{
	struct range *r = pick(w, RANGE_HEAP);
	uint32_t pages = log_below(w, MAX_PAGES), what = r ? below(w, 3) : 0;

	if (what == 2) {
		check_range(w, r, 0, r->pages);
		pthread_mutex_lock(&heap);
		discard_range(w, r);
		pthread_mutex_unlock(&heap);
		return;
	}
	if (what == 1) {
		if (pages > r->pages && w->pages + pages - r->pages > w->budget)
			return;
		pthread_mutex_lock(&heap);
		char *p = realloc(r->base, (size_t)pages * PAGE);

		pthread_mutex_unlock(&heap);
		must(w, p != NULL, "realloc");
		uint32_t had = r->pages < pages ? r->pages : pages;

		r->base = p;
		w->pages += pages - r->pages;
		r->pages = pages;
		check_range(w, r, 0, had);
		fill_from(w, r, had);
		return;
	}
	r = fresh(w, pages);
	if (!r)
		return;
	pthread_mutex_lock(&heap);
	char *p = malloc((size_t)pages * PAGE);

	pthread_mutex_unlock(&heap);
	must(w, p != NULL, "malloc");
	adopt(w, r, RANGE_HEAP, p, pages);
	fill_from(w, r, 0);
}

/* Worker 0 moves the break itself, as long as nobody else has put something above its part. */
void op_brk(struct worker *w)
{
	if (w->number != 0 || w->depth)
		return;
	struct range *r = pick(w, RANGE_BRK);
	uint32_t pages = log_below(w, 1024);

	pthread_mutex_lock(&heap);
	if (!r) {
		uintptr_t end = (uintptr_t)sbrk(0);
		char *p = NULL;

		r = fresh(w, pages);
		if (r && sbrk((intptr_t)(-end % PAGE)) != (void *)-1)
			p = sbrk((intptr_t)pages * PAGE);
		if (r && p)
			adopt(w, r, RANGE_BRK, p, pages);
	} else if (sbrk(0) == r->base + (size_t)r->pages * PAGE) {
		if (below(w, 2) && r->pages > pages) {
			must(w, sbrk(-(intptr_t)pages * PAGE) != (void *)-1, "sbrk");
			r->pages -= pages;
			w->pages -= pages;
		} else if (w->pages + pages <= w->budget && r->pages + pages <= MAX_PAGES) {
			must(w, sbrk((intptr_t)pages * PAGE) != (void *)-1, "sbrk");
			for (uint32_t i = 0; i < pages; i++)
				r->key[r->pages + i] = 0;
			r->pages += pages;
			w->pages += pages;
		}
	}
	pthread_mutex_unlock(&heap);
	if (!r || r->kind == RANGE_FREE)
		return;
	check_range(w, r, 0, r->pages);
	for (uint32_t i = 0; i < r->pages; i += 3)
		write_page(w, r, i);
}
