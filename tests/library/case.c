/* SPDX-License-Identifier: Apache-2.0 */
/* library [WORD]...: runs the cases whose names have one of the words in them, or all; TAP. */
#include "case.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED      77
#define MOST_SECONDS 300 /* that a case may hang */

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

void failed(const char *file, int line, const char *what, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "# %s:%d: %s", file, line, what);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	_exit(1);
}

void skip(const char *why)
{
	printf("# %s\n", why);
	fflush(stdout);
	_exit(SKIPPED);
}

uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t word(enum kind kind, uint64_t v, unsigned k)
{
	uint64_t x = v ^ (uint64_t)(k + 1) << 48;

	if (!v)
		return 0;
	if (kind == SAME)
		return (v & UINT32_MAX) * 0x100000001u;
	return kind == NOISE || k % 8 == 0 ? next_random(&x) : v;
}

void write_page(void *page, enum kind kind, uint64_t v)
{
	uint64_t *w = page;

	for (unsigned k = 0; k < WORDS; k++)
		w[k] = word(kind, v, k);
}

bool is_page(const void *page, enum kind kind, uint64_t v)
{
	const uint64_t *w = page;

	for (unsigned k = 0; k < WORDS; k++)
		if (w[k] != word(kind, v, k))
			return false;
	return true;
}

void write_pages(char *base, uint64_t first, uint64_t n, enum kind kind, uint64_t v)
{
	for (uint64_t i = first; i < first + n; i++)
		write_page(base + i * PAGE, kind, v ? v + i : 0);
}

void check_pages(const char *base, uint64_t first, uint64_t n, enum kind kind, uint64_t v)
{
	for (uint64_t i = first; i < first + n; i++)
		CHECK(is_page(base + i * PAGE, kind, v ? v + i : 0), "page %llu of %p", (unsigned long long)i,
		      (const void *)base);
}

struct spw_space *new_space(uint64_t ram, enum spw_fault_mode mode)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	struct spw_space *s;
	int rc;

	o.ram = ram;
	o.fault = mode;
	rc = spw_space_create(&o, &s);
	CHECK(!rc, "%d", rc);
	return s;
}

void end_space(struct spw_space *s)
{
	struct spw_space_stats st = stats_of(s);
	int rc;

	CHECK(!st.resident_bytes && !st.pinned_bytes && !st.pool_pages && !st.same_pages && !st.file_pages,
	      "resident %llu, pinned %llu, pool %llu, same %llu, file %llu", (unsigned long long)st.resident_bytes,
	      (unsigned long long)st.pinned_bytes, (unsigned long long)st.pool_pages, (unsigned long long)st.same_pages,
	      (unsigned long long)st.file_pages);
	rc = spw_space_destroy(s);
	CHECK(!rc, "%d", rc);
}

struct spw_region *new_region(struct spw_space *s, uint64_t pages, char **base)
{
	struct spw_region *r;
	int rc = spw_region_create(s, pages * PAGE, &r);

	CHECK(!rc, "%d", rc);
	CHECK(spw_region_size(r) == pages * PAGE);
	*base = spw_region_address(r);
	return r;
}

struct spw_region *new_clone(struct spw_region *r, char **base)
{
	struct spw_region *c;
	int rc = spw_region_clone(r, &c);

	CHECK(!rc, "%d", rc);
	CHECK(spw_region_size(c) == spw_region_size(r));
	*base = spw_region_address(c);
	return c;
}

void take_out(struct spw_region *r)
{
	int rc = spw_region_advise(r, 0, spw_region_size(r), SPW_COLD);
	struct spw_region_stats st = region_stats(r);

	CHECK(!rc, "%d", rc);
	CHECK(st.resident_bytes == st.pinned_bytes, "resident %llu, pinned %llu", (unsigned long long)st.resident_bytes,
	      (unsigned long long)st.pinned_bytes);
}

struct spw_space_stats stats_of(struct spw_space *s)
{
	struct spw_space_stats st;

	spw_space_stats(s, &st, sizeof(st));
	return st;
}

struct spw_region_stats region_stats(struct spw_region *r)
{
	struct spw_region_stats st;

	spw_region_stats(r, &st, sizeof(st));
	return st;
}

int status_of(void (*run)(void *), void *arg)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0, "fork: errno %d", errno);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run(arg);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid, "waitpid: errno %d", errno);
	return status;
}

void run_thread(void *(*run)(void *), void *arg, size_t stack)
{
	size_t bytes = (stack + PAGE - 1) / PAGE * PAGE;
	char *mem = mmap(NULL, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attr;
	pthread_t id;

	CHECK(mem != MAP_FAILED && !mprotect(mem, PAGE, PROT_NONE), "memory");
	pthread_attr_init(&attr);
	CHECK(!pthread_attr_setstack(&attr, mem + PAGE, bytes), "stack of %zu", bytes);
	CHECK(!pthread_create(&id, &attr, run, arg), "thread");
	pthread_join(id, NULL);
	munmap(mem, bytes + PAGE);
}

size_t least_signal_stack(void)
{
	size_t n = getauxval(AT_MINSIGSTKSZ);

	return n ? n : 2048;
}

void become_ordinary(void)
{
	if (geteuid())
		return;
	CHECK(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534), "errno %d",
	      errno);
}

static bool wanted(const char *name, int n, char **words)
{
	for (int i = 0; i < n; i++)
		if (strstr(name, words[i]))
			return true;
	return !n;
}

static void run_case(void *arg)
{
	const struct spw_test_case *c = arg;

	alarm(MOST_SECONDS);
	c->run();
	fflush(stdout);
}

static bool report(unsigned number, const struct spw_test_case *c)
{
	int status = status_of(run_case, (void *)c);
	bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED;

	if (WIFSIGNALED(status))
		printf("# died of signal %d\n", WTERMSIG(status));
	printf("%s %u - %s%s\n", status && !skipped ? "not ok" : "ok", number, c->name, skipped ? " # SKIP" : "");
	fflush(stdout);
	return !status || skipped;
}

int main(int argc, char **argv)
{
	static const struct spw_test_case *const all[] = {signal_cases, memory_cases, file_cases, share_cases,
							  error_cases};
	unsigned n = 0, bad = 0;

	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++)
		for (const struct spw_test_case *c = all[i]; c->name; c++)
			if (wanted(c->name, argc - 1, argv + 1))
				bad += !report(++n, c);
	printf("1..%u\n", n);
	return bad || !n;
}
