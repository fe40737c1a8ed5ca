/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A swapfile with a name outlives the process that is killed, with what was swapped in it. One without is gone with its
 * last descriptor. Where the filesystem cannot make one, it has a name for a moment.
 */
#include "host/unlinked.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <unistd.h>

bool spw__unlinked_in_ram(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static bool directory_in_ram(const char *dir)
{
	int fd = open(dir, O_PATH | O_CLOEXEC);
	bool yes = fd >= 0 && spw__unlinked_in_ram(fd);

	if (fd >= 0)
		close(fd);
	return yes;
}

const char *spw__unlinked_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && *dir && !directory_in_ram(dir) ? dir : "/var/tmp";
}

int spw__unlinked_open(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char path[PATH_MAX];

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd;
	snprintf(path, sizeof(path), "%s/spillway-XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

uint64_t spw__unlinked_room(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) ? 0 : (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize / 10 * 9;
}
