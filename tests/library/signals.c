/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The faults come as signals, and signals are the program's: its handlers from before and after, its masks, its small
 * stacks, its timers, and forks.
 */
#include "case.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RAM  (4 * MIB)
#define MANY 2048u /* pages: twice the cap */

static void handle(int sig, void (*with_info)(int, siginfo_t *, void *), void (*plain)(int), int flags)
{
	struct sigaction a = {.sa_flags = flags | (with_info ? SA_SIGINFO : 0)};

	/* SIGBUS stays open in the others: they may touch regions. */
	sigfillset(&a.sa_mask);
	sigdelset(&a.sa_mask, SIGBUS);
	if (with_info)
		a.sa_sigaction = with_info;
	else
		a.sa_handler = plain;
	CHECK(!sigaction(sig, &a, NULL));
}

/* A page of a file that has become shorter: touching it is a SIGBUS that is not the library's. */
static volatile char *page_beyond_the_end(void)
{
	int fd = memfd_create("short", MFD_CLOEXEC);
	char *p;

	CHECK(fd >= 0 && !ftruncate(fd, PAGE));
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED && !ftruncate(fd, 0) && !close(fd));
	return p;
}

/* More pages than the cap has room for, each read after it has been out. */
static struct spw_region *many_pages(struct spw_space *s, char **base)
{
	struct spw_region *r = new_region(s, MANY, base);

	write_pages(*base, 0, MANY, TEXT, 1);
	return r;
}

/* All numbers below a power of two, at growing steps: pages each of which has a fault of its own. */
static uint64_t scattered(uint64_t i, uint64_t power)
{
	return i * (i + 1) / 2 % power;
}

static void touch_all(const char *base)
{
	for (uint64_t i = 0; i < MANY; i++)
		check_pages(base, scattered(i, MANY), 1, TEXT, 1);
}

/* ---- other handlers of SIGBUS ---- */

static volatile sig_atomic_t told;
static void *volatile told_address;
static volatile int told_code;
static sigjmp_buf way_out;

static void repair(void *page)
{
	if (mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != page)
		_exit(1);
}

static void info_handler(int sig, siginfo_t *info, void *ucontext)
{
	told += sig == SIGBUS && ucontext;
	told_address = info->si_addr;
	told_code = info->si_code;
	if (info->si_code == BUS_ADRERR)
		repair((void *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1)));
}

static volatile char *volatile beyond;

static void plain_handler(int sig)
{
	told += sig == SIGBUS;
	repair((void *)beyond);
}

static void jumping_handler(int sig)
{
	told += sig == SIGBUS;
	siglongjmp(way_out, 1);
}

static void earlier_handler_with_info(void)
{
	struct spw_space *s;
	char *base;

	handle(SIGBUS, info_handler, NULL, 0);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = many_pages(s, &base);

	touch_all(base);
	CHECK(!told, "of faults that are the library's");
	beyond = page_beyond_the_end();
	CHECK(beyond[1234] == 0);
	CHECK(told == 1 && told_address == (void *)(beyond + 1234) && told_code == BUS_ADRERR, "%d times, %p", told,
	      told_address);
	kill(getpid(), SIGBUS);
	CHECK(told == 2 && told_code == SI_USER, "%d times, code %d", told, told_code);
	touch_all(base);
	CHECK(told == 2);
	spw_region_destroy(r);
	end_space(s);
}

static void earlier_plain_handler(void)
{
	struct spw_space *s;
	char *base;

	handle(SIGBUS, NULL, plain_handler, 0);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = many_pages(s, &base);

	beyond = page_beyond_the_end();
	beyond[7] = 8;
	CHECK(told == 1 && beyond[7] == 8, "%d times", told);
	touch_all(base);
	CHECK(told == 1);
	spw_region_destroy(r);
	end_space(s);
}

/* Each time whatever the library holds while it calls the handler is left as it is. */
static void earlier_handler_that_jumps(void)
{
	struct spw_space *s;
	sigset_t now;
	char *base;

	handle(SIGBUS, NULL, jumping_handler, 0);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = many_pages(s, &base);

	beyond = page_beyond_the_end();
	for (volatile unsigned i = 0; i < 1000; i++) {
		if (!sigsetjmp(way_out, 1)) {
			(void)*beyond;
			failed(__FILE__, __LINE__, "touched", "%u", i);
		}
		CHECK(told == (int)i + 1);
		check_pages(base, scattered(i, MANY), 1, TEXT, 1);
	}
	sigprocmask(SIG_SETMASK, NULL, &now);
	CHECK(!sigismember(&now, SIGBUS) && !sigismember(&now, SIGTERM));
	spw_region_destroy(r);
	end_space(s);
}

