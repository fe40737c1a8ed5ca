/* SPDX-License-Identifier: Apache-2.0 */
/* Clones: the same stored pages behind several regions, until one of them writes. */
#include "case.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM  (4 * MIB)
#define MANY 2048u /* pages: twice the cap */

/* Neither side sees what the other writes, whatever was in or out. */
static void two_sides(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base, *copy;
	struct spw_region *r = new_region(s, MANY, &base), *c;

	write_pages(base, 0, MANY, TEXT, 1);
	c = new_clone(r, &copy);
	check_pages(copy, 0, MANY, TEXT, 1);
	check_pages(base, 0, MANY, TEXT, 1);
	for (uint64_t i = 0; i < MANY; i += 2)
		write_pages(copy, i, 1, SAME, 10000);
	for (uint64_t i = 0; i < MANY; i += 3)
		write_pages(base, i, 1, SAME, 20000);
	for (uint64_t i = 0; i < MANY; i++) {
		check_pages(copy, i, 1, i % 2 ? TEXT : SAME, i % 2 ? 1 : 10000);
		check_pages(base, i, 1, i % 3 ? TEXT : SAME, i % 3 ? 1 : 20000);
	}
	spw_region_destroy(r);
	for (uint64_t i = 0; i < MANY; i++)
		check_pages(copy, i, 1, i % 2 ? TEXT : SAME, i % 2 ? 1 : 10000);
	spw_region_destroy(c);
	end_space(s);
}

/* Taking a clone of what is out moves nothing, and it takes no room. */
static void nothing_is_copied(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_space_stats before, after;
	char *base, *copy[10];
	struct spw_region *r = new_region(s, MANY, &base), *c[10];

	write_pages(base, 0, MANY, TEXT, 1);
	take_out(r);
	before = stats_of(s);
	for (unsigned i = 0; i < 10; i++)
		c[i] = new_clone(i % 2 ? c[i - 1] : r, &copy[i]);
	after = stats_of(s);
	CHECK(after.in_pages == before.in_pages && after.stored_pages == before.stored_pages &&
	      after.pool_pages == before.pool_pages && after.resident_bytes == before.resident_bytes);
	CHECK(after.used_bytes <= RAM && after.pool_bytes == before.pool_bytes, "used %llu, pool %llu, was %llu",
	      (unsigned long long)after.used_bytes, (unsigned long long)after.pool_bytes,
	      (unsigned long long)before.pool_bytes);
	for (unsigned i = 0; i < 10; i++)
		CHECK(region_stats(c[i]).shared_bytes == MANY * PAGE && region_stats(c[i]).out_bytes == MANY * PAGE,
		      "%llu", (unsigned long long)region_stats(c[i]).shared_bytes);
	CHECK(region_stats(r).shared_bytes == MANY * PAGE);
	spw_region_destroy(r);
	for (unsigned i = 0; i < 10; i++)
		check_pages(copy[i], 0, MANY, TEXT, 1);
	for (unsigned i = 0; i < 10; i++)
		spw_region_destroy(c[i]);
	end_space(s);
}

/* What one side has read is there for the others: it is not decompressed again, nor stored. */
static void read_once(void)
{
	enum { N = 256 };
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_space_stats before, after;
	char *base, *copy, *third;
	struct spw_region *r = new_region(s, N, &base), *c, *d;

	write_pages(base, 0, N, TEXT, 1);
	take_out(r);
	c = new_clone(r, &copy);
	d = new_clone(c, &third);
	before = stats_of(s);
	check_pages(base, 0, N, TEXT, 1);
	after = stats_of(s);
	CHECK(after.in_pages - before.in_pages == N, "%llu", (unsigned long long)(after.in_pages - before.in_pages));
	check_pages(copy, 0, N, TEXT, 1);
	check_pages(third, 0, N, TEXT, 1);
	take_out(c);
	take_out(r);
	take_out(d);
	after = stats_of(s);
	CHECK(after.stored_pages == before.stored_pages, "%llu were stored again",
	      (unsigned long long)(after.stored_pages - before.stored_pages));
	CHECK(after.pool_pages == before.pool_pages);
	/* A write is one side's own. */
	write_pages(copy, 0, 1, TEXT, 5);
	take_out(c);
	CHECK(stats_of(s).stored_pages == before.stored_pages + 1 && stats_of(s).pool_pages == before.pool_pages + 1);
	check_pages(base, 0, N, TEXT, 1);
	check_pages(third, 0, N, TEXT, 1);
	check_pages(copy, 0, 1, TEXT, 5);
	check_pages(copy, 1, N - 1, TEXT, 1);
	spw_region_destroy(r);
	spw_region_destroy(c);
	spw_region_destroy(d);
	end_space(s);
}

