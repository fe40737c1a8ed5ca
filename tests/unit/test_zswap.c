/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compressed pool against a table that remembers every object: what was put must be there until freed, the memory
 * must stay dense and go back, and every entry that the pool reports must be the owner of the slot beside it.
 *
 * An object's bytes follow from its entry and version, so a wrong, torn or moved byte is seen wherever it is.
 */
#include "platform/linux.h"
#include "tier/zswap.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define MIB       (1ull << 20)
#define TIER      5u
#define BATCH     512u
#define CACHE_MAX MIB

/* Commit fails from the n-th call on, counted down; negative: never. */
static int commits_left = -1;

int __real_spw__plat_commit(void *p, size_t bytes);
int __wrap_spw__plat_commit(void *p, size_t bytes);

int __wrap_spw__plat_commit(void *p, size_t bytes)
{
	if (__atomic_load_n(&commits_left, __ATOMIC_RELAXED) == 0)
		return -ENOMEM;
	if (commits_left > 0)
		commits_left--;
	return __real_spw__plat_commit(p, bytes);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Lengths of pages that compress 3:1 on average, some hardly, some to almost nothing. */
static unsigned random_len(uint64_t *rng)
{
	uint64_t r = next_random(rng);

	if (r % 64 == 0)
		return SPW_PAGE;
	if (r % 16 == 1)
		return 20 + (unsigned)(r >> 32) % 300;
	return 700 + (unsigned)(r >> 32) % 700 + (unsigned)(r >> 48) % 700;
}

struct object {
	spw_slot_t slot;
	uint32_t version;
	bool live;
};

struct model {
	struct spw_tier *t;
	struct object *o;
	uint32_t count;
	uint64_t rng, pages, stored;
};

/* Writes whole words, up to 7 bytes past len. */
static void fill(uint8_t *buf, unsigned len, uint32_t entry, uint32_t version)
{
	uint64_t x = (uint64_t)entry << 32 | version;

	for (unsigned i = 0; i < len; i += 8) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		memcpy(buf + i, &x, 8);
	}
}

static int put(struct model *m, uint32_t entry, unsigned len)
{
	struct object *o = &m->o[entry];
	struct spw_obj obj = {.len = len, .coding = len == SPW_PAGE ? SPW_CODING_RAW : SPW_CODING_LZ4};
	uint8_t buf[SPW_PAGE + 8];
	spw_slot_t slot;
	int err;

	assert_false(o->live);
	fill(buf, len, entry, o->version + 1);
	obj.data = buf;
	err = m->t->ops->put(m->t, (spw_entry_t){entry}, &obj, &slot);
	if (err)
		return err;
	assert_int_equal(spw__slot_len(slot), len);
	assert_int_equal(spw__slot_coding(slot), obj.coding);
	assert_int_equal(spw__slot_tier(slot), TIER);
	o->slot = slot;
	o->version++;
	o->live = true;
	m->pages++;
	m->stored += len;
	return 0;
}

static void check(struct model *m, uint32_t entry)
{
	const struct object *o = &m->o[entry];
	uint8_t buf[SPW_PAGE + 8];
	unsigned len = spw__slot_len(o->slot);

	fill(buf, len, entry, o->version);
	assert_memory_equal(m->t->ops->map(m->t, o->slot), buf, len);
}

static void drop(struct model *m, uint32_t entry)
{
	struct object *o = &m->o[entry];

	check(m, entry);
	m->pages--;
	m->stored -= spw__slot_len(o->slot);
	o->live = false;
	m->t->ops->free(m->t, o->slot);
}

static struct spw_tier_stats stats_of(const struct model *m)
{
	struct spw_tier_stats st;

	m->t->ops->stats(m->t, &st);
	return st;
}

static struct spw_tier_stats check_stats(const struct model *m)
{
	struct spw_tier_stats st = stats_of(m);

	assert_int_equal(st.pages, m->pages);
	assert_int_equal(st.stored_bytes, m->stored);
	assert_true(st.used_bytes >= st.stored_bytes);
	return st;
}

static void open_model(struct model *m, uint32_t count, uint64_t size, uint64_t reserve)
{
	*m = (struct model){.count = count, .rng = 88172645463325252u};
	m->o = test_calloc(count, sizeof(*m->o));
	assert_int_equal(spw__zswap_create(TIER, "pool", size, reserve, &m->t), 0);
}

