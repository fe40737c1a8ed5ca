/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torture [--seed N] [--seconds S | --ops N] [--threads N] [--mib N] [--kinds N] [--only A,B] [--without A,B]
 *
 * --kinds: there are only that many different pages.
 * Exit status 0: every byte read was right. A wrong one is printed, with what, where, expected and got, and aborts.
 */
#include "torture.h"

#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct options opt = {.seed = 1, .threads = 3, .mib = 16};

static const struct {
	const char *name;
	void (*run)(struct worker *w);
	unsigned weight;
} ops[] = {
	{"touch", op_touch, 40},      {"walk", op_walk, 4},     {"map", op_map, 8},       {"madvise", op_madvise, 6},
	{"mprotect", op_mprotect, 4}, {"mremap", op_mremap, 6}, {"small", op_small, 1},   {"mlock", op_mlock, 2},
	{"huge", op_huge, 1},         {"heap", op_heap, 8},     {"brk", op_brk, 4},       {"pipe", op_pipe, 4},
	{"direct", op_direct, 3},     {"pinned", op_pinned, 2}, {"close", op_close, 2},   {"fork", op_fork, 1},
	{"spawn", op_spawn, 1},       {"advice", op_advice, 1}, {"signal", op_signal, 2}, {"stack", op_stack, 1},
	{"count", op_count, 8},
};

#define OPS (sizeof(ops) / sizeof(ops[0]))

static bool enabled(const char *name)
{
	for (unsigned i = 0; i < OPS; i++) {
		if (strcmp(ops[i].name, name) == 0)
			return opt.features >> i & 1;
	}
	return false;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void one(struct worker *w)
{
	unsigned total = 0, at;

	for (unsigned i = 0; i < OPS; i++)
		total += opt.features >> i & 1 ? ops[i].weight : 0;
	at = below(w, total);
	for (unsigned i = 0; i < OPS; i++) {
		if (!(opt.features >> i & 1))
			continue;
		if (at < ops[i].weight) {
			w->op = ops[i].name;
			ops[i].run(w);
			return;
		}
		at -= ops[i].weight;
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	double end = now() + opt.seconds;

	w->op = "start";
	if (enabled("signal"))
		signal_start(w);
	/* Something to work on, whatever is enabled. */
	for (unsigned i = 0; i < 4; i++) {
		uint32_t pages = w->budget / 8;
		struct range *r = fresh(w, pages);

		adopt(w, r, RANGE_MAPPED, map_anywhere(w, (size_t)pages * PAGE), pages);
		for (uint32_t k = 0; k < pages; k++)
			write_page(w, r, k);
	}
	for (uint64_t n = 0; opt.ops ? n < opt.ops : now() < end; n++) {
		one(w);
		w->op = "reap";
		reap(w, false);
	}
	w->op = "end";
	reap(w, true);
	if (enabled("signal"))
		signal_stop(w);
	check_all(w);
	count_check(w);
	return NULL;
}

static uint64_t parse_features(const char *list)
{
	char text[256];
	uint64_t mask = 0;

	snprintf(text, sizeof(text), "%s", list);
	for (char *save, *name = strtok_r(text, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		unsigned i = 0;

		while (i < OPS && strcmp(ops[i].name, name) != 0)
			i++;
		if (i == OPS) {
			fprintf(stderr, "torture: no operation %s; there are", name);
			for (i = 0; i < OPS; i++)
				fprintf(stderr, " %s", ops[i].name);
			fprintf(stderr, "\n");
			exit(2);
		}
		mask |= 1ull << i;
	}
	return mask;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"seed", 1, NULL, 's'},    {"seconds", 1, NULL, 't'}, {"ops", 1, NULL, 'n'},
		{"threads", 1, NULL, 'j'}, {"mib", 1, NULL, 'm'},     {"kinds", 1, NULL, 'k'},
		{"only", 1, NULL, 'o'},    {"without", 1, NULL, 'w'}, {0}};
	pthread_t thread[MAX_WORKERS];
	int c;

	opt.features = (1ull << OPS) - 1;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		switch (c) {
		case 's':
			opt.seed = strtoull(optarg, NULL, 0);
			break;
		case 't':
			opt.seconds = atof(optarg);
			break;
		case 'n':
			opt.ops = strtoull(optarg, NULL, 0);
			break;
		case 'j':
			opt.threads = (uint32_t)atoi(optarg);
			break;
		case 'm':
			opt.mib = (uint32_t)atoi(optarg);
			break;
		case 'k':
			opt.kinds = (uint32_t)atoi(optarg);
			break;
		case 'o':
			opt.features = parse_features(optarg);
			break;
		case 'w':
			opt.features &= ~parse_features(optarg);
			break;
		default:
			return 2;
		}
	}
	if (!opt.threads || opt.threads > MAX_WORKERS || !opt.mib || opt.mib > 128 || (!opt.ops && opt.seconds <= 0)) {
		fprintf(stderr, "torture: 1 to %u threads of 1 to 128 MiB, --seconds or --ops\n", MAX_WORKERS);
		return 2;
	}
	opt.self = realpath("/proc/self/exe", NULL);
	count_init();
	for (uint32_t i = 0; i < opt.threads; i++) {
		struct worker *w = map_anywhere(&(struct worker){.op = "init"}, sizeof(struct worker));

		w->number = i;
		w->rng = opt.seed * 1000003 + i;
		w->budget = opt.mib << 8;
		if (pthread_create(&thread[i], NULL, work, w))
			return 1;
	}
	for (uint32_t i = 0; i < opt.threads; i++)
		pthread_join(thread[i], NULL);
	return 0;
}
