/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_HOST_SPLIT_H
#define SPW_HOST_SPLIT_H
/*
 * How much of the cap the pool is to take, and how much is left to what is resident. See split.c.
 *
 * Of one pool; turn() is for one that has a file below it. out(), soon() and in() may be called by any thread; turn() by
 * one at a time.
 */
#include "tier/tier.h"

#include <stdbool.h>

#define SPW__SPLIT_TRACKED 4096u
#define SPW__SPLIT_OCTAVES 17u

/* Atomics, without order, but for `turned` and `less`, which are turn()'s. Zeroed to begin with. */
struct spw__split {
	uint64_t most;       /* bytes that the pool is to take, 0 = as many as it may */
	uint64_t out;        /* pages that went out, ever: the clock */
	uint64_t turned;     /* the clock at the last turn */
	bool less;           /* that turn found the pool too large */
	uint64_t reach;      /* pages: who comes back within so many evictions is near */
	uint64_t half;       /* evictions: who comes back from the pool after more was in its older half */
	uint64_t near;       /* of the sample, pages that came back near; since the last turn, as all below */
	uint64_t near_ns;    /* what they cost */
	uint64_t far;        /* of the sample, pages from the older half of the pool */
	uint64_t hits[2];    /* pages that were read from [0] the pool, [1] a file */
	uint64_t hits_ns[2]; /* what they cost */
	uint64_t seen;       /* of the sample, pages that went out; fades, as the next */
	uint64_t back[SPW__SPLIT_OCTAVES]; /* and those that came back, by log2 of the evictions in between */
	struct {
		uint32_t entry, when;
	} went[SPW__SPLIT_TRACKED]; /* of the sample: what went out, and the clock then */
};

/* The page of e has been stored. */
void spw__split_out(struct spw__split *s, spw_entry_t e);
/* How many pages that come back within so many evictions the page of e stands for: 0 for most. Before in(). */
unsigned spw__split_soon(const struct spw__split *s, spw_entry_t e, uint64_t evictions);
/* It has come back, in ns, from the file or the pool. */
void spw__split_in(struct spw__split *s, spw_entry_t e, bool from_file, uint64_t ns);
/*
 * Move the split if it is time. resident: pages; pool: its bytes and pages; least, limit: bytes that it may be. The
 * result is s->most.
 */
void spw__split_turn(struct spw__split *s, uint64_t resident, const struct spw_tier_stats *pool, uint64_t least,
		     uint64_t limit);
#endif
