/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shadow test of the library: threads do at random everything that a program can do with its regions, and a shadow
 * knows every byte that must be there.
 *
 * What a page holds is one number, from which every word of it follows; so the shadow is small, and a page of another
 * region, an older one or a torn one fails. A region's lock is taken shared by what uses the region, alone by what
 * must have it alone: resizing, destroying, and half of the clones. Pages have locks (a group of neighbours shares one),
 * taken by what writes and by reads that are checked exactly. Other reads take none: what such a read sees must be what
 * the page held between its begin and its end. The other half of the clones are taken while others write, and each
 * page of such a clone must be as it was at some moment meanwhile: one that was being written is new up to a word and
 * old from there on.
 *
 * With --fail N, one in N of these fails: commits of more than a page, writes and reads of the files. Only where a call
 * can say so: no commit of a page, of descriptors it may be, for a fault that needs them has nobody to tell; and of the
 * reads those that a pin makes. Calls may then fail, and the cap may be exceeded; no byte may be wrong. At the end every
 * page is checked again, everything is destroyed, and the statistics must be those of an empty space.
 */
#include "platform/platform.h"
#include "spillway.h"
#include "tier/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE        4096u
#define WORDS       (PAGE / 8)
#define MIB         (1ull << 20)
#define SPACES      2u
#define SLOTS       16u /* regions at most */
#define MAX_PAGES   4096u
#define GROUP       8u  /* pages that share a lock */
#define BATCH       16u /* pages of one system call */
#define LONG        64u /* pages of one advice */
#define PINS        2u  /* that a thread holds for longer */
#define FILES       2u  /* of a space at a time */
#define MIN_RAM     (10 * MIB)
#define MAX_RAM     (20 * MIB)
#define MAX_THREADS 64u

