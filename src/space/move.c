/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Moves: objects from slot to slot while their entries stay in use.
 *
 * Within RAM a move is a copy under the entry's lock. To a batch tier it is a write that takes milliseconds, and
 * neither may a fault on the entry wait for it, nor may its completion trust what was true when it began. So the entry
 * goes on saying the old slot, marked as moving, and everything on it is served as before. Whoever frees or stores
 * the entry meanwhile just changes its word and leaves the old slot to the completion: as no object can get that
 * address until then, a word that still says "this slot, moving" is proof that the new slot holds the entry's bytes.
 * Any other word means that the move was overtaken, and both slots are let go.
 */
#include "space/internal.h"

#define HINTS       512u /* objects of a block that are asked for at a time */
#define IDLE_BLOCKS 32u  /* blocks without anything to send before writeback leaves it at that */

struct spw_obj spw__mapped(struct spw__space *sp, spw_slot_t s)
{
	struct spw_tier *t = spw__tier_of(sp, s);

	return (struct spw_obj){
		.data = t->ops->map(t, s), .len = spw__slot_len(s), .coding = (uint8_t)spw__slot_coding(s)};
}

static void begun(struct spw__space *sp, spw_slot_t from, spw_slot_t to)
{
	SPW__ADD(sp->in_flight, 1);
	sp->under_move[spw__slot_tier(from)]++;
	sp->under_move[spw__slot_tier(to)]++;
}

static void ended(struct spw__space *sp, spw_slot_t from, spw_slot_t to)
{
	sp->under_move[spw__slot_tier(from)]--;
	sp->under_move[spw__slot_tier(to)]--;
	SPW__SUB(sp->in_flight, 1);
}

/* Lock e if its bytes are at s and no move of them is in flight, or if one is. */
static bool lock_at(struct spw__space *sp, spw_entry_t e, spw_slot_t s, bool moving, uint64_t *w)
{
	if (!spw__lock(sp, e, w))
		return false;
	if (spw__word_at(spw__where(sp, *w), s, moving))
		return true;
	spw__unlock(sp, e, *w);
	return false;
}

int spw__relocate(struct spw__space *sp, struct spw_tier *t, spw_entry_t e, spw_slot_t from, const struct spw_obj *obj)
{
	struct spw_obj mapped;
	spw_slot_t to;
	uint64_t w;
	int rc;

	if (!lock_at(sp, e, from, false, &w))
		return 0;
	if (!obj) {
		mapped = spw__mapped(sp, from);
		obj = &mapped;
	}
	rc = t ? t->ops->put(t, e, obj, &to) : spw__put(sp, e, obj, &to);
	if (rc) {
		spw__unlock(sp, e, w);
		return rc;
	}
	spw__publish(sp, e, w, spw__rebase(sp, w, spw__word(SPW_POOL, to.v)));
	SPW__HOOK(SPW__REPLACED, e);
	spw__slot_free(sp, from);
	SPW__ADD(sp->relocations, 1);
	return 1;
}

/* A segment of the first tier with room that is not shut, of n of equal priority. They take turns. */
static int open_in_turn(struct spw__space *sp, struct spw__batch *b, uint32_t shut, struct spw_tier *const *t,
			unsigned n)
{
	unsigned turn = SPW__LOAD(sp->turn);
	int rc = -ENODEV;

	for (unsigned i = 0; i < n; i++) {
		struct spw_tier *one = t[(turn + i) % n];

		if (!spw__is_batch(one) || shut & 1u << one->number)
			continue;
		int err = one->ops->begin(one, &b->segment);

		if (!err) {
			b->tier = one;
			SPW__ADD(sp->turn, 1);
			return 0;
		}
		/* Busy is not full: a lower tier is no substitute for a moment's patience. */
		rc = rc == -EAGAIN ? rc : err;
	}
	return rc;
}

/* A segment of the batch's tier, or, if it has none yet, of the first batch tier with room that is not shut. */
static int open_segment(struct spw__space *sp, struct spw__batch *b, uint32_t shut)
{
	int rc = -ENODEV;

	if (b->tier)
		return b->tier->ops->begin(b->tier, &b->segment);
	for (struct spw_tier **t = sp->order, **next; *t && rc != -EAGAIN && rc; t = next) {
		for (next = t; *next && (*next)->priority == (*t)->priority; next++)
			;
		int err = open_in_turn(sp, b, shut, t, (unsigned)(next - t));

		rc = err == -ENODEV ? rc : err;
	}
	return rc;
}

