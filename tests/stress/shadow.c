/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shadow test: threads do everything that the space can do, at random, and a shadow knows what must be there.
 *
 * A test that locks each entry around each operation would test a space that nobody uses: what is hard are the
 * operations that overlap. So the shadow has two kinds of check. Operations that change an entry take the shadow lock
 * of its group and are checked exactly, while writeback, completions, compaction and cleaning run underneath without
 * any lock. Loads are also done with no lock at all, against everything: each entry keeps a short history of its
 * states, and what such a load returns must be one of the states that the entry had between its begin and its end. The
 * store of a frame runs unlocked as well and may be overtaken (-ESTALE), but only by what the shadow saw overtake it.
 *
 * The bytes of a page are a function of (entry, version), so a page of another entry, an older version or a torn page
 * fails. Some versions are common to all entries: who stores one of those may find a twin, and joins it if that is
 * still, to the byte, what the shadow says. Failures of put, begin, add, commit, reads and writes are injected, and
 * nothing may be lost by them. Drains begin, go on by steps and are cancelled. One tier is denied to the space, and of
 * the clusters taken some may use only some of the others: whatever is put on a tier is checked against that, below the
 * space. At the end the pool is drained to the file, the file to another pool, every page is checked again, everything
 * is freed, and every counter must be back where it began.
 */
#include "platform/platform.h"
#include "space/space.h"
#include "tier/file.h"
#include "tier/zswap.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CLUSTERS    40u
#define ENTRIES     (CLUSTERS * SPW_CLUSTER)
#define GROUP       16u /* entries that share a shadow lock */
#define FRAMES      512u
#define TAKEN_MAX   16u
#define LIVE_TARGET 12000u
#define POOL_BYTES  (10u << 20)
#define FILE_BYTES  (14u << 20)
#define HISTORY     8u
#define HOT         8u
#define TWINS       4096u
#define COMMON      0x80000000u /* versions that entries have in common */
#define COMMONS     64u

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

/* ---- random numbers: a stream a thread, also for what is injected below it ---- */

static __thread uint64_t rng;

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint32_t rnd(uint32_t n)
{
	rng += 0x9e3779b97f4a7c15u;
	return (uint32_t)((mix(rng) >> 32) * n >> 32);
}

static bool one_in(uint32_t n)
{
	return !rnd(n);
}

/* ---- injected failures ---- */

static bool inject; /* from the first operation to the last */
static struct {
	uint64_t put, begin, add, commit, read, write;
} injected;

/* In the middle of operations: let others overtake, more often than few processors would by themselves. */
static void dawdle(void)
{
	if (GET(inject) && one_in(4))
		sched_yield();
}

int __real_spw__plat_commit(void *p, size_t bytes);
int __wrap_spw__plat_commit(void *p, size_t bytes);

int __wrap_spw__plat_commit(void *p, size_t bytes)
{
	if (GET(inject) && one_in(100)) {
		ADD(injected.commit, 1);
		return -ENOMEM;
	}
	return __real_spw__plat_commit(p, bytes);
}

uint32_t __real_spw__codec_compress(const struct spw_codec *c, void *work, const void *src, void *dst,
				    uint32_t dst_size);
uint32_t __wrap_spw__codec_compress(const struct spw_codec *c, void *work, const void *src, void *dst,
				    uint32_t dst_size);

uint32_t __wrap_spw__codec_compress(const struct spw_codec *c, void *work, const void *src, void *dst,
				    uint32_t dst_size)
{
	dawdle();
	return __real_spw__codec_compress(c, work, src, dst, dst_size);
}

static const struct spw_tier_ops *pool_ops, *file_ops;

/* ---- tiers that may not be used ---- */

enum { POOL, FILE_TIER, REFUGE, ANNEX, LOW, BARRED };
static uint8_t cluster_state[CLUSTERS]; /* atomic */
enum { ELSEWHERE, TAKEN, CLOSING };

static uint64_t placed[SPW_MAX_TIERS]; /* objects of clusters that may not use all tiers */

/* What a taken cluster may use; told as soon as it is taken. */
static uint32_t allowed_to(uint32_t cluster)
{
	static const uint32_t denied[] = {0, 1u << POOL, 1u << FILE_TIER, 1u << FILE_TIER | 1u << LOW, 1u << LOW};

	return ((1u << BARRED) - 1) & ~denied[cluster % 5];
}

/* It is locked: as long as it lives its cluster stays what it is. */
static void check_placed(const struct spw_tier *t, spw_entry_t e)
{
	uint32_t c = e.idx / SPW_CLUSTER;

	CHECK(t->number != BARRED, "entry %u", e.idx);
	CHECK(GET(cluster_state[c]) == ELSEWHERE || allowed_to(c) & 1u << t->number, "entry %u on tier %u", e.idx,
	      t->number);
	ADD(placed[t->number], GET(cluster_state[c]) != ELSEWHERE && c % 5);
}

