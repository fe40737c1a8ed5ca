/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request to a running `spillway run`, and its answers; and `spillway list`, `set` and `swapoff`, which make one
 * each. The run is found by its pid; its socket has no name (serve.c) and is reached through the run's own descriptor.
 */
#include "cmd/ask.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmd/handover.h"
#include "cmd/help.h"
#include "cmd/options.h"
#include "cmd/say.h"
#include "cmd/serve.h"

static const struct timeval patience = {.tv_sec = 5};

/* The number, in that process, of the socket's descriptor. -ENOENT: it has none; else -errno. */
static int find_socket(pid_t pid)
{
	char folder[64], path[PATH_MAX], target[PATH_MAX];
	int found = -ENOENT;

	snprintf(folder, sizeof(folder), "/proc/%d/fd", pid);
	DIR *d = opendir(folder);
	if (!d)
		return -errno;
	for (const struct dirent *e; found < 0 && (e = readdir(d));) {
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		ssize_t n = readlink(path, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		if (strstr(target, "/" SPW_SERVE_NAME))
			found = atoi(e->d_name);
	}
	closedir(d);
	return found;
}

int spw__ask_connect(pid_t pid)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int n = find_socket(pid);

	if (n < 0)
		return n;
	snprintf(un.sun_path, sizeof(un.sun_path), "/proc/%d/fd/%d", pid, n);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd >= 0) { /* a run that is stopped does not answer */
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	}
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&un, sizeof(un)))
		return fd;
	int err = errno;
	if (fd >= 0)
		close(fd);
	return -err;
}

int spw__ask_open(const char *text, int *fd)
{
	char *end;
	long pid = text ? strtol(text, &end, 10) : 0;

	if (!text || !isdigit((unsigned char)*text) || *end || pid < 1 || pid > INT_MAX)
		return spw__fail("%s: not a pid; `spillway list` shows the runs there are", text ? text : "PID");
	*fd = spw__ask_connect((pid_t)pid);
	if (*fd >= 0)
		return 0;
	if (*fd == -EACCES || *fd == -EPERM)
		return spw__fail("%ld: another user's process; only its user and root may ask it", pid);
	if (kill((pid_t)pid, 0) && errno == ESRCH)
		return spw__fail("%ld: no such process; `spillway list` shows the runs there are", pid);
	return spw__fail("%ld: not a spillway run; `spillway list` shows them", pid);
}

/* The next answer, or NULL: the run has ended. */
static json_t *next_answer(int fd)
{
	static char text[1u << 16];
	errno = 0;
	ssize_t n = recv(fd, text, sizeof(text), 0);

	return n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
}

/* Progress on a terminal, on one line. */
static void show_progress(const json_t *a, const char *what)
{
	if (!isatty(STDERR_FILENO))
		return;
	long long left = json_integer_value(json_object_get(a, "pages")),
		  of = json_integer_value(json_object_get(a, "of"));
	fprintf(stderr, "\r%s: %lld of %lld pages left \033[K", what, left, of);
}

/*
 * Makes the request; takes it and the connection over. The last answer, or NULL: errno EAGAIN, the run does not answer;
 * anything else, it has ended.
 */
static json_t *last_answer(int fd, json_t *r, int with, const char *what)
{
	char *text = json_dumps(r, JSON_COMPACT);
	bool shown = false, sent = text && !spw__handover_send(fd, text, strlen(text), with);
	json_t *a = NULL;

	free(text);
	json_decref(r);
	while (sent && (a = next_answer(fd)) && !json_object_get(a, "ok") && !json_object_get(a, "error")) {
		show_progress(a, what);
		shown = isatty(STDERR_FILENO);
		json_decref(a);
	}
	int err = errno;
	close(fd);
	if (shown)
		fputs("\r\033[K", stderr);
	errno = err;
	return a;
}

/* What an answer says, or that there is none (errno: last_answer); takes it over. */
static int take_answer(json_t *a, const char *what, json_t **answer)
{
	if (!a)
		return spw__fail(errno == EAGAIN ? "%s: the run does not answer; is it stopped?"
						 : "%s: the run has ended",
				 what);
	const char *error = json_string_value(json_object_get(a, "error"));
	int failed = error ? spw__fail("%s", error) : 0;
	if (answer && !failed)
		*answer = a;
	else
		json_decref(a);
	return failed;
}

int spw__ask(int fd, json_t *r, int with, const char *what, json_t **answer)
{
	if (!r)
		return spw__fail("%s: not UTF-8, in which requests are made", what);
	return take_answer(last_answer(fd, r, with, what), what, answer);
}

int spw__swapoff(char **argv)
{
	char path[PATH_MAX], cwd[PATH_MAX], here[2 * PATH_MAX];
	int fd;

	if (spw__help_wanted(argv))
		return spw__help_swapon();
	if (!argv[0] || !argv[1] || argv[2])
		return spw__fail("say spillway swapoff PID TIER; `spillway list PID` names the tiers");
	int failed = spw__ask_open(argv[0], &fd);
	if (failed)
		return failed;
	/* A name as list shows it, or a path of here. */
	snprintf(here, sizeof(here), "%s/%s", getcwd(cwd, sizeof(cwd)) ? cwd : "", argv[1]);
	return spw__ask(fd,
			json_pack("{s:s, s:[s, s, s]}", "do", "swapoff", "tier", argv[1], here,
				  realpath(argv[1], path) ? path : argv[1]),
			-1, argv[1], NULL);
}