static void close_model(struct model *m)
{
	struct spw_tier_stats st;

	for (uint32_t i = 0; i < m->count; i++)
		if (m->o[i].live)
			drop(m, i);
	st = check_stats(m);
	assert_int_equal(st.pages, 0);
	assert_int_equal(st.stored_bytes, 0);
	assert_true(st.used_bytes <= CACHE_MAX);
	m->t->ops->destroy(m->t);
	assert_false(spw__plat_owns(m->t));
	test_free(m->o);
}

/* What a caller of sparse() does. Returns how many objects moved. */
static unsigned compact(struct model *m)
{
	spw_entry_t e[BATCH];
	spw_slot_t s[BATCH];
	unsigned n = m->t->ops->sparse(m->t, e, s, BATCH);

	for (unsigned i = 0; i < n; i++) {
		struct object *o = &m->o[e[i].idx];
		unsigned len;

		assert_true(e[i].idx < m->count && o->live);
		assert_true(spw__slot_same(o->slot, s[i]));
		len = spw__slot_len(o->slot);
		drop(m, e[i].idx);
		assert_int_equal(put(m, e[i].idx, len), 0);
	}
	return n;
}

static void test_create_refuses_bad_arguments(void **state)
{
	struct spw_tier *t;

	(void)state;
	assert_int_equal(spw__zswap_create(SPW_MAX_TIERS, "pool", MIB, MIB, &t), -EINVAL);
	assert_int_equal(spw__zswap_create(TIER, "pool", MIB, 0, &t), -EINVAL);
	assert_int_equal(spw__zswap_create(TIER, "pool", MIB, (1ull << 40) + 65536, &t), -EINVAL);
}

static void test_every_length_comes_back(void **state)
{
	struct model m;

	(void)state;
	open_model(&m, SPW_PAGE + 1, UINT64_MAX, 64 * MIB);
	for (unsigned len = 1; len <= SPW_PAGE; len++)
		assert_int_equal(put(&m, len, len), 0);
	for (unsigned len = 1; len <= SPW_PAGE; len++)
		check(&m, len);
	check_stats(&m);
	assert_int_equal(stats_of(&m).writes, SPW_PAGE);
	assert_int_equal(stats_of(&m).reads, SPW_PAGE);
	close_model(&m);
}

static void test_objects_do_not_overlap(void **state)
{
	struct model m;

	(void)state;
	open_model(&m, 2 * SPW_PAGE + 1, UINT64_MAX, 64 * MIB);
	/* Twice each, so that neighbours are of one class; the first half is written again after the second. */
	for (unsigned len = 1; len <= SPW_PAGE; len++) {
		assert_int_equal(put(&m, len, len), 0);
		assert_int_equal(put(&m, SPW_PAGE + len, len), 0);
		drop(&m, len);
		assert_int_equal(put(&m, len, len), 0);
	}
	close_model(&m);
}

static void test_full_pool_says_so_and_loses_nothing(void **state)
{
	struct model m;
	uint32_t n = 0, last;
	unsigned len;
	int err;

	(void)state;
	open_model(&m, 16384, 4 * MIB, 64 * MIB);
	assert_int_equal(stats_of(&m).capacity_bytes, 4 * MIB);
	for (;; n++) {
		len = random_len(&m.rng);
		err = put(&m, n, len);
		if (err)
			break;
	}
	assert_int_equal(err, -ENOSPC);
	assert_true(check_stats(&m).used_bytes <= 4 * MIB);
	assert_true(stats_of(&m).used_bytes > 4 * MIB - 65536);
	for (uint32_t i = 0; i < n; i++)
		check(&m, i);

	/* Only a new block is refused: what is freed can be had again. */
	last = n - 1;
	len = spw__slot_len(m.o[last].slot);
	drop(&m, last);
	assert_int_equal(put(&m, last, len), 0);
	close_model(&m);
}

static void test_the_end_of_the_range_is_a_limit_too(void **state)
{
	struct model m;
	uint32_t n = 0;
	int err;

	(void)state;
	open_model(&m, 1024, UINT64_MAX, MIB);
	while (!(err = put(&m, n, 2000)))
		n++;
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(n, 16 * 32);
	close_model(&m);
}

