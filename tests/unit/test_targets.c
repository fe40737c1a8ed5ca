/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who keeps how much of the cap: the sum must hold whatever the processes are, and the cold must give before the hot.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cmd/targets.h"

#define MIB    (1ull << 20)
#define TICK   2000000u
#define LIMIT  (1000 * MIB)
#define BUDGET (LIMIT / 100 * 98)

static struct spw_share *of(struct spw_share *s, unsigned n, unsigned record)
{
	for (unsigned i = 0; i < n; i++)
		if (s[i].record == record)
			return &s[i];
	fail();
	return NULL;
}

static uint64_t sum(const struct spw_share *s, unsigned n)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < n; i++)
		all += s[i].target;
	return all;
}

static void one_alone_gets_what_the_others_leave(void **state)
{
	(void)state;
	for (uint64_t resident = 0; resident < 3 * LIMIT; resident += 100 * MIB) {
		struct spw_share s = {.resident = resident};
		spw__targets(&s, 1, LIMIT, 10 * MIB, TICK);
		assert_int_equal(s.target, LIMIT - 10 * MIB);
	}
}

static void the_coldest_gives_first(void **state)
{
	struct spw_share s[] = {
		{.record = 0, .resident = 500 * MIB, .heat = 10000},
		{.record = 1, .resident = 300 * MIB, .heat = 10},
		{.record = 2, .resident = 300 * MIB, .heat = 5000},
	};

	(void)state;
	spw__targets(s, 3, LIMIT, 0, TICK);
	assert_int_equal(of(s, 3, 0)->target, 500 * MIB);
	assert_int_equal(of(s, 3, 1)->target, 300 * MIB - (1100 * MIB - BUDGET));
	assert_int_equal(of(s, 3, 2)->target, 300 * MIB);
}

static void heat_counts_by_size(void **state)
{
	struct spw_share s[] = {
		{.record = 0, .resident = 900 * MIB, .heat = 1000}, /* more faults, yet fewer for its size */
		{.record = 1, .resident = 100 * MIB, .heat = 900},
	};

	(void)state;
	spw__targets(s, 2, LIMIT, 0, TICK);
	assert_int_equal(of(s, 2, 1)->target, 100 * MIB);
	assert_int_equal(sum(s, 2), BUDGET);
}

static void nobody_is_asked_below_the_floor(void **state)
{
	struct spw_share s[] = {
		{.record = 0, .resident = 10 * MIB},
		{.record = 1, .resident = 2 * MIB},
		{.record = 2, .resident = 1200 * MIB, .heat = 90000},
	};

	(void)state;
	spw__targets(s, 3, LIMIT, 0, TICK);
	assert_int_equal(of(s, 3, 1)->target, SPW_TARGET_FLOOR);
	assert_int_equal(of(s, 3, 0)->target, SPW_TARGET_FLOOR);
	assert_int_equal(sum(s, 3), BUDGET + SPW_TARGET_FLOOR - 2 * MIB);
}

static void room_is_everybodys_far_from_the_cap(void **state)
{
	struct spw_share s[] = {{.resident = 100 * MIB}, {.resident = 200 * MIB}};

	(void)state;
	spw__targets(s, 2, LIMIT, 0, TICK);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(s[i].target, s[i].resident + BUDGET - 300 * MIB);
}

static void room_is_shared_near_the_cap(void **state)
{
	struct spw_share s[] = {{.resident = 400 * MIB}, {.resident = 520 * MIB}};

	(void)state;
	spw__targets(s, 2, LIMIT, 0, TICK);
	assert_true(sum(s, 2) <= BUDGET && sum(s, 2) > BUDGET - 10);
	for (unsigned i = 0; i < 2; i++)
		assert_true(s[i].target > s[i].resident + (BUDGET - 920 * MIB) / 3);
}

/* Small ones that wait for a large one: what they might take is not kept from it. */
static void the_small_hold_no_room(void **state)
{
	struct spw_share s[12] = {{.record = 0, .resident = 940 * MIB}};

	(void)state;
	for (unsigned i = 1; i < 12; i++)
		s[i] = (struct spw_share){.record = i, .resident = 2 * MIB};
	spw__targets(s, 12, LIMIT, 0, TICK);
	assert_true(of(s, 12, 0)->target > BUDGET - 11 * 2 * MIB - MIB);
	assert_true(of(s, 12, 0)->target <= BUDGET - 11 * 2 * MIB);
	for (unsigned i = 1; i < 12; i++)
		assert_int_equal(of(s, 12, i)->target, SPW_TARGET_FLOOR);
}

/* Where nobody wants anything, nobody is asked to give, be he small or cold. */
static void room_is_left_to_who_needs_none(void **state)
{
	struct spw_share s[] = {
		{.record = 0, .resident = 930 * MIB},
		{.record = 1, .resident = 20 * MIB},
	};

	(void)state;
	spw__targets(s, 2, LIMIT, 0, TICK);
	for (unsigned i = 0; i < 2; i++)
		assert_true(s[i].target >= s[i].resident + s[i].resident / 128 + MIB / 2);
	assert_true(of(s, 2, 1)->target >= 21 * MIB);
}

