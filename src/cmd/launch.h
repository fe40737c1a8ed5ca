/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_LAUNCH_H
#define SPW_CMD_LAUNCH_H
/* Starting the program with the agent in it. */
#include <signal.h>
#include <sys/types.h>

struct spw_launch {
	const char *path; /* of the executable, found already */
	char **argv;
	const char *agent; /* NULL: none is to be had (--best-effort) */
	int control_fd;
	sigset_t mask;         /* the signal mask to give it */
	struct sigaction chld; /* and its SIGCHLD */
};

/* The pid, or -status when it did not come to run: the exit status of this command, with the one line said. */
pid_t spw__launch(const struct spw_launch *l);

#endif
