/* SPDX-License-Identifier: Apache-2.0 */
/*
 * faultio MOUNTPOINT SIZE: a file system with one file that fails on demand.
 *
 * What a program does when its disk fails can only be tested as a whole on a disk that fails; a preloaded library would
 * not see the system calls that are made without libc. So the faults are below the kernel: /data is a file of SIZE
 * bytes (kept in an unlinked temporary file), read and written past the page cache, and what is written to /control
 * says which of its reads and writes fail:
 *
 *     OPERATION FAULT [SKIP [COUNT]]      after SKIP more operations, COUNT of them; 0, the default, is all
 *     write eio | enospc | erofs | short | torn | none
 *     read  eio | short | flip | none
 *     open | getattr  held | none         of /data; held: no answer until none is said
 *
 * "short" does half and says so, "torn" does half and says all, "flip" changes one bit in the middle. Reading /control
 * gives the operations and the faults so far, and how many wait for an answer. Ends when it is unmounted, or by
 * SIGTERM.
 */
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_WRITE (1u << 20)

enum fault { NONE, EIO_FAULT, ENOSPC_FAULT, EROFS_FAULT, SHORT, TORN, FLIP };

struct plan {
	enum fault fault;
	uint64_t skip;
	uint64_t count; /* left to fail; UINT64_MAX: all */
	uint64_t operations, faults;
};

static const char *const names[] = {"none", "eio", "enospc", "erofs", "short", "torn", "flip"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct plan reads, writes; /* under the lock */
static bool open_held, getattr_held;
static unsigned waiting; /* for those */
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static int backing;
static off_t size;

static bool is_data(const char *path)
{
	return !strcmp(path, "/data");
}

static bool is_control(const char *path)
{
	return !strcmp(path, "/control");
}

/* What happens to this operation. */
static enum fault next_fault(struct plan *p)
{
	enum fault fault = NONE;

	pthread_mutex_lock(&lock);
	p->operations++;
	if (p->skip) {
		p->skip--;
	} else if (p->fault && p->count) {
		p->count -= p->count != UINT64_MAX;
		p->faults++;
		fault = p->fault;
	}
	pthread_mutex_unlock(&lock);
	return fault;
}

static void wait_while(const bool *held)
{
	pthread_mutex_lock(&lock);
	waiting++;
	while (*held)
		pthread_cond_wait(&released, &lock);
	waiting--;
	pthread_mutex_unlock(&lock);
}

static int hold(bool *held, const char *word)
{
	if (strcmp(word, "held") && strcmp(word, "none"))
		return -EINVAL;
	pthread_mutex_lock(&lock);
	*held = !strcmp(word, "held");
	pthread_cond_broadcast(&released);
	pthread_mutex_unlock(&lock);
	return 0;
}

static int command(const char *text)
{
	char operation[8], fault[8];
	unsigned long long skip = 0, count = 0;
	struct plan *p;

	if (sscanf(text, "%7s %7s %llu %llu", operation, fault, &skip, &count) < 2)
		return -EINVAL;
	if (!strcmp(operation, "open") || !strcmp(operation, "getattr"))
		return hold(*operation == 'o' ? &open_held : &getattr_held, fault);
	p = !strcmp(operation, "read") ? &reads : !strcmp(operation, "write") ? &writes : NULL;
	for (unsigned i = 0; p && i < sizeof(names) / sizeof(*names); i++) {
		if (strcmp(fault, names[i]))
			continue;
		pthread_mutex_lock(&lock);
		p->fault = i;
		p->skip = skip;
		p->count = count ? count : UINT64_MAX;
		pthread_mutex_unlock(&lock);
		return 0;
	}
	return -EINVAL;
}

static int report(char *out, size_t room)
{
	int n;

	pthread_mutex_lock(&lock);
	n = snprintf(out, room, "reads %llu %llu\nwrites %llu %llu\nwaiting %u\n", (unsigned long long)reads.operations,
		     (unsigned long long)reads.faults, (unsigned long long)writes.operations,
		     (unsigned long long)writes.faults, waiting);
	pthread_mutex_unlock(&lock);
	return n;
}

static void *op_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
	conn->max_write = MAX_WRITE;
	cfg->attr_timeout = cfg->entry_timeout = 0;
	return NULL;
}

