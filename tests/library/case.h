/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_TEST_CASE_H
#define SPW_TEST_CASE_H
/*
 * What the cases of the library's test have in common. Each runs in a process of its own: it may die as it is to, and
 * no case meets the handlers of signals that another left. A case fails by a CHECK that does not hold.
 */
#include "spillway.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE  4096u
#define WORDS (PAGE / 8)
#define MIB   (1ull << 20)

struct spw_test_case {
	const char *name;
	void (*run)(void);
};
/* Ended by one without a name. */
extern const struct spw_test_case signal_cases[], memory_cases[], file_cases[], share_cases[], error_cases[];

#define CHECK(cond, ...)                                                    \
	do {                                                                \
		if (!(cond))                                                \
			failed(__FILE__, __LINE__, #cond, " " __VA_ARGS__); \
	} while (0)
void __attribute__((noreturn, format(printf, 4, 5)))
failed(const char *file, int line, const char *what, const char *fmt, ...);
/* This system cannot show it. */
void __attribute__((noreturn)) skip(const char *why);

/* ---- pages: their bytes follow from a number; 0 is zeros ---- */

enum kind {
	TEXT,  /* about 4:1 */
	NOISE, /* does not compress */
	SAME,
};
void write_page(void *page, enum kind kind, uint64_t v);
/* Whether it holds that. */
bool is_page(const void *page, enum kind kind, uint64_t v);
void write_pages(char *base, uint64_t first, uint64_t n, enum kind kind, uint64_t v);
void check_pages(const char *base, uint64_t first, uint64_t n, enum kind kind, uint64_t v);
uint64_t next_random(uint64_t *state);

/* ---- spaces and regions, which must be had ---- */

struct spw_space *new_space(uint64_t ram, enum spw_fault_mode mode);
/* An empty space, destroyed. */
void end_space(struct spw_space *s);
struct spw_region *new_region(struct spw_space *s, uint64_t pages, char **base);
struct spw_region *new_clone(struct spw_region *r, char **base);
/* All of it out, now. */
void take_out(struct spw_region *r);
struct spw_space_stats stats_of(struct spw_space *s);
struct spw_region_stats region_stats(struct spw_region *r);

/* ---- processes and threads ---- */

/* Run it in a child; the status as of waitpid(2). */
int status_of(void (*run)(void *), void *arg);
/* Start a thread whose stack is `stack` bytes, with a page below that ends the process; wait for its end. */
void run_thread(void *(*run)(void *), void *arg, size_t stack);
/* The least size of a signal's stack that the kernel takes. */
size_t least_signal_stack(void);
/* Nobody's, for good. */
void become_ordinary(void);

#endif
