/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file with swapped memory in it that no tool recognises looks like garbage to be deleted, or like free space to be
 * formatted. So a named swapfile says what it is in the format that exists for that. The page goes through O_DIRECT
 * descriptors too, hence the aligned buffer.
 */
#include "cmd/swaphdr.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define HEADER_PAGE 4096
static const char signature[] = "SWAPSPACE2";
#define SIGNATURE_LEN (sizeof(signature) - 1)

/* As in the kernel's include/linux/swap.h: the fields after the boot block; the signature ends the page. */
struct header {
	char boot[1024];
	uint32_t version;
	uint32_t last_page;
	uint32_t bad_pages;
	uint8_t uuid[16];
	char label[16];
	char rest[HEADER_PAGE - 1024 - 3 * 4 - 32 - SIGNATURE_LEN];
	char signature[SIGNATURE_LEN];
} __attribute__((aligned(HEADER_PAGE)));
_Static_assert(sizeof(struct header) == HEADER_PAGE, "the header is one page");

int spw__swaphdr_read(int fd, struct spw_swaphdr *out)
{
	struct header h;
	ssize_t got = pread(fd, &h, sizeof(h), 0);

	if (got < 0)
		return -errno;
	if (got < (ssize_t)sizeof(h) || memcmp(h.signature, signature, SIGNATURE_LEN) || h.version != 1)
		return -ENODATA;
	*out = (struct spw_swaphdr){.last_page = h.last_page, .bad_pages = h.bad_pages};
	return 0;
}

int spw__swaphdr_write(int fd, uint32_t last_page)
{
	struct header h = {.version = 1, .last_page = last_page, .label = "spillway"};

	memcpy(h.signature, signature, SIGNATURE_LEN);
	if (getrandom(h.uuid, sizeof(h.uuid), 0) != sizeof(h.uuid))
		return -EIO;
	h.uuid[6] = (h.uuid[6] & 0x0f) | 0x40; /* version 4: random */
	h.uuid[8] = (h.uuid[8] & 0x3f) | 0x80;
	ssize_t put = pwrite(fd, &h, sizeof(h), 0);
	if (put < 0)
		return -errno;
	return put == sizeof(h) ? 0 : -ENOSPC;
}
