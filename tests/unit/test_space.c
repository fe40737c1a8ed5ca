/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The space against tiers and a platform that do what the test says. Every test ends with everything freed and every
 * counter at zero, so a slot or a cluster that any path leaks fails the test that took the path.
 */
#include "space/space.h"
#include "tier/ghost.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fake_tier.h"
#include "strict_platform.h"

#include <stdio.h>

#define CLUSTERS 64u
#define FRAMES   2048u
#define TWINS    512u

struct bench {
	struct spw__space *sp;
	struct spw_work *w;
	void *work_mem;
	struct fake_tier *ram, *file, *extra[SPW_MAX_TIERS];
	uint8_t page[SPW_PAGE], back[SPW_PAGE];
};

/* A page of a given kind that is a function of its seed. */
enum shape { ZERO, PATTERN, TEXT, NOISE };

static void make_page(void *page, enum shape shape, uint32_t seed)
{
	uint32_t *p = page, x = seed * 2654435761u + 1;

	for (unsigned i = 0; i < SPW_PAGE / 4; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		p[i] = shape == ZERO ? 0 : shape == PATTERN ? seed : shape == NOISE || i % 6 == 0 ? x : seed;
	}
}

static int setup_with(void **state, uint32_t max_twins)
{
	struct spw__space_config cfg = {
		.max_clusters = CLUSTERS,
		.max_frames = FRAMES,
		.codec = {.coding = SPW_CODING_LZ4},
		.max_twins = max_twins,
		.twin_key = 42,
	};
	struct bench *b = calloc(1, sizeof(*b));

	strict_refuse(false);
	assert_int_equal(spw__space_create(&cfg, &b->sp), 0);
	b->ram = fake_create(false, 0, 10);
	b->file = fake_create(true, 1, 5);
	assert_int_equal(spw__space_add_tier(b->sp, &b->file->tier), 0);
	assert_int_equal(spw__space_add_tier(b->sp, &b->ram->tier), 0);
	b->work_mem = aligned_alloc(64, (spw_work_size(b->sp) + 63) & ~63ul);
	assert_int_equal(spw_work_init(b->sp, b->work_mem, &b->w), 0);
	*state = b;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, 0);
}

static int setup_twins(void **state)
{
	return setup_with(state, TWINS);
}

static int teardown(void **state)
{
	struct bench *b = *state;
	struct spw__space_stats st;

	b->file->hold = false;
	while (spw_writeback_poll(b->sp, 0))
		;
	spw_free_range(b->sp, (spw_entry_t){0}, CLUSTERS * SPW_CLUSTER);
	for (uint32_t c = 0; c < CLUSTERS; c++)
		assert_int_equal(spw_kind(b->sp, (spw_entry_t){c * SPW_CLUSTER}), SPW_FREE);
	spw_stats(b->sp, &st);
	assert_int_equal(st.entries, 0);
	assert_int_equal(b->ram->live, 0);
	assert_int_equal(b->file->live, 0);
	spw__space_destroy(b->sp);
	for (unsigned i = 0; i < SPW_MAX_TIERS; i++) {
		assert_true(!b->extra[i] || !b->extra[i]->live);
		free(b->extra[i]);
	}
	free(b->work_mem);
	free(b->ram);
	free(b->file);
	free(b);
	return 0;
}

static struct fake_tier *add_tier(struct bench *b, bool batch, unsigned number, int priority)
{
	b->extra[number] = fake_create(batch, number, priority);
	assert_int_equal(spw__space_add_tier(b->sp, &b->extra[number]->tier), 0);
	return b->extra[number];
}

static struct spw__space_stats stats(struct bench *b)
{
	struct spw__space_stats st;

	spw_stats(b->sp, &st);
	return st;
}

static spw_entry_t alloc_one(struct bench *b)
{
	spw_entry_t e;

	assert_int_equal(spw_alloc(b->sp, &e, 1), 0);
	return e;
}

static int store(struct bench *b, spw_entry_t e, enum shape shape, uint32_t seed)
{
	make_page(b->page, shape, seed);
	return spw_store(b->sp, b->w, e, b->page, SPW_NO_FRAME);
}

static spw_entry_t stored(struct bench *b, enum shape shape, uint32_t seed)
{
	spw_entry_t e = alloc_one(b);

	assert_int_equal(store(b, e, shape, seed), 0);
	return e;
}

static void check(struct bench *b, spw_entry_t e, enum shape shape, uint32_t seed)
{
	spw_slot_t where;

	memset(b->back, 0xa5, SPW_PAGE);
	assert_int_equal(spw_load(b->sp, b->w, e, b->back, &where), 0);
	make_page(b->page, shape, seed);
	assert_memory_equal(b->back, b->page, SPW_PAGE);
}

/* Everything in the pool is on its way to the file and stays there until polled. */
static int start(struct bench *b)
{
	b->file->hold = true;
	return spw_writeback_start(b->sp, UINT64_MAX, false);
}

static int finish(struct bench *b, int status)
{
	b->file->hold = false;
	b->file->write_status = status;
	return spw_writeback_poll(b->sp, 0);
}

static spw_entry_t on_file(struct bench *b, enum shape shape, uint32_t seed)
{
	spw_entry_t e = stored(b, shape, seed);

	assert_int_equal(start(b), 1);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(spw_kind(b->sp, e), SPW_SLOT);
	return e;
}

/* ---- creation, tiers, clusters, allocation ---- */

static void create_refuses_bad_sizes_and_no_memory(void **state)
{
	struct spw__space_config none = {.max_clusters = 0}, huge = {.max_clusters = (1u << 23) + 1};
	struct spw__space_config some = {.max_clusters = 4, .max_frames = 4, .codec = {.coding = SPW_CODING_LZ4}};
	struct spw__space_config few = {.max_clusters = 4, .max_twins = 256},
				 odd = {.max_clusters = 4, .max_twins = 1536};
	struct spw__space *sp;

	(void)state;
	assert_int_equal(spw__space_create(&none, &sp), -EINVAL);
	assert_int_equal(spw__space_create(&huge, &sp), -EINVAL);
	assert_int_equal(spw__space_create(&few, &sp), -EINVAL);
	assert_int_equal(spw__space_create(&odd, &sp), -EINVAL);
	strict_refuse(true);
	assert_int_equal(spw__space_create(&some, &sp), -ENOMEM);
	strict_refuse(false);
	strict_fail_reserve = true;
	assert_int_equal(spw__space_create(&some, &sp), -ENOMEM);
	strict_fail_reserve = false;
}

static void largest_space_costs_nothing(void **state)
{
	struct spw__space_config cfg = {.max_clusters = 1u << 23,
					.max_frames = 1u << 16,
					.codec = {.coding = SPW_CODING_LZ4},
					.max_twins = 1u << 18};
	struct spw__space_stats st;
	struct spw__space *sp;

	(void)state;
	assert_int_equal(spw__space_create(&cfg, &sp), 0);
	spw_stats(sp, &st);
	assert_true(st.metadata_bytes <= 2 * SPW_PAGE);
	spw__space_destroy(sp);
}

static void tiers_have_unique_numbers(void **state)
{
	struct bench *b = *state;

	assert_int_equal(spw__space_add_tier(b->sp, &b->ram->tier), -EEXIST);
	for (unsigned i = 2; i < SPW_MAX_TIERS; i++)
		add_tier(b, false, i, 0);
	assert_int_equal(spw__space_add_tier(b->sp, &b->ram->tier), -ENOSPC);
}

static void tiers_are_filled_by_priority(void **state)
{
	struct bench *b = *state;
	struct fake_tier *last = add_tier(b, false, 3, -20), *first = add_tier(b, false, 2, 20);
	spw_entry_t e[3];

	e[0] = stored(b, TEXT, 1);
	assert_int_equal(first->live, 1);
	first->fail_put = -ENOSPC;
	e[1] = stored(b, TEXT, 2);
	assert_int_equal(b->ram->live, 1);
	b->ram->fail_put = -ENOMEM;
	e[2] = stored(b, TEXT, 3);
	assert_int_equal(last->live, 1);
	last->fail_put = -ENOSPC;
	assert_int_equal(store(b, e[2], TEXT, 4), -ENOMEM);
	for (unsigned i = 0; i < 3; i++)
		check(b, e[i], TEXT, i + 1);
	spw_free(b->sp, e, 3);
	assert_int_equal(first->live + last->live, 0);
}

static void taken_clusters_come_and_go(void **state)
{
	struct bench *b = *state;
	uint32_t c[CLUSTERS], extra;
	uint64_t idle = stats(b).metadata_bytes;
	spw_entry_t e;

	for (unsigned i = 0; i < CLUSTERS; i++)
		assert_int_equal(spw_cluster_take(b->sp, &c[i]), 0);
	assert_int_equal(spw_cluster_take(b->sp, &extra), -ENOMEM);
	assert_int_equal(stats(b).clusters, CLUSTERS);
	e.idx = c[7] * SPW_CLUSTER + 3;
	assert_int_equal(spw_kind(b->sp, e), SPW_FREE);
	assert_int_equal(spw_count(b->sp, e), 0);
	assert_int_equal(store(b, e, TEXT, 9), 0);
	assert_int_equal(spw_count(b->sp, e), 1);
	check(b, e, TEXT, 9);
	assert_int_equal(spw_cluster_give(b->sp, c[7]), -EBUSY);
	spw_free(b->sp, &e, 1);
	assert_int_equal(spw_kind(b->sp, e), SPW_FREE);
	for (unsigned i = 0; i < CLUSTERS; i++)
		assert_int_equal(spw_cluster_give(b->sp, c[i]), 0);
	assert_int_equal(stats(b).clusters, 0);
	assert_int_equal(stats(b).metadata_bytes, idle);
}

static void take_fails_cleanly_without_memory(void **state)
{
	struct bench *b = *state;
	spw_entry_t e[3];
	uint32_t c;

	strict_refuse(true);
	assert_int_equal(spw_cluster_take(b->sp, &c), -ENOMEM);
	assert_int_equal(spw_alloc(b->sp, e, 3), -ENOMEM);
	strict_refuse(false);
	assert_int_equal(stats(b).clusters, 0);
	assert_int_equal(spw_cluster_take(b->sp, &c), 0);
	assert_int_equal(spw_cluster_give(b->sp, c), 0);
}

static void allocated_entries_read_as_zeros(void **state)
{
	struct bench *b = *state;
	spw_entry_t e[700];

	assert_int_equal(spw_alloc(b->sp, e, 700), 0);
	for (unsigned i = 0; i < 700; i++) {
		assert_int_equal(spw_kind(b->sp, e[i]), SPW_SAME);
		assert_int_equal(spw_count(b->sp, e[i]), 1);
		if (i && i != SPW_CLUSTER)
			assert_int_equal(e[i].idx, e[i - 1].idx + 1);
		check(b, e[i], ZERO, 0);
	}
	assert_int_equal(stats(b).same, 700);
	spw_free(b->sp, e, 700);
	assert_int_equal(stats(b).clusters, 0);
}

