/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_HOST_UFFD_H
#define SPW_HOST_UFFD_H
/*
 * userfaultfd as the hosts use it: thin, errno-free wrappers. Lengths and addresses are bytes, multiples of a page.
 * Every function returns 0 (or a count of bytes where said) or -errno, takes no lock and may be called from any
 * thread. -EAGAIN from any of them means that the program changes its mappings: an event waits to be read or is yet to
 * come. Read on, give the CPU away, try again.
 */
#include "space/entry.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* Newer than Debian 12's headers. */
#ifndef UFFDIO_MOVE
struct uffdio_move {
	uint64_t dst, src, len, mode;
	int64_t move;
};
#define UFFDIO_MOVE                      _IOWR(UFFDIO, 0x05, struct uffdio_move)
#define UFFDIO_MOVE_MODE_DONTWAKE        ((uint64_t)1 << 0)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES ((uint64_t)1 << 1)
#endif
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

/* A new descriptor; kernel_faults: one that gets those too. features in: wanted; out: granted. fd or -errno. */
int spw__uffd_open(uint64_t *features, bool kernel_faults);
int spw__uffd_register(int fd, const void *p, size_t len, uint64_t mode);
/*
 * Bytes moved from the start (> 0), or -errno when not even one page was. Holes in src stay holes in dst. Wakes nobody.
 */
long spw__uffd_move(int fd, void *dst, const void *src, size_t len);
/* The same of one page, which must not be a hole. */
long spw__uffd_move_page(int fd, void *dst, const void *src);
/* Bytes put in place from the start (> 0), or -errno. Wakes waiters of what was placed. */
long spw__uffd_copy(int fd, void *dst, const void *src, size_t len);
/* The same, waking nobody. */
long spw__uffd_copy_quiet(int fd, void *dst, const void *src, size_t len);
/* The same as copy, leaving the pages write-protected. */
long spw__uffd_copy_protected(int fd, void *dst, const void *src, size_t len);
/* Bytes of zeros put in place from the start (> 0), or -errno. Wakes nobody. */
long spw__uffd_zero(int fd, void *dst, size_t len);
int spw__uffd_wake(int fd, void *p, size_t len);
/* Set or clear write protection; clearing wakes writers. */
int spw__uffd_protect(int fd, void *p, size_t len, int on);

/* Whether the mapping of the page at va is registered with fd. */
static inline bool spw__uffd_registered(int fd, uint64_t va)
{
	return spw__uffd_protect(fd, (void *)(uintptr_t)va, SPW_PAGE, 0) == 0;
}
/*
 * Whether a change of mappings is under way whose event has not been read, or has not even been queued. `unregistered`:
 * a page of any mapping that is not fd's.
 */
static inline bool spw__uffd_changing(int fd, const void *unregistered)
{
	return spw__uffd_protect(fd, (void *)(uintptr_t)unregistered, SPW_PAGE, 0) == -EAGAIN;
}
#endif
