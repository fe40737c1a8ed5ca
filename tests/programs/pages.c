/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages MIB SEED [KINDS]: memory of known bytes, three times as large as its information, on command. With KINDS there
 * are that many different pages to begin with, over and over; those that are written to alike are equal again.
 *
 * One command a line on standard input, one answer each:
 *   fill   -> "filled"
 *   check  -> "right": every byte was
 *   lower, upper -> the same word: from now on fill and check are of that half
 *   change N -> "changed": every Nth page was written to
 *   churn [N] -> "churning PID CHILD": forks, and both check and change random pages until standard input ends, N at
 *             the least; each then checks everything, says "right parent" or "right child" and ends
 * A wrong byte is reported on standard error; the exit status is then 3.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE         4096u
#define RANDOM_WORDS (PAGE / 3 / 8)

static char *memory;
static uint32_t *version;
static uint32_t pages, first, end; /* first and end: those to fill and check */
static uint32_t kinds = UINT32_MAX;
static uint64_t seed;

static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint64_t word(uint32_t page, unsigned i)
{
	uint64_t key = mix(seed + page % kinds * 0x9e3779b97f4a7c15ull + version[page]);

	return i < RANDOM_WORDS ? mix(key + i * 0x9e3779b97f4a7c15ull) : 0;
}

static void write_page(uint32_t page)
{
	uint64_t *p = (uint64_t *)(memory + (size_t)page * PAGE);

	version[page]++;
	for (unsigned i = 0; i < PAGE / 8; i++)
		p[i] = word(page, i);
}

static void check_page(uint32_t page)
{
	const volatile uint64_t *p = (const volatile uint64_t *)(memory + (size_t)page * PAGE);

	for (unsigned i = 0; i < PAGE / 8; i++) {
		uint64_t got = p[i];

		if (got == word(page, i))
			continue;
		fprintf(stderr, "pages: pid %d page %u word %u: expected %016llx, got %016llx\n", (int)getpid(), page,
			i, (unsigned long long)word(page, i), (unsigned long long)got);
		exit(3);
	}
}

static void check_all(void)
{
	for (uint32_t page = first; page < end; page++)
		check_page(page);
}

static void say(const char *text)
{
	if (write(STDOUT_FILENO, text, strlen(text)) != (ssize_t)strlen(text))
		exit(1);
}

static int churn(uint64_t least)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	char line[64];
	int status = 0;
	pid_t child = fork();

	if (child > 0) {
		snprintf(line, sizeof(line), "churning %d %d\n", (int)getpid(), (int)child);
		say(line);
	}
	for (uint64_t n = seed + (child == 0); n - seed < least || !poll(&in, 1, 0); n++) {
		uint32_t page = (uint32_t)(mix(n) % pages);

		check_page(page);
		if (n % 3)
			write_page(page);
	}
	check_all();
	say(child ? "right parent\n" : "right child\n");
	/* The child may have been killed: that is no concern of ours. */
	return child && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

int main(int argc, char **argv)
{
	char line[64];
	uint32_t nth;

	if (argc < 3 || argc > 4)
		return 2;
	pages = end = (uint32_t)atoi(argv[1]) << 8;
	seed = strtoull(argv[2], NULL, 0);
	if (argc == 4 && !(kinds = (uint32_t)atoi(argv[3])))
		return 2;
	memory = mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* Locked, and no buffer on the heap: what goes out is `memory`, and nothing else. */
	version = mmap(NULL, (size_t)pages * sizeof(*version), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
	if (memory == MAP_FAILED || version == MAP_FAILED || setvbuf(stdin, NULL, _IONBF, 0))
		return 2;
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "fill\n")) {
			for (uint32_t page = first; page < end; page++)
				write_page(page);
			say("filled\n");
		} else if (!strcmp(line, "check\n")) {
			check_all();
			say("right\n");
		} else if (!strcmp(line, "lower\n") || !strcmp(line, "upper\n")) {
			first = *line == 'u' ? pages / 2 : 0;
			end = *line == 'u' ? pages : pages / 2;
			say(line);
		} else if (sscanf(line, "change %u", &nth) == 1 && nth) {
			for (uint32_t page = 0; page < pages; page += nth)
				write_page(page);
			say("changed\n");
		} else if (!strncmp(line, "churn", 5)) {
			return churn(strtoull(line + 5, NULL, 0));
		}
	}
	return 0;
}
