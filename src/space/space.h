/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_SPACE_H
#define SPW_SPACE_H
/*
 * The space: the layer between page tables and storage. It owns entries, their descriptors, their counts, the swap
 * cache and the moving of bytes between tiers. It knows no system call and no libc beyond <string.h>.
 *
 * Threads: every function may be called from any thread at once, unless it says otherwise. Signals: none is
 * async-signal-safe. Memory: platform.h only. No function sleeps unless it says so. Errors are -errno.
 *
 * Lock order: entry lock bit, then a tier's own locks, then the cluster lock. At most one entry is locked at a time.
 */
#include "codec/codec.h"
#include "space/entry.h"
#include "tier/tier.h"

struct spw__space_config {
	uint32_t max_clusters;  /* upper bound of clusters, address space only; <= 2^23 */
	uint32_t max_frames;    /* upper bound of frames, 0 = no swap cache */
	struct spw_codec codec; /* what stores compress with */
	uint32_t max_twins; /* objects remembered to find equal ones, 8 bytes each; 0 = none. A power of 2, >= 512 */
	uint64_t twin_key;  /* secret random number for that */
};

struct spw__space_stats {
	uint64_t entries; /* descriptors not FREE */
	uint64_t same;    /* of them in each kind */
	uint64_t pool, slot, frame;
	uint64_t clusters;       /* present */
	uint64_t stores, loads;  /* since the start: pages stored (FRAME -> tier or new), pages restored */
	uint64_t same_stores;    /* of the stores, same-filled pages */
	uint64_t joins;          /* pages that were not stored, as an entry held the same bytes already */
	uint64_t writebacks;     /* objects moved from a RAM tier to a batch tier */
	uint64_t relocations;    /* objects moved by compaction or cleaning */
	uint64_t cancels;        /* moves overtaken by a free or a store */
	uint64_t metadata_bytes; /* resident bytes of descriptors, cluster table, frame table, count overflow, twins */
};

struct spw__space;

/*
 * A thread's work area: codec state and two page buffers. spw_work_size() bytes of platform memory, aligned to 64,
 * prepared by spw_work_init(). One thread at a time.
 */
struct spw_work;
size_t spw_work_size(const struct spw__space *sp);
int spw_work_init(const struct spw__space *sp, void *mem, struct spw_work **out);

/* *out is one reservation owned by the caller until destroy. 0, -EINVAL, -ENOMEM. destroy needs all threads gone. */
int spw__space_create(const struct spw__space_config *cfg, struct spw__space **out);
void spw__space_destroy(struct spw__space *sp);

/*
 * Add a tier, while nobody stores, writes back or cleans; loads may go on. The space does not own it. -ENOSPC:
 * SPW_MAX_TIERS; -EEXIST: number; -EINVAL. The way back: spw_drain(), spw__space_remove_tier().
 */
int spw__space_add_tier(struct spw__space *sp, struct spw_tier *t);

/*
 * Clusters, for hosts whose page table maps 512 neighbouring pages to 512 neighbouring entries. The cluster belongs to
 * the caller until given back; its entries start FREE and each is brought to life by spw_store() or
 * spw_cache_add(). give: every entry must be FREE again, or -EBUSY. take: -ENOMEM.
 */
int spw_cluster_take(struct spw__space *sp, uint32_t *cluster);
int spw_cluster_give(struct spw__space *sp, uint32_t cluster);

/*
 * Which tiers may be used: by the whole space, and by the entries of one taken cluster (a region of the host is a set
 * of clusters). `tiers` has a bit for each number. All of them at first, of a cluster whenever it is taken; a call can
 * only narrow: -EPERM, nothing changed, if it names one that is not allowed any more. -EINVAL: no such numbers, or the
 * cluster is not taken.
 *
 * No object of an entry comes to a tier that the entry may not use, by whatever call; where there is no other it is as
 * if there was no room. Tell a cluster's before any of its entries comes to life: what is on a tier already, or on its
 * way there, stays good there, and may be moved about within it, until it is stored anew, freed, written back or
 * drained. The number of a tier that was removed stays denied where it was, whichever tier it is given to next.
 */
int spw_allow(struct spw__space *sp, uint32_t tiers);
int spw_cluster_allow(struct spw__space *sp, uint32_t cluster, uint32_t tiers);

/*
 * Single entries, for hosts that map them one by one. n entries with count 1, each reading as a page of zeros.
 * All or nothing: 0 or -ENOMEM. Neighbouring entries are given where possible.
 */
int spw_alloc(struct spw__space *sp, spw_entry_t *e, unsigned n);

/* One more / one fewer holder of each of n entries. free at the last holder: the entry is FREE, its storage reusable
 * (or, for allocated entries, may be allocated again). dup: -ENOENT if FREE, -ENOMEM (overflow table; none of the n was
 * taken). free of a FREE entry is a no-op. */
