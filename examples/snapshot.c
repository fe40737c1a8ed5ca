/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot of a table that goes on changing. The table is of accounts, and a thread moves money between them all the
 * time: the sum of all stays the same, in every consistent copy. Nothing is copied when a clone is made; only pages that
 * are written to afterwards are there twice.
 *
 *	cc snapshot.c $(pkg-config --cflags --libs libspillway) -pthread
 */
#include <err.h>
#include <pthread.h>
#include <spillway.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MIB      ((size_t)1 << 20)
#define RAM      (16 * MIB)
#define ACCOUNTS (32 * MIB / sizeof(int64_t))
#define BEGINS   1000 /* in each account */

static int64_t *table;

/* Locks do not belong in a region: a system call that waits for one cannot read memory that is out. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static unsigned long transfers; /* under the lock, like the table */
static bool stop;

static void check(int r, const char *what)
{
	if (r)
		errx(1, "%s: %s", what, strerror(-r));
}

static void *writer(void *unused)
{
	uint64_t x = 1;
	bool stopped = false;

	while (!stopped) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		size_t from = (x >> 32) % ACCOUNTS, to = (x >> 16) % ACCOUNTS;
		int64_t amount = x >> 56;

		pthread_mutex_lock(&lock);
		table[from] -= amount;
		table[to] += amount;
		transfers++;
		stopped = stop;
		pthread_cond_signal(&moved);
		pthread_mutex_unlock(&lock);
	}
	return unused;
}

/* Wait until the writer has done so many more. */
static void let_it_write(unsigned long more)
{
	pthread_mutex_lock(&lock);
	for (unsigned long until = transfers + more; transfers < until;)
		pthread_cond_wait(&moved, &lock);
	pthread_mutex_unlock(&lock);
}

static int64_t sum(const int64_t *v)
{
	int64_t s = 0;
	for (size_t i = 0; i < ACCOUNTS; i++)
		s += v[i];
	return s;
}

/* Depends on what is in which account. */
static uint64_t checksum(const int64_t *v)
{
	uint64_t h = 0;
	for (size_t i = 0; i < ACCOUNTS; i++)
		h = (h ^ (uint64_t)v[i]) * 1099511628211u;
	return h;
}

int main(void)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	struct spw_file_options f = SPW_FILE_OPTIONS;
	struct spw_space *space;
	struct spw_region *region;
	unsigned file;
	o.ram = RAM;
	check(spw_space_create(&o, &space), "spw_space_create");
	check(spw_space_add_file(space, &f, &file), "spw_space_add_file");
	check(spw_region_create(space, ACCOUNTS * sizeof(*table), &region), "spw_region_create");

	table = spw_region_address(region);
	for (size_t i = 0; i < ACCOUNTS; i++)
		table[i] = BEGINS;

	pthread_t thread;
	check(-pthread_create(&thread, NULL, writer, NULL), "pthread_create");

	uint64_t before = 0;
	for (int i = 1; i <= 3; i++) {
		let_it_write(5000);

		/* A clone is of one moment if nobody writes during the call. */
		struct spw_region *snapshot;
		pthread_mutex_lock(&lock);
		unsigned long at = transfers;
		int r = spw_region_clone(region, &snapshot);
		pthread_mutex_unlock(&lock);
		check(r, "spw_region_clone");

		/* From here on the writer writes again, and the snapshot stays as it is. */
		const int64_t *v = spw_region_address(snapshot);
		uint64_t is = checksum(v);
		let_it_write(1000);
		struct spw_region_stats s;
		spw_region_stats(snapshot, &s, sizeof(s));
		printf("after %lu transfers: checksum %016llx, %.1f of %.1f MiB still shared with the table\n", at,
		       (unsigned long long)is, (double)s.shared_bytes / MIB, (double)s.bytes / MIB);

		if (sum(v) != (int64_t)ACCOUNTS * BEGINS)
			errx(1, "the snapshot is not consistent");
		if (checksum(v) != is)
			errx(1, "the snapshot has changed");
		if (is == before)
			errx(1, "the snapshot is the one before");
		before = is;
		spw_region_destroy(snapshot);
	}

	pthread_mutex_lock(&lock);
	stop = true;
	pthread_mutex_unlock(&lock);
	pthread_join(thread, NULL);
	if (sum(table) != (int64_t)ACCOUNTS * BEGINS)
		errx(1, "money was lost");

	spw_region_destroy(region);
	check(spw_space_destroy(space), "spw_space_destroy");
	return 0;
}