#define CHECK(cond, ...)                                    \
	do {                                                \
		if (!(cond))                                \
			fail(__LINE__, #cond, __VA_ARGS__); \
	} while (0)

#define GET(x)    __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define SET(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELEASE)
#define ADD(x, n) __atomic_fetch_add(&(x), (n), __ATOMIC_RELAXED)

static uint64_t seed = 1;

static void __attribute__((noreturn, format(printf, 3, 4))) fail(int line, const char *what, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "shadow: line %d: %s: ", line, what);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (seed %llu)\n", (unsigned long long)seed);
	abort();
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t next(uint64_t *rng)
{
	*rng += 0x9e3779b97f4a7c15u;
	return mix(*rng);
}

/* ---- injected failures: by threads of any kind, so from a stream that all share ---- */

static uint64_t fail_in; /* 0: none; atomic */
static uint64_t fail_rng;
static struct {
	uint64_t commit, write, read;
} injected;

/* The threads whose reads may fail at the moment. */
static struct {
	pthread_t thread;
	bool pins;
} pinning[MAX_THREADS];

static bool fails(void)
{
	uint64_t n = GET(fail_in);

	return n && mix(ADD(fail_rng, 0x9e3779b97f4a7c15u)) % n == 0;
}

int __real_spw__plat_commit(void *p, size_t bytes);
int __wrap_spw__plat_commit(void *p, size_t bytes);

int __wrap_spw__plat_commit(void *p, size_t bytes)
{
	if (bytes > PAGE && fails()) {
		ADD(injected.commit, 1);
		return -ENOMEM;
	}
	return __real_spw__plat_commit(p, bytes);
}

static struct spw_file_io real_io;

static bool this_one_pins(void)
{
	pthread_t self = pthread_self();

	for (unsigned i = 0; i < MAX_THREADS; i++)
		if (GET(pinning[i].pins) && pthread_equal(GET(pinning[i].thread), self))
			return true;
	return false;
}

static int64_t failing_read(void *ctx, void *buf, size_t len, uint64_t off)
{
	if (this_one_pins() && fails()) {
		ADD(injected.read, 1);
		return -EIO;
	}
	return real_io.read(ctx, buf, len, off);
}

static int failing_reap(void *ctx, uint64_t wait_ns, uint64_t *token, int64_t *result)
{
	int n = real_io.reap(ctx, wait_ns, token, result);

	if (n && fails()) {
		ADD(injected.write, 1);
		*result = *result > (int64_t)PAGE && *token % 2 ? *result - PAGE : -EIO;
	}
	return n;
}

int __real_spw__file_io_open(int fd, struct spw_file_io *out);
int __wrap_spw__file_io_open(int fd, struct spw_file_io *out);

int __wrap_spw__file_io_open(int fd, struct spw_file_io *out)
{
	int err = __real_spw__file_io_open(fd, out);

	if (err)
		return err;
	SET(real_io.read, out->read);
	SET(real_io.reap, out->reap);
	out->read = failing_read;
	out->reap = failing_reap;
	return 0;
}

/* ---- pages ---- */

/*
 * What a page holds: seed of its words (46 bits, 0: zeros), a number (8 bits), and which word was written after the
 * others (10 bits, from 1 on; 0: none).
 */
#define PATCH_BITS 10
#define SEED_SHIFT 18

static uint64_t patched(uint64_t v, unsigned k, uint64_t r)
{
	return v >> SEED_SHIFT << SEED_SHIFT | (r & 0xff) << PATCH_BITS | (k + 1);
}

/* Word k: a quarter of the pages same-filled, a fifth incompressible, the rest about 3:1. */
static uint64_t word(uint64_t v, unsigned k)
{
	uint64_t s = v >> SEED_SHIFT;

	if ((v & ((1u << PATCH_BITS) - 1)) == k + 1)
		return mix(v);
	if (s % 20 < 5)
		return s % 20 ? (s & UINT32_MAX) * 0x100000001u : 0;
	if (s % 20 == 5)
		return mix(s);
	return s % 20 < 10 || k % 5 == 0 ? mix(s + ((uint64_t)k << 46)) : s;
}

static uint64_t *words_of(void *page)
{
	return __builtin_assume_aligned(page, PAGE);
}

static uint64_t get_word(const uint64_t *w)
{
	return __atomic_load_n(w, __ATOMIC_RELAXED);
}

static void put_word(uint64_t *w, uint64_t v)
{
	__atomic_store_n(w, v, __ATOMIC_RELAXED);
}

static void put_words(uint64_t *w, uint64_t v)
{
	for (unsigned k = 0; k < WORDS; k++)
		put_word(w + k, word(v, k));
}

/* The first word that is not v's; WORDS: there is none. */
static unsigned differs(const uint64_t *w, uint64_t v)
{
	unsigned k = 0;

	while (k < WORDS && get_word(w + k) == word(v, k))
		k++;
	return k;
}

/* ---- the shadow ---- */

struct page {
	uint64_t now, before; /* atomic; what it holds, and held before the last change */
	uint32_t seq; /* atomic; 4 a change, of which 1: these are set, 2: the page changes from before to now */
};

struct slot {
	pthread_rwlock_t lock; /* of all but the pages */
	struct spw_region *region;
	struct spw_space *space;
	char *base;
	uint32_t pages;
	uint32_t pins;                            /* atomic: there are */
	uint32_t pin_ops;                         /* atomic: there were */
	pthread_mutex_t group[MAX_PAGES / GROUP]; /* of what the pages hold */
	struct page page[MAX_PAGES];
};

struct file {
	int fd;
	bool used;
	unsigned tier;
};

static struct slot slots[SLOTS];
static struct spw_space *spaces[SPACES];
static struct spw_space_stats empty[SPACES];
static pthread_mutex_t upkeep_lock[SPACES]; /* of files[] */
static struct file files[SPACES][FILES];
static uint32_t hot; /* atomic: first of the pages that all threads prefer for now */
static struct {
	uint64_t written, patched, read, raced, unjudged, discarded, pinned, refused, cloned, overtaken, torn, resized,
		destroyed, drained, full;
} done;

struct pin {
	struct slot *s; /* NULL: none */
	uint32_t first, n;
};

struct thread {
	pthread_t id;
	unsigned number;
	uint64_t ops, rng;
	int file; /* for system calls */
	struct pin pin[PINS];
	uint64_t *buffer;   /* BATCH pages */
	struct page *begin; /* MAX_PAGES: what they held before a clone was taken */
};

static uint32_t rnd(struct thread *t, uint32_t n)
{
	return (uint32_t)((next(&t->rng) >> 32) * n >> 32);
}

static bool one_in(struct thread *t, uint32_t n)
{
	return !rnd(t, n);
}

static uint64_t fresh(struct thread *t)
{
	return one_in(t, 16) ? 0 : next(&t->rng) >> SEED_SHIFT << SEED_SHIFT;
}

static uint64_t *page_at(const struct slot *s, uint32_t i)
{
	return words_of(s->base + (size_t)i * PAGE);
}

static void lock_pages(struct slot *s, uint32_t first, uint32_t n)
{
	for (uint32_t g = first / GROUP; g <= (first + n - 1) / GROUP; g++)
		pthread_mutex_lock(&s->group[g]);
}

static void unlock_pages(struct slot *s, uint32_t first, uint32_t n)
{
	for (uint32_t g = first / GROUP; g <= (first + n - 1) / GROUP; g++)
		pthread_mutex_unlock(&s->group[g]);
}

#define CHANGING(seq)        ((seq)&2)
#define CHANGES(last, first) (((last) + 2) / 4 - ((first) + 2) / 4) /* begun from the first look to the last */

static void begin_change(struct page *p, uint64_t v)
{
	SET(p->seq, p->seq + 1);
	SET(p->before, p->now);
	SET(p->now, v);
	SET(p->seq, p->seq + 1);
}

static void end_change(struct page *p)
{
	SET(p->seq, p->seq + 2);
}

/* Without the lock: what there is, and seq with it. */
static uint32_t look(const struct page *p, uint64_t *now, uint64_t *before)
{
	uint32_t seq, again = GET(p->seq);

	do {
		seq = again;
		*before = GET(p->before);
		*now = GET(p->now);
		again = GET(p->seq);
	} while (seq != again || seq & 1);
	return seq;
}

static unsigned words_of_it(const uint64_t *w, uint64_t v)
{
	unsigned n = 0;

	for (unsigned k = 0; k < WORDS; k++)
		n += get_word(w + k) == word(v, k);
	return n;
}

/* w is neither now nor what p says. */
static void __attribute__((noreturn))
wrong(const struct slot *s, uint32_t i, const uint64_t *w, const struct page *p, uint64_t now, int line)
{
	unsigned k = differs(w, now);

	fail(line, "bytes",
	     "slot %u page %u of %u at %p: word %u is %016llx, should be %016llx; as now %u words, as at first %u, as "
	     "before %u, zeros %u",
	     (unsigned)(s - slots), i, s->pages, (const void *)page_at(s, i), k,
	     (unsigned long long)get_word(w + k % WORDS), (unsigned long long)word(now, k), words_of_it(w, now),
	     words_of_it(w, p->now), words_of_it(w, p->before), words_of_it(w, 0));
}

/* Locked. */
static void check_page(const struct slot *s, uint32_t i)
{
	const uint64_t *w = page_at(s, i);

	if (differs(w, s->page[i].now) != WORDS)
		wrong(s, i, w, &s->page[i], s->page[i].now, __LINE__);
	ADD(done.read, 1);
}

static uint32_t some_page(struct thread *t, const struct slot *s)
{
	uint32_t r = rnd(t, 8);

	return (r < 4 ? GET(hot) + rnd(t, r ? 64 : 3) : rnd(t, s->pages)) % s->pages;
}

/* Up to `most` pages from *first on. */
static uint32_t some_pages(struct thread *t, const struct slot *s, uint32_t most, uint32_t *first)
{
	uint32_t n = 1 + rnd(t, most);

	*first = some_page(t, s);
	return n < s->pages - *first ? n : s->pages - *first;
}

/* ---- what uses a region: its lock is held shared ---- */

static void op_write(struct thread *t, struct slot *s)
{
	uint32_t first, n = some_pages(t, s, one_in(t, 8) ? 32 : 1, &first);

	for (uint32_t i = first; i < first + n; i++) {
		uint64_t v = fresh(t);

		lock_pages(s, i, 1);
		begin_change(&s->page[i], v);
		put_words(page_at(s, i), v);
		end_change(&s->page[i]);
		unlock_pages(s, i, 1);
	}
	ADD(done.written, n);
}

/* One word: what the others are must survive the write. The word that was patched before becomes what it was. */
static void op_patch(struct thread *t, struct slot *s)
{
	uint32_t i = some_page(t, s);
	unsigned k = rnd(t, WORDS), old;
	struct page *p = &s->page[i];
	uint64_t v;

	lock_pages(s, i, 1);
	old = p->now & ((1u << PATCH_BITS) - 1);
	v = patched(p->now, k, next(&t->rng));
	begin_change(p, v);
	if (old)
		put_word(page_at(s, i) + old - 1, word(v, old - 1));
	put_word(page_at(s, i) + k, word(v, k));
	end_change(p);
	unlock_pages(s, i, 1);
	ADD(done.patched, 1);
}

static void op_read(struct thread *t, struct slot *s)
{
	uint32_t i = some_page(t, s);

	lock_pages(s, i, 1);
	check_page(s, i);
	unlock_pages(s, i, 1);
}

static void op_read_racing(struct thread *t, struct slot *s)
{
	uint32_t i = some_page(t, s), first, last;
	const uint64_t *w = page_at(s, i);
	unsigned k = rnd(t, WORDS);
	uint64_t now, before, later, unused, got;

	first = look(&s->page[i], &now, &before);
	got = get_word(w + k);
	last = look(&s->page[i], &later, &unused);
	ADD(done.raced, last != first);
	if (CHANGES(last, first) > 1) {
		ADD(done.unjudged, 1);
		return;
	}
	CHECK(got == word(now, k) || got == word(later, k) || (CHANGING(first) && got == word(before, k)),
	      "slot %u page %u word %u is %016llx, may be %016llx or %016llx", (unsigned)(s - slots), i, k,
	      (unsigned long long)got, (unsigned long long)word(now, k), (unsigned long long)word(later, k));
}

/* All in order, or at steps; up or down. */
static void op_scan(struct thread *t, struct slot *s)
{
	bool down = one_in(t, 3);
	uint32_t step = one_in(t, 2) ? 1 : 2 + rnd(t, 30);

	for (uint32_t i = 0; i < s->pages; i += step) {
		uint32_t at = down ? s->pages - 1 - i : i;

		lock_pages(s, at, 1);
		check_page(s, at);
		unlock_pages(s, at, 1);
	}
}

static void op_advise(struct thread *t, struct slot *s)
{
	static const enum spw_advice advice[] = {SPW_WILLNEED, SPW_COLD, SPW_COLD, SPW_NORMAL, SPW_RANDOM};
	enum spw_advice a = advice[rnd(t, 5)];
	uint32_t first, n = some_pages(t, s, one_in(t, 4) ? MAX_PAGES : LONG, &first);
	bool whole = a == SPW_NORMAL || a == SPW_RANDOM;
	int rc = spw_region_advise(s->region, whole ? 0 : (size_t)first * PAGE,
				   whole ? (size_t)s->pages * PAGE : (size_t)n * PAGE, a);

	CHECK(!rc, "advice %d: %d", a, rc);
}

static void op_discard(struct thread *t, struct slot *s)
{
	uint32_t first, n = some_pages(t, s, LONG, &first);
	int rc;

	lock_pages(s, first, n);
	if (GET(s->pins)) {
		unlock_pages(s, first, n);
		return;
	}
	for (uint32_t i = first; i < first + n; i++)
		begin_change(&s->page[i], 0);
	rc = spw_region_advise(s->region, (size_t)first * PAGE, (size_t)n * PAGE, SPW_DISCARD);
	CHECK(!rc, "%d", rc);
	for (uint32_t i = first; i < first + n; i++)
		end_change(&s->page[i]);
	if (one_in(t, 4))
		check_page(s, first + rnd(t, n));
	unlock_pages(s, first, n);
	ADD(done.discarded, n);
}

/* 0, or what may be the reason that it is refused. */
static int pin(struct thread *t, struct slot *s, uint32_t first, uint32_t n)
{
	int rc;

	ADD(s->pin_ops, 1);
	ADD(s->pins, 1);
	SET(pinning[t->number].pins, true);
	rc = spw_region_pin(s->region, (size_t)first * PAGE, (size_t)n * PAGE);
	SET(pinning[t->number].pins, false);
	CHECK(!rc || rc == -ENOMEM || (GET(fail_in) && rc == -EIO), "pin of %u: %d", n, rc);
	ADD(s->pins, rc ? -1u : 0);
	ADD(done.pinned, !rc);
	ADD(done.refused, !!rc);
	return rc;
}

static void unpin(struct slot *s, uint32_t first, uint32_t n)
{
	int rc = spw_region_unpin(s->region, (size_t)first * PAGE, (size_t)n * PAGE);

	CHECK(!rc, "unpin of %u: %d", n, rc);
	ADD(s->pins, -1u);
}

/* Pinned and locked: the kernel reads it. */
static void check_by_kernel(struct thread *t, struct slot *s, uint32_t first, uint32_t n)
{
	ssize_t bytes = (ssize_t)n * PAGE, got = pwrite(t->file, s->base + (size_t)first * PAGE, (size_t)bytes, 0);

	CHECK(got == bytes, "write: %zd, errno %d", got, errno);
	got = pread(t->file, t->buffer, (size_t)bytes, 0);
	CHECK(got == bytes, "read back: %zd", got);
	for (uint32_t i = 0; i < n; i++)
		if (differs(t->buffer + i * WORDS, s->page[first + i].now) != WORDS)
			wrong(s, first + i, t->buffer + i * WORDS, &s->page[first + i], s->page[first + i].now,
			      __LINE__);
}

static void op_system_call_reads(struct thread *t, struct slot *s)
{
	uint32_t first, n = some_pages(t, s, BATCH, &first);

	lock_pages(s, first, n);
	if (!pin(t, s, first, n)) {
		check_by_kernel(t, s, first, n);
		unpin(s, first, n);
	}
	unlock_pages(s, first, n);
}

static void op_system_call_writes(struct thread *t, struct slot *s)
{
	uint32_t first, n = some_pages(t, s, BATCH, &first);
	uint64_t v[BATCH];
	ssize_t got;

	for (uint32_t i = 0; i < n; i++) {
		v[i] = fresh(t);
		put_words(t->buffer + i * WORDS, v[i]);
	}
	got = pwrite(t->file, t->buffer, (size_t)n * PAGE, 0);
	CHECK(got == (ssize_t)(n * PAGE), "write: %zd", got);
	lock_pages(s, first, n);
	if (!pin(t, s, first, n)) {
		for (uint32_t i = 0; i < n; i++)
			begin_change(&s->page[first + i], v[i]);
		got = pread(t->file, s->base + (size_t)first * PAGE, (size_t)n * PAGE, 0);
		CHECK(got == (ssize_t)(n * PAGE), "read: %zd, errno %d", got, errno);
		for (uint32_t i = 0; i < n; i++)
			end_change(&s->page[first + i]);
		unpin(s, first, n);
		if (one_in(t, 2))
			check_page(s, first + rnd(t, n));
	}
	unlock_pages(s, first, n);
}

/* A pin that outlives the operation: the region stays until it is let go. */
static void op_hold(struct thread *t, struct slot *s)
{
	struct pin *p = &t->pin[rnd(t, PINS)];
	uint32_t first, n;

	if (p->s)
		return;
	n = some_pages(t, s, BATCH, &first);
	lock_pages(s, first, n);
	if (!pin(t, s, first, n))
		*p = (struct pin){s, first, n};
	unlock_pages(s, first, n);
}

static void let_go(struct thread *t, struct pin *p)
{
	struct slot *s = p->s;

	if (!s)
		return;
	pthread_rwlock_rdlock(&s->lock);
	lock_pages(s, p->first, p->n);
	check_by_kernel(t, s, p->first, p->n);
	unlock_pages(s, p->first, p->n);
	unpin(s, p->first, p->n);
	p->s = NULL;
	pthread_rwlock_unlock(&s->lock);
}

static void check_stats(const struct slot *s)
{
	struct spw_region_stats st;
	uint64_t bytes = (uint64_t)s->pages * PAGE;

	spw_region_stats(s->region, &st, sizeof(st));
	CHECK(st.bytes == bytes && spw_region_size(s->region) == bytes, "%llu", (unsigned long long)st.bytes);
	CHECK(st.resident_bytes <= bytes && st.pinned_bytes <= bytes && st.out_bytes <= bytes &&
		      st.shared_bytes <= bytes,
	      "resident %llu pinned %llu out %llu shared %llu of %llu", (unsigned long long)st.resident_bytes,
	      (unsigned long long)st.pinned_bytes, (unsigned long long)st.out_bytes,
	      (unsigned long long)st.shared_bytes, (unsigned long long)bytes);
}

/* ---- what makes and ends regions: the lock is held alone ---- */

static void make(struct thread *t, struct slot *s)
{
	size_t bytes = 1 + ((size_t)rnd(t, MAX_PAGES) * PAGE + rnd(t, PAGE)) / (one_in(t, 4) ? 16 : 1);
	int rc;

	s->space = spaces[rnd(t, SPACES)];
	rc = spw_region_create(s->space, bytes, &s->region);
	if (rc) {
		CHECK(GET(fail_in) && rc == -ENOMEM, "region of %zu: %d", bytes, rc);
		s->region = NULL;
		return;
	}
	s->pages = (uint32_t)((bytes + PAGE - 1) / PAGE);
	s->base = spw_region_address(s->region);
	CHECK(s->base && (uintptr_t)s->base % PAGE == 0, "%p", (void *)s->base);
	memset(s->page, 0, sizeof(s->page));
	check_stats(s);
}

static void destroy(struct slot *s)
{
	spw_region_destroy(s->region);
	s->region = NULL;
	ADD(done.destroyed, 1);
}

static void resize(struct thread *t, struct slot *s)
{
	uint32_t pages = 1 + rnd(t, MAX_PAGES);
	int rc = spw_region_resize(s->region, (size_t)pages * PAGE - rnd(t, PAGE));

	if (rc) {
		CHECK((GET(s->pins) && rc == -EBUSY) || (GET(fail_in) && rc == -ENOMEM), "from %u to %u: %d", s->pages,
		      pages, rc);
		CHECK(spw_region_address(s->region) == s->base, "moved");
		check_stats(s);
		return;
	}
	CHECK(!GET(s->pins) || spw_region_address(s->region) == s->base, "pinned pages have moved");
	s->base = spw_region_address(s->region);
	for (uint32_t i = s->pages; i < pages; i++)
		s->page[i] = (struct page){0};
	s->pages = pages;
	check_stats(s);
	check_page(s, pages - 1);
	ADD(done.resized, 1);
}

static bool clone_to(struct slot *s, struct slot *to)
{
	int rc = spw_region_clone(s->region, &to->region);

	if (rc) {
		/* For pinned pages there has to be room. */
		CHECK(rc == -ENOMEM, "%d", rc);
		ADD(done.refused, 1);
		to->region = NULL;
		return false;
	}
	to->space = s->space;
	to->pages = s->pages;
	to->base = spw_region_address(to->region);
	CHECK(to->base && to->base != s->base, "clone at %p", (void *)to->base);
	check_stats(to);
	ADD(done.cloned, 1);
	return true;
}

/* Nobody uses the region. */
static void clone_still(struct slot *s, struct slot *to)
{
	if (!clone_to(s, to))
		return;
	for (uint32_t i = 0; i < s->pages; i++)
		to->page[i] = (struct page){.now = s->page[i].now};
	for (uint32_t i = 0; i < s->pages; i += 37) {
		check_page(to, i);
		check_page(s, i);
	}
}

/* New up to some word, and old from there on; in any order where a system call may have written it. */
static bool half_written(const uint64_t *w, uint64_t new, uint64_t old, bool by_system_call)
{
	for (unsigned k = by_system_call ? 0 : differs(w, new); k < WORDS; k++)
		if (get_word(w + k) != word(old, k) && !(by_system_call && get_word(w + k) == word(new, k)))
			return false;
	return true;
}

/* The word that was patched before is what it was, the other one not yet. */
static bool half_patched(const uint64_t *w, uint64_t new, uint64_t old)
{
	return new >> SEED_SHIFT == old >> SEED_SHIFT &&differs(w, new >> SEED_SHIFT << SEED_SHIFT) == WORDS;
}

static bool halfway(const uint64_t *w, uint64_t new, uint64_t old, bool by_system_call)
{
	return half_written(w, new, old, by_system_call) || half_patched(w, new, old);
}

/* Page i of a clone, taken while others wrote: as it was at a moment meanwhile. The shadow learns which. */
static void judge(struct thread *t, const struct slot *s, struct slot *to, uint32_t i, bool by_system_call)
{
	const struct page *begin = &t->begin[i];
	uint64_t now, before, v = fresh(t);
	uint32_t seq = look(&s->page[i], &now, &before);
	uint64_t *w = page_at(to, i);

	if (differs(w, begin->now) == WORDS) {
		v = begin->now;
	} else if (CHANGES(seq, begin->seq) > 1) {
		ADD(done.unjudged, 1);
		put_words(w, v);
	} else if (differs(w, now) == WORDS) {
		ADD(done.overtaken, 1);
		v = now;
	} else {
		if (!(CHANGING(begin->seq) && halfway(w, begin->now, begin->before, by_system_call)) &&
		    !(CHANGES(seq, begin->seq) && halfway(w, now, begin->now, by_system_call)))
			wrong(to, i, w, begin, now, __LINE__);
		ADD(done.torn, 1);
		put_words(w, v);
	}
	to->page[i] = (struct page){.now = v};
}

/* Others use the region, and write to it. */
static void clone_racing(struct thread *t, struct slot *s, struct slot *to)
{
	uint32_t pin_ops = GET(s->pin_ops);
	bool pinned = GET(s->pins);

	for (uint32_t i = 0; i < s->pages; i++)
		t->begin[i].seq = look(&s->page[i], &t->begin[i].now, &t->begin[i].before);
	if (!clone_to(s, to))
		return;
	pinned = pinned || GET(s->pin_ops) != pin_ops;
	for (uint32_t i = 0; i < s->pages; i++)
		judge(t, s, to, i, pinned);
}

/* The lock of an empty slot, or NULL. */
static struct slot *some_empty(struct thread *t)
{
	for (unsigned tries = 0; tries < 4; tries++) {
		struct slot *s = &slots[rnd(t, SLOTS)];

		if (pthread_rwlock_trywrlock(&s->lock))
			continue;
		if (!s->region)
			return s;
		pthread_rwlock_unlock(&s->lock);
	}
	return NULL;
}

static void op_clone(struct thread *t, struct slot *s, bool still)
{
	struct slot *to = some_empty(t);

	if (!to)
		return;
	if (still)
		clone_still(s, to);
	else
		clone_racing(t, s, to);
	pthread_rwlock_unlock(&to->lock);
}

/* ---- the space ---- */

static void add_file(struct thread *t, unsigned space, struct file *f)
{
	struct spw_file_options o = SPW_FILE_OPTIONS;
	char path[] = "/var/tmp/shadow-XXXXXX";
	int rc;

	f->fd = -1;
	o.bytes = (1 + rnd(t, 40)) * MIB;
	if (one_in(t, 2)) {
		f->fd = mkstemp(path);
		CHECK(f->fd >= 0 && !unlink(path) && !ftruncate(f->fd, (off_t)o.bytes), "%s: errno %d", path, errno);
	}
	o.fd = f->fd;
	o.priority = (int32_t)rnd(t, 256) - 128;
	o.plaintext = one_in(t, 2);
	rc = spw_space_add_file(spaces[space], &o, &f->tier);
	CHECK(!rc || (GET(fail_in) && rc == -ENOMEM), "%d", rc);
	f->used = !rc;
	if (rc && f->fd >= 0)
		close(f->fd);
}

static void drain_file(unsigned space, struct file *f)
{
	int rc = spw_space_drain(spaces[space], f->tier);

	/* -ENOMEM would be a failure of the pool's memory: what must have room elsewhere has none. */
	CHECK(!rc || rc == -ENOSPC || (GET(fail_in) && rc == -EIO), "%d", rc);
	ADD(done.full, !!rc);
	if (rc)
		return;
	ADD(done.drained, 1);
	CHECK(spw_space_drain(spaces[space], f->tier) == -ENOENT, "a file that has gone");
	CHECK(f->fd < 0 || !close(f->fd), "the file is the caller's: errno %d", errno);
	f->used = false;
}

static void op_file(struct thread *t)
{
	unsigned space = rnd(t, SPACES);
	struct file *f = &files[space][rnd(t, FILES)];

	if (pthread_mutex_trylock(&upkeep_lock[space]))
		return;
	if (f->used)
		drain_file(space, f);
	else
		add_file(t, space, f);
	pthread_mutex_unlock(&upkeep_lock[space]);
}

static void op_ram(struct thread *t)
{
	struct spw_space *space = spaces[rnd(t, SPACES)];

	CHECK(!spw_space_set_ram(space, MIN_RAM + rnd(t, MAX_RAM - MIN_RAM + 1)), "ram");
}

static void op_stats(struct thread *t)
{
	struct spw_space_stats st;

	spw_space_stats(spaces[rnd(t, SPACES)], &st, sizeof(st));
	CHECK(st.ram >= MIN_RAM && st.ram <= MAX_RAM, "%llu", (unsigned long long)st.ram);
}

/* ---- the threads ---- */

static void use(struct thread *t, struct slot *s)
{
	uint32_t r = rnd(t, 1000);

	if (r < 300)
		op_write(t, s);
	else if (r < 480)
		op_patch(t, s);
	else if (r < 700)
		op_read(t, s);
	else if (r < 880)
		op_read_racing(t, s);
	else if (r < 881)
		op_scan(t, s);
	else if (r < 920)
		op_advise(t, s);
	else if (r < 940)
		op_discard(t, s);
	else if (r < 960)
		op_system_call_reads(t, s);
	else if (r < 980)
		op_system_call_writes(t, s);
	else if (r < 990)
		op_hold(t, s);
	else if (r < 995)
		op_clone(t, s, false);
	else
		check_stats(s);
}

static void use_alone(struct thread *t, struct slot *s)
{
	uint32_t r = rnd(t, 4);

	if (!s->region)
		make(t, s);
	else if (r == 0 && !GET(s->pins))
		destroy(s);
	else if (r == 1)
		resize(t, s);
	else if (r == 2)
		op_clone(t, s, true);
}

static void op(struct thread *t)
{
	struct slot *s = &slots[rnd(t, SLOTS)];

	if (one_in(t, 2000))
		op_file(t);
	else if (one_in(t, 2000))
		op_ram(t);
	else if (one_in(t, 1000))
		op_stats(t);
	else if (one_in(t, 1000))
		SET(hot, rnd(t, MAX_PAGES));
	else if (one_in(t, 200))
		let_go(t, &t->pin[rnd(t, PINS)]);
	else if (one_in(t, 100)) {
		if (pthread_rwlock_trywrlock(&s->lock))
			return;
		use_alone(t, s);
		pthread_rwlock_unlock(&s->lock);
	} else {
		pthread_rwlock_rdlock(&s->lock);
		if (s->region)
			use(t, s);
		pthread_rwlock_unlock(&s->lock);
	}
}

static void *run(void *arg)
{
	struct thread *t = arg;

	SET(pinning[t->number].thread, pthread_self());
	for (uint64_t i = 0; i < t->ops; i++)
		op(t);
	for (unsigned i = 0; i < PINS; i++)
		let_go(t, &t->pin[i]);
	return NULL;
}

static void check_empty(unsigned space)
{
	struct spw_space_stats st;

	spw_space_stats(spaces[space], &st, sizeof(st));
	CHECK(!st.resident_bytes && !st.pinned_bytes, "resident %llu, pinned %llu",
	      (unsigned long long)st.resident_bytes, (unsigned long long)st.pinned_bytes);
	CHECK(!st.pool_pages && !st.same_pages && !st.file_pages, "pool %llu, same %llu, file %llu pages",
	      (unsigned long long)st.pool_pages, (unsigned long long)st.same_pages, (unsigned long long)st.file_pages);
	CHECK(!st.file_bytes && !st.file_capacity, "file %llu of %llu bytes", (unsigned long long)st.file_bytes,
	      (unsigned long long)st.file_capacity);
	/*
	 * What stays is bounded by the most that there was at once: of a table of frames and the queues of what came in,
	 * 12 bytes a page, and the work areas of threads.
	 */
	CHECK(st.metadata_bytes <= empty[space].metadata_bytes + 2 * SLOTS * MAX_PAGES * 12 + 2 * MIB,
	      "metadata %llu, of an empty space %llu", (unsigned long long)st.metadata_bytes,
	      (unsigned long long)empty[space].metadata_bytes);
	CHECK(st.used_bytes == st.resident_bytes + st.pool_bytes + st.metadata_bytes, "used %llu",
	      (unsigned long long)st.used_bytes);
	printf("space %u: faults %llu, first writes %llu; pages in %llu, out %llu (clean %llu, stored %llu), written "
	       "%llu, read %llu; peak %llu KiB, over %llu times\n",
	       space, (unsigned long long)st.faults, (unsigned long long)st.write_faults,
	       (unsigned long long)st.in_pages, (unsigned long long)st.out_pages, (unsigned long long)st.clean_pages,
	       (unsigned long long)st.stored_pages, (unsigned long long)st.written_pages,
	       (unsigned long long)st.read_pages, (unsigned long long)st.peak_bytes / 1024,
	       (unsigned long long)st.over_events);
	CHECK(st.faults && st.write_faults && st.in_pages && st.out_pages && st.clean_pages && st.stored_pages,
	      "something was never done");
}

/* All are quiet: every byte once more, then nothing is left. */
static void finish(struct thread *t)
{
	unsigned order[SLOTS], alive = 0;

	for (unsigned i = 0; i < SLOTS; i++) {
		unsigned j = rnd(t, i + 1);

		order[i] = order[j];
		order[j] = i;
		alive += !!slots[i].region;
		for (uint32_t k = 0; slots[i].region && k < slots[i].pages; k++)
			check_page(&slots[i], k);
	}
	CHECK(alive && done.cloned && done.pinned, "something was never done");
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &slots[order[i]];

		if (!s->region)
			continue;
		CHECK(spw_space_destroy(s->space) == -EBUSY, "a space with regions");
		destroy(s);
		for (unsigned k = 0; k < SLOTS; k++)
			if (slots[k].region)
				check_page(&slots[k], rnd(t, slots[k].pages));
	}
	for (unsigned i = 0; i < SPACES; i++) {
		for (unsigned k = 0; k < FILES; k++)
			if (files[i][k].used)
				drain_file(i, &files[i][k]);
		check_empty(i);
		if (one_in(t, 2))
			add_file(t, i, &files[i][0]);
		CHECK(!spw_space_destroy(spaces[i]), "space %u", i);
	}
}

