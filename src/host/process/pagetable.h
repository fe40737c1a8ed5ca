/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_PAGETABLE_H
#define SPW_PROCESS_PAGETABLE_H
/*
 * The process host's page table: which swap entry stands behind an address. See pagetable.c.
 *
 * All functions need the host lock. Addresses are bytes; ranges are whole pages.
 */
#include "space/space.h"

#define SPW_LEAF_BYTES ((uint64_t)SPW_CLUSTER * SPW_PAGE) /* 2 MiB: what one leaf covers */
#define SPW_RUN_BYTES  (64u << 10)                        /* the unit of sweeping */
#define SPW_LEAF_RUNS  32u                                /* SPW_LEAF_BYTES / SPW_RUN_BYTES */

struct spw__pt {
	struct spw__space *space;
	uint64_t *leaf;      /* by address / SPW_LEAF_BYTES; see pagetable.c */
	uint8_t *age;        /* by address / SPW_RUN_BYTES: what reclaim remembers of a run */
	uint32_t *table;     /* explicit leaves, SPW_CLUSTER entry indexes each */
	uint32_t tables;     /* of them in use or on the free list */
	uint32_t free_table; /* head of the free list + 1; 0 = empty */
	bool sharing;        /* pages may share an entry: all leaves are explicit */
	uint32_t *orphan;    /* clusters without a leaf, given back when their entries are FREE */
	uint32_t orphans;
	uint64_t out; /* pages that are out */
};

/* sharing: pages may come to share an entry, by spw__pt_share(). */
int spw__pt_init(struct spw__pt *pt, struct spw__space *sp, bool sharing);

/* The entry of the page at va, or idx SPW_ENTRY_NONE. An entry may be FREE: ask spw_kind(). */
spw_entry_t spw__pt_lookup(const struct spw__pt *pt, uint64_t va);
/* See to it that the leaf of va exists. -ENOMEM. */
int spw__pt_reserve(struct spw__pt *pt, uint64_t va);
/* The same as lookup, made if there is none: the page has to go out at once (went_out). -ENOMEM. */
int spw__pt_entry(struct spw__pt *pt, uint64_t va, spw_entry_t *e);
/* The page at va, which is out, is behind e from now on, of which it is one holder. Its old entry is the caller's. */
void spw__pt_share(struct spw__pt *pt, uint64_t va, spw_entry_t e);
/* n entries of the leaf of va came to life / were freed by the caller. */
void spw__pt_went_out(struct spw__pt *pt, uint64_t va, unsigned n);
void spw__pt_came_in(struct spw__pt *pt, uint64_t va, unsigned n);
/* Let go of the leaf of va if, after all, none of its pages went out. */
void spw__pt_settle(struct spw__pt *pt, uint64_t va);
/* Free every entry of [start, end). Returns how many pages were out. */
uint64_t spw__pt_free_range(struct spw__pt *pt, uint64_t start, uint64_t end);
/* mremap: the pages out of [from, from + len) are now those of [to, to + len). -ENOMEM: nothing may be lost, die. */
int spw__pt_move_range(struct spw__pt *pt, uint64_t from, uint64_t to, uint64_t len);
/* The first page that is out at or after va and before end; end if none. */
uint64_t spw__pt_next_out(const struct spw__pt *pt, uint64_t va, uint64_t end);
/* Give back clusters whose last page has come in since they lost their leaf. */
void spw__pt_trim(struct spw__pt *pt);
/* Resident bytes of the table. */
uint64_t spw__pt_metadata(const struct spw__pt *pt);

static inline uint8_t *spw__pt_age(const struct spw__pt *pt, uint64_t va)
{
	return &pt->age[va / SPW_RUN_BYTES];
}
#endif
