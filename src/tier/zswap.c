/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The compressed pool: objects of 1 to 4096 bytes in RAM, dense, movable, with no index of their own.
 *
 * A general allocator gives a compressed page an address and forgets it: it cannot say which pages are old, it cannot
 * move one to close a gap, and it rounds sizes for the sake of small objects. Here every object carries the entry that
 * owns it, so a block can be read as a list of pages: the oldest block is what to write back, the emptiest what to
 * move away. Its slot is its offset in one reserved range; its length and coding are in the slot and, two bytes of
 * it, in its header, so that a block yields exact slots.
 *
 *	put    -> size_class.c (a lock a class) -> block.c (one lock, once a block)
 *	map    -> an addition
 *	free   -> size_class.c                  -> block.c when the block is empty
 */
#include "tier/zswap.h"

#include "tier/size_class.h"

#include <errno.h>
#include <string.h>

#define MAX_CLASSES 96u
#define LARGEST     ((SPW_OBJECT_HEADER + SPW_PAGE + SPW_UNIT - 1) / SPW_UNIT * SPW_UNIT)
#define SMALLEST    32u
#define RANGE_MAX   (1ull << 40) /* what a slot can address */

/* Compaction begins when free memory is more than this share of the blocks', and more than this many bytes. */
#define WASTE_SHARE  16u
#define WASTE_MIN    (1u << 20)
/* The oldest block may have been emptied before it is looked at. */
#define VICTIM_TRIES 8u

struct zswap {
	struct spw_tier tier;
	size_t reserved;
	uint64_t capacity;
	uint8_t class_by_units[LARGEST / SPW_UNIT + 1]; /* of an object of so many units */
	unsigned classes;
	struct spw__blocks blocks;
	struct spw__class size_class[MAX_CLASSES];
	uint64_t maps __attribute__((aligned(128))); /* atomic, on a line of its own */
};

static struct zswap *zswap_of(struct spw_tier *t)
{
	return (struct zswap *)t;
}

static int zswap_put(struct spw_tier *t, spw_entry_t e, const struct spw_obj *o, spw_slot_t *out)
{
	struct zswap *z = zswap_of(t);
	unsigned units = (SPW_OBJECT_HEADER + o->len + SPW_UNIT - 1) / SPW_UNIT;
	struct spw__class *c = &z->size_class[z->class_by_units[units]];
	uint64_t offset;
	spw_slot_t form = spw__slot(0, 0, o->coding, o->len);
	int err = spw__class_alloc(c, &z->blocks, e.idx, (uint16_t)form.v, o->len, &offset);

	if (err)
		return err;
	memcpy(z->blocks.base + offset + SPW_OBJECT_HEADER, o->data, o->len);
	*out = spw__slot(t->number, offset, o->coding, o->len);
	return 0;
}

static const void *zswap_map(struct spw_tier *t, spw_slot_t s)
{
	struct zswap *z = zswap_of(t);

	__atomic_fetch_add(&z->maps, 1, __ATOMIC_RELAXED);
	return z->blocks.base + spw__slot_offset(s) + SPW_OBJECT_HEADER;
}

static void zswap_free(struct spw_tier *t, spw_slot_t s)
{
	struct zswap *z = zswap_of(t);
	uint64_t offset = spw__slot_offset(s);
	unsigned cls = spw__class_of(&z->blocks, (uint32_t)(offset / SPW_BLOCK));

	spw__class_free(&z->size_class[cls], &z->blocks, offset, spw__slot_len(s));
}

static unsigned zswap_victims(struct spw_tier *t, spw_entry_t *e, spw_slot_t *s, unsigned max)
{
	struct zswap *z = zswap_of(t);

	for (unsigned i = 0; i < VICTIM_TRIES; i++) {
		uint32_t b = spw__block_oldest(&z->blocks);
		unsigned cls, n;

		if (b == SPW_BLOCK_NONE)
			return 0;
		cls = spw__class_of(&z->blocks, b);
		if (cls == SPW_CLASS_NONE)
			continue;
		n = spw__class_objects(&z->size_class[cls], &z->blocks, b, t->number, e, s, max);
		if (n)
			return n;
	}
	return 0;
}