static void test_limit_changes_under_way(void **state)
{
	struct model m;
	uint32_t n;

	(void)state;
	open_model(&m, 8192, 8 * MIB, 64 * MIB);
	for (n = 0; n < 4000; n++)
		assert_int_equal(put(&m, n, 1300), 0);
	spw__zswap_set_size(m.t, 2 * MIB);
	for (; n < 4100; n++)
		if (put(&m, n, 1300))
			break;
	assert_true(n < 4100); /* the last block was filled up, no other one taken */
	for (uint32_t i = 0; i < n; i++)
		check(&m, i);
	for (uint32_t i = 0; i < n - 100; i++)
		drop(&m, i);
	assert_true(check_stats(&m).used_bytes <= 2 * MIB);
	spw__zswap_set_size(m.t, 64 * 1024);
	assert_true(check_stats(&m).used_bytes <= 4 * 65536);
	spw__zswap_set_size(m.t, UINT64_MAX);
	for (uint32_t i = 0; i < n - 100; i++)
		assert_int_equal(put(&m, i, 1300), 0);
	close_model(&m);
}

/* Pages of [base, base + bytes) that have memory. */
static size_t resident_pages(char *base, size_t bytes)
{
	unsigned char vec[1024];
	size_t n = 0;

	for (size_t at = 0; at < bytes; at += sizeof(vec) * SPW_PAGE) {
		size_t pages = (bytes - at) / SPW_PAGE < sizeof(vec) ? (bytes - at) / SPW_PAGE : sizeof(vec);

		assert_int_equal(mincore(base + at, pages * SPW_PAGE, vec), 0);
		for (size_t i = 0; i < pages; i++)
			n += vec[i] & 1;
	}
	return n;
}

static void test_pool_stays_dense_and_gives_memory_back(void **state)
{
	const uint32_t count = 48000;
	struct spw_tier_stats st;
	struct model m;
	char *base;

	(void)state;
	open_model(&m, count, UINT64_MAX, 256 * MIB);
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(put(&m, i, random_len(&m.rng)), 0);
	st = check_stats(&m);
	assert_true(st.stored_bytes * 100 >= st.used_bytes * 90);

	/* Objects die and are born at random, with the population now growing, now shrinking to half. */
	for (unsigned i = 0; i < 200000; i++) {
		uint32_t e = (uint32_t)(next_random(&m.rng) % count);

		if (!m.o[e].live)
			assert_int_equal(put(&m, e, random_len(&m.rng)), 0);
		else if (i / 50000 % 2 == 0 || next_random(&m.rng) % 4 == 0)
			drop(&m, e);
		if (i % 256 == 0)
			compact(&m);
		if (i % 50000 == 49999) {
			for (unsigned rounds = 0; compact(&m); rounds++)
				assert_true(rounds < 10000);
			st = check_stats(&m);
			assert_true(st.stored_bytes * 100 >= st.used_bytes * 90);
			/* Beside the objects: 8 bytes a page less than the budget of 16 leaves to the descriptor. */
			assert_true(st.metadata_bytes <= st.pages * 8);
		}
	}

	base = (char *)((uintptr_t)m.t & ~(uintptr_t)(SPW_PAGE - 1));
	assert_true(resident_pages(base, 256 * MIB) * SPW_PAGE >= st.stored_bytes);
	for (uint32_t i = 0; i < count; i++)
		if (m.o[i].live)
			drop(&m, i);
	st = check_stats(&m);
	assert_true(st.used_bytes <= CACHE_MAX);
	assert_true(resident_pages(base, 256 * MIB) * SPW_PAGE <= st.used_bytes + st.metadata_bytes);
	close_model(&m);
}

static void test_a_dense_pool_is_left_alone(void **state)
{
	struct model m;
	spw_entry_t e[BATCH];
	spw_slot_t s[BATCH];

	(void)state;
	open_model(&m, 8192, UINT64_MAX, 64 * MIB);
	assert_int_equal(m.t->ops->sparse(m.t, e, s, BATCH), 0);
	for (uint32_t i = 0; i < 8192; i++)
		assert_int_equal(put(&m, i, 1300), 0);
	assert_int_equal(m.t->ops->sparse(m.t, e, s, BATCH), 0);
	/* Every third hole: a lot to win, so it must begin. */
	for (uint32_t i = 0; i < 8192; i += 3)
		drop(&m, i);
	assert_true(m.t->ops->sparse(m.t, e, s, BATCH) > 0);
	close_model(&m);
}

