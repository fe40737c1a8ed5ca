/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `spillway mkswap`: a swap area in the kernel's format, or a ghost, which is its header alone. What makes it more than
 * writing a page is what must not happen. Nothing is written before all that can be refused has been looked at;
 * signatures of what was there before go, wherever they are, or the next tool believes them; and the kernel takes no
 * file with holes, nor one that is copied on write.
 */
#include "cmd/mkswap.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "cmd/area.h"
#include "cmd/help.h"
#include "cmd/options.h"
#include "cmd/say.h"
#include "tier/swaphdr.h"

#define LEAST_BYTES ((uint64_t)SPW_SWAPHDR_LEAST * SPW_PAGE)
#define MOST_BYTES  (((uint64_t)UINT32_MAX + 1) * SPW_PAGE)

struct request {
	const char *path;
	bool ghost, force, help;
	uint64_t bytes; /* 0: as large as it is */
	struct spw_swaphdr header;
};

/* ---- the command line ---- */

static int set_size(struct request *q, const char *text)
{
	if (spw__size_parse(text, &q->bytes) || !q->bytes)
		return spw__fail("mkswap: --size %s: not a size; say for instance --size 512M or --size 2G", text);
	return 0;
}

static int set_label(struct request *q, const char *text)
{
	if (strlen(text) > SPW_SWAPHDR_LABEL)
		return spw__fail("mkswap: --label %s: %zu bytes are too long; a label has at most %u", text,
				 strlen(text), SPW_SWAPHDR_LABEL);
	snprintf(q->header.label, sizeof(q->header.label), "%s", text);
	return 0;
}

static int set_uuid(struct request *q, const char *text)
{
	if (uuid_parse(text, q->header.uuid))
		return spw__fail("mkswap: --uuid %s: not a UUID; leave it out for a random one", text);
	return 0;
}

static int apply(struct request *q, int option, char **argv)
{
	switch (option) {
	case 'g':
		q->ghost = true;
		return 0;
	case 'f':
		q->force = true;
		return 0;
	case 'h':
		q->help = true;
		return 0;
	case 's':
		return set_size(q, optarg);
	case 'L':
		return set_label(q, optarg);
	case 'U':
		return set_uuid(q, optarg);
	case ':':
		return spw__fail("mkswap: %s: needs a value; see spillway mkswap --help", argv[optind - 1]);
	default:
		return spw__fail("mkswap: %s: unknown option, or one that takes no value; see spillway mkswap --help",
				 argv[optind - 1]);
	}
}

static int parse(struct request *q, int argc, char **argv)
{
	static const struct option options[] = {
		{"ghost", no_argument, NULL, 'g'},
		{"size", required_argument, NULL, 's'},
		{"label", required_argument, NULL, 'L'},
		{"uuid", required_argument, NULL, 'U'},
		{"force", no_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":fs:L:U:h", options, NULL)) != -1) {
		int failed = apply(q, option, argv);
		if (failed || q->help)
			return failed;
	}
	if (optind == argc)
		return spw__fail("mkswap: no PATH given; say for instance: spillway mkswap --size 2G PATH");
	if (argc - optind > 1)
		return spw__fail("mkswap: %s: one PATH at a time; a size is given by --size", argv[optind + 1]);
	q->path = argv[optind];
	if (q->ghost && !q->bytes)
		return spw__fail(
			"mkswap: --ghost: needs --size, which is what the header is to say; for instance --size 8G");
	return 0;
}

/* ---- what may not be done ---- */

static int settle_size(struct request *q, const struct spw_area *a, const char *what)
{
	char have[32], want[32];

	if (!q->bytes && !a->bytes)
		return spw__fail("%s: it is empty; say how large it is to be, for instance --size 2G", what);
	if (a->device && q->bytes > a->bytes)
		return spw__fail("%s: --size %s is more than the device has, %s; leave --size out to take all of it",
				 what, spw__size_text(q->bytes, want), spw__size_text(a->bytes, have));
	if (!q->bytes)
		q->bytes = a->bytes;
	q->bytes &= ~(uint64_t)(SPW_PAGE - 1);
	if (q->bytes < LEAST_BYTES)
		return spw__fail("%s: %s is too small for swap; the least is 40K", what,
				 spw__size_text(q->bytes, have));
	if (q->bytes > MOST_BYTES)
		return spw__fail("%s: %s is too large; a swap header can say 16T at most, so say --size 16T", what,
				 spw__size_text(q->bytes, have));
	q->header.last_page = (uint32_t)(q->bytes / SPW_PAGE - 1);
	return 0;
}

