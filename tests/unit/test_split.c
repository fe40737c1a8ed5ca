/* SPDX-License-Identifier: Apache-2.0 */
/* The split of a cap: a program that goes back to what it has just used, one that reads at random, and bounds. */
#include "host/split.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define RESIDENT 8000u
#define LIMIT    (32ull << 20)
#define LEAST    (4ull << 20)
#define POOL_NS  15000u
#define FILE_NS  120000u

static struct spw__split s;

static int begin(void **state)
{
	(void)state;
	s = (struct spw__split){0};
	return 0;
}

/* The pool has `used` bytes, and may have `limit`. */
static void turn(uint64_t used, uint64_t limit)
{
	const struct spw_tier_stats pool = {.used_bytes = used, .pages = used / SPW_PAGE * 3};

	spw__split_turn(&s, RESIDENT, &pool, LEAST, limit);
}

/* `turns` times as many pages go out as a turn takes; each has come back, and `distance` went out in between. */
static void cycle(unsigned turns, uint32_t distance, bool from_file)
{
	uint32_t ns = from_file ? FILE_NS : POOL_NS;

	for (uint32_t i = 0; i < turns * RESIDENT; i++) {
		spw__split_out(&s, (spw_entry_t){i});
		if (i >= distance)
			spw__split_in(&s, (spw_entry_t){i - distance}, from_file, ns);
		turn(s.most ? s.most : LIMIT, LIMIT);
	}
}

static void what_comes_back_at_once_takes_from_the_pool(void **state)
{
	(void)state;
	cycle(20, RESIDENT / 8, true);
	assert_int_equal(s.most, LEAST);
}

/* Heat: one page in some stands for all, if it comes back within as many evictions as were asked for. */
static void who_comes_back_soon_is_counted(void **state)
{
	unsigned soon = 0, late = 0, strange = 0;

	(void)state;
	for (uint32_t i = 0; i < 4 * RESIDENT; i++) {
		spw__split_out(&s, (spw_entry_t){i});
		if (i < RESIDENT)
			continue;
		soon += spw__split_soon(&s, (spw_entry_t){i - RESIDENT + 10}, RESIDENT);
		late += spw__split_soon(&s, (spw_entry_t){i - RESIDENT}, RESIDENT - 10);
		strange += spw__split_soon(&s, (spw_entry_t){1u << 30 | i}, RESIDENT);
	}
	assert_in_range(soon, 3 * RESIDENT / 2, 3 * RESIDENT * 3 / 2);
	assert_int_equal(late, 0);
	assert_int_equal(strange, 0);
}

static void what_comes_back_late_from_the_pool_leaves_it(void **state)
{
	(void)state;
	cycle(20, 3 * RESIDENT, false);
	assert_int_equal(s.most, LIMIT);
}

static void and_gives_it_back_what_it_had(void **state)
{
	(void)state;
	cycle(20, RESIDENT / 8, true);
	cycle(40, 3 * RESIDENT, false);
	assert_int_equal(s.most, LIMIT);
}

/* Pages go out, and as many others come back that have been away for longer than is remembered. */
static void strangers(bool from_file, uint64_t used)
{
	s.most = LIMIT / 2;
	for (uint32_t i = 0; i < 20 * RESIDENT; i++) {
		spw__split_out(&s, (spw_entry_t){i});
		spw__split_in(&s, (spw_entry_t){i + (1u << 28)}, from_file, from_file ? FILE_NS : POOL_NS);
		turn(used, LIMIT);
	}
}

/* Reads from the file by pages that were away for long say nothing for either. */
static void what_comes_back_late_from_the_file_changes_nothing(void **state)
{
	(void)state;
	strangers(true, LIMIT / 2);
	assert_int_equal(s.most, LIMIT / 2);
}

/* Which few of those that come back at random are near is chance. */
static void a_few_that_come_back_at_once_change_nothing(void **state)
{
	(void)state;
	s.most = LIMIT / 2;
	for (uint32_t i = 0; i < 20 * RESIDENT; i++) {
		spw__split_out(&s, (spw_entry_t){i});
		if (i % 64 == 0)
			spw__split_in(&s, (spw_entry_t){i}, true, FILE_NS);
		turn(s.most, LIMIT);
	}
	assert_int_equal(s.most, LIMIT / 2);
}

