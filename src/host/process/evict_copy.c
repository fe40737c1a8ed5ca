/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking pages out by write-protect, copy and discard: for kernels before 6.8, and for --evict wp.
 *
 * Without UFFDIO_MOVE no single call takes a page. Instead the range is write-protected (a call that, like the move, is
 * refused while the program changes its mappings), its pages are copied into frames, and madvise(2) drops them. Until
 * the drop is done nobody may touch the range: every fault there is held, and so is every event and, once an event is
 * held, every fault. Our own madvise raises an event too; the handler reads it, so the lock is not held across it. A
 * fault of this very thread (the program discarded the page under the copy) is answered with zeros, write-protected.
 *
 * What cannot be made safe: between the write-protect and the drop another thread can unmap the range and a third
 * can map something new at the same address; the drop would then hit the new mapping. The unmap's event tells that it
 * may have happened. If the address is mapped again and not by us, the program is stopped: it happens in no program
 * that does not unmap memory while its neighbour thread maps, within microseconds, and never with UFFDIO_MOVE.
 */
#include "host/process/agent.h"
#include "host/process/evict.h"
#include "host/process/uffd.h"
#include "platform/platform.h"
#include "platform/sys.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define NO_EVENT_NS 5000000000ull /* a discard of ours that raised no event by now hit memory that is not registered */

bool spw__copy_holds(struct spw__agent *a, const struct uffd_msg *m)
{
	struct spw__copying *c = &a->copying;
	static const char zeros[SPW_PAGE] __attribute__((aligned(SPW_PAGE)));

	if (!c->active)
		return false;
	/* Of two alike, one is ours and the other the program's: the order does not matter, the second frees the page. */
	if (m->event == UFFD_EVENT_REMOVE && m->arg.remove.start == c->dropping &&
	    m->arg.remove.end == c->dropping + SPW_PAGE) {
		__atomic_store_n(&c->dropping, 0, __ATOMIC_RELEASE);
		return true;
	}
	if (m->event != UFFD_EVENT_PAGEFAULT || (int)m->arg.pagefault.feat.ptid != a->reclaim_tid) {
		/* Everybody's, not only the range's: the kernel hands out events after faults, and ours must come. */
		spw__held_add(a, &c->held, m);
		return true;
	}
	void *page = (void *)(uintptr_t)spw__msg_page(m);

	if (spw__uffd_copy_protected(a->uffd, page, zeros, SPW_PAGE) < 0)
		spw__uffd_wake(a->uffd, page, SPW_PAGE);
	return true;
}

bool spw__copy_under_way(const struct spw__agent *a)
{
	return __atomic_load_n(&a->copying.active, __ATOMIC_ACQUIRE);
}

bool spw__page_there(const struct spw__agent *a, uint64_t va)
{
	uint64_t pm;

	return spw__sys4(SYS_pread64, a->pagemap_fd, &pm, sizeof(pm), va / SPW_PAGE * 8) == sizeof(pm) && pm >> 62;
}

/* Events that came meanwhile: which copies no longer stand for a page, and whether the drop may have hit another's. */
static uint64_t judge(struct spw__agent *a, uint64_t mask)
{
	struct spw__copying *c = &a->copying;
	bool unmapped = false;

	/* Not dropped: still the program's. */
	for (uint64_t va = c->start; va < c->end; va += SPW_PAGE) {
		uint64_t bit = 1ull << ((va - c->start) / SPW_PAGE);

		if (mask & bit && spw__page_there(a, va))
			mask &= ~bit;
	}
	for (uint32_t i = 0; i < c->held.events; i++) {
		const struct uffd_msg *m = &c->held.event[i];
		uint64_t from = m->arg.remap.from, to = m->arg.remap.to, len = m->arg.remap.len;

		unmapped |=
			m->event == UFFD_EVENT_UNMAP && m->arg.remove.start < c->end && m->arg.remove.end > c->start;
		if (m->event != UFFD_EVENT_REMAP)
			continue;
		/* Moved away before the drop: the page itself is at its new place. */
		for (uint64_t va = c->start; va < c->end; va += SPW_PAGE) {
			if (va >= from && va < from + len && spw__page_there(a, va - from + to))
				mask &= ~(1ull << ((va - c->start) / SPW_PAGE));
		}
	}
	unsigned char in_core;

	for (uint64_t va = c->start; unmapped && va < c->end; va += SPW_PAGE) {
		void *p = (void *)(uintptr_t)va;

		if (spw__sys3(SYS_mincore, p, SPW_PAGE, &in_core) == 0 &&
		    spw__uffd_protect(a->uffd, p, SPW_PAGE, 0) != 0)
			spw__agent_die("dropped a page of a mapping that replaced one it was taking out", 0);
	}
	return mask;
}