/* Pages that are in and were written: the clone has them as they were. */
static void clone_of_written(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base, *copy;
	struct spw_region *r = new_region(s, 300, &base), *c;

	write_pages(base, 0, 100, TEXT, 1);
	write_pages(base, 100, 100, NOISE, 1);
	c = new_clone(r, &copy);
	write_pages(base, 0, 300, SAME, 9);
	check_pages(copy, 0, 100, TEXT, 1);
	check_pages(copy, 100, 100, NOISE, 1);
	check_pages(copy, 200, 100, TEXT, 0);
	write_pages(copy, 0, 300, TEXT, 5);
	check_pages(base, 0, 300, SAME, 9);
	spw_region_destroy(c);
	check_pages(base, 0, 300, SAME, 9);
	spw_region_destroy(r);
	end_space(s);
}

static void clones_and_pins(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	int fd = memfd_create("zeros", MFD_CLOEXEC);
	char *base, *copy;
	struct spw_region *r = new_region(s, 64, &base), *c;

	CHECK(fd >= 0 && !ftruncate(fd, 16 * PAGE));
	write_pages(base, 0, 64, TEXT, 1);
	CHECK(!spw_region_pin(r, 0, 16 * PAGE));
	c = new_clone(r, &copy);
	CHECK(region_stats(r).pinned_bytes == 16 * PAGE && !region_stats(c).pinned_bytes);
	/* A system call asks nobody before it writes. */
	CHECK(pread(fd, base, 16 * PAGE, 0) == 16 * PAGE, "errno %d", errno);
	check_pages(base, 0, 16, TEXT, 0);
	check_pages(copy, 0, 64, TEXT, 1);
	write_pages(base, 0, 64, TEXT, 100);
	check_pages(copy, 0, 64, TEXT, 1);
	CHECK(!spw_region_pin(c, 8 * PAGE, 16 * PAGE));
	write_pages(copy, 0, 64, TEXT, 200);
	check_pages(base, 0, 64, TEXT, 100);
	CHECK(!spw_region_unpin(r, 0, 16 * PAGE) && !spw_region_unpin(c, 8 * PAGE, 16 * PAGE));
	take_out(r);
	take_out(c);
	check_pages(base, 0, 64, TEXT, 100);
	check_pages(copy, 0, 64, TEXT, 200);
	spw_region_destroy(r);
	check_pages(copy, 0, 64, TEXT, 200);
	spw_region_destroy(c);
	end_space(s);
}

static void clones_are_resized(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base, *copy;
	struct spw_region *r = new_region(s, MANY, &base), *c;

	write_pages(base, 0, MANY, TEXT, 1);
	take_out(r);
	c = new_clone(r, &copy);
	CHECK(!spw_region_resize(c, 100 * PAGE));
	check_pages(base, 0, MANY, TEXT, 1);
	CHECK(!spw_region_resize(r, 50 * PAGE));
	check_pages(spw_region_address(c), 0, 100, TEXT, 1);
	CHECK(!spw_region_resize(c, MANY * PAGE));
	check_pages(spw_region_address(c), 0, 100, TEXT, 1);
	check_pages(spw_region_address(c), 100, MANY - 100, TEXT, 0);
	CHECK(!spw_region_resize(r, MANY * PAGE));
	check_pages(spw_region_address(r), 0, 50, TEXT, 1);
	check_pages(spw_region_address(r), 50, MANY - 50, TEXT, 0);
	spw_region_destroy(c);
	spw_region_destroy(r);
	end_space(s);
}

