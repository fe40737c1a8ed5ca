/* SPDX-License-Identifier: Apache-2.0 */
/*
 * churn FILE MIB PERCENT SECONDS SEED: a file tier kept nearly full, while what is on it comes, goes and moves.
 *
 * A log that is full of live objects with a little dead space everywhere is the case that breaks it: what is freed is
 * room only once it has been gathered. So space, pool and file tier are driven here as the reclaimer drives them, on a
 * real file. Pages are stored into free entries until what is live on the file is PERCENT of its capacity, runs of
 * neighbours or single ones are freed while it is more, and some are moved: read, freed, and stored in another entry at
 * once. Live bytes are those of the objects with their seals and owners. Each page that is read is compared.
 *
 * Each second "at SECONDS TAKEN LIVE", bytes of the file; then one line "name figure" for each sum. A store is refused
 * when no room comes in GIVE_UP_NS: "refused SECONDS LIVE" says what was live then.
 */
#include "pages.h"
#include "space/space.h"
#include "tier/file.h"
#include "tier/zswap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define POOL_BYTES      (8ull << 20)
#define WRITEBACK_BYTES (1u << 20)
#define OVERHEAD        (16u + 6u) /* of an object on the file: its seal and its owner */
#define NOISE_MIN       256u       /* bytes of a page that do not compress */
#define NOISE_MAX       2816u
#define RUN_SHORT       8u
#define RUN_LONG        256u
#define POLL_NS         1000000u
#define SECOND          1000000000ull
#define GIVE_UP_NS      (10 * SECOND)

static struct spw__space *sp;
static struct spw_work *work, *upkeep;
static struct spw_tier *file;
static struct spw_file_shared *shared;
static uint32_t *version; /* of each entry's page; 0: FREE */
static uint32_t entries, versions;
static uint64_t random_state, began, capacity;
static struct {
	uint64_t stored, freed, moved, compared, refused;
} sum;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "churn: %s\n", what);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

static double seconds(void)
{
	return (double)(now() - began) / SECOND;
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)((noise(&random_state) >> 32) * n >> 32);
}

static void *memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED, "no memory");
	return p;
}

/* Live on the file, seals and owners included. */
static uint64_t live_bytes(void)
{
	struct spw_tier_stats st;

	file->ops->stats(file, &st);
	return st.stored_bytes + st.pages * OVERHEAD;
}

static void contents(uint32_t v, char *page)
{
	uint64_t state = (uint64_t)v << 20, word;
	uint32_t n = NOISE_MIN + (uint32_t)(noise(&state) % (NOISE_MAX - NOISE_MIN)) / 8 * 8;

	for (uint32_t i = 0; i < n; i += sizeof(word)) {
		word = noise(&state);
		memcpy(page + i, &word, sizeof(word));
	}
	memset(page + n, 0, PAGE - n);
}

static void compare(uint32_t e)
{
	char want[PAGE], page[PAGE];
	spw_slot_t where;

	must(!spw_load(sp, work, (spw_entry_t){e}, page, &where), "a page cannot be read");
	contents(version[e], want);
	must(!memcmp(page, want, PAGE), "a page is wrong");
	sum.compared++;
}

static void drop(uint32_t e)
{
	spw_free(sp, &(spw_entry_t){e}, 1);
	version[e] = 0;
	sum.freed++;
}

/* Room in the pool, as the reclaimer makes it. */
static void make_room(void)
{
	if (spw_writeback_start(sp, WRITEBACK_BYTES, false) == -ENOSPC)
		spw_clean(sp, upkeep);
	spw_writeback_poll(sp, POLL_NS);
}

/* False: refused. */
static bool store(uint32_t e, uint32_t v)
{
	uint64_t until = now() + GIVE_UP_NS;
	char page[PAGE];
	int rc;

	contents(v, page);
	while ((rc = spw_store(sp, work, (spw_entry_t){e}, page, SPW_NO_FRAME)) == -ENOSPC && now() < until)
		make_room();
	must(!rc || rc == -ENOSPC, "store");
	if (rc) {
		sum.refused++;
		printf("refused %.1f %llu\n", seconds(), (unsigned long long)live_bytes());
		return false;
	}
	version[e] = v;
	sum.stored++;
	return true;
}

static uint32_t run_length(void)
{
	return 1 + below(below(4) ? RUN_SHORT : RUN_LONG);
}

static uint32_t next_free(uint32_t e)
{
	while (version[e])
		e = (e + 1) % entries;
	return e;
}

