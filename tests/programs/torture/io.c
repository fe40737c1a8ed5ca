/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel reads and writes pages on the program's behalf; and descriptors are closed under everybody's feet. */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_rwlock_t files = PTHREAD_RWLOCK_INITIALIZER;

void io_lock(void)
{
	pthread_rwlock_rdlock(&files);
}

void io_unlock(void)
{
	pthread_rwlock_unlock(&files);
}

void io_fork_child(void)
{
	pthread_rwlock_init(&files, NULL);
}

static char *page_of(struct range *r, uint32_t i)
{
	return r->base + (size_t)i * PAGE;
}

/* A page through a pipe, and through process_vm_readv(2), into another. */
void op_pipe(struct worker *w)
{
	struct range *from = pick(w, RANGE_MAPPED), *to = pick(w, RANGE_MAPPED);
	int fd[2];

	if (!from)
		return;
	io_lock();
	must(w, pipe2(fd, O_CLOEXEC) == 0, "pipe");
	for (unsigned k = 0; k < 8; k++) {
		uint32_t i = below(w, from->pages), j = below(w, to->pages);

		must(w, write(fd[1], page_of(from, i), PAGE) == PAGE, "write to a pipe");
		must(w, read(fd[0], page_of(to, j), PAGE) == PAGE, "read from a pipe");
		to->key[j] = from->key[i];
		check(w, page_of(to, j), to->key[j]);
		i = below(w, from->pages);
		j = below(w, to->pages);
		struct iovec src = {page_of(from, i), PAGE}, dst = {page_of(to, j), PAGE};

		if (from == to && i == j)
			continue;
		must(w, process_vm_readv(getpid(), &dst, 1, &src, 1, 0) == PAGE, "process_vm_readv");
		to->key[j] = from->key[i];
		check(w, page_of(to, j), to->key[j]);
	}
	close(fd[0]);
	close(fd[1]);
	io_unlock();
}

static int scratch_file(struct worker *w, int flags)
{
	const char *dir = getenv("TMPDIR");
	int fd = open(dir ? dir : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);

	must(w, fd >= 0, "open a scratch file");
	return fd;
}

/* Pages to a file and back into other pages, past the page cache: the device itself reads and writes them. */
void op_direct(struct worker *w)
{
	struct range *from = pick(w, RANGE_MAPPED), *to = pick(w, RANGE_MAPPED);
	uint32_t i, n, j;

	if (!from)
		return;
	part_of(w, from, &i, &n);
	n = n < 64 ? n : 64;
	n = n < to->pages ? n : to->pages;
	j = below(w, to->pages - n + 1);
	io_lock();
	int fd = scratch_file(w, O_DIRECT);

	must(w, pwrite(fd, page_of(from, i), (size_t)n * PAGE, 0) == (ssize_t)n * PAGE, "direct write");
	uint64_t key[64];

	for (uint32_t k = 0; k < n; k++)
		key[k] = from->key[i + k];
	must(w, pread(fd, page_of(to, j), (size_t)n * PAGE, 0) == (ssize_t)n * PAGE, "direct read");
	for (uint32_t k = 0; k < n; k++)
		to->key[j + k] = key[k];
	check_range(w, to, j, n);
	close(fd);
	io_unlock();
}

/* Pages that are pinned for long: what the kernel writes through the pin must be what the program reads. */
void op_pinned(struct worker *w)
{
	struct range *r = pick(w, RANGE_MAPPED);
	struct io_uring ring;
	struct io_uring_cqe *cqe;
	uint32_t first, n;
	int fd[2];

	if (!r)
		return;
	part_of(w, r, &first, &n);
	n = n < 32 ? n : 32;
	io_lock();
	must(w, pipe2(fd, O_CLOEXEC) == 0, "pipe");
	int ret = io_uring_queue_init(4, &ring, 0);

	if (ret == -EPERM || ret == -ENOSYS || ret == -ENOMEM)
		goto out;
	struct iovec iov = {page_of(r, first), (size_t)n * PAGE};

	ret = io_uring_register_buffers(&ring, &iov, 1);
	if (ret) {
		must(w, ret == -ENOMEM || ret == -EPERM, "register buffers");
		io_uring_queue_exit(&ring);
		goto out;
	}
	for (unsigned k = 0; k < 4; k++) {
		_Alignas(16) char page[PAGE];
		uint32_t i = first + below(w, n);
		uint64_t key = new_key(w);
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

		io_uring_prep_read_fixed(sqe, fd[0], page_of(r, i), PAGE, 0, 0);
		must(w, io_uring_submit(&ring) == 1, "submit");
		/* The read waits while other pages are wanted, and this one becomes cold. */
		op_touch(w);
		check(w, page_of(r, i), r->key[i]);
		fill(page, key);
		must(w, write(fd[1], page, PAGE) == PAGE, "write to a pipe");
		must(w, io_uring_wait_cqe(&ring, &cqe) == 0 && cqe->res == PAGE, "pinned read");
		io_uring_cqe_seen(&ring, cqe);
		r->key[i] = key;
		check(w, page_of(r, i), key);
	}
	io_uring_queue_exit(&ring);
out:
	close(fd[0]);
	close(fd[1]);
	io_unlock();
}

/* As every daemon does. */
void op_close(struct worker *w)
{
	pthread_rwlock_wrlock(&files);
	must(w, syscall(SYS_close_range, 3, ~0u, 0) == 0, "close_range");
	pthread_rwlock_unlock(&files);
	op_touch(w);
}
