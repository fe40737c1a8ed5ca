/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Allocation of equal objects in blocks.
 *
 * Objects die in an order that has nothing to do with the order of their birth, so whatever the placing, holes appear
 * everywhere. Filling the holes of whatever block comes first leaves every block a little empty, and no memory
 * can go back. So a class sorts its blocks into groups by fullness and always fills the fullest: full blocks stay
 * full, empty ones drain. What stays behind all the same is for compaction, which asks for the emptiest.
 *
 * The list of freed objects lives in their headers, and objects never used are counted, not listed, so a new block is
 * not touched before its memory is needed.
 */
#include "tier/size_class.h"

#define NO_UNIT           0xffffu
#define LOOK              8u /* blocks compared when looking for the emptiest of a group */
#define FORM_CODING_SHIFT 12

/* Statistics are read without the lock that orders their writers. */
#define ADD(field, n) __atomic_store_n(&(field), (field) + (n), __ATOMIC_RELAXED)

static struct spw__object *object_at(const struct spw__blocks *bs, uint64_t offset)
{
	return (struct spw__object *)(bs->base + offset);
}

void spw__class_init(struct spw__class *c, unsigned number, unsigned size)
{
	c->number = (uint8_t)number;
	c->size = (uint16_t)size;
	c->per_block = (uint16_t)(SPW_BLOCK / size);
	c->group_step = (SPW_GROUPS << 16) / c->per_block;
	for (unsigned i = 0; i < SPW_GROUPS; i++)
		c->group[i] = SPW_BLOCK_NONE;
}

static unsigned group_of(const struct spw__class *c, unsigned live)
{
	return live == c->per_block ? SPW_GROUPS : live * c->group_step >> 16;
}

static void enter_group(struct spw__class *c, struct spw__blocks *bs, uint32_t b, unsigned g, bool at_end)
{
	if (g == SPW_GROUPS)
		return;
	spw__block_link(bs->block, SPW_BY_FULLNESS, &c->group[g], b, at_end);
	c->groups |= (uint8_t)(1u << g);
}

static void leave_group(struct spw__class *c, struct spw__blocks *bs, uint32_t b, unsigned g)
{
	if (g == SPW_GROUPS)
		return;
	spw__block_unlink(bs->block, SPW_BY_FULLNESS, &c->group[g], b);
	if (c->group[g] == SPW_BLOCK_NONE)
		c->groups &= (uint8_t) ~(1u << g);
}

static void set_live(struct spw__class *c, struct spw__blocks *bs, uint32_t b, unsigned live)
{
	unsigned from = group_of(c, bs->block[b].live), to = group_of(c, live);

	bs->block[b].live = (uint16_t)live;
	if (from != to) {
		leave_group(c, bs, b, from);
		enter_group(c, bs, b, to, false);
	}
}

static int add_block(struct spw__class *c, struct spw__blocks *bs)
{
	uint32_t b;
	int err = spw__block_take(bs, spw__class_is_raw(c->number), &b);

	if (err)
		return err;
	bs->block[b].live = bs->block[b].fresh = 0;
	bs->block[b].free = NO_UNIT;
	__atomic_store_n(&bs->block[b].cls, c->number, __ATOMIC_RELAXED);
	enter_group(c, bs, b, 0, false);
	ADD(c->blocks, 1);
	return 0;
}

static uint64_t pop_object(struct spw__class *c, struct spw__blocks *bs, uint32_t b)
{
	struct spw__block *k = &bs->block[b];
	uint64_t offset = (uint64_t)b * SPW_BLOCK;

	if (k->free == NO_UNIT)
		return offset + (uint64_t)c->size * k->fresh++;
	offset += (uint64_t)k->free * SPW_UNIT;
	k->free = object_at(bs, offset)->form;
	if (!(__atomic_load_n(&k->age, __ATOMIC_RELAXED) & SPW_AGE_YOUNG))
		__atomic_fetch_or(&k->age, SPW_AGE_YOUNG, __ATOMIC_RELAXED);
	return offset;
}