/* One entry of a run. False: a store was refused. */
static bool one(uint32_t e, bool full)
{
	uint32_t v = version[e];

	if (full && v && below(4) == 0)
		compare(e);
	if (full && v)
		drop(e);
	if (full || (v && below(4)))
		return true;
	if (v) {
		compare(e);
		drop(e);
		e = next_free(below(entries));
		sum.moved++;
	}
	return store(e, v ? v : ++versions);
}

static void report(void)
{
	uint64_t taken, all;

	spw__file_shared_use(shared, &taken, &all);
	printf("at %.1f %llu %llu\n", seconds(), (unsigned long long)taken, (unsigned long long)live_bytes());
	fflush(stdout);
}

static void fill(uint64_t target)
{
	for (uint32_t e = 0; live_bytes() < target; e++) {
		must(e < entries, "too few entries");
		if (!store(e, ++versions))
			return;
	}
}

static void churn(uint64_t target, double length)
{
	double next = 1;

	began = now();
	while (seconds() < length) {
		uint32_t first = below(entries), n = run_length();
		bool full = live_bytes() >= target;

		for (uint32_t e = first; e < first + n && e < entries; e++)
			if (!one(e, full))
				break;
		if (seconds() >= next) {
			report();
			next += 1;
		}
	}
}

static void open_all(const char *path, uint64_t bytes)
{
	struct spw__space_config cfg = {.max_clusters = 1u << 17, .max_frames = 1};
	struct spw_file_layout layout = {.max_bytes = bytes, .encrypt = true, .key = "churn"};
	int fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	struct spw_file_io io;
	struct spw_tier *ram;
	uint64_t taken;
	uint32_t c;

	must(fd >= 0, path);
	must(!spw__codec_parse("lz4", &cfg.codec) && !spw__space_create(&cfg, &sp), "space");
	must(!spw__zswap_create(0, "zswap", POOL_BYTES, 1ull << 30, &ram) && !spw__space_add_tier(sp, ram), "zswap");
	shared = memory(spw__file_shared_size(bytes));
	must(!spw__file_shared_init(shared, &layout) && !spw__file_io_open(fd, &io), "file");
	must(!spw__file_create(1, "file", shared, 0, &io, &file) && !spw__space_add_tier(sp, file), "file");
	must(!spw_work_init(sp, memory(spw_work_size(sp)), &work), "work area");
	must(!spw_work_init(sp, memory(spw_work_size(sp)), &upkeep), "work area");
	spw__file_shared_use(shared, &taken, &capacity);
	/* Half of them are in use at the most. */
	entries = (uint32_t)(bytes / ((NOISE_MIN + NOISE_MAX) / 2) * 2) / SPW_CLUSTER * SPW_CLUSTER;
	version = memory(entries * sizeof(*version));
	for (uint32_t i = 0; i < entries / SPW_CLUSTER; i++)
		must(!spw_cluster_take(sp, &c) && c == i, "clusters");
}

static void close_all(void)
{
	struct spw_tier_stats st;

	while (spw_writeback_under_way(sp))
		spw_writeback_poll(sp, POLL_NS);
	for (uint32_t e = 0; e < entries; e++) {
		if (!version[e])
			continue;
		compare(e);
		drop(e);
	}
	file->ops->stats(file, &st);
	must(!st.pages && !st.errors, "the file is not empty at the end, or had errors");
}

int main(int argc, char **argv)
{
	struct spw__space_stats st;
	uint64_t target;

	must(argc == 6, "usage: churn FILE MIB PERCENT SECONDS SEED");
	random_state = strtoull(argv[5], NULL, 10);
	open_all(argv[1], strtoull(argv[2], NULL, 10) << 20);
	target = capacity / 100 * strtoull(argv[3], NULL, 10);
	began = now();
	fill(target);
	printf("fill %.1f\n", seconds());
	report();
	memset(&sum, 0, sizeof(sum));
	churn(target, strtod(argv[4], NULL));
	spw_stats(sp, &st);
	printf("capacity %llu\nstored %llu\nfreed %llu\nmoved %llu\nrefusals %llu\nwritten %llu\ncleaned %llu\n",
	       (unsigned long long)capacity, (unsigned long long)sum.stored, (unsigned long long)sum.freed,
	       (unsigned long long)sum.moved, (unsigned long long)sum.refused, (unsigned long long)st.writebacks,
	       (unsigned long long)st.relocations);
	close_all();
	printf("compared %llu\n", (unsigned long long)sum.compared);
	return 0;
}
