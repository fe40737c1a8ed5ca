/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_AREA_H
#define SPW_CMD_AREA_H
/* A file or block device that is swap or is to become it: opened so that nobody else has it, and looked into. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SPW_AREA_CONTENT 64

struct spw_area {
	int fd; /* for reading and writing, close-on-exec; the locks live as long as it */
	bool device;
	uint64_t bytes;
	mode_t mode; /* permission bits */
	uid_t owner;
};

/*
 * Open what is at path. Refused: what is neither a file nor a block device, what is mounted, the kernel's swap, what a
 * loop device has behind it, what another spillway has open, and what may not be written. 0, or SPW_EXIT_FAILED with
 * the one line said, which begins with `what`; out->fd is then -1.
 */
int spw__area_open(const char *what, const char *path, struct spw_area *out);
void spw__area_close(struct spw_area *a);

/* Name what libblkid finds in it other than swap, "ext4" or "gpt partition table"; "" for nothing. 0 or -errno. */
int spw__area_content(const struct spw_area *a, char name[SPW_AREA_CONTENT]);
/* Take away every signature that libblkid finds, swap too. 0 or -errno. */
int spw__area_wipe(const struct spw_area *a);

#endif
