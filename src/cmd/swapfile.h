/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_SWAPFILE_H
#define SPW_CMD_SWAPFILE_H
/* The file or block device under the file tier, and what there is of a ghost's. */
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "cmd/options.h"
#include "tier/swaphdr.h"

struct spw_swapfile {
	int fd;              /* close-on-exec; -1 when there is none */
	uint64_t first_byte; /* where segments may begin */
	uint64_t max_bytes;  /* how far the file may reach */
	bool discard;        /* freed ranges may be given back to the filesystem */
	uint32_t bad_n;      /* pages that are never read or written, as the header names them */
	uint32_t bad[SPW_SWAPHDR_BAD];
	uint64_t pages;      /* of a ghost: what its header names; it has no descriptor, and of the above nothing */
	char path[PATH_MAX]; /* as it was given; what is made there has no name */
};

/* The path as it can be said in every working directory. 0, or SPW_EXIT_FAILED with the one line said. */
int spw__swapfile_absolute(const char *path, char *out, size_t room);

/* A file or a ghost. 0, or SPW_EXIT_FAILED with the one line said. */
int spw__swapfile_open(const struct spw_swap *o, bool quiet, struct spw_swapfile *out);
void spw__swapfile_close(struct spw_swapfile *s);

/*
 * The other way to have one: *s is as another process of this user has opened it for `o` and says that it is. What can
 * be looked at without the file system is, and what follows from `o` is filled in. 0, or SPW_EXIT_FAILED with the one
 * line said.
 */
int spw__swapfile_adopt(const struct spw_swap *o, struct spw_swapfile *s);
/* Are both the same file or device? Without waiting for the file system. */
bool spw__swapfile_same(const struct spw_swapfile *a, const struct spw_swapfile *b);

/*
 * How many pages of swap the header at path says there are; page 0, the header, is not one of them. It is opened for
 * reading and closed again. 0, or SPW_EXIT_FAILED with the one line said.
 */
int spw__ghost_open(const char *path, uint64_t *pages);

#endif
