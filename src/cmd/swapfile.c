/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Swapped memory must not outlive the run by accident, be read by others, or overwrite somebody's file. So a swapfile
 * that is made here never has a name, not even where it was given one: a run that is killed cannot take a name away.
 * What is there already is taken only if it is empty or says itself, in its header, that it is swap and nothing else;
 * if nobody else has it; and if nobody but root and this user may read it. (The bytes are sealed, but encryption can be
 * turned off, and who may write can end the program.)
 */
#include "cmd/swapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "cmd/area.h"
#include "cmd/say.h"
#include "host/unlinked.h"

#define LEAST_BYTES (1ull << 20)
#define MOST_BYTES  (1ull << 40) /* what a slot can address */

int spw__swapfile_absolute(const char *path, char *out, size_t room)
{
	char cwd[PATH_MAX] = "";

	if (*path != '/' && !getcwd(cwd, sizeof(cwd)))
		return spw__fail("the working directory: %s", strerror(errno));
	if (snprintf(out, room, "%s%s%s", cwd, *path == '/' ? "" : "/", path) >= (int)room)
		return spw__fail("%s: too long", path);
	return 0;
}

/* A file that may grow does so in this run's processes. */
static void keep_limit(struct spw_swapfile *s)
{
	struct rlimit most;

	if (!getrlimit(RLIMIT_FSIZE, &most) && most.rlim_cur < s->max_bytes)
		s->max_bytes = most.rlim_cur;
	s->max_bytes &= ~(uint64_t)(SPW_PAGE - 1);
}

/* Settle the size of a file that this run may grow. */
static int size_new(const struct spw_swap *o, struct spw_swapfile *s, const char *where)
{
	char text[32];

	s->max_bytes = o->size.unit ? o->size.value : spw__unlinked_room(s->fd);
	if (s->max_bytes > MOST_BYTES && o->size.unit)
		return spw__fail("--swap file: size=%s is too large; a swapfile holds up to 1 TiB",
				 spw__size_text(s->max_bytes, text));
	if (s->max_bytes > MOST_BYTES)
		s->max_bytes = MOST_BYTES;
	keep_limit(s);
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
	struct spw_swaphdr h = {.label = "spillway"};
	int failed = size_new(o, s, s->path);

	if (failed)
		return failed;
	h.last_page = (uint32_t)(s->max_bytes / SPW_PAGE - 1);
	uuid_generate_random(h.uuid);
	int err = spw__swaphdr_write(s->fd, &h);
	if (err)
		return spw__fail("--swap file:%s: cannot write the swap header: %s", s->path, strerror(-err));
	return 0;
}

/* Who else may read what is swapped, or change it? A device's group is the administrator's choice, as for swapon(8). */
static int check_private(const struct spw_swap *o, const struct spw_area *a, const char *path)
{
	const char *force = o->encrypt ? ", or add ,force" : "";

	if (o->force)
		return 0;
	if (a->owner != 0 && a->owner != geteuid())
		return spw__fail("--swap file:%s: user %u owns it, who can read and change it; %s%s", path, a->owner,
				 geteuid() ? "name a file of your own" : "chown it to root", force);
	if (a->mode & (a->device ? 0007 : 0077))
		return spw__fail("--swap file:%s: mode %04o is open to others; chmod %s %s%s", path, a->mode,
				 a->device ? "660" : "600", path, force);
	return 0;
}

static int read_header(const struct spw_area *a, const char *path, struct spw_swaphdr *h)
{
	char content[SPW_AREA_CONTENT];

	if (spw__area_content(a, content))
		return spw__fail("--swap file:%s: cannot read what is in it; see dmesg", path);
	if (*content)
		return spw__fail(
			"--swap file:%s: it holds %s, which would be overwritten; name another, or, if that may be "
			"lost, make it swap: spillway mkswap --force %s",
			path, content, path);
	int err = spw__swaphdr_read(a->fd, h);
	if (err == -ENODATA)
		return spw__fail(
			"--swap file:%s: it has data in it that are no swap; name a file that does not exist yet, "
			"or, if they may be lost, make it swap: spillway mkswap %s",
			path, path);
	return err ? spw__fail("--swap file:%s: %s; if it is swap, make it anew: spillway mkswap %s", path,
			       spw__swaphdr_error(err), path)
		   : 0;
}