static volatile sig_atomic_t ours, others;

static void later_handler(int sig, siginfo_t *info, void *ucontext)
{
	int saved = errno;

	if (spw_fault(sig, info, ucontext)) {
		ours++;
	} else {
		others++;
		repair((void *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1)));
	}
	CHECK(errno == saved);
}

static void handler_installed_later(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base;

	handle(SIGBUS, later_handler, NULL, 0);
	struct spw_region *r = many_pages(s, &base);

	touch_all(base);
	CHECK(ours >= (int)MANY && !others, "%d, and %d others", ours, others);
	beyond = page_beyond_the_end();
	CHECK(beyond[5] == 0 && others == 1, "%d", others);
	touch_all(base);
	CHECK(others == 1);
	spw_region_destroy(r);
	end_space(s);
}

static void touch_beyond(void *disposition)
{
	struct spw_space *s;
	char *base;

	signal(SIGBUS, disposition ? SIG_IGN : SIG_DFL);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	many_pages(s, &base);
	touch_all(base);
	(void)*page_beyond_the_end();
}

/* The kernel ends a program that ignores a SIGBUS of its own making. */
static void default_action(void)
{
	int status = status_of(touch_beyond, NULL);

	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %x", status);
	status = status_of(touch_beyond, "ignored");
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "ignored: status %x", status);
}

static void sent_by_kill(void *disposition)
{
	struct spw_space *s;
	char *base;

	signal(SIGBUS, disposition ? SIG_IGN : SIG_DFL);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	many_pages(s, &base);
	kill(getpid(), SIGBUS);
	touch_all(base);
}

/* Memory that nobody has touched yet is broken: said early to those who asked for it (prctl(2), PR_MCE_KILL). */
static void told_early(void *disposition)
{
	siginfo_t info = {.si_signo = SIGBUS, .si_code = BUS_MCEERR_AO};
	struct spw_space *s;
	char *base;

	signal(SIGBUS, disposition ? SIG_IGN : SIG_DFL);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	many_pages(s, &base);
	CHECK(!syscall(SYS_rt_sigqueueinfo, getpid(), SIGBUS, &info));
	touch_all(base);
}

static void sent_signal(void)
{
	void (*const runs[])(void *) = {sent_by_kill, told_early};

	for (unsigned i = 0; i < 2; i++) {
		int status = status_of(runs[i], NULL);

		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "%u: status %x", i, status);
		status = status_of(runs[i], "ignored");
		CHECK(!status, "%u, ignored: status %x", i, status);
	}
}

static void one_space_after_another(void)
{
	handle(SIGBUS, info_handler, NULL, 0);
	for (unsigned i = 0; i < 20; i++) {
		struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
		char *base;
		struct spw_region *r = new_region(s, MANY, &base);

		write_pages(base, 0, MANY / 4, TEXT, i + 1);
		take_out(r);
		check_pages(base, 0, MANY / 4, TEXT, i + 1);
		spw_region_destroy(r);
		end_space(s);
		beyond = page_beyond_the_end();
		CHECK(*beyond == 0 && told == (int)i + 1, "%d times", told);
	}
}

/* What a program's own handler does that knew of ours: what spw_fault() does not take it gives to its predecessor. */
static struct sigaction predecessor;

static void handler_that_chains(int sig, siginfo_t *info, void *ucontext)
{
	if (spw_fault(sig, info, ucontext)) {
		ours++;
		return;
	}
	others++;
	CHECK(others < 8, "it is asked again and again");
	predecessor.sa_sigaction(sig, info, ucontext);
}

/* Two that know nothing of the library, each with one below. */
static struct sigaction below[2];
static int asked[2];

static void ask_below(int i, int sig, siginfo_t *info, void *ucontext)
{
	CHECK(++asked[i] < 8, "it is asked again and again");
	below[i].sa_sigaction(sig, info, ucontext);
}

static void handler_a(int sig, siginfo_t *info, void *ucontext)
{
	ask_below(0, sig, info, ucontext);
}

