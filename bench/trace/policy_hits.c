/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies as they are published, which see each access; without their hits, the same for one who does not. And
 * Belady's (OPT), which sees the future too.
 */
#include "policy.h"

#include <stdlib.h>

/* ---- OPT: the page whose next use is farthest away ---- */

/*
 * The next uses of what is resident, as a set of records: no two pages have the same one, so the farthest is the
 * greatest member. A page that is never used again has a number behind all records. Level 0 has a bit for each
 * number, a bit of level n + 1 says whether a word of level n has any.
 */
#define LEVELS 6u

struct opt {
	struct model m;
	uint32_t *next; /* by record: the record of the next use of its page, or behind all */
	uint64_t *set[LEVELS];
};

static bool opt_begin(struct model *m)
{
	struct opt *o = (struct opt *)m;
	const struct spw_trace *t = m->trace;
	uint64_t bits = (uint64_t)t->n + t->pages;
	bool all = (o->next = malloc((size_t)t->n * sizeof(*o->next)));

	for (unsigned i = 0; i < LEVELS; i++, bits = bits / 64 + 1)
		all = (o->set[i] = calloc(bits / 64 + 1, sizeof(uint64_t))) && all;
	for (uint32_t p = 0; all && p < t->pages; p++)
		m->mark[p] = t->n + p;
	for (uint32_t i = t->n; all && i--;) {
		o->next[i] = m->mark[t->page[i]];
		m->mark[t->page[i]] = i;
	}
	return all;
}

static void opt_end(struct model *m)
{
	struct opt *o = (struct opt *)m;

	free(o->next);
	for (unsigned i = 0; i < LEVELS; i++)
		free(o->set[i]);
}

static void opt_add(struct opt *o, uint32_t bit)
{
	for (unsigned i = 0; i < LEVELS; i++, bit /= 64)
		o->set[i][bit / 64] |= 1ull << bit % 64;
}

static void opt_del(struct opt *o, uint32_t bit)
{
	for (unsigned i = 0; i < LEVELS; i++, bit /= 64) {
		o->set[i][bit / 64] &= ~(1ull << bit % 64);
		if (o->set[i][bit / 64])
			return;
	}
}

static void opt_hit(struct model *m, uint32_t page)
{
	struct opt *o = (struct opt *)m;

	(void)page;
	opt_del(o, m->now);
	opt_add(o, o->next[m->now]);
}

static uint32_t opt_victim(struct model *m, uint32_t page)
{
	struct opt *o = (struct opt *)m;
	uint32_t bit = 0;

	(void)page;
	for (unsigned i = LEVELS; i--;)
		bit = bit * 64 + 63 - (uint32_t)__builtin_clzll(o->set[i][bit]);
	opt_del(o, bit);
	return bit >= m->trace->n ? bit - m->trace->n : m->trace->page[bit];
}

static void opt_insert(struct model *m, uint32_t page, bool before)
{
	struct opt *o = (struct opt *)m;

	(void)page;
	(void)before;
	opt_add(o, o->next[m->now]);
}

/* ---- LRU; FIFO is LRU without its hits ---- */

static void lru_hit(struct model *m, uint32_t page)
{
	spw__deck_remove(&m->deck, page);
	spw__deck_push(&m->deck, 0, page);
}

static uint32_t lru_victim(struct model *m, uint32_t page)
{
	(void)page;
	return spw__deck_pop(&m->deck, 0);
}

static void lru_insert(struct model *m, uint32_t page, bool before)
{
	(void)before;
	spw__deck_push(&m->deck, 0, page);
}

/* ---- CLOCK: the oldest that was not used since its last turn; mark: it was ---- */

static void clock_hit(struct model *m, uint32_t page)
{
	m->mark[page] = 1;
}

static uint32_t clock_victim(struct model *m, uint32_t page)
{
	for (;;) {
		page = spw__deck_pop(&m->deck, 0);
		if (!m->mark[page])
			return page;
		m->mark[page] = 0;
		spw__deck_push(&m->deck, 0, page);
	}
}

/* ---- 2Q (Johnson and Shasha, VLDB 1994), the full version, with the sizes that they recommend ---- */

enum { Q_IN, Q_OUT, Q_MAIN };

static void twoq_hit(struct model *m, uint32_t page)
{
	if (!spw__deck_has(&m->deck, Q_MAIN, page))
		return;
	spw__deck_remove(&m->deck, page);
	spw__deck_push(&m->deck, Q_MAIN, page);
}

static uint32_t twoq_victim(struct model *m, uint32_t page)
{
	struct deck *d = &m->deck;

	(void)page;
	if (d->n[Q_IN] <= m->cap / 4 && d->n[Q_MAIN])
		return spw__deck_pop(d, Q_MAIN);
	page = spw__deck_pop(d, Q_IN);
	spw__deck_push(d, Q_OUT, page);
	return page;
}

static void twoq_insert(struct model *m, uint32_t page, bool before)
{
	struct deck *d = &m->deck;
	bool known = spw__deck_has(d, Q_OUT, page);

	(void)before;
	if (known)
		spw__deck_remove(d, page);
	spw__deck_push(d, known ? Q_MAIN : Q_IN, page);
	while (d->n[Q_OUT] > m->cap / 2)
		spw__deck_pop(d, Q_OUT);
}

/* ---- S3-FIFO (Yang et al., SOSP 2023); mark: uses, 3 at most ---- */

