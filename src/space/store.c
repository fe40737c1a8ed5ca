/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Store and load: a page to where its entry's bytes are kept, and back.
 *
 * Compressing under the entry's lock would make a fault on the entry wait for it; compressing without it means that the
 * entry can change meanwhile. So a store makes the object first, unlocked, and then locks, looks again and only
 * places it. A load from RAM decompresses under the lock, which is as short as a copy and saves one. A load from
 * a batch tier sleeps and cannot hold a spin lock: it reads, locks and looks whether the entry still says the same
 * slot in the same life; if not, what was read is worth nothing, error or not, and the load begins again.
 */
#include "codec/fingerprint.h"
#include "space/internal.h"
#include "space/same.h"

int spw__put(struct spw__space *sp, spw_entry_t e, const struct spw_obj *o, spw_slot_t *out)
{
	uint32_t shut = spw__shut_to(sp, e);
	int rc = -ENOSPC;

	for (struct spw_tier **t = sp->order; *t; t++) {
		int one;

		if (spw__is_batch(*t) || shut & 1u << (*t)->number)
			continue;
		SPW__HOOK(SPW__PUT_CHOSEN, e);
		one = (*t)->ops->put(*t, e, o, out);
		if (!one)
			return 0;
		if (one != -ENOSPC)
			rc = one;
	}
	return rc;
}

void spw__replace(struct spw__space *sp, spw_entry_t e, uint64_t was, uint64_t w, uint64_t backing)
{
	bool stored = spw__word_stored(backing), moving = backing & SPW__MOVING;

	if (stored && moving)
		spw__orphan_add(sp, spw__word_slot(backing));
	spw__publish(sp, e, was, w);
	SPW__HOOK(SPW__REPLACED, e);
	if (stored && !moving)
		spw__slot_free(sp, spw__word_slot(backing));
}

/* Whether a store of `frame`'s page, or of an uncached page, fits what the entry is now. */
static bool store_fits(uint64_t w, uint32_t frame)
{
	if (frame == SPW_NO_FRAME)
		return spw__word_kind(w) != SPW_FRAME;
	return spw__word_kind(w) == SPW_FRAME && spw__word_payload(w) == frame;
}

/* twin NULL: store whatever others hold. */
static int store(struct spw__space *sp, struct spw_work *work, spw_entry_t e, const void *page, uint32_t frame,
		 spw_entry_t *twin)
{
	struct spw_obj o = {.data = page, .len = SPW_PAGE, .coding = SPW_CODING_RAW};
	uint64_t w, backing, new = 0, print = 0;
	struct spw__shard *stat;
	uint32_t pattern;
	bool same;
	int rc = 0;

	if (!store_fits(spw__peek(sp, e), frame))
		return -ESTALE;
	same = spw__same_filled(page, &pattern);
	if (!same) {
		uint32_t len = spw__codec_compress(&sp->codec, work->codec, page, work->page, SPW__STORE_LIMIT);

		if (len)
			o = (struct spw_obj){.data = work->page, .len = len, .coding = sp->codec.coding};
	}
	if (sp->twin && !same && spw__entry_valid(sp, e)) {
		print = spw__fingerprint(&o, sp->twin_key);
		if (twin && spw__twin_find(sp, e, &o, print, twin)) {
			work->made = o;
			work->made_denied = SPW__LOAD(sp->table[spw__cluster_of(e)].denied);
			return SPW_TWIN;
		}
	}
	SPW__HOOK(SPW__STORE_READY, e);
	/* A frame's store may come late, when not even the cluster is there any more: it must find a live word. */
	if (frame != SPW_NO_FRAME) {
		if (!spw__lock(sp, e, &w))
			return -ESTALE;
	} else if (!spw__lock_owned(sp, e, &w)) {
		return -ENOENT;
	}
	if (!store_fits(w, frame)) {
		rc = -ESTALE;
	} else if (same) {
		new = spw__word(SPW_SAME, pattern);
	} else {
		spw_slot_t s;

		rc = spw__put(sp, e, &o, &s);
		if (!rc)
			new = spw__word(SPW_POOL, s.v);
	}
	if (rc) {
		spw__unlock(sp, e, w);
		return rc;
	}
	backing = spw__word_kind(w) == SPW_FRAME ? spw__frame_leave(sp, w) : w;
	if (!w)
		spw__cluster_live(sp, spw__cluster_of(e));
	spw__replace(sp, e, w, new | (w ? w & SPW__COUNT_MASK : SPW__COUNT_ONE), backing);
	stat = spw__shard(sp, e);
	SPW__ADD(stat->stores, 1);
	if (same)
		SPW__ADD(stat->same_stores, 1);
	else if (sp->twin)
		spw__twin_note(sp, e, print);
	return 0;
}

