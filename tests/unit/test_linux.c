/* SPDX-License-Identifier: Apache-2.0 */
/* The Linux platform: memory that comes and goes as promised, and is known to be Spillway's own all that time. */
#include "platform/linux.h"
#include "platform/spin.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define PAGE 4096u

static void test_reserved_memory_is_owned_until_released(void **state)
{
	struct spw__plat_range r[SPW_PLAT_RANGES];
	char *p = spw__plat_reserve(4 * PAGE);
	bool listed = false;
	int local;

	(void)state;
	assert_non_null(p);
	assert_true(spw__plat_owns(p) && spw__plat_owns(p + 4 * PAGE - 1));
	assert_false(spw__plat_owns(p + 4 * PAGE) || spw__plat_owns(p - 1) || spw__plat_owns(&local));
	for (unsigned i = spw__plat_ranges(r); i-- > 0;)
		listed |= r[i].base == (uintptr_t)p && r[i].bytes == 4 * PAGE;
	assert_true(listed);
	spw__plat_release(p, 4 * PAGE);
	assert_false(spw__plat_owns(p));
	assert_int_equal(spw__plat_ranges(r), 0);
}

static void test_discard_returns_the_memory(void **state)
{
	unsigned char resident[4];
	char *p = spw__plat_reserve(4 * PAGE);

	(void)state;
	assert_int_equal(spw__plat_commit(p, 4 * PAGE), 0);
	assert_int_equal(mincore(p, 4 * PAGE, resident), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_false(resident[i] & 1);
	memset(p, 7, 4 * PAGE);
	assert_int_equal(spw__plat_commit(p, 4 * PAGE), 0);
	spw__plat_discard(p + PAGE, 2 * PAGE);
	assert_int_equal(mincore(p, 4 * PAGE, resident), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(resident[i] & 1, i == 0 || i == 3);
	assert_int_equal(p[0], 7);
	assert_int_equal(p[PAGE], 0);
	assert_int_equal(p[4 * PAGE - 1], 7);
	spw__plat_release(p, 4 * PAGE);
}

static void test_commit_outside_of_a_reservation_is_refused(void **state)
{
	char *p = spw__plat_reserve(PAGE);
	char local[64];

	(void)state;
	assert_int_equal(spw__plat_commit(local, sizeof(local)), -ENOMEM);
	assert_int_equal(spw__plat_commit(p, 0), 0);
	spw__plat_release(p, PAGE);
	assert_int_equal(spw__plat_commit(p, PAGE), -ENOMEM);
}

static void test_reservations_have_an_end_and_can_be_had_again(void **state)
{
	void *p[SPW_PLAT_RANGES];

	(void)state;
	assert_null(spw__plat_reserve((size_t)1 << 62));
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < SPW_PLAT_RANGES; i++) {
			p[i] = spw__plat_reserve(PAGE);
			assert_non_null(p[i]);
		}
		assert_null(spw__plat_reserve(PAGE));
		for (unsigned i = 0; i < SPW_PLAT_RANGES; i++)
			spw__plat_release(p[i], PAGE);
	}
}

static void test_time_goes_forward(void **state)
{
	uint64_t before = spw__plat_now_ns(), now = before;

	(void)state;
	assert_true(before > 0);
	for (unsigned i = 0; i < 1000 || now == before; i++) {
		uint64_t next = spw__plat_now_ns();

		assert_true(next >= now);
		now = next;
	}
}

struct shared {
	struct spw__spin lock;
	unsigned count;
};

static void *count_up(void *arg)
{
	struct shared *s = arg;

	for (unsigned i = 0; i < 50000; i++) {
		spw__spin_lock(&s->lock);
		s->count++;
		spw__spin_unlock(&s->lock);
	}
	return NULL;
}

static void test_spin_lock_excludes(void **state)
{
	struct shared s = {0};
	pthread_t thread[3];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, count_up, &s), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	assert_int_equal(s.count, 150000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reserved_memory_is_owned_until_released),
		cmocka_unit_test(test_discard_returns_the_memory),
		cmocka_unit_test(test_commit_outside_of_a_reservation_is_refused),
		cmocka_unit_test(test_reservations_have_an_end_and_can_be_had_again),
		cmocka_unit_test(test_time_goes_forward),
		cmocka_unit_test(test_spin_lock_excludes),
	};

	return cmocka_run_group_tests_name("linux", tests, NULL, NULL);
}