static int failing_put(struct spw_tier *t, spw_entry_t e, const struct spw_obj *o, spw_slot_t *out)
{
	check_placed(t, e);
	if (GET(inject) && one_in(100)) {
		ADD(injected.put, 1);
		return one_in(2) ? -ENOSPC : -ENOMEM;
	}
	dawdle();
	return pool_ops->put(t, e, o, out);
}

static const void *slow_map(struct spw_tier *t, spw_slot_t s)
{
	dawdle();
	return pool_ops->map(t, s);
}

static void slow_pool_free(struct spw_tier *t, spw_slot_t s)
{
	dawdle();
	pool_ops->free(t, s);
}

static void slow_file_free(struct spw_tier *t, spw_slot_t s)
{
	dawdle();
	file_ops->free(t, s);
}

static int failing_begin(struct spw_tier *t, struct spw_segment **out)
{
	static const int why[] = {-ENOSPC, -EAGAIN, -EIO};

	if (GET(inject) && one_in(20)) {
		ADD(injected.begin, 1);
		return why[rnd(3)];
	}
	return file_ops->begin(t, out);
}

static int failing_add(struct spw_tier *t, struct spw_segment *g, spw_entry_t e, const struct spw_obj *o,
		       spw_slot_t from, spw_slot_t *out)
{
	check_placed(t, e);
	if (GET(inject) && one_in(500)) {
		ADD(injected.add, 1);
		return -ENOSPC;
	}
	return file_ops->add(t, g, e, o, from, out);
}

/* I/O on a file in memory. A write happens when it is reaped, and stays in flight for a few polls. */
struct disk {
	int fd;
	pthread_mutex_t lock;
	unsigned n;
	struct {
		const void *buf;
		size_t len;
		uint64_t off, token;
	} write[16];
	struct {
		void *buf;
		size_t len;
		uint64_t off;
	} early[SPW_FILE_EARLY];
};

static int64_t disk_read(void *ctx, void *buf, size_t len, uint64_t off)
{
	struct disk *d = ctx;

	if (GET(inject) && one_in(300)) {
		ADD(injected.read, 1);
		return -EIO;
	}
	for (unsigned n = rnd(4); n; n--)
		dawdle();
	return pread(d->fd, buf, len, (off_t)off);
}

/* Read when it is finished: what lies there may be something else by then. */
static bool disk_start(void *ctx, unsigned n, void *buf, size_t len, uint64_t off)
{
	struct disk *d = ctx;

	if (one_in(20))
		return false;
	CHECK(!d->early[n].buf, "a read is under way");
	d->early[n].len = len;
	d->early[n].off = off;
	d->early[n].buf = buf;
	return true;
}

static bool disk_finish(void *ctx, unsigned n, uint64_t wait_ns, int64_t *result)
{
	struct disk *d = ctx;
	void *buf = d->early[n].buf;

	if (!wait_ns && one_in(2))
		return false;
	CHECK(buf, "no read is under way");
	d->early[n].buf = NULL;
	*result = disk_read(ctx, buf, d->early[n].len, d->early[n].off);
	return true;
}

static int disk_write(void *ctx, const void *buf, size_t len, uint64_t off, uint64_t token)
{
	struct disk *d = ctx;

	pthread_mutex_lock(&d->lock);
	CHECK(d->n < 16, "writes in flight");
	d->write[d->n].buf = buf;
	d->write[d->n].len = len;
	d->write[d->n].off = off;
	d->write[d->n++].token = token;
	pthread_mutex_unlock(&d->lock);
	return 0;
}

static int disk_reap(void *ctx, uint64_t wait_ns, uint64_t *token, int64_t *result)
{
	struct disk *d = ctx;
	unsigned i;

	pthread_mutex_lock(&d->lock);
	if (!d->n || (!wait_ns && one_in(2))) {
		pthread_mutex_unlock(&d->lock);
		return 0;
	}
	i = rnd(d->n);
	*token = d->write[i].token;
	if (GET(inject) && one_in(100)) {
		ADD(injected.write, 1);
		*result = pwrite(d->fd, d->write[i].buf, d->write[i].len / 2, (off_t)d->write[i].off);
		*result = one_in(2) ? -EIO : *result;
	} else {
		*result = pwrite(d->fd, d->write[i].buf, d->write[i].len, (off_t)d->write[i].off);
	}
	d->write[i] = d->write[--d->n];
	pthread_mutex_unlock(&d->lock);
	return 1;
}

static void disk_close(void *ctx)
{
	(void)ctx;
}

/* ---- pages ---- */

/* The bytes of version v of entry i: a quarter same-filled, a fifth incompressible, the rest about 3:1. */
static void make_page(uint64_t *p, uint32_t i, uint32_t v)
{
	i = v & COMMON ? 0 : i;
	uint64_t x = mix((uint64_t)i << 32 | v), shape = x % 20;

	if (!v || shape < 5) {
		uint64_t word = !v || shape == 0 ? 0 : (x >> 32) * 0x100000001ull;

		for (unsigned k = 0; k < SPW_PAGE / 8; k++)
			p[k] = word;
		return;
	}
	for (unsigned k = 0; k < SPW_PAGE / 8; k++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		p[k] = shape < 9 || k % 5 == 0 ? x ^ x >> 29 : (uint64_t)i << 32 | v;
	}
}