/* Copy the pages of mask into frames from `first` on. Those that could be read whole. */
static uint64_t copy_out(struct spw__agent *a, uint64_t va, uint64_t mask, unsigned n, uint32_t first)
{
	uint64_t copied = 0;
	long pid = spw__sys0(SYS_getpid);

	for (unsigned i = 0; i < n; i++) {
		struct iovec to = {spw__frame_at(&a->frames, first + i), SPW_PAGE};
		struct iovec from = {(void *)(uintptr_t)(va + (uint64_t)i * SPW_PAGE), SPW_PAGE};

		/* Not memcpy: the program may unmap or protect the page at this moment. */
		if (mask >> i & 1 && spw__sys6(SYS_process_vm_readv, pid, (long)&to, 1, (long)&from, 1, 0) == SPW_PAGE)
			copied |= 1ull << i;
	}
	return copied;
}

/*
 * Drop the pages of mask. One by one: a call that crosses mappings raises an event for each of them, and those could not
 * be told from discards by the program. What could not be dropped is still there.
 */
static void drop(struct spw__copying *c, uint64_t mask)
{
	for (uint64_t va = c->start; mask; va += SPW_PAGE, mask >>= 1) {
		if (!(mask & 1))
			continue;
		__atomic_store_n(&c->dropping, va, __ATOMIC_RELEASE);
		if (spw__sys3(SYS_madvise, va, SPW_PAGE, MADV_DONTNEED) < 0)
			__atomic_store_n(&c->dropping, 0, __ATOMIC_RELEASE);
		/* The event has been read, or we would not be here; the handler has still to look at it. */
		uint64_t began = spw__plat_now_ns();

		for (unsigned spins = 0; __atomic_load_n(&c->dropping, __ATOMIC_ACQUIRE); spins++) {
			spw__plat_relax(spins);
			if (spw__plat_now_ns() - began > NO_EVENT_NS)
				spw__agent_die("dropped a page of a mapping that is not its own", 0);
		}
	}
}

static int record_copies(struct spw__agent *a, uint64_t va, uint64_t mask, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		spw_entry_t e;

		if (mask >> i & 1 && spw__pt_entry(&a->pt, va + (uint64_t)i * SPW_PAGE, &e))
			spw__agent_die("has no memory to record a page that it took out", ENOMEM);
	}
	spw__evict_record(a, va, mask, n);
	return (int)n;
}

int spw__copy_take(struct spw__agent *a, uint64_t va, uint64_t mask, unsigned n)
{
	struct spw__copying *c = &a->copying;
	uint32_t first = (uint32_t)(a->frames.head % SPW_FRAMES);
	void *p = (void *)(uintptr_t)va;
	size_t len = (size_t)n * SPW_PAGE;
	int ret = spw__uffd_protect(a->uffd, p, len, 1);

	if (ret)
		return ret;
	c->start = va;
	c->end = va + len;
	__atomic_store_n(&c->active, true, __ATOMIC_RELEASE);
	spw__unlock(&a->lock);
	__atomic_add_fetch(&a->room, 1, __ATOMIC_RELEASE);
	spw__wake_all(&a->room);
	mask = copy_out(a, va, mask, n, first);
	drop(c, mask);
	spw__lock(&a->lock);
	mask = judge(a, mask);
	__atomic_store_n(&c->active, false, __ATOMIC_RELEASE);
	if (mask)
		ret = record_copies(a, va, mask, n);
	spw__held_release(a, &c->held);
	/* Waits on a page that is still there, or on one that is now out. */
	spw__uffd_protect(a->uffd, p, len, 0);
	spw__uffd_wake(a->uffd, p, len);
	return ret ? ret : -EBUSY;
}
