/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the handler runs.
 *
 * A fault is two wake-ups, the handler's and the faulting thread's. On one CPU they are two context switches. Across CPUs
 * each is an interrupt of an idle CPU and, in a virtual machine, an exit from its halt: several times the fault itself.
 * The scheduler, which sees a thread that wakes and an idle CPU, makes it so.
 *
 * So while one thread of the program does the faulting, the handler is bound to that thread's CPU, which is looked up
 * every few faults. Being SCHED_IDLE there keeps the woken thread in place: a CPU that runs nothing else counts as idle.
 * And it does the reclaimer's work as well, for a third thread on that CPU would drive the program's away, and one on
 * another CPU pays an interrupt for every page table entry that it clears.
 *
 * A SCHED_IDLE thread starves where others want its CPU. The reclaimer looks whether the handler can run, everybody who
 * has waited long for a lock (the handler may hold it) sets it free, and a handler once starved stays free for a
 * while, twice as long each time. Where the way back from SCHED_IDLE is not allowed (CAP_SYS_NICE, RLIMIT_NICE) it is
 * never taken.
 */
#include "host/process/place.h"
#include "host/process/agent.h"
#include "platform/linux.h"
#include "platform/sys.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <string.h>

#define LOOK_EVERY 8u            /* faults */
#define PAUSE_MIN  1000000000ull /* ns */
#define STARVED    3000000ull    /* runnable for so long without running */
#define PAUSE_MAX  64000000000ull

enum { PLACE_YES = 1, PLACE_NO };

static long set_policy(int tid, int policy)
{
	int priority = 0;

	return spw__sys3(SYS_sched_setscheduler, tid, policy, &priority);
}

/* The stat file of one of our threads. */
static int open_stat(uint32_t tid)
{
	char path[48] = "/proc/self/task/", digits[10];
	size_t at = strlen(path), n = 0;

	for (; tid; tid /= 10)
		digits[n++] = (char)('0' + tid % 10);
	while (n > 0)
		path[at++] = digits[--n];
	memcpy(path + at, "/stat", sizeof("/stat"));
	return (int)spw__sys4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
}

/* Fields 3 (state) and 39 (CPU that the thread ran on last). False if the thread is gone. */
static bool read_stat(int fd, char *state, int *cpu)
{
	char text[512];
	long got = spw__sys4(SYS_pread64, fd, text, sizeof(text) - 1, 0);

	if (got <= 0)
		return false;
	text[got] = 0;
	const char *p = strrchr(text, ')');

	if (!p || p[1] != ' ')
		return false;
	*state = p[2];
	for (int field = 2; p && field < 39; field++)
		p = strchr(p + 1, ' ');
	if (!p)
		return false;
	for (*cpu = 0; *++p >= '0' && *p <= '9';)
		*cpu = *cpu * 10 + (*p - '0');
	return true;
}

/* What a stuck waiter calls. */
static void rescue(void)
{
	spw__place_free(&spw__agent);
}

/* A thread that sees whether the way back is open: for the handler itself it would be too late. */
static int try_policy(void *agent)
{
	struct spw__place *p = &((struct spw__agent *)agent)->place;
	bool back = set_policy(0, SCHED_IDLE) == 0 && set_policy(0, SCHED_NORMAL) == 0;

	__atomic_store_n(&p->allowed, back ? PLACE_YES : PLACE_NO, __ATOMIC_RELEASE);
	spw__wake_all(&p->allowed);
	return 0;
}

void spw__place_ask(struct spw__agent *a)
{
	struct spw__place *p = &a->place;

	*p = (struct spw__place){.bound = -1, .stat_fd = -1};
	/* Eviction by copy raises events that the handler has to read meanwhile: it cannot do it itself. */
	if (!a->move || spw__thread_start(try_policy, a, 0) < 0)
		return;
	while (!__atomic_load_n(&p->allowed, __ATOMIC_ACQUIRE))
		spw__wait(&p->allowed, 0, 1000000);
}

