/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_THREAD_H
#define SPW_PROCESS_THREAD_H
/* Threads and words to stderr that owe nothing to libc. See thread.c. */
#include "host/lock.h"

#include <stddef.h>

/*
 * Start fn(arg) on a new thread with all signals blocked. own_files: the thread gets a table of open files of its own,
 * emptied at once; otherwise it shares its creator's. The thread ends when fn returns. Thread id or -errno.
 */
int spw__thread_start(int (*fn)(void *), void *arg, int own_files);

/* In a forked child: give back the stacks of the parent's threads. */
void spw__threads_forget(void);

/*
 * One line on stderr, prefixed "spillway: ". %s, %u (uint64_t), %x (uint64_t) only. Once spw__say_through() has named
 * the control region, `spillway run` says it: the agent's threads have no stderr of their own, and a file opened anew
 * has a position of its own, from which the program's output would be overwritten, and the line by that.
 */
struct spw_ctl;
void spw__say_through(struct spw_ctl *c);
void spw__say(const char *fmt, ...);
#endif