static int op_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	if (is_data(path))
		wait_while(&getattr_held);
	memset(st, 0, sizeof(*st));
	st->st_uid = getuid();
	st->st_gid = getgid();
	st->st_nlink = 1;
	st->st_mode = S_IFREG | 0600;
	if (!strcmp(path, "/"))
		st->st_mode = S_IFDIR | 0700;
	else if (is_data(path))
		st->st_size = size;
	else if (!is_control(path))
		return -ENOENT;
	return 0;
}

static int op_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off, struct fuse_file_info *fi,
		      enum fuse_readdir_flags flags)
{
	(void)path;
	(void)off;
	(void)fi;
	(void)flags;
	fill(buf, "data", NULL, 0, 0);
	fill(buf, "control", NULL, 0, 0);
	return 0;
}

static int op_open(const char *path, struct fuse_file_info *fi)
{
	if (is_data(path))
		wait_while(&open_held);
	fi->direct_io = 1;
	return 0;
}

static int op_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	enum fault fault;
	ssize_t n;

	(void)fi;
	if (is_control(path)) {
		char text[128];
		int all = report(text, sizeof(text));

		if (off >= all)
			return 0;
		len = len < (size_t)(all - off) ? len : (size_t)(all - off);
		memcpy(buf, text + off, len);
		return (int)len;
	}
	fault = next_fault(&reads);
	if (fault == EIO_FAULT)
		return -EIO;
	n = pread(backing, buf, fault == SHORT ? len / 2 : len, off);
	if (n > 0 && fault == FLIP)
		buf[n / 2] ^= 1;
	return n < 0 ? -errno : (int)n;
}

static int op_write(const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	enum fault fault;
	ssize_t n;

	(void)fi;
	if (is_control(path)) {
		char text[128] = "";
		int err;

		memcpy(text, buf, len < sizeof(text) - 1 ? len : sizeof(text) - 1);
		err = command(text);
		return err ? err : (int)len;
	}
	fault = next_fault(&writes);
	if (fault == EIO_FAULT)
		return -EIO;
	if (fault == EROFS_FAULT)
		return -EROFS;
	if (fault == ENOSPC_FAULT || off + (off_t)len > size)
		return -ENOSPC;
	n = pwrite(backing, buf, fault == SHORT || fault == TORN ? len / 2 : len, off);
	return n < 0 ? -errno : fault == TORN ? (int)len : (int)n;
}

/* The size is the disk's. Opening with O_TRUNC must not fail. */
static int op_truncate(const char *path, off_t to, struct fuse_file_info *fi)
{
	(void)path;
	(void)to;
	(void)fi;
	return 0;
}

static int op_fallocate(const char *path, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	return fallocate(backing, mode, off, len) ? -errno : 0;
}

static const struct fuse_operations operations = {
	.init = op_init,
	.getattr = op_getattr,
	.readdir = op_readdir,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.truncate = op_truncate,
	.fallocate = op_fallocate,
};

int main(int argc, char **argv)
{
	const char *dir = getenv("TMPDIR");
	char path[4096], name[] = "faultio", foreground[] = "-f";
	char *args[] = {name, foreground, argc > 1 ? argv[1] : NULL, NULL};

	if (argc != 3) {
		fprintf(stderr, "usage: faultio MOUNTPOINT SIZE\n");
		return 2;
	}
	size = (off_t)strtoull(argv[2], NULL, 0);
	snprintf(path, sizeof(path), "%s/faultio-XXXXXX", dir ? dir : "/var/tmp");
	backing = mkstemp(path);
	if (backing < 0 || unlink(path) || ftruncate(backing, size)) {
		perror(path);
		return 1;
	}
	return fuse_main(3, args, &operations, NULL);
}