/* ---- the shadow ---- */

enum state { FREED = 0, DATA, FRAMED, FAILED };

/* What an entry is or was: state in the high half, in the low half the version of the bytes, 0 being zeros. */
static uint64_t moment(enum state s, uint32_t version)
{
	return (uint64_t)s << 32 | version;
}

struct shadow {
	uint64_t history[HISTORY]; /* atomic; [seq % HISTORY] is the latest, and may be under way */
	uint32_t seq;              /* atomic */
	uint32_t versions;         /* given out */
	uint32_t holders;
	uint32_t frame, backing; /* FRAMED: which frame, and the version it falls back to (NO_BACKING) */
	bool storing;            /* a store of a frame is under way, unlocked */
	enum { OPEN, OVERTAKEN, WON, EITHER } outcome; /* of it, as others saw it; OPEN: the frame is still `frame` */
};
#define NO_BACKING UINT32_MAX

static struct shadow shadow[ENTRIES];
static pthread_mutex_t group_lock[ENTRIES / GROUP];
static bool frame_used[FRAMES]; /* atomic */
static uint32_t live_entries;   /* atomic, roughly */
static uint32_t taken_clusters; /* atomic */
static uint32_t hot;            /* atomic: first of the entries that all threads prefer for now */

static struct spw__space *sp;
static struct spw_tier *pool, *file, *annex, *low, *barred;
static uint64_t drain_steps;
static uint64_t joins; /* atomic */
static pthread_mutex_t upkeep_lock = PTHREAD_MUTEX_INITIALIZER;

struct thread {
	pthread_t id;
	uint64_t ops, seed;
	struct spw_work *work;
	void *work_mem;
	uint64_t page[SPW_PAGE / 8], want[SPW_PAGE / 8];
	uint64_t loads, raced, unjudged, stale, eio;
};

static pthread_mutex_t *lock_of(uint32_t i)
{
	return &group_lock[i / GROUP];
}

static uint64_t now(uint32_t i)
{
	return shadow[i].history[shadow[i].seq % HISTORY];
}

static enum state state_of(uint32_t i)
{
	return (enum state)(now(i) >> 32);
}

/* The entry's next moment begins: known before the operation, so that a load in the middle of it may see either. */
static void begin_moment(uint32_t i, enum state s, uint32_t version)
{
	SET(shadow[i].history[(shadow[i].seq + 1) % HISTORY], moment(s, version));
	SET(shadow[i].seq, shadow[i].seq + 1);
}

/* The operation had no effect: the entry is as it was. */
static void undo_moment(uint32_t i, uint64_t before)
{
	SET(shadow[i].history[shadow[i].seq % HISTORY], moment(FAILED, 0));
	begin_moment(i, (enum state)(before >> 32), (uint32_t)before);
}

/* The frame of the entry may have become its stored page, unseen. */
static bool under_store(uint32_t i)
{
	return shadow[i].storing && shadow[i].outcome == OPEN;
}

static bool shows(struct thread *t, uint32_t i, uint32_t version)
{
	make_page(t->want, i, version);
	return !memcmp(t->page, t->want, SPW_PAGE);
}

/* Whether a load that returned rc and t->page saw that moment. */
static bool saw(struct thread *t, uint32_t i, uint64_t m, int rc)
{
	switch ((enum state)(m >> 32)) {
	case FREED:
		/* To the shadow it is free a moment longer than to spw_alloc(). */
		return (rc == -ENOENT || rc == 0) && shows(t, i, 0);
	case DATA:
		return rc == 0 && shows(t, i, (uint32_t)m);
	case FRAMED: /* or its store is just done */
		return rc == -EEXIST || (rc == 0 && shows(t, i, (uint32_t)m));
	case FAILED:
		break;
	}
	return false;
}

static int load(struct thread *t, uint32_t i)
{
	spw_slot_t where;
	int rc;

	do {
		memset(t->page, 0xa5, SPW_PAGE);
		if (one_in(4))
			for (uint32_t n = rnd(16); n; n--)
				spw_expect(sp, t->work, (spw_entry_t){(i + n - 1) % ENTRIES}, one_in(2));
		rc = spw_load(sp, t->work, (spw_entry_t){i}, t->page, &where);
		t->loads++;
		t->eio += rc == -EIO;
		CHECK(rc != -EIO || GET(inject), "entry %u", i);
		if (one_in(4))
			spw_settle(sp, t->work);
	} while (rc == -EIO);
	CHECK(rc != -EBADMSG, "entry %u slot %llx", i, (unsigned long long)where.v);
	return rc;
}

/* Locked: the entry shows what it must. */
static void load_exact(struct thread *t, uint32_t i)
{
	int rc = load(t, i);

	CHECK(saw(t, i, now(i), rc), "entry %u rc %d state %d version %u", i, rc, state_of(i), (uint32_t)now(i));
	if (state_of(i) == FRAMED && !under_store(i))
		CHECK(rc == -EEXIST, "entry %u rc %d", i, rc);
}

