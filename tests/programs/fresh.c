/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fresh: memory that is used for the first time, under a cap.
 *
 * Filled from one end to the other it comes in runs, not page by page: the kernel counts the faults. What lies behind,
 * and is written to here and there only, takes no memory for what lies between, wherever a run may end. And a guard in
 * the way of a run stays one.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

#define PAGE   4096u
#define FILLED 65536u     /* pages, more than fits */
#define DENSE  64u        /* pages filled before others are written to here and there: */
#define STREWN 1024u      /* so many, which fit */
#define RUN    (32u * 15) /* pages that may be there for nothing: what is not used is not known at once */

static char *map(size_t pages)
{
	void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p != MAP_FAILED)
		madvise(p, pages * PAGE, MADV_NOHUGEPAGE);
	return p;
}

static uint64_t faults(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (uint64_t)r.ru_minflt + (uint64_t)r.ru_majflt;
}

/* Of the last `pages` before `end` those that take memory: neither out, nor the zero page. */
static unsigned resident(const char *end, unsigned pages)
{
	uint64_t pm;
	unsigned found = 0;
	FILE *f = fopen("/proc/self/pagemap", "r");

	for (unsigned i = 1; f && i <= pages; i++) {
		if (!fseek(f, (long)(((uintptr_t)end / PAGE - i) * sizeof(pm)), SEEK_SET) &&
		    fread(&pm, sizeof(pm), 1, f) == 1)
			found += pm >> 63 && pm >> 56 & 1;
	}
	if (f)
		fclose(f);
	return found;
}

static int wrong(const char *what)
{
	fprintf(stderr, "fresh: %s\n", what);
	return 1;
}

static void write_to(char *p, size_t pages, unsigned step)
{
	for (size_t i = 0; i < pages; i += step)
		p[i * PAGE] = 1;
}

static int fill(void)
{
	char *p = map(FILLED);
	uint64_t before = faults();

	if (p == MAP_FAILED)
		return wrong("no memory");
	write_to(p, FILLED, 1);
	uint64_t took = faults() - before;

	printf("%u pages filled: %lu faults\n", FILLED, (unsigned long)took);
	munmap(p, (size_t)FILLED * PAGE);
	return took < FILLED / 2 ? 0 : wrong("a fault for each page that is filled");
}

/* Every step-th page behind memory that is filled; again and again, beginning elsewhere in the last run. */
static int strew(unsigned step, unsigned times)
{
	size_t all = FILLED;
	unsigned most = 0, least = UINT32_MAX;

	for (unsigned i = 0; i < times; i++)
		all += DENSE + i + STREWN * step;
	char *p = map(all), *at = p + (size_t)FILLED * PAGE;

	if (p == MAP_FAILED)
		return wrong("no memory");
	write_to(p, FILLED, 1);
	for (unsigned i = 0; i < times; i++) {
		write_to(at, DENSE + i, 1);
		at += (size_t)(DENSE + i) * PAGE;
		write_to(at, (size_t)STREWN * step, step);
		at += (size_t)STREWN * step * PAGE;
		unsigned there = resident(at, STREWN * step);

		most = there > most ? there : most;
		least = there < least ? there : least;
	}
	printf("%u written to with a step of %u: %u to %u resident\n", STREWN, step, least, most);
	munmap(p, all * PAGE);
	return least >= STREWN / 2 && most <= STREWN + 2 * RUN ? 0 : wrong("memory for what was never written to");
}

/* Whether there is memory that can be read at p. */
static int readable(const char *p)
{
	int fd[2], got = -1;

	if (pipe(fd) == 0) {
		got = write(fd[1], p, 1) == 1 ? 1 : errno == EFAULT ? 0 : -1;
		close(fd[0]);
		close(fd[1]);
	}
	return got;
}

/* Guards in memory that is filled, one for each place that a run may have reached. */
static int fill_to_guards(void)
{
	const size_t last = DENSE + 31;
	char *p = map(FILLED + 32 * (last + 1)), *at = p + (size_t)FILLED * PAGE;

	if (p == MAP_FAILED)
		return wrong("no memory");
	write_to(p, FILLED, 1);
	for (size_t far = DENSE; far <= last; far++) {
		char *guard = at + far * PAGE;

		if (madvise(guard, PAGE, MADV_GUARD_INSTALL)) {
			puts("no guards: this kernel does not have them");
			return 0;
		}
		write_to(at, far, 1);
		if (readable(guard) != 0 || readable(guard - PAGE) != 1)
			return wrong("the guard is gone");
		at = guard + PAGE;
	}
	return 0;
}

int main(void)
{
	return fill() || strew(16, 1) || strew(5, 15) || fill_to_guards();
}
