/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_TRACE_H
#define SPW_TRACE_H
/*
 * A trace: which pages a program touched, in order.
 *
 *	magic    8 bytes, "spwtrc1\n"
 *	records  varints (LEB128): zigzag(page - page of the record before, 0 at first) * 2 + (1: it is written)
 *	end      a byte 0, which no record is; varint: how many data accesses the records stand for
 *
 * A page is an address / 4096. An access is left out when its page is among the last SPW_TRACE_NEAR distinct ones and
 * was recorded within the last SPW_TRACE_AGAIN records. So LRU of more pages than that has the same misses as on the
 * whole; and what evicts a page that is in use all the time is seen to be wrong within that many records.
 *
 * The kind of a record is that of the access that made it: what is written to later, while its page is near, is not
 * seen.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define SPW_TRACE_MAGIC "spwtrc1\n"
#define SPW_TRACE_NEAR  8u
#define SPW_TRACE_AGAIN 64u

/* A trace in memory. Its pages are numbered in the order in which they were first touched. */
struct spw_trace {
	uint32_t *page;  /* by record */
	uint32_t n;      /* records */
	uint32_t pages;  /* distinct ones */
	uint32_t writes; /* records that are written to */
	uint64_t accesses;
};

/* Read one to its end. NULL, or what is wrong with it; the caller frees it with spw__trace_free() either way. */
const char *spw__trace_read(FILE *f, struct spw_trace *t);
void spw__trace_free(struct spw_trace *t);
#endif
