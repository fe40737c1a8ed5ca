/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay [--caps PERCENT,...] TRACE...: what each policy makes of a trace, page by page, when that many of its pages
 * may be resident: a quarter, a half and three quarters. A TRACE is a file (record); "patterns" is all of synthetic.h.
 *
 * One line each on stdout, with tabs between: trace, pages, records, accesses, cap in % and in pages, policy, "hits" if
 * it sees them or "faults", pages that came in, and those of them that had been there before.
 */
#include "policy.h"
#include "synthetic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CAPS 32u

static unsigned caps[CAPS] = {25, 50, 75}, caps_count = 3; /* % of the pages */

static void die(const char *what, const char *why)
{
	fprintf(stderr, "replay: %s: %s\n", what, why);
	exit(1);
}

static void one(const char *name, const struct spw_trace *t, const struct policy *p, unsigned percent)
{
	uint32_t cap = (uint32_t)(((uint64_t)t->pages * percent + 99) / 100);
	struct replayed r;

	if (!spw__replay(p, t, cap, &r))
		die(name, "no memory");
	printf("%s\t%u\t%u\t%llu\t%u\t%u\t%s\t%s\t%llu\t%llu\n", name, t->pages, t->n, (unsigned long long)t->accesses,
	       percent, cap, p->name, p->hit ? "hits" : "faults", (unsigned long long)r.misses,
	       (unsigned long long)r.refaults);
}

static void all(const char *name, struct spw_trace *t)
{
	for (unsigned i = 0; i < caps_count; i++) {
		for (const struct policy *p = spw__hit_policies; p->name; p++)
			one(name, t, p, caps[i]);
		for (const struct policy *p = spw__fault_policies; p->name; p++)
			one(name, t, p, caps[i]);
	}
	spw__trace_free(t);
}

static void pattern(const char *name)
{
	struct spw_trace t;

	if (!spw__synthetic(name, &t))
		die(name, "no memory");
	all(name, &t);
}

static void file(const char *path)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path, *dot = strrchr(base, '.');
	FILE *f = fopen(path, "rb");
	char name[64];
	struct spw_trace t;

	if (!f)
		die(path, strerror(errno));
	const char *wrong = spw__trace_read(f, &t);

	fclose(f);
	if (wrong)
		die(path, wrong);
	snprintf(name, sizeof(name), "%.*s", (int)(dot ? dot - base : (long)strlen(base)), base);
	all(name, &t);
}

/* Whether `list` is one. */
static bool parse_caps(char *list)
{
	for (caps_count = 0; caps_count < CAPS; caps_count++, list++) {
		unsigned long percent = strtoul(list, &list, 10);

		if (percent < 1 || percent > 100)
			return false;
		caps[caps_count] = (unsigned)percent;
		if (*list != ',')
			break;
	}
	caps_count++;
	return !*list;
}

int main(int argc, char **argv)
{
	int first = argc > 2 && !strcmp(argv[1], "--caps") ? 3 : 1;

	if (argc <= first || (first == 3 && !parse_caps(argv[2]))) {
		fputs("usage: replay [--caps PERCENT,...] TRACE...\n", stderr);
		return 1;
	}
	for (int i = first; i < argc; i++) {
		if (strcmp(argv[i], "patterns"))
			file(argv[i]);
		for (const char *const *n = spw__synthetic_names; *n && !strcmp(argv[i], "patterns"); n++)
			pattern(*n);
	}
	return fflush(stdout) || ferror(stdout);
}
