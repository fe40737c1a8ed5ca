/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_TIER_SIZE_CLASS_H
#define SPW_TIER_SIZE_CLASS_H
/*
 * A size class: the blocks that are cut into objects of one size. See size_class.c.
 */
#include "tier/block.h"

#define SPW_GROUPS 8u

/* What every object begins with. In a freed one, entry is SPW_ENTRY_NONE and form the next freed object's unit. */
struct spw__object {
	uint32_t entry;
	uint16_t form; /* length - 1 and coding, as in the low bits of a slot */
	uint8_t data[];
};
#define SPW_OBJECT_HEADER ((unsigned)offsetof(struct spw__object, data))

struct spw__class {
	struct spw__spin lock; /* of the class, of its blocks' descriptions and of the headers of their objects */
	uint8_t number;
	uint8_t groups;             /* bit set: the group has a block */
	uint16_t size;              /* bytes of an object, header and all */
	uint16_t per_block;         /* objects of a block */
	uint32_t group_step;        /* groups per object, 16.16 fixed point */
	uint32_t group[SPW_GROUPS]; /* partly full blocks by fullness; full ones are in no group */
	/* Written under the lock, read without. */
	uint32_t blocks;
	uint64_t live, stored_bytes, puts;
} __attribute__((aligned(128)));

void spw__class_init(struct spw__class *c, unsigned number, unsigned size);

/*
 * An object with its header written; its offset in the range of blocks. 0, -ENOSPC, -ENOMEM. len is for the
 * statistics; form as above.
 */
int spw__class_alloc(struct spw__class *c, struct spw__blocks *bs, uint32_t entry, uint16_t form, unsigned len,
		     uint64_t *offset);
void spw__class_free(struct spw__class *c, struct spw__blocks *bs, uint64_t offset, unsigned len);

/* Live objects of block b, in order of address, at most max. 0 if b is not of this class any more. */
unsigned spw__class_objects(struct spw__class *c, struct spw__blocks *bs, uint32_t b, unsigned tier, spw_entry_t *e,
			    spw_slot_t *s, unsigned max);

/* Free objects of blocks in use, as far as known without the lock. */
uint64_t spw__class_holes(const struct spw__class *c);

/* The emptiest block, if the holes of the others can take its objects; else SPW_BLOCK_NONE. It will be filled last. */
uint32_t spw__class_emptiest(struct spw__class *c, struct spw__blocks *bs);

/* The class of a block in use; SPW_CLASS_NONE. Stable only while an object of it is known to be live. */
static inline unsigned spw__class_of(const struct spw__blocks *bs, uint32_t b)
{
	return __atomic_load_n(&bs->block[b].cls, __ATOMIC_RELAXED);
}

/* Class 0 has the largest objects: whole pages. */
static inline bool spw__class_is_raw(unsigned number)
{
	return number == 0;
}

#endif
