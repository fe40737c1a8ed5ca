/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns that programs are made of, each alone. */
#include "synthetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PAGES   4096u
#define RECORDS 400000u
#define HOT     (PAGES / 8) /* pages of a hot set */
#define SKEW    0.99
#define SHIFT   50000u /* records until the hot set is another one */

static uint64_t seed;
static double sum[PAGES]; /* of Zipf's weights */

static uint32_t below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed >> 32) * n >> 32);
}

/* The page of a rank; neighbours in rank lie apart, which no policy looks at but a reader of the trace may. */
static uint32_t zipf(uint32_t i)
{
	double at = below(1u << 30) / (double)(1u << 30) * sum[PAGES - 1];
	uint32_t low = 0, high = PAGES - 1;

	(void)i;
	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (sum[middle] <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint32_t uniform(uint32_t i)
{
	(void)i;
	return below(PAGES);
}

static uint32_t loop(uint32_t i)
{
	return i % PAGES;
}

/* Every other record is of the hot set, the others go through all the rest in order. */
static uint32_t scan(uint32_t i)
{
	return i % 2 ? below(HOT) : HOT + i / 2 % (PAGES - HOT);
}

/* Nine of ten are of the hot set. */
static uint32_t shifting(uint32_t i)
{
	return below(10) ? (i / SHIFT * HOT + below(HOT)) % PAGES : below(PAGES);
}

static const struct {
	const char *name;
	uint32_t (*page)(uint32_t i);
} pattern[] = {{"zipf", zipf}, {"uniform", uniform}, {"loop", loop}, {"scan", scan}, {"shifting", shifting}};

#define PATTERNS (sizeof(pattern) / sizeof(pattern[0]))

const char *const spw__synthetic_names[] = {"zipf", "uniform", "loop", "scan", "shifting", NULL};

bool spw__synthetic(const char *name, struct spw_trace *t)
{
	unsigned p = 0;

	while (p < PATTERNS && strcmp(name, pattern[p].name))
		p++;
	*t = (struct spw_trace){.pages = PAGES, .n = RECORDS, .accesses = RECORDS};
	if (p == PATTERNS || !(t->page = malloc(RECORDS * sizeof(*t->page))))
		return false;
	seed = 0x2545f4914f6cdd1dull;
	for (uint32_t i = 0; i < PAGES; i++)
		sum[i] = (i ? sum[i - 1] : 0) + 1 / pow(i + 1, SKEW);
	for (uint32_t i = 0; i < RECORDS; i++)
		t->page[i] = pattern[p].page(i);
	return true;
}
