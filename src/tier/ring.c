/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* io_uring: the two shared rings and the three system calls. See io_uring(7). */
#include "tier/ring.h"
#include "platform/sys.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <time.h>

#define NEEDS (IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)

static void *map(int fd, size_t bytes, uint64_t what)
{
	long p = spw__sys6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (long)what);

	if (p < 0 && p > -4096)
		return NULL;
	spw__sys3(SYS_madvise, p, bytes, MADV_DONTFORK);
	return (void *)p;
}

bool spw__ring_open(struct spw__ring *r, unsigned depth)
{
	struct io_uring_params p = {0};
	size_t sq, cq, bytes, sqes;
	char *base;
	long fd = spw__sys2(SYS_io_uring_setup, depth, &p);

	if (fd < 0)
		return false;
	sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	bytes = sq > cq ? sq : cq;
	sqes = p.sq_entries * sizeof(struct io_uring_sqe);
	base = (p.features & NEEDS) == NEEDS ? map((int)fd, bytes, IORING_OFF_SQ_RING) : NULL;
	r->sqes = base ? map((int)fd, sqes, IORING_OFF_SQES) : NULL;
	if (!r->sqes) {
		if (base)
			spw__sys2(SYS_munmap, base, bytes);
		spw__sys1(SYS_close, fd);
		return false;
	}
	r->fd = (int)fd;
	r->sq_tail = (uint32_t *)(base + p.sq_off.tail);
	r->sq_mask = (uint32_t *)(base + p.sq_off.ring_mask);
	r->sq_array = (uint32_t *)(base + p.sq_off.array);
	r->cq_head = (uint32_t *)(base + p.cq_off.head);
	r->cq_tail = (uint32_t *)(base + p.cq_off.tail);
	r->cq_mask = (uint32_t *)(base + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(base + p.cq_off.cqes);
	return true;
}

void spw__ring_close(const struct spw__ring *r)
{
	spw__sys1(SYS_close, r->fd);
}

bool spw__ring_submit(struct spw__ring *r, bool write, int fd, const void *buf, uint32_t len, uint64_t off,
		      uint64_t token)
{
	uint32_t tail = *r->sq_tail, i = tail & *r->sq_mask;
	long n;

	r->sqes[i] = (struct io_uring_sqe){
		.opcode = write ? IORING_OP_WRITE : IORING_OP_READ,
		.fd = fd,
		.off = off,
		.addr = (uint64_t)(uintptr_t)buf,
		.len = len,
		.user_data = token,
	};
	r->sq_array[i] = i;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	do
		n = spw__sys6(SYS_io_uring_enter, r->fd, 1, 0, 0, 0, 0);
	while (n == -EINTR);
	if (n == 1)
		return true;
	__atomic_store_n(r->sq_tail, tail, __ATOMIC_RELEASE);
	return false;
}

bool spw__ring_take(struct spw__ring *r, uint64_t *token, int64_t *result)
{
	uint32_t head = *r->cq_head;

	if (head == __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE))
		return false;
	const struct io_uring_cqe *c = &r->cqes[head & *r->cq_mask];

	*token = c->user_data;
	*result = c->res;
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
	return true;
}

void spw__ring_wait(const struct spw__ring *r, uint64_t wait_ns)
{
	struct __kernel_timespec ts = {.tv_sec = (long long)(wait_ns / 1000000000u),
				       .tv_nsec = (long long)(wait_ns % 1000000000u)};
	struct io_uring_getevents_arg arg = {.ts = (uint64_t)(uintptr_t)&ts};

	spw__sys6(SYS_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, (long)&arg,
		  sizeof(arg));
}