static void alloc_is_all_or_nothing(void **state)
{
	struct bench *b = *state;
	static spw_entry_t e[CLUSTERS * SPW_CLUSTER + 1];

	assert_int_equal(spw_alloc(b->sp, e, CLUSTERS * SPW_CLUSTER + 1), -ENOMEM);
	assert_int_equal(stats(b).entries, 0);
	assert_int_equal(stats(b).clusters, 0);
	strict_fail_commit = strict_commits + 3; /* the table and two clusters */
	assert_int_equal(spw_alloc(b->sp, e, 3 * SPW_CLUSTER), -ENOMEM);
	strict_refuse(false);
	assert_int_equal(stats(b).entries, 0);
	assert_int_equal(spw_alloc(b->sp, e, CLUSTERS * SPW_CLUSTER), 0);
	spw_free(b->sp, e, CLUSTERS * SPW_CLUSTER);
}

static void holes_are_allocated_again(void **state)
{
	struct bench *b = *state;
	static spw_entry_t e[4 * SPW_CLUSTER], again[SPW_CLUSTER];
	bool seen[4 * SPW_CLUSTER] = {false};

	assert_int_equal(spw_alloc(b->sp, e, 4 * SPW_CLUSTER), 0);
	for (unsigned i = 0; i < SPW_CLUSTER; i++)
		spw_free(b->sp, &e[4 * i + 1], 1);
	assert_int_equal(spw_alloc(b->sp, again, SPW_CLUSTER), 0);
	assert_int_equal(stats(b).clusters, 4);
	for (unsigned i = 0; i < SPW_CLUSTER; i++) {
		assert_int_equal(again[i].idx % 4, 1);
		assert_false(seen[again[i].idx]);
		seen[again[i].idx] = true;
	}
}

static void metadata_stays_within_budget(void **state)
{
	struct bench *b = *state;
	static spw_entry_t e[CLUSTERS * SPW_CLUSTER];
	uint64_t idle = stats(b).metadata_bytes, used;

	assert_int_equal(spw_alloc(b->sp, e, CLUSTERS * SPW_CLUSTER), 0);
	used = stats(b).metadata_bytes - idle;
	assert_true(used * 10 <= 82ull * CLUSTERS * SPW_CLUSTER);
	spw_free(b->sp, e, CLUSTERS * SPW_CLUSTER);
	assert_int_equal(stats(b).metadata_bytes, idle);
}

/* ---- store, load ---- */

static void same_filled_pages_take_no_storage(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, PATTERN, 0x01020304), zero = stored(b, ZERO, 0),
		    ones = stored(b, PATTERN, UINT32_MAX);

	assert_int_equal(b->ram->live, 0);
	assert_int_equal(stats(b).same_stores, 3);
	check(b, e, PATTERN, 0x01020304);
	check(b, zero, ZERO, 0);
	check(b, ones, PATTERN, UINT32_MAX);
}

static void almost_same_filled_pages_are_not(void **state)
{
	struct bench *b = *state;
	static const unsigned odd[] = {0, 3, 4, 7, 8, 2048, 4088, 4091, 4092, 4095};
	spw_slot_t where;

	for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		spw_entry_t e = alloc_one(b);

		make_page(b->page, PATTERN, 0x5a5a5a5a);
		b->page[odd[i]] ^= 1;
		assert_int_equal(spw_store(b->sp, b->w, e, b->page, SPW_NO_FRAME), 0);
		assert_int_equal(spw_kind(b->sp, e), SPW_POOL);
		assert_int_equal(spw_load(b->sp, b->w, e, b->back, &where), 0);
		assert_memory_equal(b->back, b->page, SPW_PAGE);
	}
}

static void incompressible_pages_are_kept_raw(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, NOISE, 5);

	assert_int_equal(b->ram->object[0].len, SPW_PAGE);
	assert_int_equal(b->ram->object[0].coding, SPW_CODING_RAW);
	check(b, e, NOISE, 5);
}

static void a_new_store_replaces_the_old(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);
	static const enum shape next[] = {NOISE, PATTERN, TEXT, ZERO, TEXT};

	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(store(b, e, next[i], i + 10), 0);
		check(b, e, next[i], i + 10);
		assert_int_equal(b->ram->live, next[i] == NOISE || next[i] == TEXT);
	}
	assert_int_equal(stats(b).stores, 6);
	assert_int_equal(stats(b).loads, 5);
}

static void a_store_that_fails_changes_nothing(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1), fresh;
	uint32_t c;

	assert_int_equal(spw_cluster_take(b->sp, &c), 0);
	fresh.idx = c * SPW_CLUSTER;
	b->ram->fail_put = -ENOSPC;
	assert_int_equal(store(b, e, TEXT, 2), -ENOSPC);
	assert_int_equal(store(b, fresh, TEXT, 2), -ENOSPC);
	b->ram->fail_put = -ENOMEM;
	assert_int_equal(store(b, e, TEXT, 2), -ENOMEM);
	check(b, e, TEXT, 1);
	assert_int_equal(spw_kind(b->sp, fresh), SPW_FREE);
	assert_int_equal(spw_cluster_give(b->sp, c), 0);
	assert_int_equal(stats(b).stores, 1);
}

static void free_entries_load_as_zeros(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1), beyond = {SPW_ENTRY_NONE - 1};
	spw_slot_t where;

	spw_free(b->sp, &e, 1);
	spw_free(b->sp, &e, 1);
	spw_free(b->sp, &beyond, 1);
	make_page(b->page, ZERO, 0);
	assert_int_equal(spw_load(b->sp, b->w, e, b->back, &where), -ENOENT);
	assert_memory_equal(b->back, b->page, SPW_PAGE);
	assert_int_equal(spw_load(b->sp, b->w, beyond, b->back, &where), -ENOENT);
	assert_int_equal(spw_dup(b->sp, &e, 1), -ENOENT);
	assert_int_equal(store(b, e, TEXT, 2), -ENOENT);
	assert_int_equal(store(b, beyond, TEXT, 2), -ENOENT);
	assert_int_equal(spw_cache_add(b->sp, e, 0), -ENOENT);
}

static void corrupt_pool_bytes_are_an_error_with_their_slot(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);
	spw_slot_t where = SPW_SLOT_NONE;

	memset(b->ram->object[0].data, 0xff, b->ram->object[0].len);
	assert_int_equal(spw_load(b->sp, b->w, e, b->back, &where), -EBADMSG);
	assert_int_equal(fake_index(where), 0);
}

/* ---- counts ---- */

static void free_at_the_last_holder(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);

	assert_int_equal(spw_dup(b->sp, &e, 1), 0);
	assert_int_equal(spw_count(b->sp, e), 2);
	spw_free(b->sp, &e, 1);
	check(b, e, TEXT, 1);
	spw_free(b->sp, &e, 1);
	assert_int_equal(spw_kind(b->sp, e), SPW_FREE);
	assert_int_equal(b->ram->live, 0);
}

static void counts_go_past_a_hundred_thousand(void **state)
{
	struct bench *b = *state;
	spw_entry_t e[2] = {stored(b, TEXT, 1), stored(b, TEXT, 2)};
	uint64_t before = stats(b).metadata_bytes;

	for (unsigned i = 2; i <= 100001; i++) {
		assert_int_equal(spw_dup(b->sp, e, 2), 0);
		assert_int_equal(spw_count(b->sp, e[0]), i);
	}
	assert_int_equal(stats(b).metadata_bytes, before + SPW_PAGE);
	assert_int_equal(store(b, e[0], NOISE, 3), 0);
	for (unsigned i = 100001; i > 1; i--) {
		assert_int_equal(spw_count(b->sp, e[1]), i);
		spw_free(b->sp, e, 2);
	}
	assert_int_equal(stats(b).metadata_bytes, before);
	check(b, e[0], NOISE, 3);
	check(b, e[1], TEXT, 2);
}

static void dup_takes_all_or_none(void **state)
{
	struct bench *b = *state;
	spw_entry_t e[3] = {stored(b, TEXT, 1), stored(b, TEXT, 2), stored(b, TEXT, 3)}, with_free[3];

	for (unsigned i = 1; i < 14; i++)
		assert_int_equal(spw_dup(b->sp, &e[2], 1), 0);
	strict_refuse(true);
	assert_int_equal(spw_dup(b->sp, e, 3), -ENOMEM);
	strict_refuse(false);
	assert_int_equal(spw_count(b->sp, e[0]), 1);
	assert_int_equal(spw_count(b->sp, e[1]), 1);
	assert_int_equal(spw_count(b->sp, e[2]), 14);
	memcpy(with_free, e, sizeof(e));
	with_free[2] = alloc_one(b);
	spw_free(b->sp, &with_free[2], 1);
	assert_int_equal(spw_dup(b->sp, with_free, 3), -ENOENT);
	assert_int_equal(spw_count(b->sp, e[0]), 1);
	assert_int_equal(spw_dup(b->sp, e, 3), 0);
	for (unsigned i = 0; i < 15; i++) {
		check(b, e[2], TEXT, 3);
		spw_free(b->sp, &e[2], 1);
	}
	assert_int_equal(spw_kind(b->sp, e[2]), SPW_FREE);
	spw_free(b->sp, e, 2);
}

static void free_range_frees_what_is_there(void **state)
{
	struct bench *b = *state;
	uint32_t c[3];
	spw_entry_t e, first;

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(spw_cluster_take(b->sp, &c[i]), 0);
	for (unsigned i = 0; i < 3 * SPW_CLUSTER; i += 3) {
		e.idx = c[0] * SPW_CLUSTER + i;
		assert_int_equal(store(b, e, i % 2 ? TEXT : PATTERN, i + 1), 0);
	}
	e.idx = c[0] * SPW_CLUSTER + 3;
	first.idx = e.idx + 1;
	spw_free_range(b->sp, first, 3 * SPW_CLUSTER - 7);
	assert_int_equal(stats(b).entries, 3);
	check(b, e, TEXT, 4);
	spw_free_range(b->sp, (spw_entry_t){0}, UINT32_MAX);
	assert_int_equal(stats(b).entries, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(spw_cluster_give(b->sp, c[i]), 0);
	spw_free_range(b->sp, (spw_entry_t){0}, UINT32_MAX);
}

/* ---- the four cases of the design ---- */

static void case_1_data_is_on_a_swapfile(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = on_file(b, TEXT, 1);

	assert_int_equal(b->ram->live, 0);
	assert_int_equal(b->file->live, 1);
	check(b, e, TEXT, 1);
	assert_int_equal(stats(b).slot, 1);
	assert_int_equal(stats(b).writebacks, 1);
}

static void case_2_data_is_compressed(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);

	assert_int_equal(spw_kind(b->sp, e), SPW_POOL);
	assert_true(b->ram->object[0].len < SPW_PAGE / 2);
	assert_int_equal(b->file->live, 0);
	check(b, e, TEXT, 1);
}