/*
 * Seven of eight pages come back soon, if not so soon that they are near, and make room in the pool. So the eighth is of
 * its younger half though more pages went out since than that holds.
 */
static void what_has_come_back_does_not_make_others_old(void **state)
{
	(void)state;
	s.most = LIMIT / 2;
	for (uint32_t i = 0; i < 20 * RESIDENT; i++) {
		uint32_t soon = i - RESIDENT / 3, late = i - 2 * RESIDENT;

		spw__split_out(&s, (spw_entry_t){i});
		if (i >= RESIDENT / 3 && soon % 8)
			spw__split_in(&s, (spw_entry_t){soon}, false, POOL_NS);
		if (i >= 2 * RESIDENT && late % 8 == 0)
			spw__split_in(&s, (spw_entry_t){late}, false, POOL_NS);
		turn(LIMIT / 2, LIMIT);
	}
	assert_int_equal(s.most, LIMIT / 2);
}

/*
 * All that is out is in the pool, and is read at random: what the sample shows of distances is not always true. The
 * order in which pages came goes through the pool first, as a program that fills its memory and reads it once does.
 */
static void reads_at_random_leave_the_pool_alone(void **state)
{
	enum { OUT = LIMIT / SPW_PAGE * 3, ALL = OUT + RESIDENT };
	static uint32_t entry[ALL]; /* those that are out first */

	(void)state;
	for (uint64_t seed = 1; seed < 6; seed++) {
		uint64_t x = seed * 0x9e3779b97f4a7c15ull;

		s = (struct spw__split){0};
		for (uint32_t i = 0; i < ALL; i++)
			entry[i] = i;
		for (uint32_t i = 0; i < 40 * RESIDENT; i++) {
			bool in_order = i < 2 * ALL;

			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			uint32_t from = in_order ? i % OUT : (uint32_t)((x >> 32) % OUT),
				 to = OUT + (in_order ? i : (uint32_t)x) % RESIDENT, came = entry[from];

			spw__split_in(&s, (spw_entry_t){came}, false, POOL_NS);
			spw__split_out(&s, (spw_entry_t){entry[to]});
			entry[from] = entry[to];
			entry[to] = came;
			turn(LIMIT, LIMIT);
			assert_true(!s.most || s.most == LIMIT);
		}
	}
}

/* A pool that does not use what it may is not given more. */
static void a_pool_that_is_not_full_does_not_grow(void **state)
{
	(void)state;
	strangers(false, LIMIT / 4);
	assert_int_equal(s.most, LIMIT / 2);
}

static void the_bounds_may_move(void **state)
{
	(void)state;
	cycle(2, 3 * RESIDENT, false);
	for (uint32_t i = 0; i < 2 * RESIDENT; i++) {
		spw__split_out(&s, (spw_entry_t){i});
		turn(LIMIT, LIMIT / 4);
	}
	assert_int_equal(s.most, LIMIT / 4);
	for (uint32_t i = 0; i < 2 * RESIDENT; i++) {
		spw__split_out(&s, (spw_entry_t){i});
		turn(0, LEAST / 2);
	}
	assert_int_equal(s.most, LEAST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_comes_back_at_once_takes_from_the_pool, begin),
		cmocka_unit_test_setup(who_comes_back_soon_is_counted, begin),
		cmocka_unit_test_setup(what_comes_back_late_from_the_pool_leaves_it, begin),
		cmocka_unit_test_setup(and_gives_it_back_what_it_had, begin),
		cmocka_unit_test_setup(what_comes_back_late_from_the_file_changes_nothing, begin),
		cmocka_unit_test_setup(a_few_that_come_back_at_once_change_nothing, begin),
		cmocka_unit_test_setup(what_has_come_back_does_not_make_others_old, begin),
		cmocka_unit_test_setup(a_pool_that_is_not_full_does_not_grow, begin),
		cmocka_unit_test_setup(the_bounds_may_move, begin),
		cmocka_unit_test_setup(reads_at_random_leave_the_pool_alone, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
