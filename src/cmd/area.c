/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing to what somebody else uses destroys it, and open(2) alone does not tell. A block device is the kernel's
 * (mounted, swap, part of a RAID) or another spillway's when it cannot be opened O_EXCL. A file has no such claim: that
 * it is the kernel's swap is read in /proc/swaps, and where that names it by a path of another mount namespace, most
 * filesystems refuse even a write of no bytes; another spillway has it locked. A loop device claims neither what it
 * has behind it: /sys and the loop devices themselves say what that is.
 *
 * A device is locked too, but shared: udev locks it, shared, for the moment in which it looks what is there. That lock
 * is only the note which says who it is that has it open.
 */
#include "cmd/area.h"

#include <blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/say.h"

/* Is what `path` leads to the one of st? */
static bool is_same(const char *path, const struct stat *st)
{
	struct stat other;

	if (path[0] != '/' || stat(path, &other) || (other.st_mode & S_IFMT) != (st->st_mode & S_IFMT))
		return false;
	if (S_ISBLK(st->st_mode))
		return other.st_rdev == st->st_rdev;
	return other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

/* The first line of a table in the form of fstab (/proc/swaps is close enough) that begins with the one of st. */
static bool is_listed(const char *table, const struct stat *st, char *second, size_t size)
{
	FILE *f = setmntent(table, "re");
	struct mntent m;
	char line[8192];
	bool found = false;

	if (!f)
		return false;
	while (!found && getmntent_r(f, &m, line, sizeof(line)))
		found = is_same(m.mnt_fsname, st);
	if (found)
		snprintf(second, size, "%s", m.mnt_dir);
	endmntent(f);
	return found;
}

static bool is_kernel_swap(const struct stat *st)
{
	char type[16];

	return is_listed("/proc/swaps", st, type, sizeof(type));
}

/* Is the one of st behind that loop device? The kernel's own note; -errno: this user may not ask. */
static int is_behind(const char *loop, const struct stat *st)
{
	int fd = open(loop, O_RDONLY | O_CLOEXEC), err = 0;
	struct loop_info64 info;

	if (fd < 0 || ioctl(fd, LOOP_GET_STATUS64, &info))
		err = -errno;
	if (fd >= 0)
		close(fd);
	if (err)
		return err;
	if (S_ISBLK(st->st_mode))
		return info.lo_rdevice == st->st_rdev;
	return info.lo_device == st->st_dev && info.lo_inode == st->st_ino;
}

/*
 * The same by the name in /sys. It may be another mount namespace's, or gone while the inode has others; and to look
 * there may be to wait for somebody else's file system.
 */
static bool is_named_behind(const char *backing_file, const struct stat *st)
{
	FILE *f = fopen(backing_file, "re");
	char path[PATH_MAX + 1];
	size_t n = f ? fread(path, 1, sizeof(path) - 1, f) : 0;

	if (f)
		fclose(f);
	path[n ? n - 1 : 0] = '\0'; /* a newline ends it */
	return is_same(path, st);
}

/* The loop device that has the one of st behind it. */
static bool find_loop(const struct stat *st, char *loop, size_t size)
{
	glob_t all;
	bool found = false;

	if (glob("/sys/block/loop*/loop/backing_file", 0, NULL, &all))
		return false;
	for (size_t i = 0; i < all.gl_pathc && !found; i++) {
		const char *name = all.gl_pathv[i] + strlen("/sys/block/");

		snprintf(loop, size, "/dev/%.*s", (int)strcspn(name, "/"), name);
		int behind = is_behind(loop, st);
		found = behind < 0 ? is_named_behind(all.gl_pathv[i], st) : behind;
	}
	globfree(&all);
	return found;
}

static int fail_swap(const char *what, const char *path)
{
	return spw__fail("%s: in use as kernel swap; swapoff %s first, or name another", what, path);
}

static int fail_run(const char *what)
{
	return spw__fail("%s: in use by a spillway run; name another, or wait until it has ended", what);
}

/* A device that cannot be had alone. */
static int fail_busy(const char *what, const char *path, const struct stat *st)
{
	char where[512];

	if (is_kernel_swap(st))
		return fail_swap(what, path);
	if (is_listed("/proc/self/mounts", st, where, sizeof(where)))
		return spw__fail("%s: mounted on %s; umount it first, or name another device", what, where);

	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
	if (fd >= 0)
		close(fd);
	if (locked)
		return fail_run(what);
	return spw__fail("%s: in use by the kernel (mounted, or part of LVM, RAID or the like); lsblk %s shows by what",
			 what, path);
}

static int fail_open(const char *what, const char *path, const struct stat *st)
{
	switch (errno) {
	case EBUSY:
		return fail_busy(what, path, st);
	case EACCES:
	case EPERM:
		return spw__fail("%s: %s; it takes its owner or root, and leave to write", what, strerror(errno));
	default:
		return spw__fail("%s: %s", what, strerror(errno));
	}
}

/* Make sure that it is ours alone. */
static int claim(const char *what, const char *path, const struct stat *st, struct spw_area *a)
{
	char loop[64];

	if (flock(a->fd, (a->device ? LOCK_SH : LOCK_EX) | LOCK_NB))
		return errno == EWOULDBLOCK ? fail_run(what) : spw__fail("%s: flock: %s", what, strerror(errno));
	if (find_loop(st, loop, sizeof(loop)))
		return spw__fail("%s: in use as %s; losetup -d %s first, or name another", what, loop, loop);
	if (a->device && ioctl(a->fd, BLKGETSIZE64, &a->bytes))
		return spw__fail("%s: %s", what, strerror(errno));
	if (a->device)
		return a->bytes ? 0 : spw__fail("%s: a device with nothing behind it, 0 bytes; name another", what);
	if (is_kernel_swap(st) || (pwrite(a->fd, "", 0, 0) && errno == ETXTBSY))
		return fail_swap(what, path);
	a->bytes = (uint64_t)st->st_size;
	return 0;
}

int spw__area_open(const char *what, const char *path, struct spw_area *out)
{
	struct stat st;

	*out = (struct spw_area){.fd = -1};
	if (stat(path, &st))
		return spw__fail("%s: %s", what, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return spw__fail("%s: a directory; name a file in it, for instance %s/swap", what, path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return spw__fail("%s: neither a file nor a block device; name one", what);
	out->fd = open(path, O_RDWR | O_CLOEXEC | (S_ISBLK(st.st_mode) ? O_EXCL : 0));
	if (out->fd < 0)
		return fail_open(what, path, &st);

	int failed = fstat(out->fd, &st) ? spw__fail("%s: %s", what, strerror(errno)) : 0;
	if (!failed) {
		out->device = S_ISBLK(st.st_mode);
		out->mode = st.st_mode & 07777;
		out->owner = st.st_uid;
		failed = claim(what, path, &st, out);
	}
	if (failed)
		spw__area_close(out);
	return failed;
}

void spw__area_close(struct spw_area *a)
{
	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
}

/* ---- what is in it ---- */

static blkid_probe open_probe(const struct spw_area *a)
{
	blkid_probe p = blkid_new_probe();

	if (!p)
		return NULL;
	blkid_probe_enable_superblocks(p, 1);
	blkid_probe_set_superblocks_flags(p, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_MAGIC);
	blkid_probe_enable_partitions(p, 1);
	blkid_probe_set_partitions_flags(p, BLKID_PARTS_MAGIC);
	if (!blkid_probe_set_device(p, a->fd, 0, 0))
		return p;
	blkid_free_probe(p);
	return NULL;
}

/* The signature that the probe stands at, unless it is swap. */
static bool name_content(blkid_probe p, char name[SPW_AREA_CONTENT])
{
	const char *type;

	if (!blkid_probe_lookup_value(p, "TYPE", &type, NULL)) {
		if (!strcmp(type, "swap"))
			return false;
		snprintf(name, SPW_AREA_CONTENT, "%s", type);
		return true;
	}
	if (blkid_probe_lookup_value(p, "PTTYPE", &type, NULL))
		return false;
	snprintf(name, SPW_AREA_CONTENT, "%s partition table", type);
	return true;
}

int spw__area_content(const struct spw_area *a, char name[SPW_AREA_CONTENT])
{
	blkid_probe p = open_probe(a);
	bool named = false;
	int found = 0;

	name[0] = '\0';
	if (!p)
		return -EIO;
	while (!named && !(found = blkid_do_probe(p)))
		named = name_content(p, name);
	blkid_free_probe(p);
	return found < 0 ? -EIO : 0;
}

int spw__area_wipe(const struct spw_area *a)
{
	blkid_probe p = open_probe(a);
	int found = 0, failed = 0;

	if (!p)
		return -EIO;
	while (!failed && !(found = blkid_do_probe(p)))
		failed = blkid_do_wipe(p, 0);
	blkid_free_probe(p);
	return failed || found < 0 ? -EIO : 0;
}