/* A file or device that is swap already: its header says what may be used. */
static int use_existing(const struct spw_swap *o, const struct spw_area *a, struct spw_swapfile *s)
{
	struct spw_swaphdr h;
	char named[32], has[32];
	int failed = read_header(a, s->path, &h);

	if (failed)
		return failed;
	s->max_bytes = ((uint64_t)h.last_page + 1) * SPW_PAGE;
	if (s->max_bytes > a->bytes)
		return spw__fail(
			"--swap file:%s: its header names %s, but it has %s; %s%s", s->path,
			spw__size_text(s->max_bytes, named), spw__size_text(a->bytes, has),
			a->device ? "make it anew: spillway mkswap " : "a ghost is used by --swap ghost:", s->path);
	if (o->size.unit && o->size.value < s->max_bytes)
		s->max_bytes = o->size.value & ~(uint64_t)(SPW_PAGE - 1);
	if (s->max_bytes > MOST_BYTES)
		s->max_bytes = MOST_BYTES;
	if (s->max_bytes < LEAST_BYTES)
		return spw__fail("--swap file:%s: too small; a swapfile has 1 MiB or more", s->path);
	s->bad_n = h.bad_pages;
	memcpy(s->bad, h.bad, sizeof(s->bad));
	return 0;
}

static int open_existing(const struct spw_swap *o, bool quiet, struct spw_swapfile *s, const char *what)
{
	struct spw_area a;
	int failed = spw__area_open(what, s->path, &a);

	if (failed)
		return failed;
	s->fd = a.fd; /* closed by the caller from now on */
	failed = check_private(o, &a, s->path);
	if (failed)
		return failed;
	/* It was ours alone; from now on every process that has pages there holds it too, and may outlive this one. */
	flock(s->fd, LOCK_SH);
	if (!a.device && spw__unlinked_in_ram(s->fd) && !quiet)
		spw__say("%s is in memory (tmpfs), which the cap does not count", what);
	return a.bytes ? use_existing(o, &a, s) : format_new(o, s);
}

static int open_named(const struct spw_swap *o, bool quiet, struct spw_swapfile *s)
{
	char what[PATH_MAX + 16], path[PATH_MAX];

	snprintf(s->path, sizeof(s->path), "%s", o->path);
	snprintf(what, sizeof(what), "--swap file:%s", s->path);
	s->first_byte = SPW_SWAPHDR_BYTES;
	if (!access(s->path, F_OK) || errno != ENOENT)
		return open_existing(o, quiet, s, what);

	snprintf(path, sizeof(path), "%s", s->path);
	s->fd = spw__unlinked_open(dirname(path));
	return s->fd < 0 ? spw__fail("%s: %s", what, strerror(errno)) : format_new(o, s);
}

/* -ENODATA also for what is no file. */
static int read_ghost(const char *path, struct spw_swaphdr *h)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe would make it wait */
	struct stat st;

	if (fd < 0)
		return -errno;
	int err = fstat(fd, &st) ? -errno : S_ISREG(st.st_mode) ? spw__swaphdr_read(fd, h) : -ENODATA;
	close(fd);
	return err;
}

int spw__ghost_open(const char *path, uint64_t *pages)
{
	struct spw_swaphdr h;
	int err = read_ghost(path, &h);

	if (err == -ENOENT || err == -ENODATA)
		return spw__fail("--swap ghost:%s: %s; make a ghost: spillway mkswap --ghost --size 8G PATH", path,
				 err == -ENOENT ? "does not exist" : "no swap header");
	if (err)
		return spw__fail("--swap ghost:%s: %s", path, spw__swaphdr_error(err));
	*pages = h.last_page;
	return 0;
}

