/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_TIER_H
#define SPW_TIER_H
/*
 * A tier is a place for objects. One table of functions describes it; the space calls nothing else.
 *
 * Two shapes exist. A RAM tier (zswap) takes one object at a time by put() and shows its bytes by map(). A batch tier
 * (file) takes objects into a segment (begin, add, submit), writes it asynchronously and reports by poll(); get()
 * reads one object back and may sleep. A function that a shape does not have is NULL.
 *
 * Locking: every function is callable from any thread at once unless it says otherwise; a tier locks inside and calls
 * nothing above it. The caller holds the entry's lock bit where "entry locked" is written, and then no function of
 * the tier may sleep. Errors are -errno.
 */
#include "space/entry.h"

struct spw_tier;
struct spw_segment; /* an open or in-flight batch of one file tier */

/* One object on its way from one slot to another: a writeback, or the cleaning of a segment. */
struct spw_move {
	spw_entry_t entry;
	spw_slot_t from, to;
};

struct spw_tier_stats {
	uint64_t capacity_bytes; /* what may be stored; 0 = grows to an outside limit */
	uint64_t used_bytes;     /* memory or file space taken, overhead included */
	uint64_t stored_bytes;   /* sum of the lengths of the live objects */
	uint64_t pages;          /* live objects */
	uint64_t reads, writes;  /* objects */
	uint64_t errors;         /* failed reads and writes, operations */
	/* Of a batch tier, in writes: done or refused for want of room; failed otherwise. */
	uint64_t answered, failed;
	int failure;             /* -errno of the last write if it failed so, else 0 */
	uint64_t metadata_bytes; /* resident bookkeeping outside the objects (their headers included) */
};

struct spw_tier_ops {
	const char *kind; /* "zswap", "file", "ghost" */
	bool ghost;       /* holds nothing, and is asked for nothing */

	/* RAM tier. 0, -ENOSPC (at its capacity) or -ENOMEM. */
	int (*put)(struct spw_tier *t, spw_entry_t e, const struct spw_obj *o, spw_slot_t *out);
	/* Entry locked. The object's bytes; valid until the entry is unlocked. */
	const void *(*map)(struct spw_tier *t, spw_slot_t s);
	/*
	 * Up to max entries of the oldest block, in order of address; incompressible (RAW) objects first of all.
	 * A hint: the caller locks each and checks again. Returns how many; the block becomes the youngest.
	 */
	unsigned (*victims)(struct spw_tier *t, spw_entry_t *e, spw_slot_t *s, unsigned max);
	/*
	 * Compaction: up to max objects of the emptiest blocks, whose going would free a block. The caller locks each
	 * entry, and where nothing changed copies it with put() and frees the old slot. 0 = dense enough.
	 */
	unsigned (*sparse)(struct spw_tier *t, spw_entry_t *e, spw_slot_t *s, unsigned max);

	/* Batch tier. begin: -ENOSPC (no segment free), -EAGAIN (all buffers in flight), -EIO (backing off). */
	int (*begin)(struct spw_tier *t, struct spw_segment **out);
	/* Entry locked. Copies (and seals) the object into the buffer. 0 or -ENOSPC: segment full, submit it. */
	int (*add)(struct spw_tier *t, struct spw_segment *g, spw_entry_t e, const struct spw_obj *o, spw_slot_t from,
		   spw_slot_t *out);
	/*
	 * Start the write. The segment belongs to the tier again. Empty segments are simply returned. Whatever it
	 * returns, every object that was added comes back through poll() exactly once.
	 */
	int (*submit)(struct spw_tier *t, struct spw_segment *g);
	/*
	 * Reap at most one finished segment; wait_ns 0 never sleeps. Returns the number of moves (>= 1) with *status 0
	 * or -errno for all of them, 0 when none is finished. *moves is valid until poll_done(t, token).
	 * One thread at a time.
	 */
	unsigned (*poll)(struct spw_tier *t, uint64_t wait_ns, const struct spw_move **moves, int *status,
			 struct spw_segment **token);
	void (*poll_done)(struct spw_tier *t, struct spw_segment *token);
	/*
	 * Read the object at s into buf (SPW_PAGE bytes) and say its coding and length by the slot. May sleep. 0;
	 * -EIO; -EBADMSG when the seal does not fit the bytes (torn, flipped, stale or another entry's).
	 */
	int (*get)(struct spw_tier *t, spw_entry_t e, spw_slot_t s, void *buf);
	/*
	 * The object at s is going to be asked for: begin to read it, if there is room for that. A hint, s may be
	 * nobody's. alone: what is stored beside it will not be. Does not wait for what is read. False: no such read
	 * is under way, nor are the bytes here. settle() waits for the end of those that the same `who` began. Both
	 * NULL: cannot.
	 */
	bool (*expect)(struct spw_tier *t, const void *who, spw_entry_t e, spw_slot_t s, bool alone);
	void (*settle)(struct spw_tier *t, const void *who);
	/*
	 * Which life of the slot this is: once freed and given to another object, by whatever process, it has another
	 * number, never one that it had. Entry locked or not; of a slot that is nobody's, any number.
	 */
	uint64_t (*life)(struct spw_tier *t, spw_slot_t s);
	/*
	 * Cleaning, when room gets scarce: the owners of the emptiest segments, or (oldest) of those written first,
	 * however full. Read back, up to max; data of each is at (*objs)[i], valid until the next call. 0: that was all
	 * that one pass may take, or nothing is worth cleaning. One thread at a time. The caller moves what is still
	 * live, of the oldest to another tier, else into as few batches as hold it. A pass ends with clean_done(t); the
	 * next begins when nothing of this tier is in flight.
	 */
	unsigned (*clean)(struct spw_tier *t, bool oldest, spw_entry_t *e, spw_slot_t *s, struct spw_obj *objs,
			  unsigned max);
	void (*clean_done)(struct spw_tier *t);

	/* Both shapes. free never fails and never sleeps; entry locked or not. */
	void (*free)(struct spw_tier *t, spw_slot_t s);
	void (*stats)(struct spw_tier *t, struct spw_tier_stats *out);
	/*
	 * fork, called by the host with all other threads of the space quiet: before it (child = slot the child will
	 * have), and in the child (which keeps its inherited copy of this object). NULL where nothing is shared.
	 */
	int (*fork_prepare)(struct spw_tier *t, unsigned child);
	void (*fork_child)(struct spw_tier *t, unsigned child);
	void (*fork_failed)(struct spw_tier *t, unsigned child);
	void (*destroy)(struct spw_tier *t);
};

/* What all tiers begin with. Allocated by the tier's own create function in platform memory. */
struct spw_tier {
	const struct spw_tier_ops *ops;
	const char *name;
	uint8_t number;  /* < SPW_MAX_TIERS, unique in the space; goes into slots */
	int8_t priority; /* higher is used first */
};

#endif
