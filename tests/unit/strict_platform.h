/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_TESTS_STRICT_PLATFORM_H
#define SPW_TESTS_STRICT_PLATFORM_H
/*
 * A platform that takes platform.h at its word: what is not committed can be read and not written, so a write to
 * memory that was never committed, or was discarded, ends the test. Any commit can be made to fail. Defines the whole
 * of platform.h; include it in the test's main file only.
 */
#include "platform/platform.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

static unsigned strict_commits;           /* so far */
static unsigned strict_fail_commit = ~0u; /* this one and all after it fail */
static bool strict_fail_reserve;

void *spw__plat_reserve(size_t bytes)
{
	void *p;

	if (strict_fail_reserve)
		return NULL;
	p = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

void spw__plat_release(void *base, size_t bytes)
{
	munmap(base, bytes);
}

int spw__plat_commit(void *p, size_t bytes)
{
	assert((uintptr_t)p % 4096 == 0 && bytes % 4096 == 0);
	if (strict_commits++ >= strict_fail_commit)
		return -ENOMEM;
	return mprotect(p, bytes, PROT_READ | PROT_WRITE) ? -ENOMEM : 0;
}

void spw__plat_discard(void *p, size_t bytes)
{
	assert((uintptr_t)p % 4096 == 0 && bytes % 4096 == 0);
	assert(!madvise(p, bytes, MADV_DONTNEED));
	assert(!mprotect(p, bytes, PROT_READ));
}

uint64_t spw__plat_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void spw__plat_relax(unsigned spins)
{
	(void)spins;
	sched_yield();
}

/* Commits fail from now on / again succeed. */
static inline void strict_refuse(bool refuse)
{
	strict_fail_commit = refuse ? 0 : ~0u;
}

#endif
