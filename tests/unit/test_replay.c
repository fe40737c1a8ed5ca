/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policies of bench/trace on traces that can be worked out by hand, and all of them against what holds for any:
 * none is better than Belady's, and his and LRU are what their definitions, tried page by page, say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>

#include "../../bench/trace/policy.h"
#include "../../bench/trace/synthetic.h"

#define MOST 64u /* pages of the traces here */

static struct replayed replayed(const char *policy, const uint32_t *page, uint32_t n, uint32_t cap)
{
	const struct policy *p = spw__policy(policy);
	struct spw_trace t = {.page = (uint32_t *)(uintptr_t)page, .n = n, .pages = MOST};
	struct replayed r;

	assert_non_null(p);
	assert_true(spw__replay(p, &t, cap, &r));
	return r;
}

static void check(const char *policy, const uint32_t *page, uint32_t n, uint32_t cap, uint64_t misses,
		  uint64_t refaults)
{
	struct replayed r = replayed(policy, page, n, cap);

	if (r.misses != misses || r.refaults != refaults)
		fail_msg("%s: %llu misses, %llu refaults, not %llu and %llu", policy, (unsigned long long)r.misses,
			 (unsigned long long)r.refaults, (unsigned long long)misses, (unsigned long long)refaults);
}

#define CHECK(policy, cap, misses, refaults, ...)                                           \
	do {                                                                                \
		static const uint32_t page[] = {__VA_ARGS__};                               \
		check(policy, page, sizeof(page) / sizeof(page[0]), cap, misses, refaults); \
	} while (0)

#define BELADY 1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5 /* of whose anomaly this is the example */

static void beladys_example(void **state)
{
	(void)state;
	CHECK("OPT", 3, 7, 2, BELADY);
	CHECK("LRU", 3, 10, 5, BELADY);
	CHECK("FIFO", 3, 9, 4, BELADY);
	CHECK("CLOCK", 3, 10, 5, BELADY);
	CHECK("OPT", 4, 6, 1, BELADY);
	CHECK("LRU", 4, 8, 3, BELADY);
	CHECK("FIFO", 4, 10, 5, BELADY);
}

static void clock_spares_what_was_used(void **state)
{
	(void)state;
	CHECK("CLOCK", 3, 5, 0, 1, 2, 3, 1, 4, 1, 5, 1);
	CHECK("FIFO", 3, 6, 1, 1, 2, 3, 1, 4, 1, 5, 1);
}

/* 1, out and back while it is remembered, is in main when 5 and 6 pass; 2 comes back too late, 4 in time. */
static void twoq(void **state)
{
	(void)state;
	CHECK("2Q", 4, 10, 3, 1, 2, 3, 4, 1, 5, 1, 6, 1, 7, 2, 4, 1);
	CHECK("FIFO", 4, 11, 4, 1, 2, 3, 4, 1, 5, 1, 6, 1, 7, 2, 4, 1);
	CHECK("2Q, faults only", 4, 10, 3, 1, 2, 3, 4, 1, 5, 1, 6, 1, 7, 2, 4, 1);
}

/* 1 was used twice and goes to main; 2, 3 and 7 go there by their ghosts, 4's is forgotten; 1 is spared, 2 goes. */
static void s3_fifo(void **state)
{
	(void)state;
	CHECK("S3-FIFO", 4, 14, 5, 1, 2, 3, 4, 1, 1, 5, 2, 6, 3, 7, 8, 1, 4, 7, 9, 1, 2);
}

static void arc(void **state)
{
	(void)state;
	CHECK("ARC", 2, 5, 2, 1, 2, 1, 3, 2, 3, 1, 3);
}

#define PAGES_TO_11 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
#define PAGES_TO_15 PAGES_TO_11, 12, 13, 14, 15
#define SCAN        20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39

/* Of 8 pages, one is back when 8 have gone, itself among them: that is soon. One more is late. */
static void queue_soon_and_late(void **state)
{
	(void)state;
	CHECK("queue 1/8, 1", 8, 36, 1, PAGES_TO_15, 1, SCAN, 1);
	CHECK("queue 1/8, 1", 8, 38, 2, PAGES_TO_15, 16, 1, SCAN, 1);
	CHECK("queue 1/8, 4/8", 8, 32, 1, PAGES_TO_11, 1, SCAN, 1);
	CHECK("queue 1/8, 4/8", 8, 34, 2, PAGES_TO_11, 12, 1, SCAN, 1);
	CHECK("queue 1/8, 2", 8, 37, 1, PAGES_TO_15, 16, 1, SCAN, 1);
	CHECK("queue 1/8, 1, any of main", 8, 36, 1, PAGES_TO_15, 1, SCAN, 1);
	CHECK("FIFO", 8, 37, 2, PAGES_TO_15, 1, SCAN, 1);
}

