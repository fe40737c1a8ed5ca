/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults on the thread that faults.
 *
 * The kernel turns the fault on a missing or write-protected page of a region into SIGBUS, whose handler puts the page
 * there and returns: no other thread is woken, and no privilege is asked for. What the handler may rely on is little.
 * It interrupts any code, so it takes no lock that anybody holds with signals open, and calls no malloc. The stack it
 * finds may be a few hundred bytes (sigaltstack), so it leaves that for one of the space's. All signals are blocked
 * while it runs: another handler on top of it might touch the page that it has locked.
 *
 * A handler is the process's and not a space's; it looks the address up, and passes on what is nobody's to the handler
 * that was there before. One of the program's may be on top of it when the last space goes, and may go on to ask it for
 * ever; when the next space comes ours has to be on top of that one. So it is several functions, each with a handler
 * below it that never changes: whoever asks one of them comes to what was there when it was installed.
 */
#include "host/library/library.h"

#include <errno.h>
#include <string.h>
#include <ucontext.h>

#define PAGE_FAULT_WRITE 2 /* x86: of the error code */

#define FLOORS 8u /* one for each handler of the program's that ours was ever put over */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned users;                  /* spaces that need the handler; under lock */
static unsigned floors;                 /* that have been used; under lock */
static struct sigaction before[FLOORS]; /* the handler below each; written before it is installed */

struct fault {
	struct spw_region *r;
	struct spw__seat *seat;
	uint64_t va;
	bool write;
};

static void serve(void *fault)
{
	struct fault *f = fault;

	spw__lib_fault(f->r, f->seat, f->va, f->write);
}

/* Call fn(arg) on the stack that ends at `end`. */
static void call_on(void *end, void (*fn)(void *), void *arg)
{
	__asm__ volatile("movq %%rsp, %%rbx\n\t"
			 "movq %[end], %%rsp\n\t"
			 "callq *%[fn]\n\t"
			 "movq %%rbx, %%rsp"
			 : "+D"(arg)
			 : [end] "r"(end), [fn] "r"(fn)
			 : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc", "xmm0", "xmm1",
			   "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
			   "xmm13", "xmm14", "xmm15");
}

int spw_fault(int sig, void *siginfo, void *ucontext)
{
	const siginfo_t *info = siginfo;
	const ucontext_t *uc = ucontext;
	struct fault f = {.va = (uintptr_t)info->si_addr & ~(uint64_t)(SPW_PAGE - 1)};

	/* Sent by kill(2), it has no address. */
	if (sig != SIGBUS || info->si_code != BUS_ADRERR)
		return 0;
	f.r = spw__region_at(f.va);
	if (!f.r)
		return 0;
	struct spw_space *s = f.r->space;

	f.write = uc->uc_mcontext.gregs[REG_ERR] & PAGE_FAULT_WRITE;
	f.seat = spw__seat_take(s);
	spw__enter(s);
	call_on(f.seat->stack, serve, &f);
	spw__leave(s);
	spw__seat_give(s, f.seat);
	return 1;
}

/* The one that was there before has it; if that was the default, the program ends as it would have. */
static void pass_on(const struct sigaction *to, int sig, siginfo_t *info, void *ucontext)
{
	/* A fault happens anew when this returns, and cannot be ignored. What was sent, or only told of, can. */
	bool anew = info->si_code > 0 && info->si_code != BUS_MCEERR_AO;

	if (to->sa_flags & SA_SIGINFO) {
		to->sa_sigaction(sig, info, ucontext);
	} else if (to->sa_handler != SIG_DFL && to->sa_handler != SIG_IGN) {
		to->sa_handler(sig);
	} else if (to->sa_handler == SIG_DFL || anew) {
		signal(sig, SIG_DFL);
		if (!anew)
			raise(sig);
	}
}

static void on_sigbus(unsigned floor, int sig, siginfo_t *info, void *ucontext)
{
	int saved = errno;

	if (!spw_fault(sig, info, ucontext))
		pass_on(&before[floor], sig, info, ucontext);
	errno = saved;
}

#define HANDLER(floor)                                                          \
	static void on_sigbus_##floor(int sig, siginfo_t *info, void *ucontext) \
	{                                                                       \
		on_sigbus(floor, sig, info, ucontext);                          \
	}
HANDLER(0)
HANDLER(1)
HANDLER(2)
HANDLER(3)
HANDLER(4)
HANDLER(5)
HANDLER(6)
HANDLER(7)

static void (*const handlers[FLOORS])(int, siginfo_t *, void *) = {on_sigbus_0, on_sigbus_1, on_sigbus_2, on_sigbus_3,
								   on_sigbus_4, on_sigbus_5, on_sigbus_6, on_sigbus_7};

/* Which of ours it is; FLOORS: none. */
static unsigned floor_of(const struct sigaction *a)
{
	unsigned i = 0;

	while (i < FLOORS && !(a->sa_flags & SA_SIGINFO && a->sa_sigaction == handlers[i]))
		i++;
	return i;
}

/* Which of ours can be put over it: that which was before, or one that never was. FLOORS: none is left. */
static unsigned floor_over(const struct sigaction *a)
{
	unsigned i = 0;

	while (i < floors && !(before[i].sa_sigaction == a->sa_sigaction && before[i].sa_flags == a->sa_flags))
		i++;
	if (i == floors && i < FLOORS)
		before[floors++] = *a;
	return i;
}

static int install(void)
{
	struct sigaction sa = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART}, was;

	if (sigaction(SIGBUS, NULL, &was))
		return -errno;
	/* Who had put his own over ours has taken it away again. */
	if (floor_of(&was) < FLOORS)
		return 0;
	unsigned floor = floor_over(&was);

	if (floor == FLOORS)
		return -ENOMEM;
	sigfillset(&sa.sa_mask);
	sa.sa_sigaction = handlers[floor];
	return sigaction(SIGBUS, &sa, NULL) ? -errno : 0;
}

int spw__signal_install(void)
{
	pthread_mutex_lock(&lock);
	int ret = users ? 0 : install();

	users += ret == 0;
	pthread_mutex_unlock(&lock);
	return ret;
}

void spw__signal_remove(void)
{
	struct sigaction now;

	pthread_mutex_lock(&lock);
	/* Somebody else's may know of ours, which passes everything on from now on. */
	if (--users == 0 && !sigaction(SIGBUS, NULL, &now) && floor_of(&now) < FLOORS)
		sigaction(SIGBUS, &before[floor_of(&now)], NULL);
	pthread_mutex_unlock(&lock);
}
