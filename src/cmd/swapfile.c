/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Swapped memory must not hide in the page cache, outlive the run by accident, or overwrite somebody's file. So a
 * swapfile that is made here never has a name, not even where it was given one: a run that is killed cannot take a name
 * away. It is O_DIRECT where the filesystem has that, and a file that exists is taken only if it is empty or says
 * itself that it is swap. Two runs, or the kernel's swapon, exclude each other.
 */
#include "cmd/swapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "cmd/say.h"
#include "cmd/swaphdr.h"

#define LEAST_BYTES (1ull << 20)
#define MOST_BYTES  (1ull << 40) /* what a slot can address */

static bool in_ram(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static bool directory_in_ram(const char *dir)
{
	int fd = open(dir, O_PATH | O_CLOEXEC);
	bool yes = fd >= 0 && in_ram(fd);

	if (fd >= 0)
		close(fd);
	return yes;
}

const char *spw__swapfile_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && *dir && !directory_in_ram(dir) ? dir : "/var/tmp";
}

/* Buffered: all that is read and written here is the header. Agents open it O_DIRECT for themselves. */
static int open_buffered(const char *path, int flags)
{
	return open(path, flags | O_CLOEXEC, 0600);
}

static int open_unlinked(const char *dir)
{
	int fd = open_buffered(dir, O_TMPFILE | O_RDWR);
	char path[PATH_MAX];

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd;
	snprintf(path, sizeof(path), "%s/spillway-XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

/* How far a file may grow that has been given no size: what is free, less a tenth. */
static uint64_t room(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) ? 0 : (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize / 10 * 9;
}

/* Settle the size of a file that this run may grow. */
static int size_new(const struct spw_swap *o, struct spw_swapfile *s, const char *where)
{
	struct rlimit most;
	char text[32];

	s->max_bytes = o->size.unit ? o->size.value : room(s->fd);
	if (s->max_bytes > MOST_BYTES && o->size.unit)
		return spw__fail("--swap file: size=%s is too large; a swapfile holds up to 1 TiB",
				 spw__size_text(s->max_bytes, text));
	if (s->max_bytes > MOST_BYTES)
		s->max_bytes = MOST_BYTES;
	if (!getrlimit(RLIMIT_FSIZE, &most) && most.rlim_cur < s->max_bytes)
		s->max_bytes = most.rlim_cur;
	s->max_bytes &= ~(uint64_t)(SPW_PAGE - 1);
	if (s->max_bytes < LEAST_BYTES)
		return spw__fail("no room for a swapfile in %s (%s); free some, or say --swap zswap, --swap file:PATH "
				 "or size=SIZE",
				 where, spw__size_text(s->max_bytes, text));
	if (ftruncate(s->fd, (off_t)s->max_bytes))
		return spw__fail("swapfile in %s: %s", where, strerror(errno));
	s->discard = true;
	return 0;
}

static int format_new(const struct spw_swap *o, struct spw_swapfile *s)
{
	int failed = size_new(o, s, s->path);
	if (failed)
		return failed;
	struct spw_swaphdr h = {.label = "spillway", .last_page = (uint32_t)(s->max_bytes / SPW_PAGE - 1)};

	uuid_generate_random(h.uuid);
	int err = spw__swaphdr_write(s->fd, &h);
	if (err)
		return spw__fail("--swap file:%s: cannot write the swap header: %s", s->path, strerror(-err));
	return 0;
}

/* A file or device that is swap already: its header says what may be used. */
static int use_existing(const struct spw_swap *o, struct spw_swapfile *s, uint64_t bytes)
{
	struct spw_swaphdr h;
	int err = spw__swaphdr_read(s->fd, &h);

	if (err == -ENODATA)
		return spw__fail(
			"--swap file:%s: it has data in it that are no swap; name a file that does not exist yet",
			s->path);
	if (err)
		return spw__fail("--swap file:%s: %s", s->path, spw__swaphdr_error(err));
	if (h.bad_pages)
		return spw__fail("--swap file:%s: it has bad pages; use another device", s->path);
	s->max_bytes = ((uint64_t)h.last_page + 1) * SPW_PAGE;
	if (s->max_bytes > bytes)
		s->max_bytes = bytes & ~(uint64_t)(SPW_PAGE - 1);
	if (o->size.unit && o->size.value < s->max_bytes)
		s->max_bytes = o->size.value & ~(uint64_t)(SPW_PAGE - 1);
	if (s->max_bytes > MOST_BYTES)
		s->max_bytes = MOST_BYTES;
	if (s->max_bytes < LEAST_BYTES)
		return spw__fail("--swap file:%s: too small; a swapfile has 1 MiB or more", s->path);
	return 0;
}

static int open_named(const struct spw_swap *o, bool quiet, struct spw_swapfile *s)
{
	struct stat st;
	char path[PATH_MAX];
	uint64_t bytes = 0;

	snprintf(s->path, sizeof(s->path), "%s", o->path);
	snprintf(path, sizeof(path), "%s", o->path);
	s->first_byte = SPW_PAGE;
	/* on a device O_EXCL refuses what is mounted or swapped on */
	s->fd = open_buffered(path, O_RDWR | (!stat(path, &st) && S_ISBLK(st.st_mode) ? O_EXCL : 0));
	if (s->fd < 0 && errno == ENOENT)
		s->fd = open_unlinked(dirname(path));
	if (s->fd < 0)
		return spw__fail("--swap file:%s: %s", s->path,
				 errno == ETXTBSY || errno == EBUSY ? "in use by the kernel" : strerror(errno));
	if (fstat(s->fd, &st))
		return spw__fail("--swap file:%s: %s", s->path, strerror(errno));
	if (flock(s->fd, LOCK_EX | LOCK_NB))
		return spw__fail("--swap file:%s: in use by another spillway run; name another file", s->path);

	if (S_ISBLK(st.st_mode)) {
		if (ioctl(s->fd, BLKGETSIZE64, &bytes))
			return spw__fail("--swap file:%s: %s", s->path, strerror(errno));
		return use_existing(o, s, bytes);
	}
	if (!S_ISREG(st.st_mode))
		return spw__fail("--swap file:%s: neither a file nor a block device", s->path);
	if (in_ram(s->fd) && !quiet)
		spw__say("--swap file:%s is in memory (tmpfs), which the cap does not count", s->path);
	return st.st_size ? use_existing(o, s, (uint64_t)st.st_size) : format_new(o, s);
}

int spw__swapfile_open(const struct spw_swap *o, bool quiet, struct spw_swapfile *out)
{
	int failed;

	*out = (struct spw_swapfile){.fd = -1};
	if (o->path) {
		failed = open_named(o, quiet, out);
	} else {
		const char *dir = spw__swapfile_dir();

		out->fd = open_unlinked(dir);
		failed = out->fd < 0
				 ? spw__fail(
					   "no swapfile in %s: %s; set TMPDIR, or say --swap file:PATH or --swap zswap",
					   dir, strerror(errno))
				 : size_new(o, out, dir);
	}
	if (failed)
		spw__swapfile_close(out);
	return failed;
}

void spw__swapfile_close(struct spw_swapfile *s)
{
	/* Not emptied: children of the program may live on and have pages in it. */
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

int spw__ghost_open(const char *path, uint64_t *pages)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct spw_swaphdr h;

	if (fd < 0)
		return spw__fail("--swap ghost:%s: %s", path, strerror(errno));
	int err = spw__swaphdr_read(fd, &h);
	close(fd);
	if (err)
		return spw__fail("--swap ghost:%s: no swap header; make one: spillway mkswap --ghost", path);
	*pages = h.last_page;
	return 0;
}
