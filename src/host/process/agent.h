/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_AGENT_H
#define SPW_PROCESS_AGENT_H
/*
 * The agent: Spillway inside one unmodified process. Preloaded; see agent.c for its life.
 *
 * Two threads of its own, none of them libc's: the reclaimer (reclaim.c: watches the cap, sweeps, compresses, writes
 * back) and the handler (fault.c: serves faults, handles events; on the program's CPU it may do the reclaimer's work
 * as well, see place.c). Two locks order them:
 *
 *   agent.lock   page table, regions, frame ring, and every userfaultfd call that takes pages out or puts them in.
 *                Events are read and handled under it, for reading one sets the program free. Never held while
 *                compressing, or calling anything that raises an event of our own. Only the handler reads the file
 *                under it, for a page that was asked for, or those that come with it.
 *
 *   agent.work   held during a round of the reclaimer's work, whoever does it, and for a fork from before it to after
 *                it.
 *
 * Lock order: agent.work, agent.lock, then the space's (space.h). Nothing here calls malloc, stdio or pthread, or
 * touches managed memory.
 */
#include "host/control.h"
#include "host/process/ahead.h"
#include "host/process/evict.h"
#include "host/process/fork.h"
#include "host/process/frames.h"
#include "host/process/fresh.h"
#include "host/process/pagetable.h"
#include "host/process/place.h"
#include "host/process/regions.h"
#include "host/process/thread.h"
#include "host/process/tiers.h"
#include "host/split.h"
#include "host/strides.h"
#include "space/space.h"

#include <stdbool.h>

#define SPW_QUARANTINES 64u
#define SPW_OWED        256u

/* A range whose madvise(2) has been let go but may not have run yet; see event.c. */
struct spw__quarantine {
	uint64_t start, end;
	uint64_t last; /* highest page that was present; 0 = several calls overlap, watch the whole range */
};

/* The space's counters as last added to the tree's. */
struct spw__published {
	uint64_t same, merged, writebacks;
	struct spw_tier_stats pool;
};

struct spw__agent {
	/* Set once. */
	struct spw_ctl *ctl;
	struct spw_ctl_proc *rec;
	unsigned slot; /* rec's index: our number on every file tier */
	struct spw__space *space;
	struct spw_tier *zswap;
	struct spw_work *reclaim_work, *fault_work;
	char *window;      /* SPW__WINDOW_MAX pages: what the handler restores into, with fault_work, under `lock` */
	const char *zeros; /* bytes of a run of fresh memory */
	int uffd, spent_fd, pagemap_fd, statm_fd, supervisor_fd;
	uint64_t features;
	bool move;            /* evict by UFFDIO_MOVE */
	uint64_t group_limit; /* lowest cap of the groups that it is of, UINT64_MAX = none */
	int reclaim_tid;
	bool refused; /* it could not arm: this process runs uncapped */

	/* Of the one who works: guarded by `work`. */
	bool reported;             /* that every tier is full, since something last went out */
	bool draining;             /* the pool is between its marks, on the way down */
	uint64_t measured;         /* when resident was, ns */
	bool family;               /* a fork shared pages: resident counts some twice */
	uint64_t shared_next;      /* when to measure them again, ns */
	uint64_t shared;           /* bytes of resident that others counted too, when last measured */
	uint64_t forked;           /* of those, what is no file's: a fork shared it */
	uint64_t busy, busy_bytes; /* pages of ours alone that the kernel would not move, 0 = none */
	uint64_t rescue;           /* bytes that the pool may be larger by, for what was on a dead tier */
	unsigned sweeps, swept;    /* the last few, and the pages that they found; see squeeze_pool() */
	uint64_t stuck;            /* where that has been tried to mend last */
	struct spw__tiers tiers;   /* the others */
	unsigned own, own_last;    /* pages of ours alone that this round of the sweep took, and the last one */
	unsigned shared_left;      /* pages to take before those that a fork shared are left alone again */
	struct spw__published published;
	uint64_t published_at; /* ns */
	uint64_t scanned_data; /* private writable pages of address space at the last look at the map */

	struct spw__lock work;

	struct spw__place place;

	struct spw__lock lock; /* guards what follows */
	struct spw__pt pt;
	struct spw__regions regions;
	struct spw__frames frames;
	struct spw__ahead ahead;
	struct spw__strides strides;
	uint32_t asking; /* the thread whose fault is served */
	struct spw__fresh fresh;
	struct spw__quarantine quarantine[SPW_QUARANTINES];
	uint32_t quarantines;
	struct spw__region owed[SPW_OWED]; /* by unmap events that are late; see event.c */
	uint32_t owed_count;
	struct spw__copying copying;
	uint64_t hand; /* where the sweep goes on */
	bool armed;    /* changes under `work` */
	bool rescan;   /* the map has changed in a way that its size may not show */
	bool guarded;  /* writes to what a fork shared ask first; see cow.c */
	struct spw__fork fork;
	uint64_t fork_pid, fork_nonce; /* address of the socket that our children find us by */

