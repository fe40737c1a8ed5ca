/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes to pages that a fork shared.
 *
 * Each is a new page of memory, and the kernel makes it without a word: no fault is reported, no page is missing, and
 * the process's resident size stays what it was. Two processes that write to what they share grow the tree by as much
 * within half a second, and what measures them sees it when it next counts shared pages, which takes a walk of the page
 * table.
 *
 * So where there may be no room for the copies, all that is present is write-protected before the fork, in the parent;
 * the child gets the protection with the page table. A write then waits for room like any other fault, and is counted
 * when it is let through: by the one who copies, for both, since the other's part grows as well. Protection ends page
 * by page, and as a whole when a count finds next to nothing shared (the child has exited).
 */
#include "host/process/cow.h"
#include "host/process/agent.h"
#include "host/uffd.h"
#include "platform/sys.h"

#include <errno.h>

#define TRIES 8u /* while the program changes its mappings */

/* A range that cannot be protected stays as it is: its copies are only counted later. */
static void protect(struct spw__agent *a, struct spw__region g)
{
	for (unsigned i = 0; i < TRIES; i++) {
		if (spw__uffd_protect(a->uffd, (void *)(uintptr_t)g.start, g.end - g.start, 1) != -EAGAIN)
			return;
		spw__fault_drain(a);
		spw__sys0(SYS_sched_yield);
	}
}

void spw__cow_guard(struct spw__agent *a)
{
	int64_t resident = __atomic_load_n(&a->resident, __ATOMIC_RELAXED);

	/* Eviction by copy has a use of its own for the protection. */
	if (!a->move || resident * 2 < (int64_t)spw__agent_target(a))
		return;
	a->guarded = true;
	for (uint32_t i = 0; i < a->regions.count; i++)
		protect(a, a->regions.at[i]);
}

int spw__cow_open(struct spw__agent *a, uint64_t va, uint64_t bytes, uint64_t count)
{
	int ret = spw__uffd_protect(a->uffd, (void *)(uintptr_t)va, bytes, 0);

	if (ret)
		return ret;
	__atomic_add_fetch(&a->copied, count, __ATOMIC_RELAXED);
	__atomic_add_fetch(&a->resident, (int64_t)count, __ATOMIC_RELAXED);
	return 0;
}

void spw__cow_lift(struct spw__agent *a)
{
	a->guarded = false;
	for (uint32_t i = 0; i < a->regions.count; i++) {
		struct spw__region g = a->regions.at[i];

		/* What stays protected is opened when it is written to. */
		spw__uffd_protect(a->uffd, (void *)(uintptr_t)g.start, g.end - g.start, 0);
	}
}
