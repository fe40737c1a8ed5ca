/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the handler runs.
 *
 * A fault is two wake-ups, the handler's and the faulting thread's. On one CPU they are two context switches. Across
 * CPUs each is an interrupt of an idle CPU and, in a virtual machine, an exit from its halt: several times the fault
 * itself. The scheduler, which sees a thread that wakes and an idle CPU, makes it so.
 *
 * So while one thread of the program does the faulting, the handler is bound to that thread's CPU. Being SCHED_IDLE
 * there keeps the woken thread in place: a CPU that runs nothing else counts as idle. It also puts the woken thread
 * first: the handler comes back from waking it when it has faulted again, and finds the next message waiting. If none
 * waits, the thread may be on another CPU now, and where it is is looked up.
 *
 * A third thread that becomes runnable on that CPU drives the program's away. So the handler does the reclaimer's work
 * as well, and the reclaimer, which only watches meanwhile, keeps to other CPUs. (If it worked there, each call that
 * clears page table entries would cost an interrupt of the program's CPU.) Where faults bring many pages, dozens go out
 * with each such call, and to have two threads at it is worth the interrupts.
 *
 * A SCHED_IDLE thread starves where others want its CPU. The reclaimer looks whether the handler gets to run, also
 * while it waits for a lock that the handler may hold. A handler once starved stays free for a while, twice as long
 * each time. Where the way back from SCHED_IDLE is not allowed (CAP_SYS_NICE, RLIMIT_NICE) it is never taken.
 */
#include "host/process/place.h"
#include "host/process/agent.h"
#include "host/text.h"
#include "platform/linux.h"
#include "platform/sys.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <string.h>

#define LOOK_EVERY 32u           /* faults */
#define STREAM     8u            /* pages that a fault brings, in the mean */
#define PAUSE_MIN  1000000000ull /* ns */
#define STARVED    8000000ull    /* ns; the kernel counts running time at its ticks */
#define PAUSE_MAX  64000000000ull

enum { PLACE_YES = 1, PLACE_NO };

static long set_policy(int tid, int policy)
{
	int priority = 0;

	return spw__sys3(SYS_sched_setscheduler, tid, policy, &priority);
}

/* A file of one of our threads: "/stat" or "/schedstat". */
static int open_file(uint32_t tid, const char *name)
{
	return spw__open_numbered("/proc/self/task/", tid, name, O_RDONLY);
}

/* Fields 3 (state) and 39 (CPU that the thread ran on last). False if the thread is gone. */
static bool read_stat(int fd, char *state, int *cpu)
{
	char text[512];
	long got = spw__sys4(SYS_pread64, fd, text, sizeof(text) - 1, 0);

	if (got <= 0)
		return false;
	text[got] = 0;
	const char *field_3 = spw__stat_field(text, 3), *field_39 = spw__stat_field(text, 39);

	if (!field_39)
		return false;
	*state = *field_3;
	*cpu = (int)spw__number_at(field_39);
	return true;
}

static bool is_bound(const struct spw__place *p)
{
	return __atomic_load_n(&p->bound, __ATOMIC_ACQUIRE) >= 0;
}

/* The time that the handler has run, ns: the first number of its schedstat. */
static uint64_t time_run(const struct spw__place *p)
{
	char text[64] = "";

	spw__sys4(SYS_pread64, p->handler_sched_fd, text, sizeof(text) - 1, 0);
	return spw__number_at(text);
}

/* Runnable at two looks, and not having run in between, it starves. Reclaimer only. */
static void look(struct spw__place *p)
{
	char state;
	int cpu;
	uint64_t now = spw__plat_now_ns(), ran = time_run(p);

	if (!read_stat(p->handler_stat_fd, &state, &cpu) || state != 'R')
		p->suspected = 0;
	else if (!p->suspected || ran != p->ran)
		p->suspected = now;
	else if (now - p->suspected >= STARVED)
		spw__place_free(&spw__agent);
	p->ran = ran;
}

/*
 * What a stuck waiter calls. It may be a thread of the program, whose descriptors are others: the lock tells the
 * reclaimer.
 */
static void rescue(void)
{
	if (is_bound(&spw__agent.place) && (int)spw__sys0(SYS_gettid) == spw__agent.reclaim_tid)
		look(&spw__agent.place);
}

/*
 * A thread to see on whether the way back is open: for the handler it would be too late. It sleeps, or it would starve.
 */
static int sleep_meanwhile(void *agent)
{
	struct spw__place *p = &((struct spw__agent *)agent)->place;

	while (!__atomic_load_n(&p->allowed, __ATOMIC_ACQUIRE))
		spw__wait(&p->allowed, 0, 1000000000);
	return 0;
}

void spw__place_ask(struct spw__agent *a)
{
	struct spw__place *p = &a->place;

	*p = (struct spw__place){.bound = -1, .stat_fd = -1};
	/* Eviction by copy raises events that the handler has to read meanwhile: it cannot do it itself. */
	int tid = a->move ? spw__thread_start(sleep_meanwhile, a, 0) : -1;

	if (tid < 0)
		return;
	bool back = set_policy(tid, SCHED_IDLE) == 0 && set_policy(tid, SCHED_NORMAL) == 0;

	__atomic_store_n(&p->allowed, back ? PLACE_YES : PLACE_NO, __ATOMIC_RELEASE);
	spw__wake_all(&p->allowed);
}

/* A SCHED_IDLE thread that does not sleep while it waits for the disk is in nobody's way. */
static void watch_reads(bool on)
{
	spw__tiers_watch(&spw__agent, on);
}

void spw__place_init(struct spw__agent *a)
{
	a->place = (struct spw__place){
		.allowed = a->place.allowed, .bound = -1, .stat_fd = -1, .pause = PAUSE_MIN, .patience = 1};
	a->place.handler_tid = (int)spw__sys0(SYS_gettid);
	a->place.handler_stat_fd = open_file((uint32_t)a->place.handler_tid, "/stat");
	a->place.handler_sched_fd = open_file((uint32_t)a->place.handler_tid, "/schedstat");
	if (spw__sys3(SYS_sched_getaffinity, 0, sizeof(a->place.any), a->place.any) < 0)
		a->place.allowed = PLACE_NO; /* more CPUs than there are bits */
	spw__plat_stuck = rescue;
	watch_reads(false);
}

bool spw__place_reclaims(const struct spw__agent *a)
{
	return is_bound(&a->place) && (!__atomic_load_n(&a->place.streams, __ATOMIC_RELAXED) || spw__agent_over(a));
}

void spw__place_served(struct spw__agent *a, unsigned pages)
{
	struct spw__place *p = &a->place;
	bool was = p->streams;

	p->brought += pages;
	if (++p->served < LOOK_EVERY)
		return;
	bool now = p->beside && p->brought >= p->served * STREAM;

	p->served = p->brought = 0;
	__atomic_store_n(&p->streams, now, __ATOMIC_RELAXED);
	if (now && !was)
		spw__reclaim_kick(a);
}

static bool allow(int tid, const uint64_t *cpus)
{
	return spw__sys3(SYS_sched_setaffinity, tid, SPW_PLACE_WORDS * sizeof(*cpus), cpus) == 0;
}

static void anywhere(struct spw__place *p)
{
	set_policy(p->handler_tid, SCHED_NORMAL);
	allow(p->handler_tid, p->any);
	allow(spw__agent.reclaim_tid, p->any);
	watch_reads(false);
}

/* False: it was free. */
static bool release(struct spw__place *p)
{
	if (__atomic_exchange_n(&p->bound, -1, __ATOMIC_ACQ_REL) < 0)
		return false;
	anywhere(p);
	return true;
}

void spw__place_free(struct spw__agent *a)
{
	struct spw__place *p = &a->place;

	if (!release(p))
		return;
	__atomic_store_n(&p->not_before, spw__plat_now_ns() + p->pause, __ATOMIC_RELAXED);
	p->pause = p->pause < PAUSE_MAX ? p->pause * 2 : PAUSE_MAX;
}

static void bind(struct spw__place *p, int cpu)
{
	uint64_t mine[SPW_PLACE_WORDS] = {0}, others[SPW_PLACE_WORDS], any_other = 0;
	int was = __atomic_load_n(&p->bound, __ATOMIC_ACQUIRE);

	mine[cpu / 64] = 1ull << cpu % 64;
	for (unsigned i = 0; i < SPW_PLACE_WORDS; i++)
		any_other |= others[i] = p->any[i] & ~mine[i];
	/* Not allowed there, or no longer: the scheduler's choice stands. */
	if (spw__sys3(SYS_sched_setaffinity, 0, sizeof(mine), mine))
		return;
	p->beside = any_other && allow(spw__agent.reclaim_tid, others);
	if (was < 0) {
		set_policy(0, SCHED_IDLE);
		watch_reads(true);
	}
	/* Told last: whoever sets the handler free undoes what he has been told of, and nobody else would. */
	if (!__atomic_compare_exchange_n(&p->bound, &was, cpu, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		anywhere(p);
}

void spw__place_fault(struct spw__agent *a, uint32_t tid, bool waited)
{
	struct spw__place *p = &a->place;
	char state;
	int cpu;

	/* Nobody watches the handler during a fork. */
	if (p->allowed != PLACE_YES || spw__fork_wanted(a))
		return;
	if (!waited)
		p->patience = p->patience > 1 ? p->patience / 2 : 1;
	else if (tid == p->tid && is_bound(p))
		p->strays++;
	p->strangers += tid != p->tid;
	if (++p->faults < LOOK_EVERY && p->strays < p->patience)
		return;
	bool alone = p->strangers <= 1, astray = p->strays > 0;

	p->faults = p->strangers = p->strays = 0;
	if (tid != p->tid) {
		p->tid = tid;
		if (p->stat_fd >= 0)
			spw__sys1(SYS_close, p->stat_fd);
		p->stat_fd = open_file(tid, "/stat");
	}
	if (!alone) {
		release(p);
	} else if ((astray || !is_bound(p)) &&
		   spw__plat_now_ns() >= __atomic_load_n(&p->not_before, __ATOMIC_RELAXED) &&
		   read_stat(p->stat_fd, &state, &cpu) && (unsigned)cpu < SPW_PLACE_WORDS * 64) {
		bool stays = cpu == __atomic_load_n(&p->bound, __ATOMIC_RELAXED);

		if (!stays)
			bind(p, cpu);
		/* It computes, or waits for something else, between its faults. */
		p->patience = stays && p->patience < LOOK_EVERY ? p->patience * 2 : 1;
	}
}

void spw__place_watch(struct spw__agent *a)
{
	if (is_bound(&a->place))
		look(&a->place);
}