static void make_spaces(const char *codec, enum spw_fault_mode mode)
{
	for (unsigned i = 0; i < SPACES; i++) {
		struct spw_space_options o = SPW_SPACE_OPTIONS;
		int rc;

		o.ram = MAX_RAM;
		o.codec = codec;
		o.fault = mode;
		o.zswap = i ? 0 : MIN_RAM / 2;
		o.addresses = i ? 0 : 1ull << 30;
		rc = spw_space_create(&o, &spaces[i]);
		CHECK(!rc, "%d", rc);
		spw_space_stats(spaces[i], &empty[i], sizeof(empty[i]));
		pthread_mutex_init(&upkeep_lock[i], NULL);
	}
}

static void make_thread(struct thread *t, unsigned number, uint64_t ops)
{
	t->number = number;
	t->ops = ops;
	t->rng = mix(seed + number);
	t->file = memfd_create("shadow", MFD_CLOEXEC);
	t->buffer = aligned_alloc(PAGE, (size_t)BATCH * PAGE);
	t->begin = malloc(MAX_PAGES * sizeof(*t->begin));
	CHECK(t->file >= 0 && t->buffer && t->begin, "memory");
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (end == text || *end) {
		fprintf(stderr, "shadow: not a number: %s\n", text);
		exit(2);
	}
	return n;
}

