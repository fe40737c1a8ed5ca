/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The I/O below a file tier: writes by io_uring, reads by pread or, watched, by a ring of their own, and those that
 * begin before they are asked for by a third.
 *
 * A write must not hold up the thread that evicts, a read has a thread waiting for it anyway. The write ring is made at
 * the first write, by the process that writes; a forked child that used its parent's would reap the parent's writes. So
 * the rings' records lie in pages that the kernel wipes in the child. Where io_uring is refused, a write is a pwrite,
 * and its result waits to be reaped.
 *
 * A thread that sleeps for a read of a fast disk sleeps as long again for its CPU: the interrupt may come to another
 * CPU, and an idle one has to be woken, in a virtual machine by the hypervisor. A caller who takes the CPU from nobody
 * can have its small reads watched instead: the thread looks at the ring until the result is there, for up to twice as
 * long as reads took lately, and not at all where they take long. Who is driven from the CPU meanwhile has taken it
 * from somebody: the next reads sleep, and more of them each time that it happens again.
 *
 * Without O_DIRECT the kernel would keep a copy of all that is swapped out, in memory that swapping was to win: each
 * range is then written through and dropped from the page cache.
 */
#include "platform/platform.h"
#include "platform/spin.h"
#include "platform/sys.h"
#include "tier/file.h"
#include "tier/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define PAGE        4096u
#define DEPTH       16u
#define WATCH_BYTES (2 * PAGE) /* what one object lies in */
#define WATCH_MOST  300000u    /* ns */
#define MEAN_OF     8u
#define REST_LEAST  64u /* reads that sleep */
#define REST_MOST   4096u
#define WAIT        1000000000u
#define LOOK_AGAIN  1000000u

struct write {
	uint64_t token, off;
	uint32_t len;
	bool busy;
	bool done; /* by pwrite, not by the ring */
	int64_t result;
};

enum ring_mode { UNTRIED = 0, RING, SYNC };

/* In its own page, wiped in a forked child. */
struct writer {
	struct spw__spin lock; /* of submitting, and of writes[] */
	uint8_t mode;
	struct spw__ring ring;
	struct write writes[DEPTH];
};

/* Likewise. */
struct reader {
	struct spw__spin lock; /* only tried: one thread's reads are watched at a time */
	uint8_t mode;
	struct spw__ring ring;
	uint64_t mean; /* ns that small reads took lately */
	uint32_t rest; /* reads that are to sleep */
	uint32_t next; /* as many the next time */
};

/* Likewise: reads that are under way before they are asked for. */
struct early {
	struct spw__spin lock;
	uint8_t mode;
	struct spw__ring ring;
	uint32_t done; /* a bit for each */
	int64_t result[SPW_FILE_EARLY];
};

struct io {
	int fd;
	bool direct;
	uint32_t watch; /* A enum spw_file_watch */
};

_Static_assert(sizeof(struct writer) <= PAGE && sizeof(struct reader) <= PAGE && sizeof(struct early) <= PAGE,
	       "each record is one page");

#define IO_BYTES (4 * PAGE)

static struct writer *writer_of(struct io *io)
{
	return (struct writer *)((char *)io + PAGE);
}

static struct reader *reader_of(struct io *io)
{
	return (struct reader *)((char *)io + 2 * PAGE);
}

