/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_EVICT_H
#define SPW_PROCESS_EVICT_H
/* What the two ways of taking pages out share; evict.c and evict_copy.c only, and the handler where said. */
#include "host/process/held.h"

#include <stdbool.h>
#include <stdint.h>

/* evict_copy.c: the range on its way out by copy and discard. Guarded by the host lock. */
struct spw__copying {
	bool active;
	bool marking; /* a madvise(2) of ours on the range is under way */
	bool seen;    /* it has been reported, in one piece */
	uint64_t start, end;
	uint32_t first; /* frame that the first page is copied to */
	struct spw__held held;
};

/*
 * Take some of n neighbouring pages at va, all present and ours alone, into frames at the ring's head, which has room
 * without wrapping. The lock is held, and let go meanwhile. How many pages have been looked at, or -errno when none
 * went: -EAGAIN the program changes its mappings, -EBUSY all are in use.
 */
int spw__copy_take(struct spw__agent *a, uint64_t va, unsigned n);
/* For the handler: m belongs to a range on its way out; it has been dealt with or is held. Host lock held. */
bool spw__copy_holds(struct spw__agent *a, const struct uffd_msg *m);
/* Whether the page at va is in memory now, by the kernel's page map. */
bool spw__page_there(const struct spw__agent *a, uint64_t va);
/* For the handler: it must not sleep. */
bool spw__copy_under_way(const struct spw__agent *a);
/* Note that the pages of mask at va went into the ring at its head. Host lock held. */
void spw__evict_record(struct spw__agent *a, uint64_t va, uint64_t mask, unsigned n);
#endif
