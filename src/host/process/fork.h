/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_FORK_H
#define SPW_PROCESS_FORK_H
/* fork(2) of a program whose pages are out. See fork.c. */
#include "host/process/forklog.h"
#include "host/process/held.h"
#include "host/process/thread.h"

#include <stdbool.h>
#include <stdint.h>

struct spw__agent;

/*
 * The forking thread (F, in libc's hooks) and the agent's two threads pass this word on. The hooks have none of the
 * agent's descriptors, so all work is the reclaimer's (R) or the handler's (H).
 */
enum spw__fork_state {
	SPW_FORK_NONE = 0, /* no fork under way */
	SPW_FORK_PARK,     /* F asks R to stop sweeping */
	SPW_FORK_PARKED,   /* R has: what F touches now stays in */
	SPW_FORK_FREEZE,   /* F is ready */
	SPW_FORK_FROZEN,   /* R put the frames' pages back; from here on the agent's memory does not change */
	SPW_FORK_DONE,     /* H or F: the child is on its own, or there is none; R may thaw */
};

struct spw__fork {
	struct spw__lock lock;   /* one fork at a time: F holds it from before to after */
	uint32_t state;          /* A enum spw__fork_state; futex */
	int forker;              /* F's thread id */
	int child_fd;            /* the child's userfaultfd, -1 = none */
	uint32_t after;          /* A F has come back from clone(2) */
	unsigned child_slot;     /* record reserved for it */
	int32_t reservation;     /* what stands there as its pid until it has signed in */
	int listen_fd;           /* where the child asks for its descriptor */
	struct spw__forklog log; /* what happened while frozen; the child is told */
	bool able;               /* the child will be allowed to open what an agent needs; by F */
	bool uncapped;           /* the child will be: it is not able, or no record is left for it */
	bool told;               /* the log holds all that was before the fork event */
	struct spw__held held;   /* the parent's faults after the fork event */
	uint32_t ready;          /* A in the child: the agent stands; futex */
	uint64_t signals;        /* the forking thread's mask */
};

/* Ask libc to call us around fork(). From the constructor, once. */
void spw__fork_watch(void);
/* Make what a later fork will need. From the reclaimer, while arming. */
int spw__fork_init(struct spw__agent *a);
/* While frozen, the handler thread runs this instead of its own loop. Host lock not held. */
void spw__fork_serve(struct spw__agent *a);
bool spw__fork_frozen(const struct spw__agent *a);
/* A fork is under way or asked for. Any thread. */
bool spw__fork_wanted(const struct spw__agent *a);
/* The reclaimer's part, when a fork has been asked for; agent.work held. Returns when the fork is over. */
void spw__fork_park(struct spw__agent *a);
#endif
