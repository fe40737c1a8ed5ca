/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The I/O below a file tier: reads by pread, writes by io_uring.
 *
 * A write must not hold up the thread that evicts, a read has a thread waiting for it anyway. The ring is entered by
 * raw system calls: the threads that come here have no errno for a library to set. It is made at the first write, by
 * the process that writes. A ring belongs to the process that made it, and a forked child that used its parent's would
 * reap the parent's writes; so the ring's record lies in a page that the kernel wipes in the child, and its mappings
 * are not copied. Where io_uring is refused (an old kernel, a container's filter), a write is a pwrite, and its result
 * waits to be reaped.
 *
 * Without O_DIRECT the kernel would keep a copy of all that is swapped out, in memory that swapping was to win: each
 * range is then written through and dropped from the page cache.
 */
#include "platform/platform.h"
#include "platform/spin.h"
#include "platform/sys.h"
#include "tier/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE  4096u
#define DEPTH 16u
#define NEEDS (IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)

struct write {
	uint64_t token, off;
	uint32_t len;
	bool busy;
	bool done; /* by pwrite, not by the ring */
	int64_t result;
};

enum ring_mode { UNTRIED = 0, RING, SYNC };

/* In its own page, wiped in a forked child. */
struct ring {
	struct spw__spin lock; /* of submitting, and of writes[] */
	uint8_t mode;
	int fd;
	uint32_t *sq_tail, *sq_mask, *sq_array;
	uint32_t *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	struct write writes[DEPTH];
};

struct io {
	int fd;
	bool direct;
};

_Static_assert(sizeof(struct ring) <= PAGE, "the ring's record is one page");

static struct ring *ring_of(struct io *io)
{
	return (struct ring *)((char *)io + PAGE);
}

/* Without O_DIRECT: [off, off + len) is to be in the file, and nowhere else. */
static void uncache(const struct io *io, uint64_t off, uint64_t len, bool written)
{
	if (io->direct)
		return;
	if (written)
		spw__sys4(SYS_sync_file_range, io->fd, off, len,
			  SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	spw__sys4(SYS_fadvise64, io->fd, off, len, POSIX_FADV_DONTNEED);
}

static int64_t transfer(const struct io *io, long nr, const void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		long n = spw__sys4(nr, io->fd, (const char *)buf + done, len - done, off + done);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return n;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (int64_t)done;
}

static int64_t io_read(void *ctx, void *buf, size_t len, uint64_t off)
{
	struct io *io = ctx;
	int64_t n = transfer(io, SYS_pread64, buf, len, off);

	uncache(io, off, len, false);
	return n;
}

static void *map_ring(int fd, size_t bytes, uint64_t what)
{
	long p = spw__sys6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (long)what);

	if (p < 0 && p > -(long)PAGE)
		return NULL;
	spw__sys3(SYS_madvise, p, bytes, MADV_DONTFORK);
	return (void *)p;
}

/* Under the lock. */
static bool make_ring(struct ring *r)
{
	struct io_uring_params p = {0};
	size_t sq, cq, bytes, sqes;
	char *base;
	long fd = spw__sys2(SYS_io_uring_setup, DEPTH, &p);

	if (fd < 0)
		return false;
	sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	bytes = sq > cq ? sq : cq;
	sqes = p.sq_entries * sizeof(struct io_uring_sqe);
	base = (p.features & NEEDS) == NEEDS ? map_ring((int)fd, bytes, IORING_OFF_SQ_RING) : NULL;
	r->sqes = base ? map_ring((int)fd, sqes, IORING_OFF_SQES) : NULL;
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

/* Under the lock, so the submission ring holds this one only. False if the kernel did not take it. */
static bool submit(struct ring *r, int fd, const void *buf, const struct write *w)
{
	uint32_t tail = *r->sq_tail, i = tail & *r->sq_mask;
	long n;

	r->sqes[i] = (struct io_uring_sqe){
		.opcode = IORING_OP_WRITE,
		.fd = fd,
		.off = w->off,
		.addr = (uint64_t)(uintptr_t)buf,
		.len = w->len,
		.user_data = (uint64_t)(w - r->writes),
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

static int io_write(void *ctx, const void *buf, size_t len, uint64_t off, uint64_t token)
{
	struct io *io = ctx;
	struct ring *r = ring_of(io);
	struct write *w = r->writes;
	bool sent;

	spw__spin_lock(&r->lock);
	while (w < r->writes + DEPTH && w->busy)
		w++;
	if (w == r->writes + DEPTH) {
		spw__spin_unlock(&r->lock);
		return -EAGAIN;
	}
	*w = (struct write){.token = token, .off = off, .len = (uint32_t)len, .busy = true};
	if (r->mode == UNTRIED)
		__atomic_store_n(&r->mode, make_ring(r) ? RING : SYNC, __ATOMIC_RELAXED);
	sent = r->mode == RING && submit(r, io->fd, buf, w);
	spw__spin_unlock(&r->lock);
	if (!sent) {
		int64_t n = transfer(io, SYS_pwrite64, buf, len, off);

		spw__spin_lock(&r->lock);
		w->result = n;
		w->done = true;
		spw__spin_unlock(&r->lock);
	}
	return 0;
}

/* The result of a write that has one, or NULL. One thread. */
static struct write *finished(struct ring *r)
{
	struct write *found = NULL;

	spw__spin_lock(&r->lock);
	for (unsigned i = 0; i < DEPTH && !found; i++)
		if (r->writes[i].done)
			found = &r->writes[i];
	if (!found && r->mode == RING) {
		uint32_t head = *r->cq_head;

		if (head != __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE)) {
			const struct io_uring_cqe *c = &r->cqes[head & *r->cq_mask];

			found = &r->writes[c->user_data];
			found->result = c->res;
			__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
		}
	}
	spw__spin_unlock(&r->lock);
	return found;
}

static void wait_for_one(struct ring *r, uint64_t wait_ns)
{
	struct __kernel_timespec ts = {.tv_sec = (long long)(wait_ns / 1000000000u),
				       .tv_nsec = (long long)(wait_ns % 1000000000u)};
	struct io_uring_getevents_arg arg = {.ts = (uint64_t)(uintptr_t)&ts};

	if (__atomic_load_n(&r->mode, __ATOMIC_RELAXED) == RING)
		spw__sys6(SYS_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, (long)&arg,
			  sizeof(arg));
}

static int io_reap(void *ctx, uint64_t wait_ns, uint64_t *token, int64_t *result)
{
	struct io *io = ctx;
	struct ring *r = ring_of(io);
	struct write *w = finished(r);

	if (!w && wait_ns) {
		wait_for_one(r, wait_ns);
		w = finished(r);
	}
	if (!w)
		return 0;
	uncache(io, w->off, w->len, true);
	*token = w->token;
	*result = w->result;
	spw__spin_lock(&r->lock);
	w->busy = w->done = false;
	spw__spin_unlock(&r->lock);
	return 1;
}

static void io_discard(void *ctx, uint64_t off, uint64_t len)
{
	struct io *io = ctx;

	spw__sys4(SYS_fallocate, io->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
}

static void io_close(void *ctx)
{
	struct io *io = ctx;
	struct ring *r = ring_of(io);

	if (r->mode == RING)
		spw__sys1(SYS_close, r->fd);
	spw__plat_release(io, 2 * PAGE);
}

void spw__file_io_set_fd(const struct spw_file_io *file, int fd)
{
	struct io *io = file->ctx;

	io->fd = fd;
	/* What is read ahead would only be dropped again. */
	if (!io->direct)
		spw__sys4(SYS_fadvise64, fd, 0, 0, POSIX_FADV_RANDOM);
}

int spw__file_io_open(int fd, struct spw_file_io *out)
{
	long flags = spw__sys2(SYS_fcntl, fd, F_GETFL), err;
	struct io *io;

	if (flags < 0)
		return (int)flags;
	io = spw__plat_reserve(2 * PAGE);
	if (!io)
		return -ENOMEM;
	err = spw__plat_commit(io, 2 * PAGE);
	if (!err)
		err = spw__sys3(SYS_madvise, ring_of(io), PAGE, MADV_WIPEONFORK);
	if (err) {
		spw__plat_release(io, 2 * PAGE);
		return (int)err;
	}
	io->direct = flags & O_DIRECT;
	*out = (struct spw_file_io){
		.ctx = io,
		.read = io_read,
		.write = io_write,
		.reap = io_reap,
		.discard = io_discard,
		.close = io_close,
	};
	spw__file_io_set_fd(out, fd);
	return 0;
}