/* Many that miss their pages, in a small tree, beside one that sleeps. */
static void each_of_many_hot_ones_gets_more(void **state)
{
	struct spw_share s[6] = {{.record = 0, .resident = 80 * MIB}};

	(void)state;
	for (unsigned i = 1; i < 6; i++)
		s[i] = (struct spw_share){.record = i, .resident = 9 * MIB, .heat = 20000};
	spw__targets(s, 6, 139 * MIB, 4 * MIB, TICK);
	assert_true(of(s, 6, 0)->target < 80 * MIB + 80 * MIB / 128 + MIB);
	for (unsigned i = 1; i < 6; i++)
		assert_true(of(s, 6, i)->target > 10 * MIB);
}

static void at_the_cap_the_cold_passes_on_to_the_hot(void **state)
{
	struct spw_share s[] = {
		{.record = 0, .resident = 490 * MIB, .heat = 100000},
		{.record = 1, .resident = 490 * MIB, .heat = 0},
	};

	(void)state;
	spw__targets(s, 2, LIMIT, 0, TICK);
	assert_int_equal(of(s, 2, 0)->target, 490 * MIB);
	assert_int_equal(of(s, 2, 1)->target, 490 * MIB - 100000ull * 4096 / 500);

	/* and equally hot ones leave each other alone */
	of(s, 2, 1)->heat = 90000;
	spw__targets(s, 2, LIMIT, 0, TICK);
	assert_int_equal(of(s, 2, 1)->target, 490 * MIB);
}

/* A shell that waits is colder than all, and has nothing to give. */
static void the_cold_that_has_something_passes_on(void **state)
{
	struct spw_share s[] = {
		{.record = 0, .resident = 300 * MIB, .heat = 100000},
		{.record = 1, .resident = 675 * MIB, .heat = 10000},
		{.record = 2, .resident = 2 * MIB},
		{.record = 3, .resident = SPW_TARGET_FLOOR},
	};

	(void)state;
	spw__targets(s, 4, LIMIT, 0, TICK);
	assert_true(of(s, 4, 1)->target < 675 * MIB);
	assert_true(of(s, 4, 0)->target >= 300 * MIB);
}

static void memory_shared_after_a_fork_counts_once(void **state)
{
	struct spw_share s[] = {{.record = 0, .resident = 600 * MIB},
				{.record = 1, .resident = 600 * MIB, .shared = 590 * MIB}};

	(void)state;
	spw__targets(s, 2, LIMIT, 0, TICK);
	assert_true(of(s, 2, 0)->target >= 600 * MIB);
	assert_true(of(s, 2, 1)->target >= 10 * MIB);

	/* and what is to go is asked of what a process has for itself */
	s[0] = (struct spw_share){.record = 0, .resident = 1000 * MIB, .shared = 100 * MIB};
	s[1] = (struct spw_share){.record = 1, .resident = 600 * MIB, .shared = 400 * MIB, .heat = 100};
	spw__targets(s, 2, LIMIT, 0, TICK);
	assert_int_equal(of(s, 2, 1)->target, 200 * MIB);
	assert_int_equal(sum(s, 2), BUDGET);
}

static void any_tree_adds_up(void **state)
{
	(void)state;
	srand(1);
	for (unsigned round = 0; round < 20000; round++) {
		struct spw_share s[16];
		unsigned n = 1 + (unsigned)rand() % 16;
		uint64_t other = (uint64_t)(rand() % 600) * MIB, floors = 0;

		for (unsigned i = 0; i < n; i++) {
			uint64_t resident = (uint64_t)(rand() % 400) * MIB;
			s[i] = (struct spw_share){.record = i, .resident = resident, .heat = (uint64_t)rand() % 100000};
			floors += resident < SPW_TARGET_FLOOR ? resident : SPW_TARGET_FLOOR;
		}
		spw__targets(s, n, LIMIT, other, TICK);

		uint64_t budget = (n == 1 ? LIMIT : BUDGET) - other, most = budget < floors ? floors : budget;
		uint64_t all = 0, below_floor = 0;
		for (unsigned i = 0; i < n; i++) {
			all += s[i].resident;
			if (s[i].resident < SPW_TARGET_FLOOR)
				below_floor += SPW_TARGET_FLOOR - s[i].resident;
		}
		most = most < n * SPW_TARGET_FLOOR ? n * SPW_TARGET_FLOOR : most;
		if (n == 1 || all + other >= LIMIT / 10 * 9)
			assert_true(sum(s, n) <= most + below_floor);
		else
			for (unsigned i = 0; i < n; i++)
				assert_true(s[i].target >= s[i].resident);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_alone_gets_what_the_others_leave),
		cmocka_unit_test(the_coldest_gives_first),
		cmocka_unit_test(heat_counts_by_size),
		cmocka_unit_test(nobody_is_asked_below_the_floor),
		cmocka_unit_test(room_is_everybodys_far_from_the_cap),
		cmocka_unit_test(room_is_shared_near_the_cap),
		cmocka_unit_test(the_small_hold_no_room),
		cmocka_unit_test(room_is_left_to_who_needs_none),
		cmocka_unit_test(each_of_many_hot_ones_gets_more),
		cmocka_unit_test(at_the_cap_the_cold_passes_on_to_the_hot),
		cmocka_unit_test(the_cold_that_has_something_passes_on),
		cmocka_unit_test(memory_shared_after_a_fork_counts_once),
		cmocka_unit_test(any_tree_adds_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
