/* SPDX-License-Identifier: Apache-2.0 */
/*
 * touch MIB [tail=MIB] [repeat=N | sequential=OPS] [strided=OPS] [random=OPS] [zipf=OPS] [threads=N] [write=PERCENT]
 * [ratio=3|1.5|1|same] [latency] [compare]: what swapping costs a program, phase by phase.
 *
 * A benchmark of swap that writes zeros, or the same page over and over, measures a fast path that no program takes;
 * one that reads one byte does not notice a page that came back wrong. So every page here is different, compresses to a
 * third (each 512 bytes: 170 of noise, then zeros) or as `ratio` says, and is checked when it is read: two words of it
 * within the timed phases, where the check must cost next to nothing, and with "compare" every byte in a phase of its
 * own. `write` of a hundred accesses count up the last word of the page; a table of all counts knows what it is to be.
 *
 * Phases: fill (the last `tail` MiB by themselves), read in order (all `repeat` times, or OPS), read every 17th page
 * and begin again one further, read at random, read by Zipf's law, compare, unmap. Each of the threads has its own part
 * of the pages and does its share of the OPS. One line each on stdout: "name us-per-page", with "latency" followed by
 * the p50, p99 and longest time of one access in us.
 */
#include "host/latency.h"
#include "memory.h"
#include "pages.h"

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_THREADS 64u

struct worker {
	pthread_t thread;
	uint64_t first; /* page of its part */
	uint64_t random_state;
	uint64_t hist[512], longest;
};

struct phase {
	const char *name;
	void (*one)(uint64_t page);
	uint64_t ops;                                        /* of each worker */
	uint64_t (*next)(struct worker *w, uint64_t number); /* page within its part */
	bool may_write;
};

static uint64_t mib, tail_mib, repeat = 1, sequential_ops, strided_ops, random_ops, zipf_ops, threads = 1,
			       write_percent;
static bool latency, compare, same;
static unsigned noise_bytes = NOISE;

static char *set;
static uint64_t pages, part, tail; /* all, of a worker, of these the last */
static uint32_t *writes;           /* of each page */
static struct worker workers[MOST_THREADS];

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- a page ---- */

static void wrong(uint64_t n)
{
	fprintf(stderr, "touch: page %llu is wrong\n", (unsigned long long)n);
	exit(1);
}

/* Of a page that is same-filled both halves are alike: who looks at 32 bits and who looks at 64 sees it. */
static uint64_t first_word(uint64_t n)
{
	uint64_t state = n << 20, word = noise(&state);

	return same ? (word >> 32) * 0x100000001u : word;
}

static uint64_t last_word(uint64_t n)
{
	return (same ? first_word(n) : 0) + (writes ? writes[n] : 0);
}

static uint64_t *word_of(uint64_t n, unsigned at)
{
	return (uint64_t *)(set + n * PAGE) + at;
}

#define LAST (PAGE / sizeof(uint64_t) - 1)

static void make(uint64_t n, char *page)
{
	uint64_t word = first_word(n), last = last_word(n);

	if (same)
		for (unsigned i = 0; i < PAGE; i += sizeof(word))
			memcpy(page + i, &word, sizeof(word));
	else
		make_noisy_page(n, noise_bytes, page);
	memcpy(page + PAGE - sizeof(last), &last, sizeof(last));
}

static void fill(uint64_t n)
{
	make(n, set + n * PAGE);
}

static void check_words(uint64_t n)
{
	if (*word_of(n, 0) != first_word(n) || *word_of(n, LAST) != last_word(n))
		wrong(n);
}

/* In one access: one that reads first would be two faults where a page comes back read-only. */
static void count_up(uint64_t n)
{
	if (__atomic_fetch_add(word_of(n, LAST), 1, __ATOMIC_RELAXED) != last_word(n) ||
	    *word_of(n, 0) != first_word(n))
		wrong(n);
	writes[n]++;
}

static void check_all(uint64_t n)
{
	char page[PAGE];

	make(n, page);
	if (memcmp(page, set + n * PAGE, PAGE))
		wrong(n);
}

/* ---- which page is next ---- */

static uint64_t in_order(struct worker *w, uint64_t i)
{
	(void)w;
	return i % part;
}

static uint64_t in_tail(struct worker *w, uint64_t i)
{
	(void)w;
	return part - tail + i;
}

#define STRIDE 17u /* more than the 64 KiB that may come in with a page */

static uint64_t by_stride(struct worker *w, uint64_t i)
{
	uint64_t steps = part / STRIDE;

	(void)w;
	return i % steps * STRIDE + i / steps % STRIDE;
}

static uint64_t at_random(struct worker *w, uint64_t i)
{
	(void)i;
	return noise(&w->random_state) % part;
}

#define SKEW    0.99
#define SCATTER 2654435761u /* a prime: the ranks that follow each other are pages far apart */

static double zeta, eta;

/* Gray et al., "Quickly generating billion-record synthetic databases", SIGMOD 1994. */
static void zipf_init(void)
{
	for (uint64_t i = 1; i <= part; i++)
		zeta += pow(1 / (double)i, SKEW);
	eta = (1 - pow(2 / (double)part, 1 - SKEW)) / (1 - (1 + pow(0.5, SKEW)) / zeta);
}

static uint64_t by_zipf(struct worker *w, uint64_t i)
{
	double u = (double)(noise(&w->random_state) >> 11) / (1ull << 53), at = u * zeta;
	uint64_t rank = at < 1                    ? 0
			: at < 1 + pow(0.5, SKEW) ? 1
						  : (uint64_t)((double)part * pow(eta * u - eta + 1, 1 / (1 - SKEW)));

	(void)i;
	return rank * SCATTER % part;
}