/* Unlocked, against everything. */
static void load_racing(struct thread *t, uint32_t i)
{
	uint32_t first = GET(shadow[i].seq), back = first - 1, last;
	uint64_t m[HISTORY];
	bool seen = false;
	int rc = load(t, i);

	last = GET(shadow[i].seq);
	t->raced += last != first;
	for (unsigned k = 0; k < HISTORY; k++)
		m[k] = GET(shadow[i].history[k]);
	/*
	 * The first moment may not have begun when the load did: the last one before it that had an effect counts too.
	 */
	while (m[back % HISTORY] >> 32 == FAILED && first - back < HISTORY)
		back--;
	if (GET(shadow[i].seq) - back >= HISTORY - 1) {
		t->unjudged++;
		return;
	}
	for (uint32_t k = back; k != last + 1 && !seen; k++)
		seen = saw(t, i, m[k % HISTORY], rc);
	CHECK(seen, "entry %u rc %d moments %u..%u", i, rc, first, last);
}

static uint32_t grab_frame(void)
{
	uint32_t f = rnd(FRAMES);

	return __atomic_exchange_n(&frame_used[f], true, __ATOMIC_ACQ_REL) ? SPW_NO_FRAME : f;
}

/* The entry's frame has left. Not to be used by others while a store of it is under way: the store gives it back. */
static void leave_frame(uint32_t i, int outcome)
{
	if (under_store(i))
		shadow[i].outcome = outcome;
	else
		SET(frame_used[shadow[i].frame], false);
}

static void check_count(uint32_t i)
{
	uint32_t n = spw_count(sp, (spw_entry_t){i});

	CHECK(n == shadow[i].holders || (state_of(i) == FREED && GET(cluster_state[i / SPW_CLUSTER]) == ELSEWHERE),
	      "entry %u count %u holders %u", i, n, shadow[i].holders);
}

static bool may_come_to_life(uint32_t i)
{
	return state_of(i) != FREED || GET(cluster_state[i / SPW_CLUSTER]) == TAKEN;
}

static uint32_t next_version(uint32_t i)
{
	return one_in(4) ? COMMON | (1 + rnd(COMMONS)) : ++shadow[i].versions;
}

/* What t->page has is what `twin` has, the space says. No lock is held. */
static void join(struct thread *t, spw_entry_t twin)
{
	uint32_t i = twin.idx;
	struct shadow *s = &shadow[i];
	int rc;

	pthread_mutex_lock(lock_of(i));
	rc = spw_join(sp, t->work, twin);
	CHECK(rc == 0 || rc == -ESTALE || (rc == -ENOMEM && s->holders >= 14), "entry %u rc %d", i, rc);
	if (rc == 0) {
		CHECK(state_of(i) == DATA || (state_of(i) == FRAMED && under_store(i)), "entry %u", i);
		CHECK(shows(t, i, (uint32_t)now(i)), "entry %u", i);
		if (state_of(i) == FRAMED) {
			s->outcome = WON;
			begin_moment(i, DATA, (uint32_t)now(i));
		}
		s->holders++;
		check_count(i);
		ADD(joins, 1);
	}
	pthread_mutex_unlock(lock_of(i));
}

/* ---- operations. All but the racing load hold the lock of the entry's group. ---- */

static void op_store(struct thread *t, uint32_t i)
{
	uint64_t before = now(i);
	uint32_t v = next_version(i);
	spw_entry_t twin;
	int rc;

	if (!may_come_to_life(i) || (state_of(i) == FREED && GET(live_entries) > LIVE_TARGET))
		return;
	make_page(t->page, i, v);
	begin_moment(i, DATA, v);
	rc = v & COMMON ? spw_store_or_find(sp, t->work, (spw_entry_t){i}, t->page, SPW_NO_FRAME, &twin)
			: spw_store(sp, t->work, (spw_entry_t){i}, t->page, SPW_NO_FRAME);
	if (rc == -ESTALE) {
		CHECK(before >> 32 == FRAMED, "entry %u", i);
		undo_moment(i, before);
		return;
	}
	CHECK(rc == 0 || rc == SPW_TWIN || rc == -ENOSPC || rc == -ENOMEM, "entry %u rc %d", i, rc);
	if (before >> 32 == FRAMED) {
		/* The frame's own store was first. */
		CHECK(under_store(i), "entry %u rc %d", i, rc);
		shadow[i].outcome = WON;
		before = moment(DATA, (uint32_t)before);
	}
	if (rc) {
		undo_moment(i, before);
	} else if (before >> 32 == FREED) {
		shadow[i].holders = 1;
		ADD(live_entries, 1);
	}
	if (rc == SPW_TWIN) {
		pthread_mutex_unlock(lock_of(i));
		join(t, twin);
		pthread_mutex_lock(lock_of(i));
	}
}