/* Main is all there is: 1 comes back soon twice, and has then one turn more than the others. */
static void clock_by_refaults(void **state)
{
	(void)state;
	CHECK("CLOCK by refaults, 1", 4, 15, 2, 1, 2, 3, 4, 5, 1, 6, 7, 8, 9, 1, 10, 11, 12, 13, 1);
	CHECK("FIFO", 4, 16, 3, 1, 2, 3, 4, 5, 1, 6, 7, 8, 9, 1, 10, 11, 12, 13, 1);
}

static void sooner_back_longer_in(void **state)
{
	(void)state;
	CHECK("sooner back, longer in, 2", 4, 10, 1, 1, 2, 3, 4, 5, 1, 6, 7, 8, 9, 1);
	CHECK("FIFO", 4, 11, 2, 1, 2, 3, 4, 5, 1, 6, 7, 8, 9, 1);
}

/* 8 and 9 come back two faults later, main's oldest have been there for nine: 1 and 2 are to go next, and 1 goes. */
static void lirs_by_faults(void **state)
{
	(void)state;
	CHECK("LIRS by faults 1/8", 8, 11, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 9, 2, 8, 9);
}

static void a_loop_is_kept_in_part(void **state)
{
	uint32_t page[MOST * 20];

	(void)state;
	for (uint32_t i = 0; i < MOST * 20; i++)
		page[i] = i % MOST;
	assert_int_equal(replayed("FIFO", page, MOST * 20, MOST - 16).misses, MOST * 20);
	assert_int_equal(replayed("LRU", page, MOST * 20, MOST - 16).misses, MOST * 20);
	assert_true(replayed("random", page, MOST * 20, MOST - 16).misses < MOST * 15);
	assert_true(replayed("queue 1/8, 1, any of main", page, MOST * 20, MOST - 16).misses < MOST * 15);
}

/* ---- any trace ---- */

/* By definition: `future`: the one whose next use is farthest; else the one whose last use is. */
static uint64_t by_definition(const uint32_t *page, uint32_t n, uint32_t cap, bool future)
{
	uint32_t in[MOST], used[MOST], resident = 0;
	uint64_t misses = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = 0, worst = 0, most = 0;

		while (at < resident && in[at] != page[i])
			at++;
		for (uint32_t k = 0; at == cap && k < cap; k++) {
			uint32_t next = i;

			while (next < n && page[next] != in[k])
				next++;
			uint32_t far = future ? next - i : i - used[in[k]];

			if (far > most) {
				most = far;
				worst = k;
			}
		}
		misses += at == resident;
		if (at == cap)
			in[worst] = page[i];
		else if (at == resident)
			in[resident++] = page[i];
		used[page[i]] = i;
	}
	return misses;
}

static void any_trace(void **state)
{
	uint32_t page[1000], n = sizeof(page) / sizeof(page[0]);

	(void)state;
	srandom(1);
	for (unsigned round = 0; round < 40; round++) {
		uint32_t pages = 2 + (uint32_t)random() % (MOST - 2), cap = 1 + (uint32_t)random() % pages;
		uint64_t distinct = 0;
		bool seen[MOST] = {false};

		for (uint32_t i = 0; i < n; i++) {
			page[i] = (uint32_t)random() % (random() % 2 ? pages : pages / 4 + 1);
			distinct += !seen[page[i]];
			seen[page[i]] = true;
		}
		uint64_t opt = by_definition(page, n, cap, true);

		assert_int_equal(replayed("OPT", page, n, cap).misses, opt);
		assert_int_equal(replayed("LRU", page, n, cap).misses, by_definition(page, n, cap, false));
		for (unsigned set = 0; set < 2; set++) {
			for (const struct policy *p = set ? spw__fault_policies : spw__hit_policies; p->name; p++) {
				struct replayed r = replayed(p->name, page, n, cap);

				assert_true(r.misses >= opt);
				assert_int_equal(r.misses - r.refaults, distinct);
			}
		}
	}
}

