/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies that see nothing but faults. All there is to learn of a page is that it came back, and how long it was out,
 * counted in pages that went meanwhile.
 *
 * `queues` is src/host/library/queue.c, page by page, and what can be varied in it; its epochs are kept as they are
 * there, with their wrap-around. A page that comes back within the window has its level raised (1 is main, and queue.c
 * knows no other); one that was out for longer begins anew. A page of level l is passed over l - 1 times in main.
 */
#include "policy.h"

#include <stdlib.h>

#define EPOCHS 8u /* in which as many go as there are */

/* ---- pages without an order, one of which can be picked ---- */

struct bag {
	uint32_t *page;
	uint32_t n;
};

static uint32_t bag_take(struct bag *b, uint32_t i)
{
	uint32_t page = b->page[i];

	b->page[i] = b->page[--b->n];
	return page;
}

/* ---- any page ---- */

struct any {
	struct model m;
	struct bag bag;
};

static bool any_begin(struct model *m)
{
	return (((struct any *)m)->bag.page = malloc(m->cap * sizeof(uint32_t)));
}

static void any_end(struct model *m)
{
	free(((struct any *)m)->bag.page);
}

static uint32_t any_victim(struct model *m, uint32_t page)
{
	struct bag *b = &((struct any *)m)->bag;

	(void)page;
	return bag_take(b, spw__pick(m, b->n));
}

static void any_insert(struct model *m, uint32_t page, bool before)
{
	struct bag *b = &((struct any *)m)->bag;

	(void)before;
	b->page[b->n++] = page;
}

/* ---- queue.c and its variants ---- */

enum { PROBATION, MAIN };

struct queues {
	struct model m;
	struct bag bag; /* main, if any page of it goes */
	uint8_t *level, *left, *age;
	uint32_t epoch_taken;
	uint8_t epoch;
};

static bool queues_begin(struct model *m)
{
	struct queues *q = (struct queues *)m;

	q->level = calloc(m->trace->pages, 3);
	q->left = q->level + m->trace->pages;
	q->age = q->left + m->trace->pages;
	q->bag.page = malloc(m->cap * sizeof(uint32_t));
	return q->level && q->bag.page;
}

static void queues_end(struct model *m)
{
	free(((struct queues *)m)->level);
	free(((struct queues *)m)->bag.page);
}

static void to_main(struct queues *q, uint32_t page)
{
	if (q->m.policy->any)
		q->bag.page[q->bag.n++] = page;
	else
		spw__deck_push(&q->m.deck, MAIN, page);
}

static uint32_t of_main(struct queues *q)
{
	return q->m.policy->any ? bag_take(&q->bag, spw__pick(&q->m, q->bag.n)) : spw__deck_pop(&q->m.deck, MAIN);
}

static void count_epochs(struct queues *q)
{
	if (++q->epoch_taken * EPOCHS < q->m.cap)
		return;
	q->epoch_taken = 0;
	q->epoch++;
}

static uint32_t queues_victim(struct model *m, uint32_t page)
{
	struct queues *q = (struct queues *)m;

	for (;;) {
		uint32_t probation = m->deck.n[PROBATION], main = m->deck.n[MAIN] + q->bag.n;
		bool of_probation = !main || (probation && probation * m->policy->part >= probation + main);

		page = of_probation ? spw__deck_pop(&m->deck, PROBATION) : of_main(q);
		if (of_probation || !q->left[page])
			break;
		q->left[page]--;
		to_main(q, page);
	}
	q->age[page] = q->epoch;
	count_epochs(q);
	return page;
}

static void queues_insert(struct model *m, uint32_t page, bool before)
{
	struct queues *q = (struct queues *)m;
	bool soon = before && (uint8_t)(q->epoch - q->age[page]) <= m->policy->window;

	q->level[page] = !soon ? 0 : q->level[page] < m->policy->levels ? q->level[page] + 1 : q->level[page];
	q->left[page] = q->level[page] > 1 ? q->level[page] - 1 : 0;
	if (q->level[page] || !m->policy->part)
		to_main(q, page);
	else
		spw__deck_push(&m->deck, PROBATION, page);
}

/* ---- as LIRS (Jiang and Zhang, SIGMETRICS 2002): by the faults between two of a page ---- */

/* mark: the fault that brought the page. In main is what has a shorter distance than main's oldest has been there. */
struct lirs {
	struct model m;
	uint32_t faults;
};

static uint32_t lirs_victim(struct model *m, uint32_t page)
{
	(void)page;
	return spw__deck_pop(&m->deck, m->deck.n[PROBATION] ? PROBATION : MAIN);
}

