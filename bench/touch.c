/* SPDX-License-Identifier: Apache-2.0 */
/*
 * touch MIB [random=OPS] [zipf=OPS] [repeat=N] [latency] [compare]: what swapping costs a program, phase by phase.
 *
 * A benchmark of swap that writes zeros, or the same page over and over, measures a fast path that no program takes;
 * one that reads one byte does not notice a page that came back wrong. So every page here is different, compresses to a
 * third (each 512 bytes: 170 of noise, then zeros) and is checked when it is read: two words of it within the timed
 * phases, where the check must cost next to nothing, and with "compare" every byte in a phase of its own.
 *
 * Phases: fill, read in order (`repeat` times), read at random, read by Zipf's law, compare, unmap. One line each on
 * stdout: "name us-per-page", with "latency" followed by the p50, p99 and longest time of one access in us.
 */
#include "host/latency.h"
#include "pages.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static char *set;
static uint64_t pages, hist[512], longest;
static bool latency, compare;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void wrong(uint64_t n)
{
	fprintf(stderr, "touch: page %llu is wrong\n", (unsigned long long)n);
	exit(1);
}

/* The first word of the page and the zeros at its end. */
static void check_words(uint64_t n)
{
	uint64_t state = n << 20, first, last;

	memcpy(&first, set + n * PAGE, sizeof(first));
	memcpy(&last, set + (n + 1) * PAGE - sizeof(last), sizeof(last));
	if (first != noise(&state) || last)
		wrong(n);
}

static void check_all(uint64_t n)
{
	char page[PAGE];

	make_page(n, page);
	if (memcmp(page, set + n * PAGE, PAGE))
		wrong(n);
}

static void fill(uint64_t n)
{
	make_page(n, set + n * PAGE);
}

static void timed(void (*one)(uint64_t), uint64_t n)
{
	uint64_t began = now_ns();

	one(n);
	uint64_t took = now_ns() - began;

	hist[spw__lat_bucket(took)]++;
	longest = took > longest ? took : longest;
}

static double percentile(uint64_t all, double part)
{
	uint64_t seen = 0;

	for (unsigned i = 0; i < 512; i++) {
		seen += hist[i];
		if (seen >= (double)all * part)
			return (double)spw__lat_floor(i) / 1000;
	}
	return 0;
}

static void report(const char *name, uint64_t began, uint64_t ops)
{
	printf("%s %.4f", name, (double)(now_ns() - began) / 1000 / (double)ops);
	if (latency && longest)
		printf(" %.2f %.2f %.2f", percentile(ops, 0.5), percentile(ops, 0.99), (double)longest / 1000);
	printf("\n");
	fflush(stdout);
	memset(hist, 0, sizeof(hist));
	longest = 0;
}

static uint64_t in_order(uint64_t i)
{
	return i % pages;
}

static uint64_t random_state = 42;

static uint64_t at_random(uint64_t i)
{
	(void)i;
	return noise(&random_state) % pages;
}

#define SKEW    0.99
#define SCATTER 2654435761u /* a prime: the ranks that follow each other are pages far apart */

static double zeta, eta;

/* Gray et al., "Quickly generating billion-record synthetic databases", SIGMOD 1994. */
static void zipf_init(void)
{
	for (uint64_t i = 1; i <= pages; i++)
		zeta += pow(1 / (double)i, SKEW);
	eta = (1 - pow(2 / (double)pages, 1 - SKEW)) / (1 - (1 + pow(0.5, SKEW)) / zeta);
}

static uint64_t by_zipf(uint64_t i)
{
	double u = (double)(noise(&random_state) >> 11) / (1ull << 53), at = u * zeta;
	uint64_t rank = at < 1                    ? 0
			: at < 1 + pow(0.5, SKEW) ? 1
						  : (uint64_t)((double)pages * pow(eta * u - eta + 1, 1 / (1 - SKEW)));

	(void)i;
	return rank * SCATTER % pages;
}

static void phase(const char *name, void (*one)(uint64_t), uint64_t ops, uint64_t (*next)(uint64_t))
{
	uint64_t began = now_ns();

	for (uint64_t i = 0; i < ops; i++) {
		uint64_t n = next(i);

		if (latency)
			timed(one, n);
		else
			one(n);
	}
	report(name, began, ops);
}

int main(int argc, char **argv)
{
	uint64_t ops = 0, zipf = 0, repeat = 1, mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;

	for (int i = 2; i < argc; i++) {
		if (!strncmp(argv[i], "random=", 7))
			ops = strtoull(argv[i] + 7, NULL, 10);
		else if (!strncmp(argv[i], "zipf=", 5))
			zipf = strtoull(argv[i] + 5, NULL, 10);
		else if (!strncmp(argv[i], "repeat=", 7))
			repeat = strtoull(argv[i] + 7, NULL, 10);
		else if (!strcmp(argv[i], "latency"))
			latency = true;
		else if (!strcmp(argv[i], "compare"))
			compare = true;
		else
			mib = 0;
	}
	if (!mib) {
		fprintf(stderr, "usage: touch MIB [random=OPS] [zipf=OPS] [repeat=N] [latency] [compare]\n");
		return 2;
	}
	pages = mib << 20 >> 12;
	set = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (set == MAP_FAILED) {
		perror("touch: mmap");
		return 1;
	}
	madvise(set, pages * PAGE, MADV_NOHUGEPAGE); /* the same faults under every rival */
	phase("fill", fill, pages, in_order);
	if (repeat)
		phase("sequential", check_words, pages * repeat, in_order);
	if (ops)
		phase("random", check_words, ops, at_random);
	if (zipf) {
		zipf_init();
		phase("zipf", check_words, zipf, by_zipf);
	}
	if (compare)
		phase("compare", check_all, pages, in_order);
	uint64_t began = now_ns();

	munmap(set, pages * PAGE);
	report("unmap", began, pages);
	return 0;
}