static void patterns_are_there(void **state)
{
	struct spw_trace t;

	(void)state;
	for (const char *const *name = spw__synthetic_names; *name; name++) {
		assert_true(spw__synthetic(*name, &t));
		for (uint32_t i = 0; i < t.n; i++)
			assert_true(t.page[i] < t.pages);
		spw__trace_free(&t);
	}
	assert_false(spw__synthetic("none", &t));
}

/* ---- traces as files ---- */

/* Pages 5 (written), 3, 5; 300 accesses. */
static const char file[] = SPW_TRACE_MAGIC "\x15\x06\x08\0\xac\x02";

static void a_file(void **state)
{
	struct spw_trace t;

	(void)state;
	for (size_t n = 0; n < sizeof(file) - 1; n++) {
		FILE *f = fmemopen((void *)(uintptr_t)file, n + 1, "rb");
		const char *wrong = spw__trace_read(f, &t);

		assert_true((wrong != NULL) == (n + 1 < sizeof(file) - 1));
		if (!wrong) {
			assert_int_equal(t.n, 3);
			assert_int_equal(t.pages, 2);
			assert_int_equal(t.writes, 1);
			assert_int_equal(t.accesses, 300);
			assert_memory_equal(t.page, ((uint32_t[]){0, 1, 0}), 3 * sizeof(uint32_t));
		}
		spw__trace_free(&t);
		fclose(f);
	}
}

/* What the reducer makes of lines that `say`, a shell command, writes. */
static void reduced(const char *say, struct spw_trace *t)
{
	char command[1024];

	snprintf(command, sizeof(command), "{ %s; } | '%s'", say, getenv("REDUCE"));
	FILE *f = popen(command, "r");

	assert_non_null(f);
	assert_null(spw__trace_read(f, t));
	assert_int_equal(pclose(f), 0);
}

static void the_reducer(void **state)
{
	struct spw_trace t;

	/* An instruction, a message, a store, loads of the same page, one that lies in two pages. */
	(void)state;
	reduced("echo '==1== Lackey'; echo 'I  04001090,3'; echo ' S 1ffefff9e0,8'; echo ' L 1ffefff000,8'; "
		"echo ' M 04002ffc,8'; echo ' L 1ffefff9e0,1'",
		&t);
	assert_int_equal(t.accesses, 4);
	assert_int_equal(t.n, 3);
	assert_int_equal(t.writes, 3);
	assert_memory_equal(t.page, ((uint32_t[]){0, 1, 2}), 3 * sizeof(uint32_t));
	spw__trace_free(&t);

	/* Nine pages in turn: none is among the last eight. */
	reduced("for i in 1 2 3; do for p in 1 2 3 4 5 6 7 8 9; do echo \" L ${p}000,8\"; done; done", &t);
	assert_int_equal(t.n, 27);
	spw__trace_free(&t);

	/* Eight in turn are recorded once. */
	reduced("for i in 1 2 3; do for p in 1 2 3 4 5 6 7 8; do echo \" L ${p}000,8\"; done; done", &t);
	assert_int_equal(t.n, 8);
	spw__trace_free(&t);

	/* One that is used all the time, the second record, comes again when SPW_TRACE_AGAIN others have: as the 67th. */
	reduced("for p in $(seq 100 227); do echo \" L ${p}000,8\"; echo ' L 1000,8'; done", &t);
	assert_int_equal(t.n, 128 + 2);
	assert_int_equal(t.page[66], 1);
	spw__trace_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(beladys_example),
		cmocka_unit_test(clock_spares_what_was_used),
		cmocka_unit_test(twoq),
		cmocka_unit_test(s3_fifo),
		cmocka_unit_test(arc),
		cmocka_unit_test(queue_soon_and_late),
		cmocka_unit_test(clock_by_refaults),
		cmocka_unit_test(sooner_back_longer_in),
		cmocka_unit_test(lirs_by_faults),
		cmocka_unit_test(a_loop_is_kept_in_part),
		cmocka_unit_test(any_trace),
		cmocka_unit_test(patterns_are_there),
		cmocka_unit_test(a_file),
		cmocka_unit_test(the_reducer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
