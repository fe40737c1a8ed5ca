/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer PART [ARG]...: what the layer between page tables and tiers costs, operation by operation.
 *
 * In a program's fault the layer is lost among system calls and wake-ups. So its functions are called here by
 * themselves, on the real tiers and codec, and the same calls are made of bench/direct.c, where no layer is: this file
 * is linked with either. Where a disk would be, memory is.
 *
 *	lookup LIVE OF ENTRIES            spw_kind(): hot, 1 for each of ENTRIES; cold, 1 for 16 of them
 *	pages KIND LIVE OF THREADS PAGES  store, load at random, free one by one; in and out of clusters
 *	range KIND LIVE OF PAGES ORDER    free of all of them by one call; stored in order, or scattered
 *	drain PLACES PAGES                from RAM to a file, and back; see places[]
 *	memory LIVE OF                    what the descriptors take
 *	munmap PAGES                      the kernel's: what it has swapped out, unmapped
 *
 * LIVE of every OF neighbouring entries are out. KIND is third (compresses 3:1), same or noise. A line is a name, and
 * either "TIME CPU WALL", nanoseconds per operation, or one figure. CPU time is that of the thread alone.
 */
#include "pages.h"
#include "space/space.h"
#include "tier/file.h"
#include "tier/zswap.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS    2u
#define CONTENTS       256u /* pages that are stored in turn: they stay in the cache, as a page just evicted does */
#define HOT            8u
#define MEMORY_ENTRIES (1u << 22)
#define FILE_BYTES     (64ull << 20)

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "layer: %s\n", what);
	exit(1);
}

/* ---- time ---- */

struct span {
	uint64_t cpu, wall; /* at the beginning; then how long */
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static struct span begin(void)
{
	return (struct span){.wall = clock_ns(CLOCK_MONOTONIC), .cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID)};
}

static struct span since(struct span s)
{
	s.cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID) - s.cpu;
	s.wall = clock_ns(CLOCK_MONOTONIC) - s.wall;
	return s;
}

static void report(const char *name, struct span took, double ops)
{
	printf("%s %.3f %.3f\n", name, (double)took.cpu / ops, (double)took.wall / ops);
}

/* ---- what is measured ---- */

static struct spw__space *sp;
static struct spw_tier *ram;
static struct spw_work *work[MAX_THREADS];
static char (*content)[PAGE];
static unsigned live = 1, of = 1; /* LIVE of every OF entries are out */

static void *memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED, "no memory");
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

static void add_ram(unsigned number)
{
	must(!spw__zswap_create(number, "zswap", UINT64_MAX, 8ull << 30, &ram), "zswap");
	must(!spw__space_add_tier(sp, ram), "zswap");
}

static void make_contents(const char *kind)
{
	content = memory((size_t)CONTENTS * PAGE);
	for (unsigned i = 0; i < CONTENTS; i++) {
		uint64_t state = i + 1, *word = (uint64_t *)content[i];

		if (!strcmp(kind, "third"))
			make_page(i + 1, content[i]);
		else if (!strcmp(kind, "noise"))
			for (unsigned n = 0; n < PAGE / sizeof(*word); n++)
				word[n] = noise(&state);
		else
			memset(content[i], (int)i, PAGE);
	}
}

static void make_space(const char *kind)
{
	struct spw__space_config cfg = {.max_clusters = 1u << 17, .max_frames = 1};

	must(!spw__codec_parse("lz4", &cfg.codec), "codec");
	must(!spw__space_create(&cfg, &sp), "space");
	add_ram(0);
	for (unsigned i = 0; i < MAX_THREADS; i++)
		must(!spw_work_init(sp, memory(spw_work_size(sp)), &work[i]), "work area");
	make_contents(kind);
}

/* The k-th entry that is out, or (miss) that is not. */
static uint32_t nth(uint32_t k, bool miss)
{
	unsigned n = miss ? of - live : live;

	return k / n * of + (miss ? live : 0) + k % n;
}

static spw_entry_t entry(uint64_t n)
{
	return (spw_entry_t){nth((uint32_t)n, false)};
}

/* Of n entries that are out. */
static uint32_t clusters_of(uint64_t n)
{
	return (uint32_t)(((n + live - 1) / live * of + SPW_CLUSTER - 1) / SPW_CLUSTER);
}

static void take_clusters(uint32_t n)
{
	uint32_t c;

	for (uint32_t i = 0; i < n; i++)
		must(!spw_cluster_take(sp, &c) && c == i, "take");
}

