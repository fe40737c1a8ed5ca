/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages are fetched at equal steps: as many as a stride has deserved, of each thread its own, and none elsewhere.
 */
#include "host/strides.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 4096
#define BASE 0x7f0000000000

static struct spw__strides s;
static int64_t step;

static int begin(void **state)
{
	(void)state;
	memset(&s, 0, sizeof(s));
	step = 0;
	return 0;
}

static unsigned at(uint64_t thread, uint64_t page)
{
	return spw__strides_next(&s, thread, BASE + page * PAGE, &step);
}

/* Ask for every by-th page from `first` on that has not come along; returns how many faults `pages` of them took. */
static unsigned walk(uint64_t first, int64_t by, unsigned pages)
{
	unsigned faults = 0;

	for (unsigned i = 0; i < pages; faults++) {
		unsigned n = at(1, first + (uint64_t)(by * i));

		assert_true(n <= SPW__STRIDES);
		if (n > 1)
			assert_int_equal(step, by * PAGE);
		i += n;
	}
	return faults;
}

static void the_third_page_brings_another(void **state)
{
	(void)state;
	assert_int_equal(at(1, 100), 1);
	assert_int_equal(at(1, 117), 1);
	assert_int_equal(step, 0);
	assert_int_equal(at(1, 134), 2);
	assert_int_equal(step, 17 * PAGE);
	assert_int_equal(at(1, 168), 4);
	assert_int_equal(at(1, 236), 8);
	assert_int_equal(at(1, 372), 8);
}

static void forth_and_back(void **state)
{
	(void)state;
	static const int64_t by[] = {1, 2, 17, 5000, -1, -3, -5000};

	/* 1, 1, 2, 4, then 8 at a time. */
	for (unsigned i = 0; i < sizeof(by) / sizeof(*by); i++) {
		begin(NULL);
		assert_int_equal(walk(1 << 20, by[i], 8 + 8 * 10), 4 + 10);
	}
}

static void steps_left_out_halve_the_window(void **state)
{
	(void)state;
	walk(0, 17, 8);
	assert_int_equal(at(1, 17ull * 8), 8);
	assert_int_equal(at(1, 17ull * 17), 4);
	/* Some that were fetched have gone again: no reason to fetch fewer. */
	assert_int_equal(at(1, 17ull * 20), 4);
	assert_int_equal(at(1, 17ull * 24), 8);
	assert_int_equal(at(1, 17ull * 40), 4);
	assert_int_equal(at(1, 17ull * 50), 2);
	assert_int_equal(at(1, 17ull * 60), 1);
	/* The end of it; ten steps are one now. */
	assert_int_equal(at(1, 17ull * 70), 1);
	assert_int_equal(at(1, 17ull * 80), 2);
	assert_int_equal(step, 170 * PAGE);
}

/* Records of one size, some of which are wanted, in order: little is fetched for nothing. */
static void a_sparse_walk_is_no_stride(void **state)
{
	(void)state;
	static bool in[100000], wanted[100000];
	uint64_t rng = 1;
	unsigned faults = 0, in_vain = 0;

	for (uint64_t page = 0; page < 90000; page += 3 * (1 + (rng >> 33) % 8)) {
		rng = rng * 6364136223846793005 + 1442695040888963407;
		wanted[page] = true;
		if (in[page])
			continue;
		unsigned n = at(1, page);

		for (unsigned i = 0; i < n; i++)
			in[page + i * (uint64_t)step / PAGE] = true;
		faults++;
	}
	for (unsigned page = 0; page < 100000; page++)
		in_vain += in[page] && !wanted[page];
	print_message("%u faults, %u pages for nothing\n", faults, in_vain);
	assert_true(in_vain < faults / 4);
}

static void another_step_begins_anew(void **state)
{
	(void)state;
	walk(0, 17, 40);
	assert_int_equal(at(1, 17ull * 40 + 1), 1);
	assert_int_equal(at(1, 17ull * 40 + 20), 1);
	assert_int_equal(at(1, 17ull * 40 + 39), 2);
	/* Twice as far is no third equal step. */
	begin(NULL);
	at(1, 0);
	at(1, 17);
	assert_int_equal(at(1, 51), 1);
	/* Nor is the same distance the other way. */
	begin(NULL);
	at(1, 0);
	at(1, 17);
	assert_int_equal(at(1, 0), 1);
}

static void the_same_page_again_is_no_step(void **state)
{
	(void)state;
	assert_int_equal(at(1, 0), 1);
	assert_int_equal(at(1, 0), 1);
	at(1, 17);
	assert_int_equal(at(1, 17), 1);
	assert_int_equal(at(1, 34), 2);
}

static void threads_have_their_own(void **state)
{
	(void)state;
	/* As glibc lays them: 8 MiB apart. */
	uint64_t one = 0x7f1234567640, other = one + (8 << 20);

	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(at(one, 17 * i), 1);
		assert_int_equal(at(other, 1000000 + 5 * i), 1);
	}
	assert_int_equal(at(one, 34), 2);
	assert_int_equal(step, 17 * PAGE);
	assert_int_equal(at(other, 1000010), 2);
	assert_int_equal(step, 5 * PAGE);
}

static void no_order_has_no_steps(void **state)
{
	(void)state;
	uint64_t rng = 1;
	unsigned extra = 0;

	for (unsigned i = 0; i < 100000; i++) {
		rng = rng * 6364136223846793005 + 1442695040888963407;
		extra += at(1, (rng >> 33) % 262144) - 1;
	}
	assert_true(extra < 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_third_page_brings_another, begin),
		cmocka_unit_test_setup(forth_and_back, begin),
		cmocka_unit_test_setup(steps_left_out_halve_the_window, begin),
		cmocka_unit_test_setup(a_sparse_walk_is_no_stride, begin),
		cmocka_unit_test_setup(another_step_begins_anew, begin),
		cmocka_unit_test_setup(the_same_page_again_is_no_step, begin),
		cmocka_unit_test_setup(threads_have_their_own, begin),
		cmocka_unit_test_setup(no_order_has_no_steps, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
