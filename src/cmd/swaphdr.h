/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_SWAPHDR_H
#define SPW_CMD_SWAPHDR_H
/* The header page of a Linux swap area (SWAPSPACE2), which blkid, swaplabel and mkswap know. */
#include <stdint.h>

struct spw_swaphdr {
	uint32_t last_page; /* number of the last usable page; page 0 is the header */
	uint32_t bad_pages;
};

/* Read it from the start of fd. 0, -ENODATA when there is none, or -errno. */
int spw__swaphdr_read(int fd, struct spw_swaphdr *out);

/* Write a fresh one, with a random UUID and the label "spillway". 0 or -errno. */
int spw__swaphdr_write(int fd, uint32_t last_page);

#endif
