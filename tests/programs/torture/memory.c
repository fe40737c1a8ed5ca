/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on mappings. */
#include "torture.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_COLD
#define MADV_COLD    20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define HUGE (2u << 20)

/* Random pages: checked, half of them written. */
void op_touch(struct worker *w)
{
	for (unsigned i = 0; i < 16; i++) {
		struct range *r = pick(w, RANGE_FREE);

		if (!r)
			return;
		uint32_t page = below(w, r->pages);

		check(w, r->base + (size_t)page * PAGE, r->key[page]);
		if (below(w, 2))
			write_page(w, r, page);
	}
}

/* A run of pages in order. */
void op_walk(struct worker *w)
{
	struct range *r = pick(w, RANGE_FREE);
	uint32_t first, n;

	if (!r)
		return;
	part_of(w, r, &first, &n);
	check_range(w, r, first, n);
}

static void map_new(struct worker *w)
{
	uint32_t pages = log_below(w, MAX_PAGES);
	struct range *r = fresh(w, pages);

	if (!r)
		return;
	adopt(w, r, RANGE_MAPPED, map_anywhere(w, (size_t)pages * PAGE), pages);
	for (uint32_t i = 0; i < pages; i++) {
		uint32_t what = below(w, 4);

		if (what == 0)
			check(w, r->base + (size_t)i * PAGE, 0);
		if (what < 3)
			write_page(w, r, i);
	}
}

static void trim_head(struct worker *w, struct range *r, uint32_t n)
{
	must(w, munmap(r->base, (size_t)n * PAGE) == 0, "munmap");
	r->base += (size_t)n * PAGE;
	r->pages -= n;
	w->pages -= n;
	memmove(r->key, r->key + n, r->pages * sizeof(r->key[0]));
}

static void trim_tail(struct worker *w, struct range *r, uint32_t n)
{
	r->pages -= n;
	w->pages -= n;
	must(w, munmap(r->base + (size_t)r->pages * PAGE, (size_t)n * PAGE) == 0, "munmap");
}

