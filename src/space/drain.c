/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Drain: empty a tier while everything goes on.
 *
 * The kernel's swapoff walks the page tables of every process to find who uses the device. Entries never say where
 * bytes are, so here it is enough to walk the descriptors, which are dense and few: any that says the tier gets its
 * object moved to another. A store that had looked at the tier just before it was closed may still land on it
 * behind the scan, so the scan is repeated until the tier itself says that it is empty.
 *
 * A tier that fails is rescued: what cannot be read is passed over, and must not be tried again and again, for a disk
 * that fails takes its time to say so. What has no room elsewhere is waited for where the scan has come to.
 *
 * Memory does not stop being short while a tier is emptied, and one thread does both. So a drain is cut into steps, and
 * nothing but the closed tier and a place in the scan lies between them.
 */
#include "space/internal.h"

#define POLL_NS     10000000u /* of one wait for moves in flight */
#define IDLE_PASSES 1000u     /* that find nothing to move on a tier that is not empty */
#define STEP        4096u

static int drain_one(struct spw__space *sp, struct spw_work *work, struct spw__outbox *box, spw_entry_t e, spw_slot_t s)
{
	struct spw_obj o = {.data = work->page, .len = spw__slot_len(s), .coding = (uint8_t)spw__slot_coding(s)};
	struct spw_tier *t = spw__tier_of(sp, s);
	struct spw_obj *obj = NULL;
	int rc;

	if (spw__is_batch(t)) {
		rc = t->ops->get(t, e, s, work->page);
		SPW__HOOK(SPW__DRAIN_READ, e);
		if (rc)
			return rc;
		obj = &o;
	}
	rc = spw__relocate(sp, NULL, e, s, obj);
	if (rc >= 0)
		return rc;
	rc = spw__send(sp, box, e, s, obj);
	/* None, or one that backs off: nothing takes it. -EIO is for what cannot be read. */
	return rc == -ENODEV || rc == -EIO ? -ENOSPC : rc;
}

/* Whether they may be on tier t, by the word alone. A lock costs more than a look, and most words say no. */
static bool may_be_on(uint64_t w, const struct spw_tier *t)
{
	return spw__word_kind(w) == SPW_FRAME ||
	       (spw__word_stored(w) && spw__slot_tier(spw__word_slot(w)) == t->number);
}

/* Where the bytes of e are on tier t, if they are and no move has them. */
static bool on_tier(struct spw__space *sp, spw_entry_t e, const struct spw_tier *t, spw_slot_t *s)
{
	uint64_t w, where;

	if (!spw__lock(sp, e, &w))
		return false;
	where = spw__where(sp, w);
	spw__unlock(sp, e, w);
	*s = spw__word_slot(where);
	return spw__word_stored(where) && spw__slot_tier(*s) == t->number && !(where & SPW__MOVING);
}

static uint64_t pages_on(struct spw_tier *t)
{
	struct spw_tier_stats st;

	t->ops->stats(t, &st);
	return st.pages;
}

static bool empty(const struct spw__space *sp, struct spw_tier *t)
{
	return !sp->under_move[t->number] && !pages_on(t);
}

/* A rescue has found that all that is there cannot be read. It is not read again as long as nothing comes to it. */
static bool all_lost(const struct spw__space *sp, struct spw_tier *t)
{
	const struct spw__drain *d = &sp->drain[t->number];

	return d->left && !sp->under_move[t->number] && pages_on(t) <= d->left;
}

static bool unreadable(int rc)
{
	return rc == -EIO || rc == -EBADMSG;
}

/* Look at one entry. 1: its object was moved or sent on its way, 0: nothing to move, or -errno. */
static int look(struct spw__space *sp, struct spw_work *work, struct spw__outbox *box, struct spw_tier *t,
		spw_entry_t e)
{
	spw_slot_t s, still;
	int rc;

	if (!may_be_on(spw__peek(sp, e), t) || !on_tier(sp, e, t, &s))
		return 0;
	SPW__HOOK(SPW__DRAIN_FOUND, e);
	rc = drain_one(sp, work, box, e, s);
	/* An error about bytes that went elsewhere meanwhile says nothing. */
	if (rc < 0 && rc != -EAGAIN && !(on_tier(sp, e, t, &still) && spw__slot_same(s, still)))
		return 0;
	return rc;
}

/* The next entry after i to look at: one whose word does not say no, or the first of a cluster. */
static uint32_t after(const struct spw__space *sp, const struct spw_tier *t, uint32_t i)
{
	do
		i++;
	while (i % SPW_CLUSTER && !may_be_on(spw__word_peek(&sp->desc[i]), t));
	return i;
}