static void lirs_insert(struct model *m, uint32_t page, bool before)
{
	struct lirs *l = (struct lirs *)m;
	struct deck *d = &m->deck;
	uint32_t most = m->cap - m->cap / m->policy->part, now = ++l->faults;
	bool full = d->n[MAIN] >= most;
	bool closer = before && full && now - m->mark[page] < now - m->mark[d->oldest[MAIN]];

	if (closer)
		spw__deck_push(d, PROBATION, spw__deck_pop(d, MAIN));
	spw__deck_push(d, closer || !full ? MAIN : PROBATION, page);
	m->mark[page] = now;
}

/* ---- by how long it was out: the sooner back, the longer it stays ---- */

/* mark: pages that had gone when it went. `levels` times at most it is passed over. */
struct sooner {
	struct model m;
	uint8_t *left;
};

static bool sooner_begin(struct model *m)
{
	return (((struct sooner *)m)->left = calloc(m->trace->pages, 1));
}

static void sooner_end(struct model *m)
{
	free(((struct sooner *)m)->left);
}

static uint32_t sooner_victim(struct model *m, uint32_t page)
{
	uint8_t *left = ((struct sooner *)m)->left;

	for (page = spw__deck_pop(&m->deck, 0); left[page]; page = spw__deck_pop(&m->deck, 0)) {
		left[page]--;
		spw__deck_push(&m->deck, 0, page);
	}
	m->mark[page] = (uint32_t)m->taken;
	return page;
}

static void sooner_insert(struct model *m, uint32_t page, bool before)
{
	uint8_t *left = &((struct sooner *)m)->left[page];
	uint32_t out = (uint32_t)m->taken - m->mark[page];

	*left = 0;
	for (uint32_t bar = m->cap; before && *left < m->policy->levels && out < bar; bar /= 2)
		++*left;
	spw__deck_push(&m->deck, 0, page);
}

/* clang-format off */
#define ANY .size = sizeof(struct any), .begin = any_begin, .end = any_end, .victim = any_victim, .insert = any_insert
#define QUEUES \
	.size = sizeof(struct queues), .begin = queues_begin, .end = queues_end, .victim = queues_victim, \
	.insert = queues_insert
#define LIRS .size = sizeof(struct lirs), .victim = lirs_victim, .insert = lirs_insert
#define SOONER \
	.size = sizeof(struct sooner), .begin = sooner_begin, .end = sooner_end, .victim = sooner_victim, \
	.insert = sooner_insert

#define QUEUE_C(part_, window_, text) \
	{QUEUES, .name = "queue 1/" #part_ ", " text, .part = part_, .window = window_, .levels = 1}
#define QUEUE_PARTS(window_, text) \
	QUEUE_C(4, window_, text), QUEUE_C(8, window_, text), QUEUE_C(16, window_, text), QUEUE_C(32, window_, text)
#define QUEUE_ANY(part_, window_, text) \
	{QUEUES, .name = "queue 1/" #part_ ", " text ", any of main", .part = part_, .window = window_, .levels = 1, \
	 .any = true}
#define QUEUE_LEVELS(part_, window_, text) \
	{QUEUES, .name = "queue 1/" #part_ ", " text ", 4 levels", .part = part_, .window = window_, .levels = 4}

const struct policy spw__fault_policies[] = {
	{ANY, .name = "random"},
	QUEUE_PARTS(2, "2/8"),
	QUEUE_PARTS(3, "3/8"),
	QUEUE_PARTS(4, "4/8"),
	QUEUE_PARTS(8, "1"),
	QUEUE_PARTS(16, "2"),
	QUEUE_ANY(8, 8, "1"),
	QUEUE_ANY(16, 8, "1"),
	QUEUE_ANY(16, 4, "4/8"),
	QUEUE_ANY(32, 4, "4/8"),
	QUEUE_LEVELS(8, 8, "1"),
	QUEUE_LEVELS(16, 4, "4/8"),
	{QUEUES, .name = "CLOCK by refaults, 1", .window = 8, .levels = 2},
	{QUEUES, .name = "CLOCK by refaults, 3", .window = 8, .levels = 4},
	{SOONER, .name = "sooner back, longer in, 2", .levels = 2},
	{SOONER, .name = "sooner back, longer in, 4", .levels = 4},
	{LIRS, .name = "LIRS by faults 1/8", .part = 8},
	{LIRS, .name = "LIRS by faults 1/32", .part = 32},
	{0},
};
/* clang-format on */