static void submit(struct spw__batch *b)
{
	if (b->segment)
		b->tier->ops->submit(b->tier, b->segment);
	b->segment = NULL;
	b->objects = 0;
}

void spw__submit(struct spw__outbox *o)
{
	for (struct spw__batch *b = o->batch; b->tier; b++)
		submit(b);
}

/* Whether a locked entry may go by the batch. What is on a tier already may move about there. */
static bool admits(const struct spw__space *sp, const struct spw__batch *b, spw_entry_t e, spw_slot_t from)
{
	unsigned to = b->tier->number;

	return !(spw__shut_to(sp, e) & 1u << to) || spw__slot_tier(from) == to;
}

/*
 * Send the object with the others of the batch, of a tier that is not shut if it has none yet: 1, 0 (it is elsewhere by
 * now), -EFBIG (submit them first), -EPERM (it may not go by it) or -errno.
 */
static int send_along(struct spw__space *sp, struct spw__batch *b, uint32_t shut, spw_entry_t e, spw_slot_t from,
		      const struct spw_obj *obj)
{
	struct spw_obj o;
	spw_slot_t to;
	uint64_t w;
	int rc = spw__orphan_reserve(sp);

	if (!rc && !b->segment)
		rc = open_segment(sp, b, shut);
	if (rc)
		return rc;
	if (!lock_at(sp, e, from, false, &w))
		return 0;
	if (!admits(sp, b, e, from)) {
		spw__unlock(sp, e, w);
		return -EPERM;
	}
	o = obj ? *obj : spw__mapped(sp, from);
	rc = b->tier->ops->add(b->tier, b->segment, e, &o, from, &to);
	if (rc) {
		spw__unlock(sp, e, w);
		return rc == -ENOSPC && b->objects ? -EFBIG : rc;
	}
	begun(sp, from, to);
	b->objects++;
	spw__unlock(sp, e, spw__rebase(sp, w, spw__word_backing(spw__where(sp, w)) | SPW__MOVING));
	SPW__HOOK(SPW__MOVE_MARKED, e);
	return 1;
}

/* The same, submitting as needed. */
static int send_by(struct spw__space *sp, struct spw__batch *b, uint32_t shut, spw_entry_t e, spw_slot_t from,
		   const struct spw_obj *obj)
{
	int rc;

	while ((rc = send_along(sp, b, shut, e, from, obj)) == -EFBIG)
		submit(b);
	return rc;
}

int spw__send(struct spw__space *sp, struct spw__outbox *o, spw_entry_t e, spw_slot_t from, const struct spw_obj *obj)
{
	/*
	 * The first batch is the one that most can go by. Each refuses e by its tier, so there are never more than
	 * tiers.
	 */
	int rc = send_by(sp, o->batch, spw__shut(sp), e, from, obj);

	for (struct spw__batch *b = o->batch + 1; rc == -EPERM; b++)
		rc = send_by(sp, b, spw__shut_to(sp, e), e, from, obj);
	return rc;
}

static void complete(struct spw__space *sp, const struct spw_move *m, int status)
{
	bool from_ram = !spw__is_batch(spw__tier_of(sp, m->from));
	uint64_t w;

	SPW__HOOK(SPW__COMPLETE, m->entry);
	if (!lock_at(sp, m->entry, m->from, true, &w)) {
		spw__orphan_remove(sp, m->from);
		spw__slot_free(sp, m->from);
		if (!status)
			spw__slot_free(sp, m->to);
		SPW__ADD(sp->cancels, 1);
	} else if (status) {
		SPW__HOOK(SPW__COMPLETE_LOCKED, m->entry);
		spw__unlock(sp, m->entry, spw__rebase(sp, w, spw__where(sp, w) & ~SPW__MOVING));
	} else {
		SPW__HOOK(SPW__COMPLETE_LOCKED, m->entry);
		spw__publish(sp, m->entry, w, spw__rebase(sp, w, spw__word(SPW_SLOT, m->to.v)));
		SPW__HOOK(SPW__COMPLETE_DONE, m->entry);
		spw__slot_free(sp, m->from);
		SPW__ADD(*(from_ram ? &sp->writebacks : &sp->relocations), 1);
	}
	ended(sp, m->from, m->to);
}

