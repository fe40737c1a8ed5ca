/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hold MIB [beside=MIB]: a set of pages to take swap away from.
 *
 * It fills MIB of pages that compress 3:1, says "ready", and then reads one of them at random each millisecond,
 * checking it, until stdin says otherwise: "begin" forgets what was measured so far, "end" prints "reads N", "p99 US"
 * and "max US" of single reads since, then compares every byte and says "right". beside: a further mapping, of which
 * one page in 512 is read, so each page table of it exists; that is what a walk of the address space has to pass.
 */
#include "host/latency.h"
#include "pages.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define REST_NS 1000000
#define SPARSE  512u /* pages of a page table */

static char *set;
static uint64_t pages, hist[512], reads, longest;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what was measured */
static bool over;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "hold: %s\n", what);
	exit(1);
}

static char *memory(uint64_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	must(p != MAP_FAILED, "no memory");
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

static void read_one(uint64_t n)
{
	uint64_t state = n << 20, first, began = now_ns(), took;

	memcpy(&first, set + n * PAGE, sizeof(first));
	took = now_ns() - began;
	must(first == noise(&state), "a page is wrong");
	pthread_mutex_lock(&lock);
	hist[spw__lat_bucket(took)]++;
	reads++;
	longest = took > longest ? took : longest;
	pthread_mutex_unlock(&lock);
}

static void *reader(void *arg)
{
	struct timespec rest = {.tv_nsec = REST_NS};
	uint64_t state = 42;

	(void)arg;
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
		read_one(noise(&state) % pages);
		nanosleep(&rest, NULL);
	}
	return NULL;
}

static void begin(void)
{
	pthread_mutex_lock(&lock);
	memset(hist, 0, sizeof(hist));
	reads = longest = 0;
	pthread_mutex_unlock(&lock);
}

static void end(void)
{
	uint64_t seen = 0;
	unsigned i = 0;

	pthread_mutex_lock(&lock);
	for (; i < 511 && seen + hist[i] < reads - reads / 100; i++)
		seen += hist[i];
	printf("reads %llu\np99 %.1f\nmax %.1f\n", (unsigned long long)reads, (double)spw__lat_floor(i) / 1000,
	       (double)longest / 1000);
	fflush(stdout);
	pthread_mutex_unlock(&lock);
}

static void compare(void)
{
	char page[PAGE];

	for (uint64_t n = 0; n < pages; n++) {
		make_page(n, page);
		must(!memcmp(page, set + n * PAGE, PAGE), "a page is wrong");
	}
	printf("right\n");
}

int main(int argc, char **argv)
{
	uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, beside = 0, sum = 0;
	pthread_t thread;
	char line[64];

	if (argc > 2 && sscanf(argv[2], "beside=%llu", (unsigned long long *)&beside) != 1)
		mib = 0;
	must(mib, "usage: hold MIB [beside=MIB]");
	pages = (mib << 20) / PAGE;
	set = memory(pages * PAGE);
	if (beside) {
		const volatile char *other = memory(beside << 20);

		for (uint64_t at = 0; at < beside << 20; at += (uint64_t)SPARSE * PAGE)
			sum += (uint64_t)other[at];
	}
	must(!sum, "new memory is not zeros");
	for (uint64_t n = 0; n < pages; n++)
		make_page(n, set + n * PAGE);
	must(!pthread_create(&thread, NULL, reader, NULL), "no thread");
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "begin\n"))
			begin();
		else if (!strcmp(line, "end\n"))
			end();
	}
	__atomic_store_n(&over, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	compare();
	return 0;
}
