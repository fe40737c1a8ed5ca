/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Twins: entries whose pages have the same bytes.
 *
 * An index of all that is stored would cost each entry as much as its descriptor, and each free a search. So there is a
 * table of fixed size that is only a hint: the fingerprint of an object picks a set of 8 words, one cache line, and
 * each word has 32 more bits of a fingerprint and the entry that was stored under it. Nobody takes a word out. An entry
 * that a word names may be FREE by now, hold something else, or be of a cluster that is not there; whoever asks locks
 * it, as one does with any hint, and compares the bytes.
 *
 * What is compared is the object, not the page: it has been made anyway, one codec makes the same object of the same
 * page, and so nothing is decompressed. A twin in a frame is left alone, for its page may be about to change, and
 * one on a file too, for it would have to be read. And one whose cluster may use other tiers: its bytes would be kept
 * where one of the two has been denied to have them.
 */
#include "space/internal.h"

#define WAYS 8u

static uint64_t *set_of(const struct spw__space *sp, uint64_t print)
{
	return &sp->twin[print & (sp->max_twins - WAYS)];
}

static uint32_t tag_of(uint64_t print)
{
	return (uint32_t)(print >> 32);
}

static uint16_t denied_to(const struct spw__space *sp, spw_entry_t e)
{
	return SPW__LOAD(sp->table[spw__cluster_of(e)].denied);
}

/* Lock e if it holds the very object o in a RAM tier, in no frame, and if it may be put on the same tiers. */
static bool lock_equal(struct spw__space *sp, spw_entry_t e, const struct spw_obj *o, uint16_t denied, uint64_t *w)
{
	struct spw_obj its;

	if (spw_kind(sp, e) != SPW_POOL || !spw__lock(sp, e, w))
		return false;
	if (spw__word_kind(*w) == SPW_POOL && denied_to(sp, e) == denied) {
		its = spw__mapped(sp, spw__word_slot(*w));
		if (its.len == o->len && its.coding == o->coding && !memcmp(its.data, o->data, o->len))
			return true;
	}
	spw__unlock(sp, e, *w);
	return false;
}

bool spw__twin_find(struct spw__space *sp, spw_entry_t e, const struct spw_obj *o, uint64_t print, spw_entry_t *twin)
{
	const uint64_t *set = set_of(sp, print);
	uint64_t w;

	for (unsigned i = 0; i < WAYS; i++) {
		uint64_t hint = SPW__LOAD(set[i]);

		*twin = (spw_entry_t){(uint32_t)hint};
		if (hint >> 32 != tag_of(print) || twin->idx == e.idx ||
		    !lock_equal(sp, *twin, o, denied_to(sp, e), &w))
			continue;
		spw__unlock(sp, *twin, w);
		return true;
	}
	return false;
}

void spw__twin_note(struct spw__space *sp, spw_entry_t e, uint64_t print)
{
	uint64_t *set = set_of(sp, print);
	/* With all words in use any one goes: which of them still say the truth is not worth eight looks. */
	unsigned way = tag_of(print) % WAYS;

	for (unsigned i = 0; i < WAYS; i++) {
		uint64_t hint = SPW__LOAD(set[i]);

		if (hint && hint >> 32 != tag_of(print))
			continue;
		way = i;
		/*
		 * What is said of these bytes already was not true any more, or this entry would not have been stored.
		 */
		if (hint)
			break;
	}
	__atomic_store_n(&set[way], (uint64_t)tag_of(print) << 32 | e.idx, __ATOMIC_RELAXED);
}

int spw_join(struct spw__space *sp, struct spw_work *work, spw_entry_t twin)
{
	uint64_t w;
	int rc;

	if (!lock_equal(sp, twin, &work->made, work->made_denied, &w))
		return -ESTALE;
	rc = spw__hold(sp, twin, &w);
	spw__unlock(sp, twin, w);
	if (!rc)
		SPW__ADD(spw__shard(sp, twin)->joins, 1);
	return rc;
}