static void case_3_data_is_being_written(void **state)
{
	struct bench *b = *state;
	spw_entry_t kept = stored(b, TEXT, 1), freed = stored(b, TEXT, 2), renewed = stored(b, TEXT, 3);

	assert_int_equal(start(b), 3);
	b->file->fail_get = -EIO; /* loads must not go there */
	check(b, kept, TEXT, 1);
	assert_int_equal(spw_kind(b->sp, kept), SPW_POOL);
	spw_free(b->sp, &freed, 1);
	assert_int_equal(store(b, renewed, TEXT, 4), 0);
	check(b, renewed, TEXT, 4);
	assert_int_equal(finish(b, 0), 3);
	b->file->fail_get = 0;
	assert_int_equal(spw_kind(b->sp, kept), SPW_SLOT);
	assert_int_equal(spw_kind(b->sp, freed), SPW_FREE);
	assert_int_equal(spw_kind(b->sp, renewed), SPW_POOL);
	check(b, kept, TEXT, 1);
	check(b, renewed, TEXT, 4);
	assert_int_equal(b->file->live, 1);
	assert_int_equal(b->ram->live, 1);
	assert_int_equal(stats(b).cancels, 2);
}

static void case_4_data_is_back_through_another_page_table(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = on_file(b, TEXT, 1);
	spw_slot_t where;
	uint32_t frame;

	assert_int_equal(spw_dup(b->sp, &e, 1), 0);
	assert_int_equal(spw_cache_add(b->sp, e, 7), 0);
	assert_int_equal(spw_load(b->sp, b->w, e, b->back, &where), -EEXIST);
	assert_int_equal(spw_cache_get(b->sp, e, &frame), 0);
	assert_int_equal(frame, 7);
	spw_free(b->sp, &e, 1);
	assert_int_equal(spw_cache_get(b->sp, e, &frame), 0);
	assert_int_equal(spw_cache_del(b->sp, e, 7, true), 0);
	check(b, e, TEXT, 1);
}

/* ---- twins ---- */

/* Store, or find an entry with the same bytes. */
static int store_or_find(struct bench *b, spw_entry_t e, enum shape shape, uint32_t seed, spw_entry_t *twin)
{
	make_page(b->page, shape, seed);
	return spw_store_or_find(b->sp, b->w, e, b->page, SPW_NO_FRAME, twin);
}

/* The page is stored once more, and comes to share e. */
static void joins(struct bench *b, spw_entry_t e, enum shape shape, uint32_t seed)
{
	spw_entry_t one = alloc_one(b), twin;

	assert_int_equal(store_or_find(b, one, shape, seed, &twin), SPW_TWIN);
	assert_int_equal(twin.idx, e.idx);
	assert_int_equal(spw_join(b->sp, b->w, twin), 0);
	spw_free(b->sp, &one, 1);
}

static void equal_pages_share_an_entry(void **state)
{
	static const enum shape shapes[] = {TEXT, NOISE};
	struct bench *b = *state;

	for (unsigned i = 0; i < 2; i++) {
		spw_entry_t e = stored(b, shapes[i], 7), other = alloc_one(b), twin;

		joins(b, e, shapes[i], 7);
		joins(b, e, shapes[i], 7);
		assert_int_equal(spw_count(b->sp, e), 3);
		assert_int_equal(store_or_find(b, other, shapes[i], 8, &twin), 0);
		check(b, e, shapes[i], 7);
		check(b, other, shapes[i], 8);
		assert_int_equal(b->ram->live, 2);
		for (unsigned n = 0; n < 3; n++) {
			check(b, e, shapes[i], 7);
			spw_free(b->sp, &e, 1);
		}
		assert_int_equal(spw_kind(b->sp, e), SPW_FREE);
		spw_free(b->sp, &other, 1);
	}
	assert_int_equal(stats(b).joins, 4);
	assert_int_equal(stats(b).stores, 4);
}

static void a_page_is_not_its_own_twin(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1), twin;

	assert_int_equal(store_or_find(b, e, TEXT, 1, &twin), 0);
	assert_int_equal(spw_count(b->sp, e), 1);
	check(b, e, TEXT, 1);
}

static void same_filled_pages_have_no_twins(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, PATTERN, 7), other = alloc_one(b), twin;

	assert_int_equal(store_or_find(b, other, PATTERN, 7, &twin), 0);
	assert_int_equal(spw_count(b->sp, e), 1);
	check(b, other, PATTERN, 7);
}

/* What makes a stored page no twin any more. */
static void frees(struct bench *b, spw_entry_t e)
{
	spw_free(b->sp, &e, 1);
}

static void stores_another(struct bench *b, spw_entry_t e)
{
	assert_int_equal(store(b, e, TEXT, 2), 0);
}

static void frees_and_stores_another(struct bench *b, spw_entry_t e)
{
	spw_free(b->sp, &e, 1);
	stores_another(b, e);
}

static void stores_same_filled(struct bench *b, spw_entry_t e)
{
	assert_int_equal(store(b, e, PATTERN, 2), 0);
}

static void writes_back(struct bench *b, spw_entry_t e)
{
	(void)e;
	assert_true(start(b) > 0);
	assert_true(finish(b, 0) > 0);
}

static void caches(struct bench *b, spw_entry_t e)
{
	assert_int_equal(spw_cache_add(b->sp, e, 3), 0);
}

static void a_hint_is_looked_at_twice(void **state)
{
	static void (*const ways[])(struct bench *, spw_entry_t) = {
		frees, stores_another, frees_and_stores_another, stores_same_filled, writes_back, caches};
	struct bench *b = *state;
	uint32_t c;

	assert_int_equal(spw_cluster_take(b->sp, &c), 0);
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		for (unsigned found = 0; found < 2; found++) {
			spw_entry_t late = alloc_one(b), e = {c * SPW_CLUSTER + i}, twin;

			assert_int_equal(store(b, e, TEXT, 1), 0);
			if (!found)
				ways[i](b, e);
			assert_int_equal(store_or_find(b, late, TEXT, 1, &twin), found ? SPW_TWIN : 0);
			if (found) {
				/* By another thread: its work area is not the one that join goes by. */
				struct spw_work *own = b->w;
				void *mem = aligned_alloc(64, (spw_work_size(b->sp) + 63) & ~63ul);

				assert_int_equal(spw_work_init(b->sp, mem, &b->w), 0);
				ways[i](b, e);
				free(mem);
				b->w = own;
				assert_int_equal(spw_join(b->sp, b->w, twin), -ESTALE);
			}
			assert_true(spw_count(b->sp, e) <= 1);
			if (!found)
				check(b, late, TEXT, 1);
			spw_free(b->sp, &late, 1);
			if (spw_kind(b->sp, e) != SPW_FREE)
				spw_free(b->sp, &e, 1);
		}
	}
	assert_int_equal(stats(b).joins, 0);
	assert_int_equal(stats(b).entries, 0);
}

static void a_twin_on_its_way_to_the_file_is_joined(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);

	assert_int_equal(start(b), 1);
	joins(b, e, TEXT, 1);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(spw_kind(b->sp, e), SPW_SLOT);
	assert_int_equal(spw_count(b->sp, e), 2);
	check(b, e, TEXT, 1);
	spw_free(b->sp, &e, 1);
	check(b, e, TEXT, 1);
}

static void the_page_of_a_frame_finds_a_twin(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1), cached = alloc_one(b), twin;
	uint32_t frame;

	assert_int_equal(spw_cache_add(b->sp, cached, 9), 0);
	make_page(b->page, TEXT, 1);
	assert_int_equal(spw_store_or_find(b->sp, b->w, cached, b->page, 9, &twin), SPW_TWIN);
	assert_int_equal(spw_cache_get(b->sp, cached, &frame), 0);
	assert_int_equal(frame, 9);
	assert_int_equal(spw_join(b->sp, b->w, twin), 0);
	assert_int_equal(spw_cache_del(b->sp, cached, 9, false), 0);
	assert_int_equal(spw_kind(b->sp, cached), SPW_FREE);
	assert_int_equal(spw_count(b->sp, e), 2);
	/* The one that was in a frame all the time is none. */
	assert_int_equal(spw_cache_add(b->sp, e, 9), 0);
	cached = alloc_one(b);
	assert_int_equal(store_or_find(b, cached, TEXT, 1, &twin), 0);
	assert_int_equal(spw_cache_del(b->sp, e, 9, true), 0);
	check(b, e, TEXT, 1);
	spw_free(b->sp, &e, 1);
}

static void a_hundred_thousand_pages_join(void **state)
{
	enum { HOLDERS = 100001 };
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1), late = alloc_one(b), twin;
	uint64_t few = stats(b).metadata_bytes;

	assert_int_equal(store_or_find(b, late, TEXT, 1, &twin), SPW_TWIN);
	for (unsigned n = 1; n < 14; n++)
		assert_int_equal(spw_join(b->sp, b->w, twin), 0);
	strict_refuse(true);
	assert_int_equal(spw_join(b->sp, b->w, twin), -ENOMEM);
	strict_refuse(false);
	assert_int_equal(spw_count(b->sp, e), 14);
	for (unsigned n = 14; n < HOLDERS; n++)
		assert_int_equal(spw_join(b->sp, b->w, twin), 0);
	assert_int_equal(spw_count(b->sp, e), HOLDERS);
	for (unsigned n = HOLDERS; n > 1; n--)
		spw_free(b->sp, &e, 1);
	assert_int_equal(spw_count(b->sp, e), 1);
	assert_int_equal(stats(b).metadata_bytes, few);
	check(b, e, TEXT, 1);
}

static void few_twins_are_remembered(void **state)
{
	enum { PAGES = 4 * TWINS };
	struct bench *b = *state;
	spw_entry_t e[PAGES], late = alloc_one(b), twin;
	unsigned found = 0;

	for (unsigned i = 0; i < PAGES; i++)
		e[i] = stored(b, TEXT, i);
	assert_true(stats(b).metadata_bytes < (PAGES * 9 + TWINS * 8 + 3 * SPW_PAGE));
	for (unsigned i = 0; i < PAGES; i++) {
		make_page(b->page, TEXT, i);
		if (spw_store_or_find(b->sp, b->w, late, b->page, SPW_NO_FRAME, &twin) == SPW_TWIN) {
			assert_int_equal(twin.idx, e[i].idx);
			found++;
		}
	}
	/* Each page that is not found takes the place of one that may still have been. */
	assert_in_range(found, TWINS / 16, TWINS);
}

/* ---- swap cache ---- */

static void a_frame_without_backing_is_the_only_copy(void **state)
{
	struct bench *b = *state;
	spw_entry_t e;
	uint32_t c;

	assert_int_equal(spw_cluster_take(b->sp, &c), 0);
	e.idx = c * SPW_CLUSTER + 11;
	assert_int_equal(spw_cache_add(b->sp, e, 5), 0);
	assert_int_equal(spw_count(b->sp, e), 1);
	assert_int_equal(spw_cluster_give(b->sp, c), -EBUSY);
	assert_int_equal(spw_cache_del(b->sp, e, 5, true), 0);
	assert_int_equal(spw_kind(b->sp, e), SPW_FREE);
	assert_int_equal(spw_cache_add(b->sp, e, 5), 0);
	assert_int_equal(spw_cache_del(b->sp, e, 5, false), 0);
	assert_int_equal(spw_kind(b->sp, e), SPW_FREE);
	assert_int_equal(spw_cache_add(b->sp, e, 5), 0);
	spw_free(b->sp, &e, 1);
	assert_int_equal(spw_cache_add(b->sp, e, 5), 0);
	make_page(b->page, TEXT, 3);
	assert_int_equal(spw_store(b->sp, b->w, e, b->page, 5), 0);
	check(b, e, TEXT, 3);
	spw_free(b->sp, &e, 1);
	assert_int_equal(spw_cluster_give(b->sp, c), 0);
}

