/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking pages out by copy and a discard that the kernel may refuse: for kernels before 6.8, and for --evict wp.
 *
 * Without UFFDIO_MOVE no single call takes a page, and madvise(MADV_DONTNEED) drops whatever is at the address by then:
 * a page that a device still writes to, or one of a mapping that another thread has just made there. So the drop is
 * left to the kernel's reclaim, which looks at the page itself:
 *
 *   protect    no CPU of the program writes to the pages from here on (and no event waits, or this fails)
 *   copy       into frames. From here on nothing is lost, whatever drops the pages
 *   mark       MADV_FREE: the pages are now ones that may be dropped while they stay clean and nobody else holds them
 *   look       has the program changed its mappings since the first step? Then what was marked may be another's
 *   copy       again: a device that finished in between wrote before the mark, which forgets that the page was dirty
 *   reclaim    MADV_PAGEOUT: drops a page that is marked, clean, and held by nothing but this one mapping
 *   settle     pages that are gone are out; those still there are dirtied, which undoes the mark
 *
 * A page pinned for I/O is held, one that I/O has ended on since the mark is dirty (O_DIRECT makes it so), and a
 * mapping made since the look was never marked: none of them is dropped.
 *
 * MADV_FREE raises an event, which the handler has to read, so the lock is not held here; all messages are held back
 * instead. Ours is told from the program's by its range, for the pages lie in one mapping when we begin. Should that be
 * split or replaced at this very moment, ours may come in parts. Taking those for the program's frees nothing, as none
 * of the pages has an entry; unless a mapping has been moved there meanwhile: then each of them is taken for ours.
 *
 * What is left: bytes that come through io_uring's registered buffers do not make a page dirty. One whose I/O ends and
 * whose registration ends between the second copy and its drop has the bytes from before. And a page of a new mapping,
 * or of a child by bare clone(2), that was marked in the place of the one that was there could be reclaimed by the
 * kernel, if it is that short of memory, in the microseconds before the mark is undone. A program that moves a mapping
 * to where we are marking and discards a part of it, all within that call, does not see zeros.
 */
#include "host/process/agent.h"
#include "host/process/evict.h"
#include "host/process/pagemap.h"
#include "host/uffd.h"
#include "platform/sys.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define PM_OURS (SPW_PM_PRESENT | SPW_PM_EXCLUSIVE)

/* A fault of the thread that takes the pages out: it must go on, or nothing here ends. */
static void serve_own(struct spw__agent *a, const struct uffd_msg *m)
{
	struct spw__copying *c = &a->copying;
	static const char zeros[SPW_PAGE] __attribute__((aligned(SPW_PAGE)));
	uint64_t page = spw__msg_page(m);
	const char *from = zeros;
	bool dropped;

	if (m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
		spw__uffd_protect(a->uffd, (void *)(uintptr_t)page, SPW_PAGE, 0);
		return;
	}
	/* What the program did not drop itself the kernel has, short of memory, since it was marked. */
	for (uint64_t va = c->start; va < c->end; va += SPW_PAGE) {
		if (spw__held_place(&c->held, va, &dropped) == page && !dropped)
			from = spw__frame_at(&a->frames, c->first) + (va - c->start);
	}
	if (spw__uffd_copy_protected(a->uffd, (void *)(uintptr_t)page, from, SPW_PAGE) < 0)
		spw__uffd_wake(a->uffd, (void *)(uintptr_t)page, SPW_PAGE);
}

/* Whether an event that is held has brought another mapping, with entries of its own, to the range. */
static bool moved_in(const struct spw__copying *c)
{
	for (uint32_t i = 0; i < c->held.events; i++) {
		const struct uffd_msg *m = &c->held.event[i];

		if (m->event == UFFD_EVENT_REMAP && m->arg.remap.to < c->end &&
		    m->arg.remap.to + m->arg.remap.len > c->start)
			return true;
	}
	return false;
}