static struct early *early_of(struct io *io)
{
	return (struct early *)((char *)io + 3 * PAGE);
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

/* Wait for the read that is under way, at first without sleeping. */
static int64_t watch(struct reader *r, uint64_t began)
{
	uint64_t limit = began + (r->mean && r->mean < WATCH_MOST / 2 ? 2 * r->mean : WATCH_MOST), token;
	int64_t result;

	for (unsigned spins = 0; !spw__ring_take(&r->ring, &token, &result); spins++) {
		if (spins % 16 == 15 && spw__plat_now_ns() > limit)
			spw__ring_wait(&r->ring, WAIT);
		else
			__builtin_ia32_pause();
	}
	return result;
}

/* How often this thread had to leave its CPU though it did not want to. */
static long driven_away(void)
{
	struct rusage u = {0};

	spw__sys2(SYS_getrusage, RUSAGE_THREAD, &u);
	return u.ru_nivcsw;
}

/* As watch(), by a thread that others may be in want of. */
static int64_t watch_spare(struct reader *r, uint64_t began)
{
	long before = driven_away();
	int64_t result = watch(r, began);

	if (driven_away() != before) {
		r->rest = r->next < REST_LEAST ? REST_LEAST : r->next;
		r->next = r->rest < REST_MOST / 2 ? r->rest * 2 : REST_MOST;
	} else if (r->next > REST_LEAST) {
		r->next--;
	}
	return result;
}

/* Whether to sleep for this read. */
static bool rests(struct reader *r, uint32_t how)
{
	return how == SPW_WATCH_SPARE && r->rest && r->rest--;
}

/* A small read, timed, and watched if the disk is fast. Bytes or -errno; may be short. Under the lock. */
static int64_t timed_read(const struct io *io, struct reader *r, void *buf, size_t len, uint64_t off, uint32_t how)
{
	uint64_t began = spw__plat_now_ns();
	int64_t n;

	if (r->mode == UNTRIED)
		r->mode = spw__ring_open(&r->ring, 1) ? RING : SYNC;
	if (r->mode == RING && r->mean < WATCH_MOST && !rests(r, how) &&
	    spw__ring_submit(&r->ring, false, io->fd, buf, (uint32_t)len, off, 0))
		n = how == SPW_WATCH_SPARE ? watch_spare(r, began) : watch(r, began);
	else
		n = transfer(io, SYS_pread64, buf, len, off);
	r->mean += ((int64_t)(spw__plat_now_ns() - began) - (int64_t)r->mean) / (int64_t)MEAN_OF;
	return n;
}

static int64_t io_read(void *ctx, void *buf, size_t len, uint64_t off)
{
	struct io *io = ctx;
	struct reader *r = reader_of(io);
	uint32_t how = __atomic_load_n(&io->watch, __ATOMIC_RELAXED);
	int64_t n = 0;

	if (io->direct && len <= WATCH_BYTES && how && spw__spin_try(&r->lock)) {
		n = timed_read(io, r, buf, len, off, how);
		spw__spin_unlock(&r->lock);
	}
	if (n != (int64_t)len)
		n = transfer(io, SYS_pread64, buf, len, off);
	uncache(io, off, len, false);
	return n;
}

static bool io_start(void *ctx, unsigned n, void *buf, size_t len, uint64_t off)
{
	struct io *io = ctx;
	struct early *e = early_of(io);
	bool sent = false;

	spw__spin_lock(&e->lock);
	if (e->mode == UNTRIED)
		e->mode = spw__ring_open(&e->ring, SPW_FILE_EARLY) ? RING : SYNC;
	if (e->mode == RING)
		sent = spw__ring_submit(&e->ring, false, io->fd, buf, (uint32_t)len, off, n);
	spw__spin_unlock(&e->lock);
	return sent;
}

/* Whether read n has ended, and how. */
static bool ended(struct early *e, unsigned n, int64_t *result)
{
	uint64_t token;
	int64_t bytes;
	bool yes;

	spw__spin_lock(&e->lock);
	while (spw__ring_take(&e->ring, &token, &bytes)) {
		e->result[token] = bytes;
		e->done |= 1u << token;
	}
	yes = e->done & 1u << n;
	if (yes) {
		*result = e->result[n];
		e->done &= ~(1u << n);
	}
	spw__spin_unlock(&e->lock);
	return yes;
}

static bool io_finish(void *ctx, unsigned n, uint64_t wait_ns, int64_t *result)
{
	struct io *io = ctx;
	struct early *e = early_of(io);
	uint64_t began = wait_ns ? spw__plat_now_ns() : 0;

	while (!ended(e, n, result)) {
		if (!wait_ns || spw__plat_now_ns() - began >= wait_ns)
			return false;
		/* Another thread may take what this one waits for: it looks again soon. */
		spw__ring_wait(&e->ring, LOOK_AGAIN);
	}
	return true;
}

static int io_write(void *ctx, const void *buf, size_t len, uint64_t off, uint64_t token)
{
	struct io *io = ctx;
	struct writer *r = writer_of(io);
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
		__atomic_store_n(&r->mode, spw__ring_open(&r->ring, DEPTH) ? RING : SYNC, __ATOMIC_RELAXED);
	sent = r->mode == RING &&
	       spw__ring_submit(&r->ring, true, io->fd, buf, (uint32_t)len, off, (uint64_t)(w - r->writes));
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
static struct write *finished(struct writer *r)
{
	struct write *found = NULL;
	uint64_t index;
	int64_t result;

	spw__spin_lock(&r->lock);
	for (unsigned i = 0; i < DEPTH && !found; i++)
		if (r->writes[i].done)
			found = &r->writes[i];
	if (!found && r->mode == RING && spw__ring_take(&r->ring, &index, &result)) {
		found = &r->writes[index];
		found->result = result;
	}
	spw__spin_unlock(&r->lock);
	return found;
}

static int io_reap(void *ctx, uint64_t wait_ns, uint64_t *token, int64_t *result)
{
	struct io *io = ctx;
	struct writer *r = writer_of(io);
	struct write *w = finished(r);

	if (!w && wait_ns) {
		if (__atomic_load_n(&r->mode, __ATOMIC_RELAXED) == RING)
			spw__ring_wait(&r->ring, wait_ns);
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
	const struct writer *w = writer_of(io);
	const struct reader *r = reader_of(io);
	const struct early *e = early_of(io);

	if (e->mode == RING)
		spw__ring_close(&e->ring);
	if (w->mode == RING)
		spw__ring_close(&w->ring);
	if (r->mode == RING)
		spw__ring_close(&r->ring);
	spw__plat_release(io, IO_BYTES);
}

void spw__file_io_set_fd(const struct spw_file_io *file, int fd)
{
	struct io *io = file->ctx;

	io->fd = fd;
	/* What is read ahead would only be dropped again. */
	if (!io->direct)
		spw__sys4(SYS_fadvise64, fd, 0, 0, POSIX_FADV_RANDOM);
}

void spw__file_io_watch(const struct spw_file_io *file, enum spw_file_watch how)
{
	struct io *io = file->ctx;

	__atomic_store_n(&io->watch, how, __ATOMIC_RELAXED);
}

int spw__file_io_open(int fd, struct spw_file_io *out)
{
	long flags = spw__sys2(SYS_fcntl, fd, F_GETFL), err;
	struct io *io;

	if (flags < 0)
		return (int)flags;
	io = spw__plat_reserve(IO_BYTES);
	if (!io)
		return -ENOMEM;
	err = spw__plat_commit(io, IO_BYTES);
	if (!err)
		err = spw__sys3(SYS_madvise, writer_of(io), 3 * PAGE, MADV_WIPEONFORK);
	if (err) {
		spw__plat_release(io, IO_BYTES);
		return (int)err;
	}
	io->direct = flags & O_DIRECT;
	*out = (struct spw_file_io){
		.ctx = io,
		.read = io_read,
		.start = io->direct ? io_start : NULL, /* the page cache would have it */
		.finish = io_finish,
		.write = io_write,
		.reap = io_reap,
		.discard = io_discard,
		.close = io_close,
	};
	spw__file_io_set_fd(out, fd);
	return 0;
}
