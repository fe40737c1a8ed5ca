/* SPDX-License-Identifier: Apache-2.0 */
/* Signals, stacks, and pages that several threads write at once. */
#include "torture.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ALT_STACK     (256u << 10)
#define PERIOD_NS     5000000
#define COUNTER_PAGES 512u
#define FRAME_PAGES   8u

static __thread struct worker *self;

/* Runs on a stack that may be out, on pages of its own. */
static void on_alarm(int sig)
{
	struct worker *w = self;
	int error = errno;

	(void)sig;
	if (!w || w->depth)
		return;
	for (unsigned k = 0; k < 4; k++) {
		uint32_t i = (uint32_t)(rnd(&w->signal.rng) % SIGNAL_PAGES);
		char *page = w->signal.base + (size_t)i * PAGE;

		check(w, page, w->signal.key[i]);
		w->signal.key[i] = rnd(&w->signal.rng) | 4;
		fill(page, w->signal.key[i]);
	}
	w->signal.handled++;
	errno = error;
}

void signal_start(struct worker *w)
{
	char *p = map_anywhere(w, ALT_STACK + (size_t)SIGNAL_PAGES * PAGE);
	stack_t st = {.ss_sp = p, .ss_size = ALT_STACK};
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};
	struct itimerspec every = {{0, PERIOD_NS}, {0, PERIOD_NS}};

	self = w;
	w->alt_stack = p;
	w->signal.base = p + ALT_STACK;
	w->signal.rng = w->rng ^ 0x5157;
	ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	must(w, sigaltstack(&st, NULL) == 0 && sigaction(SIGALRM, &sa, NULL) == 0, "sigaltstack");
	must(w, timer_create(CLOCK_MONOTONIC, &ev, &w->timer) == 0, "timer_create");
	must(w, timer_settime(w->timer, 0, &every, NULL) == 0, "timer_settime");
}

void signal_stop(struct worker *w)
{
	sigset_t alarm;

	timer_delete(w->timer);
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	for (uint32_t i = 0; i < SIGNAL_PAGES; i++)
		check(w, w->signal.base + (size_t)i * PAGE, w->signal.key[i]);
}

void op_signal(struct worker *w)
{
	if (w->alt_stack && !w->depth)
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGALRM);
}

/* Frames of known bytes, checked on the way back. */
static __attribute__((noinline)) void descend(struct worker *w, unsigned depth)
{
	_Alignas(16) char frame[FRAME_PAGES * PAGE];
	uint64_t key = new_key(w);

	for (unsigned i = 0; i < FRAME_PAGES; i++)
		fill(frame + (size_t)i * PAGE, key + i * 4);
	if (depth)
		descend(w, depth - 1);
	else
		op_touch(w);
	for (unsigned i = 0; i < FRAME_PAGES; i++)
		check(w, frame + (size_t)i * PAGE, key + i * 4);
}

static void *stack_thread(void *arg)
{
	descend(arg, 100);
	return NULL;
}

void op_stack(struct worker *w)
{
	pthread_t t;

	if (w->depth)
		return;
	must(w, pthread_create(&t, NULL, stack_thread, w) == 0, "pthread_create");
	pthread_join(t, NULL);
}

/* Each page holds one counter a worker: all write the same pages at once, none may lose a count. */
static uint64_t (*counters)[WORDS];

void count_init(void)
{
	counters = map_anywhere(&(struct worker){.op = "init"}, (size_t)COUNTER_PAGES * PAGE);
}

void op_count(struct worker *w)
{
	if (w->depth)
		return;
	if (!w->tally)
		w->tally = map_anywhere(w, COUNTER_PAGES * sizeof(uint64_t));
	for (unsigned k = 0; k < 64; k++) {
		uint32_t i = below(w, COUNTER_PAGES);
		volatile uint64_t *mine = &counters[i][w->number * 8];

		if (*mine != w->tally[i])
			fail(w, "counter %p: expected %llu, got %llu", (const void *)mine,
			     (unsigned long long)w->tally[i], (unsigned long long)*mine);
		*mine = *mine + 1;
		w->tally[i]++;
	}
}

void count_check(struct worker *w)
{
	for (uint32_t i = 0; w->tally && i < COUNTER_PAGES; i++) {
		if (counters[i][w->number * 8] != w->tally[i])
			fail(w, "counter page %u: expected %llu, got %llu", i, (unsigned long long)w->tally[i],
			     (unsigned long long)counters[i][w->number * 8]);
	}
}