static void a_clean_frame_keeps_its_backing(void **state)
{
	struct bench *b = *state;
	spw_entry_t e[3] = {stored(b, PATTERN, 77), on_file(b, TEXT, 1), stored(b, TEXT, 2)};

	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(spw_cache_add(b->sp, e[i], i), 0);
		assert_int_equal(spw_kind(b->sp, e[i]), SPW_FRAME);
	}
	assert_int_equal(stats(b).frame, 3);
	assert_int_equal(stats(b).same + stats(b).pool + stats(b).slot, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(spw_cache_del(b->sp, e[i], i, true), 0);
	check(b, e[0], PATTERN, 77);
	check(b, e[1], TEXT, 1);
	check(b, e[2], TEXT, 2);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(spw_cache_add(b->sp, e[i], i), 0);
		assert_int_equal(spw_cache_del(b->sp, e[i], i, false), 0);
		assert_int_equal(spw_kind(b->sp, e[i]), SPW_FREE);
	}
	assert_int_equal(b->ram->live + b->file->live, 0);
}

static void the_cache_refuses_what_would_lose_a_page(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1), other = stored(b, TEXT, 2);
	uint32_t frame;

	assert_int_equal(spw_cache_get(b->sp, e, &frame), -ENOENT);
	assert_int_equal(spw_cache_add(b->sp, e, FRAMES), -ERANGE);
	assert_int_equal(spw_cache_add(b->sp, e, FRAMES - 1), 0);
	assert_int_equal(spw_cache_add(b->sp, e, 1), -EEXIST);
	assert_int_equal(spw_cache_add(b->sp, other, FRAMES - 1), -EBUSY);
	check(b, other, TEXT, 2);
	assert_int_equal(spw_cache_del(b->sp, e, 1, true), -ENOENT);
	assert_int_equal(spw_cache_del(b->sp, other, FRAMES - 1, true), -ENOENT);
	assert_int_equal(spw_dup(b->sp, &e, 1), 0);
	assert_int_equal(spw_cache_del(b->sp, e, FRAMES - 1, false), -EBUSY);
	assert_int_equal(spw_cache_del(b->sp, e, FRAMES - 1, true), 0);
	check(b, e, TEXT, 1);
	spw_free(b->sp, &e, 1);
}

static void a_store_of_a_frame_that_has_left_is_stale(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);

	assert_int_equal(spw_cache_add(b->sp, e, 4), 0);
	assert_int_equal(store(b, e, TEXT, 2), -ESTALE);
	make_page(b->page, TEXT, 2);
	assert_int_equal(spw_store(b->sp, b->w, e, b->page, 5), -ESTALE);
	assert_int_equal(spw_store(b->sp, b->w, e, b->page, 4), 0);
	assert_int_equal(spw_kind(b->sp, e), SPW_POOL);
	assert_int_equal(spw_store(b->sp, b->w, e, b->page, 4), -ESTALE);
	check(b, e, TEXT, 2);
	assert_int_equal(b->ram->live, 1);
}

/* ---- moves ---- */

static void a_late_completion_meets_a_reused_entry(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1), again;

	b->ram->reuse_lowest = true;
	assert_int_equal(start(b), 1);
	spw_free(b->sp, &e, 1);
	assert_int_equal(stats(b).clusters, 0);
	again = stored(b, TEXT, 2);
	assert_int_equal(again.idx, e.idx);
	assert_int_equal(start(b), 1); /* two moves of one entry in flight, to complete in order */
	assert_int_equal(finish(b, 0), 2);
	check(b, e, TEXT, 2);
	assert_int_equal(b->file->live, 1);
	assert_int_equal(stats(b).cancels, 1);
}

static void a_late_completion_meets_a_cluster_that_is_gone(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);

	assert_int_equal(start(b), 1);
	spw_free(b->sp, &e, 1);
	assert_int_equal(stats(b).clusters, 0);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(b->file->live + b->ram->live, 0);
}

static void other_holders_survive_a_free_during_a_move(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);

	assert_int_equal(start(b), 1);
	assert_int_equal(spw_dup(b->sp, &e, 1), 0);
	spw_free(b->sp, &e, 1);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(spw_kind(b->sp, e), SPW_SLOT);
	assert_int_equal(spw_count(b->sp, e), 1);
	check(b, e, TEXT, 1);
	assert_int_equal(stats(b).cancels, 0);
}

static void a_move_completes_behind_a_frame(void **state)
{
	struct bench *b = *state;
	spw_entry_t kept = stored(b, TEXT, 1), dropped = stored(b, TEXT, 2), early = stored(b, TEXT, 3);

	assert_int_equal(start(b), 3);
	assert_int_equal(spw_cache_add(b->sp, kept, 0), 0);
	assert_int_equal(spw_cache_add(b->sp, dropped, 1), 0);
	assert_int_equal(spw_cache_add(b->sp, early, 2), 0);
	assert_int_equal(spw_cache_del(b->sp, dropped, 1, false), 0);
	assert_int_equal(spw_cache_del(b->sp, early, 2, true), 0);
	assert_int_equal(spw_kind(b->sp, early), SPW_POOL);
	assert_int_equal(finish(b, 0), 3);
	assert_int_equal(spw_kind(b->sp, kept), SPW_FRAME);
	assert_int_equal(spw_cache_del(b->sp, kept, 0, true), 0);
	assert_int_equal(spw_kind(b->sp, kept), SPW_SLOT);
	assert_int_equal(spw_kind(b->sp, early), SPW_SLOT);
	check(b, kept, TEXT, 1);
	check(b, early, TEXT, 3);
	assert_int_equal(b->ram->live, 0);
	assert_int_equal(b->file->live, 2);
	assert_int_equal(stats(b).cancels, 1);
}

static void clean_backing_behind_a_frame_can_be_moved(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);

	assert_int_equal(spw_cache_add(b->sp, e, 0), 0);
	assert_int_equal(start(b), 1);
	make_page(b->page, TEXT, 2);
	assert_int_equal(spw_store(b->sp, b->w, e, b->page, 0), 0);
	assert_int_equal(finish(b, 0), 1);
	check(b, e, TEXT, 2);
	assert_int_equal(spw_cache_add(b->sp, e, 0), 0);
	assert_int_equal(start(b), 1);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(spw_cache_del(b->sp, e, 0, true), 0);
	assert_int_equal(spw_kind(b->sp, e), SPW_SLOT);
	check(b, e, TEXT, 2);
}

static void a_write_that_fails_leaves_the_object_where_it_was(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1), freed = stored(b, TEXT, 2), framed = stored(b, TEXT, 3);

	assert_int_equal(start(b), 3);
	spw_free(b->sp, &freed, 1);
	assert_int_equal(spw_cache_add(b->sp, framed, 0), 0);
	assert_int_equal(finish(b, -EIO), 3);
	assert_int_equal(spw_cache_del(b->sp, framed, 0, true), 0);
	assert_int_equal(b->file->live, 0);
	assert_int_equal(b->ram->live, 2);
	check(b, e, TEXT, 1);
	check(b, framed, TEXT, 3);
	assert_int_equal(start(b), 2); /* not marked any more */
	assert_int_equal(finish(b, 0), 2);
	check(b, e, TEXT, 1);
	check(b, framed, TEXT, 3);
}

static void writeback_says_why_it_cannot(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);
	static const int why[] = {-ENOSPC, -EIO, -EAGAIN};

	for (unsigned i = 0; i < 3; i++) {
		b->file->fail_begin = why[i];
		assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), why[i]);
	}
	b->file->fail_begin = 0;
	b->file->fail_add = -EIO;
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), -EIO);
	b->file->fail_add = -ENOSPC; /* even an empty segment has no room */
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), -ENOSPC);
	b->file->fail_add = 0;
	strict_refuse(true);
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), -ENOMEM);
	strict_refuse(false);
	check(b, e, TEXT, 1);
	assert_int_equal(spw_writeback_poll(b->sp, 0), 0);
}

static void writeback_without_a_batch_tier(void **state)
{
	struct spw__space_config cfg = {.max_clusters = 1, .codec = {.coding = SPW_CODING_LZ4}};
	struct spw__space *sp;

	(void)state;
	assert_int_equal(spw__space_create(&cfg, &sp), 0);
	assert_int_equal(spw_writeback_start(sp, 1, false), -ENODEV);
	assert_int_equal(spw_compact(sp, 1), 0);
	spw__space_destroy(sp);
}

static void a_full_tier_is_passed_over(void **state)
{
	struct bench *b = *state;
	struct fake_tier *slow = add_tier(b, true, 2, -5);
	spw_entry_t e = stored(b, TEXT, 1);

	b->file->fail_begin = -ENOSPC;
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), 1);
	assert_int_equal(spw_writeback_poll(b->sp, 0), 1);
	assert_int_equal(slow->live, 1);
	check(b, e, TEXT, 1);
	spw_free(b->sp, &e, 1);
	assert_int_equal(slow->live, 0);
}

static void equal_tiers_take_turns(void **state)
{
	struct bench *b = *state;
	struct fake_tier *twin = add_tier(b, true, 2, 5), *slow = add_tier(b, true, 3, 4);
	spw_entry_t e[6];

	for (unsigned i = 0; i < 4; i++) {
		e[i] = stored(b, TEXT, i);
		assert_int_equal(spw_writeback_start(b->sp, 1, false), 1);
		assert_int_equal(spw_writeback_poll(b->sp, 0), 1);
	}
	assert_int_equal(b->file->live, 2);
	assert_int_equal(twin->live, 2);

	/* One that cannot leaves it to the other, not to a lower one. */
	b->file->fail_begin = -EIO;
	for (unsigned i = 4; i < 6; i++) {
		e[i] = stored(b, TEXT, i);
		assert_int_equal(spw_writeback_start(b->sp, 1, false), 1);
		assert_int_equal(spw_writeback_poll(b->sp, 0), 1);
	}
	assert_int_equal(twin->live, 4);
	/* Nor is there one for a moment's patience. */
	twin->fail_begin = -EAGAIN;
	assert_int_equal(spw_writeback_start(b->sp, 1, false), -EAGAIN);
	assert_int_equal(slow->live, 0);
	for (unsigned i = 0; i < 6; i++)
		check(b, e[i], TEXT, i);
	spw_free(b->sp, e, 6);
}