static void give_clusters(uint32_t n)
{
	while (n)
		must(!spw_cluster_give(sp, --n), "give");
}

static void store(unsigned t, uint64_t n)
{
	must(!spw_store(sp, work[t], entry(n), content[n % CONTENTS], SPW_NO_FRAME), "store");
}

static void load(unsigned t, uint64_t n)
{
	static char page[MAX_THREADS][PAGE];
	const char *want = content[n % CONTENTS];
	spw_slot_t where;

	must(!spw_load(sp, work[t], entry(n), page[t], &where), "load");
	must(!memcmp(page[t], want, 8) && !memcmp(page[t] + PAGE - 8, want + PAGE - 8, 8), "a page is wrong");
}

static void free_one(unsigned t, uint64_t n)
{
	spw_entry_t e = entry(n);

	(void)t;
	spw_free(sp, &e, 1);
}

/* A number for each of 0..pages-1, far from its neighbours'. The prime divides no size that is used here. */
static uint64_t scattered(uint64_t n, uint64_t pages)
{
	return n * 2654435761u % pages;
}

/* ---- lookup ---- */

static uint32_t look(uint32_t i)
{
	return spw_kind(sp, (spw_entry_t){i});
}

static const uint64_t *plain;
static uint32_t entries;

/* The same memory access with nothing around it: what the machine takes. */
static __attribute__((noinline)) uint32_t look_plain(uint32_t i)
{
	return (uint32_t)plain[i] >> 31;
}

/* Each address waits for the last answer, or several lookups would be under way at once. */
static void cold(const char *name, uint32_t (*one)(uint32_t), uint32_t among, bool miss, uint32_t kind)
{
	uint64_t state = 42;
	uint32_t answer = kind, n = entries / 16;
	struct span s = begin();

	for (uint32_t i = 0; i < n; i++)
		answer = one(nth((uint32_t)((noise(&state) >> 32) * among >> 32), miss) + (answer ^ kind));
	report(name, since(s), n);
	must(answer == kind, "lookup");
}

static void hot(const char *name, uint32_t (*one)(uint32_t), bool miss, uint32_t kind)
{
	uint32_t index[HOT], answer = kind;
	struct span s;

	for (uint32_t i = 0; i < HOT; i++)
		index[i] = nth(i, miss);
	s = begin();
	for (uint32_t i = 0; i < entries; i++)
		answer = one(index[i % HOT] + (answer ^ kind));
	report(name, since(s), entries);
	must(answer == kind, "lookup");
}

static void part_lookup(void)
{
	uint32_t hits = entries / of * live, misses = entries / of * (of - live);
	uint64_t *words = memory(entries * sizeof(*words));

	make_space("same");
	take_clusters(entries / SPW_CLUSTER);
	for (uint32_t n = 0; n < hits; n++) {
		store(0, n);
		words[entry(n).idx] = 1;
	}
	plain = words;
	hot("hot-plain", look_plain, false, 0);
	hot("hot-hit", look, false, SPW_SAME);
	cold("cold-plain", look_plain, hits, false, 0);
	cold("cold-hit", look, hits, false, SPW_SAME);
	if (misses) {
		hot("hot-miss", look, true, SPW_FREE);
		cold("cold-miss", look, misses, true, SPW_FREE);
	}
}

/* ---- store, load, free ---- */

static struct {
	void (*one)(unsigned t, uint64_t n);
	uint64_t pages;
	unsigned threads;
	bool scatter;
	pthread_barrier_t start;
} job;

struct worker {
	pthread_t thread;
	unsigned t;
	struct span took;
};

static void *run(void *arg)
{
	struct worker *w = arg;
	uint64_t n = job.pages * w->t / job.threads, end = job.pages * (w->t + 1) / job.threads, first = n;

	pthread_barrier_wait(&job.start);
	w->took = begin();
	for (; n < end; n++)
		job.one(w->t, job.scatter ? first + scattered(n - first, end - first) : n);
	w->took = since(w->took);
	return NULL;
}

/* All pages, shared out among the threads. Wall time is the longest of them. */
static void each(const char *name, void (*one)(unsigned, uint64_t), bool scatter)
{
	struct worker w[MAX_THREADS];
	struct span all = {0};

	job.one = one;
	job.scatter = scatter;
	pthread_barrier_init(&job.start, NULL, job.threads);
	for (unsigned t = 0; t < job.threads; t++) {
		w[t].t = t;
		must(!pthread_create(&w[t].thread, NULL, run, &w[t]), "thread");
	}
	for (unsigned t = 0; t < job.threads; t++) {
		pthread_join(w[t].thread, NULL);
		all.cpu += w[t].took.cpu;
		all.wall = w[t].took.wall > all.wall ? w[t].took.wall : all.wall;
	}
	report(name, all, (double)job.pages);
}