void spw__place_init(struct spw__agent *a)
{
	a->place = (struct spw__place){.allowed = a->place.allowed, .bound = -1, .stat_fd = -1, .pause = PAUSE_MIN};
	a->place.handler_tid = (int)spw__sys0(SYS_gettid);
	spw__sys3(SYS_sched_getaffinity, 0, sizeof(a->place.any), a->place.any);
	spw__plat_stuck = rescue;
}

bool spw__place_bound(const struct spw__agent *a)
{
	return __atomic_load_n(&a->place.bound, __ATOMIC_ACQUIRE) >= 0;
}

void spw__place_free(struct spw__agent *a)
{
	struct spw__place *p = &a->place;

	if (__atomic_exchange_n(&p->bound, -1, __ATOMIC_ACQ_REL) < 0)
		return;
	set_policy(p->handler_tid, SCHED_NORMAL);
	spw__sys3(SYS_sched_setaffinity, p->handler_tid, sizeof(p->any), p->any);
	p->not_before = spw__plat_now_ns() + p->pause;
	p->pause = p->pause < PAUSE_MAX ? p->pause * 2 : PAUSE_MAX;
}

static void bind(struct spw__place *p, int cpu)
{
	uint64_t mask[SPW_PLACE_WORDS] = {0};

	mask[cpu / 64] = 1ull << cpu % 64;
	/* Not allowed there, or no longer: the scheduler's choice stands. */
	if (spw__sys3(SYS_sched_setaffinity, 0, sizeof(mask), mask))
		return;
	if (__atomic_exchange_n(&p->bound, cpu, __ATOMIC_ACQ_REL) < 0)
		set_policy(0, SCHED_IDLE);
}

void spw__place_fault(struct spw__agent *a, uint32_t tid)
{
	struct spw__place *p = &a->place;
	char state;
	int cpu;

	if (p->allowed != PLACE_YES)
		return;
	p->strangers += tid != p->tid;
	if (++p->faults < LOOK_EVERY)
		return;
	bool alone = p->strangers <= 1;

	p->faults = p->strangers = 0;
	if (tid != p->tid) {
		p->tid = tid;
		if (p->stat_fd >= 0)
			spw__sys1(SYS_close, p->stat_fd);
		p->stat_fd = open_stat(tid);
	}
	if (!alone && spw__place_bound(a)) {
		__atomic_store_n(&p->bound, -1, __ATOMIC_RELEASE);
		set_policy(0, SCHED_NORMAL);
		spw__sys3(SYS_sched_setaffinity, 0, sizeof(p->any), p->any);
	} else if (alone && spw__plat_now_ns() >= p->not_before && read_stat(p->stat_fd, &state, &cpu) &&
		   cpu != __atomic_load_n(&p->bound, __ATOMIC_RELAXED) && (unsigned)cpu < SPW_PLACE_WORDS * 64) {
		bind(p, cpu);
	}
}

void spw__place_watch(struct spw__agent *a)
{
	struct spw__place *p = &a->place;
	struct pollfd waits = {.fd = a->uffd, .events = POLLIN};
	uint32_t rounds = __atomic_load_n(&p->rounds, __ATOMIC_ACQUIRE);
	uint64_t now = spw__plat_now_ns();
	char state = 0;
	int cpu;

	if (now - p->seen_at < STARVED)
		return;
	bool still = rounds == p->seen;

	p->seen = rounds;
	p->seen_at = now;
	if (!spw__place_bound(a) || !still)
		return;
	if (!__atomic_load_n(&p->busy, __ATOMIC_ACQUIRE) && spw__sys3(SYS_poll, &waits, 1, 0) != 1)
		return;
	/* It has had work since the last look. Asleep, it waits for a disk or for room; runnable, for the CPU. */
	int fd = open_stat((uint32_t)p->handler_tid);

	if (read_stat(fd, &state, &cpu) && state == 'R')
		spw__place_free(a);
	spw__sys1(SYS_close, fd);
}
