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
 * A handler is the process's and not a space's; there is one for all, which looks the address up, and passes on what is
 * nobody's to the handler that was there before.
 */
#include "host/library/library.h"

#include <errno.h>
#include <string.h>
#include <ucontext.h>

#define PAGE_FAULT_WRITE 2 /* x86: of the error code */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned users; /* spaces that need the handler; under lock */
static struct sigaction before;
static struct sigaction above; /* of the program, in the place of ours when the last space went; else empty */

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
static void pass_on(int sig, siginfo_t *info, void *ucontext)
{
	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(sig, info, ucontext);
	} else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
		before.sa_handler(sig);
	} else if (before.sa_handler == SIG_DFL || info->si_code > 0) {
		/* A fault repeats itself when this returns; one that was sent is sent again. */
		signal(sig, SIG_DFL);
		if (info->si_code <= 0)
			raise(sig);
	}
}

static void on_sigbus(int sig, siginfo_t *info, void *ucontext)
{
	int saved = errno;

	if (!spw_fault(sig, info, ucontext))
		pass_on(sig, info, ucontext);
	errno = saved;
}

/* Never of the default action, which asks nobody. */
static bool same_handler(const struct sigaction *a, const struct sigaction *b)
{
	return a->sa_handler != SIG_DFL && a->sa_handler == b->sa_handler;
}

int spw__signal_install(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART}, was;
	int ret = 0;

	sigfillset(&sa.sa_mask);
	pthread_mutex_lock(&lock);
	if (users == 0 && sigaction(SIGBUS, NULL, &was))
		ret = -errno;
	/*
	 * Put in place only when it is known who was there; and not over one who asks ours, as he did for the spaces
	 * that were: he would be asked in turn, without end.
	 */
	else if (users == 0 && !same_handler(&was, &above) && (before = was, sigaction(SIGBUS, &sa, NULL)))
		ret = -errno;
	users += ret == 0;
	pthread_mutex_unlock(&lock);
	return ret;
}

void spw__signal_remove(void)
{
	struct sigaction now;

	pthread_mutex_lock(&lock);
	if (--users == 0 && !sigaction(SIGBUS, NULL, &now)) {
		bool ours = now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_sigbus;

		/* Somebody else's knows of ours, which passes everything on from now on. */
		above = ours ? (struct sigaction){0} : now;
		if (ours)
			sigaction(SIGBUS, &before, NULL);
	}
	pthread_mutex_unlock(&lock);
}