static unsigned take_victims(struct model *m, spw_entry_t *e, spw_slot_t *s, unsigned max)
{
	unsigned n = m->t->ops->victims(m->t, e, s, max);

	assert_true(n <= max);
	for (unsigned i = 0; i < n; i++) {
		assert_true(e[i].idx < m->count && m->o[e[i].idx].live);
		assert_true(spw__slot_same(m->o[e[i].idx].slot, s[i]));
		if (i)
			assert_true(spw__slot_offset(s[i]) > spw__slot_offset(s[i - 1]));
	}
	return n;
}

static void test_victims_are_the_oldest_first(void **state)
{
	const uint32_t count = 5000;
	struct model m;
	spw_entry_t e[BATCH];
	spw_slot_t s[BATCH];
	uint32_t expect = 0;

	(void)state;
	open_model(&m, count, UINT64_MAX, 64 * MIB);
	assert_int_equal(m.t->ops->victims(m.t, e, s, BATCH), 0);
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(put(&m, i, 1300), 0);
	while (expect < count) {
		unsigned n = take_victims(&m, e, s, BATCH);

		assert_true(n > 0);
		for (unsigned i = 0; i < n; i++)
			assert_int_equal(e[i].idx, expect++);
	}
	/* What was reported became the youngest; it comes round again in the same order. A part is a part. */
	assert_int_equal(take_victims(&m, e, s, 3), 3);
	assert_int_equal(e[0].idx, 0);
	close_model(&m);
}

static void test_victims_begin_with_incompressible_pages(void **state)
{
	struct model m;
	spw_entry_t e[BATCH];
	spw_slot_t s[BATCH];

	(void)state;
	open_model(&m, 2000, UINT64_MAX, 64 * MIB);
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(put(&m, i, 1300), 0);
	for (uint32_t i = 1000; i < 1010; i++)
		assert_int_equal(put(&m, i, SPW_PAGE), 0);
	for (uint32_t more = 10; more < 12; more++) {
		/* Named once; then the others have their turn, until another incompressible page comes. */
		assert_int_equal(take_victims(&m, e, s, BATCH), more);
		for (unsigned i = 0; i < more; i++)
			assert_int_equal(e[i].idx, 1000 + i);
		assert_true(take_victims(&m, e, s, BATCH) > 0);
		assert_int_equal(spw__slot_coding(s[0]), SPW_CODING_LZ4);
		assert_int_equal(put(&m, 1000 + more, SPW_PAGE), 0);
	}
	for (uint32_t i = 1000; i < 1012; i++)
		drop(&m, i);
	assert_true(take_victims(&m, e, s, BATCH) > 0);
	assert_int_equal(spw__slot_coding(s[0]), SPW_CODING_LZ4);
	close_model(&m);
}

static void test_victims_pass_over_a_block_that_was_refilled(void **state)
{
	struct model m;
	spw_entry_t e[BATCH];
	spw_slot_t s[BATCH];
	unsigned in_first;

	(void)state;
	open_model(&m, 2000, UINT64_MAX, 64 * MIB);
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(put(&m, i, 1300), 0);
	for (in_first = 1; spw__slot_offset(m.o[in_first].slot) > spw__slot_offset(m.o[in_first - 1].slot) &&
			   spw__slot_offset(m.o[in_first].slot) / 65536 == spw__slot_offset(m.o[0].slot) / 65536;)
		in_first++;
	drop(&m, 3);
	assert_int_equal(put(&m, 1500, 1300), 0);
	assert_true(spw__slot_offset(m.o[1500].slot) / 65536 == spw__slot_offset(m.o[0].slot) / 65536);
	assert_true(take_victims(&m, e, s, BATCH) > 0);
	assert_int_equal(e[0].idx, in_first);
	close_model(&m);
}

