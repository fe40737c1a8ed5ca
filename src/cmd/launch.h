/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_LAUNCH_H
#define SPW_CMD_LAUNCH_H
/* Starting the program with the agent in it. */
#include <limits.h>
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

/* Find PROGRAM. 0, or the exit status of this command, with the one line said. */
int spw__launch_find(const char *name, char path[PATH_MAX]);
/* Can it be capped? 0, or as above. */
int spw__launch_check(const char *name, const char *path);
/* Become it, in the environment there is; a script without #! by the shell. -errno. */
int spw__launch_exec(const char *path, char **argv);

/* The pid, or -status when it did not come to run: the exit status of this command, with the one line said. */
pid_t spw__launch(const struct spw_launch *l);

#endif
