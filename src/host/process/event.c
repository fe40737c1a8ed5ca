/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the program does to its own mappings.
 *
 * unmap and remap are reported after they happened, and the kernel holds moves back until the report is read: handling
 * it under the host lock is enough. madvise(2) that discards (MADV_DONTNEED, MADV_FREE) is reported before it
 * happens, and reading the report lets it go on. Between the two, a page of the range is still there; if it were
 * evicted now, the discard would find a hole, and the program would later read its old bytes where it must read zeros.
 *
 * So the range goes into quarantine: no eviction there until the discard is known to have passed. A discard clears
 * pages in order of address, so it has passed when the highest page that was present at the report is gone, seen in the
 * page map or by a fault for it. Where two discards overlap, the whole range must have been seen empty.
 *
 * The kernel does not order the events of several threads. One that has unmapped a range may be held up before its
 * event is queued, and an mremap(2) of another land on that range meanwhile and be reported first. Such a report tells
 * by itself: it moves to a place that is ours already. The event of that place's unmapping is then owed, and says
 * nothing of the mapping that is there now.
 */
#include "host/process/agent.h"
#include "host/process/pagemap.h"
#include "platform/sys.h"

#include <linux/userfaultfd.h>

#define CHUNK 512u         /* page map words read at a time */
#define LARGE (1ull << 20) /* bytes that may be most of a small cap */

uint64_t spw__event_highest(const struct spw__agent *a, uint64_t start, uint64_t end)
{
	static uint64_t pm[CHUNK]; /* under the host lock */

	while (start < end) {
		uint64_t pages = (end - start) / SPW_PAGE;
		uint64_t from = pages > CHUNK ? end - (uint64_t)CHUNK * SPW_PAGE : start;
		unsigned n = (unsigned)((end - from) / SPW_PAGE);

		if (!spw__pm_read(a, from, pm, n))
			return end - SPW_PAGE;
		while (n-- > 0) {
			if (spw__pm_there(pm[n]))
				return from + (uint64_t)n * SPW_PAGE;
		}
		end = from;
	}
	return 0;
}

static void release(struct spw__agent *a, uint32_t i)
{
	a->quarantine[i] = a->quarantine[--a->quarantines];
}

static void quarantine(struct spw__agent *a, uint64_t start, uint64_t end, uint64_t last)
{
	if (!last)
		return;
	for (uint32_t i = 0; i < a->quarantines;) {
		struct spw__quarantine *q = &a->quarantine[i];

		if (q->start >= end || q->end <= start) {
			i++;
			continue;
		}
		start = start < q->start ? start : q->start;
		end = end > q->end ? end : q->end;
		last = 0;
		release(a, i);
	}
	if (a->quarantines == SPW_QUARANTINES) {
		struct spw__quarantine q = a->quarantine[0];

		release(a, 0);
		start = start < q.start ? start : q.start;
		end = end > q.end ? end : q.end;
		last = 0;
	}
	a->quarantine[a->quarantines++] = (struct spw__quarantine){start, end, last};
}

bool spw__event_clear(struct spw__agent *a, uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < a->quarantines;) {
		struct spw__quarantine *q = &a->quarantine[i];

		if (q->start >= end || q->end <= start) {
			i++;
			continue;
		}
		uint64_t from = q->last ? q->last : q->start, to = q->last ? q->last + SPW_PAGE : q->end;

		if (spw__event_highest(a, from, to))
			return false;
		release(a, i);
	}
	return true;
}

void spw__event_missing(struct spw__agent *a, uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < a->quarantines;) {
		uint64_t last = a->quarantine[i].last;

		/* The message may be an old one. */
		if (last >= start && last < end && !spw__page_there(a, last))
			release(a, i);
		else
			i++;
	}
}

void spw__event_remove(struct spw__agent *a, uint64_t start, uint64_t end, uint64_t last)
{
	spw__pt_free_range(&a->pt, start, end);
	quarantine(a, start, end, last);
}

/* Every piece of a region in [start, end) has been unmapped by an event that is still to come. */
static void owe(struct spw__agent *a, uint64_t start, uint64_t end)
{
	for (uint64_t from = start, to = end; spw__regions_next(&a->regions, &from, &to); from = to, to = end) {
		if (a->owed_count == SPW_OWED)
			spw__agent_die("saw too many mappings change at once", 0);
		a->owed[a->owed_count++] = (struct spw__region){from, to};
	}
	spw__pt_free_range(&a->pt, start, end);
	spw__regions_cut(&a->regions, start, end);
}

void spw__event_forget_owed(struct spw__agent *a)
{
	a->owed_count = 0;
}

/* Unmap [start, end) but for what is owed there. */
static void unmapped(struct spw__agent *a, uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < a->owed_count; i++) {
		struct spw__region o = a->owed[i];

		if (o.start >= end || o.end <= start)
			continue;
		/* Paid for the part that both have; what is left of it is owed still. */
		a->owed[i] = a->owed[--a->owed_count];
		if (o.start < start)
			a->owed[a->owed_count++] = (struct spw__region){o.start, start};
		if (o.end > end && a->owed_count < SPW_OWED)
			a->owed[a->owed_count++] = (struct spw__region){end, o.end};
		if (o.start > start)
			unmapped(a, start, o.start);
		if (o.end < end)
			unmapped(a, o.end, end);
		return;
	}
	spw__pt_free_range(&a->pt, start, end);
	spw__regions_cut(&a->regions, start, end);
}

void spw__event(struct spw__agent *a, const void *uffd_msg)
{
	const struct uffd_msg *m = uffd_msg;

	switch (m->event) {
	case UFFD_EVENT_REMOVE:
		spw__event_remove(a, m->arg.remove.start, m->arg.remove.end,
				  spw__event_highest(a, m->arg.remove.start, m->arg.remove.end));
		break;
	case UFFD_EVENT_UNMAP:
		unmapped(a, m->arg.remove.start, m->arg.remove.end);
		a->rescan = true; /* something may be mapped there already */
		/* There is room now, and what is mapped next comes without a fault that the handler sees. */
		if (m->arg.remove.end - m->arg.remove.start >= LARGE &&
		    __atomic_load_n(&a->rec->resting, __ATOMIC_RELAXED) != SPW_REST_DRY)
			spw__reclaim_kick(a);
		break;
	case UFFD_EVENT_REMAP: {
		uint64_t from = m->arg.remap.from, to = m->arg.remap.to, len = m->arg.remap.len;

		owe(a, to, to + len);
		if (spw__pt_move_range(&a->pt, from, to, len))
			spw__agent_die("has no memory to follow an mremap", 12);
		spw__regions_cut(&a->regions, from, from + len);
		spw__regions_add(&a->regions, to, to + len);
		break;
	}
	case UFFD_EVENT_FORK:
		spw__fork_event(a, (int)m->arg.fork.ufd);
		break;
	default:
		break;
	}
	spw__pt_trim(&a->pt);
}
