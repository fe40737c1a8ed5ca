/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fresh: memory that is used for the first time, under a cap.
 *
 * Filled from one end to the other it comes in runs, not page by page: the kernel counts the faults. Right behind it
 * one page in sixteen is written to: these take no memory for the others, though each is where a run could go on.
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define PAGE   4096u
#define FILLED (96u << 8) /* pages */
#define STREWN (16u << 8) /* pages written to */
#define STEP   16u

static uint64_t faults(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (uint64_t)r.ru_minflt + (uint64_t)r.ru_majflt;
}

/* Of the last `pages` pages those that take memory: neither out, nor the zero page. */
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

int main(void)
{
	size_t bytes = ((size_t)FILLED + (size_t)STREWN * STEP) * PAGE;
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t before = faults();

	if (p == MAP_FAILED)
		return 2;
	for (size_t i = 0; i < FILLED; i++)
		p[i * PAGE] = 1;
	uint64_t took = faults() - before;

	for (size_t i = 0; i < STREWN; i++)
		p[((size_t)FILLED + i * STEP) * PAGE] = 2;
	unsigned there = resident(p + bytes, 1024 * STEP);

	printf("%u pages filled: %lu faults; of %u pages, one in %u written to, %u resident\n", FILLED,
	       (unsigned long)took, 1024 * STEP, STEP, there);
	for (size_t i = 0; i < FILLED; i++)
		if (p[i * PAGE] != 1)
			return 3;
	for (size_t i = 0; i < (size_t)STREWN * STEP; i++)
		if (p[((size_t)FILLED + i) * PAGE] != (i % STEP ? 0 : 2))
			return 3;
	return took < FILLED / 2 && there <= 1024 + STEP ? 0 : 1;
}