/* Finish every completed segment of t; wait for the first of them up to wait_ns. */
static int poll_tier(struct spw__space *sp, struct spw_tier *t, uint64_t wait_ns)
{
	const struct spw_move *moves;
	struct spw_segment *token;
	int status, done = 0;
	unsigned n;

	while ((n = t->ops->poll(t, wait_ns, &moves, &status, &token)) > 0) {
		for (unsigned i = 0; i < n; i++)
			complete(sp, &moves[i], status);
		t->ops->poll_done(t, token);
		done += (int)n;
		wait_ns = 0;
	}
	return done;
}

int spw_writeback_poll(struct spw__space *sp, uint64_t wait_ns)
{
	int done = 0;

	/* Asked even with nothing in flight: an idle tier gives its buffers back in poll(). */
	for (struct spw_tier **t = sp->order; *t; t++)
		if (spw__is_batch(*t))
			done += poll_tier(sp, *t, 0);
	if (!SPW__LOAD(sp->in_flight))
		wait_ns = 0;
	for (struct spw_tier **t = sp->order; *t && !done && wait_ns; t++)
		if (spw__is_batch(*t))
			done = poll_tier(sp, *t, wait_ns);
	spw__orphan_trim(sp);
	return done;
}

unsigned spw_writeback_under_way(const struct spw__space *sp)
{
	return SPW__LOAD(sp->in_flight);
}

/* Whether a victim should stay for now: it was read since it was last considered. What is RAW gains nothing by it. */
static bool second_chance(struct spw__space *sp, spw_entry_t e, spw_slot_t s)
{
	bool stay;
	uint64_t w;

	if (spw__slot_coding(s) == SPW_CODING_RAW || !(spw__peek(sp, e) & SPW__REFERENCED))
		return false;
	if (!lock_at(sp, e, s, false, &w))
		return false;
	stay = w & SPW__REFERENCED;
	spw__unlock(sp, e, w & ~SPW__REFERENCED);
	return stay;
}

/* Send what can be sent of the RAM tier's oldest block, all of it, for only whole blocks give memory back. */
static int send_block(struct spw__space *sp, struct spw__outbox *o, struct spw_tier *t, bool raw_only, uint64_t *sent,
		      int *passed_over)
{
	spw_entry_t e[HINTS];
	spw_slot_t s[HINTS];
	unsigned n = t->ops->victims(t, e, s, HINTS);
	int moves = 0;

	if (!n || (raw_only && spw__slot_coding(s[0]) != SPW_CODING_RAW))
		return -ENOENT;
	for (unsigned i = 0; i < n; i++) {
		int rc = second_chance(sp, e[i], s[i]) ? 0 : spw__send(sp, o, e[i], s[i], NULL);

		if (rc < 0 && admits(sp, &o->batch[0], e[i], s[i]))
			return moves ? moves : rc;
		/* It may not go where the others go, and there is no room elsewhere. That does not stop the others. */
		if (rc < 0 && rc != -ENODEV)
			*passed_over = rc;
		if (rc > 0) {
			moves++;
			*sent += spw__slot_len(s[i]);
		}
	}
	return moves;
}

int spw_writeback_start(struct spw__space *sp, uint64_t bytes, bool raw_only)
{
	struct spw__outbox o = {0};
	/* Asking for victims makes them young, so know first that they can go. */
	int rc = open_segment(sp, &o.batch[0], spw__shut(sp)), moves = 0, passed_over = 0;
	uint64_t sent = 0;

	for (struct spw_tier **t = sp->order; *t && rc >= 0 && sent < bytes; t++) {
		unsigned idle = 0;

		if (spw__is_batch(*t))
			continue;
		/* What is on its way already, or may go nowhere, is named again and again. */
		while (rc >= 0 && o.batch[0].segment && sent < bytes && idle < IDLE_BLOCKS) {
			rc = send_block(sp, &o, *t, raw_only, &sent, &passed_over);
			moves += rc > 0 ? rc : 0;
			idle = rc > 0 ? 0 : idle + 1;
		}
		if (rc == -ENOENT)
			rc = 0;
	}
	spw__submit(&o);
	return moves ? moves : rc ? rc : passed_over;
}