	/* Shared without the lock, atomically. */
	uint32_t room;    /* futex: memory was given back */
	uint32_t waiting; /* the handler waits for room */
	int64_t resident; /* bytes: last measurement plus what was put in, less what was taken out */
	uint64_t copied;  /* bytes: by writes to shared pages since those were measured */
	struct spw__split split;
	uint32_t full; /* no room can be made (every tier is full, or nothing is left to take): do not wait for it */
	uint64_t faults_window; /* pages that came back soon since the last heat update */
};

/* There is one process, so there is one agent. */
extern struct spw__agent spw__agent;

/* The most this process should hold resident, bytes. */
uint64_t spw__agent_target(const struct spw__agent *a);
/* Whether it holds more. */
bool spw__agent_over(const struct spw__agent *a);
/* Open userfaultfd, make the space and its tiers, start the handler. 0 or -errno, said already. */
int spw__agent_arm(struct spw__agent *a);
/*
 * Register the mapping [start, end) of the program; the next one starts at `next`. 0, -EAGAIN: it has changed, look
 * again, or -errno.
 */
int spw__agent_register(struct spw__agent *a, uint64_t start, uint64_t end, uint64_t next);
/* Take a record in the control region / open the descriptors that need no arming. */
int spw__agent_enlist(struct spw__agent *a);
int spw__agent_open(struct spw__agent *a);
/* In a forked child: take the record that the parent reserved; open anew what the parent had open. */
void spw__agent_inherit(struct spw__agent *a);
int spw__agent_reopen(struct spw__agent *a);
/* Whether a child of the calling thread would be allowed to reopen. Any thread, the program's too. */
bool spw__agent_may_reopen(const struct spw__agent *a);
/* In a forked child that inherits nothing: begin as after exec. */
void spw__agent_restart(struct spw__agent *a);
bool spw__agent_supervisor_dead(const struct spw__agent *a);
/* Stop the program: one line, then SIGBUS with its default action. For bytes that cannot be restored. */
void spw__agent_lost(spw_entry_t e, spw_slot_t where, int error) __attribute__((noreturn));
/* Stop the program: the agent itself cannot go on safely. */
void spw__agent_die(const char *what, int error) __attribute__((noreturn));

/* reclaim.c: the thread. */
int spw__reclaim_thread(void *agent);
/* reclaim.c: it is wanted now. Any thread. */
void spw__reclaim_kick(struct spw__agent *a);
/*
 * reclaim.c: one batch of the thread's work by the handler, if that is due, nobody else is at it, and the handler is to
 * do it (place.c). Returns whether memory was given back. No lock held.
 */
bool spw__reclaim_here(struct spw__agent *a);
/*
 * measure.c: how large this process is: a->resident, its record; *data: private writable pages. agent.work held.
 */
void spw__measure(struct spw__agent *a, uint64_t *data);
/* measure.c: next to nothing is left of what a fork shared, when last measured. agent.work held. */
bool spw__forked_little(const struct spw__agent *a);
/* measure.c: tell the tree of the rest, when that is due at `now`, ns. agent.work held, host lock not. */
void spw__publish(struct spw__agent *a, uint64_t now);
/* fault.c: the thread. */
int spw__fault_thread(void *agent);
/* fault.c: make what the thread needs. */
int spw__fault_init(struct spw__agent *a);
/* fault.c: see to it that the page at va is there. Host lock held. */
void spw__fault_serve(struct spw__agent *a, uint64_t va);
/* fault.c: handle the events that are queued; threads that wait for a page fault again. Host lock held. */
void spw__fault_drain(struct spw__agent *a);
/* event.c: one event (not a page fault). Host lock held. */
void spw__event(struct spw__agent *a, const void *uffd_msg);
/* event.c: the highest page of [start, end) that is there, 0 if none. */
uint64_t spw__event_highest(const struct spw__agent *a, uint64_t start, uint64_t end);
/*
 * event.c: a discard of [start, end), under way for as long as the page `last` is there (0: it has passed). Host lock
 * held.
 */
void spw__event_remove(struct spw__agent *a, uint64_t start, uint64_t end, uint64_t last);
/* event.c: no event is on its way that was owed. Host lock held. */
void spw__event_forget_owed(struct spw__agent *a);
/* event.c: whether [start, end) may be evicted now. Host lock held. */
bool spw__event_clear(struct spw__agent *a, uint64_t start, uint64_t end);
/* event.c: pages of [start, end) are about to be put in place where they are missing. Host lock held. */
void spw__event_missing(struct spw__agent *a, uint64_t start, uint64_t end);
/* fork.c: the event that a child has been made; fd is its userfaultfd. Host lock held. */
void spw__fork_event(struct spw__agent *a, int fd);
/*
 * evict.c: take up to `pages` cold pages out into frames. Takes the lock. Returns how many went. may_fault: the caller
 * is not the one who serves faults; otherwise pages that have to be touched first end it (agent.busy says so).
 */
unsigned spw__evict(struct spw__agent *a, unsigned pages, bool may_fault);
/* evict.c: move every frame's page back where it came from. Host lock held. */
void spw__evict_undo(struct spw__agent *a);
#endif