static void a_ghost_is_asked_for_nothing(void **state)
{
	struct bench *b = *state;
	struct spw_tier_stats st;
	struct spw_segment *g;
	struct spw_tier *ghost;
	spw_slot_t s;

	assert_int_equal(spw__ghost_create(SPW_MAX_TIERS, "ghost", 1, &ghost), -EINVAL);
	assert_int_equal(spw__ghost_create(2, "ghost", 2048, &ghost), 0);
	ghost->priority = 100;
	assert_int_equal(spw__space_add_tier(b->sp, ghost), 0);
	spw_entry_t e = stored(b, TEXT, 1);

	assert_int_equal(start(b), 1);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(b->file->live, 1);
	check(b, e, TEXT, 1);
	ghost->ops->stats(ghost, &st);
	assert_int_equal(st.capacity_bytes, 2048 * SPW_PAGE);
	assert_int_equal(st.used_bytes, 0);
	assert_int_equal(st.errors, 0);

	/* Whoever goes to it all the same is refused, and counted. */
	struct spw_obj o = {.data = b->page, .len = SPW_PAGE};

	assert_int_equal(ghost->ops->put(ghost, e, &o, &s), -ENOMEDIUM);
	assert_int_equal(ghost->ops->begin(ghost, &g), -ENOMEDIUM);
	assert_int_equal(ghost->ops->get(ghost, e, spw__slot(2, 0, SPW_CODING_RAW, SPW_PAGE), b->back), -ENOMEDIUM);
	ghost->ops->stats(ghost, &st);
	assert_int_equal(st.errors, 3);
	ghost->ops->destroy(ghost);
}

static void writeback_fills_several_segments(void **state)
{
	struct bench *b = *state;
	spw_entry_t e[3 * FAKE_BATCH];

	assert_int_equal(spw_alloc(b->sp, e, 3 * FAKE_BATCH), 0);
	for (unsigned i = 0; i < 3 * FAKE_BATCH; i++)
		assert_int_equal(store(b, e[i], i % 5 ? TEXT : NOISE, i), 0);
	assert_int_equal(start(b), 3 * FAKE_BATCH);
	assert_int_equal(b->file->queued, 3);
	assert_int_equal(start(b), 0); /* all on their way */
	assert_int_equal(finish(b, 0), 3 * FAKE_BATCH);
	for (unsigned i = 0; i < 3 * FAKE_BATCH; i++)
		check(b, e[i], i % 5 ? TEXT : NOISE, i);
}

static void raw_only_writeback_leaves_compressed_objects(void **state)
{
	struct bench *b = *state;
	spw_entry_t raw = stored(b, NOISE, 1), text;

	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, true), 1);
	assert_int_equal(spw_writeback_poll(b->sp, 0), 1);
	text = stored(b, TEXT, 2);
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, true), 0);
	assert_int_equal(spw_kind(b->sp, text), SPW_POOL);
	assert_int_equal(spw_kind(b->sp, raw), SPW_SLOT);
}

static void what_was_read_has_a_second_chance(void **state)
{
	struct bench *b = *state;
	spw_entry_t read = stored(b, TEXT, 1), cold = stored(b, TEXT, 2);

	check(b, read, TEXT, 1);
	assert_int_equal(spw_writeback_start(b->sp, 1, false), 1);
	assert_int_equal(spw_writeback_poll(b->sp, 0), 1);
	assert_int_equal(spw_kind(b->sp, read), SPW_POOL);
	assert_int_equal(spw_kind(b->sp, cold), SPW_SLOT);
	assert_int_equal(spw_writeback_start(b->sp, 1, false), 1);
	assert_int_equal(spw_writeback_poll(b->sp, 0), 1);
	assert_int_equal(spw_kind(b->sp, read), SPW_SLOT);
}

static void compaction_moves_objects_under_their_entries(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1), framed = stored(b, TEXT, 2), moving = stored(b, TEXT, 3);

	assert_int_equal(spw_cache_add(b->sp, framed, 0), 0);
	assert_int_equal(spw_compact(b->sp, 2), 2);
	assert_int_equal(b->ram->live, 3);
	assert_int_equal(stats(b).relocations, 2);
	b->ram->fail_put = -ENOSPC;
	assert_int_equal(spw_compact(b->sp, 2), -ENOSPC);
	b->ram->fail_put = 0;
	assert_int_equal(start(b), 3);
	assert_int_equal(spw_compact(b->sp, 3), 0);
	assert_int_equal(finish(b, 0), 3);
	assert_int_equal(spw_cache_del(b->sp, framed, 0, true), 0);
	check(b, e, TEXT, 1);
	check(b, framed, TEXT, 2);
	check(b, moving, TEXT, 3);
}

static void cleaning_moves_what_is_still_live(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = on_file(b, TEXT, 1), freed = on_file(b, TEXT, 2), framed = on_file(b, TEXT, 3);

	assert_int_equal(spw_clean(b->sp, b->w), 0);
	assert_int_equal(spw_cache_add(b->sp, framed, 0), 0);
	b->file->clean_below = 3;
	b->file->hold = true;
	assert_int_equal(spw_clean(b->sp, b->w), 3);
	assert_int_equal(spw_clean(b->sp, b->w), -EAGAIN);
	check(b, e, TEXT, 1);
	spw_free(b->sp, &freed, 1);
	assert_int_equal(finish(b, 0), 3);
	assert_int_equal(spw_cache_del(b->sp, framed, 0, true), 0);
	check(b, e, TEXT, 1);
	check(b, framed, TEXT, 3);
	assert_int_equal(b->file->live, 2);
	for (unsigned i = 0; i < 3; i++)
		assert_false(b->file->object[i].used);
	assert_int_equal(stats(b).relocations, 2);
	assert_int_equal(stats(b).cancels, 1);
	b->file->clean_below = FAKE_OBJECTS;
	b->file->fail_begin = -ENOSPC;
	assert_int_equal(spw_clean(b->sp, b->w), -ENOSPC);
}

static void cleaning_fills_the_end_of_a_segment(void **state)
{
	struct bench *b = *state;
	spw_entry_t large = on_file(b, NOISE, 1), next = on_file(b, NOISE, 2), small = on_file(b, TEXT, 3);

	b->file->clean_below = 3;
	b->file->batch_bytes = 3 * SPW_PAGE / 2;
	b->file->hold = true;
	assert_int_equal(spw_clean(b->sp, b->w), 3);
	assert_int_equal(b->file->queued, 2);
	assert_int_equal(b->file->queue[0]->n, 2);
	assert_int_equal(b->file->queue[0]->moves[0].entry.idx, large.idx);
	assert_int_equal(b->file->queue[0]->moves[1].entry.idx, small.idx);
	assert_int_equal(b->file->queue[1]->n, 1);
	assert_int_equal(b->file->queue[1]->moves[0].entry.idx, next.idx);
	assert_int_equal(finish(b, 0), 3);
	check(b, large, NOISE, 1);
	check(b, next, NOISE, 2);
	check(b, small, TEXT, 3);
}

static void cleaning_moves_the_oldest_down(void **state)
{
	struct bench *b = *state;
	struct fake_tier *twin = add_tier(b, true, 2, 5), *slow = add_tier(b, true, 3, 4);
	spw_entry_t e[3];

	for (unsigned i = 0; i < 3; i++)
		e[i] = stored(b, TEXT, i);
	assert_int_equal(start(b), 3);
	assert_int_equal(finish(b, 0), 3);
	assert_int_equal(b->file->live, 3);
	b->file->clean_below = 2;
	assert_int_equal(spw_clean(b->sp, b->w), 2);
	assert_true(b->file->asked_oldest);
	assert_int_equal(finish(b, 0), 2);
	assert_int_equal(b->file->live, 1);
	assert_int_equal(slow->live, 2); /* a tier of the same priority is not below */
	assert_int_equal(twin->live, 0);

	/* Without room there, it is cleaned for its own sake. */
	slow->fail_begin = -ENOSPC;
	b->file->clean_below = 3;
	assert_int_equal(spw_clean(b->sp, b->w), 1);
	assert_false(b->file->asked_oldest);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(b->file->live, 1);
	for (unsigned i = 0; i < 3; i++)
		check(b, e[i], TEXT, i);
	spw_free(b->sp, e, 3);
}

/* ---- tiers that may not be used ---- */

#define BIT(n) (1u << (n))

/* A cluster of the host's that may use only `tiers`. */
static spw_entry_t take_only(struct bench *b, uint32_t tiers)
{
	uint32_t c;

	assert_int_equal(spw_cluster_take(b->sp, &c), 0);
	assert_int_equal(spw_cluster_allow(b->sp, c, tiers), 0);
	return (spw_entry_t){c * SPW_CLUSTER};
}

static spw_entry_t nth(spw_entry_t first, uint32_t n)
{
	return (spw_entry_t){first.idx + n};
}

static void a_twin_may_use_the_same_tiers(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = take_only(b, BIT(0)), same = take_only(b, BIT(0)), other = take_only(b, BIT(0) | BIT(1)), twin;

	assert_int_equal(store(b, e, TEXT, 1), 0);
	assert_int_equal(store_or_find(b, same, TEXT, 1, &twin), SPW_TWIN);
	assert_int_equal(twin.idx, e.idx);
	assert_int_equal(spw_join(b->sp, b->w, twin), 0);
	assert_int_equal(store_or_find(b, same, TEXT, 1, &twin), SPW_TWIN);
	assert_int_equal(spw_cluster_allow(b->sp, e.idx / SPW_CLUSTER, 0), 0);
	assert_int_equal(spw_join(b->sp, b->w, twin), -ESTALE);
	assert_int_equal(store_or_find(b, other, TEXT, 1, &twin), 0);
	spw_free(b->sp, (spw_entry_t[]){e, e, other}, 3);
}

static void masks_only_narrow(void **state)
{
	struct bench *b = *state;
	spw_entry_t single = alloc_one(b), e = take_only(b, BIT(0) | BIT(1) | BIT(4));
	uint32_t c = e.idx / SPW_CLUSTER;

	assert_int_equal(spw_cluster_allow(b->sp, c, BIT(0) | BIT(4)), 0);
	assert_int_equal(spw_cluster_allow(b->sp, c, BIT(0) | BIT(1)), -EPERM);
	assert_int_equal(spw_cluster_allow(b->sp, c, BIT(16)), -EINVAL);
	assert_int_equal(spw_cluster_allow(b->sp, single.idx / SPW_CLUSTER, BIT(0)), -EINVAL);
	assert_int_equal(spw_allow(b->sp, BIT(16)), -EINVAL);
	assert_int_equal(spw_allow(b->sp, BIT(0) | BIT(1)), 0);
	assert_int_equal(spw_allow(b->sp, BIT(2)), -EPERM);
	/* Of what the whole space has lost nothing is left to a cluster. */
	assert_int_equal(spw_cluster_allow(b->sp, c, BIT(4)), -EPERM);
	/* What a refused call named is as it was. */
	assert_int_equal(store(b, e, TEXT, 1), 0);
	check(b, e, TEXT, 1);
	spw_free(b->sp, &e, 1);
	assert_int_equal(spw_cluster_allow(b->sp, c, 0), 0);
	assert_int_equal(store(b, e, TEXT, 1), -ENOSPC);
	/* Taken again it is a new one. */
	assert_int_equal(spw_cluster_give(b->sp, c), 0);
	assert_int_equal(spw_cluster_take(b->sp, &c), 0);
	assert_int_equal(store(b, (spw_entry_t){c * SPW_CLUSTER}, TEXT, 1), 0);
}