/* Fresh zeros over a part of it, at once. */
static void replace_part(struct worker *w, struct range *r)
{
	uint32_t first, n;

	part_of(w, r, &first, &n);
	char *at = r->base + (size_t)first * PAGE;

	must(w,
	     mmap(at, (size_t)n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at,
	     "mmap fixed");
	r->patched = true;
	memset(r->key + first, 0, n * sizeof(r->key[0]));
	check_range(w, r, first, n);
}

void op_map(struct worker *w)
{
	struct range *r = pick(w, RANGE_MAPPED);

	switch (r ? below(w, 6) : 0) {
	case 1:
		discard_range(w, r);
		break;
	case 2:
		if (r->pages > 1)
			trim_head(w, r, 1 + below(w, r->pages - 1));
		break;
	case 3:
		if (r->pages > 1)
			trim_tail(w, r, 1 + below(w, r->pages - 1));
		break;
	case 4:
		replace_part(w, r);
		break;
	default:
		map_new(w);
	}
}

/* MADV_FREE: until it is written, a page holds its old bytes or zeros, nothing between. */
static void free_lazily(struct worker *w, struct range *r, uint32_t first, uint32_t n)
{
	must(w, madvise(r->base + (size_t)first * PAGE, (size_t)n * PAGE, MADV_FREE) == 0, "madvise free");
	for (uint32_t i = first; i < first + n; i++) {
		char *page = r->base + (size_t)i * PAGE;
		volatile char *touch = page;

		if (below(w, 2)) {
			write_page(w, r, i);
			continue;
		}
		/* The write keeps what is there from now on; it changes no bytes. */
		__atomic_fetch_add(touch, 0, __ATOMIC_SEQ_CST);
		bool zero = true;

		for (unsigned k = 0; k < WORDS; k++)
			zero = zero && ((const volatile uint64_t *)page)[k] == 0;
		if (zero)
			r->key[i] = 0;
		check(w, page, r->key[i]);
	}
}

void op_madvise(struct worker *w)
{
	static const int harmless[] = {MADV_WILLNEED,       MADV_COLD,       MADV_PAGEOUT, MADV_POPULATE_READ,
				       MADV_POPULATE_WRITE, MADV_SEQUENTIAL, MADV_NORMAL};
	struct range *r = pick(w, RANGE_MAPPED);
	uint32_t first, n, what = below(w, 8);

	if (!r)
		return;
	part_of(w, r, &first, &n);
	char *at = r->base + (size_t)first * PAGE;
	size_t bytes = (size_t)n * PAGE;

	if (what < 4) {
		must(w, madvise(at, bytes, MADV_DONTNEED) == 0, "madvise dontneed");
		memset(r->key + first, 0, n * sizeof(r->key[0]));
		if (what == 0)
			check_range(w, r, first, n);
		else if (what == 1)
			check_range(w, r, first + below(w, n), 1);
	} else if (what < 6) {
		free_lazily(w, r, first, n);
	} else {
		int advice = harmless[below(w, sizeof(harmless) / sizeof(harmless[0]))];

		must(w, madvise(at, bytes, advice) == 0, "madvise");
		r->patched = r->patched || advice == MADV_SEQUENTIAL;
		check_range(w, r, first, n);
	}
}

void op_mprotect(struct worker *w)
{
	static const int flips[] = {PROT_READ, PROT_NONE, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC};
	struct range *r = pick(w, RANGE_MAPPED);
	uint32_t first, n;

	if (!r)
		return;
	part_of(w, r, &first, &n);
	char *at = r->base + (size_t)first * PAGE;
	size_t bytes = (size_t)n * PAGE;
	int prot = flips[below(w, 4)];

	must(w, mprotect(at, bytes, prot) == 0, "mprotect");
	if (prot & PROT_READ)
		check_range(w, r, first, n < 64 ? n : 64);
	if (prot & PROT_WRITE)
		write_page(w, r, first);
	struct range *other = pick(w, RANGE_FREE);

	if (other != r)
		check_range(w, other, 0, other->pages < 256 ? other->pages : 256);
	must(w, mprotect(at, bytes, PROT_READ | PROT_WRITE) == 0, "mprotect back");
	check_range(w, r, first, n);
}

/* Several mappings where one was asked for: the kernel may refuse to move them as one. */
static bool moved(struct worker *w, const struct range *r, const void *p)
{
	if (p != MAP_FAILED)
		return true;
	must(w, errno == EFAULT && r->patched, "mremap");
	return false;
}

static void resize(struct worker *w, struct range *r)
{
	uint32_t pages = log_below(w, MAX_PAGES);

	if (pages > r->pages && w->pages + pages - r->pages > w->budget)
		return;
	char *p = mremap(r->base, (size_t)r->pages * PAGE, (size_t)pages * PAGE, MREMAP_MAYMOVE);

	if (!moved(w, r, p))
		return;
	r->base = p;
	for (uint32_t i = r->pages; i < pages; i++)
		r->key[i] = 0;
	w->pages += pages - r->pages;
	r->pages = pages;
}

static void move_to(struct worker *w, struct range *r)
{
	size_t bytes = (size_t)r->pages * PAGE;
	char *to = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(w, to != MAP_FAILED, "mmap");
	char *p = mremap(r->base, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);

	if (moved(w, r, p)) {
		r->base = p;
		return;
	}
	/* A part may have moved before the refusal: there is no telling which, so the range is given up. */
	munmap(to, bytes);
	discard_range(w, r);
}

/* The pages go, the old mapping stays and reads zeros; both are used on. */
static void move_and_keep(struct worker *w, struct range *r)
{
	size_t bytes = (size_t)r->pages * PAGE;
	struct range *twin = fresh(w, r->pages);

	if (!twin)
		return;
	char *p = mremap(r->base, bytes, bytes, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	if (!moved(w, r, p))
		return;
	adopt(w, twin, RANGE_MAPPED, r->base, r->pages);
	r->base = p;
	check_range(w, twin, 0, twin->pages < 64 ? twin->pages : 64);
}

void op_mremap(struct worker *w)
{
	struct range *r = pick(w, RANGE_MAPPED);

	if (!r)
		return;
	uint32_t what = below(w, 4);

	if (what < 2)
		resize(w, r);
	else if (what == 2)
		move_to(w, r);
	else
		move_and_keep(w, r);
	if (r->kind != RANGE_FREE)
		check_range(w, r, 0, r->pages < 64 ? r->pages : 64);
}

/* One mapping becomes hundreds, and most of them one again. */
void op_small(struct worker *w)
{
	struct range *r = pick(w, RANGE_MAPPED);
	uint32_t n;

	if (!r)
		return;
	n = r->pages < 512 ? r->pages : 512;
	/* Pieces first written while they were apart stay apart. */
	r->patched = true;
	for (uint32_t i = 0; i < n; i += 2)
		must(w, mprotect(r->base + (size_t)i * PAGE, PAGE, PROT_READ) == 0, "mprotect small");
	check_range(w, r, 0, n);
	for (uint32_t i = 1; i < n; i += 2)
		write_page(w, r, i);
	for (uint32_t i = 0; i < n; i += 2)
		must(w, mprotect(r->base + (size_t)i * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0, "mprotect small");
	check_range(w, r, 0, n);
}

/* What is locked is resident, and stays so. */
void op_mlock(struct worker *w)
{
	struct range *r = pick(w, RANGE_MAPPED);
	unsigned char in[64];
	uint32_t first, n;

	if (!r)
		return;
	part_of(w, r, &first, &n);
	n = n < 64 ? n : 64;
	char *at = r->base + (size_t)first * PAGE;

	must(w, mlock(at, (size_t)n * PAGE) == 0, "mlock");
	for (unsigned k = 0; k < 4; k++) {
		must(w, mincore(at, (size_t)n * PAGE, in) == 0, "mincore");
		for (uint32_t i = 0; i < n; i++) {
			if (!(in[i] & 1))
				fail(w, "locked page %p is out", (void *)(at + (size_t)i * PAGE));
		}
		struct range *other = pick(w, RANGE_FREE);

		check_range(w, other, 0, other->pages < 64 ? other->pages : 64);
	}
	check_range(w, r, first, n);
	must(w, munlock(at, (size_t)n * PAGE) == 0, "munlock");
}

/* Transparent huge pages, where the machine has them. */
void op_huge(struct worker *w)
{
	uint32_t pages = HUGE / PAGE;
	struct range *r = fresh(w, pages);

	if (!r)
		return;
	char *p = map_anywhere(w, 2 * HUGE), *at = (char *)(((uintptr_t)p + HUGE - 1) / HUGE * HUGE);

	if (at > p)
		must(w, munmap(p, (size_t)(at - p)) == 0, "munmap");
	must(w, munmap(at + HUGE, (size_t)(p + HUGE - at)) == 0, "munmap");
	if (madvise(at, HUGE, MADV_HUGEPAGE) != 0)
		must(w, errno == EINVAL, "madvise hugepage");
	adopt(w, r, RANGE_MAPPED, at, pages);
	for (uint32_t i = 0; i < pages; i += 1 + below(w, 4))
		write_page(w, r, i);
}