static void handler_b(int sig, siginfo_t *info, void *ucontext)
{
	ask_below(1, sig, info, ucontext);
}

static void put_on_top(int i)
{
	CHECK(!sigaction(SIGBUS, NULL, &below[i]));
	handle(SIGBUS, i ? handler_b : handler_a, NULL, 0);
}

/* One that came over ours has gone, and is not asked, though a space was made while it was there. */
static void handler_has_gone(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);

	end_space(s);
	handle(SIGBUS, info_handler, NULL, 0);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	put_on_top(0);
	end_space(s);
	end_space(new_space(RAM, SPW_FAULT_SIGNAL));
	CHECK(!sigaction(SIGBUS, &below[0], NULL));
	for (unsigned i = 0; i < 2; i++) {
		beyond = page_beyond_the_end();
		CHECK(*beyond == 0 && !asked[0] && told == (int)i + 1, "%d and %d times", asked[0], told);
		end_space(new_space(RAM, SPW_FAULT_SIGNAL));
	}
}

/* Handlers and spaces by turns: each handler is asked, once. */
static void handlers_and_spaces(void)
{
	struct spw_space *s;

	handle(SIGBUS, info_handler, NULL, 0);
	for (int i = 0; i < 2; i++) {
		s = new_space(RAM, SPW_FAULT_SIGNAL);
		put_on_top(i);
		end_space(s);
	}
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	beyond = page_beyond_the_end();
	CHECK(*beyond == 0 && told == 1 && asked[0] == 1 && asked[1] == 1, "%d, %d, %d times", told, asked[0],
	      asked[1]);
	end_space(s);
	CHECK(*page_beyond_the_end() == 0 && told == 2 && asked[0] == 2 && asked[1] == 2);
}

/* Who never asked ours, and was replaced, is not asked for those who came after. */
static void handler_was_replaced(void)
{
	struct spw_space *s;

	handle(SIGBUS, NULL, plain_handler, 0);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	handle(SIGBUS, info_handler, NULL, 0);
	end_space(s);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	put_on_top(0);
	end_space(s);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	beyond = page_beyond_the_end();
	CHECK(*beyond == 0 && told_code == BUS_ADRERR && told == 1 && asked[0] == 1, "%d, %d times", told, asked[0]);
	end_space(s);
}

/* More handlers than anybody has: a space that cannot be put over one more is refused, and nothing is changed. */
static void many_handlers(void)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	struct sigaction now;
	struct spw_space *s;
	int rc = 0, i = 0;

	o.ram = RAM;
	for (; i < 64 && !rc; i++) {
		/* Other flags make another of it. */
		handle(SIGBUS, info_handler, NULL,
		       (i & 1 ? SA_RESTART : 0) | (i & 2 ? SA_NODEFER : 0) | (i & 4 ? SA_ONSTACK : 0) |
			       (i & 8 ? SA_RESETHAND : 0));
		rc = spw_space_create(&o, &s);
		if (!rc)
			end_space(s);
	}
	CHECK(rc == -ENOMEM && i > 8, "%d, %d", rc, i);
	CHECK(!sigaction(SIGBUS, NULL, &now) && now.sa_sigaction == info_handler);
	handle(SIGBUS, info_handler, NULL, 0);
	end_space(new_space(RAM, SPW_FAULT_SIGNAL));
}

static int aboves;

static void handler_above(int sig, siginfo_t *info, void *ucontext)
{
	aboves++;
	handler_that_chains(sig, info, ucontext);
}

static void later_handler_stays(void)
{
	handle(SIGBUS, info_handler, NULL, 0);
	for (unsigned i = 0; i < 3; i++) {
		struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
		char *base;

		if (i == 0) {
			CHECK(!sigaction(SIGBUS, NULL, &predecessor));
			handle(SIGBUS, handler_that_chains, NULL, 0);
		}
		struct spw_region *r = many_pages(s, &base);

		touch_all(base);
		beyond = page_beyond_the_end();
		CHECK(*beyond == 0 && others == (int)i + 1 && told == (int)i + 1, "%d, %d times", others, told);
		/* Another one on top, which asks that one. */
		if (i == 1)
			handle(SIGBUS, handler_above, NULL, 0);
		spw_region_destroy(r);
		end_space(s);
	}
	CHECK(ours >= (int)MANY && aboves == 1, "%d, %d times", ours, aboves);
}

