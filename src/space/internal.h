/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_SPACE_INTERNAL_H
#define SPW_SPACE_INTERNAL_H
/*
 * What the files of the space share. One reservation holds everything: this struct, the cluster table, the frame
 * table, the orphans, the descriptors and the overflow counts; only what is in use is resident.
 */
#include "platform/spin.h"
#include "space/descriptor.h"
#include "space/hooks.h"
#include "space/space.h"

#include <errno.h>
#include <string.h>

#define SPW__PAGE_MASK   (SPW_PAGE - 1ull)
#define SPW__SHARDS      16u
#define SPW__MOVES_MAX   (1u << 17) /* moves in flight at once */
#define SPW__STORE_LIMIT (SPW_PAGE / 4 * 3)

/* A cluster's record: 16 bytes for 512 entries. Under the cluster lock, but what is marked A. */
struct spw__cluster {
	uint32_t next : 24; /* of the free or the partial list: cluster number + 1, 0 = end */
	uint8_t partial;    /* on the partial list */
	uint32_t prev : 24;
	uint8_t state;      /* A SPW__CLUSTER_* */
	uint16_t live;      /* A entries not FREE; during a free it may still count some that are */
	uint16_t overflows; /* entries whose count is in the overflow table */
	uint16_t cursor;    /* where the next search for a FREE entry begins */
	uint16_t denied;    /* A mask of tier numbers that its entries may not be put on */
};
_Static_assert(sizeof(struct spw__cluster) == 16, "records fill a page of the table");
#define SPW__CLUSTER_NONE    0u /* not present */
#define SPW__CLUSTER_SHARED  1u /* serves spw_alloc() */
#define SPW__CLUSTER_TAKEN   2u /* belongs to a host, untouched so far */
#define SPW__CLUSTER_TOUCHED 3u /* the same, and its descriptors are resident */

/* Counters, spread over cache lines by cluster. */
struct spw__shard {
	uint64_t kinds[SPW_FRAME + 1];
	uint64_t stores, loads, same_stores, joins;
} __attribute__((aligned(64)));

/* Where the drain of a tier is. Of the thread that drives writeback. */
struct spw__drain {
	uint32_t next; /* entry that the next step looks at first */
	unsigned idle; /* passes in a row that found nothing */
	int error;     /* first of this pass */
	bool moved;    /* anything in this pass */
	bool rescue;   /* what cannot be read stays */
	uint64_t lost; /* objects that this pass could not read */
	uint64_t left; /* of a rescue that is at its end: objects, all unreadable; else 0 */
};

struct spw__space {
	/* Written by create, add_tier and remove_tier only. */
	uint64_t *desc;
	struct spw__cluster *table;
	uint64_t *frame;    /* A backing words; 0 = the frame is nobody's */
	uint64_t *orphan;   /* slots under a move that no entry has any more; under lock */
	uint64_t *overflow; /* one count per entry; an entry's under its lock */
	uint64_t *twin;     /* A see twin.c; NULL = equal pages are not looked for */
	uint32_t max_twins;
	uint64_t twin_key;
	uint32_t max_clusters;
	uint32_t max_frames;
	uint64_t bytes; /* of the reservation */
	struct spw_codec codec;
	struct spw_tier *tier[SPW_MAX_TIERS];
	struct spw_tier *order[SPW_MAX_TIERS + 1]; /* by priority, NULL at the end */
	unsigned turn;                             /* A of tiers of equal priority */

	uint32_t draining;       /* A mask of tier numbers that take nothing new for now */
	uint32_t denied;         /* A and for good */
	uint32_t in_flight;      /* A moves submitted or about to be, not completed */
	uint32_t frames_touched; /* A highest frame number used + 1 */
	uint32_t touched;        /* A clusters with resident descriptors */
	/* Moves in flight from or to each tier, and drains. Of the thread that drives writeback. */
	uint32_t under_move[SPW_MAX_TIERS];
	struct spw__drain drain[SPW_MAX_TIERS];
	uint64_t writebacks, relocations, cancels; /* A */