static void stores_go_to_tiers_that_are_allowed(void **state)
{
	struct bench *b = *state;
	struct fake_tier *fast = add_tier(b, false, 2, 20), *never = add_tier(b, false, 3, 30);
	spw_entry_t slow, all, none;

	assert_int_equal(spw_allow(b->sp, 0xffff & ~BIT(3)), 0);
	slow = take_only(b, BIT(0) | BIT(1));
	all = take_only(b, BIT(0) | BIT(1) | BIT(2));
	none = take_only(b, BIT(1));
	assert_int_equal(store(b, slow, TEXT, 1), 0);
	assert_int_equal(b->ram->live, 1);
	assert_int_equal(store(b, all, TEXT, 2), 0);
	assert_int_equal(fast->live, 1);
	assert_int_equal(store(b, none, TEXT, 3), -ENOSPC);
	assert_int_equal(store(b, none, PATTERN, 3), 0); /* takes no storage */
	assert_int_equal(never->live, 0);
	check(b, slow, TEXT, 1);
	check(b, all, TEXT, 2);
	check(b, none, PATTERN, 3);
	spw_free(b->sp, &all, 1);
}

static void writeback_sends_each_where_it_may_go(void **state)
{
	struct bench *b = *state;
	struct fake_tier *low = add_tier(b, true, 2, -5);
	spw_entry_t free_to = take_only(b, 0xffff), below = take_only(b, BIT(0) | BIT(2)), stays = take_only(b, BIT(0));

	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(store(b, nth(free_to, i), TEXT, i), 0);
		assert_int_equal(store(b, nth(below, i), TEXT, i + 1000), 0);
		assert_int_equal(store(b, nth(stays, i), TEXT, i + 2000), 0);
	}
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), 200);
	assert_int_equal(spw_writeback_poll(b->sp, 0), 200);
	assert_int_equal(b->file->live, 100);
	assert_int_equal(low->live, 100);
	assert_int_equal(b->ram->live, 100);
	/* What may go nowhere is no work, and no error. */
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), 0);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(spw_kind(b->sp, nth(stays, i)), SPW_POOL);
		check(b, nth(free_to, i), TEXT, i);
		check(b, nth(below, i), TEXT, i + 1000);
		check(b, nth(stays, i), TEXT, i + 2000);
	}
	spw_free_range(b->sp, below, 100);
}

/* n pages in the pool, one after another of a cluster that may use a lower file only and of one that may use any. */
struct two_ways {
	struct fake_tier *low;
	spw_entry_t below, any;
	unsigned n;
};

static spw_entry_t of_two_ways(const struct two_ways *t, unsigned i)
{
	return nth(i % 2 ? t->any : t->below, i);
}

static struct two_ways store_two_ways(struct bench *b, unsigned n)
{
	struct two_ways t = {.low = add_tier(b, true, 2, -5), .n = n};

	t.below = take_only(b, BIT(0) | BIT(2));
	t.any = take_only(b, 0xffff);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(store(b, of_two_ways(&t, i), TEXT, i), 0);
	return t;
}

static void free_two_ways(struct bench *b, const struct two_ways *t)
{
	for (unsigned i = 0; i < t->n; i++)
		check(b, of_two_ways(t, i), TEXT, i);
	spw_free_range(b->sp, t->below, t->n);
}

static void a_full_tier_stops_only_those_that_need_it(void **state)
{
	struct bench *b = *state;
	struct two_ways t = store_two_ways(b, 4);

	t.low->fail_begin = -ENOSPC;
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), 2);
	assert_int_equal(spw_writeback_poll(b->sp, 0), 2);
	assert_int_equal(b->file->live, 2);
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), -ENOSPC);
	t.low->fail_begin = 0;
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), 2);
	assert_int_equal(spw_writeback_poll(b->sp, 0), 2);
	free_two_ways(b, &t);
	/* No batch tier at all is what it always was. */
	assert_int_equal(spw_allow(b->sp, BIT(0)), 0);
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), -ENODEV);
}

static void cleaning_moves_down_only_what_may_go(void **state)
{
	struct bench *b = *state;
	struct fake_tier *slow = add_tier(b, true, 3, 4);
	spw_entry_t any = take_only(b, 0xffff), not_slow = take_only(b, BIT(0) | BIT(1));

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(store(b, nth(i % 2 ? any : not_slow, i), TEXT, i), 0);
	assert_int_equal(start(b), 4);
	assert_int_equal(finish(b, 0), 4);
	b->file->clean_below = 4;
	assert_int_equal(spw_clean(b->sp, b->w), 2);
	assert_true(b->file->asked_oldest);
	assert_int_equal(finish(b, 0), 2);
	assert_int_equal(slow->live, 2);

	/* Nothing of the oldest may: then it is cleaned for its own sake. */
	b->file->clean_below = 4;
	b->file->clean_more = 3;
	assert_int_equal(spw_clean(b->sp, b->w), 2);
	assert_false(b->file->asked_oldest);
	assert_int_equal(finish(b, 0), 2);
	assert_int_equal(slow->live, 2);
	assert_int_equal(b->file->live, 2);
	for (unsigned i = 0; i < 4; i++)
		check(b, nth(i % 2 ? any : not_slow, i), TEXT, i);
	spw_free_range(b->sp, any, 4);
}

static void a_drain_leaves_what_may_go_nowhere(void **state)
{
	struct bench *b = *state;
	spw_entry_t stays = take_only(b, BIT(1)), any = take_only(b, 0xffff);

	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(store(b, nth(any, i), TEXT, i), 0);
	assert_int_equal(start(b), 2);
	assert_int_equal(finish(b, 0), 2);
	spw_entry_t mover = take_only(b, 0xffff);

	assert_int_equal(store(b, mover, TEXT, 9), 0);
	assert_int_equal(spw_cluster_allow(b->sp, mover.idx / SPW_CLUSTER, BIT(0)), 0);
	/* Out of the file all may go but those of a cluster that has only the file. */
	assert_int_equal(spw_cluster_allow(b->sp, any.idx / SPW_CLUSTER, BIT(1)), 0);
	assert_int_equal(spw_drain(b->sp, b->w, &b->file->tier), -ENOSPC);
	assert_int_equal(b->file->live, 2);
	spw_drain_cancel(b->sp, &b->file->tier);
	/* And out of the pool what has only the pool. */
	assert_int_equal(spw_drain(b->sp, b->w, &b->ram->tier), -ENOSPC);
	spw_drain_cancel(b->sp, &b->ram->tier);
	assert_int_equal(b->ram->live, 1);
	assert_int_equal(store(b, stays, TEXT, 1), -ENOSPC);
	for (unsigned i = 0; i < 2; i++)
		check(b, nth(any, i), TEXT, i);
	check(b, mover, TEXT, 9);
}

/* In a drain each goes where it may. */
static void a_drain_knows_several_ways(void **state)
{
	struct bench *b = *state;
	struct two_ways t = store_two_ways(b, 6);

	assert_int_equal(spw_drain(b->sp, b->w, &b->ram->tier), 0);
	assert_int_equal(b->file->live, 3);
	assert_int_equal(t.low->live, 3);
	free_two_ways(b, &t);
	spw_drain_cancel(b->sp, &b->ram->tier);
}

static void what_is_on_a_tier_that_is_denied_stays_good(void **state)
{
	struct bench *b = *state;
	struct fake_tier *other = add_tier(b, false, 2, -1);
	spw_entry_t e = take_only(b, 0xffff), file = nth(e, 1), moving = nth(e, 2);

	assert_int_equal(store(b, file, TEXT, 2), 0);
	assert_int_equal(start(b), 1);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(store(b, moving, TEXT, 3), 0);
	assert_int_equal(start(b), 1);
	assert_int_equal(store(b, e, TEXT, 1), 0);
	assert_int_equal(spw_cluster_allow(b->sp, e.idx / SPW_CLUSTER, BIT(2)), 0);
	/* What is on its way arrives. */
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(spw_kind(b->sp, moving), SPW_SLOT);
	/* It may be moved about within its tier, RAM or file. */
	assert_int_equal(spw_compact(b->sp, 1), 1);
	assert_int_equal(b->ram->live, 1);
	b->file->clean_below = FAKE_OBJECTS;
	assert_int_equal(spw_clean(b->sp, b->w), 2);
	assert_int_equal(finish(b, 0), 2);
	assert_int_equal(b->file->live, 2);
	check(b, e, TEXT, 1);
	check(b, file, TEXT, 2);
	check(b, moving, TEXT, 3);
	/* Stored anew it goes elsewhere. */
	assert_int_equal(store(b, file, TEXT, 4), 0);
	assert_int_equal(other->live, 1);
	assert_int_equal(b->file->live, 1);
	check(b, file, TEXT, 4);
	spw_free(b->sp, &file, 1);
}

/* ---- reads that sleep ---- */

struct during {
	struct bench *b;
	spw_entry_t e;
	uint8_t page[SPW_PAGE];
};

static void store_during_read(void *arg)
{
	struct during *d = arg;

	d->b->file->fail_get = 0;
	make_page(d->page, NOISE, 50);
	assert_int_equal(spw_store(d->b->sp, d->b->w, d->e, d->page, SPW_NO_FRAME), 0);
}

static void free_during_read(void *arg)
{
	struct during *d = arg;

	spw_free(d->b->sp, &d->e, 1);
}

/* Stored and written again, to the very slot that is being read; the read then comes to a bad end. */
static void land_during_read(void *arg)
{
	struct during *d = arg;
	struct bench *b = d->b;

	store_during_read(arg);
	b->file->fail_get_once = -EBADMSG;
	assert_int_equal(start(b), 1);
	assert_int_equal(finish(b, 0), 1);
	spw_free(b->sp, &d->e, 1);
	b->file->reuse_lowest = true;
	assert_int_equal(stored(b, NOISE, 50).idx, d->e.idx);
	assert_int_equal(start(b), 1);
	assert_int_equal(finish(b, 0), 1);
	assert_true(b->file->object[0].used);
}

static void a_read_of_what_changed_meanwhile_begins_again(void **state)
{
	struct bench *b = *state;
	struct during d = {.b = b, .e = on_file(b, NOISE, 1)};

	b->file->in_get = store_during_read;
	b->file->in_get_arg = &d;
	check(b, d.e, NOISE, 50);
}

static void an_error_of_what_changed_meanwhile_is_none(void **state)
{
	struct bench *b = *state;
	struct during d = {.b = b, .e = on_file(b, NOISE, 1)};
	spw_slot_t where;

	b->file->in_get = free_during_read;
	b->file->in_get_arg = &d;
	assert_int_equal(spw_load(b->sp, b->w, d.e, b->back, &where), -ENOENT);
}

static void an_error_of_a_slot_that_was_reused_meanwhile_is_none(void **state)
{
	struct bench *b = *state;
	struct during d = {.b = b, .e = on_file(b, NOISE, 1)};

	b->file->in_get = land_during_read;
	b->file->in_get_arg = &d;
	check(b, d.e, NOISE, 50);
}

/* The slot goes to another process, whose entry of the same number writes its page there, sealed by the same key. */
static void slot_is_anothers_during_read(void *arg)
{
	struct during *d = arg;
	struct spw_obj o = {.data = d->page, .len = SPW_PAGE, .coding = SPW_CODING_RAW};
	spw_slot_t s = SPW_SLOT_NONE;

	store_during_read(arg);
	make_page(d->page, NOISE, 666);
	d->b->file->reuse_lowest = true;
	assert_int_equal(fake_place(d->b->file, d->e, &o, &s), 0);
	assert_int_equal(fake_index(s), 0);
}

