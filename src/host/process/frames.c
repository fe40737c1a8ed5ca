/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Staging pages.
 *
 * A page must leave the program atomically (a write between reading it and dropping it would be lost), and the
 * program must be able to have it back while it is being compressed. So eviction moves pages, not bytes, into frames
 * (UFFDIO_MOVE), compression works on the frame, and a fault in the meantime moves the frame's page back; the store
 * then finds that the entry left the frame and drops what it made.
 *
 * Taking a page back is two steps, the page and then the entry, and a store that commits between them would keep what
 * the emptied frame holds, for a page that the program has. So each side says which frame it works on, then looks
 * whether the other side does; the one that puts back gives way.
 *
 * Giving a frame's memory back needs care. The frames belong to the first userfaultfd, because only then does the
 * kernel refuse the move (-EAGAIN) while the program unmaps or remaps something, which is what makes eviction safe. But
 * madvise(2) on them would raise an event that only we can read. So spent frames are moved once more, to a range that
 * belongs to a second userfaultfd without events, and discarded there.
 *
 * It is tempting to restore the next page into a spent one and to move that: it would save the kernel a page given back
 * and one asked for. But a page that the program gave to a pipe or a socket without a copy (vmsplice, MSG_ZEROCOPY) is
 * read there after it went out, and nothing tells that somebody still holds it. Discarded, it keeps its bytes for him.
 */
#include "host/process/agent.h"
#include "host/process/evict.h"
#include "host/uffd.h"
#include "platform/platform.h"

#include <errno.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)SPW_FRAMES_BATCH * SPW_PAGE)

int spw__frames_reopen(struct spw__agent *a)
{
	uint64_t features = 0;

	if (!a->move)
		return 0;
	a->spent_fd = spw__uffd_open(&features, false); /* nothing ever faults there */
	if (a->spent_fd < 0)
		return a->spent_fd;
	return spw__uffd_register(a->spent_fd, a->frames.spent, BLOCK_BYTES, UFFDIO_REGISTER_MODE_WP);
}

int spw__frames_init(struct spw__agent *a)
{
	struct spw__frames *f = &a->frames;

	*f = (struct spw__frames){0};
	f->base = spw__plat_reserve((size_t)SPW_FRAMES * SPW_PAGE);
	f->spent = spw__plat_reserve(BLOCK_BYTES);
	f->owner = spw__plat_reserve(SPW_FRAMES * sizeof(*f->owner));
	f->home = spw__plat_reserve(SPW_FRAMES * sizeof(*f->home));
	if (!f->base || !f->spent || !f->owner || !f->home)
		return -ENOMEM;
	memset(f->owner, 0xff, SPW_FRAMES * sizeof(*f->owner));
	if (!a->move)
		return 0;
	int ret = spw__uffd_register(a->uffd, f->base, (size_t)SPW_FRAMES * SPW_PAGE, UFFDIO_REGISTER_MODE_WP);

	return ret ? ret : spw__frames_reopen(a);
}

static void begin_store(struct spw__frames *f, uint32_t frame)
{
	__atomic_store_n(&f->storing, frame + 1, __ATOMIC_SEQ_CST);
	for (unsigned spins = 0; __atomic_load_n(&f->returning, __ATOMIC_SEQ_CST) == frame + 1; spins++)
		spw__plat_relax(spins);
}

static bool begin_return(struct spw__frames *f, uint32_t frame)
{
	__atomic_store_n(&f->returning, frame + 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&f->storing, __ATOMIC_SEQ_CST) != frame + 1)
		return true;
	__atomic_store_n(&f->returning, 0, __ATOMIC_SEQ_CST);
	for (unsigned spins = 0; __atomic_load_n(&f->storing, __ATOMIC_SEQ_CST) == frame + 1; spins++)
		spw__plat_relax(spins);
	return false;
}

/* Linux 6.18 may move a page and say that it is there already: see evict.c. */
static long move_back(struct spw__agent *a, void *to, const void *from)
{
	long done = spw__uffd_move_page(a->uffd, to, from);

	if (done == -EEXIST && !spw__page_there(a, (uintptr_t)from) && spw__page_there(a, (uintptr_t)to))
		return SPW_PAGE;
	return done;
}

int spw__frame_return(struct spw__agent *a, uint64_t va, spw_entry_t e, uint32_t frame)
{
	struct spw__frames *f = &a->frames;
	char *from = spw__frame_at(f, frame);
	void *to = (void *)(uintptr_t)va;
	uint32_t now;

	if (!begin_return(f, frame))
		return -ENOENT;
	/* Stored before we began? */
	bool gone = spw_cache_get(a->space, e, &now) || now != frame;
	long done = gone ? -ENOENT : a->move ? move_back(a, to, from) : -EINVAL;

	/* Or the mapping is gone. A frame that is empty is neither: the program would get zeros for its page. */
	if (done == -ENOENT && !gone && !spw__page_there(a, (uintptr_t)from))
		spw__agent_die("has lost a page that it took out", 0);
	/* A mapping that was protected or locked since takes no moved page, but a copy. */
	if (done == -EINVAL || done == -EBUSY)
		done = spw__uffd_copy_quiet(a->uffd, to, from, SPW_PAGE);
	if (done > 0 && spw_cache_del(a->space, e, frame, false))
		spw__agent_die("put a page back that was not its frame's", 0);
	__atomic_store_n(&f->returning, 0, __ATOMIC_SEQ_CST);
	return done > 0 ? 0 : done ? (int)done : -EAGAIN;
}

