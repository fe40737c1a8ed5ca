/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's own threads.
 *
 * pthread_create() will not do: it calls the program's malloc, runs under locks that the program may hold, counts
 * the thread among the program's (pthread_exit in main would then never end the process) and delivers libc's internal
 * signals to it. So a thread is one clone(2): the program's memory, a stack and a thread-control block of our own, no
 * signals, and, for the first thread, a file table of its own. That table is what keeps the agent's descriptors out of
 * reach: a program that closes everything from 3 up (every daemon does) would otherwise close the userfaultfd, and the
 * kernel would answer the next fault with a page of zeros.
 *
 * The thread-control block: compiled code reads the stack protector's canary at %fs:0x28, and a few libc functions
 * would write errno at a negative offset from %fs. Both find room in the block; nothing else of it is used.
 */
#include "host/process/thread.h"
#include "host/control.h"
#include "host/text.h"
#include "platform/platform.h"
#include "platform/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#define STACK_BYTES (128u << 10)
#define TLS_BYTES   (64u << 10)
#define TCB_BYTES   (8u << 10)

#define MAX_THREADS 4u
#define TRIES       200u /* 1 ms apart */

static void *memory[MAX_THREADS]; /* stacks of the threads that run */
static unsigned threads;

struct start {
	int (*fn)(void *);
	void *arg;
	int own_files;
};

static __attribute__((noreturn)) void thread_main(struct start *s)
{
	int (*fn)(void *) = s->fn;
	void *arg = s->arg;

	if (s->own_files)
		spw__sys3(SYS_close_range, 0, ~0u, 0);
	fn(arg);
	spw__sys1(SYS_exit, 0);
	__builtin_unreachable();
}

/* clone(2) with a fresh stack: the child must not return through the parent's frame, hence assembly. */
static long clone_thread(unsigned long flags, void *stack, void *tls, struct start *s)
{
	long ret;
	register void *r8 __asm__("r8") = tls;
	register struct start *r12 __asm__("r12") = s;
	register void (*r13)(struct start *) __asm__("r13") = thread_main;
	register long r10 __asm__("r10") = 0;

	__asm__ volatile("syscall\n\t"
			 "testq %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xorl %%ebp, %%ebp\n\t"
			 "movq %%r12, %%rdi\n\t"
			 "callq *%%r13\n\t"
			 "hlt\n"
			 "1:"
			 : "=a"(ret)
			 : "0"((long)SYS_clone), "D"(flags), "S"(stack), "d"(0), "r"(r10), "r"(r8), "r"(r12), "r"(r13)
			 : "rcx", "r11", "memory");
	return ret;
}

int spw__thread_start(int (*fn)(void *), void *arg, int own_files)
{
	size_t bytes = STACK_BYTES + TLS_BYTES;
	char *base = threads < MAX_THREADS ? spw__plat_reserve(bytes) : NULL;

	if (!base)
		return -ENOMEM;
	memory[threads++] = base;
	char *tcb = base + bytes - TCB_BYTES;
	uint64_t canary;

	__asm__("movq %%fs:0x28, %0" : "=r"(canary));
	uint64_t self = (uintptr_t)tcb;

	memcpy(tcb, &self, sizeof(self));
	memcpy(tcb + 0x10, &self, sizeof(self));
	memcpy(tcb + 0x28, &canary, sizeof(canary));

	struct start *s = (struct start *)(base + STACK_BYTES - 256);

	*s = (struct start){.fn = fn, .arg = arg, .own_files = own_files};

	/* Signals are blocked around the clone, so that not one can reach the thread. */
	uint64_t all = ~0ull, old;
	unsigned long flags = CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS;

	if (!own_files)
		flags |= CLONE_FILES;
	spw__sys4(SYS_rt_sigprocmask, 0 /* SIG_BLOCK */, &all, &old, sizeof(all));
	long tid = clone_thread(flags, (char *)s - 64, tcb, s);

	/* The tree may be at its limit of threads just now; without this one the process would have no cap. */
	for (unsigned i = 0; tid == -EAGAIN && i < TRIES; i++) {
		struct timespec ms = {.tv_nsec = 1000000};

		spw__sys2(SYS_nanosleep, &ms, 0);
		tid = clone_thread(flags, (char *)s - 64, tcb, s);
	}
	spw__sys4(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, &old, 0, sizeof(old));
	if (tid < 0)
		spw__plat_release(memory[--threads], bytes);
	return (int)tid;
}

void spw__threads_forget(void)
{
	while (threads)
		spw__plat_release(memory[--threads], STACK_BYTES + TLS_BYTES);
}

static struct spw_ctl *say_to; /* NULL: nobody says it for us */

void spw__say_through(struct spw_ctl *c)
{
	say_to = c;
}

/* Leave the line to the supervisor. False: it will not come to it. */
static bool leave(const char *text, size_t n)
{
	if (!say_to || __atomic_load_n(&say_to->closing, __ATOMIC_ACQUIRE))
		return false;
	for (unsigned i = 0; i < SPW_CTL_LINES; i++) {
		struct spw_ctl_line *l = &say_to->line[i];
		uint32_t none = SPW_LINE_FREE;

		if (!__atomic_compare_exchange_n(&l->state, &none, SPW_LINE_TAKEN, false, __ATOMIC_ACQUIRE,
						 __ATOMIC_RELAXED))
			continue;
		memcpy(l->text, text, n);
		l->text[n] = 0;
		__atomic_store_n(&l->state, SPW_LINE_READY, __ATOMIC_RELEASE);
		return true;
	}
	return false;
}

void spw__say(const char *fmt, ...)
{
	char line[SPW_CTL_LINE - 1] = "spillway: ";
	size_t n = strlen(line), room = sizeof(line) - 1;
	va_list ap;

	va_start(ap, fmt);
	for (; *fmt && n < room; fmt++) {
		if (*fmt != '%') {
			line[n++] = *fmt;
			continue;
		}
		fmt++;
		if (*fmt == 's') {
			const char *s = va_arg(ap, const char *);

			while (*s && n < room)
				line[n++] = *s++;
		} else {
			n += spw__put_number(line + n, room - n, va_arg(ap, uint64_t), *fmt == 'x' ? 16 : 10);
		}
	}
	va_end(ap);
	line[n++] = '\n';
	if (leave(line, n))
		return;
	/* Opened for each line: a descriptor kept would hold the reader of a pipe that the program has closed. */
	int fd = spw__open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NOCTTY);

	if (fd < 0)
		return;
	spw__sys3(SYS_write, fd, line, n);
	spw__sys1(SYS_close, fd);
}
