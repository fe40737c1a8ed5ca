/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Held messages.
 *
 * A fault can always be put off: waking its thread makes it fault again, so a full table only costs turns. An event
 * cannot be asked for twice; more of them than the table holds, within the microseconds that messages are held, is
 * not a case to guess through.
 */
#include "host/process/held.h"
#include "host/process/agent.h"
#include "host/uffd.h"

void spw__held_add(struct spw__agent *a, struct spw__held *h, const struct uffd_msg *m)
{
	if (m->event != UFFD_EVENT_PAGEFAULT) {
		if (h->events == SPW_HELD)
			spw__agent_die("saw too many mapping changes at once", 0);
		h->event[h->events++] = *m;
	} else if (h->faults < SPW_HELD) {
		h->fault[h->faults++] = spw__msg_page(m);
	} else {
		spw__uffd_wake(a->uffd, (void *)(uintptr_t)spw__msg_page(m), SPW_PAGE);
	}
}

uint64_t spw__held_place(const struct spw__held *h, uint64_t va, bool *dropped)
{
	*dropped = false;
	for (uint32_t i = 0; i < h->events; i++) {
		const struct uffd_msg *m = &h->event[i];
		uint64_t from = m->arg.remap.from;

		if (m->event == UFFD_EVENT_REMAP && va >= from && va < from + m->arg.remap.len)
			va = va - from + m->arg.remap.to;
		else if (m->event == UFFD_EVENT_REMOVE || m->event == UFFD_EVENT_UNMAP)
			*dropped |= va >= m->arg.remove.start && va < m->arg.remove.end;
	}
	return va;
}

void spw__held_release(struct spw__agent *a, struct spw__held *h)
{
	for (uint32_t i = 0; i < h->events; i++)
		spw__event(a, &h->event[i]);
	for (uint32_t i = 0; i < h->faults; i++)
		spw__uffd_wake(a->uffd, (void *)(uintptr_t)h->fault[i], SPW_PAGE);
	h->events = h->faults = 0;
}
