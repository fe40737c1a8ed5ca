/* SPDX-License-Identifier: Apache-2.0 */
/* Children: what they see is what was there at the fork, whatever either side does since. */
#include "torture.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_DEPTH 2u

extern char **environ;

static void ended(struct worker *w, pid_t pid, int status)
{
	if (WIFSIGNALED(status))
		fail(w, "child %d died by signal %d", (int)pid, WTERMSIG(status));
	if (WEXITSTATUS(status))
		fail(w, "child %d exited with %d", (int)pid, WEXITSTATUS(status));
}

static void await(struct worker *w, pid_t pid)
{
	int status;
	pid_t got;

	while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	must(w, got == pid, "waitpid");
	ended(w, pid, status);
}

void reap(struct worker *w, bool wait)
{
	for (unsigned i = 0; i < MAX_CHILDREN; i++) {
		int status;

		if (!w->child[i])
			continue;
		if (wait) {
			await(w, w->child[i]);
			w->child[i] = 0;
		} else if (waitpid(w->child[i], &status, WNOHANG) == w->child[i]) {
			ended(w, w->child[i], status);
			w->child[i] = 0;
		}
	}
}

static __attribute__((noreturn)) void exec_self(struct worker *w)
{
	char seed[24];
	char *argv[] = {opt.self, "--seed", seed, "--ops",     "40",         "--threads",
			"1",      "--mib",  "4",  "--without", "fork,spawn", NULL};

	snprintf(seed, sizeof(seed), "%u", below(w, 1000000));
	execv(opt.self, argv);
	fail(w, "exec: %s", strerror(errno));
}

/* In the child: its own copy, checked, changed and checked again. No other worker's ranges mean anything here. */
static __attribute__((noreturn)) void child(struct worker *w)
{
	heap_fork_child();
	io_fork_child();
	w->depth++;
	memset(w->child, 0, sizeof(w->child));
	switch (below(w, 8)) {
	case 0:
		_exit(0);
	case 1:
		exec_self(w);
	case 2:
		op_close(w);
		break;
	case 3:
		for (unsigned i = 0; i < 4; i++)
			op_map(w);
		break;
	case 4:
		for (unsigned i = 0; i < 4; i++)
			op_mremap(w);
		break;
	case 5:
		op_madvise(w);
		break;
	default:
		break;
	}
	check_all(w);
	for (unsigned i = 0; i < 16; i++)
		op_touch(w);
	if (w->depth < MAX_DEPTH && below(w, 2)) {
		op_fork(w);
		op_touch(w);
		reap(w, true);
	}
	check_all(w);
	_exit(0);
}

void op_fork(struct worker *w)
{
	unsigned i = below(w, MAX_CHILDREN);

	if (w->child[i]) {
		await(w, w->child[i]);
		w->child[i] = 0;
	}
	io_lock(); /* a child must not be born with a lock that somebody else holds */
	pid_t pid = fork();

	if (pid == 0)
		child(w);
	io_unlock();
	must(w, pid > 0, "fork");
	w->child[i] = pid;
	rnd(&w->rng);
	op_touch(w);
}

void op_spawn(struct worker *w)
{
	char *argv[] = {"/bin/true", NULL};
	pid_t pid;

	if (below(w, 2)) {
		must(w, posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) == 0, "posix_spawn");
	} else {
		pid = vfork();
		if (pid == 0) {
			execv(argv[0], argv);
			_exit(127);
		}
		must(w, pid > 0, "vfork");
	}
	op_touch(w);
	await(w, pid);
}

/* Ranges that a child shall not get, or shall get empty. */
void op_advice(struct worker *w)
{
	size_t bytes = 4u << 20;
	char *wiped = map_anywhere(w, bytes), *withheld = map_anywhere(w, bytes);
	uint64_t key = new_key(w);

	must(w, madvise(wiped, bytes, MADV_WIPEONFORK) == 0, "madvise wipeonfork");
	must(w, madvise(withheld, bytes, MADV_DONTFORK) == 0, "madvise dontfork");
	for (size_t i = 0; i < bytes; i += PAGE) {
		fill(wiped + i, key + i * 4);
		fill(withheld + i, key + i * 4);
	}
	for (unsigned i = 0; i < 16; i++)
		op_touch(w);
	io_lock();
	pid_t pid = fork();

	if (pid == 0) {
		w->depth++;
		for (size_t i = 0; i < bytes; i += PAGE)
			check(w, wiped + i, 0);
		fill(wiped, key);
		check(w, wiped, key);
		check_all(w);
		_exit(0);
	}
	io_unlock();
	must(w, pid > 0, "fork");
	for (size_t i = 0; i < bytes; i += PAGE) {
		check(w, wiped + i, key + i * 4);
		check(w, withheld + i, key + i * 4);
	}
	await(w, pid);
	must(w, munmap(wiped, bytes) == 0 && munmap(withheld, bytes) == 0, "munmap");
}