int spw_store(struct spw__space *sp, struct spw_work *work, spw_entry_t e, const void *page, uint32_t frame)
{
	return store(sp, work, e, page, frame, NULL);
}

int spw_store_or_find(struct spw__space *sp, struct spw_work *work, spw_entry_t e, const void *page, uint32_t frame,
		      spw_entry_t *twin)
{
	return store(sp, work, e, page, frame, twin);
}

/* Read the object at s, unlocked. 0, -errno, or -EAGAIN if what was read is not what the entry says now. */
static int load_slot(struct spw__space *sp, struct spw_work *work, spw_entry_t e, spw_slot_t s, void *page)
{
	struct spw_obj o = {.data = work->page, .len = spw__slot_len(s), .coding = (uint8_t)spw__slot_coding(s)};
	struct spw_tier *t = spw__tier_of(sp, s);
	uint64_t life = t->ops->life(t, s), w;
	int rc = t->ops->get(t, e, s, work->page);
	bool still;

	SPW__HOOK(SPW__LOAD_READ, e);
	if (!spw__lock(sp, e, &w))
		return -EAGAIN;
	/*
	 * An entry that was stored and moved again while the read slept may have landed on the very same slot. What was
	 * read then is worth nothing, error or not: the slot may have been another process's in between, and that one's
	 * page of an entry of this number passes the seal too.
	 */
	still = spw__word_stored(w) && spw__slot_same(spw__word_slot(w), s) && t->ops->life(t, s) == life;
	spw__unlock(sp, e, w);
	if (!still)
		return -EAGAIN;
	return rc ? rc : spw__codec_restore(work->codec, &o, page);
}

int spw_load(struct spw__space *sp, struct spw_work *work, spw_entry_t e, void *page, spw_slot_t *where)
{
	for (;;) {
		uint64_t w = spw__peek(sp, e);
		struct spw_obj o;
		int rc = 0;

		SPW__HOOK(SPW__LOAD_PEEKED, e);
		switch (spw__word_kind(w)) {
		case SPW_FREE:
			memset(page, 0, SPW_PAGE);
			return -ENOENT;
		case SPW_FRAME:
			return -EEXIST;
		case SPW_SAME:
			spw__same_fill(page, (uint32_t)spw__word_payload(w));
			break;
		case SPW_POOL:
			if (!spw__lock(sp, e, &w))
				continue;
			if (spw__word_kind(w) != SPW_POOL) {
				spw__unlock(sp, e, w);
				continue;
			}
			o = spw__mapped(sp, spw__word_slot(w));
			rc = spw__codec_restore(work->codec, &o, page);
			spw__unlock(sp, e, w | SPW__REFERENCED);
			break;
		case SPW_SLOT:
			rc = load_slot(sp, work, e, spw__word_slot(w), page);
			if (rc == -EAGAIN)
				continue;
			break;
		}
		if (rc)
			*where = spw__word_slot(w);
		else
			SPW__ADD(spw__shard(sp, e)->loads, 1);
		return rc;
	}
}

bool spw_expect(struct spw__space *sp, const struct spw_work *w, spw_entry_t e, bool alone)
{
	uint64_t word = spw__peek(sp, e);

	if (spw__word_kind(word) != SPW_SLOT)
		return true;
	spw_slot_t s = spw__word_slot(word);
	struct spw_tier *t = spw__tier_of(sp, s);

	return t->ops->expect && t->ops->expect(t, w, e, s, alone);
}

void spw_settle(struct spw__space *sp, const struct spw_work *w)
{
	for (unsigned i = 0; i < SPW_MAX_TIERS; i++)
		if (sp->tier[i] && sp->tier[i]->ops->settle)
			sp->tier[i]->ops->settle(sp->tier[i], w);
}

enum spw_kind spw_kind(const struct spw__space *sp, spw_entry_t e)
{
	return spw__word_kind(spw__peek(sp, e));
}