int spw__swapfile_open(const struct spw_swap *o, bool quiet, struct spw_swapfile *out)
{
	int failed;

	*out = (struct spw_swapfile){.fd = -1};
	if (o->kind == SPW_SWAP_GHOST) {
		failed = spw__ghost_open(o->path, &out->pages);
	} else if (o->path) {
		failed = open_named(o, quiet, out);
	} else {
		const char *dir = spw__unlinked_dir();

		out->fd = spw__unlinked_open(dir);
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

/* ---- opened by another process ---- */

/*
 * Nothing below asks the file system, which may have ceased to answer: that the attributes need not be in step
 * (AT_STATX_DONT_SYNC) is what lets the kernel say what it knows.
 */
static int look(int fd, struct statx *st)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, st) ? -errno : 0;
}

static int fail_adopt(const struct spw_swap *o, const char *why)
{
	return spw__fail("--swap %s%s%s: %s; are both sides of the same version?",
			 o->kind == SPW_SWAP_GHOST ? "ghost" : "file", o->path ? ":" : "", o->path ? o->path : "", why);
}

static int adopt_ghost(const struct spw_swap *o, const struct spw_swapfile *s)
{
	return s->fd >= 0 || !s->pages || s->pages > UINT32_MAX ? fail_adopt(o, "no ghost was handed over") : 0;
}

static int adopt_file(const struct spw_swap *o, struct spw_swapfile *s)
{
	struct spw_area a = {.fd = s->fd};
	struct statx st;
	int flags = fcntl(s->fd, F_GETFL);

	if (flags < 0 || (flags & (O_ACCMODE | O_PATH)) != O_RDWR || look(s->fd, &st))
		return fail_adopt(o, "no file was handed over that is open for reading and writing");
	a.device = S_ISBLK(st.stx_mode);
	a.bytes = st.stx_size;
	a.mode = st.stx_mode & 07777;
	a.owner = st.stx_uid;
	if (!a.device && !S_ISREG(st.stx_mode))
		return fail_adopt(o, "neither a file nor a block device was handed over");
	if (a.device && ioctl(s->fd, BLKGETSIZE64, &a.bytes))
		return fail_adopt(o, strerror(errno));
	if (s->max_bytes > a.bytes || s->max_bytes > MOST_BYTES || s->max_bytes % SPW_PAGE || s->pages ||
	    (a.device && s->discard))
		return fail_adopt(o, "what was handed over is not as it was said to be");
	s->first_byte = o->path ? SPW_SWAPHDR_BYTES : 0;
	if (s->discard)
		keep_limit(s);
	if (s->max_bytes < LEAST_BYTES)
		return fail_adopt(o, "what was handed over is too small");
	return check_private(o, &a, s->path);
}

int spw__swapfile_adopt(const struct spw_swap *o, struct spw_swapfile *s)
{
	snprintf(s->path, sizeof(s->path), "%s", o->path ? o->path : "");
	return o->kind == SPW_SWAP_GHOST ? adopt_ghost(o, s) : adopt_file(o, s);
}

bool spw__swapfile_same(const struct spw_swapfile *a, const struct spw_swapfile *b)
{
	struct statx x, y;

	if (a->fd < 0 || b->fd < 0 || look(a->fd, &x) || look(b->fd, &y) || S_ISBLK(x.stx_mode) != S_ISBLK(y.stx_mode))
		return false;
	if (S_ISBLK(x.stx_mode))
		return x.stx_rdev_major == y.stx_rdev_major && x.stx_rdev_minor == y.stx_rdev_minor;
	return x.stx_dev_major == y.stx_dev_major && x.stx_dev_minor == y.stx_dev_minor && x.stx_ino == y.stx_ino;
}
