/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The swap cache: entries whose page is in a frame.
 *
 * A second page table that faults on the entry has to find the page that the first one already brought back (or that
 * is still on its way out); a lookup structure beside the descriptors would be one more thing to keep true. So the
 * descriptor itself names the frame, and the word that it had before moves into the frame table, 8 bytes a frame: the
 * bytes that it describes are still good while the frame is clean, and going back to them costs nothing.
 *
 * An entry's word in the frame table is written under the entry's lock. A frame changes hands by compare-and-swap
 * from 0, so that a frame given to two entries at once is refused and neither loses its backing.
 */
#include "space/internal.h"

uint64_t spw__frame_leave(struct spw__space *sp, uint64_t w)
{
	return __atomic_exchange_n(&sp->frame[spw__word_payload(w)], 0, __ATOMIC_ACQ_REL);
}

static void touch(struct spw__space *sp, uint32_t frame)
{
	uint32_t seen = SPW__LOAD(sp->frames_touched);

	while (seen <= frame && !__atomic_compare_exchange_n(&sp->frames_touched, &seen, frame + 1, true,
							     __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

int spw_cache_add(struct spw__space *sp, spw_entry_t e, uint32_t frame)
{
	uint64_t w, count, backing, nobody = 0;

	if (frame >= sp->max_frames)
		return -ERANGE;
	if (!spw__lock_owned(sp, e, &w))
		return -ENOENT;
	if (spw__word_kind(w) == SPW_FRAME) {
		spw__unlock(sp, e, w);
		return -EEXIST;
	}
	backing = w ? spw__word_backing(w) : SPW__BACK_NONE;
	count = w ? w & SPW__COUNT_MASK : SPW__COUNT_ONE;
	if (!__atomic_compare_exchange_n(&sp->frame[frame], &nobody, backing, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED)) {
		spw__unlock(sp, e, w);
		return -EBUSY;
	}
	SPW__HOOK(SPW__FRAME_TAKEN, e);
	touch(sp, frame);
	if (!w)
		spw__cluster_live(sp, spw__cluster_of(e));
	spw__publish(sp, e, w, spw__word(SPW_FRAME, frame) | count);
	return 0;
}

int spw_cache_get(struct spw__space *sp, spw_entry_t e, uint32_t *frame)
{
	uint64_t w = spw__peek(sp, e);

	if (spw__word_kind(w) != SPW_FRAME)
		return -ENOENT;
	*frame = (uint32_t)spw__word_payload(w);
	return 0;
}

int spw_cache_del(struct spw__space *sp, spw_entry_t e, uint32_t frame, bool keep)
{
	uint64_t w, backing;

	if (!spw__lock(sp, e, &w))
		return -ENOENT;
	if (spw__word_kind(w) != SPW_FRAME || spw__word_payload(w) != frame) {
		spw__unlock(sp, e, w);
		return -ENOENT;
	}
	backing = spw__where(sp, w);
	if (keep && backing != SPW__BACK_NONE) {
		spw__frame_leave(sp, w);
		SPW__HOOK(SPW__FRAME_LEFT, e);
		spw__publish(sp, e, w, backing | (w & SPW__COUNT_MASK));
		return 0;
	}
	if (spw__word_count(w) > 1) {
		spw__unlock(sp, e, w);
		return -EBUSY;
	}
	spw__frame_leave(sp, w);
	SPW__HOOK(SPW__FRAME_LEFT, e);
	spw__replace(sp, e, w, 0, backing);
	spw__cluster_dead(sp, spw__cluster_of(e), 1);
	return 0;
}