static struct {
	uint64_t ops, threads, fail;
	enum spw_fault_mode mode;
	const char *codec;
} options = {.ops = 200000, .threads = 8, .mode = SPW_FAULT_SIGNAL};

static void parse(int argc, char **argv)
{
	int i = 1;

	for (; i + 1 < argc; i += 2) {
		const char *name = argv[i], *value = argv[i + 1];

		if (!strcmp(name, "--threads"))
			options.threads = number(value);
		else if (!strcmp(name, "--ops"))
			options.ops = number(value);
		else if (!strcmp(name, "--seed"))
			seed = number(value);
		else if (!strcmp(name, "--fail"))
			options.fail = number(value);
		else if (!strcmp(name, "--codec"))
			options.codec = value;
		else if (!strcmp(name, "--mode") && !strcmp(value, "thread"))
			options.mode = SPW_FAULT_THREAD;
		else if (strcmp(name, "--mode") || strcmp(value, "signal"))
			break;
	}
	if (i < argc || !options.threads || options.threads > MAX_THREADS) {
		fprintf(stderr, "usage: shadow [--threads N] [--ops N] [--seed S] [--fail N] [--mode signal|thread] "
				"[--codec C]\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	static struct thread t[MAX_THREADS];

	parse(argc, argv);
	printf("shadow: seed %llu, %llu threads, %llu operations\n", (unsigned long long)seed,
	       (unsigned long long)options.threads, (unsigned long long)options.ops);
	fflush(stdout);
	fail_rng = seed;
	for (unsigned i = 0; i < SLOTS; i++) {
		pthread_rwlock_init(&slots[i].lock, NULL);
		for (unsigned k = 0; k < MAX_PAGES / GROUP; k++)
			pthread_mutex_init(&slots[i].group[k], NULL);
	}
	make_spaces(options.codec, options.mode);
	SET(fail_in, options.fail);
	for (unsigned i = 0; i < options.threads; i++) {
		make_thread(&t[i], i, options.ops / options.threads);
		CHECK(!pthread_create(&t[i].id, NULL, run, &t[i]), "thread");
	}
	for (unsigned i = 0; i < options.threads; i++)
		pthread_join(t[i].id, NULL);
	SET(fail_in, 0);
	finish(&t[0]);
	printf("written %llu, patched %llu, discarded %llu, read %llu, raced %llu, not judged %llu\n",
	       (unsigned long long)done.written, (unsigned long long)done.patched, (unsigned long long)done.discarded,
	       (unsigned long long)done.read, (unsigned long long)done.raced, (unsigned long long)done.unjudged);
	printf("clones %llu (pages overtaken %llu, torn %llu), resized %llu, destroyed %llu, pins %llu, refused %llu, "
	       "drained %llu, full %llu\n",
	       (unsigned long long)done.cloned, (unsigned long long)done.overtaken, (unsigned long long)done.torn,
	       (unsigned long long)done.resized, (unsigned long long)done.destroyed, (unsigned long long)done.pinned,
	       (unsigned long long)done.refused, (unsigned long long)done.drained, (unsigned long long)done.full);
	printf("injected: commit %llu, write %llu, read %llu\n", (unsigned long long)injected.commit,
	       (unsigned long long)injected.write, (unsigned long long)injected.read);
	for (unsigned i = 0; i < options.threads; i++) {
		free(t[i].buffer);
		free(t[i].begin);
		close(t[i].file);
	}
	return 0;
}