static unsigned zswap_sparse(struct spw_tier *t, spw_entry_t *e, spw_slot_t *s, unsigned max)
{
	struct zswap *z = zswap_of(t);
	uint64_t resident = spw__blocks_resident_bytes(&z->blocks), used = 0, worst = 0;
	struct spw__class *c = NULL;
	uint32_t b;

	for (unsigned i = 0; i < z->classes; i++) {
		uint64_t holes = spw__class_holes(&z->size_class[i]);

		used += __atomic_load_n(&z->size_class[i].live, __ATOMIC_RELAXED) * z->size_class[i].size;
		if (holes >= z->size_class[i].per_block && holes * z->size_class[i].size > worst) {
			worst = holes * z->size_class[i].size;
			c = &z->size_class[i];
		}
	}
	if (!c || resident <= used + WASTE_MIN || resident - used <= resident / WASTE_SHARE)
		return 0;
	b = spw__class_emptiest(c, &z->blocks);
	return b == SPW_BLOCK_NONE ? 0 : spw__class_objects(c, &z->blocks, b, t->number, e, s, max);
}

static void zswap_stats(struct spw_tier *t, struct spw_tier_stats *out)
{
	struct zswap *z = zswap_of(t);

	*out = (struct spw_tier_stats){
		.capacity_bytes = __atomic_load_n(&z->capacity, __ATOMIC_RELAXED),
		.used_bytes = spw__blocks_resident_bytes(&z->blocks),
		.reads = __atomic_load_n(&z->maps, __ATOMIC_RELAXED),
	};
	for (unsigned i = 0; i < z->classes; i++) {
		out->pages += __atomic_load_n(&z->size_class[i].live, __ATOMIC_RELAXED);
		out->stored_bytes += __atomic_load_n(&z->size_class[i].stored_bytes, __ATOMIC_RELAXED);
		out->writes += __atomic_load_n(&z->size_class[i].puts, __ATOMIC_RELAXED);
	}
	out->metadata_bytes = (sizeof(*z) + SPW_PAGE - 1) / SPW_PAGE * SPW_PAGE +
			      spw__blocks_metadata_bytes(&z->blocks) + out->pages * SPW_OBJECT_HEADER;
}

static void zswap_destroy(struct spw_tier *t)
{
	spw__plat_release(t, zswap_of(t)->reserved);
}

static const struct spw_tier_ops ops = {
	.kind = "zswap",
	.put = zswap_put,
	.map = zswap_map,
	.victims = zswap_victims,
	.sparse = zswap_sparse,
	.free = zswap_free,
	.stats = zswap_stats,
	.destroy = zswap_destroy,
};

/*
 * Sizes by how many objects fill a block, so that its end is never wasted: one object more from class to class
 * where the pages of a 2:1 to 4:1 program are, then a 24th more, then, among the few small ones, an 8th.
 */
static void make_classes(struct zswap *z)
{
	unsigned per_block = SPW_BLOCK / LARGEST, size, units = LARGEST / SPW_UNIT;

	do {
		size = SPW_BLOCK / per_block / SPW_UNIT * SPW_UNIT;
		for (; units * SPW_UNIT > size; units--)
			z->class_by_units[units] = (uint8_t)(z->classes - 1);
		spw__class_init(&z->size_class[z->classes], z->classes, size);
		z->classes++;
		per_block += per_block < 48 ? 1 : per_block < 128 ? per_block / 24 : per_block / 8;
	} while (size > SMALLEST);
	memset(z->class_by_units, (int)z->classes - 1, units + 1);
}

static void set_capacity(struct zswap *z, uint64_t size_bytes)
{
	__atomic_store_n(&z->capacity, size_bytes == UINT64_MAX ? 0 : size_bytes, __ATOMIC_RELAXED);
}

int spw__zswap_create(unsigned number, const char *name, uint64_t size_bytes, uint64_t reserve_bytes,
		      struct spw_tier **out)
{
	size_t head = (sizeof(struct zswap) + SPW_PAGE - 1) / SPW_PAGE * SPW_PAGE, reserved;
	uint32_t blocks = (uint32_t)(reserve_bytes / SPW_BLOCK);
	struct zswap *z;

	if (number >= SPW_MAX_TIERS || !blocks || reserve_bytes > RANGE_MAX)
		return -EINVAL;
	reserved = head + spw__blocks_size(blocks);
	z = spw__plat_reserve(reserved);
	if (!z)
		return -ENOMEM;
	if (spw__plat_commit(z, head)) {
		spw__plat_release(z, reserved);
		return -ENOMEM;
	}
	z->tier = (struct spw_tier){.ops = &ops, .name = name, .number = (uint8_t)number};
	z->reserved = reserved;
	set_capacity(z, size_bytes);
	make_classes(z);
	spw__blocks_init(&z->blocks, (char *)z + head, blocks, size_bytes);
	*out = &z->tier;
	return 0;
}

void spw__zswap_set_size(struct spw_tier *t, uint64_t size_bytes)
{
	set_capacity(zswap_of(t), size_bytes);
	spw__blocks_set_limit(&zswap_of(t)->blocks, size_bytes);
}