/* munmap of part of a group, or of one entry: one holder fewer of each. */
static void op_free_range(uint32_t i, uint32_t n)
{
	bool framed[GROUP] = {false};

	for (uint32_t k = 0; k < n; k++) {
		enum state was = state_of(i + k);

		/* In a cluster that is not ours it would hit what another thread has just allocated. */
		if (was == FREED && GET(cluster_state[i / SPW_CLUSTER]) == ELSEWHERE)
			n = k;
		else if (was != FREED && !--shadow[i + k].holders) {
			begin_moment(i + k, FREED, 0);
			framed[k] = was == FRAMED;
			ADD(live_entries, -1);
		}
	}
	if (n == 1)
		spw_free(sp, &(spw_entry_t){i}, 1);
	else
		spw_free_range(sp, (spw_entry_t){i}, n);
	for (uint32_t k = 0; k < n; k++)
		if (framed[k])
			leave_frame(i + k, EITHER);
}

static void op_dup(uint32_t i)
{
	int rc;

	if (state_of(i) == FREED || shadow[i].holders > 40)
		return;
	for (unsigned n = one_in(10) ? 16 : 1; n; n--) {
		rc = spw_dup(sp, &(spw_entry_t){i}, 1);
		CHECK(rc == 0 || (rc == -ENOMEM && shadow[i].holders >= 14), "entry %u rc %d", i, rc);
		shadow[i].holders += !rc;
	}
	check_count(i);
}

static void op_alloc(struct thread *t)
{
	spw_entry_t e[24];
	unsigned n = 1 + rnd(24);
	int rc;

	if (GET(live_entries) > LIVE_TARGET)
		return;
	rc = spw_alloc(sp, e, n);
	CHECK(rc == 0 || rc == -ENOMEM, "rc %d", rc);
	for (unsigned k = 0; k < n && !rc; k++) {
		uint32_t i = e[k].idx;

		pthread_mutex_lock(lock_of(i));
		CHECK(state_of(i) == FREED, "entry %u", i);
		CHECK(GET(cluster_state[i / SPW_CLUSTER]) == ELSEWHERE, "entry %u", i);
		begin_moment(i, DATA, 0);
		shadow[i].holders = 1;
		ADD(live_entries, 1);
		load_exact(t, i);
		pthread_mutex_unlock(lock_of(i));
	}
}

static void op_cache_add(struct thread *t, uint32_t i)
{
	uint64_t before = now(i);
	uint32_t f, version;
	int rc;

	if (!may_come_to_life(i) || before >> 32 == FRAMED ||
	    (before >> 32 == FREED && GET(live_entries) > LIVE_TARGET))
		return;
	f = grab_frame();
	if (f == SPW_NO_FRAME)
		return;
	version = before >> 32 == FREED ? next_version(i) : (uint32_t)before;
	begin_moment(i, FRAMED, version);
	rc = spw_cache_add(sp, (spw_entry_t){i}, f);
	CHECK(rc == 0, "entry %u rc %d", i, rc);
	shadow[i].frame = f;
	shadow[i].backing = before >> 32 == FREED ? NO_BACKING : (uint32_t)before;
	if (before >> 32 == FREED) {
		shadow[i].holders = 1;
		ADD(live_entries, 1);
	} else if (one_in(2)) {
		begin_moment(i, FRAMED, next_version(i)); /* written to */
	}
	load_exact(t, i);
}

static void op_cache_del(struct thread *t, uint32_t i)
{
	uint64_t before = now(i);
	bool keep = one_in(2), stays = keep && shadow[i].backing != NO_BACKING;
	uint32_t frame;
	int rc;

	if (before >> 32 != FRAMED)
		return;
	rc = spw_cache_get(sp, (spw_entry_t){i}, &frame);
	CHECK(rc == 0 ? frame == shadow[i].frame : under_store(i), "entry %u rc %d", i, rc);
	if (stays)
		begin_moment(i, DATA, shadow[i].backing);
	else
		begin_moment(i, FREED, 0);
	rc = spw_cache_del(sp, (spw_entry_t){i}, shadow[i].frame, keep);
	if (rc == 0) {
		leave_frame(i, OVERTAKEN);
		if (!stays) {
			CHECK(!--shadow[i].holders, "entry %u", i);
			ADD(live_entries, -1);
		}
		load_exact(t, i);
	} else if (rc == -EBUSY) {
		CHECK(!stays && shadow[i].holders > 1, "entry %u", i);
		undo_moment(i, before);
	} else {
		CHECK(rc == -ENOENT && under_store(i), "entry %u rc %d", i, rc);
		shadow[i].outcome = WON;
		undo_moment(i, moment(DATA, (uint32_t)before));
	}
}

