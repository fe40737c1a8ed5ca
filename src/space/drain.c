/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Drain: empty a tier while everything goes on.
 *
 * The kernel's swapoff walks the page tables of every process to find who uses the device. Entries never say where
 * bytes are, so here it is enough to walk the descriptors, which are dense and few: any that says the tier gets its
 * object moved to another. A store that had looked at the tier just before it was closed may still land on it
 * behind the scan, so the scan is repeated until the tier itself says that it is empty.
 */
#include "space/internal.h"

#define POLL_NS     10000000u /* of one wait for moves in flight */
#define IDLE_ROUNDS 1000u     /* scans that find nothing to move on a tier that is not empty */

static int drain_one(struct spw_space *sp, struct spw_work *work, struct spw__batch *b, spw_entry_t e, spw_slot_t s)
{
	struct spw_obj o = {.data = work->page, .len = spw__slot_len(s), .coding = (uint8_t)spw__slot_coding(s)};
	struct spw_tier *t = spw__tier_of(sp, s);
	struct spw_obj *obj = NULL;
	int rc;

	if (spw__is_batch(t)) {
		rc = t->ops->get(t, e, s, work->page);
		if (rc)
			return rc;
		obj = &o;
	}
	rc = spw__relocate(sp, NULL, e, s, obj);
	if (rc >= 0)
		return rc;
	rc = spw__send(sp, b, e, s, obj);
	return rc == -ENODEV ? -ENOSPC : rc;
}

/* Where the bytes of e are on tier t, if they are and no move has them. */
static bool on_tier(struct spw_space *sp, spw_entry_t e, const struct spw_tier *t, spw_slot_t *s)
{
	uint64_t w;

	if (!spw__lock(sp, e, &w))
		return false;
	spw__unlock(sp, e, w);
	w = spw__where(sp, w);
	*s = spw__word_slot(w);
	return spw__word_stored(w) && spw__slot_tier(*s) == t->number && !(w & SPW__MOVING);
}

/* One scan. Returns how many objects it moved or sent on their way; *rc is the first error met. */
static uint64_t scan(struct spw_space *sp, struct spw_work *work, struct spw_tier *t, int *rc)
{
	uint64_t end = (uint64_t)__atomic_load_n(&sp->ever, __ATOMIC_ACQUIRE) * SPW_CLUSTER, moved = 0;
	struct spw__batch b = {0};

	for (uint64_t i = 0; i < end; i++) {
		spw_entry_t e = {(uint32_t)i};
		spw_slot_t s;
		int one;

		if (i % SPW_CLUSTER == 0 && !SPW__LOAD(sp->table[i / SPW_CLUSTER].live)) {
			i += SPW_CLUSTER - 1;
			continue;
		}
		if (!spw__peek(sp, e) || !on_tier(sp, e, t, &s))
			continue;
		while ((one = drain_one(sp, work, &b, e, s)) == -EAGAIN) {
			spw__submit(&b);
			spw_writeback_poll(sp, POLL_NS);
		}
		moved += one > 0;
		if (one < 0 && !*rc && on_tier(sp, e, t, &s))
			*rc = one;
	}
	spw__submit(&b);
	return moved;
}

int spw_drain(struct spw_space *sp, struct spw_work *work, struct spw_tier *t)
{
	unsigned idle = 0;

	__atomic_fetch_or(&sp->draining, 1u << t->number, __ATOMIC_SEQ_CST);
	for (;;) {
		struct spw_tier_stats st;
		uint64_t moved;
		int rc = 0;

		while (SPW__LOAD(sp->in_flight))
			spw_writeback_poll(sp, POLL_NS);
		t->ops->stats(t, &st);
		if (!st.pages)
			return 0;
		moved = scan(sp, work, t, &rc);
		if (!moved && rc)
			return rc;
		if (moved)
			idle = 0;
		else if (++idle == IDLE_ROUNDS)
			return -EBUSY;
		else
			spw__plat_relax(UINT32_MAX);
	}
}
