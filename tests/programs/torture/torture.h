/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_H
#define TORTURE_H
/*
 * A program that checks its own memory while it does to it everything that programs do.
 *
 * Each worker thread owns ranges and a key for each of their pages; the key says every byte that the page must hold
 * (key 0: zeros). An operation picks a range, changes its mapping or its bytes, and the keys with them. Whatever is
 * read is compared. Nothing here knows of Spillway: alone, the program passes always.
 */
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE         4096u
#define WORDS        (PAGE / 8)
#define MAX_RANGES   32u
#define MAX_PAGES    4096u
#define MAX_WORKERS  16u
#define MAX_CHILDREN 3u
#define SIGNAL_PAGES 64u

enum kind { RANGE_FREE = 0, RANGE_MAPPED, RANGE_HEAP, RANGE_BRK };

struct range {
	enum kind kind;
	bool patched; /* parts were treated differently: the kernel may see several mappings */
	char *base;
	uint32_t pages;
	uint64_t key[MAX_PAGES];
};

struct worker {
	uint32_t number;
	uint64_t rng;
	const char *op;         /* what it does at the moment, for messages */
	uint32_t pages, budget; /* of all ranges; most there may be */
	pid_t child[MAX_CHILDREN];
	uint32_t depth;  /* forks above this process */
	uint64_t *tally; /* of the shared counters: what this worker's own must hold */
	char *alt_stack;
	struct { /* the signal handler's own pages */
		char *base;
		uint64_t key[SIGNAL_PAGES];
		uint64_t rng;
		uint64_t handled;
	} signal;
	timer_t timer;
	struct range range[MAX_RANGES];
};

struct options {
	uint64_t seed, ops;
	double seconds;
	uint32_t threads, mib;
	uint32_t kinds; /* of pages, 0 = no end of them */
	uint64_t features;
	char *self; /* this program, for exec */
};

extern struct options opt;

/* model.c: bytes and keys. */
uint64_t rnd(uint64_t *state);
uint32_t below(struct worker *w, uint32_t n);
uint32_t log_below(struct worker *w, uint32_t n); /* 1..n, small ones as likely as large ones */
uint64_t new_key(struct worker *w);
void fill(char *page, uint64_t key);
void check(struct worker *w, const char *page, uint64_t key);
void check_range(struct worker *w, const struct range *r, uint32_t first, uint32_t n);
void check_all(struct worker *w);
void write_page(struct worker *w, struct range *r, uint32_t page);
struct range *pick(struct worker *w, enum kind kind);  /* RANGE_FREE: any that is in use; NULL: none */
struct range *fresh(struct worker *w, uint32_t pages); /* an unused slot, if the budget has room for pages */
void part_of(struct worker *w, const struct range *r, uint32_t *first, uint32_t *n);
void discard_range(struct worker *w, struct range *r);                                     /* unmap or free it */
void adopt(struct worker *w, struct range *r, enum kind kind, char *base, uint32_t pages); /* keys: zeros */
void *map_anywhere(struct worker *w, size_t bytes);
__attribute__((noreturn, format(printf, 2, 3))) void fail(struct worker *w, const char *fmt, ...);
/* Fail when a system call that has to work did not. */
void must(struct worker *w, bool ok, const char *call);

/* The operations; a table in main.c names them. */
void op_touch(struct worker *w);
void op_walk(struct worker *w);
void op_map(struct worker *w);
void op_madvise(struct worker *w);
void op_mprotect(struct worker *w);
void op_mremap(struct worker *w);
void op_small(struct worker *w);
void op_mlock(struct worker *w);
void op_huge(struct worker *w);
void op_heap(struct worker *w);
void op_brk(struct worker *w);
void op_pipe(struct worker *w);
void op_direct(struct worker *w);
void op_pinned(struct worker *w);
void op_close(struct worker *w);
void op_fork(struct worker *w);
void op_spawn(struct worker *w);
void op_advice(struct worker *w);
void op_signal(struct worker *w);
void op_stack(struct worker *w);
void op_count(struct worker *w);

/* What some of them need before and after. */
void heap_fork_child(void);
void io_fork_child(void);
void io_lock(void); /* keep descriptors from being closed */
void io_unlock(void);
void signal_start(struct worker *w);
void signal_stop(struct worker *w);
void count_init(void);
void count_check(struct worker *w);
void reap(struct worker *w, bool wait);
#endif
