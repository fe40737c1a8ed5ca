/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_FORKLOG_H
#define SPW_PROCESS_FORKLOG_H
/*
 * What became of the program's memory while a fork had the agent frozen. See forklog.c.
 * Written by the handler thread while frozen, read by the reclaimer at the thaw: no lock.
 */
#include "space/space.h"

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>

struct spw__agent;

#define SPW_FORKLOG 4096u

struct spw__forklog_item {
	uint32_t what;   /* UFFD_EVENT_REMOVE, _UNMAP, _REMAP, or _PAGEFAULT: pages were put in place */
	uint32_t before; /* it was read before the fork event; of pages: they are the parent's, else the child's */
	uint64_t start, end;
	uint64_t to; /* REMAP: where start is now. REMOVE: the highest page that was there, 0 = none */
};

struct spw__forklog {
	uint32_t count;
	struct spw__forklog_item item[SPW_FORKLOG];
};

/* A mapping event. */
void spw__forklog_event(struct spw__agent *a, struct spw__forklog *l, const struct uffd_msg *m, bool before);
/* A page has been put in place, in the parent before the fork event, in the child after it. */
void spw__forklog_placed(struct spw__forklog *l, uint64_t va, bool before);
/* Room is kept for events, which cannot be refused. */
static inline bool spw__forklog_full(const struct spw__forklog *l)
{
	return l->count >= SPW_FORKLOG / 4 * 3;
}
/* Whether a page was put in place at va in the parent, and nothing has taken it away since. */
bool spw__forklog_there(const struct spw__forklog *l, uint64_t va);

/*
 * The entry of the page that is missing at va, by the frozen page table and the log; idx SPW_ENTRY_NONE: zeros.
 * child_fd: the child's userfaultfd if it is the child that misses it, else -1.
 */
spw_entry_t spw__forklog_lookup(struct spw__agent *a, const struct spw__forklog *l, uint64_t va, int child_fd);

/*
 * Bring the agent up to date: in the parent, everything; in the child, what was before the kernel copied. Host lock
 * held.
 */
void spw__forklog_settle(struct spw__agent *a, const struct spw__forklog *l);
void spw__forklog_inherit(struct spw__agent *a, const struct spw__forklog *l);
#endif
