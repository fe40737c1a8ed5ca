/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program gets what it would have had without this command: its signal mask and dispositions, its descriptors and
 * environment, two variables apart. Whether it came to run is known only to the child, after the point where it could
 * tell by an exit status of its own; a pipe that exec closes tells it: end of file is success.
 */
#include "cmd/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/program.h"
#include "cmd/say.h"
#include "host/control.h"

/* The environment with the agent in LD_PRELOAD, in front of what is there. Exits with the process. */
static int prepare_environment(const struct spw_launch *l)
{
	const char *preloaded = getenv("LD_PRELOAD");
	char *preload, control[64];

	if (!l->agent)
		return 0;
	snprintf(control, sizeof(control), "/proc/%d/fd/%d", getpid(), l->control_fd);
	if (asprintf(&preload, "%s%s%s", l->agent, preloaded && *preloaded ? ":" : "", preloaded ? preloaded : "") < 0)
		return -ENOMEM;
	int err = setenv("LD_PRELOAD", preload, 1) || setenv(SPW_CTL_ENV, control, 1) ? -errno : 0;
	free(preload);
	return err;
}

int spw__launch_find(const char *name, char path[PATH_MAX])
{
	int err = spw__program_find(name, path);

	if (!err)
		return 0;
	spw__say("%s: %s", name, err == -ENOENT ? "not found" : strerror(-err));
	return err == -ENOENT ? SPW_EXIT_NOT_FOUND : SPW_EXIT_NOT_EXECUTABLE;
}

int spw__launch_check(const char *name, const char *path)
{
	char why[1024];
	int verdict = spw__program_check(path, why, sizeof(why));

	if (verdict == -ENOENT) {
		spw__say("%s: interpreter not found: %s", name, why);
		return SPW_EXIT_NOT_FOUND;
	}
	return verdict ? spw__fail("%s; or say --best-effort to run it without the cap", why) : 0;
}

/* What execvp(3) does. */
static void exec_shell(const char *path, char **given)
{
	unsigned n = 0;

	while (given[n])
		n++;
	char *argv[n + 2];
	argv[0] = "/bin/sh";
	argv[1] = (char *)path;
	memcpy(argv + 2, given + 1, n * sizeof(argv[0])); /* the NULL too */
	execv(argv[0], argv);
}

int spw__launch_exec(const char *path, char **argv)
{
	execv(path, argv);
	if (errno == ENOEXEC)
		exec_shell(path, argv);
	return -errno;
}

static void __attribute__((noreturn)) child(const struct spw_launch *l, pid_t parent, int report)
{
	/* However spillway ends, the program does not go on without its cap. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(SPW_EXIT_FAILED);
	sigaction(SIGCHLD, &l->chld, NULL);
	sigprocmask(SIG_SETMASK, &l->mask, NULL);

	int err = -spw__launch_exec(l->path, l->argv);
	if (write(report, &err, sizeof(err)) != sizeof(err))
		_exit(SPW_EXIT_FAILED);
	_exit(SPW_EXIT_NOT_EXECUTABLE);
}

pid_t spw__launch(const struct spw_launch *l)
{
	int report[2], err = prepare_environment(l);
	pid_t parent = getpid();

	if (err || pipe2(report, O_CLOEXEC))
		return -spw__fail("cannot start %s: %s", l->argv[0], strerror(err ? -err : errno));
	pid_t pid = fork();
	if (!pid)
		child(l, parent, report[1]);
	close(report[1]);
	if (pid < 0) {
		close(report[0]);
		return -spw__fail("cannot start %s: %s", l->argv[0], strerror(errno));
	}
	ssize_t got;
	do {
		got = read(report[0], &err, sizeof(err));
	} while (got < 0 && errno == EINTR);
	close(report[0]);
	if (got == 0)
		return pid;
	waitpid(pid, NULL, 0);
	if (got != sizeof(err))
		return -spw__fail("cannot start %s", l->argv[0]);
	spw__say("%s: %s", l->argv[0], strerror(err));
	return err == ENOENT ? -SPW_EXIT_NOT_FOUND : -SPW_EXIT_NOT_EXECUTABLE;
}
