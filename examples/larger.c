/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An array of six times the memory that it may have: filled, summed, and what that took.
 *
 *	cc larger.c $(pkg-config --cflags --libs libspillway)
 */
#include <err.h>
#include <spillway.h>
#include <stdio.h>
#include <string.h>

#define MIB ((size_t)1 << 20)
#define RAM (16 * MIB)

/* Functions return 0 or -errno. */
static void check(int r, const char *what)
{
	if (r)
		errx(1, "%s: %s", what, strerror(-r));
}

int main(void)
{
	/* A space is a cap, with a pool for compressed pages below it. The macro sets all options to their defaults. */
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	struct spw_space *space;
	o.ram = RAM;
	check(spw_space_create(&o, &space), "spw_space_create");

	/* When the pool is full its oldest pages go to a file: here one without a name in /var/tmp, encrypted. */
	struct spw_file_options f = SPW_FILE_OPTIONS;
	unsigned file;
	check(spw_space_add_file(space, &f, &file), "spw_space_add_file");

	/* Memory that is used like any other. It begins as zeros, and takes nothing until it is touched. */
	struct spw_region *region;
	check(spw_region_create(space, 6 * RAM, &region), "spw_region_create");
	uint64_t *v = spw_region_address(region);
	size_t n = spw_region_size(region) / sizeof(*v);

	/* Numbers without a pattern compress badly, so that the file gets some. */
	uint64_t x = 1, wanted = 0, sum = 0;
	for (size_t i = 0; i < n; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		v[i] = x >> 24;
		wanted += v[i];
	}
	for (size_t i = 0; i < n; i++)
		sum += v[i];

	struct spw_space_stats s;
	spw_space_stats(space, &s, sizeof(s));
	printf("%zu MiB under a cap of %zu MiB\n", n * sizeof(*v) / MIB, RAM / MIB);
	printf("used          %6.1f MiB, at most %.1f\n", (double)s.used_bytes / MIB, (double)s.peak_bytes / MIB);
	printf("  resident    %6.1f\n", (double)s.resident_bytes / MIB);
	printf("  compressed  %6.1f, %llu pages\n", (double)s.pool_bytes / MIB, (unsigned long long)s.pool_pages);
	printf("  bookkeeping %6.1f\n", (double)s.metadata_bytes / MIB);
	printf("on the file   %6.1f, %llu pages\n", (double)s.file_bytes / MIB, (unsigned long long)s.file_pages);
	printf("pages out %llu, in %llu, faults %llu\n", (unsigned long long)s.out_pages,
	       (unsigned long long)s.in_pages, (unsigned long long)s.faults);

	/* Regions first: a space that has some cannot be destroyed. */
	spw_region_destroy(region);
	check(spw_space_destroy(space), "spw_space_destroy");

	if (sum != wanted)
		errx(1, "the sum is %llu, not %llu", (unsigned long long)sum, (unsigned long long)wanted);
	/* What the first use of a file takes, some 2 MiB, is made up for a moment later. */
	if (s.peak_bytes > RAM + 3 * MIB)
		errx(1, "the cap did not hold");
	if (s.file_pages == 0)
		errx(1, "nothing went to the file");
	return 0;
}