int spw_dup(struct spw__space *sp, const spw_entry_t *e, unsigned n);
void spw_free(struct spw__space *sp, const spw_entry_t *e, unsigned n);
/*
 * free of [first, first + n): what munmap calls. Skips FREE descriptors fast; clusters not present are skipped whole.
 */
void spw_free_range(struct spw__space *sp, spw_entry_t first, unsigned n);
/* Holders; 0 = FREE. */
uint32_t spw_count(struct spw__space *sp, spw_entry_t e);

/*
 * Store the page's bytes under e: same-filled pages in the descriptor, others compressed into the first RAM tier with
 * room. Replaces what was there (a new store cancels a move in flight); a FREE entry of a taken cluster comes to life
 * with count 1. If e is FRAME, the store is of that frame's page: it succeeds only if e is still cached in frame
 * `frame` when the bytes are ready, and the frame is then no longer the entry's (-ESTALE otherwise, nothing
 * changed). The host gives the frame to no entry, this one included, before the call has returned: an older page would
 * be taken for the frame's. Pass SPW_NO_FRAME for an uncached store.
 * 0, -ENOSPC (no RAM tier has room), -ENOMEM, -ESTALE, -ENOENT (FREE, and not of a taken cluster). On error the entry
 * is as before. All holders of e get the new bytes: a host whose page tables came to share e by spw_join() never stores
 * under it while its count is above 1.
 */
#define SPW_NO_FRAME UINT32_MAX
int spw_store(struct spw__space *sp, struct spw_work *w, spw_entry_t e, const void *page, uint32_t frame);

/*
 * Pages of equal bytes can share one entry (max_twins). store_or_find is spw_store(), but stores nothing and returns
 * SPW_TWIN if another entry, *twin, holds the same bytes in a RAM tier, in no frame. Nothing has changed then, and
 * *twin is a hint. join, the next call with this w, makes it true: *twin is looked at again, and if it still holds what
 * is at `page` has one holder more, the caller's. It lets its page table refer to twin and frees e, all of it in one
 * step to whoever uses its page table; the bytes at `page` are not to change before.
 * join: 0, -ESTALE (twin holds something else now: store after all), -ENOMEM (overflow table).
 * Not every equal page is found: what is on a file is not read for it, an entry of a cluster that may use other tiers
 * is none, and only max_twins objects are remembered.
 */
#define SPW_TWIN 1
int spw_store_or_find(struct spw__space *sp, struct spw_work *w, spw_entry_t e, const void *page, uint32_t frame,
		      spw_entry_t *twin);
int spw_join(struct spw__space *sp, struct spw_work *w, spw_entry_t twin);

/*
 * Restore the page of e into page (SPW_PAGE bytes). The entry keeps its bytes: the caller frees it after the page is
 * in place. May sleep when the bytes are on a batch tier. FREE reads as zeros (-ENOENT), FRAME returns -EEXIST and
 * the caller takes the frame (spw_cache_get). Else 0, -EIO, -EBADMSG; *where then holds the slot for the message.
 */
int spw_load(struct spw__space *sp, struct spw_work *w, spw_entry_t e, void *page, spw_slot_t *where);

/*
 * The page of e is going to be loaded: if that means to read it from somewhere, the read begins now. Does not wait for
 * what is read; next to nothing for all other entries. alone: what is stored beside it will not be. False: to load it
 * is to wait for a read that has not begun; as all answers, maybe not any more.
 * As long as such a read is under way, what the thread that began it sleeps in may be interrupted (EINTR). A thread of
 * the program's calls spw_settle() before it goes on, which waits for all that were begun by w's holder.
 */
bool spw_expect(struct spw__space *sp, const struct spw_work *w, spw_entry_t e, bool alone);
void spw_settle(struct spw__space *sp, const struct spw_work *w);

/* What a descriptor says, by one load. For sweeps, readahead and statistics; may be stale at once. */
enum spw_kind { SPW_FREE = 0, SPW_SAME, SPW_POOL, SPW_SLOT, SPW_FRAME };
enum spw_kind spw_kind(const struct spw__space *sp, spw_entry_t e);

/*
 * Swap cache. add: e (FREE of a taken cluster: comes to life with count 1 and no backing; SAME, POOL, SLOT: keeps it as
 * the frame's clean backing) becomes FRAME. -EEXIST if cached already, -EBUSY if the frame is another entry's,
 * -ENOENT, -ERANGE. get: the frame of e, -ENOENT if none. del: the frame leaves; the entry falls back to its
 * backing, or to FREE if it had none (keep = true), or the backing is dropped and the entry is FREE (keep = false: the
 * page table maps the page again and may write it).
 * A load and the add of the frame that it filled are two steps: the host lets no store of the entry come in between.
 * -ENOENT if e is not FRAME with that frame; -EBUSY, nothing changed, if it would become FREE under other holders.
 */