static void test_no_memory_is_an_error_without_effect(void **state)
{
	struct spw_tier *t;
	struct model m;
	uint64_t used;

	(void)state;
	commits_left = 0;
	assert_int_equal(spw__zswap_create(TIER, "pool", MIB, MIB, &t), -ENOMEM);
	commits_left = -1;

	open_model(&m, 4096, UINT64_MAX, 64 * MIB);
	/* Whichever commit of a new block fails, the next try finds everything in order. */
	for (int fail = 0; fail < 3; fail++) {
		uint32_t n = (uint32_t)fail * 1000;
		int err;

		for (;; n++) {
			used = stats_of(&m).used_bytes;
			commits_left = fail;
			err = put(&m, n, 3000);
			if (err)
				break;
		}
		assert_int_equal(err, -ENOMEM);
		assert_int_equal(stats_of(&m).used_bytes, used);
		assert_int_equal(put(&m, n, 3000), -ENOMEM);
		commits_left = -1;
		check_stats(&m);
		for (uint32_t i = 0; i < 50; i++)
			assert_int_equal(put(&m, n + i, 3000), 0);
	}
	commits_left = -1;
	close_model(&m);
}

#define THREADS    4u
#define PER_THREAD 3000u

struct worker {
	struct model m; /* its own part of the table, on the common tier */
	uint32_t first;
	pthread_t thread;
};

static void *hammer(void *arg)
{
	struct worker *w = arg;
	struct model *m = &w->m;

	for (unsigned i = 0; i < 30000; i++) {
		uint32_t e = w->first + (uint32_t)(next_random(&m->rng) % PER_THREAD);

		if (!m->o[e].live)
			assert_int_equal(put(m, e, random_len(&m->rng)), 0);
		else if (i & 1)
			drop(m, e);
		else
			check(m, e);
	}
	return NULL;
}

static void *survey(void *arg)
{
	struct model *m = arg;
	spw_entry_t e[BATCH];
	spw_slot_t s[BATCH];

	while (!__atomic_load_n(&m->count, __ATOMIC_ACQUIRE)) {
		unsigned n = m->t->ops->victims(m->t, e, s, BATCH);

		n += m->t->ops->sparse(m->t, e + n, s + n, BATCH - n);
		for (unsigned i = 0; i < n; i++)
			assert_true(e[i].idx < THREADS * PER_THREAD && spw__slot_tier(s[i]) == TIER);
		assert_true(stats_of(m).pages <= THREADS * PER_THREAD);
		spw__zswap_set_size(m->t, n % 2 ? UINT64_MAX : 1ull << 40);
	}
	return NULL;
}

static void test_threads_do_not_meet(void **state)
{
	struct worker w[THREADS];
	struct model all, watch;
	pthread_t watcher;

	(void)state;
	open_model(&all, THREADS * PER_THREAD, UINT64_MAX, 256 * MIB);
	watch = (struct model){.t = all.t};
	for (unsigned i = 0; i < THREADS; i++) {
		w[i] = (struct worker){.m = all, .first = i * PER_THREAD};
		w[i].m.rng += i;
		assert_int_equal(pthread_create(&w[i].thread, NULL, hammer, &w[i]), 0);
	}
	assert_int_equal(pthread_create(&watcher, NULL, survey, &watch), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(w[i].thread, NULL), 0);
		all.pages += w[i].m.pages;
		all.stored += w[i].m.stored;
	}
	__atomic_store_n(&watch.count, 1, __ATOMIC_RELEASE);
	assert_int_equal(pthread_join(watcher, NULL), 0);
	check_stats(&all);
	close_model(&all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create_refuses_bad_arguments),
		cmocka_unit_test(test_every_length_comes_back),
		cmocka_unit_test(test_objects_do_not_overlap),
		cmocka_unit_test(test_full_pool_says_so_and_loses_nothing),
		cmocka_unit_test(test_the_end_of_the_range_is_a_limit_too),
		cmocka_unit_test(test_limit_changes_under_way),
		cmocka_unit_test(test_pool_stays_dense_and_gives_memory_back),
		cmocka_unit_test(test_a_dense_pool_is_left_alone),
		cmocka_unit_test(test_victims_are_the_oldest_first),
		cmocka_unit_test(test_victims_begin_with_incompressible_pages),
		cmocka_unit_test(test_victims_pass_over_a_block_that_was_refilled),
		cmocka_unit_test(test_no_memory_is_an_error_without_effect),
		cmocka_unit_test(test_threads_do_not_meet),
	};

	return cmocka_run_group_tests_name("zswap", tests, NULL, NULL);
}
