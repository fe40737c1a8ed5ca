/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Equal shares would evict what a busy process needs while an idle one keeps what it never looks at; taking from the
 * largest punishes the one that the cap is there for. What tells them apart is heat, the pages that a process had to
 * read back soon after they went (one that reads its memory through once has none): over its size, it says how much it
 * would miss the next page that it gives.
 *
 * Over the budget the coldest give first. At the budget nothing would ever move again, however hot one has become, so
 * there the coldest passes on as much as the hottest reads back in the same time. Under it the room is everybody's:
 * all of it while there is plenty, near the cap a part, so that two that grow at once do not both take it.
 *
 * That part is half by size and half by heat over size, of what is more than each process leaves free anyway: of a
 * target below that, it would give. Shared out by heads, the room of a tree of a compiler and five small ones that wait
 * for it would be left free six times. Those below the floor are let grow to it: that is not kept free for them. When
 * one does grow, it counts in the next sum, some ms later.
 */
#include "cmd/targets.h"

#include <stdbool.h>
#include <stdlib.h>

#define PAGE       4096
#define REST_LEAST (1ull << 20)

static uint64_t below(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What it adds to the sum of the tree. */
static uint64_t own(const struct spw_share *s)
{
	return below(s->resident, s->shared);
}

static double density(const struct spw_share *s)
{
	return (double)s->heat / (double)(own(s) + SPW_TARGET_FLOOR);
}

/* Coldest first; of equally cold ones the larger, which feels the same loss less. */
static int colder(const void *a, const void *b)
{
	double da = density(a), db = density(b);

	if (da != db)
		return da < db ? -1 : 1;
	return (own(a) < own(b)) - (own(a) > own(b));
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void shrink(struct spw_share *s, unsigned n, uint64_t excess)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t give = least(excess, below(own(&s[i]), SPW_TARGET_FLOOR));

		s[i].target = most(own(&s[i]) - give, SPW_TARGET_FLOOR);
		excess -= give;
	}
}

/* What a process leaves free of its target (margin() in host/process/reclaim.c). A small one has room to the floor. */
static uint64_t rest(const struct spw_share *s)
{
	return own(s) > SPW_TARGET_FLOOR ? most(own(s) / 128, REST_LEAST) : 0;
}

/* The room near the cap, and what becomes of it. */
struct room {
	uint64_t bytes, rests; /* all of it; what the processes leave free */
	uint64_t sum;          /* of what they have */
	double densities;
	unsigned n;
};

/* What of the room one leaves free: where there is not enough for all, a part. */
static uint64_t kept(const struct spw_share *s, const struct room *r)
{
	return r->bytes < r->rests ? (uint64_t)((double)rest(s) * (double)r->bytes / (double)r->rests) : rest(s);
}

/*
 * The part of one in what is left. By size alone, a process that was left little would never get more; by heat alone
 * nothing would be left to one that grows and misses nothing yet.
 */
static uint64_t part(const struct spw_share *s, const struct room *r)
{
	double by_size = r->sum ? (double)own(s) / (double)r->sum : 1.0 / r->n;
	double by_heat = r->densities > 0 ? density(s) / r->densities : by_size;

	return (uint64_t)((double)below(r->bytes, r->rests) * (by_size + by_heat) / 2);
}

static void pass_on(struct spw_share *cold, const struct spw_share *hot, const struct room *r, uint64_t limit,
		    uint64_t elapsed_ns)
{
	if (density(cold) * 2 >= density(hot))
		return;
	uint64_t step = least(hot->heat * PAGE * (elapsed_ns / 1000) / 1000000, limit / 64);
	cold->target = own(cold) + kept(cold, r) - least(step, below(own(cold), SPW_TARGET_FLOOR));
}

static struct room room_of(const struct spw_share *s, unsigned n, uint64_t bytes, uint64_t sum)
{
	struct room r = {.bytes = bytes, .sum = sum, .n = n};

	for (unsigned i = 0; i < n; i++) {
		r.rests += rest(&s[i]);
		r.densities += density(&s[i]);
	}
	return r;
}

void spw__targets(struct spw_share *s, unsigned n, uint64_t limit, uint64_t other, uint64_t elapsed_ns)
{
	if (!n)
		return;
	/* one alone needs no margin for what the others do meanwhile */
	uint64_t budget = below(n == 1 ? limit : limit / 100 * 98, other);
	uint64_t sum = 0;

	if (budget < n * SPW_TARGET_FLOOR)
		budget = n * SPW_TARGET_FLOOR;
	for (unsigned i = 0; i < n; i++)
		sum += own(&s[i]);
	qsort(s, n, sizeof(*s), colder);
	if (sum > budget) {
		shrink(s, n, sum - budget);
		return;
	}
	struct room r = room_of(s, n, budget - sum, sum);
	bool plenty = n == 1 || sum + other < limit / 10 * 9;
	unsigned cold = 0;

	for (unsigned i = 0; i < n; i++)
		s[i].target =
			most(own(&s[i]) + (plenty ? r.bytes : kept(&s[i], &r) + part(&s[i], &r)), SPW_TARGET_FLOOR);
	/* The coldest that has something to give. */
	while (cold < n && own(&s[cold]) <= SPW_TARGET_FLOOR)
		cold++;
	if (cold + 1 < n && r.bytes < limit / 64 + r.rests)
		pass_on(&s[cold], &s[n - 1], &r, limit, elapsed_ns);
}