/* Move what n frames hold to the spent pages. */
static void move_away(struct spw__agent *a, uint32_t frame, unsigned n)
{
	char *from = spw__frame_at(&a->frames, frame), *to = a->frames.spent;

	for (size_t left = (size_t)n * SPW_PAGE; left;) {
		long done = spw__uffd_move(a->spent_fd, to, from, left);

		if (done == -EEXIST) {
			/* Moved, but not counted (evict.c); or zeros that a debugger left which looked at the range. */
			spw__plat_discard(to, left);
			continue;
		}
		if (done == -EBUSY) {
			/* A child of a bare clone(2) has the page as well. Written to, it is ours alone. */
			__atomic_fetch_or(from, 0, __ATOMIC_RELAXED);
			continue;
		}
		if (done < 0)
			spw__agent_die("cannot empty its staging pages", (int)-done);
		to += done;
		from += done;
		left -= (size_t)done;
	}
}

/* Give back the memory of n frames. */
static void discard(struct spw__agent *a, uint32_t frame, unsigned n)
{
	char *from = spw__frame_at(&a->frames, frame);

	if (a->move) {
		move_away(a, frame, n);
		from = a->frames.spent;
	}
	spw__plat_discard(from, (size_t)n * SPW_PAGE);
}

void spw__frames_empty(struct spw__agent *a)
{
	struct spw__frames *f = &a->frames;

	while (f->tail < f->head) {
		uint32_t frame = (uint32_t)(f->tail % SPW_FRAMES);
		uint64_t n = f->head - f->tail;

		n = n < SPW_FRAMES_BATCH ? n : SPW_FRAMES_BATCH;
		n = n < SPW_FRAMES - frame ? n : SPW_FRAMES - frame;
		discard(a, frame, (unsigned)n);
		memset(&f->owner[frame], 0xff, n * sizeof(*f->owner));
		f->tail += n;
	}
}

/* As spw_store(): the page of e, which is in `frame`. Or SPW_TWIN, if a twin is asked for and there is one. */
static int store_page(struct spw__agent *a, spw_entry_t e, uint32_t frame, spw_entry_t *twin)
{
	struct spw__frames *f = &a->frames;
	const char *page = spw__frame_at(f, frame);
	int ret = -ESTALE;

	begin_store(f, frame);
	/* Taken back just now, it may be a hole, and reading a hole would fill it. */
	if (spw_kind(a->space, e) == SPW_FRAME)
		ret = twin ? spw_store_or_find(a->space, a->reclaim_work, e, page, frame, twin)
			   : spw_store(a->space, a->reclaim_work, e, page, frame);
	__atomic_store_n(&f->storing, 0, __ATOMIC_SEQ_CST);
	return ret;
}

/*
 * The page of e has the bytes of `twin`: let the page table refer to that. 0, -ESTALE (taken back or gone meanwhile),
 * -EAGAIN (store it after all). In one step for the handler; and not as a store, which one who puts the page back, with
 * the lock that is taken here, would wait for.
 */
static int share(struct spw__agent *a, spw_entry_t e, uint32_t frame, spw_entry_t twin)
{
	uint64_t va = a->frames.home[frame];
	int ret = -EAGAIN;
	uint32_t now;

	spw__lock(&a->lock);
	if (spw_cache_get(a->space, e, &now) || now != frame) {
		ret = -ESTALE;
	} else if (spw__pt_lookup(&a->pt, va).idx == e.idx && !spw_join(a->space, a->reclaim_work, twin)) {
		spw__pt_share(&a->pt, va, twin);
		if (spw_cache_del(a->space, e, frame, false))
			spw__agent_die("shared a page that was not its frame's", 0);
		ret = 0;
	}
	spw__unlock(&a->lock);
	return ret;
}

/* Store the page of e, or share the entry of another that has the same bytes. As spw_store(). */
static int put_away(struct spw__agent *a, spw_entry_t e, uint32_t frame)
{
	spw_entry_t twin;
	int ret = store_page(a, e, frame, a->pt.sharing ? &twin : NULL);

	if (ret == SPW_TWIN)
		ret = share(a, e, frame, twin);
	return ret == -EAGAIN ? store_page(a, e, frame, NULL) : ret;
}

int spw__frames_store(struct spw__agent *a)
{
	struct spw__frames *f = &a->frames;

	spw__lock(&a->lock);
	uint64_t start = f->tail, end = f->head;

	spw__unlock(&a->lock);
	uint64_t wrap = (start / SPW_FRAMES + 1) * SPW_FRAMES, batch = start + SPW_FRAMES_BATCH;

	end = end < batch ? end : batch;
	end = end < wrap ? end : wrap;
	if (start == end)
		return 0;

	uint64_t pos = start;
	unsigned stored = 0;
	int ret = 0;

	for (; pos < end; pos++) {
		uint32_t frame = (uint32_t)(pos % SPW_FRAMES);
		spw_entry_t e = {__atomic_load_n(&f->owner[frame], __ATOMIC_RELAXED)};

		if (e.idx == SPW_ENTRY_NONE)
			continue;
		ret = put_away(a, e, frame);
		if (ret == 0) {
			stored++;
			spw__split_out(&a->split, e);
		} else if (ret != -ESTALE && ret != -ENOENT)
			break;
	}
	unsigned n = (unsigned)(pos - start);
	uint32_t frame = (uint32_t)(start % SPW_FRAMES);

	if (n)
		discard(a, frame, n);
	__atomic_sub_fetch(&a->resident, (int64_t)stored * SPW_PAGE, __ATOMIC_RELAXED);
	spw__lock(&a->lock);
	memset(&f->owner[frame], 0xff, n * sizeof(*f->owner));
	f->tail = pos;
	spw__unlock(&a->lock);
	__atomic_add_fetch(&a->ctl->total.swap_out_pages, stored, __ATOMIC_RELAXED);
	if (!n)
		return ret == -ENOMEM ? -ENOSPC : ret;
	return stored ? (int)stored : 1;
}
