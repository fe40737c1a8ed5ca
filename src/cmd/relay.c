/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who sends `spillway run` a signal means the program. But the program is in the same process group, and what is sent
 * to the group has reached it already: passed on, one ^C would interrupt it, and then the handler in which it tidies
 * up. Nothing tells that a signal was sent to a group. What is known is who sent it:
 *
 * - A terminal signals groups only.
 * - The tree below signals its group ("kill 0" at the end of a script), or, as $PPID, who has started the program. It
 *   is this process's in neither case to send it back.
 * - All others may have meant this process or the group. To lose a signal is worse than to deliver it twice.
 */
#include "cmd/relay.h"

#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#include "cmd/procfs.h"

/* The kernel's other signals are about this process: its timers, its limits. */
static bool is_terminals(const struct signalfd_siginfo *info)
{
	if (info->ssi_code != SI_KERNEL)
		return false;
	switch (info->ssi_signo) {
	case SIGINT:
	case SIGQUIT:
	case SIGTSTP:
	case SIGTTIN:
	case SIGTTOU:
	case SIGHUP:
	case SIGCONT:
	case SIGWINCH:
		return true;
	default:
		return false;
	}
}

/* Has the program left this process's group, but not its terminal? Then what the group got was for it too. */
static bool is_apart(pid_t program)
{
	return getpgid(program) != getpgrp() && getsid(program) == getsid(0);
}

/* Is the process this one, or below it? */
static bool is_of_tree(pid_t pid)
{
	struct spw_stat st;

	while (pid > 1 && pid != getpid()) {
		if (spw__proc_stat(pid, &st))
			return false;
		pid = st.parent;
	}
	return pid == getpid();
}

void spw__relay(pid_t program, const struct signalfd_siginfo *info)
{
	bool passed;

	if (info->ssi_signo == SIGCHLD)
		return;
	if (is_terminals(info))
		passed = is_apart(program);
	else if (info->ssi_code == SI_KERNEL)
		passed = info->ssi_signo == SIGALRM; /* alarm(2) outlives exec(2), and was set for the program */
	else
		passed = !is_of_tree((pid_t)info->ssi_pid);
	if (passed)
		kill(program, (int)info->ssi_signo);
}