/* And comes back to this one. */
static void slot_comes_back(void *arg)
{
	struct during *d = arg;

	fake_free(&d->b->file->tier, fake_slot(d->b->file, 0));
	assert_int_equal(start(d->b), 1);
	assert_int_equal(finish(d->b, 0), 1);
	assert_int_equal(d->b->file->object[0].owner, d->e.idx);
}

static void a_slot_that_was_anothers_meanwhile_gives_none_of_its_bytes(void **state)
{
	struct bench *b = *state;
	struct during d = {.b = b, .e = on_file(b, NOISE, 1)};

	b->file->in_get = slot_is_anothers_during_read;
	b->file->after_get = slot_comes_back;
	b->file->in_get_arg = &d;
	check(b, d.e, NOISE, 50);
}

static void errors_of_a_read_come_with_the_slot(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = on_file(b, TEXT, 1);
	spw_slot_t where = SPW_SLOT_NONE;

	b->file->fail_get = -EIO;
	assert_int_equal(spw_load(b->sp, b->w, e, b->back, &where), -EIO);
	assert_int_equal(spw__slot_tier(where), 1);
	assert_int_equal(fake_index(where), 0);
	b->file->fail_get = 0;
	b->file->object[0].owner++;
	assert_int_equal(spw_load(b->sp, b->w, e, b->back, &where), -EBADMSG);
	b->file->object[0].owner--;
	check(b, e, TEXT, 1);
	assert_int_equal(stats(b).loads, 1);
}

/* ---- drain ---- */

static void drain_of_a_ram_tier_writes_everything_back(void **state)
{
	struct bench *b = *state;
	spw_entry_t e[600];

	assert_int_equal(spw_alloc(b->sp, e, 600), 0);
	for (unsigned i = 0; i < 600; i++)
		assert_int_equal(store(b, e[i], i % 7 ? TEXT : NOISE, i), 0);
	assert_int_equal(spw_cache_add(b->sp, e[3], 3), 0);
	assert_int_equal(spw_drain(b->sp, b->w, &b->ram->tier), 0);
	assert_int_equal(b->ram->live, 0);
	assert_int_equal(spw_cache_del(b->sp, e[3], 3, true), 0);
	for (unsigned i = 0; i < 600; i++)
		check(b, e[i], i % 7 ? TEXT : NOISE, i);
	assert_int_equal(store(b, e[0], TEXT, 1), -ENOSPC);
	assert_int_equal(spw_drain(b->sp, b->w, &b->ram->tier), 0);
}

static void drain_of_a_file_brings_everything_back(void **state)
{
	struct bench *b = *state;
	spw_entry_t e[100];

	assert_int_equal(spw_alloc(b->sp, e, 100), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(store(b, e[i], TEXT, i), 0);
	assert_int_equal(start(b), 100);
	assert_int_equal(spw_cache_add(b->sp, e[9], 9), 0);
	b->file->hold = false;
	assert_int_equal(spw_drain(b->sp, b->w, &b->file->tier), 0);
	assert_int_equal(b->file->live, 0);
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), -ENODEV);
	assert_int_equal(spw_cache_del(b->sp, e[9], 9, true), 0);
	for (unsigned i = 0; i < 100; i++)
		check(b, e[i], TEXT, i);
}

static void drain_moves_what_it_can(void **state)
{
	struct bench *b = *state;
	spw_entry_t bad = on_file(b, TEXT, 1), good = on_file(b, TEXT, 2);

	b->file->object[0].owner++;
	assert_int_equal(spw_drain(b->sp, b->w, &b->file->tier), -EBADMSG);
	assert_int_equal(spw_kind(b->sp, good), SPW_POOL);
	assert_int_equal(spw_kind(b->sp, bad), SPW_SLOT);
	b->file->object[0].owner--;
	b->ram->fail_put = -ENOSPC;
	assert_int_equal(spw_drain(b->sp, b->w, &b->file->tier), -ENOSPC);
	b->ram->fail_put = 0;
	assert_int_equal(spw_drain(b->sp, b->w, &b->file->tier), 0);
	check(b, bad, TEXT, 1);
	check(b, good, TEXT, 2);
}

/* A dead tier: what cannot be read is not read again and again, what has no room waits, and the end is known. */
static void a_rescue_leaves_what_cannot_be_read(void **state)
{
	struct bench *b = *state;
	struct fake_tier *slow = add_tier(b, true, 2, -5), *file = b->file;
	spw_entry_t e[100];
	unsigned gets;
	int rc;

	assert_int_equal(spw_alloc(b->sp, e, 100), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(store(b, e[i], TEXT, i), 0);
	assert_int_equal(start(b), 100);
	assert_int_equal(finish(b, 0), 100);
	for (unsigned i = 0; i < FAKE_OBJECTS; i++)
		if (file->object[i].used && file->object[i].owner == e[i % 100].idx && i % 5 == 1)
			file->object[i].owner += 100000;
	spw_drain_rescue(b->sp, &file->tier);
	/* No room: it stays where it is. */
	b->ram->fail_put = -ENOSPC;
	slow->fail_begin = -EIO;
	for (unsigned i = 1; i < 5; i++) {
		assert_int_equal(spw_drain_step(b->sp, b->w, &file->tier, 10), -ENOSPC);
		assert_int_equal(file->live, 100);
		assert_int_equal(file->gets, i);
	}
	/* Some go to the other file, and nothing is read until they are there. */
	slow->fail_begin = 0;
	slow->hold = true;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(spw_drain_step(b->sp, b->w, &file->tier, 200), SPW_DRAIN_WAITS);
		assert_int_equal(file->gets, 4 + 100);
	}
	/* They do not arrive: another pass, to the pool. */
	slow->hold = false;
	slow->write_status = -EIO;
	spw_writeback_poll(b->sp, 0);
	assert_true(file->live > 20);
	b->ram->fail_put = 0;
	while ((rc = spw_drain_step(b->sp, b->w, &file->tier, 10)) > 0)
		spw_writeback_poll(b->sp, 0);
	assert_int_equal(rc, -EBADMSG);
	assert_int_equal(file->live, 20);
	gets = file->gets;
	assert_true(gets <= 4 + 2 * 100);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(spw_drain_step(b->sp, b->w, &file->tier, 10), -EIO);
	assert_int_equal(file->gets, gets);
	for (unsigned i = 0; i < 100; i++) {
		if (spw_kind(b->sp, e[i]) == SPW_SLOT && file->live)
			spw_free(b->sp, &e[i], 1);
		else
			check(b, e[i], TEXT, i);
	}
	assert_int_equal(spw_drain_step(b->sp, b->w, &file->tier, 10), 0);
	assert_int_equal(spw__space_remove_tier(b->sp, &file->tier), 0);
}

