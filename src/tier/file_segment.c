/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The bytes of a segment.
 *
 * Cleaning must know whose the objects of a segment are. Kept in RAM that would cost more than a descriptor for each
 * page on the file, so it is written behind the objects. A segment is filled by one batch or, when little is written
 * at a time, by several, one after the other:
 *
 *   batch:   objects, each [tag][bytes] from a multiple of 16 | nothing | [tag][owners] | footer
 *            from a block's first byte                                     to a block's last byte
 *
 * The footer alone is readable without the key; it says how many owners there are and where the batch begins, and is
 * authenticated by the seal of the owners. The reader goes from the end of the segment to its begin and trusts nothing:
 * a block may end with anything, from bytes of the segment's last life to those of a write that failed.
 */
#include "tier/file_internal.h"

#include <string.h>

#define FOOTER_MAGIC 0x53777053u

struct footer {
	uint32_t magic;
	uint32_t n;
	uint32_t base;
	uint32_t zero;
};

_Static_assert(sizeof(struct footer) == SPW_UNIT, "objects and owners stay aligned");

static uint32_t owners_bytes(uint32_t n)
{
	return n * (uint32_t)sizeof(struct spw__owner);
}

uint32_t spw__owners_size(uint32_t n)
{
	return SPW__TAG + spw__file_align(owners_bytes(n), SPW_UNIT) + (uint32_t)sizeof(struct footer);
}

static struct spw__seal_id owners_id(const struct spw__seg_place *p, uint32_t base, uint32_t n)
{
	return (struct spw__seal_id){.slot = p->offset + base, .entry = n, .segment = p->seg};
}

uint32_t spw__batch_close(const struct spw__seg_place *p, uint8_t *data, uint32_t base, uint32_t used,
			  const struct spw_move *moves, uint32_t n)
{
	uint32_t size = spw__owners_size(n), bytes = spw__file_align(used + size, SPW__BLOCK), at = bytes - size;
	struct footer footer = {.magic = FOOTER_MAGIC, .n = n, .base = base};
	struct spw__seal_id id = owners_id(p, base, n);
	uint8_t *owners = data + at + SPW__TAG;

	memset(data + used, 0, bytes - used);
	for (uint32_t i = 0; i < n; i++) {
		struct spw__owner o = {.entry = moves[i].entry.idx, .word = moves[i].to.v & 0x3fff};

		memcpy(owners + owners_bytes(i), &o, sizeof(o));
	}
	spw__seal(p->seal, p->gen, base + at, &id, owners, owners_bytes(n), data + at);
	memcpy(data + bytes - sizeof(footer), &footer, sizeof(footer));
	return bytes;
}

void spw__seg_reader_init(struct spw__seg_reader *r, const struct spw__seg_place *p, uint8_t *data)
{
	*r = (struct spw__seg_reader){.place = *p, .data = data, .blocks = SPW__SEG_BLOCKS};
}

/* Find the batch that ends with the last block that was not walked. */
static bool open_batch(struct spw__seg_reader *r)
{
	uint32_t end = r->blocks * SPW__BLOCK, size;
	struct spw__seal_id id;
	struct footer f;

	memcpy(&f, r->data + end - sizeof(f), sizeof(f));
	if (f.magic != FOOTER_MAGIC || f.zero || !f.n || f.n > SPW__MOVES_MAX || f.base % SPW__BLOCK || f.base >= end)
		return false;
	size = spw__owners_size(f.n);
	if (size > end - f.base)
		return false;
	id = owners_id(&r->place, f.base, f.n);
	r->end = end - size;
	r->owners = r->data + r->end + SPW__TAG;
	if (spw__unseal(r->place.seal, r->place.gen, r->end, &id, r->data + r->end, owners_bytes(f.n),
			r->data + r->end + SPW__TAG))
		return false;
	r->n = f.n;
	r->next = 0;
	r->at = f.base;
	r->blocks = f.base / SPW__BLOCK;
	return true;
}

bool spw__seg_next(struct spw__seg_reader *r, spw_entry_t *e, spw_slot_t *s, struct spw_obj *o, uint64_t *bad)
{
	for (;;) {
		while (r->next < r->n) {
			const struct spw__seg_place *p = &r->place;
			uint8_t *sealed = r->data + r->at;
			struct spw__seal_id id;
			struct spw__owner own;
			uint32_t at = r->at, len;

			memcpy(&own, r->owners + owners_bytes(r->next++), sizeof(own));
			len = (own.word & 0xfffu) + 1;
			if (len + SPW__TAG > r->end - at) {
				r->next = r->n;
				*bad += 1;
				break;
			}
			r->at += spw__file_align(len + SPW__TAG, SPW_UNIT);
			*e = (spw_entry_t){own.entry};
			*s = spw__slot(p->tier, p->offset + at, own.word >> 12 & 3, len);
			*o = (struct spw_obj){.data = sealed + SPW__TAG, .len = len, .coding = own.word >> 12 & 3};
			id = (struct spw__seal_id){.slot = s->v, .entry = own.entry, .segment = p->seg};
			if (!spw__unseal(p->seal, p->gen, at, &id, sealed, len, sealed + SPW__TAG))
				return true;
			*bad += 1;
		}
		if (!r->blocks)
			return false;
		if (!open_batch(r))
			r->blocks--;
	}
}
