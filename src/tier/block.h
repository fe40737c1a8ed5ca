/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_TIER_BLOCK_H
#define SPW_TIER_BLOCK_H
/*
 * Blocks: the pieces of one reserved range that size classes are made of. Supply, memory limit and age. See block.c.
 */
#include "platform/spin.h"
#include "space/entry.h"

#define SPW_BLOCK       65536u
#define SPW_BLOCK_NONE  UINT32_MAX
#define SPW_BLOCK_CACHE 128u /* most free blocks that stay resident */
#define SPW_CLASS_NONE  0xffu

enum spw__block_list { SPW_BY_FULLNESS, SPW_BY_AGE, SPW_BLOCK_LISTS };

#define SPW_AGE_YOUNG 1u /* an object was put into a hole since the block last went to the end of its queue */
#define SPW_AGE_FIRST 2u /* it is in the queue of incompressible pages; changed by the supply only */

/* What is known of a block, outside of it. The links by age belong to the supply, the rest to its class. */
struct spw__block {
	struct {
		uint32_t prev, next; /* circular */
	} link[SPW_BLOCK_LISTS];
	uint16_t live;  /* objects */
	uint16_t fresh; /* objects ever allocated; those behind have never been written */
	uint16_t free;  /* first freed object, in units of the block */
	uint8_t cls;    /* atomic */
	uint8_t age;    /* atomic: SPW_AGE_* */
};

struct spw__blocks {
	char *base;
	struct spw__block *block;
	uint64_t *idle; /* bit set: not in use and not resident, to be had again */
	uint32_t max;   /* blocks of the range */

	struct spw__spin lock; /* of all below */
	uint32_t limit;        /* most resident blocks */
	uint32_t top;          /* blocks ever used; those behind have no memory in any array */
	uint32_t idle_count;
	uint32_t idle_hint; /* no bit is set in words before this one */
	uint32_t resident;  /* in use, cached, or about to be discarded */
	uint32_t cached;
	uint32_t cache[SPW_BLOCK_CACHE + 1]; /* the last for a block on its way in */
	uint32_t oldest[2]; /* queues: [1] blocks of incompressible pages not named since the last put, [0] others */
};

/* Bytes of address space for max blocks. Laid out at mem by init, which must be zero and page aligned. */
size_t spw__blocks_size(uint32_t max);
void spw__blocks_init(struct spw__blocks *bs, void *mem, uint32_t max, uint64_t limit_bytes);
void spw__blocks_set_limit(struct spw__blocks *bs, uint64_t bytes);

/* A block for a class, the youngest of its queue. 0, -ENOSPC (limit or range), -ENOMEM. */
int spw__block_take(struct spw__blocks *bs, bool first, uint32_t *b);
/* Back from the class, empty. May enter the kernel to return memory. */
void spw__block_give(struct spw__blocks *bs, uint32_t b);
/* The oldest block, incompressible ones first; it becomes the youngest of all. SPW_BLOCK_NONE if there is none. */
uint32_t spw__block_oldest(struct spw__blocks *bs);
/* Back to the queue of incompressible pages: the block in use has got another one. */
void spw__block_put_first(struct spw__blocks *bs, uint32_t b);

/* Memory of blocks, and of what describes them. */
uint64_t spw__blocks_resident_bytes(struct spw__blocks *bs);
uint64_t spw__blocks_metadata_bytes(struct spw__blocks *bs);

/* Lists of blocks. The caller holds the lock of the list. */
static inline void spw__block_link(struct spw__block *block, enum spw__block_list l, uint32_t *head, uint32_t b,
				   bool at_end)
{
	uint32_t next = *head, prev;

	if (next == SPW_BLOCK_NONE) {
		block[b].link[l].prev = block[b].link[l].next = *head = b;
		return;
	}
	prev = block[next].link[l].prev;
	block[b].link[l].prev = prev;
	block[b].link[l].next = next;
	block[prev].link[l].next = block[next].link[l].prev = b;
	if (!at_end)
		*head = b;
}

static inline void spw__block_unlink(struct spw__block *block, enum spw__block_list l, uint32_t *head, uint32_t b)
{
	uint32_t next = block[b].link[l].next, prev = block[b].link[l].prev;

	if (next == b) {
		*head = SPW_BLOCK_NONE;
		return;
	}
	block[prev].link[l].next = next;
	block[next].link[l].prev = prev;
	if (*head == b)
		*head = next;
}

#endif
