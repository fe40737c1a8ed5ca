/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is fetched with a page: streams, places that a program comes back to, and pages that nobody asks for.
 *
 * Memory of which all is out, and comes in as it is fetched.
 */
#include "host/process/ahead.h"
#include "space/space.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PAGES (1u << 16)
#define BLOCK 16u
#define BASE  (1ull << 32)

static struct spw__ahead h;
static bool in[PAGES];

static int begin(void **state)
{
	(void)state;
	memset(&h, 0, sizeof(h));
	memset(in, 0, sizeof(in));
	return 0;
}

static uint64_t at(unsigned page)
{
	return BASE + (uint64_t)page * SPW_PAGE;
}

static bool is_out(uint64_t va)
{
	return va >= BASE && va < at(PAGES) && !in[(va - BASE) / SPW_PAGE];
}

/* The program uses a page. How many came in for it: 0, it was there. */
static unsigned use(unsigned page)
{
	uint64_t va = at(page);

	if (in[page])
		return 0;
	struct spw__ahead_span most = spw__ahead_wanted(&h, va), out = {va, va + SPW_PAGE};

	assert_true(most.from <= va && most.to > va && most.to - most.from <= SPW__WINDOW_MAX * SPW_PAGE);
	while (out.from > most.from && is_out(out.from - SPW_PAGE))
		out.from -= SPW_PAGE;
	while (out.to < most.to && is_out(out.to))
		out.to += SPW_PAGE;
	struct spw__ahead_span s = spw__ahead_choose(&h, va, out);

	assert_true(s.from >= out.from && s.from <= va && s.to > va && s.to <= out.to);
	for (va = s.from; va < s.to; va += SPW_PAGE)
		in[(va - BASE) / SPW_PAGE] = true;
	spw__ahead_advance(&h, at(page), (unsigned)((s.to - at(page)) / SPW_PAGE));
	return (unsigned)((s.to - s.from) / SPW_PAGE);
}

/* The block's pages in an order that no stream has; how many faults that took. */
static unsigned use_block(unsigned block)
{
	unsigned faults = 0;

	for (unsigned i = 0; i < BLOCK; i++)
		faults += use(block * BLOCK + (i * 7 + 3) % BLOCK) > 0;
	return faults;
}

static void a_stream_comes_in_growing_windows(void **state)
{
	(void)state;
	unsigned page = 0, n, last = 0;

	for (unsigned i = 0; i < 12; i++, page += n) {
		n = use(page);
		assert_true(n >= last && n <= SPW__WINDOW_MAX);
		last = n;
	}
	assert_int_equal(last, SPW__WINDOW_MAX);
}

static void a_page_alone_comes_alone(void **state)
{
	(void)state;
	for (unsigned block = 0; block < PAGES / BLOCK; block += 4)
		assert_int_equal(use(block * BLOCK + block % BLOCK), 1);
}

static void a_place_that_is_in_use_comes_as_a_whole(void **state)
{
	(void)state;
	unsigned faults = 0;

	/* Far from each other, so that each is begun anew: a page, another, two, four, eight. */
	for (unsigned block = 0; block < PAGES / BLOCK; block += 4)
		faults += use_block(block);
	assert_true(faults < PAGES / 4 / 2);
}

static void and_so_does_the_place_beside_it(void **state)
{
	(void)state;
	unsigned first = use_block(0), others = 0;

	for (unsigned block = 1; block <= 32; block++)
		others += use_block(block);
	assert_true(others < 32 * first / 2);
}

static void what_came_back_late_is_begun_anew(void **state)
{
	(void)state;
	use(0);
	for (unsigned i = 0; i < 1000; i++)
		use((64 + i * 2) * BLOCK);
	assert_int_equal(use(2), 1);
}

/* Two pages of each block, never more: the first, and one that is not its neighbour. */
static unsigned use_few(unsigned block)
{
	return use(block * BLOCK) + use(block * BLOCK + 9);
}

static void what_nobody_asks_for_is_not_fetched_any_more(void **state)
{
	(void)state;
	unsigned fetched = 0, blocks = PAGES / BLOCK / 2;

	for (unsigned block = 0; block < blocks; block++)
		use_few(block * 2);
	memset(in, 0, sizeof(in));
	for (unsigned block = 0; block < blocks; block++)
		fetched += use_few(block * 2);
	assert_int_equal(fetched, 2 * blocks);
}

/* Neighbours in pairs, and nothing of what lies around those. */
static void but_less_of_it_is_if_that_is_asked_for(void **state)
{
	(void)state;
	static const unsigned used[] = {1, 5, 4, 9, 8};
	unsigned blocks = PAGES / BLOCK / 2, fetched = 0, faults = 0;

	for (unsigned times = 0; times < 2; times++) {
		memset(in, 0, sizeof(in));
		fetched = faults = 0;
		for (unsigned i = 0; i < blocks * 5; i++) {
			unsigned n = use(i / 5 * 2 * BLOCK + used[i % 5]);

			fetched += n;
			faults += n > 0;
		}
	}
	assert_true(faults < 4 * blocks);
	assert_true(fetched < 6 * blocks);
}

static void until_it_is_asked_for(void **state)
{
	(void)state;
	unsigned faults = 0;

	what_nobody_asks_for_is_not_fetched_any_more(state);
	for (unsigned times = 0; times < 4; times++) {
		memset(in, 0, sizeof(in));
		faults = 0;
		for (unsigned block = 0; block < PAGES / BLOCK; block += 2)
			faults += use_block(block);
	}
	assert_true(faults < PAGES / 2 / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_stream_comes_in_growing_windows, begin),
		cmocka_unit_test_setup(a_page_alone_comes_alone, begin),
		cmocka_unit_test_setup(a_place_that_is_in_use_comes_as_a_whole, begin),
		cmocka_unit_test_setup(and_so_does_the_place_beside_it, begin),
		cmocka_unit_test_setup(what_came_back_late_is_begun_anew, begin),
		cmocka_unit_test_setup(what_nobody_asks_for_is_not_fetched_any_more, begin),
		cmocka_unit_test_setup(but_less_of_it_is_if_that_is_asked_for, begin),
		cmocka_unit_test_setup(until_it_is_asked_for, begin),
	};

	return cmocka_run_group_tests_name("ahead", tests, NULL, NULL);
}
