/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_PLACE_H
#define SPW_PROCESS_PLACE_H
/* Where the handler thread runs. See place.c. */
#include <stdbool.h>
#include <stdint.h>

#define SPW_PLACE_WORDS 16u /* 1024 CPUs */

struct spw__agent;

struct spw__place {
	uint32_t allowed; /* PLACE_YES: the way back from SCHED_IDLE is open; futex */

	/* The handler's own. */
	uint64_t any[SPW_PLACE_WORDS]; /* CPUs allowed at the start */
	uint32_t tid;                  /* the thread that faults */
	int stat_fd;                   /* its /proc stat file, -1 = none */
	uint32_t faults, strangers;    /* in this look's window; of them, other threads' */
	uint32_t strays, patience;     /* faults that had to be waited for, and how many of them make a look */
	uint32_t served, brought;      /* faults, and the pages of memory that came in for them */
	bool beside;                   /* there are CPUs beside the one that it is bound to */

	/* Of all: set before the handler works, or atomic. */
	int handler_tid, handler_stat_fd, handler_sched_fd;
	int bound;           /* A CPU that the handler is bound to, -1 = free */
	bool streams;        /* A each fault brings many pages, and the reclaimer has a CPU of its own */
	uint64_t not_before; /* A ns: until then it stays free, for it has starved */

	/* The reclaimer's: its watch over the handler. */
	uint64_t suspected, ran; /* runnable since, ns, and the time that it had run by then; 0 = not suspected */
	uint64_t pause;          /* ns: how long it stays free the next time that it starves */
};

/*
 * While arming, and in a forked child, before anything is registered: whether a thread may come back from SCHED_IDLE.
 */
void spw__place_ask(struct spw__agent *a);
/* At the start of the handler thread. */
void spw__place_init(struct spw__agent *a);
/*
 * Thread tid has faulted. waited: nothing was there when the last fault's thread had been woken. Handler thread only,
 * host lock held.
 */
void spw__place_fault(struct spw__agent *a, uint32_t tid, bool waited);
/* A fault has brought so many pages of memory in. Handler thread only. */
void spw__place_served(struct spw__agent *a, unsigned pages);
/* Whether the handler does the reclaimer's work as well; over the target it helps. Any thread. */
bool spw__place_reclaims(const struct spw__agent *a);
/* From time to time, by the reclaimer: a handler that cannot run is set free. */
void spw__place_watch(struct spw__agent *a);
/* Set the handler free, for a while. The reclaimer only. */
void spw__place_free(struct spw__agent *a);
#endif