/*
 * Go on with the pass. 0: it is at its end; SPW_DRAIN_MORE: it has done its `max`; SPW_DRAIN_WAITS: no buffer is free;
 * -ECANCELED; of a rescue, -ENOSPC or -ENOMEM: there is no room for the object that it has come to.
 */
static int scan(struct spw__space *sp, struct spw_work *work, struct spw_tier *t, unsigned max)
{
	uint64_t end = (uint64_t)__atomic_load_n(&sp->ever, __ATOMIC_ACQUIRE) * SPW_CLUSTER;
	struct spw__drain *d = &sp->drain[t->number];
	unsigned objects = 0, clusters = 0;
	struct spw__outbox box = {0};
	int rc = 0;

	for (; d->next < end; d->next = after(sp, t, d->next)) {
		uint32_t c = d->next / SPW_CLUSTER;
		int one;

		if (!spw__draining(sp, t)) {
			rc = -ECANCELED;
			break;
		}
		if (objects == max || (d->next % SPW_CLUSTER == 0 && clusters++ == max)) {
			rc = SPW_DRAIN_MORE;
			break;
		}
		if (d->next % SPW_CLUSTER == 0 && !SPW__LOAD(sp->table[c].live)) {
			d->next += SPW_CLUSTER - 1;
			continue;
		}
		one = look(sp, work, &box, t, (spw_entry_t){d->next});
		if (one == -EAGAIN) {
			rc = SPW_DRAIN_WAITS;
			break;
		}
		if (d->rescue && one < 0 && !unreadable(one)) {
			rc = one;
			break;
		}
		objects += one != 0;
		d->moved |= one > 0;
		d->lost += unreadable(one);
		if (one < 0 && !d->error)
			d->error = one;
	}
	spw__submit(&box);
	return rc;
}

/* A pass is at its end: is there need, and hope, for another one? */
static int judge(struct spw__space *sp, struct spw_tier *t)
{
	struct spw__drain *d = &sp->drain[t->number], pass = *d;

	/* To look again before they are completed would be to read again what cannot be read. */
	if (pass.rescue && sp->under_move[t->number])
		return SPW_DRAIN_WAITS;
	*d = (struct spw__drain){.rescue = pass.rescue};
	if (pass.rescue && pass.lost && (!pass.moved || pages_on(t) <= pass.lost)) {
		d->left = pages_on(t);
		return pass.error;
	}
	if (pass.moved)
		return SPW_DRAIN_MORE;
	if (sp->under_move[t->number])
		return SPW_DRAIN_WAITS;
	if (pass.error)
		return pass.error;
	if (pass.idle == IDLE_PASSES)
		return -EBUSY;
	d->idle = pass.idle + 1;
	spw__plat_relax(UINT32_MAX);
	return SPW_DRAIN_MORE;
}

void spw_drain_begin(struct spw__space *sp, struct spw_tier *t)
{
	sp->drain[t->number] = (struct spw__drain){0};
	__atomic_fetch_or(&sp->draining, 1u << t->number, __ATOMIC_SEQ_CST);
}

void spw_drain_rescue(struct spw__space *sp, struct spw_tier *t)
{
	spw_drain_begin(sp, t);
	sp->drain[t->number].rescue = true;
}

void spw_drain_cancel(struct spw__space *sp, struct spw_tier *t)
{
	__atomic_fetch_and(&sp->draining, ~(1u << t->number), __ATOMIC_SEQ_CST);
}

int spw_drain_step(struct spw__space *sp, struct spw_work *work, struct spw_tier *t, unsigned max)
{
	int rc;

	if (!spw__draining(sp, t))
		return -ECANCELED;
	if (empty(sp, t))
		return 0;
	if (all_lost(sp, t))
		return -EIO;
	rc = scan(sp, work, t, max);
	return rc ? rc : judge(sp, t);
}

int spw_drain(struct spw__space *sp, struct spw_work *work, struct spw_tier *t)
{
	int rc;

	spw_drain_begin(sp, t);
	while ((rc = spw_drain_step(sp, work, t, STEP)) > 0)
		spw_writeback_poll(sp, rc == SPW_DRAIN_WAITS ? POLL_NS : 0);
	return rc;
}

int spw__space_remove_tier(struct spw__space *sp, struct spw_tier *t)
{
	struct spw_tier **at = sp->order;

	if (t->number >= SPW_MAX_TIERS || sp->tier[t->number] != t)
		return -ENOENT;
	if (!spw__draining(sp, t) || !empty(sp, t))
		return -EBUSY;
	/* A ghost is not among them. */
	while (*at && *at != t)
		at++;
	for (; *at; at++)
		at[0] = at[1];
	sp->tier[t->number] = NULL;
	spw_drain_cancel(sp, t);
	return 0;
}
