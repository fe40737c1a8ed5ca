/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_TIER_SWAPHDR_H
#define SPW_TIER_SWAPHDR_H
/*
 * The header page of a Linux swap area (SWAPSPACE2, version 1, 4096-byte pages), which the kernel, blkid, swaplabel and
 * mkswap know. Nothing here says anything or keeps state. Errors are -errno.
 */
#include <stdint.h>

#define SPW_SWAPHDR_BYTES 4096u
#define SPW_SWAPHDR_BAD   637u /* bad pages that fit between the list's begin and the signature */
#define SPW_SWAPHDR_LABEL 15u  /* bytes of a label, without the NUL behind it */
#define SPW_SWAPHDR_LEAST 10u  /* pages of the smallest area that mkswap makes, header included */

struct spw_swaphdr {
	uint32_t last_page; /* number of the last usable page; page 0 is the header */
	uint32_t bad_pages; /* how many of `bad` are meant */
	uint32_t bad[SPW_SWAPHDR_BAD];
	uint8_t uuid[16];
	char label[SPW_SWAPHDR_LABEL + 1];
};

/*
 * What a page of SPW_SWAPHDR_BYTES says, in either byte order. -ENODATA: it is no swap header. -EPROTONOSUPPORT: not
 * version 1. -EINVAL: no page, too many bad pages, or a bad page that is no page of the area. On error *out is
 * undefined.
 */
int spw__swaphdr_parse(const void *page, struct spw_swaphdr *out);
/* The reverse, in this machine's byte order. */
void spw__swaphdr_format(const struct spw_swaphdr *h, void *page);
/* An error of parse or read, in words that go on after "PATH: ". */
const char *spw__swaphdr_error(int err);

/* Read the header at the start of fd: what parse says, -ENODATA for less than a page, or what pread(2) says. */
int spw__swaphdr_read(int fd, struct spw_swaphdr *out);
/* Write it to the start of fd. 0 or -errno. */
int spw__swaphdr_write(int fd, const struct spw_swaphdr *h);

#endif