static void part_pages(const char *kind, unsigned threads, uint64_t pages)
{
	uint32_t clusters = clusters_of(pages);
	struct span s;

	job.threads = threads;
	job.pages = pages;
	make_space(kind);
	s = begin();
	take_clusters(clusters);
	report("take", since(s), clusters);
	each("store", store, false);
	each("load", load, true);
	each("free", free_one, false);
	s = begin();
	give_clusters(clusters);
	report("give", since(s), clusters);
}

static void part_range(const char *kind, uint64_t pages, bool scatter)
{
	uint32_t clusters = clusters_of(pages);
	struct span s, freed;

	make_space(kind);
	take_clusters(clusters);
	for (uint64_t n = 0; n < pages; n++)
		store(0, scatter ? scattered(n, pages) : n);
	s = begin();
	spw_free_range(sp, (spw_entry_t){0}, clusters * SPW_CLUSTER);
	freed = since(s);
	give_clusters(clusters);
	report("free", freed, (double)pages);
	report("free-and-give", since(s), (double)pages);
}

/* ---- drain ---- */

static char *disk;
static uint64_t written[64]; /* tokens, and the results that go with them */
static int64_t result[64];
static unsigned writes, reaped;

static int64_t disk_read(void *ctx, void *buf, size_t len, uint64_t off)
{
	(void)ctx;
	memcpy(buf, disk + off, len);
	return (int64_t)len;
}

static int disk_write(void *ctx, const void *buf, size_t len, uint64_t off, uint64_t token)
{
	(void)ctx;
	memcpy(disk + off, buf, len);
	written[writes % 64] = token;
	result[writes++ % 64] = (int64_t)len;
	return 0;
}

static int disk_reap(void *ctx, uint64_t wait_ns, uint64_t *token, int64_t *res)
{
	(void)ctx;
	(void)wait_ns;
	if (reaped == writes)
		return 0;
	*token = written[reaped % 64];
	*res = result[reaped++ % 64];
	return 1;
}

static void disk_close(void *ctx)
{
	(void)ctx;
}

static struct spw_tier *add_file(unsigned number)
{
	struct spw_file_layout layout = {.max_bytes = FILE_BYTES, .encrypt = true, .key = "layer"};
	struct spw_file_io io = {
		.ctx = NULL, .read = disk_read, .write = disk_write, .reap = disk_reap, .close = disk_close};
	struct spw_file_shared *sh = memory(spw__file_shared_size(FILE_BYTES));
	struct spw_tier *file;

	disk = memory(FILE_BYTES);
	memset(disk, 1, FILE_BYTES);
	must(!spw__file_shared_init(sh, &layout), "file");
	must(!spw__file_create(number, "file", sh, 0, &io, &file), "file");
	must(!spw__space_add_tier(sp, file), "file");
	return file;
}

static uint64_t pages_on(struct spw_tier *t)
{
	struct spw_tier_stats st;

	t->ops->stats(t, &st);
	return st.pages;
}

/* Where the pages of the file tier are among all that is out, and what the other entries of 16 times as many are. */
static const struct {
	const char *name;
	unsigned stride; /* one page of the file in so many entries */
	unsigned times;  /* clusters, over those that the pages of the file take */
	bool others;     /* all other entries are out too, same-filled */
} places[] = {
	{"alone", 1, 1, false},   {"nothing-beside", 1, 16, false}, {"others-beside", 1, 16, true},
	{"thinly", 16, 1, false}, {"among-others", 16, 1, true},
};

static void part_drain(const char *name, uint64_t pages)
{
	struct spw_tier *file;
	uint32_t clusters;
	unsigned p = 0;
	struct span s;

	while (p < sizeof(places) / sizeof(*places) && strcmp(places[p].name, name))
		p++;
	must(p < sizeof(places) / sizeof(*places), "no such places");
	make_space("third");
	file = add_file(1);
	of = places[p].stride;
	clusters = clusters_of(pages) * places[p].times;
	take_clusters(clusters);
	for (uint64_t n = 0; n < pages; n++)
		store(0, n);
	s = begin();
	must(!spw_drain(sp, work[0], ram) && pages_on(file) == pages, "drain to the file");
	report("to-file", since(s), pages);
	add_ram(2);
	make_contents("same");
	for (uint32_t i = 0; i < clusters * SPW_CLUSTER && places[p].others; i++)
		if (spw_kind(sp, (spw_entry_t){i}) == SPW_FREE)
			must(!spw_store(sp, work[0], (spw_entry_t){i}, content[i % CONTENTS], SPW_NO_FRAME), "store");
	s = begin();
	must(!spw_drain(sp, work[0], file) && !pages_on(file) && pages_on(ram) == pages, "drain");
	report("from-file", since(s), pages);
}