	struct spw__spin lock __attribute__((aligned(64))); /* the cluster lock, and of what follows */
	uint32_t ever;                                      /* A cluster numbers handed out so far are below this */
	uint32_t present;                                   /* A clusters in use */
	uint32_t free_clusters;                             /* list */
	uint32_t partial;                                   /* list of SHARED clusters with FREE entries */
	uint32_t overflow_pages;                            /* A */
	uint32_t orphans;                                   /* A */
	bool orphans_touched;

	struct spw__shard shard[SPW__SHARDS];
};

struct spw_work {
	void *codec;
	uint8_t *page; /* two pages */
	/* By the last spw_store_or_find() that found a twin, and what is denied to its entry. */
	struct spw_obj made;
	uint16_t made_denied;
};

#define SPW__LOAD(p)   __atomic_load_n(&(p), __ATOMIC_RELAXED)
#define SPW__ADD(p, n) __atomic_fetch_add(&(p), (n), __ATOMIC_RELAXED)
#define SPW__SUB(p, n) __atomic_fetch_sub(&(p), (n), __ATOMIC_RELAXED)

static inline uint32_t spw__cluster_of(spw_entry_t e)
{
	return e.idx / SPW_CLUSTER;
}

static inline bool spw__entry_valid(const struct spw__space *sp, spw_entry_t e)
{
	return spw__cluster_of(e) < sp->max_clusters;
}

static inline struct spw__shard *spw__shard(struct spw__space *sp, spw_entry_t e)
{
	return &sp->shard[spw__cluster_of(e) % SPW__SHARDS];
}

static inline bool spw__is_batch(const struct spw_tier *t)
{
	return t->ops->begin != NULL;
}

static inline bool spw__draining(const struct spw__space *sp, const struct spw_tier *t)
{
	return SPW__LOAD(sp->draining) & 1u << t->number;
}

/* The tiers that no entry may be put on. */
static inline uint32_t spw__shut(const struct spw__space *sp)
{
	return SPW__LOAD(sp->draining) | SPW__LOAD(sp->denied);
}

/* The tiers that e may not be put on. Certain while e is locked, and of use to guess by while it is not. */
static inline uint32_t spw__shut_to(const struct spw__space *sp, spw_entry_t e)
{
	return spw__shut(sp) | SPW__LOAD(sp->table[spw__cluster_of(e)].denied);
}

static inline struct spw_tier *spw__tier_of(const struct spw__space *sp, spw_slot_t s)
{
	return sp->tier[spw__slot_tier(s)];
}

static inline void spw__slot_free(struct spw__space *sp, spw_slot_t s)
{
	struct spw_tier *t = spw__tier_of(sp, s);

	t->ops->free(t, s);
}

static inline uint64_t spw__peek(const struct spw__space *sp, spw_entry_t e)
{
	return spw__entry_valid(sp, e) ? spw__word_peek(&sp->desc[e.idx]) : 0;
}

/* cluster.c: the descriptors were touched, when they may have been given back already. */
void __attribute__((cold)) spw__cluster_touched(struct spw__space *sp, uint32_t cluster);

/* Lock a live entry; false if it is FREE. */
static inline bool spw__lock(struct spw__space *sp, spw_entry_t e, uint64_t *w)
{
	if (!spw__entry_valid(sp, e))
		return false;
	if (spw__word_lock(&sp->desc[e.idx], false, w))
		return true;
	if (*w)
		spw__cluster_touched(sp, spw__cluster_of(e));
	return false;
}

static inline void spw__unlock(struct spw__space *sp, spw_entry_t e, uint64_t w)
{
	spw__word_unlock(&sp->desc[e.idx], w);
}

/* Unlock a word that may have changed its kind from `was`. */
static inline void spw__publish(struct spw__space *sp, spw_entry_t e, uint64_t was, uint64_t w)
{
	if (spw__word_kind(was) != spw__word_kind(w)) {
		struct spw__shard *s = spw__shard(sp, e);

		SPW__SUB(s->kinds[spw__word_kind(was)], 1);
		SPW__ADD(s->kinds[spw__word_kind(w)], 1);
	}
	spw__unlock(sp, e, w);
}