/* A space of 16 MiB whose pool has room for 1 and is full, and no file: what has to be stored makes the cap give way. */
static struct spw_space *full_pool(struct spw_region **filler)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	struct spw_space *s;
	char *base;

	o.ram = 4 * RAM;
	o.zswap = MIB;
	CHECK(!spw_space_create(&o, &s));
	*filler = new_region(s, 512, &base);
	write_pages(base, 0, 512, NOISE, 1);
	CHECK(!spw_region_advise(*filler, 0, 512 * PAGE, SPW_COLD));
	CHECK(stats_of(s).pool_bytes >= MIB / 2 && region_stats(*filler).resident_bytes);
	return s;
}

static void write_beside_a_full_pool(void)
{
	struct spw_region *filler, *r, *c;
	struct spw_space *s = full_pool(&filler);
	char *base, *copy;

	r = new_region(s, 256, &base);
	write_pages(base, 0, 256, NOISE, 1000);
	c = new_clone(r, &copy);
	write_pages(base, 0, 256, NOISE, 2000);
	check_pages(copy, 0, 256, NOISE, 1000);
	check_pages(base, 0, 256, NOISE, 2000);
	spw_region_destroy(r);
	spw_region_destroy(c);
	spw_region_destroy(filler);
	end_space(s);
}

static void pins_beside_a_full_pool(void)
{
	struct spw_region *filler, *r, *c;
	struct spw_space *s = full_pool(&filler);
	char *base;
	int rc;

	r = new_region(s, 256, &base);
	write_pages(base, 0, 256, NOISE, 1000);
	CHECK(!spw_region_pin(r, 0, 256 * PAGE));
	rc = spw_region_clone(r, &c);
	CHECK(rc == -ENOMEM || !rc, "%d", rc);
	if (!rc)
		spw_region_destroy(c);
	check_pages(base, 0, 256, NOISE, 1000);
	CHECK(!spw_region_unpin(r, 0, 256 * PAGE));
	spw_region_destroy(r);
	spw_region_destroy(filler);
	end_space(s);
}

/* ---- more holders of one page than a count of it has bits for ---- */

static void shuffle(uint32_t *order, uint32_t n, uint64_t *rng)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = (uint32_t)(next_random(rng) % (i + 1));

		order[i] = order[j];
		order[j] = i;
	}
}

static void held_by(uint32_t n, uint64_t ram)
{
	struct spw_region **r = calloc(n, sizeof(struct spw_region *));
	uint32_t *order = malloc(n * sizeof(*order));
	char **base = malloc(n * sizeof(char *));
	struct spw_space *s = new_space(ram, SPW_FAULT_SIGNAL);
	uint64_t rng = n;

	CHECK(r && order && base);
	r[0] = new_region(s, 1, &base[0]);
	write_pages(base[0], 0, 1, TEXT, 1);
	take_out(r[0]);
	for (uint32_t i = 1; i < n; i++)
		r[i] = new_clone(r[next_random(&rng) % i], &base[i]);
	CHECK(stats_of(s).pool_pages == 1, "%llu", (unsigned long long)stats_of(s).pool_pages);
	for (uint32_t i = 0; i < n; i++)
		check_pages(base[i], 0, 1, TEXT, 1);
	shuffle(order, n, &rng);
	/* Every third writes before it goes, into a page that all the others still hold. */
	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = order[i], next = order[(i + 1) % n];

		if (at % 3 == 0) {
			*(volatile uint64_t *)base[at] = at;
			CHECK(*(volatile uint64_t *)base[at] == at);
		}
		spw_region_destroy(r[at]);
		if (i + 1 < n)
			check_pages(base[next], 0, 1, TEXT, 1);
	}
	end_space(s);
	free(r);
	free(order);
	free(base);
}

static void held_by_a_hundred(void)
{
	held_by(100, RAM);
}

static void held_by_a_hundred_thousand(void)
{
	held_by(100100, 256 * MIB);
}

const struct spw_test_case share_cases[] = {
	{"neither side of a clone sees the other's writes", two_sides},
	{"a clone copies nothing", nothing_is_copied},
	{"a page that clones share is read once", read_once},
	{"a clone of pages that were written", clone_of_written},
	{"clones and pins", clones_and_pins},
	{"clones are resized", clones_are_resized},
	{"a shared page is written beside a full pool", write_beside_a_full_pool},
	{"a clone of pinned pages beside a full pool", pins_beside_a_full_pool},
	{"a page held a hundred times", held_by_a_hundred},
	{"a page held a hundred thousand times", held_by_a_hundred_thousand},
	{NULL, NULL},
};
