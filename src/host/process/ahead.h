/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_AHEAD_H
#define SPW_PROCESS_AHEAD_H
/*
 * Which pages come in with the one that was asked for. See ahead.c.
 *
 * All functions need the host lock. Addresses are bytes, of whole pages. Zeroed to begin with.
 */
#include <stdint.h>

#define SPW__WINDOW_MAX    32u /* pages fetched for one fault at most */
#define SPW__AHEAD_STREAMS 8u
#define SPW__AHEAD_BLOCKS  1024u
#define SPW__AHEAD_TRIALS  256u
#define SPW__AHEAD_LEVELS  5u

struct spw__ahead {
	struct {
		uint64_t next;   /* address that would continue it */
		uint32_t window; /* pages fetched last time */
	} stream[SPW__AHEAD_STREAMS];
	uint32_t stream_hand;
	uint32_t faults; /* the clock */
	uint32_t level;  /* of the last fault, 0 = a stream's, or nothing around it was wanted */
	struct {
		uint32_t block; /* its number, 0 = none */
		uint32_t when;
		uint32_t level; /* log2 of the pages fetched around its last fault */
	} late[SPW__AHEAD_BLOCKS];
	struct {
		uint64_t va; /* a page that was left where it is, 0 = none */
		uint32_t level;
	} trial[SPW__AHEAD_TRIALS];
	int32_t worth[SPW__AHEAD_LEVELS]; /* how often trials succeed, about 0 */
};

/* Pages [from, to), bytes; the one that was asked for among them. */
struct spw__ahead_span {
	uint64_t from, to;
};

/* How many pages to fetch from va on: grows while the faults continue a stream. */
unsigned spw__ahead_stream(struct spw__ahead *h, uint64_t va);
/* So many have come. */
void spw__ahead_advance(struct spw__ahead *h, uint64_t va, unsigned pages);
/* What may be worth to be fetched for the fault at va, which is stored: a stream's window, or what lies around it. */
struct spw__ahead_span spw__ahead_wanted(struct spw__ahead *h, uint64_t va);
/* Those of it that are out, and lie beside each other and va: what is to be fetched of these. */
struct spw__ahead_span spw__ahead_choose(struct spw__ahead *h, uint64_t va, struct spw__ahead_span out);
#endif
