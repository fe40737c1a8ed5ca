/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PLATFORM_SYS_H
#define SPW_PLATFORM_SYS_H
/*
 * System calls without libc. The agent's threads are not libc's threads: they have no errno of their own, and libc's
 * wrappers may be interposed by the program. So they enter the kernel directly; every result is a value or -errno.
 */
#include <sys/syscall.h>

#if !defined(__x86_64__)
#error "spillway's system call layer knows x86_64 only so far"
#endif

#ifdef __clang_analyzer__
/* It does not look into assembly, and would take for unset what the kernel fills. */
long spw__sys6(long nr, long a, long b, long c, long d, long e, long f);
#else
static inline long spw__sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#endif

#define spw__sys0(nr)                spw__sys6(nr, 0, 0, 0, 0, 0, 0)
#define spw__sys1(nr, a)             spw__sys6(nr, (long)(a), 0, 0, 0, 0, 0)
#define spw__sys2(nr, a, b)          spw__sys6(nr, (long)(a), (long)(b), 0, 0, 0, 0)
#define spw__sys3(nr, a, b, c)       spw__sys6(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define spw__sys4(nr, a, b, c, d)    spw__sys6(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define spw__sys5(nr, a, b, c, d, e) spw__sys6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

#endif