int spw_cache_add(struct spw__space *sp, spw_entry_t e, uint32_t frame);
int spw_cache_get(struct spw__space *sp, spw_entry_t e, uint32_t *frame);
int spw_cache_del(struct spw__space *sp, spw_entry_t e, uint32_t frame, bool keep);

/*
 * Writeback and upkeep, driven by a host thread (one at a time; the rest of the space goes on meanwhile).
 * start: gather about `bytes` (whole blocks) of the oldest objects of RAM tiers (RAW first; only RAW when raw_only)
 * into segments of the first batch tier with room, those that may not go there into segments of one where they may, and
 * submit. Returns objects on their way (>= 0), -ENOSPC, -EIO (backing off), -EAGAIN (buffers busy), -ENODEV (no batch
 * tier that takes objects).
 * poll: finish completed segments; wait_ns as in the tier, but none with no move in flight. Returns objects finished.
 * compact: up to `max` objects moved out of sparse blocks. clean: up to three segments of one tier, to a lower one if
 * there is one with room; -EAGAIN while moves from or to it are in flight. Return objects moved (>= 0) or -errno.
 */
int spw_writeback_start(struct spw__space *sp, uint64_t bytes, bool raw_only);
int spw_writeback_poll(struct spw__space *sp, uint64_t wait_ns);
/* Objects on their way: submitted, not finished. Any thread. */
unsigned spw_writeback_under_way(const struct spw__space *sp);
int spw_compact(struct spw__space *sp, unsigned max);
int spw_clean(struct spw__space *sp, struct spw_work *w);

/*
 * Drain: empty tier t while everything goes on, by scanning descriptors; what is on it goes to the other tiers.
 *
 * begin: t takes no new objects from now on. step: a bounded amount of work, at most `max` objects (>= 1) tried and
 * `max` clusters looked at; may sleep in reads. SPW_DRAIN_MORE; SPW_DRAIN_WAITS: nothing more can be done before a move
 * in flight completes (spw_writeback_poll); 0: t is empty; -ECANCELED: t takes objects; -ENOSPC, -ENOMEM, -EIO,
 * -EBADMSG: a whole pass could move nothing more, and this is why; -EBUSY: what is on t belongs to no entry. After an
 * error the next step begins a new pass. Between steps the host goes on as ever, and the moves that a step has started
 * are completed by its spw_writeback_poll(). spw_drain is begin and steps to the end, and sleeps.
 *
 * rescue: begin, of a tier that fails. What cannot be read stays and is passed over; without room for an object the
 * scan stops there, with -ENOSPC or -ENOMEM, and the next step goes on with it. -EIO or -EBADMSG: what is left on t
 * cannot be read. Steps then say -EIO, and read nothing, until t is empty.
 *
 * A store that began before t was closed may still land on it after it was found empty: then the next step has more
 * to do, and spw__space_remove_tier() refuses.
 *
 * begin, step and spw_drain: on the thread that drives writeback. cancel: any thread; t takes objects again, those
 * moved stay where they are, and every step from then on, one under way included, returns -ECANCELED until a new begin.
 */
#define SPW_DRAIN_MORE  1
#define SPW_DRAIN_WAITS 2
void spw_drain_begin(struct spw__space *sp, struct spw_tier *t);
void spw_drain_rescue(struct spw__space *sp, struct spw_tier *t);
int spw_drain_step(struct spw__space *sp, struct spw_work *w, struct spw_tier *t, unsigned max);
void spw_drain_cancel(struct spw__space *sp, struct spw_tier *t);
int spw_drain(struct spw__space *sp, struct spw_work *w, struct spw_tier *t);

/*
 * A tier that was drained leaves the space: it is the caller's to destroy, and its number is free. 0; -ENOENT: not of
 * this space; -EBUSY: not closed by spw_drain_begin(), or not empty. Calls walk the tiers without a lock, and one that
 * read a slot of t before the drain moved its object may be reading there still. So this is called on the thread that
 * drives writeback with every other thread of the space quiet, as for a fork; a quiet moment suffices, after the drain.
 */
int spw__space_remove_tier(struct spw__space *sp, struct spw_tier *t);

void spw_stats(struct spw__space *sp, struct spw__space_stats *out);

/*
 * fork by copying the address space: prepare in the parent with every other thread of the space quiet (or at most
 * loading from a RAM tier or file), then child in
 * the child (copied memory, no other threads) or parent. Moves in flight stay the parent's: in the child they are
 * cancelled, their objects stay where they were. -errno of a tier: nothing changed.
 */
int spw_fork_prepare(struct spw__space *sp, unsigned child);
void spw_fork_failed(struct spw__space *sp, unsigned child);
void spw_fork_child(struct spw__space *sp, unsigned child);

#endif
