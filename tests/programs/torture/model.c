/* SPDX-License-Identifier: Apache-2.0 */
/* What every page must hold, and the ranges that the operations work on. */
#include "torture.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

uint64_t rnd(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint32_t below(struct worker *w, uint32_t n)
{
	return (uint32_t)(rnd(&w->rng) % n);
}

uint32_t log_below(struct worker *w, uint32_t n)
{
	uint32_t top = 1;

	while (top < n && below(w, 10) != 0)
		top *= 2;
	return 1 + below(w, top < n ? top : n);
}

uint64_t new_key(struct worker *w)
{
	uint64_t kind = opt.kinds ? below(w, opt.kinds) : 0;

	return rnd(opt.kinds ? &kind : &w->rng) | 4; /* never 0 */
}

/* Word i of a page. The low bits of the key say what kind of bytes: same-filled, 3:1, random, nearly empty. */
static inline uint64_t word(uint64_t key, unsigned i)
{
	switch (key & 3) {
	case 0:
		return (key >> 32) * 0x100000001ull;
	case 1:
		return i % 3 ? key : (key ^ i) * 0x9e3779b97f4a7c15ull;
	case 2:
		return (key ^ i * 0xff51afd7ed558ccdull) * 0x9e3779b97f4a7c15ull;
	default:
		return i % 64 == (key >> 8) % 64 ? key ^ i : 0;
	}
}

void fill(char *page, uint64_t key)
{
	uint64_t *p = (uint64_t *)page;

	for (unsigned i = 0; i < WORDS; i++)
		p[i] = key ? word(key, i) : 0;
}

void fail(struct worker *w, const char *fmt, ...)
{
	char line[600];
	va_list ap;
	int n = snprintf(line, sizeof(line),
			 "torture: seed %llu worker %u depth %u op %s pid %d: ", (unsigned long long)opt.seed,
			 w->number, w->depth, w->op, (int)getpid());

	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
	va_end(ap);
	line[n++] = '\n';
	if (write(2, line, (size_t)n) < 0)
		_exit(99);
	abort();
}

void must(struct worker *w, bool ok, const char *call)
{
	if (!ok)
		fail(w, "%s: %s", call, strerror(errno));
}

static __attribute__((noinline, noreturn)) void mismatch(struct worker *w, const char *page, uint64_t key, unsigned i,
							 uint64_t got)
{
	const volatile uint64_t *p = (const volatile uint64_t *)page;
	unsigned wrong = 0, zero = 0;

	for (unsigned k = 0; k < WORDS; k++) {
		wrong += p[k] != (key ? word(key, k) : 0);
		zero += p[k] == 0;
	}
	fail(w,
	     "page %p word %u: expected %016llx (key %016llx), got %016llx, now %016llx; %u words wrong, %u zero, "
	     "first "
	     "%016llx %016llx",
	     (const void *)page, i, (unsigned long long)(key ? word(key, i) : 0), (unsigned long long)key,
	     (unsigned long long)got, (unsigned long long)p[i], wrong, zero, (unsigned long long)p[0],
	     (unsigned long long)p[1]);
}

void check(struct worker *w, const char *page, uint64_t key)
{
	const volatile uint64_t *p = (const volatile uint64_t *)page;

	for (unsigned i = 0; i < WORDS; i++) {
		uint64_t got = p[i];

		if (got != (key ? word(key, i) : 0))
			mismatch(w, page, key, i, got);
	}
}

void check_range(struct worker *w, const struct range *r, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++)
		check(w, r->base + (size_t)i * PAGE, r->key[i]);
}

void check_all(struct worker *w)
{
	for (uint32_t i = 0; i < MAX_RANGES; i++) {
		if (w->range[i].kind != RANGE_FREE)
			check_range(w, &w->range[i], 0, w->range[i].pages);
	}
}

void write_page(struct worker *w, struct range *r, uint32_t page)
{
	r->key[page] = new_key(w);
	fill(r->base + (size_t)page * PAGE, r->key[page]);
}

struct range *pick(struct worker *w, enum kind kind)
{
	uint32_t first = below(w, MAX_RANGES);

	for (uint32_t i = 0; i < MAX_RANGES; i++) {
		struct range *r = &w->range[(first + i) % MAX_RANGES];

		if (r->kind != RANGE_FREE && (kind == RANGE_FREE || r->kind == kind))
			return r;
	}
	return NULL;
}

struct range *fresh(struct worker *w, uint32_t pages)
{
	if (w->pages + pages > w->budget)
		return NULL;
	for (uint32_t i = 0; i < MAX_RANGES; i++) {
		if (w->range[i].kind == RANGE_FREE)
			return &w->range[i];
	}
	return NULL;
}

void part_of(struct worker *w, const struct range *r, uint32_t *first, uint32_t *n)
{
	*first = below(w, r->pages);
	*n = log_below(w, r->pages - *first);
}

void adopt(struct worker *w, struct range *r, enum kind kind, char *base, uint32_t pages)
{
	r->kind = kind;
	r->patched = false;
	r->base = base;
	r->pages = pages;
	memset(r->key, 0, pages * sizeof(r->key[0]));
	w->pages += pages;
}

void discard_range(struct worker *w, struct range *r)
{
	if (r->kind == RANGE_HEAP)
		free(r->base);
	else
		must(w, munmap(r->base, (size_t)r->pages * PAGE) == 0, "munmap");
	w->pages -= r->pages;
	r->kind = RANGE_FREE;
}

void *map_anywhere(struct worker *w, size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(w, p != MAP_FAILED, "mmap");
	return p;
}