int spw__set(char **argv)
{
	const char *pid = argv[0], *size = NULL;
	uint64_t ram;
	int fd;

	if (spw__help_wanted(argv))
		return spw__help_swapon();
	if (pid && argv[1] && !strncmp(argv[1], "--ram=", 6) && !argv[2])
		size = argv[1] + 6;
	else if (pid && argv[1] && !strcmp(argv[1], "--ram") && argv[2] && !argv[3])
		size = argv[2];
	if (!size)
		return spw__fail("say spillway set PID --ram SIZE");
	if (spw__size_parse(size, &ram) || !ram || ram > INT64_MAX)
		return spw__fail("--ram %s: not a size; say for instance --ram 512M or --ram 2G", size);
	int failed = spw__ask_open(pid, &fd);
	return failed ? failed
		      : spw__ask(fd, json_pack("{s:s, s:I}", "do", "set", "ram", (json_int_t)ram), -1, pid, NULL);
}

static const char *size_of(const json_t *o, const char *key, char text[32])
{
	return spw__size_text((uint64_t)json_integer_value(json_object_get(o, key)), text);
}

static void print_run(const json_t *run)
{
	char a[32], b[32], c[32];

	printf("%-9lld %-12s %-12s %-12s %-10lld %s\n", json_integer_value(json_object_get(run, "pid")),
	       size_of(run, "ram_limit_bytes", a), size_of(run, "resident_bytes", b),
	       spw__size_text((uint64_t)json_integer_value(json_object_get(run, "swapped_pages")) * SPW_PAGE, c),
	       json_integer_value(json_object_get(run, "processes")),
	       json_string_value(json_object_get(run, "program")));
}

/* What is wrong with it: why it is dead, and which processes cannot open it. */
static void print_trouble(const json_t *tier)
{
	const json_t *list = json_object_get(tier, "unopened"), *u;
	const char *name = json_string_value(json_object_get(tier, "name"));
	long long more =
		json_integer_value(json_object_get(tier, "unopened_processes")) - (long long)json_array_size(list);
	const char *error = json_string_value(json_object_get(tier, "error"));
	size_t i;

	if (error)
		printf("\n%s: dead (%s), %lld pages on it cannot be read\n", name, error,
		       json_integer_value(json_object_get(tier, "unreadable_pages")));
	json_array_foreach(list, i, u)
		printf("\n%s: %s (pid %lld) cannot open it: %s", name, json_string_value(json_object_get(u, "name")),
		       json_integer_value(json_object_get(u, "pid")), json_string_value(json_object_get(u, "error")));
	if (more > 0)
		printf("\n%s: and %lld more", name, more);
	if (json_array_size(list))
		putchar('\n');
}

static void print_tiers(const json_t *run)
{
	const json_t *t;
	char a[32], b[32];
	size_t i;

	printf("\n%-6s %-9s %-8s %-12s %-12s %-10s %s\n", "KIND", "PRIORITY", "STATE", "CAPACITY", "USED", "PAGES",
	       "NAME");
	json_array_foreach(json_object_get(run, "tiers"), i, t) printf(
		"%-6s %-9lld %-8s %-12s %-12s %-10lld %s\n", json_string_value(json_object_get(t, "kind")),
		json_integer_value(json_object_get(t, "priority")), json_string_value(json_object_get(t, "state")),
		size_of(t, "capacity_bytes", a), size_of(t, "used_bytes", b),
		json_integer_value(json_object_get(t, "pages")), json_string_value(json_object_get(t, "name")));
	json_array_foreach(json_object_get(run, "tiers"), i, t) print_trouble(t);
}

/* What the run says of itself, or NULL; that it has ended is said only if it was `asked_for`. */
static json_t *ask_one(int fd, const char *pid, bool asked_for)
{
	json_t *run = NULL, *a = last_answer(fd, json_pack("{s:s}", "do", "list"), -1, pid);

	if (!a && errno != EAGAIN && !asked_for)
		return NULL;
	if (take_answer(a, pid, &run))
		return NULL;
	/* In a pid namespace it knows itself by another. */
	json_object_set_new(run, "pid", json_integer(atoi(pid)));
	return run;
}

/* Every run that this user may ask. Runs end while this looks: those are not listed, as if it had looked later. */
static json_t *ask_all(void)
{
	json_t *all = json_array();
	DIR *d = opendir("/proc");

	for (const struct dirent *e; d && (e = readdir(d));) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		int fd = spw__ask_connect((pid_t)atoi(e->d_name));
		json_t *run = fd >= 0 ? ask_one(fd, e->d_name, false) : NULL;
		if (run)
			json_array_append_new(all, run);
	}
	if (d)
		closedir(d);
	return all;
}

int spw__list(char **argv)
{
	bool json = false;
	const char *pid = NULL;
	int fd;

	if (spw__help_wanted(argv))
		return spw__help_swapon();
	for (; *argv; argv++) {
		if (!strcmp(*argv, "--json"))
			json = true;
		else if (pid || **argv == '-')
			return spw__fail("%s: say spillway list [--json] [PID]", *argv);
		else
			pid = *argv;
	}
	if (pid && spw__ask_open(pid, &fd))
		return SPW_EXIT_FAILED;
	json_t *found = pid ? ask_one(fd, pid, true) : ask_all();
	if (!found)
		return SPW_EXIT_FAILED;
	if (json) {
		json_dumpf(found, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		const json_t *run;
		size_t i;

		printf("%-9s %-12s %-12s %-12s %-10s %s\n", "PID", "RAM", "RESIDENT", "OUT", "PROCESSES", "PROGRAM");
		if (pid) {
			print_run(found);
			print_tiers(found);
		} else {
			json_array_foreach(found, i, run) print_run(run);
		}
	}
	json_decref(found);
	return 0;
}
