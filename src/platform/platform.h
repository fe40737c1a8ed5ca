/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_PLATFORM_H
#define SPW_PLATFORM_H
/*
 * Everything that space, tier and codec need from below: memory, time, waiting. The process and library hosts
 * implement it on Linux system calls (linux.c), the kernel host will implement it on its own allocators, and tests
 * wrap it to make every call fail in turn. No function here takes a lock or calls malloc; all are callable from the
 * fault path. Errors are -errno.
 */
#include <stddef.h>
#include <stdint.h>

/*
 * Reserve bytes (a multiple of 4096) of address space. Costs no memory until committed and touched.
 * Returns NULL when there is no room. Reserved ranges are recorded, so that the host never manages them.
 */
void *spw__plat_reserve(size_t bytes);

/* Give a whole reservation back. */
void spw__plat_release(void *base, size_t bytes);

/*
 * Make [p, p + bytes) of a reservation usable: after success it reads as zeros or as what was last written there
 * since the last discard. 0 or -ENOMEM. Committing what is committed already is allowed and changes nothing.
 */
int spw__plat_commit(void *p, size_t bytes);

/*
 * Return the memory of [p, p + bytes), whole pages, to the system. The range stays reserved, to be committed again.
 * What is reserved but not committed may still be read: it reads as zeros.
 */
void spw__plat_discard(void *p, size_t bytes);

/* Monotonic time in nanoseconds. */
uint64_t spw__plat_now_ns(void);

/* One pause of a spin loop; after `spins` unsuccessful rounds it may give the CPU away. */
void spw__plat_relax(unsigned spins);

/*
 * Called, if the host set it, by every waiter that has waited for a lock suspiciously long: its holder may not get to
 * run.
 */
extern void (*spw__plat_stuck)(void);

#endif