int spw_compact(struct spw__space *sp, unsigned max)
{
	spw_entry_t e[HINTS];
	spw_slot_t s[HINTS];
	unsigned moved = 0, before;
	int rc = 0;

	for (struct spw_tier **t = sp->order; *t && rc >= 0; t++) {
		if (spw__is_batch(*t) || !(*t)->ops->sparse || spw__draining(sp, *t))
			continue;
		do {
			unsigned n = (*t)->ops->sparse(*t, e, s, max - moved < HINTS ? max - moved : HINTS);

			before = moved;
			for (unsigned i = 0; i < n && rc >= 0; i++) {
				rc = spw__relocate(sp, *t, e[i], s[i], NULL);
				moved += rc > 0;
			}
		} while (rc >= 0 && moved > before && moved < max);
	}
	return moved ? (int)moved : rc;
}

/* What cleaning asks for at a time: as much as a work area's pages hold. */
#define CLEAN_MAX 256u
struct cleaning {
	spw_slot_t s[CLEAN_MAX];
	struct spw_obj o[CLEAN_MAX];
	spw_entry_t e[CLEAN_MAX];
};
_Static_assert(sizeof(struct cleaning) <= 2 * SPW_PAGE, "cleaning works in the pages of a work area");

/* The first tier below t that has room: a segment of it is open. None: the batch is of t itself. */
static void open_below(struct spw__space *sp, struct spw__batch *b, struct spw_tier *const *t)
{
	b->tier = *t;
	for (struct spw_tier *const *lower = t + 1; *lower; lower++) {
		if ((*lower)->priority == (*t)->priority || !spw__is_batch(*lower) ||
		    spw__shut(sp) & 1u << (*lower)->number)
			continue;
		if ((*lower)->ops->begin(*lower, &b->segment))
			continue;
		b->tier = *lower;
		return;
	}
}

/*
 * Send n objects; *moved counts, *denied tells of those that may not go by the batch and stay. One that a segment has
 * no room for goes to the next, but not before smaller ones have filled the end, which would else be some 0.3 % of the
 * file.
 */
static int send_cleaned(struct spw__space *sp, struct spw__batch *b, struct cleaning *c, unsigned n, int *moved,
			bool *denied)
{
	for (unsigned left; n; n = left) {
		left = 0;
		for (unsigned i = 0; i < n; i++) {
			int rc = send_along(sp, b, 0, c->e[i], c->s[i], &c->o[i]);

			if (rc >= 0) {
				*moved += rc;
				continue;
			}
			if (rc == -EPERM) {
				*denied = true;
				continue;
			}
			if (rc != -EFBIG)
				return rc;
			c->e[left] = c->e[i];
			c->s[left] = c->s[i];
			c->o[left++] = c->o[i];
		}
		if (left)
			submit(b);
	}
	return 0;
}

/* Move the objects of a few segments of t by the batch. How many; -EPERM: none, as some may not go by it; -errno. */
static int clean_by(struct spw__space *sp, struct cleaning *c, struct spw__batch *b, struct spw_tier *t)
{
	bool denied = false;
	int moved = 0, rc = 0;
	unsigned n;

	while (rc >= 0 && (n = t->ops->clean(t, b->tier != t, c->e, c->s, c->o, CLEAN_MAX)) > 0)
		rc = send_cleaned(sp, b, c, n, &moved, &denied);
	t->ops->clean_done(t);
	submit(b);
	return moved ? moved : rc < 0 ? rc : denied ? -EPERM : 0;
}

int spw_clean(struct spw__space *sp, struct spw_work *work)
{
	struct cleaning *c = (void *)work->page;
	bool busy = false;
	int rc = 0;

	for (struct spw_tier **t = sp->order; *t && !rc; t++) {
		struct spw__batch b = {0};

		if (!spw__is_batch(*t) || !(*t)->ops->clean || spw__draining(sp, *t))
			continue;
		/*
		 * What is on its way is not dead yet where it was, so which segments are the emptiest is known only
		 * when it has arrived. And with buffers in use we might stop before the first of them is empty.
		 */
		if (sp->under_move[(*t)->number]) {
			busy = true;
			continue;
		}
		open_below(sp, &b, t);
		rc = clean_by(sp, c, &b, *t);
		/* What is oldest may not go down: then room is made of what is dead. */
		if (rc == -EPERM) {
			b = (struct spw__batch){.tier = *t};
			rc = clean_by(sp, c, &b, *t);
		}
	}
	return rc ? rc : busy ? -EAGAIN : 0;
}
