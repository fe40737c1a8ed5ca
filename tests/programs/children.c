/* SPDX-License-Identifier: Apache-2.0 */
/*
 * children plain | bare | dropped | namespace: forks of a process whose pages are out, as they are, or not announced by
 * libc (a bare clone(2)), or whose child may not open what the agent needs (its parent has given up root's privileges),
 * or in a pid namespace of their own. Both sides check every page afterwards. Exit status 0, 1 (said what was wrong) or
 * 77 (cannot be tested here).
 */
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE   4096u
#define PAGES  (32u << 20 >> 12)
#define ROUNDS 4u
#define NOBODY 65534u

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

static int wrong(void)
{
	for (uint32_t p = 0; p < PAGES; p++) {
		for (unsigned i = 0; i < PAGE / 8; i++) {
			if (memory[p * (PAGE / 8) + i] != word(p, i))
				return 1;
		}
	}
	return 0;
}

/* Mappings change, and another child is made, before the first has all its pages: the last quarter moves. */
static void change(void)
{
	size_t quarter = (size_t)PAGES / 4 * PAGE;
	char *last = (char *)memory + 3 * quarter;
	char *whole = mmap(NULL, 4 * quarter, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	int status = 0;

	if (!child)
		_exit(wrong());
	if (whole == MAP_FAILED || mremap(last, quarter, quarter, MREMAP_MAYMOVE | MREMAP_FIXED, whole) == MAP_FAILED ||
	    mmap(last, quarter, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != last)
		_exit(2);
	for (size_t i = 0; i < quarter; i += PAGE) {
		if (last[i])
			_exit(3);
	}
	if (mremap(whole, quarter, quarter, MREMAP_MAYMOVE | MREMAP_FIXED, last) != last)
		_exit(4);
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		_exit(5);
}

static int round_of(int bare)
{
	pid_t child = bare ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
	int status = 0;

	if (!child) {
		if (bare)
			change();
		_exit(wrong());
	}
	/* Written to while the child reads: pages move in and out on both sides. */
	fill();
	if (child < 0 || waitpid(child, &status, 0) != child || status) {
		printf("the child ended with status 0x%x\n", (unsigned)status);
		return 1;
	}
	if (wrong())
		return puts("the parent has a wrong page"), 1;
	return 0;
}

/* What follows is done by the first process of a new pid namespace. /proc still shows the old one. */
static int enter_namespace(void)
{
	int status;

	if (unshare(CLONE_NEWPID))
		return 77;
	pid_t child = fork();

	if (!child)
		return 0;
	_exit(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

int main(int argc, char **argv)
{
	const char *how = argc == 2 ? argv[1] : "";
	int bare = !strcmp(how, "bare"), failed;

	if (!bare && strcmp(how, "plain") != 0 && strcmp(how, "dropped") != 0 && strcmp(how, "namespace") != 0)
		return 1;
	if (!strcmp(how, "namespace") && (failed = enter_namespace()))
		return failed;
	memory = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	fill();
	if (!strcmp(how, "dropped") && (setgid(NOBODY) || setuid(NOBODY)))
		return 77;
	for (unsigned i = 0; i < ROUNDS; i++) {
		if (round_of(bare))
			return 1;
	}
	return 0;
}
