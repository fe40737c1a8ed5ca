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
#include "platform/sys.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

bool spw__copy_holds(struct spw__agent *a, const struct uffd_msg *m)
{
	struct spw__copying *c = &a->copying;
	static const char zeros[SPW_PAGE] __attribute__((aligned(SPW_PAGE)));

	if (!c->active)
		return false;
	if (m->event == UFFD_EVENT_REMOVE && !c->seen && m->arg.remove.start == c->start && m->arg.remove.end == c->end) {
		c->seen = true;
		return true;
	}
	if (m->event == UFFD_EVENT_PAGEFAULT) {
		uint64_t va = spw__msg_page(m);

		if ((int)m->arg.pagefault.feat.ptid == a->reclaim_tid) {
			spw__uffd_copy_protected(a->uffd, (void *)(uintptr_t)va, zeros, SPW_PAGE);
			return true;
		}
		if (!c->held.events && (va < c->start || va >= c->end))
			return false;
	}
	spw__held_add(a, &c->held, m);
	return true;
}

/* Whether the page at va is there now. */
static bool present(const struct spw__agent *a, uint64_t va)
{
	uint64_t pm;

	return spw__sys4(SYS_pread64, a->pagemap_fd, &pm, sizeof(pm), va / SPW_PAGE * 8) == sizeof(pm) && pm >> 63;
}

/* Events that came meanwhile: which copies no longer stand for a page, and whether the drop may have hit another's. */
static uint64_t judge(struct spw__agent *a, uint64_t mask)
{
	struct spw__copying *c = &a->copying;
	bool unmapped = false;

	for (uint32_t i = 0; i < c->held.events; i++) {
		const struct uffd_msg *m = &c->held.event[i];
		uint64_t from = m->arg.remap.from, to = m->arg.remap.to, len = m->arg.remap.len;

		unmapped |= m->event == UFFD_EVENT_UNMAP && m->arg.remove.start < c->end && m->arg.remove.end > c->start;
		if (m->event != UFFD_EVENT_REMAP)
			continue;
		/* Moved away before the drop: the page itself is at its new place. */
		for (uint64_t va = c->start; va < c->end; va += SPW_PAGE) {
			if (va >= from && va < from + len && present(a, va - from + to))
				mask &= ~(1ull << ((va - c->start) / SPW_PAGE));
		}
	}
	unsigned char in_core;

	for (uint64_t va = c->start; unmapped && va < c->end; va += SPW_PAGE) {
		void *p = (void *)(uintptr_t)va;

		if (spw__sys3(SYS_mincore, p, SPW_PAGE, &in_core) == 0 && spw__uffd_protect(a->uffd, p, SPW_PAGE, 0) != 0)
			spw__agent_die("dropped a page of a mapping that replaced one it was taking out", 0);
	}
	return mask;
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
	c->seen = false;
	c->active = true;
	spw__unlock(&a->lock);
	for (unsigned i = 0; i < n; i++) {
		if (mask >> i & 1)
			memcpy(spw__frame_at(&a->frames, first + i), (char *)p + (size_t)i * SPW_PAGE, SPW_PAGE);
	}
	ret = (int)spw__sys3(SYS_madvise, p, len, MADV_DONTNEED);
	spw__lock(&a->lock);
	mask = ret ? 0 : judge(a, mask);
	c->active = false;
	if (mask)
		spw__evict_record(a, va, mask, n);
	spw__held_release(a, &c->held);
	/* Waits on a page that is still there, or on one that is now out. */
	spw__uffd_protect(a->uffd, p, len, 0);
	spw__uffd_wake(a->uffd, p, len);
	return ret ? ret : (int)n;
}
