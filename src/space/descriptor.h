/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_SPACE_DESCRIPTOR_H
#define SPW_SPACE_DESCRIPTOR_H
/*
 * The descriptor: the 64-bit word behind a swap entry.
 *
 *   63..61 kind | 60 lock | 59 moving | 58 referenced | 57..54 count | 53..0 payload
 *
 * The same layout serves the backing word that the frame table keeps for a cached entry, so that bytes are described
 * in one way wherever the entry is. "cached" below means that the descriptor is FRAME and the row's kind is that of
 * the backing word; "moving" is a writeback or a cleaning whose write is in flight.
 *
 * kind  cached moving  meaning
 * FREE  no     no      Not allocated. All bits 0 (but the lock, while an owner brings it to life), so memory that was
 *                      never touched or was discarded is full of FREE entries.
 * FREE  yes    no      The frame holds the only copy: BACK_NONE.
 * FREE  any    yes     Illegal: a move without bytes. Its completion would bring a dead entry back to life.
 * SAME  any    no      Every 32-bit word of the page is the payload. No storage.
 * SAME  any    yes     Illegal: nothing to move. The completion would free a slot that another object owns.
 * POOL  no     no      Compressed in the RAM tier of the slot; loads decompress it from there.
 * POOL  no     yes     Case 3: still in RAM, a copy of it on its way to a batch tier. Loads are served from RAM.
 * POOL  yes    no      The frame is clean; the pool's copy is still good and saves the next store.
 * POOL  yes    yes     As above, and the copy is on its way. The completion finds the backing word through the frame.
 * SLOT  no     no      Case 1: on the batch tier of the slot; loads read it.
 * SLOT  no     yes     Cleaning: the old slot is good until the new one is written. Loads read the old one.
 * SLOT  yes    any     The same two, with a clean frame in front.
 * FRAME no     no      Case 4: in the frame of the payload; the frame table keeps the backing word.
 * FRAME no     yes     Illegal: moving belongs to the backing word. Here, a store that takes the frame away would
 *                      lose the mark, free the slot under the move, and let the completion overwrite its next owner.
 * FRAME yes    any     Illegal: a frame behind a frame. Two truths for one page, and a write to one lost.
 *
 * A slot under a move is never freed in its tier before the move's completion, whoever lets go of it: until then no
 * object can be given that address, so "same slot, still moving" proves that the entry still means the moved bytes.
 *
 * The lock is taken on live words only, except by the owner of a taken cluster. A FREE entry of a cluster that is being
 * given back is therefore never changed, and stale hints (victims, completions) may name any entry at all. A
 * compare-and-swap that is overtaken by all that, from reading the word to giving the page back, changes nothing
 * either, but makes a page of zeros: spw__lock() then gives it back once more.
 */
#include "platform/platform.h"
#include "space/entry.h"
#include "space/hooks.h"
#include "space/space.h"

#define SPW__PAYLOAD_MASK ((1ull << SPW_SLOT_BITS) - 1)
#define SPW__COUNT_SHIFT  54
#define SPW__COUNT_ONE    (1ull << SPW__COUNT_SHIFT)
#define SPW__COUNT_MASK   (15ull << SPW__COUNT_SHIFT)
#define SPW__COUNT_TABLE  15u /* the count is in the cluster's overflow table */
#define SPW__REFERENCED   (1ull << 58)
#define SPW__MOVING       (1ull << 59)
#define SPW__LOCK         (1ull << 60)
#define SPW__KIND_SHIFT   61

/* What a frame keeps for an entry without bytes elsewhere. Not 0, which says that the frame is nobody's. */
#define SPW__BACK_NONE SPW__REFERENCED

static inline enum spw_kind spw__word_kind(uint64_t w)
{
	return (enum spw_kind)(w >> SPW__KIND_SHIFT);
}

static inline uint64_t spw__word(enum spw_kind kind, uint64_t payload)
{
	return (uint64_t)kind << SPW__KIND_SHIFT | payload;
}

static inline uint64_t spw__word_payload(uint64_t w)
{
	return w & SPW__PAYLOAD_MASK;
}

static inline spw_slot_t spw__word_slot(uint64_t w)
{
	return (spw_slot_t){w & SPW__PAYLOAD_MASK};
}

static inline unsigned spw__word_count(uint64_t w)
{
	return (unsigned)((w & SPW__COUNT_MASK) >> SPW__COUNT_SHIFT);
}

/* Where the bytes are, without how many hold them: the form a frame keeps. */
static inline uint64_t spw__word_backing(uint64_t w)
{
	return w & ~(SPW__LOCK | SPW__REFERENCED | SPW__COUNT_MASK);
}

static inline bool spw__word_stored(uint64_t w)
{
	return spw__word_kind(w) == SPW_POOL || spw__word_kind(w) == SPW_SLOT;
}

/* Whether w says that the bytes are at s and whether a move of them is in flight. */
static inline bool spw__word_at(uint64_t w, spw_slot_t s, bool moving)
{
	return spw__word_stored(w) && spw__slot_same(spw__word_slot(w), s) && !!(w & SPW__MOVING) == moving;
}

static inline uint64_t spw__word_peek(const uint64_t *d)
{
	return __atomic_load_n(d, __ATOMIC_ACQUIRE) & ~SPW__LOCK;
}

/*
 * Lock the entry and read its word. A FREE word is locked only for its owner; for others false, not locked, and *w is
 * not 0 if it became FREE under a compare-and-swap.
 */
static inline bool spw__word_lock(uint64_t *d, bool owner, uint64_t *w)
{
	unsigned spins = 0;

	*w = __atomic_load_n(d, __ATOMIC_RELAXED);
	for (;;) {
		if (*w & SPW__LOCK) {
			spw__plat_relax(spins++);
			*w = __atomic_load_n(d, __ATOMIC_RELAXED);
		} else if (!*w && !owner) {
			return false;
		} else {
			SPW__HOOK(SPW__WORD_SEEN, ((spw_entry_t){SPW_ENTRY_NONE}));
			if (__atomic_compare_exchange_n(d, w, *w | SPW__LOCK, true, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
				return true;
			if (!*w && !owner) {
				*w = SPW__LOCK;
				return false;
			}
		}
	}
}

/* Unlock by writing the word that holds from now on. */
static inline void spw__word_unlock(uint64_t *d, uint64_t w)
{
	__atomic_store_n(d, w, __ATOMIC_RELEASE);
}

#endif