int spw__class_alloc(struct spw__class *c, struct spw__blocks *bs, uint32_t entry, uint16_t form, unsigned len,
		     uint64_t *offset)
{
	struct spw__object *o;
	uint32_t b;
	int err = 0;

	spw__spin_lock(&c->lock);
	if (!c->groups)
		err = add_block(c, bs);
	if (!err) {
		b = c->group[31 - __builtin_clz(c->groups)];
		*offset = pop_object(c, bs, b);
		o = object_at(bs, *offset);
		o->entry = entry;
		o->form = form;
		set_live(c, bs, b, bs->block[b].live + 1u);
		if (spw__class_is_raw(c->number) &&
		    !(__atomic_load_n(&bs->block[b].age, __ATOMIC_RELAXED) & SPW_AGE_FIRST))
			spw__block_put_first(bs, b);
		ADD(c->live, 1);
		ADD(c->puts, 1);
		ADD(c->stored_bytes, len);
	}
	spw__spin_unlock(&c->lock);
	return err;
}

void spw__class_free(struct spw__class *c, struct spw__blocks *bs, uint64_t offset, unsigned len)
{
	uint32_t b = (uint32_t)(offset / SPW_BLOCK);
	struct spw__block *k = &bs->block[b];
	struct spw__object *o = object_at(bs, offset);
	bool empty;

	__builtin_prefetch(o, 1);
	spw__spin_lock(&c->lock);
	o->entry = SPW_ENTRY_NONE;
	o->form = k->free;
	k->free = (uint16_t)(offset % SPW_BLOCK / SPW_UNIT);
	set_live(c, bs, b, k->live - 1u);
	ADD(c->live, -1);
	ADD(c->stored_bytes, -(uint64_t)len);
	empty = !k->live;
	if (empty) {
		leave_group(c, bs, b, 0);
		__atomic_store_n(&k->cls, SPW_CLASS_NONE, __ATOMIC_RELAXED);
		ADD(c->blocks, -1);
	}
	spw__spin_unlock(&c->lock);
	if (empty)
		spw__block_give(bs, b);
}

unsigned spw__class_objects(struct spw__class *c, struct spw__blocks *bs, uint32_t b, unsigned tier, spw_entry_t *e,
			    spw_slot_t *s, unsigned max)
{
	uint64_t offset = (uint64_t)b * SPW_BLOCK;
	unsigned n = 0;

	spw__spin_lock(&c->lock);
	if (spw__class_of(bs, b) == c->number) {
		for (unsigned i = 0; i < bs->block[b].fresh && n < max; i++, offset += c->size) {
			const struct spw__object *o = object_at(bs, offset);

			if (o->entry == SPW_ENTRY_NONE)
				continue;
			e[n].idx = o->entry;
			s[n++] = spw__slot(tier, offset, o->form >> FORM_CODING_SHIFT, (o->form & (SPW_PAGE - 1)) + 1u);
		}
	}
	spw__spin_unlock(&c->lock);
	return n;
}

uint64_t spw__class_holes(const struct spw__class *c)
{
	uint64_t room = (uint64_t)__atomic_load_n(&c->blocks, __ATOMIC_RELAXED) * c->per_block;
	uint64_t live = __atomic_load_n(&c->live, __ATOMIC_RELAXED);

	return room > live ? room - live : 0;
}

uint32_t spw__class_emptiest(struct spw__class *c, struct spw__blocks *bs)
{
	uint32_t best = SPW_BLOCK_NONE, b;
	unsigned g;

	spw__spin_lock(&c->lock);
	if (spw__class_holes(c) >= c->per_block) {
		g = (unsigned)__builtin_ctz(c->groups);
		/* From the end: what an earlier round left behind is there. */
		b = best = bs->block[c->group[g]].link[SPW_BY_FULLNESS].prev;
		for (unsigned i = 1; i < LOOK; i++) {
			b = bs->block[b].link[SPW_BY_FULLNESS].prev;
			if (bs->block[b].live < bs->block[best].live)
				best = b;
		}
		leave_group(c, bs, best, g);
		enter_group(c, bs, best, g, true);
	}
	spw__spin_unlock(&c->lock);
	return best;
}
