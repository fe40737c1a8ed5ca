/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sampler OUT ALONE PROGRAM [ARG...]: run a program and measure the memory of its whole tree from outside, every 10 ms.
 *
 * One number a sample: the resident size of every process of the tree, PROGRAM itself included. A page that several of
 * them hold would count several times, so as soon as the tree has more than ALONE processes (1, or 2 for `spillway run`
 * and its program) each counts its proportional share instead (PSS). OUT gets "samples N", "peak BYTES" and, per
 * sample, its bytes, one a line. The exit status is the program's, 128 + N on signal N.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define PERIOD_NS   10000000
#define MAX_TREE    512
#define MAX_SAMPLES (1u << 20)

static pid_t tree[MAX_TREE];
static unsigned processes;
static uint64_t sample[MAX_SAMPLES];

static long slurp(const char *path, char *text, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	long n = fd < 0 ? -1 : read(fd, text, room - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = 0;
	return n;
}

static void add_tree(pid_t pid)
{
	char path[320], text[4096];

	if (processes == MAX_TREE)
		return;
	tree[processes++] = pid;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	DIR *tasks = opendir(path);

	for (struct dirent *d; tasks && (d = readdir(tasks));) {
		char *at = text;

		if (d->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)pid, d->d_name);
		slurp(path, text, sizeof(text));
		for (char *end; strtol(at, &end, 10) > 0; at = end)
			add_tree((pid_t)strtol(at, NULL, 10));
	}
	if (tasks)
		closedir(tasks);
}

static uint64_t resident(pid_t pid)
{
	char path[64], text[128];
	unsigned long size = 0, pages = 0;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	slurp(path, text, sizeof(text));
	sscanf(text, "%lu %lu", &size, &pages);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t proportional(pid_t pid)
{
	char path[64], text[2048];
	unsigned long kib = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	slurp(path, text, sizeof(text));
	const char *pss = strstr(text, "\nPss:");

	if (pss)
		sscanf(pss + 5, "%lu", &kib);
	return (uint64_t)kib << 10;
}

static uint64_t measure(pid_t root, unsigned alone)
{
	uint64_t sum = 0;

	processes = 0;
	add_tree(root);
	for (unsigned i = 0; i < processes; i++)
		sum += processes > alone ? proportional(tree[i]) : resident(tree[i]);
	return sum;
}

static void report(const char *path, unsigned samples)
{
	FILE *out = fopen(path, "w");
	uint64_t peak = 0;

	if (!out) {
		fprintf(stderr, "sampler: %s: %s\n", path, strerror(errno));
		exit(125);
	}
	for (unsigned i = 0; i < samples; i++)
		peak = sample[i] > peak ? sample[i] : peak;
	fprintf(out, "samples %u\npeak %llu\n", samples, (unsigned long long)peak);
	for (unsigned i = 0; i < samples; i++)
		fprintf(out, "%llu\n", (unsigned long long)sample[i]);
	fclose(out);
}

int main(int argc, char **argv)
{
	struct itimerspec every = {{0, PERIOD_NS}, {0, PERIOD_NS}};
	unsigned samples = 0;
	uint64_t ticks;
	int status = 0;

	if (argc < 4) {
		fprintf(stderr, "usage: sampler OUT ALONE PROGRAM [ARG...]\n");
		return 125;
	}
	unsigned alone = (unsigned)atoi(argv[2]);
	pid_t root = fork();

	if (root == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execvp(argv[3], argv + 3);
		fprintf(stderr, "sampler: %s: %s\n", argv[3], strerror(errno));
		_exit(127);
	}
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

	timerfd_settime(timer, 0, &every, NULL);
	while (read(timer, &ticks, sizeof(ticks)) == sizeof(ticks) && waitpid(root, &status, WNOHANG) == 0) {
		uint64_t sum = measure(root, alone);

		if (sum && samples < MAX_SAMPLES)
			sample[samples++] = sum;
	}
	report(argv[1], samples);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
