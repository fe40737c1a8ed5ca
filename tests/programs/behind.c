/* SPDX-License-Identifier: Apache-2.0 */
/*
 * behind pipe | threads: what the kernel reads and writes without a fault, while everything else goes out.
 *
 * pipe: pages given without a copy (vmsplice) and not touched since arrive as they were.
 * threads: the block in which libc keeps a thread, where the kernel writes when it has exited, stays in.
 * Exit status 0, 1 (said what was wrong) or 77 (cannot be tested here).
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE    4096u
#define PAGES   (64u << 20 >> 12)
#define FIRST   100u /* of the pages given */
#define GIVEN   16u  /* what a pipe holds */
#define THREADS 8u
#define PRESENT (1ull << 63)

static uint64_t *memory;

static uint64_t word(uint32_t page, unsigned i)
{
	uint64_t z = ((uint64_t)page << 32 | i) * 0x9e3779b97f4a7c15ull;

	/* Two thirds of a page compress. */
	return i % 3 ? page : z ^ z >> 29;
}

static void fill(void)
{
	for (uint32_t p = 0; p < PAGES; p++) {
		for (unsigned i = 0; i < PAGE / 8; i++)
			memory[p * (PAGE / 8) + i] = word(p, i);
	}
}

static int is(const uint64_t *page, uint32_t p)
{
	for (unsigned i = 0; i < PAGE / 8; i++) {
		if (page[i] != word(p, i))
			return 0;
	}
	return 1;
}

/* Pages come in one by one, in no order, and others go out for them: but for those that were given, all do. */
static int read_others(void)
{
	uint64_t state = 1;

	for (uint32_t n = 0; n < 2 * PAGES; n++) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		uint32_t p = (uint32_t)(state >> 33) % PAGES;

		if (p >= FIRST && p < FIRST + GIVEN)
			continue;
		if (!is(memory + p * (PAGE / 8), p))
			return printf("page %u of memory is wrong\n", p), 1;
	}
	return 0;
}

static int by_pipe(void)
{
	struct iovec given = {memory + FIRST * (PAGE / 8), (size_t)GIVEN * PAGE};
	uint64_t page[PAGE / 8];
	int ends[2];

	if (pipe(ends))
		return 77;
	ssize_t left = vmsplice(ends[1], &given, 1, 0);

	if (left <= 0)
		return 77;
	if (read_others())
		return 1;
	for (uint32_t p = FIRST; left > 0; p++, left -= (ssize_t)PAGE) {
		for (size_t have = 0; have < PAGE;) {
			ssize_t n = read(ends[0], (char *)page + have, PAGE - have);

			if (n <= 0)
				return puts("nothing arrives"), 1;
			have += (size_t)n;
		}
		if (!is(page, p))
			return printf("page %u arrives as another\n", p), 1;
	}
	return 0;
}

static void *wait_for_end(void *end)
{
	char c;

	return read(*(int *)end, &c, 1) == 1 ? end : NULL;
}

static int stays(int pagemap, const void *p)
{
	uint64_t entry = 0;

	return pread(pagemap, &entry, sizeof(entry), (off_t)((uintptr_t)p / PAGE * sizeof(entry))) == sizeof(entry) &&
	       entry & PRESENT;
}

static int by_threads(void)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY), ends[2];
	unsigned out = 0, stacks_out = 0;
	pthread_t thread[THREADS];

	if (pagemap < 0 || pipe(ends))
		return 77;
	for (unsigned i = 0; i < THREADS; i++) {
		if (pthread_create(&thread[i], NULL, wait_for_end, ends))
			return 77;
	}
	if (read_others())
		return 1;
	for (unsigned i = 0; i < THREADS; i++) {
		const char *block = (const char *)(uintptr_t)thread[i];

		out += !stays(pagemap, block);
		stacks_out += !stays(pagemap, block - (size_t)2 * PAGE);
	}
	if (write(ends[1], "12345678", THREADS) != (ssize_t)THREADS)
		return 1;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	if (out || !stacks_out)
		return printf("of %u threads, %u blocks and %u stacks were out\n", THREADS, out, stacks_out), 1;
	return 0;
}

int main(int argc, char **argv)
{
	const char *how = argc == 2 ? argv[1] : "";

	memory = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	fill();
	/* Those that are given are in at that moment. */
	for (uint32_t p = FIRST; p < FIRST + GIVEN; p++) {
		if (!is(memory + p * (PAGE / 8), p))
			return 1;
	}
	if (!strcmp(how, "pipe"))
		return by_pipe();
	return strcmp(how, "threads") ? 2 : by_threads();
}
