/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `spillway swapon`: a file system that does not answer (NFS without its server, FUSE) holds whoever opens a file
 * there. Were that the supervisor, its whole tree would go unaccounted for. So the file is opened and looked into here,
 * and its descriptor handed over (handover.c).
 *
 * Not even here is it enough to open: what a FUSE server has begun to answer cannot be interrupted. So a child does it.
 * Ctrl-C ends both; this process at once, and the child when its file system lets it go.
 *
 * The run is asked first whether it would take such a tier, for opening can write: an empty file gets a header.
 */
#include "cmd/swapon.h"

#include <errno.h>
#include <grp.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/ask.h"
#include "cmd/handover.h"
#include "cmd/help.h"
#include "cmd/options.h"
#include "cmd/say.h"
#include "cmd/serve.h"

/* Whose the run is; of interest to root alone. */
struct user {
	struct ucred id;
	gid_t group[1024];
	size_t groups;
};

static int user_of(int run, struct user *u)
{
	socklen_t id = sizeof(u->id), groups = sizeof(u->group);

	if (geteuid())
		return 0;
	if (getsockopt(run, SOL_SOCKET, SO_PEERCRED, &u->id, &id) ||
	    getsockopt(run, SOL_SOCKET, SO_PEERGROUPS, u->group, &groups))
		return spw__fail("cannot tell whose the run is: %s", strerror(errno));
	u->groups = groups / sizeof(*u->group);
	return 0;
}

/* The run's processes will open the file again, by its descriptor: root must not give them what they may not open. */
static int become(const struct user *u)
{
	if (geteuid() || !u->id.uid)
		return 0;
	if (setgroups(u->groups, u->group) || setresgid(u->id.gid, u->id.gid, u->id.gid) ||
	    setresuid(u->id.uid, u->id.uid, u->id.uid))
		return spw__fail("cannot open it as the run's user: %s", strerror(errno));
	return 0;
}

/* "KIND:PATH" with the path made absolute: that is its name in the run. */
static int absolute(const char *swap, char *out, size_t room)
{
	const char *path = strchr(swap, ':'), *keys = strchr(swap, ',');
	int kind = path ? (int)(path + 1 - swap) : 0;

	if (!path || (keys && keys < path))
		return snprintf(out, room, "%s", swap) < (int)room ? 0 : spw__fail("%s: too long", swap);
	if (snprintf(out, room, "%.*s", kind, swap) >= (int)room)
		return spw__fail("%s: too long", swap);
	return spw__swapfile_absolute(path + 1, out + kind, room - (size_t)kind);
}

/* The request for a file that is open. */
static int send_request(int to, const char *swap, const struct spw_swapfile *f)
{
	json_t *r = json_pack("{s:s, s:s, s:o}", "do", "swapon", "swap", swap, "file", spw__handover_facts(f));
	char *text = r ? json_dumps(r, JSON_COMPACT) : NULL;
	int err = text ? spw__handover_send(to, text, strlen(text), f->fd) : -ENOMEM;

	return err ? spw__fail("%s: %s", swap, strerror(-err)) : 0;
}

static void __attribute__((noreturn))
child(const struct spw_swap *parsed, const char *swap, const struct user *u, pid_t parent, int to)
{
	struct spw_swapfile file;
	int failed = become(u);

	/* After that: another user's processes lose it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!failed && getppid() == parent)
		failed = spw__swapfile_open(parsed, false, &file) || send_request(to, swap, &file);
	_exit(failed ? SPW_EXIT_FAILED : 0);
}

/* Have the file opened: the request with its facts, and its descriptor. 0, or SPW_EXIT_FAILED with the line said. */
static int open_file(const struct spw_swap *parsed, const char *swap, const struct user *u, json_t **request, int *fd)
{
	static char text[SPW_SERVE_BYTES];
	pid_t parent = getpid();
	int pair[2], status = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return spw__fail("%s: %s", swap, strerror(errno));
	pid_t pid = fork();
	if (!pid)
		child(parsed, swap, u, parent, pair[1]);
	close(pair[1]);
	ssize_t got = pid > 0 ? spw__handover_recv(pair[0], text, sizeof(text), 0, fd) : -1;
	close(pair[0]);
	if (pid < 0)
		return spw__fail("%s: %s", swap, strerror(errno));
	waitpid(pid, &status, 0);
	*request = got > 0 ? json_loadb(text, (size_t)got, 0, NULL) : NULL;
	if (*request)
		return 0;
	return WIFEXITED(status) ? SPW_EXIT_FAILED : spw__fail("%s: what opens it was killed", swap);
}

int spw__swapon(char **argv)
{
	char swap[SPW_SERVE_BYTES / 2], copy[sizeof(swap)];
	struct spw_swap parsed;
	struct user user;
	json_t *r;
	int run, fd;

	if (spw__help_wanted(argv))
		return spw__help_swapon();
	if (!argv[0] || !argv[1] || argv[2])
		return spw__fail("say spillway swapon PID KIND[:PATH][,key=value...]; see spillway swapon --help");
	int failed = absolute(argv[1], swap, sizeof(swap));
	if (failed)
		return failed;
	memcpy(copy, swap, sizeof(copy));
	failed = spw__swap_parse(copy, &parsed);
	if (!failed)
		failed = spw__ask_open(argv[0], &run);
	if (!failed)
		failed = user_of(run, &user);
	if (!failed)
		failed = spw__ask(run, json_pack("{s:s, s:s}", "do", "offer", "swap", swap), -1, argv[1], NULL);
	if (!failed)
		failed = open_file(&parsed, swap, &user, &r, &fd);
	if (!failed)
		failed = spw__ask_open(argv[0], &run);
	return failed ? failed : spw__ask(run, r, fd, argv[1], NULL);
}