/* And one that goes again, while there is no space: ours is the one that is left. */
static void later_handler_goes(void)
{
	char *base;

	handle(SIGBUS, info_handler, NULL, 0);
	for (unsigned i = 0; i < 3; i++) {
		struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
		struct spw_region *r = many_pages(s, &base);

		touch_all(base);
		beyond = page_beyond_the_end();
		CHECK(*beyond == 0 && told == (int)i + 1, "%d times", told);
		CHECK(!sigaction(SIGBUS, NULL, &predecessor));
		handle(SIGBUS, handler_that_chains, NULL, 0);
		spw_region_destroy(r);
		end_space(s);
		CHECK(!sigaction(SIGBUS, &predecessor, NULL));
	}
}

/* SIGBUS that is ignored when a space goes, and when the next comes. */
static void ignored_between(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base;

	signal(SIGBUS, SIG_IGN);
	end_space(s);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = many_pages(s, &base);

	touch_all(base);
	spw_region_destroy(r);
	end_space(s);
}

/* ---- stacks ---- */

static char *shared_base;

/* Returns what the thread had before; a sanitizer takes its own back when the thread ends. */
static stack_t set_signal_stack(char *mem, size_t bytes)
{
	stack_t st = {.ss_sp = mem, .ss_size = bytes}, before;

	CHECK(!sigaltstack(&st, &before), "errno %d", errno);
	return before;
}

/* Bytes that the kernel puts there, and some for a handler that goes to another stack at once. */
static size_t small_stack(void)
{
	return least_signal_stack() + 1024;
}

static void *on_small_signal_stack(void *arg)
{
	size_t bytes = (small_stack() + PAGE - 1) / PAGE * PAGE;
	char *mem = mmap(NULL, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)arg;
	CHECK(mem != MAP_FAILED && !mprotect(mem, PAGE, PROT_NONE));
	stack_t before = set_signal_stack(mem + PAGE, small_stack());

	for (unsigned i = 0; i < 4; i++)
		touch_all(shared_base);
	sigaltstack(&before, NULL);
	munmap(mem, bytes + PAGE);
	return NULL;
}

static void small_signal_stack(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = many_pages(s, &shared_base);
	uint64_t faults = stats_of(s).faults;

	run_thread(on_small_signal_stack, NULL, MIB);
	CHECK(stats_of(s).faults - faults > MANY, "%llu", (unsigned long long)(stats_of(s).faults - faults));
	spw_region_destroy(r);
	end_space(s);
}

static volatile uint64_t sink;

/* Go down until `left` bytes of the stack remain, then touch one word in each page. */
static void __attribute__((noinline)) go_down(const char *end, size_t left)
{
	if ((size_t)((const char *)__builtin_frame_address(0) - end) > left + 256) {
		go_down(end, left);
		sink++; /* or it would be a jump */
		return;
	}
	for (uint64_t i = 0; i < MANY; i++)
		sink += *(volatile uint64_t *)(shared_base + scattered(i, MANY) * PAGE);
}

struct deep {
	size_t left;
	bool signal_stack;
};

static void *near_the_end(void *arg)
{
	static char mem[64 * 1024];
	const struct deep *d = arg;
	pthread_attr_t attr;
	size_t size;
	void *end;

	CHECK(!pthread_getattr_np(pthread_self(), &attr) && !pthread_attr_getstack(&attr, &end, &size));
	pthread_attr_destroy(&attr);
	stack_t before = {0};

	if (d->signal_stack)
		before = set_signal_stack(mem, sizeof(mem));
	go_down(end, d->left);
	if (d->signal_stack)
		sigaltstack(&before, NULL);
	return NULL;
}

/* What the kernel puts on a stack has to fit; little more. */
static void stack_nearly_used_up(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = many_pages(s, &shared_base);

	run_thread(near_the_end, &(struct deep){.left = small_stack()}, 256 * 1024);
	run_thread(near_the_end, &(struct deep){.left = 256, .signal_stack = true}, 256 * 1024);
	touch_all(shared_base);
	spw_region_destroy(r);
	end_space(s);
}

/* ---- masks ---- */