/* The store of a frame, as a compressing thread does it: from a copy of the page, with no lock. Called locked. */
static void op_store_frame(struct thread *t, uint32_t i)
{
	struct shadow *s = &shadow[i];
	uint32_t frame = s->frame, version = (uint32_t)now(i);
	spw_entry_t twin;
	int rc;

	if (state_of(i) != FRAMED || s->storing)
		return;
	s->storing = true;
	s->outcome = OPEN;
	pthread_mutex_unlock(lock_of(i));

	make_page(t->page, i, version);
	dawdle();
	/* After the last operation every frame is to be stored. */
	rc = version & COMMON && GET(inject) ? spw_store_or_find(sp, t->work, (spw_entry_t){i}, t->page, frame, &twin)
					     : spw_store(sp, t->work, (spw_entry_t){i}, t->page, frame);
	dawdle();
	if (rc == SPW_TWIN)
		join(t, twin);

	pthread_mutex_lock(lock_of(i));
	s->storing = false;
	if (rc == 0) {
		CHECK(s->outcome != OVERTAKEN, "entry %u", i);
		if (s->outcome == OPEN)
			begin_moment(i, DATA, version);
	} else if (rc == -ESTALE) {
		CHECK(s->outcome == OVERTAKEN || s->outcome == EITHER, "entry %u", i);
		t->stale++;
	} else {
		CHECK(rc == SPW_TWIN || rc == -ENOSPC || rc == -ENOMEM, "entry %u rc %d", i, rc);
		CHECK(s->outcome != WON, "entry %u", i);
	}
	if (rc == 0 || s->outcome != OPEN)
		SET(frame_used[frame], false);
}

static void op_take(void)
{
	uint32_t c;
	int rc;

	if (ADD(taken_clusters, 1) >= TAKEN_MAX || (rc = spw_cluster_take(sp, &c))) {
		ADD(taken_clusters, -1);
		return;
	}
	CHECK(GET(cluster_state[c]) == ELSEWHERE, "cluster %u", c);
	CHECK(!spw_cluster_allow(sp, c, allowed_to(c)), "cluster %u", c);
	SET(cluster_state[c], TAKEN);
}

