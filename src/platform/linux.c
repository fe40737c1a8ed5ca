/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The platform on Linux: memory, time and waiting for code that runs inside another program's page faults.
 *
 * libc's mmap and madvise may be interposed by the program and write errno, which these threads do not have, so memory
 * comes by raw system calls. The host looks for memory to manage by reading the process's map, where Spillway's own
 * memory looks like any other; so every reservation is recorded in a fixed table that is read without a lock. A
 * range enters the table before anybody can put something into it, and leaves it only after it is unmapped: at
 * worst a range is taken for Spillway's own for a moment too long, never the reverse.
 */
#include "platform/linux.h"
#include "platform/sys.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE               4096u
#define SPINS_BEFORE_YIELD 100u
#define SPINS_BEFORE_STUCK 4000u /* most of them yields: some milliseconds */
#define CLAIMED            1u    /* base of a table row that is being filled */

static struct spw__plat_range ranges[SPW_PLAT_RANGES];

static struct spw__plat_range *claim_row(void)
{
	for (unsigned i = 0; i < SPW_PLAT_RANGES; i++) {
		uintptr_t unused = 0;

		if (__atomic_compare_exchange_n(&ranges[i].base, &unused, CLAIMED, false, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return &ranges[i];
	}
	return NULL;
}

static bool read_row(unsigned i, struct spw__plat_range *out)
{
	out->base = __atomic_load_n(&ranges[i].base, __ATOMIC_ACQUIRE);
	out->bytes = __atomic_load_n(&ranges[i].bytes, __ATOMIC_RELAXED);
	return out->base > CLAIMED;
}

void *spw__plat_reserve(size_t bytes)
{
	struct spw__plat_range *row = claim_row();
	long p;

	if (!row)
		return NULL;
	p = spw__sys6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		      0);
	if (p < 0 && p > -(long)PAGE) {
		__atomic_store_n(&row->base, 0, __ATOMIC_RELEASE);
		return NULL;
	}
	__atomic_store_n(&row->bytes, bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&row->base, (uintptr_t)p, __ATOMIC_RELEASE);
	/* Hints: a kernel without them is no worse off. A huge page would be resident where one small page is asked. */
	spw__sys3(SYS_madvise, p, bytes, MADV_DONTDUMP);
	spw__sys3(SYS_madvise, p, bytes, MADV_NOHUGEPAGE);
	return (void *)p;
}

void spw__plat_release(void *base, size_t bytes)
{
	spw__sys2(SYS_munmap, base, bytes);
	for (unsigned i = 0; i < SPW_PLAT_RANGES; i++) {
		struct spw__plat_range r;

		if (read_row(i, &r) && r.base == (uintptr_t)base && r.bytes == bytes) {
			__atomic_store_n(&ranges[i].base, 0, __ATOMIC_RELEASE);
			return;
		}
	}
}

/* The kernel backs a private anonymous page when it is touched; all there is to refuse is what was never reserved. */
int spw__plat_commit(void *p, size_t bytes)
{
	if (!bytes)
		return 0;
	return spw__plat_owns(p) && spw__plat_owns((char *)p + bytes - 1) ? 0 : -ENOMEM;
}

void spw__plat_discard(void *p, size_t bytes)
{
	spw__sys3(SYS_madvise, p, bytes, MADV_DONTNEED);
}

uint64_t spw__plat_now_ns(void)
{
	struct timespec ts;

	/* libc's, for the vDSO: a tenth of the cost of entering the kernel; errno is written on failure only. */
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void (*spw__plat_stuck)(void);

void spw__plat_relax(unsigned spins)
{
	if (spins < SPINS_BEFORE_YIELD) {
		__builtin_ia32_pause();
		return;
	}
	if (spins % SPINS_BEFORE_STUCK == 0 && spw__plat_stuck)
		spw__plat_stuck();
	spw__sys0(SYS_sched_yield);
}

bool spw__plat_owns(const void *p)
{
	struct spw__plat_range r;

	for (unsigned i = 0; i < SPW_PLAT_RANGES; i++)
		if (read_row(i, &r) && (uintptr_t)p - r.base < r.bytes)
			return true;
	return false;
}

unsigned spw__plat_ranges(struct spw__plat_range out[SPW_PLAT_RANGES])
{
	unsigned n = 0;

	for (unsigned i = 0; i < SPW_PLAT_RANGES; i++)
		n += read_row(i, &out[n]);
	return n;
}
