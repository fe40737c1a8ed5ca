/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between freeze and fork event.
 *
 * The forking thread F is on its way to the clone, and the agent's memory must not change. But the program's other
 * threads go on: they unmap, discard and fault. To hold their faults back is no way out, for one of them may hold a
 * lock that F waits for (malloc's, which libc takes before the clone), and to hold them back only where mappings have
 * changed is none either: changing mappings is what malloc does under its lock.
 *
 * So whatever they do is served, and written down in order instead of into the page table: the table as it was frozen
 * and the log together say what stands behind an address. Afterwards the parent carries all of it out. The child is
 * told of it and has to find out which items its copy of the memory is from after. Nothing orders an event against the
 * moment of the copy, but the copy itself shows: a range that was unmapped or moved away before is not registered in
 * it, a page that was put in place before is there, and of a discard the highest page that it found is still there if
 * it came after.
 */
#include "host/process/forklog.h"
#include "host/process/agent.h"
#include "host/uffd.h"

static bool within(uint64_t va, uint64_t start, uint64_t end)
{
	return va >= start && va < end;
}

static struct spw__forklog_item *append(struct spw__forklog *l, uint32_t what, bool before)
{
	if (l->count == SPW_FORKLOG)
		spw__agent_die("saw too many changes of memory during a fork", 0);
	struct spw__forklog_item *i = &l->item[l->count++];

	*i = (struct spw__forklog_item){.what = what, .before = before};
	return i;
}

void spw__forklog_event(struct spw__agent *a, struct spw__forklog *l, const struct uffd_msg *m, bool before)
{
	struct spw__forklog_item *i = append(l, m->event, before);

	if (m->event == UFFD_EVENT_REMAP) {
		i->start = m->arg.remap.from;
		i->end = m->arg.remap.from + m->arg.remap.len;
		i->to = m->arg.remap.to;
		return;
	}
	i->start = m->arg.remove.start;
	i->end = m->arg.remove.end;
	if (m->event == UFFD_EVENT_REMOVE)
		i->to = spw__event_highest(a, i->start, i->end);
}

void spw__forklog_placed(struct spw__forklog *l, uint64_t va, bool before)
{
	struct spw__forklog_item *last = l->count ? &l->item[l->count - 1] : NULL;

	if (!last || last->what != UFFD_EVENT_PAGEFAULT || last->end != va || last->before != before) {
		last = append(l, UFFD_EVENT_PAGEFAULT, before);
		last->start = va;
	}
	last->end = va + SPW_PAGE;
}

bool spw__forklog_there(const struct spw__forklog *l, uint64_t va)
{
	for (uint32_t n = l->count; n-- > 0;) {
		const struct spw__forklog_item *i = &l->item[n];

		if (i->what == UFFD_EVENT_REMAP && within(va, i->to, i->to + (i->end - i->start)))
			va = va - i->to + i->start;
		else if (within(va, i->start, i->end))
			return i->what == UFFD_EVENT_PAGEFAULT;
	}
	return false;
}

/*
 * Whether a move of mappings was before the copy of the memory that fd stands for. The page table must be as it was
 * before the move. Where the old place stays mapped (MREMAP_DONTUNMAP), the new one tells, unless something of ours was
 * there before.
 */
static bool moved(struct spw__agent *a, const struct spw__forklog_item *i, int fd)
{
	return spw__regions_cover(&a->regions, i->start, i->start + SPW_PAGE) &&
	       (!spw__uffd_registered(fd, i->start) ||
		(spw__uffd_registered(fd, i->to) && !spw__regions_cover(&a->regions, i->to, i->to + SPW_PAGE)));
}

spw_entry_t spw__forklog_lookup(struct spw__agent *a, const struct spw__forklog *l, uint64_t va, int child_fd)
{
	const spw_entry_t none = {SPW_ENTRY_NONE};
	bool child = child_fd >= 0;

	for (uint32_t n = l->count; n-- > 0;) {
		const struct spw__forklog_item *i = &l->item[n];

		/* What the child misses was put in place, or unmapped, after the copy. */
		if (child && (i->what == UFFD_EVENT_PAGEFAULT || i->what == UFFD_EVENT_UNMAP ||
			      (i->what == UFFD_EVENT_REMOVE && !i->before)))
			continue;
		if (i->what != UFFD_EVENT_REMAP) {
			if (within(va, i->start, i->end))
				return none;
			continue;
		}
		bool there = within(va, i->to, i->to + (i->end - i->start));

		if ((!there && !within(va, i->start, i->end)) || (child && !moved(a, i, child_fd)))
			continue;
		if (!there)
			return none;
		va = va - i->to + i->start;
	}
	spw_entry_t e = spw__pt_lookup(&a->pt, va);

	return e.idx == SPW_ENTRY_NONE || spw_kind(a->space, e) == SPW_FREE ? none : e;
}

static struct uffd_msg event_of(const struct spw__forklog_item *i)
{
	struct uffd_msg m = {.event = (uint8_t)i->what};

	if (i->what == UFFD_EVENT_REMAP) {
		m.arg.remap.from = i->start;
		m.arg.remap.to = i->to;
		m.arg.remap.len = i->end - i->start;
	} else {
		m.arg.remove.start = i->start;
		m.arg.remove.end = i->end;
	}
	return m;
}

/* Whether item n took its highest page away: it is gone, or has been put in place anew. */
static bool discarded(struct spw__agent *a, const struct spw__forklog *l, uint32_t n)
{
	uint64_t last = l->item[n].to;

	if (!last || !spw__page_there(a, last))
		return true;
	while (++n < l->count) {
		if (l->item[n].what == UFFD_EVENT_PAGEFAULT && within(last, l->item[n].start, l->item[n].end))
			return true;
	}
	return false;
}

void spw__forklog_settle(struct spw__agent *a, const struct spw__forklog *l)
{
	for (uint32_t n = 0; n < l->count; n++) {
		const struct spw__forklog_item *i = &l->item[n];
		struct uffd_msg m = event_of(i);

		if (i->what == UFFD_EVENT_PAGEFAULT && i->before)
			spw__pt_free_range(&a->pt, i->start, i->end);
		else if (i->what == UFFD_EVENT_REMOVE)
			spw__event_remove(a, i->start, i->end, discarded(a, l, n) ? 0 : i->to);
		else if (i->what != UFFD_EVENT_PAGEFAULT)
			spw__event(a, &m);
	}
}

/* Pieces of an unmapped range that were ours and are no longer registered. */
static void inherit_unmap(struct spw__agent *a, uint64_t start, uint64_t end)
{
	for (uint64_t from = start, to = end; spw__regions_next(&a->regions, &from, &to); from = to, to = end) {
		if (!spw__uffd_registered(a->uffd, from)) {
			spw__pt_free_range(&a->pt, from, to);
			spw__regions_cut(&a->regions, from, to);
		}
	}
}

/* A page that was put in place at item n and is there by the end of the log. done: the moves that were carried out. */
static void inherit_page(struct spw__agent *a, const struct spw__forklog *l, const uint8_t *done, uint32_t n,
			 uint64_t va)
{
	while (++n < l->count) {
		if (done[n] && within(va, l->item[n].start, l->item[n].end))
			va = va - l->item[n].start + l->item[n].to;
	}
	/* If it has gone since, so has its entry. If another is there in its place, that has no use for one either. */
	if (spw__page_there(a, va))
		spw__pt_free_range(&a->pt, va, va + SPW_PAGE);
}

void spw__forklog_inherit(struct spw__agent *a, const struct spw__forklog *l)
{
	static uint8_t done[SPW_FORKLOG];

	for (uint32_t n = 0; n < l->count; n++) {
		const struct spw__forklog_item *i = &l->item[n];
		struct uffd_msg m = event_of(i);

		done[n] = i->what == UFFD_EVENT_REMAP && moved(a, i, a->uffd);
		if (done[n])
			spw__event(a, &m);
		else if (i->what == UFFD_EVENT_UNMAP)
			inherit_unmap(a, i->start, i->end);
		else if (i->what == UFFD_EVENT_REMOVE && i->before && discarded(a, l, n))
			spw__pt_free_range(&a->pt, i->start, i->end);
	}
	for (uint32_t n = 0; n < l->count; n++) {
		const struct spw__forklog_item *i = &l->item[n];

		for (uint64_t va = i->start; i->what == UFFD_EVENT_PAGEFAULT && va < i->end; va += SPW_PAGE)
			inherit_page(a, l, done, n, va);
	}
	/* What it is owed will be told to the parent; here, the mappings themselves have shown it. */
	spw__event_forget_owed(a);
}