/* What is there and would be lost. */
static int check_content(const struct request *q, const struct spw_area *a, const char *what)
{
	char content[SPW_AREA_CONTENT];
	struct spw_swaphdr old;

	if (q->ghost && a->device)
		return spw__fail("%s: a ghost is a file; name one that does not exist yet, or leave --ghost out", what);
	if (!a->bytes || q->force)
		return 0;
	if (spw__area_content(a, content))
		return spw__fail("%s: cannot read what is in it; see dmesg", what);
	if (*content)
		return spw__fail("%s: it holds %s, which would be lost; name another, or say --force", what, content);
	if (q->ghost && spw__swaphdr_read(a->fd, &old))
		return spw__fail(
			"%s: it has data, which would be lost; name a file that does not exist yet, or say --force",
			what);
	return 0;
}

/* ---- doing it ---- */

/* As swap, an empty file: the kernel refuses copy on write, which can only be turned off before there are bytes. */
static void forbid_copies(int fd)
{
	int flags;

	if (!ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
		flags |= FS_NOCOW_FL;
		ioctl(fd, FS_IOC_SETFLAGS, &flags); /* most filesystems know no such thing, and need it not */
	}
}

static int settle_length(const struct request *q, const struct spw_area *a, const char *what)
{
	char text[32];
	int err;

	if (a->device)
		return 0;
	if (q->ghost)
		return ftruncate(a->fd, SPW_SWAPHDR_BYTES) ? spw__fail("%s: %s", what, strerror(errno)) : 0;
	if (!a->bytes)
		forbid_copies(a->fd);
	err = posix_fallocate(a->fd, 0, (off_t)q->bytes);
	if (!err)
		return 0;
	if (ftruncate(a->fd, (off_t)a->bytes))
		spw__say("%s: what was allocated of it stays: %s", what, strerror(errno));
	return spw__fail("%s: no %s to be had: %s; free some, or say a smaller --size", what,
			 spw__size_text(q->bytes, text), strerror(err));
}

static int write_area(const struct request *q, const struct spw_area *a, const char *what)
{
	int failed = settle_length(q, a, what);

	if (failed)
		return failed;
	if (a->bytes && spw__area_wipe(a))
		return spw__fail("%s: cannot take away the signatures of what was there; see dmesg", what);
	int err = spw__swaphdr_write(a->fd, &q->header);
	if (!err && fsync(a->fd))
		err = -errno;
	return err ? spw__fail("%s: cannot write the header: %s", what, strerror(-err)) : 0;
}

static void report(const struct request *q, const struct spw_area *a, const char *what)
{
	uint64_t bytes = (uint64_t)q->header.last_page * SPW_PAGE;
	char text[32], uuid[UUID_STR_LEN];

	uuid_unparse_lower(q->header.uuid, uuid);
	printf("Setting up swapspace version 1, size = %s (%llu bytes)%s\n", spw__size_text(bytes, text),
	       (unsigned long long)bytes, q->ghost ? ", a ghost: the file is its header alone" : "");
	printf("%s%s, UUID=%s\n", *q->header.label ? "LABEL=" : "no label", q->header.label, uuid);
	if (!a->device && a->mode & 0077)
		spw__say("%s: mode %04o is open to others, and so refused as swap; chmod 600 %s", what, a->mode,
			 q->path);
}

static int make(struct request *q, const char *what)
{
	struct spw_area a;
	int failed = spw__area_open(what, q->path, &a);

	if (failed)
		return failed;
	failed = settle_size(q, &a, what);
	if (!failed)
		failed = check_content(q, &a, what);
	if (!failed)
		failed = write_area(q, &a, what);
	if (!failed)
		report(q, &a, what);
	spw__area_close(&a);
	return failed;
}

int spw__mkswap(int argc, char **argv)
{
	struct request q = {0};
	char what[PATH_MAX + 16];
	bool created = false;

	uuid_generate_random(q.header.uuid);
	int failed = parse(&q, argc, argv);
	if (failed || q.help)
		return failed ? failed : spw__help_mkswap();
	snprintf(what, sizeof(what), "mkswap: %s", q.path);

	if (access(q.path, F_OK) && errno == ENOENT) {
		if (!q.bytes)
			return spw__fail("%s: does not exist yet; say how large it is to be, for instance --size 2G",
					 what);
		int fd = open(q.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0)
			return spw__fail("%s: %s", what, strerror(errno));
		close(fd);
		created = true;
	}
	failed = make(&q, what);
	if (failed && created)
		unlink(q.path);
	return failed;
}