/* The word that says where the bytes of a locked entry are: its own, or the one its frame keeps. */
static inline uint64_t spw__where(const struct spw__space *sp, uint64_t w)
{
	return spw__word_kind(w) == SPW_FRAME ? SPW__LOAD(sp->frame[spw__word_payload(w)]) : w;
}

/* The bytes of a locked entry are now at `backing`. Returns the entry's new word. */
static inline uint64_t spw__rebase(struct spw__space *sp, uint64_t w, uint64_t backing)
{
	if (spw__word_kind(w) != SPW_FRAME)
		return backing | (w & SPW__COUNT_MASK);
	__atomic_store_n(&sp->frame[spw__word_payload(w)], backing, __ATOMIC_RELAXED);
	return w;
}

/* cluster.c: n entries of the cluster come to life (before they are seen) or have become FREE (after). */
void spw__cluster_live(struct spw__space *sp, uint32_t cluster);
void spw__cluster_dead(struct spw__space *sp, uint32_t cluster, unsigned n);
/* Lock an entry that may be FREE if its cluster is taken. */
bool spw__lock_owned(struct spw__space *sp, spw_entry_t e, uint64_t *w);

/* cache.c: the frame of a locked FRAME word is nobody's from now on. Returns the backing word that it kept. */
uint64_t spw__frame_leave(struct spw__space *sp, uint64_t w);

/* store.c */
/* Entry locked. Put its object into the first RAM tier that it may go to and that has room. */
int spw__put(struct spw__space *sp, spw_entry_t e, const struct spw_obj *o, spw_slot_t *out);
/*
 * Unlock with a new word that no longer refers to the bytes at `backing`, and let them go: free their storage, or if
 * a move holds them leave it to the completion.
 */
void spw__replace(struct spw__space *sp, spw_entry_t e, uint64_t was, uint64_t w, uint64_t backing);

/* count.c: one holder more of a locked entry, whose word changes by it. 0, -ENOMEM. */
int spw__hold(struct spw__space *sp, spw_entry_t e, uint64_t *w);

/* twin.c. The object's fingerprint is `print`. */
/* Another entry than e that holds the very object o in a RAM tier. False: none is known. *twin may change at once. */
bool spw__twin_find(struct spw__space *sp, spw_entry_t e, const struct spw_obj *o, uint64_t print, spw_entry_t *twin);
/* Remember that e holds it. */
void spw__twin_note(struct spw__space *sp, spw_entry_t e, uint64_t print);

/* orphan.c */
/* Room for one more move in flight, before it starts. 0, -ENOMEM, -EAGAIN: too many in flight. */
int spw__orphan_reserve(struct spw__space *sp);
/* Entry locked. */
void spw__orphan_add(struct spw__space *sp, spw_slot_t s);
void spw__orphan_remove(struct spw__space *sp, spw_slot_t s);
/* Give the list's memory back if no move is in flight. */
void spw__orphan_trim(struct spw__space *sp);

/* move.c */
/* What is being sent to one tier. */
struct spw__batch {
	struct spw_tier *tier; /* NULL: none chosen yet, and then nor are those that follow in an outbox */
	struct spw_segment *segment;
	unsigned objects; /* in it */
};
/* One batch for each tier that is needed: which that is depends on the entry. At its end one that is never used. */
struct spw__outbox {
	struct spw__batch batch[SPW_MAX_TIERS + 1];
};
/* The object as it is at s, for a locked entry of a RAM tier. */
struct spw_obj spw__mapped(struct spw__space *sp, spw_slot_t s);
/* Move e from `from` into RAM tier t (NULL: any). obj NULL: from is on a RAM tier. 1, 0: e changed, -errno. */
int spw__relocate(struct spw__space *sp, struct spw_tier *t, spw_entry_t e, spw_slot_t from, const struct spw_obj *obj);
/* Add e's object to the first batch that it may go by. 1, 0: e changed, -ENODEV: it may go nowhere, -errno. */
int spw__send(struct spw__space *sp, struct spw__outbox *o, spw_entry_t e, spw_slot_t from, const struct spw_obj *obj);
void spw__submit(struct spw__outbox *o);

#endif