/* Whether m is the report of our own madvise(2), or a part of it. */
static bool is_ours(struct spw__copying *c, const struct uffd_msg *m)
{
	uint64_t start = m->arg.remove.start, end = m->arg.remove.end;

	if (!c->marking || m->event != UFFD_EVENT_REMOVE || start < c->start || end > c->end)
		return false;
	if (moved_in(c))
		return true;
	/* Of two alike, one is ours and the other the program's: the order does not matter, the second is held. */
	bool whole = start == c->start && end == c->end && !c->seen;

	c->seen |= whole;
	return whole;
}

bool spw__copy_holds(struct spw__agent *a, const struct uffd_msg *m)
{
	struct spw__copying *c = &a->copying;

	if (!c->active)
		return false;
	if (m->event == UFFD_EVENT_PAGEFAULT && (int)m->arg.pagefault.feat.ptid == a->reclaim_tid)
		serve_own(a, m);
	/* Faults anywhere, not only in the range: the kernel hands out events after faults, and ours must come. */
	else if (!is_ours(c, m))
		spw__held_add(a, &c->held, m);
	return true;
}

bool spw__copy_under_way(const struct spw__agent *a)
{
	return __atomic_load_n(&a->copying.active, __ATOMIC_ACQUIRE);
}

/* Copy n pages at va into frames. How many, from the first on, could be read. */
static unsigned copy_out(struct spw__agent *a, uint64_t va, unsigned n)
{
	struct iovec to = {spw__frame_at(&a->frames, a->copying.first), (size_t)n * SPW_PAGE};
	struct iovec from = {(void *)(uintptr_t)va, (size_t)n * SPW_PAGE};
	/* Not memcpy: the program may unmap or protect the pages at this moment. */
	long done = spw__sys6(SYS_process_vm_readv, spw__sys0(SYS_getpid), (long)&to, 1, (long)&from, 1, 0);

	return done > 0 ? (unsigned)((size_t)done / SPW_PAGE) : 0;
}

static uint64_t page_map(const struct spw__agent *a, uint64_t va)
{
	uint64_t pm;

	return spw__pm_read(a, va, &pm, 1) ? pm : 0;
}

bool spw__page_there(const struct spw__agent *a, uint64_t va)
{
	return spw__pm_there(page_map(a, va));
}

/* Make the page dirty without changing it; nothing happens where it is gone. */
static void dirty(uint64_t va)
{
	uint32_t nobody = 0;

	/*
	 * An atomic access that returns an error instead of a signal. (A word of just that value wakes a waiter in
	 * vain.)
	 */
	spw__sys6(SYS_futex, (long)&nobody, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0, (long)va,
		  FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_EQ, -2047));
}

/* Which pages are gone, and which are still there and may be marked; at: where each one is now. Host lock held. */
static uint64_t look(const struct spw__agent *a, unsigned n, uint64_t *marked, uint64_t *at)
{
	const struct spw__copying *c = &a->copying;
	uint64_t gone = 0;
	bool dropped;

	*marked = 0;
	for (unsigned i = 0; i < n; i++) {
		at[i] = spw__held_place(&c->held, c->start + (uint64_t)i * SPW_PAGE, &dropped);
		uint64_t pm = page_map(a, at[i]);

		if (!spw__pm_there(pm))
			gone |= 1ull << i;
		else if ((pm & PM_OURS) == PM_OURS && !(pm & SPW_PM_FILE))
			*marked |= 1ull << i;
	}
	return gone;
}

/*
 * Which pages are gone, each of the others having been dirtied at the place where it is now. Takes the lock, and
 * returns with it held.
 */
static uint64_t settle(struct spw__agent *a, unsigned n)
{
	struct spw__copying *c = &a->copying;
	uint64_t dirtied = 0, gone, marked, at[64];

	for (;;) {
		spw__lock(&a->lock);
		/* What was seen is true if the kernel knows, afterwards, of no change that we have not read. */
		while (gone = look(a, n, &marked, at),
		       spw__uffd_protect(a->uffd, (void *)(uintptr_t)c->start, c->end - c->start, 0) == -EAGAIN) {
			spw__fault_drain(a);
			spw__sys0(SYS_sched_yield);
		}
		marked &= ~dirtied;
		if (!marked)
			return gone;
		spw__unlock(&a->lock);
		for (unsigned i = 0; i < n; i++) {
			if (marked >> i & 1)
				dirty(at[i]);
		}
		dirtied |= marked;
	}
}

