/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Equal shares would evict what a busy process needs while an idle one keeps what it never looks at; taking from the
 * largest punishes the one that the cap is there for. What tells them apart is heat, the pages a process had to read
 * back: over its size, it says how much it would miss the next page that it gives.
 *
 * Over the budget the coldest give first. At the budget nothing would ever move again, however hot one has become, so
 * there the coldest passes on as much as the hottest reads back in the same time. Under it the room is everybody's:
 * all of it while there is plenty, an equal part near the cap, so that two that grow at once do not both take it.
 */
#include "cmd/targets.h"

#include <stdlib.h>

#define PAGE 4096

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
	return (double)s->heat / (double)(own(s) + 1);
}

/* Coldest first; of equally cold ones the larger, which feels the same loss less. */
static int colder(const void *a, const void *b)
{
	double da = density(a), db = density(b);

	if (da != db)
		return da < db ? -1 : 1;
	return (own(a) < own(b)) - (own(a) > own(b));
}

static void shrink(struct spw_share *s, unsigned n, uint64_t excess)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t give = least(excess, below(own(&s[i]), SPW_TARGET_FLOOR));

		s[i].target = own(&s[i]) - give;
		excess -= give;
	}
}

static void pass_on(struct spw_share *cold, const struct spw_share *hot, uint64_t limit, uint64_t elapsed_ns)
{
	if (density(cold) * 2 >= density(hot))
		return;
	uint64_t step = least(hot->heat * PAGE * (elapsed_ns / 1000) / 1000000, limit / 64);
	cold->target = own(cold) - least(step, below(own(cold), SPW_TARGET_FLOOR));
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
	uint64_t room = budget - sum;
	uint64_t share = sum + other < limit / 10 * 9 ? room : room / n;
	for (unsigned i = 0; i < n; i++)
		s[i].target = own(&s[i]) + share;
	if (n > 1 && room < limit / 64)
		pass_on(&s[0], &s[n - 1], limit, elapsed_ns);
}
