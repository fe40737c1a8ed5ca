/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor reads /proc hundreds of times a second beside a program that it must not slow down: descriptors that
 * are read again and again stay open, everything is parsed from one read into the stack.
 */
#include "cmd/procfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The whole of a small file, as a string. */
static ssize_t slurp(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t got = -1;

	if (fd < 0)
		return -1;
	while (len < size - 1 && (got = read(fd, text + len, size - 1 - len)) > 0)
		len += (size_t)got;
	close(fd);
	text[len] = '\0';
	return got < 0 ? -1 : (ssize_t)len;
}

int spw__proc_stat(pid_t pid, struct spw_stat *out)
{
	char path[64], text[1024];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (slurp(path, text, sizeof(text)) <= 0)
		return -ESRCH;
	/* "PID (COMM) STATE PPID ..."; COMM may hold anything, parentheses too */
	char *open = strchr(text, '('), *close = strrchr(text, ')');
	if (!open || !close)
		return -ESRCH;
	*close = '\0';
	snprintf(out->comm, sizeof(out->comm), "%s", open + 1);

	char state;
	long threads;
	unsigned long long start;
	if (sscanf(close + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %llu", &state,
		   &out->parent, &threads, &start) != 4)
		return -ESRCH;
	/* a leader that has left while other threads run is a zombie too, in name only */
	out->dead = (state == 'Z' || state == 'X') && threads <= 1;
	out->start_time = start;
	return 0;
}

int spw__proc_open_statm(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	return open(path, O_RDONLY | O_CLOEXEC);
}

int spw__proc_resident(int statm, uint64_t *bytes)
{
	char text[128], *resident;
	ssize_t len = pread(statm, text, sizeof(text) - 1, 0);

	if (len <= 0)
		return -ESRCH;
	text[len] = '\0';
	resident = strchr(text, ' ');
	*bytes = resident ? strtoull(resident, NULL, 10) * 4096 : 0;
	return 0;
}

int spw__proc_own_share(uint64_t *bytes)
{
	char text[2048];
	const char *pss = slurp("/proc/self/smaps_rollup", text, sizeof(text)) > 0 ? strstr(text, "\nPss:") : NULL;

	if (!pss)
		return -ENOTSUP;
	*bytes = strtoull(pss + sizeof("\nPss:") - 1, NULL, 10) << 10;
	return 0;
}

static void children_of_thread(const char *path, void (*fn)(void *ctx, pid_t child), void *ctx)
{
	char *line = NULL, *end;
	size_t size = 0;
	FILE *f = fopen(path, "re");

	if (f && getline(&line, &size, f) > 0)
		for (char *at = line;; at = end) {
			long child = strtol(at, &end, 10);
			if (end == at)
				break;
			fn(ctx, (pid_t)child);
		}
	free(line);
	if (f)
		fclose(f);
}

void spw__proc_children(pid_t pid, void (*fn)(void *ctx, pid_t child), void *ctx)
{
	char path[512];

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *tasks = opendir(path);
	if (!tasks)
		return;
	for (struct dirent *d; (d = readdir(tasks));) {
		if (d->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/children", pid, d->d_name);
		children_of_thread(path, fn, ctx);
	}
	closedir(tasks);
}

bool spw__proc_maps(pid_t pid, const char *name)
{
	char path[64], *line = NULL;
	size_t size = 0;
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	FILE *f = fopen(path, "re");
	while (f && !found && getline(&line, &size, f) > 0)
		found = strstr(line, name);
	free(line);
	if (f)
		fclose(f);
	return found;
}