static void record_copies(struct spw__agent *a, uint64_t va, uint64_t mask, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		spw_entry_t e;

		if (mask >> i & 1 && spw__pt_entry(&a->pt, va + (uint64_t)i * SPW_PAGE, &e))
			spw__agent_die("has no memory to record a page that it took out", ENOMEM);
	}
	spw__evict_record(a, va, mask, n);
}

/* How many of n pages at va, which is present, are sure to lie in one registered mapping; or -EAGAIN. */
static int in_one_mapping(struct spw__agent *a, uint64_t va, unsigned n)
{
	for (; n; n /= 2) {
		long ret = spw__uffd_zero(a->uffd, (void *)(uintptr_t)va, (size_t)n * SPW_PAGE);

		/* The first page is in the way, if the range is a good one. */
		if (ret == -EEXIST)
			return (int)n;
		if (ret == -EAGAIN || ret > 0)
			return -EAGAIN;
	}
	return -EINVAL;
}

/*
 * Mark the pages as ones that may be dropped. 0: they, and nothing else, are. -EINVAL: not in this mapping. -EAGAIN:
 * the program changes its mappings. The lock is let go meanwhile.
 */
static int mark(struct spw__agent *a, size_t len)
{
	struct spw__copying *c = &a->copying;
	void *p = (void *)(uintptr_t)c->start;

	c->marking = true;
	c->seen = false;
	spw__unlock(&a->lock);
	long ret = spw__sys3(SYS_madvise, p, len, MADV_FREE);

	spw__lock(&a->lock);
	c->marking = false;
	if (ret == -EINVAL)
		return -EINVAL;
	return ret || !c->seen || c->held.events || spw__uffd_protect(a->uffd, p, len, 1) ? -EAGAIN : 0;
}

int spw__copy_take(struct spw__agent *a, uint64_t va, unsigned n)
{
	struct spw__copying *c = &a->copying;

	/* The lock may have been let go since the caller looked. */
	if (!spw__event_clear(a, va, va + (uint64_t)n * SPW_PAGE) ||
	    spw__pt_next_out(&a->pt, va, va + (uint64_t)n * SPW_PAGE) != va + (uint64_t)n * SPW_PAGE)
		return -EBUSY;
	int one = in_one_mapping(a, va, n);

	if (one < 0)
		return one;
	n = (unsigned)one;
	size_t len = (size_t)n * SPW_PAGE;
	void *p = (void *)(uintptr_t)va;
	int ret = spw__uffd_protect(a->uffd, p, len, 1);

	if (ret)
		return ret;
	c->start = va;
	c->end = va + len;
	c->first = (uint32_t)(a->frames.head % SPW_FRAMES);
	__atomic_store_n(&c->active, true, __ATOMIC_RELEASE);
	spw__unlock(&a->lock);
	/* The handler may be waiting for room, and is needed. */
	__atomic_add_fetch(&a->room, 1, __ATOMIC_RELEASE);
	spw__wake_all(&a->room);
	bool copied = copy_out(a, va, n) == n;

	spw__lock(&a->lock);
	ret = copied ? mark(a, len) : -EFAULT;
	spw__unlock(&a->lock);
	if (!ret) {
		/* What can no longer be read has been protected by the program since: the first copy stands. */
		copy_out(a, va, n);
		spw__sys3(SYS_madvise, p, len, MADV_PAGEOUT);
	}
	uint64_t gone = settle(a, n);

	__atomic_store_n(&c->active, false, __ATOMIC_RELEASE);
	if (copied && gone) {
		record_copies(a, va, gone, n);
		ret = (int)n;
	}
	spw__held_release(a, &c->held);
	/* Waits on a page that is still there, or on one that is now out. */
	spw__uffd_wake(a->uffd, p, len);
	return ret ? ret : -EBUSY;
}