static void *with_signals_blocked(void *arg)
{
	sigset_t all, after;

	sigfillset(&all);
	if (!arg)
		sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	write_pages(shared_base, 0, MANY, TEXT, 1);
	touch_all(shared_base);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (int i = 1; i < 32; i++)
		CHECK(sigismember(&after, i) == sigismember(&all, i) || i == SIGKILL || i == SIGSTOP, "signal %d", i);
	return NULL;
}

static void signals_blocked(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = new_region(s, MANY, &shared_base);

	run_thread(with_signals_blocked, NULL, MIB);
	spw_region_destroy(r);
	end_space(s);
}

static void sigbus_blocked(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_THREAD);
	struct spw_region *r = new_region(s, MANY, &shared_base);

	run_thread(with_signals_blocked, "SIGBUS too", MIB);
	CHECK(stats_of(s).faults >= MANY);
	spw_region_destroy(r);
	end_space(s);
}

/* ---- handlers that fault, at any moment ---- */

#define HANDLED 64u /* pages that only the handler writes */

static volatile uint64_t handled;
static char *handlers_pages;
static volatile sig_atomic_t handler_done;

/* Writes a page of its own, and reads one that the program has, whatever that is doing. */
static void touching_handler(int sig)
{
	int saved = errno;
	uint64_t n = handled++, i = scattered(n, HANDLED);
	volatile uint64_t *own = (volatile uint64_t *)(handlers_pages + i * PAGE);

	(void)sig;
	CHECK(gettid() == getpid(), "a signal came to a thread of the library");
	if (handler_done)
		return;
	CHECK(*own == n / HANDLED, "page %llu: %llu at %llu", (unsigned long long)i, (unsigned long long)*own,
	      (unsigned long long)n);
	*own = n / HANDLED + 1;
	sink += *(volatile uint64_t *)(shared_base + n * 13 % MANY * PAGE);
	errno = saved;
}

static timer_t start_timer(int sig)
{
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = sig};
	struct itimerspec every = {.it_interval = {0, 100000}, .it_value = {0, 100000}};
	timer_t id;

	CHECK(!timer_create(CLOCK_MONOTONIC, &ev, &id) && !timer_settime(id, 0, &every, NULL), "errno %d", errno);
	return id;
}

/* What the interrupted program does: its memory, and every call. */
static void use_everything(struct spw_space *s, struct spw_region *r, uint64_t *rng)
{
	uint64_t first = next_random(rng) % (MANY - 64), n = 1 + next_random(rng) % 64;
	size_t at = first * PAGE, bytes = n * PAGE;
	struct spw_region *c;
	char *base;

	switch (next_random(rng) % 10) {
	case 0:
		CHECK(!spw_region_advise(r, at, bytes, SPW_COLD));
		break;
	case 1:
		CHECK(!spw_region_advise(r, at, bytes, SPW_WILLNEED));
		break;
	case 2:
		CHECK(!spw_region_pin(r, at, bytes) && !spw_region_unpin(r, at, bytes));
		break;
	case 3:
		CHECK(!spw_region_advise(r, at, bytes, SPW_DISCARD));
		check_pages(shared_base, first, n, TEXT, 0);
		write_pages(shared_base, first, n, TEXT, 1);
		break;
	case 4:
		c = new_clone(r, &base);
		write_pages(shared_base, first, n, TEXT, 1);
		check_pages(base, first, n, TEXT, 1);
		spw_region_destroy(c);
		break;
	case 5:
		c = new_region(s, n, &base);
		write_pages(base, 0, n, NOISE, first + 1);
		CHECK(!spw_region_resize(c, (n + 64) * PAGE));
		check_pages(spw_region_address(c), 0, n, NOISE, first + 1);
		spw_region_destroy(c);
		break;
	case 6:
		CHECK(stats_of(s).ram == region_stats(r).bytes / 2);
		break;
	default:
		check_pages(shared_base, first, n, TEXT, 1);
		write_pages(shared_base, first, n, TEXT, 1);
	}
}

static void timers(int flags)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = many_pages(s, &shared_base), *own = new_region(s, HANDLED, &handlers_pages);
	struct itimerval every = {.it_interval = {0, 100}, .it_value = {0, 100}};
	uint64_t rng = 1;
	timer_t id;

	handle(SIGUSR1, NULL, touching_handler, flags | SA_RESTART);
	handle(SIGPROF, NULL, touching_handler, flags | SA_RESTART);
	CHECK(!setitimer(ITIMER_PROF, &every, NULL));
	id = start_timer(SIGUSR1);
	while (handled < 5000)
		use_everything(s, r, &rng);
	handler_done = 1;
	timer_delete(id);
	setitimer(ITIMER_PROF, &(struct itimerval){0}, NULL);
	touch_all(shared_base);
	spw_region_destroy(own);
	spw_region_destroy(r);
	end_space(s);
}

