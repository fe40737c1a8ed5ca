/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_TIER_RING_H
#define SPW_TIER_RING_H
/*
 * An io_uring of our own, by raw system calls: the threads that use it have no errno for a library to set, and call no
 * malloc.
 *
 * A ring belongs to the process that made it: its mappings are not copied by a fork. The caller keeps the record where
 * a forked child finds it wiped. Calls on one ring must not overlap, but for spw__ring_wait().
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_uring_sqe;
struct io_uring_cqe;

struct spw__ring {
	int fd;
	uint32_t *sq_tail, *sq_mask, *sq_array;
	uint32_t *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

/* False where io_uring is refused: an old kernel, a container's filter. */
bool spw__ring_open(struct spw__ring *r, unsigned depth);
void spw__ring_close(const struct spw__ring *r);

/* Start a transfer; write: to the file. False if the kernel did not take it. At most `depth` may be under way. */
bool spw__ring_submit(struct spw__ring *r, bool write, int fd, const void *buf, uint32_t len, uint64_t off,
		      uint64_t token);
/* Take the result of a finished one: bytes or -errno. False if there is none. No system call. */
bool spw__ring_take(struct spw__ring *r, uint64_t *token, int64_t *result);
/* Sleep until one has finished, or wait_ns have passed. */
void spw__ring_wait(const struct spw__ring *r, uint64_t wait_ns);
#endif
