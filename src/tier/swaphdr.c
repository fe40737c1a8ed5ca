/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * A file with swapped memory in it that no tool recognises looks like garbage to be deleted, or like free space to be
 * formatted. So a named swapfile says what it is in the format that exists for that. What is read may be anybody's
 * bytes, and the kernel has no byte order of the format: it takes the one in which the version is 1. So does this.
 */
#include "tier/swaphdr.h"

#include <byteswap.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

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
	uint32_t padding[117];
	uint32_t bad[SPW_SWAPHDR_BAD];
	char rest[2];
	char signature[SIGNATURE_LEN];
};
_Static_assert(sizeof(struct header) == SPW_SWAPHDR_BYTES, "the header is one page");

int spw__swaphdr_parse(const void *page, struct spw_swaphdr *out)
{
	struct header h;

	memcpy(&h, page, sizeof(h));
	if (memcmp(h.signature, signature, SIGNATURE_LEN))
		return -ENODATA;
	const bool swapped = bswap_32(h.version) == 1;
	if (!swapped && h.version != 1)
		return -EPROTONOSUPPORT;

	*out = (struct spw_swaphdr){
		.last_page = swapped ? bswap_32(h.last_page) : h.last_page,
		.bad_pages = swapped ? bswap_32(h.bad_pages) : h.bad_pages,
	};
	if (!out->last_page || out->bad_pages > SPW_SWAPHDR_BAD)
		return -EINVAL;
	for (uint32_t i = 0; i < out->bad_pages; i++) {
		out->bad[i] = swapped ? bswap_32(h.bad[i]) : h.bad[i];
		if (!out->bad[i] || out->bad[i] > out->last_page)
			return -EINVAL;
	}
	memcpy(out->uuid, h.uuid, sizeof(out->uuid));
	memcpy(out->label, h.label, SPW_SWAPHDR_LABEL);
	return 0;
}

void spw__swaphdr_format(const struct spw_swaphdr *in, void *page)
{
	struct header h = {.version = 1, .last_page = in->last_page, .bad_pages = in->bad_pages};

	memcpy(h.bad, in->bad, in->bad_pages * sizeof(h.bad[0]));
	memcpy(h.uuid, in->uuid, sizeof(h.uuid));
	memcpy(h.label, in->label, SPW_SWAPHDR_LABEL);
	memcpy(h.signature, signature, SIGNATURE_LEN);
	memcpy(page, &h, sizeof(h));
}

const char *spw__swaphdr_error(int err)
{
	switch (err) {
	case -ENODATA:
		return "no swap header";
	case -EPROTONOSUPPORT:
		return "its swap header is not of version 1";
	case -EINVAL:
		return "its swap header is damaged: it names no page, or a bad page that is not there";
	default:
		return strerror(-err);
	}
}

int spw__swaphdr_read(int fd, struct spw_swaphdr *out)
{
	char page[SPW_SWAPHDR_BYTES];
	ssize_t got = pread(fd, page, sizeof(page), 0);

	if (got < 0)
		return -errno;
	return got == sizeof(page) ? spw__swaphdr_parse(page, out) : -ENODATA;
}

int spw__swaphdr_write(int fd, const struct spw_swaphdr *h)
{
	char page[SPW_SWAPHDR_BYTES];

	spw__swaphdr_format(h, page);
	ssize_t put = pwrite(fd, page, sizeof(page), 0);
	if (put < 0)
		return -errno;
	return put == sizeof(page) ? 0 : -ENOSPC;
}