/* ---- phases ---- */

static void timed(struct worker *w, void (*one)(uint64_t), uint64_t n)
{
	uint64_t began = now_ns();

	one(n);
	uint64_t took = now_ns() - began;

	w->hist[spw__lat_bucket(took)]++;
	w->longest = took > w->longest ? took : w->longest;
}

static const struct phase *under_way;

static void *work(void *worker)
{
	struct worker *w = worker;
	const struct phase *p = under_way;

	for (uint64_t i = 0; i < p->ops; i++) {
		uint64_t n = w->first + p->next(w, i);
		bool writing = p->may_write && writes && noise(&w->random_state) % 100 < write_percent;

		if (latency)
			timed(w, writing ? count_up : p->one, n);
		else
			(writing ? count_up : p->one)(n);
	}
	return NULL;
}

static double percentile(const uint64_t *hist, uint64_t all, double fraction)
{
	uint64_t seen = 0;

	for (unsigned i = 0; i < 512; i++) {
		seen += hist[i];
		if (seen >= (double)all * fraction)
			return (double)spw__lat_floor(i) / 1000;
	}
	return 0;
}

/* Of all workers, who begin anew. */
static void report_latency(uint64_t ops)
{
	uint64_t hist[512] = {0}, longest = 0;

	for (struct worker *w = workers; w < workers + threads; w++) {
		for (unsigned i = 0; i < 512; i++)
			hist[i] += w->hist[i];
		longest = w->longest > longest ? w->longest : longest;
		memset(w->hist, 0, sizeof(w->hist));
		w->longest = 0;
	}
	if (longest)
		printf(" %.2f %.2f %.2f", percentile(hist, ops, 0.5), percentile(hist, ops, 0.99),
		       (double)longest / 1000);
}

static void report(const char *name, uint64_t began, uint64_t ops)
{
	printf("%s %.4f", name, (double)(now_ns() - began) / 1000 / (double)ops);
	report_latency(ops);
	printf("\n");
	fflush(stdout);
}

/* One worker needs no thread. */
static void run(const struct phase *p)
{
	uint64_t began = now_ns();

	under_way = p;
	for (uint64_t i = 1; i < threads; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) {
			fprintf(stderr, "touch: no thread\n");
			exit(1);
		}
	work(&workers[0]);
	for (uint64_t i = 1; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	report(p->name, began, p->ops * threads);
}

static void run_all(void)
{
	const struct phase all[] = {
		{"fill", fill, part - tail, in_order, false},
		{"tail", fill, tail, in_tail, false},
		{"sequential", check_words, sequential_ops ? sequential_ops / threads : part * repeat, in_order, true},
		{"stride", check_words, strided_ops / threads, by_stride, true},
		{"random", check_words, random_ops / threads, at_random, true},
		{"zipf", check_words, zipf_ops / threads, by_zipf, true},
		{"compare", check_all, compare ? part : 0, in_order, false},
	};

	if (zipf_ops)
		zipf_init();
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (all[i].ops)
			run(&all[i]);
}

/* ---- the command line ---- */

static const struct {
	const char *name;
	uint64_t *value;
} numbers[] = {
	{"tail=", &tail_mib},     {"repeat=", &repeat}, {"sequential=", &sequential_ops}, {"strided=", &strided_ops},
	{"random=", &random_ops}, {"zipf=", &zipf_ops}, {"threads=", &threads},           {"write=", &write_percent},
};

static const struct {
	const char *name;
	unsigned noise_bytes;
} ratios[] = {{"ratio=3", NOISE}, {"ratio=1.5", 2 * NOISE}, {"ratio=1", PART}, {"ratio=same", 0}};

static bool option(const char *text)
{
	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		size_t length = strlen(numbers[i].name);
		char *end;

		if (strncmp(text, numbers[i].name, length))
			continue;
		*numbers[i].value = strtoull(text + length, &end, 10);
		return end > text + length && !*end;
	}
	for (size_t i = 0; i < sizeof(ratios) / sizeof(*ratios); i++)
		if (!strcmp(text, ratios[i].name)) {
			noise_bytes = ratios[i].noise_bytes;
			same = !noise_bytes;
			return true;
		}
	if (!strcmp(text, "latency"))
		return latency = true;
	if (!strcmp(text, "compare"))
		return compare = true;
	return memory_option(text);
}

static bool options(int argc, char **argv)
{
	mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	for (int i = 2; i < argc; i++)
		if (!option(argv[i]))
			return false;
	return threads && mib >= threads && tail_mib <= mib && threads <= MOST_THREADS && write_percent <= 100;
}

int main(int argc, char **argv)
{
	if (!options(argc, argv)) {
		fprintf(stderr,
			"usage: touch MIB [tail=MIB] [repeat=N | sequential=OPS] [strided=OPS] [random=OPS] [zipf=OPS] "
			"[threads=N] [write=PERCENT] [ratio=3|1.5|1|same] [latency] [compare]%s\n",
			memory_usage);
		return 2;
	}
	part = (mib << 20) / PAGE / threads;
	tail = (tail_mib << 20) / PAGE / threads;
	pages = part * threads;
	for (uint64_t i = 0; i < threads; i++)
		workers[i] = (struct worker){.first = i * part, .random_state = 42 + i};
	if (write_percent && !(writes = calloc(pages, sizeof(*writes)))) {
		perror("touch");
		return 1;
	}
	set = memory_take(pages * PAGE);
	run_all();
	memory_report();
	uint64_t began = now_ns();

	memory_give_back();
	report("unmap", began, pages);
	return 0;
}