static void drain_goes_step_by_step(void **state)
{
	struct bench *b = *state;
	struct fake_tier *slow = add_tier(b, true, 2, -5);
	struct fake_tier *file = b->file;
	spw_entry_t e[100], between[100];
	unsigned n = 0, left = 100;
	int rc;

	assert_int_equal(spw_alloc(b->sp, e, 100), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(store(b, e[i], TEXT, i), 0);
	assert_int_equal(start(b), 100);
	assert_int_equal(finish(b, 0), 100);
	spw_drain_begin(b->sp, &file->tier);
	while ((rc = spw_drain_step(b->sp, b->w, &file->tier, 7)) > 0) {
		assert_int_equal(rc, SPW_DRAIN_MORE);
		assert_true(left - file->live <= 7);
		left = file->live;
		/* Reclaim goes on, to where there is room. */
		between[n] = stored(b, NOISE, 200 + n);
		n++;
		assert_true(spw_writeback_start(b->sp, UINT64_MAX, false) > 0);
		assert_true(spw_writeback_poll(b->sp, 0) > 0);
	}
	assert_int_equal(rc, 0);
	assert_true(n >= 100 / 7);
	assert_int_equal(file->live, 0);
	assert_true(slow->live > 0);
	for (unsigned i = 0; i < 100; i++)
		check(b, e[i], TEXT, i);
	for (unsigned i = 0; i < n; i++)
		check(b, between[i], NOISE, 200 + i);
	spw_free(b->sp, e, 100);
	spw_free(b->sp, between, n);
}

static void a_step_looks_at_few_clusters(void **state)
{
	struct bench *b = *state;
	static spw_entry_t e[20 * SPW_CLUSTER];
	unsigned steps = 0;
	int rc;

	assert_int_equal(spw_alloc(b->sp, e, 20 * SPW_CLUSTER), 0);
	assert_int_equal(store(b, e[20 * SPW_CLUSTER - 1], TEXT, 1), 0);
	spw_drain_begin(b->sp, &b->ram->tier);
	while ((rc = spw_drain_step(b->sp, b->w, &b->ram->tier, 4)) == SPW_DRAIN_MORE)
		steps++;
	assert_int_equal(rc, SPW_DRAIN_WAITS);
	assert_true(steps >= 20 / 4);
	assert_int_equal(spw_writeback_poll(b->sp, 0), 1);
	assert_int_equal(spw_drain_step(b->sp, b->w, &b->ram->tier, 4), 0);
	check(b, e[20 * SPW_CLUSTER - 1], TEXT, 1);
}

static void a_step_waits_for_nothing(void **state)
{
	struct bench *b = *state;
	spw_entry_t e[(FAKE_SEGMENTS + 1) * FAKE_BATCH];
	unsigned n = sizeof(e) / sizeof(e[0]);

	assert_int_equal(spw_alloc(b->sp, e, n), 0);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(store(b, e[i], TEXT, i), 0);
	b->file->hold = true;
	spw_drain_begin(b->sp, &b->ram->tier);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(spw_drain_step(b->sp, b->w, &b->ram->tier, UINT32_MAX), SPW_DRAIN_WAITS);
	assert_int_equal(spw_writeback_under_way(b->sp), FAKE_SEGMENTS * FAKE_BATCH);
	b->file->hold = false;
	assert_int_equal(spw_drain(b->sp, b->w, &b->ram->tier), 0);
	for (unsigned i = 0; i < n; i++)
		check(b, e[i], TEXT, i);
}

static void drain_waits_for_what_is_on_its_way_to_the_tier(void **state)
{
	struct bench *b = *state;
	spw_entry_t e = stored(b, TEXT, 1);

	assert_int_equal(start(b), 1);
	spw_drain_begin(b->sp, &b->file->tier);
	assert_int_equal(spw_drain_step(b->sp, b->w, &b->file->tier, 10), SPW_DRAIN_WAITS);
	assert_int_equal(spw__space_remove_tier(b->sp, &b->file->tier), -EBUSY);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(spw_kind(b->sp, e), SPW_SLOT);
	assert_int_equal(spw_drain_step(b->sp, b->w, &b->file->tier, 10), SPW_DRAIN_MORE);
	assert_int_equal(spw_drain_step(b->sp, b->w, &b->file->tier, 10), 0);
	assert_int_equal(spw_kind(b->sp, e), SPW_POOL);
	check(b, e, TEXT, 1);
}

static void drain_can_be_cancelled_half_way(void **state)
{
	struct bench *b = *state;
	spw_entry_t e[100];

	assert_int_equal(spw_alloc(b->sp, e, 100), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(store(b, e[i], TEXT, i), 0);
	assert_int_equal(spw_drain_step(b->sp, b->w, &b->ram->tier, 1), -ECANCELED); /* not begun */
	spw_drain_begin(b->sp, &b->ram->tier);
	assert_int_equal(spw_drain_step(b->sp, b->w, &b->ram->tier, 30), SPW_DRAIN_MORE);
	assert_int_equal(store(b, e[0], TEXT, 100), -ENOSPC);
	spw_drain_cancel(b->sp, &b->ram->tier);
	assert_int_equal(spw_drain_step(b->sp, b->w, &b->ram->tier, 30), -ECANCELED);
	assert_int_equal(spw_writeback_poll(b->sp, 0), 30);
	assert_int_equal(b->ram->live, 70);
	assert_int_equal(store(b, e[0], TEXT, 100), 0);
	assert_int_equal(b->ram->live, 71);
	for (unsigned i = 0; i < 100; i++)
		check(b, e[i], TEXT, i ? i : 100);
	assert_int_equal(spw_drain(b->sp, b->w, &b->ram->tier), 0);
	for (unsigned i = 0; i < 100; i++)
		check(b, e[i], TEXT, i ? i : 100);
}

static void cancel_during_read(void *arg)
{
	struct bench *b = arg;

	spw_drain_cancel(b->sp, &b->file->tier);
}

static void a_drain_under_way_ends_when_cancelled(void **state)
{
	struct bench *b = *state;
	spw_entry_t first = on_file(b, TEXT, 1), second = on_file(b, TEXT, 2);

	b->file->in_get = cancel_during_read;
	b->file->in_get_arg = b;
	assert_int_equal(spw_drain(b->sp, b->w, &b->file->tier), -ECANCELED);
	assert_int_equal(spw_kind(b->sp, first), SPW_POOL);
	assert_int_equal(spw_kind(b->sp, second), SPW_SLOT);
	assert_int_equal(start(b), 1);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(b->file->live, 2);
	check(b, first, TEXT, 1);
	check(b, second, TEXT, 2);
}

static void drain_has_no_errors_of_what_changed_meanwhile(void **state)
{
	struct bench *b = *state;
	struct during d = {.b = b, .e = on_file(b, NOISE, 1)};

	b->file->in_get = store_during_read;
	b->file->in_get_arg = &d;
	b->file->fail_get_once = -EBADMSG;
	assert_int_equal(spw_drain(b->sp, b->w, &b->file->tier), 0);
	check(b, d.e, NOISE, 50);
}

static void a_drained_tier_can_be_removed(void **state)
{
	struct bench *b = *state;
	struct fake_tier *next = fake_create(true, 1, 5);
	spw_entry_t e = on_file(b, TEXT, 1);

	assert_int_equal(spw__space_remove_tier(b->sp, &next->tier), -ENOENT);
	assert_int_equal(spw__space_remove_tier(b->sp, &b->file->tier), -EBUSY); /* not empty */
	spw_drain_begin(b->sp, &b->file->tier);
	assert_int_equal(spw__space_remove_tier(b->sp, &b->file->tier), -EBUSY); /* closed, not empty */
	assert_int_equal(spw_drain(b->sp, b->w, &b->file->tier), 0);
	spw_drain_cancel(b->sp, &b->file->tier);
	assert_int_equal(spw__space_remove_tier(b->sp, &b->file->tier), -EBUSY); /* empty, not closed */
	assert_int_equal(spw_drain(b->sp, b->w, &b->file->tier), 0);
	assert_int_equal(spw__space_remove_tier(b->sp, &b->file->tier), 0);
	assert_int_equal(spw__space_remove_tier(b->sp, &b->file->tier), -ENOENT);
	assert_int_equal(spw_writeback_start(b->sp, UINT64_MAX, false), -ENODEV);
	check(b, e, TEXT, 1);

	free(b->file);
	b->file = next;
	assert_int_equal(spw__space_add_tier(b->sp, &next->tier), 0);
	assert_int_equal(start(b), 1);
	assert_int_equal(finish(b, 0), 1);
	assert_int_equal(spw_kind(b->sp, e), SPW_SLOT);
	check(b, e, TEXT, 1);
}

/* ---- fork: the child's part is played by the same process ---- */

static void a_forked_child_has_no_moves(void **state)
{
	struct bench *b = *state;
	spw_entry_t past = stored(b, TEXT, 4), e, freed, framed;

	assert_int_equal(start(b), 1);
	spw_free(b->sp, &past, 1);
	assert_int_equal(finish(b, 0), 1); /* a cancel that is over is nothing to the child */
	e = stored(b, TEXT, 1);
	freed = stored(b, TEXT, 2);
	framed = stored(b, TEXT, 3);
	assert_int_equal(start(b), 3);
	assert_int_equal(spw_cache_add(b->sp, framed, 0), 0);
	spw_free(b->sp, &freed, 1);
	assert_int_equal(spw_fork_prepare(b->sp, 1), 0);
	spw_fork_child(b->sp, 1);
	assert_int_equal(b->file->children, 1);
	assert_int_equal(b->file->live, 0);
	assert_int_equal(b->ram->live, 2); /* the orphan is gone too */
	assert_int_equal(spw_cache_del(b->sp, framed, 0, true), 0);
	check(b, e, TEXT, 1);
	check(b, framed, TEXT, 3);
	assert_int_equal(start(b), 2);
	assert_int_equal(finish(b, 0), 2);
	check(b, e, TEXT, 1);
	check(b, framed, TEXT, 3);
}

static void a_fork_that_fails_is_undone(void **state)
{
	struct bench *b = *state;

	b->file->fail_fork = -EAGAIN;
	assert_int_equal(spw_fork_prepare(b->sp, 1), -EAGAIN);
	assert_int_equal(b->ram->forks, 1);
	assert_int_equal(b->ram->fork_fails, 1);
	assert_int_equal(b->file->fork_fails, 0);
	b->file->fail_fork = 0;
	assert_int_equal(spw_fork_prepare(b->sp, 1), 0);
	spw_fork_failed(b->sp, 1);
	assert_int_equal(b->ram->fork_fails, 2);
	assert_int_equal(b->file->fork_fails, 1);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TWIN(f) cmocka_unit_test_setup_teardown(f, setup_twins, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(create_refuses_bad_sizes_and_no_memory),
		cmocka_unit_test(largest_space_costs_nothing),
		CASE(tiers_have_unique_numbers),
		CASE(tiers_are_filled_by_priority),
		CASE(taken_clusters_come_and_go),
		CASE(take_fails_cleanly_without_memory),
		CASE(allocated_entries_read_as_zeros),
		CASE(alloc_is_all_or_nothing),
		CASE(holes_are_allocated_again),
		CASE(metadata_stays_within_budget),
		CASE(same_filled_pages_take_no_storage),
		CASE(almost_same_filled_pages_are_not),
		CASE(incompressible_pages_are_kept_raw),
		CASE(a_new_store_replaces_the_old),
		CASE(a_store_that_fails_changes_nothing),
		CASE(free_entries_load_as_zeros),
		CASE(corrupt_pool_bytes_are_an_error_with_their_slot),
		CASE(free_at_the_last_holder),
		CASE(counts_go_past_a_hundred_thousand),
		CASE(dup_takes_all_or_none),
		CASE(free_range_frees_what_is_there),
		CASE(case_1_data_is_on_a_swapfile),
		CASE(case_2_data_is_compressed),
		CASE(case_3_data_is_being_written),
		CASE(case_4_data_is_back_through_another_page_table),
		TWIN(equal_pages_share_an_entry),
		TWIN(a_page_is_not_its_own_twin),
		TWIN(a_twin_may_use_the_same_tiers),
		TWIN(same_filled_pages_have_no_twins),
		TWIN(a_hint_is_looked_at_twice),
		TWIN(a_twin_on_its_way_to_the_file_is_joined),
		TWIN(the_page_of_a_frame_finds_a_twin),
		TWIN(a_hundred_thousand_pages_join),
		TWIN(few_twins_are_remembered),
		CASE(a_frame_without_backing_is_the_only_copy),
		CASE(a_clean_frame_keeps_its_backing),
		CASE(the_cache_refuses_what_would_lose_a_page),
		CASE(a_store_of_a_frame_that_has_left_is_stale),
		CASE(a_late_completion_meets_a_reused_entry),
		CASE(a_late_completion_meets_a_cluster_that_is_gone),
		CASE(other_holders_survive_a_free_during_a_move),
		CASE(a_move_completes_behind_a_frame),
		CASE(clean_backing_behind_a_frame_can_be_moved),
		CASE(a_write_that_fails_leaves_the_object_where_it_was),
		CASE(writeback_says_why_it_cannot),
		cmocka_unit_test(writeback_without_a_batch_tier),
		CASE(a_full_tier_is_passed_over),
		CASE(equal_tiers_take_turns),
		CASE(a_ghost_is_asked_for_nothing),
		CASE(writeback_fills_several_segments),
		CASE(raw_only_writeback_leaves_compressed_objects),
		CASE(what_was_read_has_a_second_chance),
		CASE(compaction_moves_objects_under_their_entries),
		CASE(cleaning_moves_what_is_still_live),
		CASE(cleaning_fills_the_end_of_a_segment),
		CASE(cleaning_moves_the_oldest_down),
		CASE(masks_only_narrow),
		CASE(stores_go_to_tiers_that_are_allowed),
		CASE(writeback_sends_each_where_it_may_go),
		CASE(a_full_tier_stops_only_those_that_need_it),
		CASE(cleaning_moves_down_only_what_may_go),
		CASE(a_drain_leaves_what_may_go_nowhere),
		CASE(a_drain_knows_several_ways),
		CASE(what_is_on_a_tier_that_is_denied_stays_good),
		CASE(a_read_of_what_changed_meanwhile_begins_again),
		CASE(an_error_of_what_changed_meanwhile_is_none),
		CASE(an_error_of_a_slot_that_was_reused_meanwhile_is_none),
		CASE(a_slot_that_was_anothers_meanwhile_gives_none_of_its_bytes),
		CASE(errors_of_a_read_come_with_the_slot),
		CASE(drain_of_a_ram_tier_writes_everything_back),
		CASE(drain_of_a_file_brings_everything_back),
		CASE(drain_moves_what_it_can),
		CASE(a_rescue_leaves_what_cannot_be_read),
		CASE(drain_goes_step_by_step),
		CASE(a_step_looks_at_few_clusters),
		CASE(a_step_waits_for_nothing),
		CASE(drain_waits_for_what_is_on_its_way_to_the_tier),
		CASE(drain_can_be_cancelled_half_way),
		CASE(a_drain_under_way_ends_when_cancelled),
		CASE(drain_has_no_errors_of_what_changed_meanwhile),
		CASE(a_drained_tier_can_be_removed),
		CASE(a_forked_child_has_no_moves),
		CASE(a_fork_that_fails_is_undone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
