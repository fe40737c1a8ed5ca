/* SPDX-License-Identifier: Apache-2.0 */
/*
 * strides: memory that is used at equal steps, forth and back, under a cap that it does not fit in.
 *
 * The pages that are next come in with the one that was asked for: the kernel counts the faults. Each has its bytes.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define PAGE  4096u
#define PAGES 32768u /* 128 MiB */
#define STEP  17u
#define WALK  (PAGES / STEP)

static uint64_t faults(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (uint64_t)r.ru_minflt + (uint64_t)r.ru_majflt;
}

static int wrong(const char *what, uint64_t n)
{
	fprintf(stderr, "strides: %s: %llu\n", what, (unsigned long long)n);
	return 1;
}

static uint64_t word(uint64_t page, uint64_t times)
{
	return (page + 1) * 0x9e3779b97f4a7c15ull + times;
}

/* Some words of each page, for no page is to be same-filled. */
static void write_page(char *p, uint64_t page, uint64_t times)
{
	for (unsigned at = 0; at < PAGE; at += PAGE / 3)
		*(uint64_t *)(p + page * PAGE + at / 8 * 8) = word(page, times) + at;
}

static bool is_page(const char *p, uint64_t page, uint64_t times)
{
	for (unsigned at = 0; at < PAGE; at += PAGE / 3)
		if (*(const uint64_t *)(p + page * PAGE + at / 8 * 8) != word(page, times) + at)
			return false;
	return true;
}

/* Every STEP-th page, of which few are in after all others were read. write: each is one time older then. */
static int walk(char *p, bool back, bool write, uint64_t times)
{
	for (uint64_t i = 0; i < PAGES; i++)
		if (i % STEP && !is_page(p, i, 0))
			return wrong("not what was written, page", i);
	uint64_t before = faults();

	for (uint64_t i = 0; i < WALK; i++) {
		uint64_t page = (back ? WALK - 1 - i : i) * STEP;

		if (!is_page(p, page, times))
			return wrong("not what was written, page", page);
		if (write)
			write_page(p, page, times + 1);
	}
	uint64_t took = faults() - before;

	printf("%llu faults for %u pages\n", (unsigned long long)took, WALK);
	return took <= WALK / 2 ? 0 : wrong("as many faults as without readahead", took);
}

int main(void)
{
	char *p = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || madvise(p, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE))
		return wrong("no memory", PAGES);
	for (uint64_t i = 0; i < PAGES; i++)
		write_page(p, i, 0);
	return walk(p, false, false, 0) || walk(p, true, false, 0) || walk(p, false, true, 0) ||
	       walk(p, true, false, 1);
}