static void timer_handler_faults(void)
{
	timers(0);
}

static void timer_handler_on_signal_stack(void)
{
	static char mem[128 * 1024];

	set_signal_stack(mem, sizeof(mem));
	timers(SA_ONSTACK);
}

/* A handler that is the first to touch a leaf, while the program is in a call that looks at all of them. */
#define LEAF 512u /* pages */
#define NEW  256u /* leaves */

static void reading_handler(int sig)
{
	(void)sig;
	handled++;
	sink += *(volatile uint64_t *)shared_base;
}

static void leaf_handler(int sig)
{
	(void)sig;
	if (handled < NEW)
		CHECK(!*(volatile uint64_t *)(shared_base + handled++ * LEAF * PAGE));
}

static void handler_makes_leaves(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = new_region(s, (uint64_t)NEW * LEAF, &shared_base), *clones[16];
	char *base;
	timer_t id;

	handle(SIGUSR1, NULL, leaf_handler, SA_RESTART);
	id = start_timer(SIGUSR1);
	CHECK(!spw_region_allow(r, 1));
	while (handled < NEW)
		CHECK(!spw_region_allow(r, 1));
	CHECK(timer_delete(id) == 0);
	spw_region_destroy(r);

	/* The count of what so many hold is behind a lock, too. */
	r = new_region(s, 1, &shared_base);
	write_pages(shared_base, 0, 1, TEXT, 1);
	for (unsigned i = 0; i < 16; i++)
		clones[i] = new_clone(r, &base);
	handled = 0;
	handle(SIGUSR1, NULL, reading_handler, SA_RESTART);
	id = start_timer(SIGUSR1);
	while (handled < 5000) {
		uint64_t seen = handled;

		CHECK(!spw_region_advise(r, 0, PAGE, SPW_COLD));
		while (handled == seen) {
			struct spw_region_stats st = region_stats(r);

			CHECK(st.shared_bytes == PAGE, "%llu", (unsigned long long)st.shared_bytes);
		}
	}
	CHECK(timer_delete(id) == 0);
	for (unsigned i = 0; i < 16; i++)
		spw_region_destroy(clones[i]);
	spw_region_destroy(r);
	end_space(s);
}

/* ---- fork ---- */

static void read_first(void *base)
{
	signal(SIGSEGV, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
	(void)*(volatile char *)base;
}

static void do_nothing(void *unused)
{
	(void)unused;
}

static void forks(enum spw_fault_mode mode)
{
	struct spw_space *s = new_space(RAM, mode);
	struct spw_region *r;
	int status;
	char *base;

	signal(SIGBUS, SIG_DFL);
	end_space(s);
	s = new_space(RAM, mode);
	r = many_pages(s, &base);
	for (unsigned i = 0; i < 4; i++) {
		if (i % 2)
			take_out(r);
		else
			check_pages(base, 0, 1, TEXT, 1);
		status = status_of(read_first, base);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "page %s: status %x", i % 2 ? "out" : "in",
		      status);
		status = status_of(do_nothing, NULL);
		CHECK(!status, "status %x", status);
		touch_all(base);
		write_pages(base, i * 100, 100, TEXT, 1);
	}
	spw_region_destroy(r);
	end_space(s);
}

static void forks_by_signal(void)
{
	forks(SPW_FAULT_SIGNAL);
}

static void forks_by_thread(void)
{
	forks(SPW_FAULT_THREAD);
}

/* The kernel ends who has the signal of a fault blocked, whatever its handler. */
static void touch_with_sigbus_blocked(void *unused)
{
	char *base;
	sigset_t bus;

	(void)unused;
	many_pages(new_space(RAM, SPW_FAULT_SIGNAL), &base);
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &bus, NULL);
	touch_all(base);
}

static void sigbus_blocked_by_signal(void)
{
	int status = status_of(touch_with_sigbus_blocked, NULL);

	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %x", status);
}