enum { S_SMALL, S_MAIN, S_GHOST };

static uint32_t s3_small(const struct model *m)
{
	return m->cap / 10 ? m->cap / 10 : 1;
}

static void s3_hit(struct model *m, uint32_t page)
{
	m->mark[page] += m->mark[page] < 3;
}

static uint32_t s3_victim(struct model *m, uint32_t page)
{
	struct deck *d = &m->deck;

	for (;;) {
		bool small = d->n[S_SMALL] >= s3_small(m) || !d->n[S_MAIN];

		page = spw__deck_pop(d, small ? S_SMALL : S_MAIN);
		if (small && m->mark[page] <= 1) {
			spw__deck_push(d, S_GHOST, page);
			return page;
		}
		if (!small && !m->mark[page])
			return page;
		m->mark[page] = small ? 0 : m->mark[page] - 1;
		spw__deck_push(d, S_MAIN, page);
	}
}

static void s3_insert(struct model *m, uint32_t page, bool before)
{
	struct deck *d = &m->deck;
	bool known = spw__deck_has(d, S_GHOST, page);

	(void)before;
	if (known)
		spw__deck_remove(d, page);
	m->mark[page] = 0;
	spw__deck_push(d, known ? S_MAIN : S_SMALL, page);
	while (d->n[S_GHOST] > m->cap - s3_small(m))
		spw__deck_pop(d, S_GHOST);
}

/* ---- ARC (Megiddo and Modha, FAST 2003) ---- */

enum { T1, T2, B1, B2 };

struct arc {
	struct model m;
	uint32_t want; /* pages of T1 */
};

static void arc_hit(struct model *m, uint32_t page)
{
	spw__deck_remove(&m->deck, page);
	spw__deck_push(&m->deck, T2, page);
}

/* What a ghost that is wanted says of the sizes. */
static void arc_learn(struct arc *a, uint32_t page)
{
	struct deck *d = &a->m.deck;

	if (spw__deck_has(d, B1, page)) {
		uint32_t step = d->n[B2] > d->n[B1] ? d->n[B2] / d->n[B1] : 1;

		a->want = a->want + step < a->m.cap ? a->want + step : a->m.cap;
	} else if (spw__deck_has(d, B2, page)) {
		uint32_t step = d->n[B1] > d->n[B2] ? d->n[B1] / d->n[B2] : 1;

		a->want -= step < a->want ? step : a->want;
	}
}

/*
 * ARC keeps no ghost of a page that went from a T1 of all pages. Without hits T1 always is that, and ARC would be FIFO:
 * there B1 may be as large as the cap.
 */
static uint32_t arc_victim(struct model *m, uint32_t page)
{
	struct arc *a = (struct arc *)m;
	struct deck *d = &m->deck;
	uint32_t most = m->policy->hit ? m->cap : 2 * m->cap; /* of T1 and B1 */
	bool ghost = d->in[page];

	arc_learn(a, page);
	if (!ghost && d->n[T1] == most)
		return spw__deck_pop(d, T1);
	if (!ghost && d->n[T1] + d->n[B1] == most)
		spw__deck_pop(d, B1);
	else if (!ghost && d->n[B1] + d->n[B2] == m->cap)
		spw__deck_pop(d, d->n[B2] ? B2 : B1);

	bool first = d->n[T1] && (d->n[T1] > a->want || (d->n[T1] == a->want && spw__deck_has(d, B2, page)));
	bool t1 = first || !d->n[T2];
	uint32_t out = spw__deck_pop(d, t1 ? T1 : T2);

	spw__deck_push(d, t1 ? B1 : B2, out);
	return out;
}

static void arc_insert(struct model *m, uint32_t page, bool before)
{
	bool ghost = m->deck.in[page];

	(void)before;
	if (ghost)
		spw__deck_remove(&m->deck, page);
	spw__deck_push(&m->deck, ghost ? T2 : T1, page);
}

#define MODEL sizeof(struct model)

const struct policy spw__hit_policies[] = {
	{.name = "OPT",
	 .size = sizeof(struct opt),
	 .begin = opt_begin,
	 .end = opt_end,
	 .hit = opt_hit,
	 .victim = opt_victim,
	 .insert = opt_insert},
	{.name = "LRU", .size = MODEL, .hit = lru_hit, .victim = lru_victim, .insert = lru_insert},
	{.name = "CLOCK", .size = MODEL, .hit = clock_hit, .victim = clock_victim, .insert = lru_insert},
	{.name = "2Q", .size = MODEL, .hit = twoq_hit, .victim = twoq_victim, .insert = twoq_insert},
	{.name = "S3-FIFO", .size = MODEL, .hit = s3_hit, .victim = s3_victim, .insert = s3_insert},
	{.name = "ARC", .size = sizeof(struct arc), .hit = arc_hit, .victim = arc_victim, .insert = arc_insert},
	{.name = "FIFO", .size = MODEL, .victim = lru_victim, .insert = lru_insert},
	{.name = "2Q, faults only", .size = MODEL, .victim = twoq_victim, .insert = twoq_insert},
	{.name = "S3-FIFO, faults only", .size = MODEL, .victim = s3_victim, .insert = s3_insert},
	{.name = "ARC, faults only", .size = sizeof(struct arc), .victim = arc_victim, .insert = arc_insert},
	{0},
};