/* ---- memory ---- */

/* A line "NAME: N kB" of a file of /proc, in bytes. */
static uint64_t kilobytes(const char *path, const char *name)
{
	FILE *f = fopen(path, "r");
	unsigned long long kb = 0;
	char line[256];

	must(f, path);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			sscanf(line + strlen(name), ": %llu", &kb);
	fclose(f);
	return kb * 1024;
}

static void footprint(const char *when)
{
	struct spw__space_stats st;

	spw_stats(sp, &st);
	printf("%s-counted %llu\n", when, (unsigned long long)st.metadata_bytes);
	/* Of what is resident, what is no file's: the text of libraries comes in as it likes. */
	printf("%s-resident %llu\n", when, (unsigned long long)kilobytes("/proc/self/smaps_rollup", "Anonymous"));
	printf("%s-tables %llu\n", when, (unsigned long long)kilobytes("/proc/self/status", "VmPTE"));
}

static void part_memory(void)
{
	uint32_t pages = MEMORY_ENTRIES / of * live, clusters = clusters_of(pages);

	make_space("same");
	/* What is touched for the first time in libc and in the work area is no descriptor. */
	take_clusters(1);
	store(0, 0);
	free_one(0, 0);
	give_clusters(1);
	kilobytes("/proc/self/status", "VmPTE");
	footprint("nothing");
	take_clusters(clusters);
	for (uint32_t n = 0; n < pages; n++)
		store(0, n);
	footprint("out");
	for (uint32_t n = 0; n < pages; n++)
		free_one(0, n);
	give_clusters(clusters);
	footprint("freed");
	printf("pages %u\n", pages);
}

/* ---- the kernel ---- */

static void part_munmap(uint64_t pages)
{
	char *set = memory(pages * PAGE);
	uint64_t swapped;
	struct span s;

	make_contents("third");
	for (uint64_t n = 0; n < pages; n++)
		memcpy(set + n * PAGE, content[n % CONTENTS], PAGE);
	must(!madvise(set, pages * PAGE, MADV_PAGEOUT), "MADV_PAGEOUT");
	swapped = kilobytes("/proc/self/status", "VmSwap");
	must(swapped >= pages * PAGE / 100 * 98, "the kernel has not swapped the set out");
	s = begin();
	munmap(set, pages * PAGE);
	report("munmap", since(s), (double)pages);
	printf("swapped %llu\n", (unsigned long long)swapped);
}

int main(int argc, char **argv)
{
	const char *part = argc > 1 ? argv[1] : "";
	bool spread = !strcmp(part, "pages") || !strcmp(part, "range");
	unsigned at = spread ? 3 : 2;

	if (spread || !strcmp(part, "lookup") || !strcmp(part, "memory")) {
		must(argc > (int)at + 1, "which entries are out?");
		live = (unsigned)atoi(argv[at]);
		of = (unsigned)atoi(argv[at + 1]);
		must(live && live <= of, "LIVE of OF entries: 1 of 2");
	}
	if (!strcmp(part, "pages") && argc == 7)
		part_pages(argv[2], (unsigned)atoi(argv[5]), (uint64_t)atoi(argv[6]));
	else if (!strcmp(part, "range") && argc == 7)
		part_range(argv[2], (uint64_t)atoi(argv[5]), !strcmp(argv[6], "scattered"));
	else if (!strcmp(part, "lookup") && argc == 5 && (entries = (uint32_t)atoi(argv[4])) >= SPW_CLUSTER)
		part_lookup();
	else if (!strcmp(part, "memory"))
		part_memory();
	else if (!strcmp(part, "drain") && argc == 4)
		part_drain(argv[2], (uint64_t)atoi(argv[3]));
	else if (!strcmp(part, "munmap") && argc == 3)
		part_munmap((uint64_t)atoi(argv[2]));
	else
		must(false, "usage: at the head of bench/layer.c");
	return 0;
}