/* A child has nothing of the parent's space; it may make its own. */
static void own_space(void *parents_base)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base;
	struct spw_region *r = many_pages(s, &base);

	(void)parents_base;
	touch_all(base);
	spw_region_destroy(r);
	end_space(s);
}

static void child_makes_its_own(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base;
	struct spw_region *r = many_pages(s, &base);
	int status = status_of(own_space, base);

	CHECK(!status, "status %x", status);
	touch_all(base);
	spw_region_destroy(r);
	end_space(s);
}

/* What a child has where a region of its parent's was is the child's own. */
static void fault_of_a_child(void *base)
{
	char path[] = "/var/tmp/library-XXXXXX";
	int fd = mkstemp(path);

	signal(SIGSEGV, SIG_DFL);
	CHECK(fd >= 0 && !unlink(path));
	CHECK(mmap(base, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == base);
	alarm(10);
	*(volatile char *)base = 1; /* behind the end of the file */
}

static void child_has_another_mapping(void)
{
	struct spw_space *s;
	char *base;
	int status;

	signal(SIGBUS, SIG_DFL);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = new_region(s, MANY, &base);

	write_pages(base, 0, MANY, TEXT, 1);
	take_out(r);
	status = status_of(fault_of_a_child, base);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %x", status);
	CHECK(!region_stats(r).resident_bytes);
	write_pages(base, 0, 1, TEXT, 2);
	check_pages(base, 0, 1, TEXT, 2);
	check_pages(base, 1, MANY - 1, TEXT, 1);
	spw_region_destroy(r);
	end_space(s);
}

static void *touch_until(void *stop)
{
	while (!__atomic_load_n((int *)stop, __ATOMIC_RELAXED))
		touch_all(shared_base);
	return NULL;
}

/* Other threads fault while children are made, by fork and by posix_spawn. */
static void children_beside_faults(void)
{
	char *const argv[] = {"true", NULL}, *const envp[] = {NULL};
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_region *r = many_pages(s, &shared_base);
	pthread_t id[2];
	int stop = 0, status;
	pid_t pid;

	for (unsigned i = 0; i < 2; i++)
		CHECK(!pthread_create(&id[i], NULL, touch_until, &stop));
	for (unsigned i = 0; i < 50; i++) {
		CHECK(!posix_spawnp(&pid, "true", NULL, NULL, argv, envp));
		CHECK(waitpid(pid, &status, 0) == pid && !status, "status %x", status);
		CHECK(!status_of(do_nothing, NULL));
		check_pages(shared_base, i, 1, TEXT, 1);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(id[i], NULL);
	spw_region_destroy(r);
	end_space(s);
}

const struct spw_test_case signal_cases[] = {
	{"an earlier handler with SA_SIGINFO is told of what is not the library's", earlier_handler_with_info},
	{"an earlier handler without SA_SIGINFO", earlier_plain_handler},
	{"an earlier handler that leaves by siglongjmp", earlier_handler_that_jumps},
	{"a later handler that calls spw_fault", handler_installed_later},
	{"the default action, and SIGBUS ignored", default_action},
	{"a SIGBUS that is sent", sent_signal},
	{"one space after another", one_space_after_another},
	{"a later handler stays, one space after another", later_handler_stays},
	{"a later handler goes, one space after another", later_handler_goes},
	{"SIGBUS is ignored, one space after another", ignored_between},
	{"a handler goes that spaces were put over", handler_has_gone},
	{"handlers and spaces by turns", handlers_and_spaces},
	{"a handler that was replaced", handler_was_replaced},
	{"many handlers", many_handlers},
	{"a small signal stack", small_signal_stack},
	{"a stack that is nearly used up", stack_nearly_used_up},
	{"all other signals blocked", signals_blocked},
	{"SIGBUS blocked, faults by thread", sigbus_blocked},
	{"SIGBUS blocked, faults by signal", sigbus_blocked_by_signal},
	{"a timer's handler faults, while anything is done", timer_handler_faults},
	{"a timer's handler faults on a signal stack", timer_handler_on_signal_stack},
	{"a handler makes leaves, while all are looked at", handler_makes_leaves},
	{"fork, faults by signal", forks_by_signal},
	{"fork, faults by thread", forks_by_thread},
	{"a child makes a space of its own", child_makes_its_own},
	{"a child has a file where a region was", child_has_another_mapping},
	{"children are made while threads fault", children_beside_faults},
	{NULL, NULL},
};
