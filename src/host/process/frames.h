/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_FRAMES_H
#define SPW_PROCESS_FRAMES_H
/*
 * The frames: a ring of staging pages between the program's memory and the tiers. See frames.c.
 *
 * Positions count up for ever; position p is frame p % SPW_FRAMES. [tail, head) is in use. Evicting adds at the head
 * (host lock held), storing takes from the tail (one thread at a time).
 */
#include "space/space.h"

#include <stdbool.h>

#define SPW_FRAMES       16384u /* frames of the ring: address space, 64 MiB; the host bounds how many hold a page */
#define SPW_FRAMES_BATCH 64u    /* pages stored at a time */

struct spw__agent;

struct spw__frames {
	char *base;      /* SPW_FRAMES pages, registered with the first userfaultfd */
	char *spent;     /* SPW_FRAMES_BATCH pages, registered with the second */
	uint32_t *owner; /* entry index of each, SPW_ENTRY_NONE = a hole */
	uint64_t *home;  /* address each came from (an mremap since then is not noted) */
	uint64_t head, tail;
	uint32_t storing;   /* A frame + 1 that is being stored, 0 = none; see frames.c */
	uint32_t returning; /* A frame + 1 that is being put back, 0 = none */
};

int spw__frames_init(struct spw__agent *a);

/* Give back the memory of all frames; none holds an entry's page any more. Host lock held, the reclaimer only. */
void spw__frames_empty(struct spw__agent *a);
/* In a forked child: spent pages of our own. */
int spw__frames_reopen(struct spw__agent *a);

/*
 * Put the page of e, which is in `frame`, back at va; the entry is then FREE, and the caller wakes who waits for it. 0,
 * -ENOENT (it has just been stored: look again), or what the kernel says. Host lock held.
 */
int spw__frame_return(struct spw__agent *a, uint64_t va, spw_entry_t e, uint32_t frame);

static inline char *spw__frame_at(const struct spw__frames *f, uint32_t frame)
{
	return f->base + (size_t)frame * SPW_PAGE;
}

/*
 * Store the oldest frames, up to SPW_FRAMES_BATCH positions, and give their memory back. Host lock not held; one
 * thread. Returns pages stored, 0 if the ring is empty, -ENOSPC when the tiers are full and nothing went.
 */
int spw__frames_store(struct spw__agent *a);
#endif
