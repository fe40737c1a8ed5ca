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
 * nobody's to the handler that was there before. That may be one of the program's that stayed when the last space went,
 * and that passes on to ours what it does not know itself: who has been asked once is not asked again (MARK).
 */
#include "host/library/library.h"

#include <errno.h>
#include <string.h>
#include <ucontext.h>

#define PAGE_FAULT_WRITE 2 /* x86: of the error code */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned users; /* spaces that need the handler; under lock */
static struct sigaction before;
static struct sigaction root; /* who was there before the first that asks ours; as `before` where there is none */
static bool under;            /* ours was left under one of the program's */

/* The end of what a handler is told, which the kernel clears: it goes from handler to handler, and ends with them. */
#define MARK(info) ((uintptr_t *)((char *)(info) + sizeof(siginfo_t)) - 1)

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
	if (to->sa_flags & SA_SIGINFO) {
		to->sa_sigaction(sig, info, ucontext);
	} else if (to->sa_handler != SIG_DFL && to->sa_handler != SIG_IGN) {
		to->sa_handler(sig);
	} else if (to->sa_handler == SIG_DFL || info->si_code > 0) {
		/* A fault repeats itself when this returns; one that was sent is sent again. */
		signal(sig, SIG_DFL);
		if (info->si_code <= 0)
			raise(sig);
	}
}

static void on_sigbus(int sig, siginfo_t *info, void *ucontext)
{
	int saved = errno;

	if (!spw_fault(sig, info, ucontext)) {
		bool again = *MARK(info) == (uintptr_t)&root;

		*MARK(info) = (uintptr_t)&root;
		pass_on(again ? &root : &before, sig, info, ucontext);
	}
	errno = saved;
}

static bool is_ours(const struct sigaction *a)
{
	return a->sa_flags & SA_SIGINFO && a->sa_sigaction == on_sigbus;
}

/* Who is there, is asked by ours from now on, which is about to be put over him. */
static void note_before(const struct sigaction *was)
{
	/* Who put his own over ours has taken it away again. */
	if (is_ours(was))
		return;
	before = *was;
	if (!under)
		root = *was;
}

int spw__signal_install(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART}, was;
	int ret = 0;

	sigfillset(&sa.sa_mask);
	pthread_mutex_lock(&lock);
	/* Put in place only when it is known who was there. */
	if (users == 0 && (sigaction(SIGBUS, NULL, &was) || (note_before(&was), sigaction(SIGBUS, &sa, NULL))))
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
		/* Somebody else's may know of ours, which passes everything on from now on. */
		if (is_ours(&now))
			sigaction(SIGBUS, &before, NULL);
		else
			under = true;
	}
	pthread_mutex_unlock(&lock);
}
