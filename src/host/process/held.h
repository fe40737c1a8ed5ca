/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_HELD_H
#define SPW_PROCESS_HELD_H
/*
 * Messages that were read but may not be handled yet: while a fork freezes the agent, or while a page is being taken
 * out by copy and discard. The threads behind faults wait; the threads behind events go on. See held.c. Guarded by
 * whoever reads the userfaultfd at the time.
 */
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>

struct spw__agent;

#define SPW_HELD 256u /* faults, and events; a thread has one at a time */

struct spw__held {
	uint32_t faults, events;
	uint64_t fault[SPW_HELD];
	struct uffd_msg event[SPW_HELD];
};

void spw__held_add(struct spw__agent *a, struct spw__held *h, const struct uffd_msg *m);
/*
 * Where the page that was at va when the first message was held is by now. *dropped: the program has given it up since.
 */
uint64_t spw__held_place(const struct spw__held *h, uint64_t va, bool *dropped);
/* Handle the events in order, then let the threads fault again. Host lock held. */
void spw__held_release(struct spw__agent *a, struct spw__held *h);

static inline uint64_t spw__msg_page(const struct uffd_msg *m)
{
	return m->arg.pagefault.address & ~4095ull;
}
#endif
