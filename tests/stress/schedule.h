/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_TESTS_SCHEDULE_H
#define SPW_TESTS_SCHEDULE_H
/*
 * Every order in which threads can pass the hooks of the space (space/hooks.h).
 *
 * One thread runs at a time, from one hook to the next; then the main thread decides who goes on, and explore() repeats
 * that until no decision is left untried. A thread that waits for a lock says so by spw__plat_relax() and is not
 * chosen again before another one has gone on; when all that are left wait, that is a deadlock. One that only gives its
 * CPU away goes on when nobody else can.
 *
 * The turn is handed over without any ordering of memory, so that TSan takes the threads for what they are in earnest:
 * concurrent. What they share of the test's own is atomic, or was written before they began. Include it in the
 * main file only; link with --wrap=spw__plat_relax.
 */
#include "space/hooks.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SCHEDULE_ACTORS 3u
#define SCHEDULE_DEPTH  256u
#define SCHEDULE_MAIN   255u

enum schedule_event { SCHEDULE_POINT, SCHEDULE_WAITS, SCHEDULE_WAITS_STILL, SCHEDULE_YIELDS, SCHEDULE_DONE };

static uint32_t schedule_turn;   /* low 8 bits: whose; above, to the main thread: what happened */
static uint32_t schedule_points; /* mask of the points at which a thread stops */
static __thread unsigned schedule_self = SCHEDULE_MAIN;

static struct {
	unsigned choice[SCHEDULE_DEPTH], options[SCHEDULE_DEPTH]; /* of this run, step by step */
	unsigned prefix, steps;                                   /* decided before; taken */
	char text[SCHEDULE_DEPTH * 2];                            /* who went when, for a failure's message */
} schedule;

static inline uint32_t schedule_wait(unsigned me)
{
	uint32_t turn;

	while (((turn = __atomic_load_n(&schedule_turn, __ATOMIC_RELAXED)) & 255) != me)
		syscall(SYS_futex, &schedule_turn, FUTEX_WAIT_PRIVATE, turn, NULL, NULL, 0);
	return turn >> 8;
}

static inline void schedule_hand(unsigned to, enum schedule_event event)
{
	__atomic_store_n(&schedule_turn, (uint32_t)event << 8 | to, __ATOMIC_RELAXED);
	syscall(SYS_futex, &schedule_turn, FUTEX_WAKE_PRIVATE, SCHEDULE_ACTORS + 1, NULL, NULL, 0);
}

static inline void schedule_stop(enum schedule_event event)
{
	if (schedule_self == SCHEDULE_MAIN)
		return;
	schedule_hand(SCHEDULE_MAIN, event);
	schedule_wait(schedule_self);
}

/* Another thread may go first here: for what is between two calls of the space. */
static inline void schedule_point(void)
{
	schedule_stop(SCHEDULE_POINT);
}

void spw__hook(enum spw__point point, spw_entry_t e)
{
	(void)e;
	if (schedule_points & 1u << point)
		schedule_point();
}

void __real_spw__plat_relax(unsigned spins);
void __wrap_spw__plat_relax(unsigned spins);

void __wrap_spw__plat_relax(unsigned spins)
{
	if (schedule_self == SCHEDULE_MAIN)
		__real_spw__plat_relax(spins);
	else if (spins == UINT32_MAX)
		schedule_stop(SCHEDULE_YIELDS);
	else
		schedule_stop(spins ? SCHEDULE_WAITS_STILL : SCHEDULE_WAITS);
}

struct schedule_actor {
	unsigned number;
	void (*run)(unsigned number);
	pthread_t thread;
	bool done, waits, yields;
};

static void *schedule_thread(void *arg)
{
	struct schedule_actor *a = arg;

	schedule_self = a->number;
	schedule_wait(a->number);
	a->run(a->number);
	schedule_hand(SCHEDULE_MAIN, SCHEDULE_DONE);
	return NULL;
}

/* The actor of the next step, as the prefix says or the first that can go on. -1: none can; -2: not that one. */
static inline int schedule_choose(const struct schedule_actor *a, unsigned n)
{
	unsigned able[SCHEDULE_ACTORS], ables = 0, *choice = &schedule.choice[schedule.steps];

	for (unsigned i = 0; i < n; i++)
		if (!a[i].done && !a[i].waits && !a[i].yields)
			able[ables++] = i;
	for (unsigned i = 0; i < n && !ables; i++)
		if (a[i].yields)
			able[ables++] = i;
	if (!ables || schedule.steps == SCHEDULE_DEPTH)
		return -1;
	if (schedule.steps >= schedule.prefix)
		*choice = 0;
	if (*choice >= ables)
		return -2;
	schedule.options[schedule.steps] = ables;
	schedule.text[schedule.steps] = (char)('a' + able[*choice]);
	schedule.text[++schedule.steps] = '\0';
	return (int)able[*choice];
}

/* One run of the actors. NULL, or why it did not come to its end; the threads are then left behind. */
static inline const char *schedule_run(void (*const *run)(unsigned number))
{
	struct schedule_actor a[SCHEDULE_ACTORS] = {0};
	unsigned n = 0, done = 0;

	schedule.steps = 0;
	schedule.text[0] = '\0';
	__atomic_store_n(&schedule_turn, SCHEDULE_MAIN, __ATOMIC_RELAXED);
	for (; n < SCHEDULE_ACTORS && run[n]; n++) {
		a[n].number = n;
		a[n].run = run[n];
		if (pthread_create(&a[n].thread, NULL, schedule_thread, &a[n]))
			abort();
	}
	while (done < n) {
		int who = schedule_choose(a, n);
		enum schedule_event event;

		if (who < 0)
			return schedule.steps == SCHEDULE_DEPTH ? "no end"
			       : who == -1                      ? "deadlock"
								: "no longer the same";
		schedule_hand((unsigned)who, SCHEDULE_POINT);
		event = schedule_wait(SCHEDULE_MAIN);
		/* To have found the lock still taken is no step that others could have waited for. */
		for (unsigned i = 0; i < n && event != SCHEDULE_WAITS_STILL; i++)
			a[i].waits = a[i].yields = false;
		a[who].waits = event == SCHEDULE_WAITS || event == SCHEDULE_WAITS_STILL;
		a[who].yields = event == SCHEDULE_YIELDS;
		a[who].done = event == SCHEDULE_DONE;
		done += a[who].done;
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(a[i].thread, NULL);
	return NULL;
}

/* The next order that was not tried: false if there is none. */
static inline bool schedule_next(void)
{
	unsigned at = schedule.steps;

	while (at && schedule.choice[at - 1] + 1 == schedule.options[at - 1])
		at--;
	if (!at)
		return false;
	schedule.choice[at - 1]++;
	schedule.prefix = at;
	return true;
}

/* Handing over is cheap on one CPU; and nothing here gains by two. */
static inline void schedule_pin(bool on)
{
	static cpu_set_t all;
	cpu_set_t one;

	if (on) {
		sched_getaffinity(0, sizeof(all), &all);
		CPU_ZERO(&one);
		for (unsigned i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
			if (CPU_ISSET(i, &all))
				CPU_SET(i, &one);
	}
	sched_setaffinity(0, sizeof(all), on ? &one : &all);
}

#endif