/* Free all of a taken cluster and give it back. */
static void op_give(void)
{
	uint32_t c = rnd(CLUSTERS);
	uint8_t taken = TAKEN;
	int rc;

	if (!__atomic_compare_exchange_n(&cluster_state[c], &taken, CLOSING, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return;
	for (uint32_t i = c * SPW_CLUSTER; i < (c + 1) * SPW_CLUSTER; i++) {
		pthread_mutex_lock(lock_of(i));
		while (state_of(i) != FREED)
			op_free_range(i, 1);
		pthread_mutex_unlock(lock_of(i));
	}
	SET(cluster_state[c], ELSEWHERE);
	rc = spw_cluster_give(sp, c);
	CHECK(rc == 0, "cluster %u rc %d", c, rc);
	ADD(taken_clusters, -1);
}

static struct spw_tier *any_tier(void)
{
	struct spw_tier *const all[] = {pool, file, pool, file, annex, low};

	return all[rnd(6)];
}

/* A tier is emptied a step at a time, while everything goes on and any thread may change its mind. */
static int op_drain(struct thread *t)
{
	struct spw_tier *tier = any_tier();
	int rc;

	if (one_in(3))
		spw_drain_begin(sp, tier);
	rc = spw_drain_step(sp, t->work, tier, 1 + rnd(200));
	if (rc == -ECANCELED)
		return 0;
	ADD(drain_steps, 1);
	CHECK(rc != -EBADMSG && rc != -EBUSY, "rc %d", rc);
	return rc;
}

static void op_cancel_drain(void)
{
	spw_drain_cancel(sp, any_tier());
}

static void op_upkeep(struct thread *t)
{
	int rc = 0;

	if (pthread_mutex_trylock(&upkeep_lock))
		return;
	switch (rnd(9)) {
	case 8:
		rc = op_drain(t);
		break;
	case 0:
		rc = spw_compact(sp, 1 + rnd(200));
		CHECK(rc >= 0 || rc == -ENOSPC || rc == -ENOMEM, "rc %d", rc);
		break;
	case 1:
		rc = spw_clean(sp, t->work);
		break;
	case 2:
	case 3:
		rc = spw_writeback_start(sp, 1 + rnd(1u << 19), one_in(4));
		if (rc == -ENODEV) /* both files are closed */
			rc = 0;
		break;
	default:
		rc = spw_writeback_poll(sp, one_in(4) ? 1000 : 0);
		CHECK(rc >= 0, "rc %d", rc);
	}
	CHECK(rc >= 0 || rc == -ENOSPC || rc == -EAGAIN || rc == -EIO || rc == -ENOMEM, "rc %d", rc);
	pthread_mutex_unlock(&upkeep_lock);
}

static void on_entry(struct thread *t, uint32_t what, uint32_t i)
{
	if (what < 20) {
		load_racing(t, i);
		return;
	}
	pthread_mutex_lock(lock_of(i));
	if (what < 32)
		load_exact(t, i);
	else if (what < 60)
		op_store(t, i);
	else if (what < 69)
		op_free_range(i, 1);
	else if (what < 70)
		op_free_range(i, 1 + rnd(GROUP - i % GROUP));
	else if (what < 74)
		op_dup(i);
	else if (what < 82)
		op_cache_add(t, i);
	else if (what < 87)
		op_cache_del(t, i);
	else if (what < 93)
		op_store_frame(t, i);
	else
		check_count(i);
	pthread_mutex_unlock(lock_of(i));
}

static void *run(void *arg)
{
	struct thread *t = arg;

	rng = t->seed;
	for (uint64_t n = 0; n < t->ops; n++) {
		uint32_t what = rnd(100);

		/* All threads stay for a while with the same few entries, so that they meet. */
		if (one_in(2000))
			SET(hot, rnd(ENTRIES / HOT) * HOT);
		if (one_in(2000))
			op_take();
		else if (one_in(20000))
			op_give();
		else if (one_in(1500))
			op_cancel_drain();
		else if (what < 2)
			op_alloc(t);
		else if (what < 6)
			op_upkeep(t);
		else
			on_entry(t, rnd(100), one_in(2) ? GET(hot) + rnd(HOT) : rnd(ENTRIES));
	}
	return NULL;
}

/* ---- the frame of the test ---- */

static struct spw_tier *make_pool(unsigned number, const char *name, uint64_t bytes, int priority)
{
	static struct spw_tier_ops failing;
	struct spw_tier *t;

	CHECK(!spw__zswap_create(number, name, bytes, 1u << 30, &t), "%s", name);
	pool_ops = t->ops;
	failing = *t->ops;
	failing.put = failing_put;
	failing.map = slow_map;
	failing.free = slow_pool_free;
	t->ops = &failing;
	t->priority = (int8_t)priority;
	CHECK(!spw__space_add_tier(sp, t), "%s", name);
	return t;
}

static struct spw_tier *make_file(unsigned number, const char *name, struct disk *disk, uint64_t bytes, int priority)
{
	static struct spw_tier_ops failing;
	size_t size = spw__file_shared_size(bytes);
	struct spw_file_layout layout = {.max_bytes = bytes, .encrypt = true, .key = "shadow"};
	struct spw_file_io io = {
		.ctx = disk,
		.read = disk_read,
		.start = disk_start,
		.finish = disk_finish,
		.write = disk_write,
		.reap = disk_reap,
		.close = disk_close,
	};
	struct spw_file_shared *sh = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct spw_tier *t;

	CHECK(sh != MAP_FAILED, "mmap");
	disk->fd = memfd_create("shadow", 0);
	CHECK(disk->fd >= 0, "memfd");
	CHECK(!spw__file_shared_init(sh, &layout), "init");
	CHECK(!spw__file_create(number, name, sh, 0, &io, &t), "%s", name);
	file_ops = t->ops;
	failing = *t->ops;
	failing.begin = failing_begin;
	failing.add = failing_add;
	failing.free = slow_file_free;
	t->ops = &failing;
	t->priority = (int8_t)priority;
	CHECK(!spw__space_add_tier(sp, t), "%s", name);
	return t;
}

static void make_tiers(struct disk *disk)
{
	pool = make_pool(POOL, "pool", POOL_BYTES, 0);
	annex = make_pool(ANNEX, "annex", POOL_BYTES / 4, -1);
	barred = make_pool(BARRED, "barred", POOL_BYTES, 1);
	file = make_file(FILE_TIER, "file", &disk[0], FILE_BYTES, 0);
	low = make_file(LOW, "low", &disk[1], FILE_BYTES / 2, -1);
	CHECK(!spw_allow(sp, allowed_to(0)), "allow");
}

static void check_all(struct thread *t)
{
	for (uint32_t i = 0; i < ENTRIES; i++) {
		load_exact(t, i);
		check_count(i);
	}
}

static uint64_t pages_of(struct spw_tier *t)
{
	struct spw_tier_stats st;

	t->ops->stats(t, &st);
	return st.pages;
}

/* One thread, no failures: everything is found again, wherever it is moved, and nothing is left. */
static void finish(struct thread *t, uint64_t idle_metadata)
{
	struct spw_tier *const rest[] = {pool, annex, file, low};
	struct spw__space_stats st;
	struct spw_tier *refuge;

	for (unsigned i = 0; i < 4; i++)
		spw_drain_cancel(sp, rest[i]);
	while (spw_writeback_poll(sp, 1000000))
		;
	check_all(t);
	CHECK(!spw__zswap_create(REFUGE, "refuge", UINT64_MAX, 1u << 30, &refuge), "refuge");
	CHECK(!spw__space_add_tier(sp, refuge), "refuge");
	for (uint32_t i = 0; i < ENTRIES; i++) {
		pthread_mutex_lock(lock_of(i));
		op_store_frame(t, i);
		pthread_mutex_unlock(lock_of(i));
	}
	for (uint32_t f = 0; f < FRAMES; f++)
		CHECK(!frame_used[f], "frame %u", f);
	for (unsigned i = 0; i < 4; i++) {
		CHECK(!spw_drain(sp, t->work, rest[i]), "drain of %s", rest[i]->name);
		CHECK(!pages_of(rest[i]), "%s", rest[i]->name);
		check_all(t);
	}
	for (uint32_t i = 0; i < ENTRIES; i++)
		while (state_of(i) != FREED)
			op_free_range(i, 1);
	for (uint32_t c = 0; c < CLUSTERS; c++)
		if (cluster_state[c] == TAKEN)
			CHECK(!spw_cluster_give(sp, c), "cluster %u", c);
	spw_stats(sp, &st);
	CHECK(!st.entries && !st.same && !st.pool && !st.slot && !st.frame, "entries left");
	CHECK(!st.clusters, "clusters left");
	/* The frame table stays, as large as the most frames that were in use at once, and so do the twins. */
	CHECK(st.metadata_bytes <= idle_metadata + (FRAMES + TWINS) * sizeof(uint64_t), "metadata left");
	CHECK(!pages_of(refuge), "objects left");
	for (unsigned i = 0; i < 4; i++)
		CHECK(!spw__space_remove_tier(sp, rest[i]), "%s stays", rest[i]->name);
	CHECK(st.joins == joins, "joins %llu", (unsigned long long)st.joins);
	refuge->ops->destroy(refuge);
	printf("stores %llu (same-filled %llu), writebacks %llu, relocations %llu, cancels %llu, joins %llu, drain "
	       "steps %llu\n",
	       (unsigned long long)st.stores, (unsigned long long)st.same_stores, (unsigned long long)st.writebacks,
	       (unsigned long long)st.relocations, (unsigned long long)st.cancels, (unsigned long long)st.joins,
	       (unsigned long long)drain_steps);
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

int main(int argc, char **argv)
{
	struct spw__space_config cfg = {
		.max_clusters = CLUSTERS,
		.max_frames = FRAMES,
		.codec = {.coding = SPW_CODING_LZ4},
		.max_twins = TWINS,
		.twin_key = seed,
	};
	uint64_t ops = 400000, threads = 8;
	static struct disk disk[] = {{.lock = PTHREAD_MUTEX_INITIALIZER}, {.lock = PTHREAD_MUTEX_INITIALIZER}};
	uint64_t loads = 0, raced = 0, unjudged = 0, stale = 0, eio = 0;
	struct spw__space_stats idle;
	struct thread *t;

	for (int i = 1; i < argc; i++) {
		if (i + 1 < argc && !strcmp(argv[i], "--threads")) {
			threads = number(argv[++i]);
		} else if (i + 1 < argc && !strcmp(argv[i], "--ops")) {
			ops = number(argv[++i]);
		} else if (i + 1 < argc && !strcmp(argv[i], "--seed")) {
			seed = number(argv[++i]);
		} else {
			fprintf(stderr, "usage: shadow [--threads N] [--ops N] [--seed S]\n");
			return 2;
		}
	}
	if (!threads) {
		fprintf(stderr, "shadow: at least one thread\n");
		return 2;
	}
	printf("shadow: seed %llu, %llu threads, %llu operations\n", (unsigned long long)seed,
	       (unsigned long long)threads, (unsigned long long)ops);
	for (unsigned i = 0; i < ENTRIES / GROUP; i++)
		pthread_mutex_init(&group_lock[i], NULL);
	CHECK(!spw__space_create(&cfg, &sp), "space");
	make_tiers(disk);
	spw_stats(sp, &idle);
	t = calloc(threads, sizeof(*t));
	CHECK(t, "memory");
	for (uint64_t i = 0; i < threads; i++) {
		t[i].ops = ops / threads;
		t[i].seed = mix(seed + i);
		t[i].work_mem = aligned_alloc(64, (spw_work_size(sp) + 63) & ~(size_t)63);
		CHECK(t[i].work_mem && !spw_work_init(sp, t[i].work_mem, &t[i].work), "work");
	}
	SET(inject, true);
	for (uint64_t i = 0; i < threads; i++)
		CHECK(!pthread_create(&t[i].id, NULL, run, &t[i]), "thread");
	for (uint64_t i = 0; i < threads; i++)
		pthread_join(t[i].id, NULL);
	SET(inject, false);
	finish(&t[0], idle.metadata_bytes);
	for (uint64_t i = 0; i < threads; i++) {
		loads += t[i].loads;
		raced += t[i].raced;
		unjudged += t[i].unjudged;
		stale += t[i].stale;
		eio += t[i].eio;
		free(t[i].work_mem);
	}
	printf("loads %llu (overlapped by a change %llu, not judged %llu), stale stores %llu, read errors %llu\n",
	       (unsigned long long)loads, (unsigned long long)raced, (unsigned long long)unjudged,
	       (unsigned long long)stale, (unsigned long long)eio);
	printf("of clusters that may not use all: pool %llu, file %llu, annex %llu, low %llu objects\n",
	       (unsigned long long)placed[POOL], (unsigned long long)placed[FILE_TIER],
	       (unsigned long long)placed[ANNEX], (unsigned long long)placed[LOW]);
	printf("injected: put %llu, begin %llu, add %llu, commit %llu, read %llu, write %llu\n",
	       (unsigned long long)injected.put, (unsigned long long)injected.begin, (unsigned long long)injected.add,
	       (unsigned long long)injected.commit, (unsigned long long)injected.read,
	       (unsigned long long)injected.write);
	free(t);
	spw__space_destroy(sp);
	struct spw_tier *const all[] = {pool, annex, barred, file, low};

	for (unsigned i = 0; i < 5; i++)
		all[i]->ops->destroy(all[i]);
	close(disk[0].fd);
	close(disk[1].fd);
	return 0;
}
