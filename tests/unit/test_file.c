/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file tier over a real temporary file. Between the tier and the file stands an I/O that fails on demand, or the
 * real one; above it a model that knows what every entry's object was, as the space would.
 */
#include "platform/platform.h"
#include "tier/file.h"

/* The clock is the test's: what waits for time to pass is told that it has. */
#define spw__plat_now_ns unused_now_ns
#include "strict_platform.h"
#undef spw__plat_now_ns

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB        (1024u * 1024u)
#define MAX_WRITES 16u
#define GONE       UINT32_MAX /* version of an object that stays away */

static uint64_t clock_ns = 1;

uint64_t spw__plat_now_ns(void)
{
	return clock_ns;
}

#define SECOND 1000000000ull

/* ---- an I/O that fails on demand ---- */

enum fault {
	NONE,
	WRITE_EIO,
	WRITE_ENOSPC,
	WRITE_SHORT,
	WRITE_TORN,
	WRITE_REFUSED,
	WRITE_LOST,
	READ_EIO,
	READ_EAGAIN,
	READ_SHORT,
	READ_FLIP
};

struct fake {
	int fd;
	enum fault fault;
	uint64_t flip; /* bit of the next read */
	uint64_t lowest;
	const uint32_t *bad; /* blocks that nobody may come near */
	uint32_t bad_n;
	unsigned n, discards, reads;
	uint64_t read_bytes;
	bool hold; /* writes in flight stay so */
	uint64_t token[MAX_WRITES];
	int64_t result[MAX_WRITES];
	/* Reads that were started; done when they are finished, with a fault of their own. */
	enum fault early_fault;
	bool refuse, hold_early, stuck;
	unsigned starts;
	struct {
		void *buf; /* NULL: not under way */
		size_t len;
		uint64_t off;
	} early[SPW_FILE_EARLY];
};

static void assert_good(const struct fake *f, uint64_t off, uint64_t len)
{
	for (uint32_t i = 0; i < f->bad_n; i++)
		assert_false(off / 4096 <= f->bad[i] && f->bad[i] < (off + len) / 4096);
}

static void assert_aligned(const void *buf, size_t len, uint64_t off)
{
	assert_int_equal((uintptr_t)buf % 4096, 0);
	assert_int_equal(len % 4096, 0);
	assert_int_equal(off % 4096, 0);
}

static int64_t read_with(const struct fake *f, enum fault fault, void *buf, size_t len, uint64_t off)
{
	int64_t n;

	if (fault == READ_EIO)
		return -EIO;
	if (fault == READ_EAGAIN)
		return -EAGAIN;
	n = pread(f->fd, buf, len, (off_t)off);
	if (fault == READ_SHORT)
		return n - 512;
	if (fault == READ_FLIP)
		((uint8_t *)buf)[f->flip / 8 % len] ^= (uint8_t)(1u << f->flip % 8);
	return n;
}

static int64_t fake_read(void *ctx, void *buf, size_t len, uint64_t off)
{
	struct fake *f = ctx;

	assert_aligned(buf, len, off);
	assert_good(f, off, len);
	f->reads++;
	f->read_bytes += len;
	return read_with(f, f->fault, buf, len, off);
}

static bool fake_start(void *ctx, unsigned n, void *buf, size_t len, uint64_t off)
{
	struct fake *f = ctx;

	assert_aligned(buf, len, off);
	assert_good(f, off, len);
	assert_true(n < SPW_FILE_EARLY);
	assert_null(f->early[n].buf);
	if (f->refuse)
		return false;
	f->starts++;
	f->early[n].buf = buf;
	f->early[n].len = len;
	f->early[n].off = off;
	return true;
}

static bool fake_finish(void *ctx, unsigned n, uint64_t wait_ns, int64_t *result)
{
	struct fake *f = ctx;
	void *buf = f->early[n].buf;

	assert_non_null(buf);
	if (f->stuck || (!wait_ns && f->hold_early))
		return false;
	f->early[n].buf = NULL;
	*result = read_with(f, f->early_fault, buf, f->early[n].len, f->early[n].off);
	return true;
}

static int fake_write(void *ctx, const void *buf, size_t len, uint64_t off, uint64_t token)
{
	struct fake *f = ctx;
	int64_t result = (int64_t)len;
	size_t part = f->fault == NONE ? len : f->fault == WRITE_TORN || f->fault == WRITE_SHORT ? len / 2 : 0;

	assert_aligned(buf, len, off);
	assert_good(f, off, len);
	assert_true(f->n < MAX_WRITES);
	if (f->fault == WRITE_REFUSED)
		return -EBADF;
	if (off < f->lowest)
		f->lowest = off;
	assert_int_equal(pwrite(f->fd, buf, part, (off_t)off), part);
	if (f->fault == WRITE_EIO)
		result = -EIO;
	if (f->fault == WRITE_ENOSPC)
		result = -ENOSPC;
	if (f->fault == WRITE_SHORT)
		result = (int64_t)part;
	f->token[f->n] = token;
	f->result[f->n++] = result;
	return 0;
}

static int fake_reap(void *ctx, uint64_t wait_ns, uint64_t *token, int64_t *result)
{
	struct fake *f = ctx;

	(void)wait_ns;
	if (!f->n || f->hold)
		return 0;
	f->n--;
	*token = f->token[0];
	*result = f->result[0];
	memmove(f->token, f->token + 1, f->n * sizeof(f->token[0]));
	memmove(f->result, f->result + 1, f->n * sizeof(f->result[0]));
	return 1;
}

static void fake_discard(void *ctx, uint64_t off, uint64_t len)
{
	struct fake *f = ctx;

	f->discards++;
	assert_good(f, off, len);
	assert_int_equal(fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len), 0);
}

static void fake_close(void *ctx)
{
	const struct fake *f = ctx;

	for (unsigned n = 0; n < SPW_FILE_EARLY; n++)
		assert_null(f->early[n].buf);
}

/* ---- the model ---- */

struct object {
	spw_slot_t slot;
	uint32_t version; /* of the bytes; 0: none */
	uint32_t next;    /* of the bytes on their way */
	bool written;     /* slot says where they are */
};

struct rig {
	struct fake fake;
	struct spw_file_shared *sh;
	size_t sh_bytes;
	struct spw_tier *t;
	struct object *objects;
	uint32_t n;
	uint32_t min_len, max_len;
	uint64_t random;
	int fd;
	int status; /* of the last batch that failed */
};

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static const char pattern[] = "PLAINTEXT-OF-A-SWAPPED-PAGE";

/* The object of entry i in its version: bytes that hold the pattern, and nothing that another object holds. */
static struct spw_obj object_of(const struct rig *r, uint32_t i, uint32_t version, uint8_t *buf)
{
	uint64_t seed = (uint64_t)version << 32 | i;
	uint32_t len = r->min_len + (uint32_t)(next_random(&seed) % (r->max_len - r->min_len + 1));

	for (uint32_t at = 0; at < len; at += 8) {
		uint64_t v = next_random(&seed);

		memcpy(buf + at, &v, len - at < 8 ? len - at : 8);
	}
	if (len > 3 * sizeof(pattern))
		memcpy(buf + sizeof(pattern), pattern, sizeof(pattern));
	return (struct spw_obj){
		.data = buf, .len = len, .coding = len == SPW_PAGE ? SPW_CODING_RAW : 1 + (version & 1)};
}

static void *shared_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static int temporary_file(int flags)
{
	const char *dir = getenv("TMPDIR");
	char path[4096];
	int fd, direct;

	snprintf(path, sizeof(path), "%s/spillway-test-XXXXXX", dir ? dir : "/var/tmp");
	fd = mkostemp(path, O_CLOEXEC);
	assert_true(fd >= 0);
	direct = open(path, O_RDWR | O_CLOEXEC | flags);
	unlink(path);
	if (direct < 0)
		return fd;
	close(fd);
	return direct;
}

static const uint8_t key[SPW_FILE_KEY] = "thirty-two bytes that are a key";

static struct spw_file_io fake_io(struct rig *r)
{
	return (struct spw_file_io){.ctx = &r->fake,
				    .read = fake_read,
				    .start = fake_start,
				    .finish = fake_finish,
				    .write = fake_write,
				    .reap = fake_reap,
				    .discard = fake_discard,
				    .close = fake_close};
}

static void rig_open(struct rig *r, struct spw_file_layout l, const struct spw_file_io *io)
{
	struct spw_file_io fake = fake_io(r);

	memcpy(l.key, key, sizeof(l.key));
	r->fake.bad = l.bad;
	r->fake.bad_n = l.bad_n;
	r->sh_bytes = spw__file_shared_size(l.max_bytes);
	r->sh = shared_memory(r->sh_bytes);
	assert_int_equal(spw__file_shared_init(r->sh, &l), 0);
	assert_int_equal(spw__file_create(3, "file", r->sh, 1, io ? io : &fake, &r->t), 0);
}

static struct rig *rig_new(uint32_t n, uint32_t min_len, uint32_t max_len)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	r->objects = calloc(n, sizeof(*r->objects));
	assert_non_null(r->objects);
	r->n = n;
	r->min_len = min_len;
	r->max_len = max_len;
	r->random = n;
	r->fd = r->fake.fd = temporary_file(0);
	r->fake.lowest = UINT64_MAX;
	return r;
}

static uint64_t used_bytes(const struct rig *r)
{
	uint64_t used, capacity;

	spw__file_shared_use(r->sh, &used, &capacity);
	return used;
}

static uint64_t capacity_bytes(const struct rig *r)
{
	uint64_t used, capacity;

	spw__file_shared_use(r->sh, &used, &capacity);
	return capacity;
}

static struct spw_tier_stats stats_of(struct rig *r)
{
	struct spw_tier_stats st;

	r->t->ops->stats(r->t, &st);
	return st;
}

static void rig_close(struct rig *r)
{
	r->t->ops->destroy(r->t);
	assert_int_equal(used_bytes(r), 0);
	munmap(r->sh, r->sh_bytes);
	close(r->fd);
	free(r->objects);
	free(r);
}

static void drop(struct rig *r, uint32_t i)
{
	if (r->objects[i].written)
		r->t->ops->free(r->t, r->objects[i].slot);
	r->objects[i].written = false;
}

/* Finish what is finished. Returns whether anything was. */
static bool finish(struct rig *r)
{
	const struct spw_move *moves;
	struct spw_segment *token;
	int status;
	unsigned n = r->t->ops->poll(r->t, 10000000, &moves, &status, &token);

	for (unsigned i = 0; i < n; i++) {
		struct object *o = &r->objects[moves[i].entry.idx];

		if (status) {
			r->status = status;
			continue;
		}
		drop(r, moves[i].entry.idx);
		*o = (struct object){.slot = moves[i].to, .version = o->next, .next = o->next, .written = true};
	}
	if (n)
		r->t->ops->poll_done(r->t, token);
	return n;
}

static int begin(struct rig *r, struct spw_segment **g)
{
	int err;

	while ((err = r->t->ops->begin(r->t, g)) == -EAGAIN)
		finish(r);
	return err;
}

/* Add an object to the segment, going on in another when it is full. */
static int add(struct rig *r, struct spw_segment **g, uint32_t i, const struct spw_obj *o)
{
	spw_slot_t to;
	int err = *g ? 0 : begin(r, g);

	if (err)
		return err;
	if (!r->t->ops->add(r->t, *g, (spw_entry_t){i}, o, SPW_SLOT_NONE, &to))
		return 0;
	r->t->ops->submit(r->t, *g);
	*g = NULL;
	err = begin(r, g);
	return err ? err : r->t->ops->add(r->t, *g, (spw_entry_t){i}, o, SPW_SLOT_NONE, &to);
}

static void submit(struct rig *r, struct spw_segment *g)
{
	if (g)
		r->t->ops->submit(r->t, g);
	while (finish(r))
		;
}

/* Write new versions of entries [first, last). Returns 0 or the error of begin. */
static int write_range(struct rig *r, uint32_t first, uint32_t last)
{
	struct spw_segment *g = NULL;
	uint8_t buf[SPW_PAGE];
	int err = 0;

	for (uint32_t i = first; i < last && !err; i++) {
		struct spw_obj o = object_of(r, i, r->objects[i].version + 1, buf);

		r->objects[i].next = r->objects[i].version + 1;
		err = add(r, &g, i, &o);
	}
	submit(r, g);
	return err;
}

static int get(struct rig *r, uint32_t i, uint8_t *buf)
{
	return r->t->ops->get(r->t, (spw_entry_t){i}, r->objects[i].slot, buf);
}

static void check(struct rig *r, uint32_t i)
{
	uint8_t want[SPW_PAGE], got[SPW_PAGE];
	struct spw_obj o = object_of(r, i, r->objects[i].version, want);
	spw_slot_t s = r->objects[i].slot;

	assert_int_equal(get(r, i, got), 0);
	assert_int_equal(spw__slot_len(s), o.len);
	assert_int_equal(spw__slot_coding(s), o.coding);
	assert_int_equal(spw__slot_tier(s), 3);
	assert_memory_equal(got, want, o.len);
}

static void check_all(struct rig *r)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (r->objects[i].written)
			check(r, i);
}

static void drop_all(struct rig *r)
{
	for (uint32_t i = 0; i < r->n; i++)
		drop(r, i);
}

/* One pass of cleaning, as the space does it. Returns whether anything moved. */
static bool clean(struct rig *r)
{
	static spw_entry_t e[256];
	static spw_slot_t s[256];
	static struct spw_obj objs[256];
	struct spw_segment *g = NULL;
	bool moved = false;
	int err = 0;
	unsigned n;

	while (!err && (n = r->t->ops->clean(r->t, false, e, s, objs, 256)) > 0) {
		for (unsigned i = 0; i < n && !err; i++) {
			const struct object *o = &r->objects[e[i].idx];
			uint8_t want[SPW_PAGE];

			assert_true(e[i].idx < r->n);
			if (!o->written || !spw__slot_same(o->slot, s[i]))
				continue;
			assert_int_equal(object_of(r, e[i].idx, o->version, want).len, objs[i].len);
			assert_memory_equal(objs[i].data, want, objs[i].len);
			r->objects[e[i].idx].next = o->version;
			err = add(r, &g, e[i].idx, &objs[i]);
			moved |= !err;
		}
	}
	if (g)
		r->t->ops->submit(r->t, g);
	r->t->ops->clean_done(r->t);
	while (finish(r))
		;
	return moved;
}

/* ---- tests ---- */

static void round_trip(bool encrypt)
{
	struct rig *r = rig_new(3000, 1, SPW_PAGE);

	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = encrypt}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	check_all(r);
	assert_int_equal(stats_of(r).pages, r->n);
	assert_int_equal(stats_of(r).errors, 0);
	assert_int_equal(write_range(r, 100, 200), 0); /* new versions, in the tail */
	check_all(r);
	drop_all(r);
	assert_int_equal(stats_of(r).pages, 0);
	assert_int_equal(stats_of(r).stored_bytes, 0);
	rig_close(r);
}

static void test_round_trip(void **state)
{
	(void)state;
	round_trip(true);
}

static void test_round_trip_without_encryption(void **state)
{
	(void)state;
	round_trip(false);
}

static void test_page_sizes(void **state)
{
	struct rig *r = rig_new(512, SPW_PAGE, SPW_PAGE);

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	/* One at a time: each batch ends a block, and they follow each other in a segment. */
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(write_range(r, i, i + 1), 0);
	assert_true(used_bytes(r) <= 4 * SPW_FILE_SEGMENT);
	check_all(r);
	rig_close(r);
}

static void wrong_bytes(bool encrypt)
{
	struct rig *r = rig_new(4000, 200, 3000);
	uint8_t buf[SPW_PAGE];
	spw_slot_t s;

	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = encrypt}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	/* One bit, anywhere in tag and bytes. Each far from the eight before, so that nothing comes from a window. */
	r->fake.fault = READ_FLIP;
	for (uint32_t i = 0; i < r->n; i++) {
		uint32_t e = i * 1527 % r->n;
		uint64_t first = spw__slot_offset(r->objects[e].slot) % 4096 * 8;

		r->fake.flip = first + next_random(&r->random) % ((16 + spw__slot_len(r->objects[e].slot)) * 8);
		assert_int_equal(get(r, e, buf), -EBADMSG);
	}
	r->fake.fault = NONE;
	/* another entry's */
	s = r->objects[7].slot;
	assert_int_equal(r->t->ops->get(r->t, (spw_entry_t){8}, s, buf), -EBADMSG);
	/* the right place, but not the object */
	s = spw__slot(3, spw__slot_offset(s), spw__slot_coding(s) ^ 3, spw__slot_len(s));
	assert_int_equal(r->t->ops->get(r->t, (spw_entry_t){7}, s, buf), -EBADMSG);
	s = spw__slot(3, spw__slot_offset(r->objects[7].slot), spw__slot_coding(r->objects[7].slot), 100);
	assert_int_equal(r->t->ops->get(r->t, (spw_entry_t){7}, s, buf), -EBADMSG);
	assert_int_equal(stats_of(r).errors, r->n + 3);
	check_all(r);
	rig_close(r);
}

static void test_wrong_bytes(void **state)
{
	(void)state;
	wrong_bytes(true);
}

static void test_wrong_bytes_without_encryption(void **state)
{
	(void)state;
	wrong_bytes(false);
}

/* Right once, at that very place, for that very entry; but of the segment's last life. */
static void test_stale_segment(void **state)
{
	(void)state;
	for (int encrypt = 0; encrypt < 2; encrypt++) {
		struct rig *r = rig_new(150, 1000, 1700);
		uint8_t *old = malloc(SPW_FILE_SEGMENT), buf[SPW_PAGE];
		struct spw_file_io io = fake_io(r);
		spw_slot_t before;
		ssize_t n;

		assert_non_null(old);
		rig_open(r, (struct spw_file_layout){.max_bytes = 2 * MIB, .encrypt = encrypt}, NULL);
		assert_int_equal(write_range(r, 0, r->n), 0);
		before = r->objects[77].slot;
		n = pread(r->fd, old, SPW_FILE_SEGMENT, 0);
		assert_true(n > 150000);
		/* The same process slot again, the same objects, the same places. */
		r->t->ops->destroy(r->t);
		assert_int_equal(used_bytes(r), 0);
		assert_int_equal(spw__file_create(3, "file", r->sh, 1, &io, &r->t), 0);
		memset(r->objects, 0, r->n * sizeof(*r->objects));
		assert_int_equal(write_range(r, 0, r->n), 0);
		assert_true(spw__slot_same(r->objects[77].slot, before));
		check(r, 77);
		assert_int_equal(pwrite(r->fd, old, (size_t)n, 0), n);
		for (uint32_t e = r->n; e-- > 0;)
			assert_int_equal(get(r, e, buf), -EBADMSG);
		free(old);
		rig_close(r);
	}
}

/* ---- reads that are told of before ---- */

static bool expect(struct rig *r, uint32_t i)
{
	return r->t->ops->expect(r->t, r, (spw_entry_t){i}, r->objects[i].slot, false);
}

static unsigned under_way(const struct rig *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SPW_FILE_EARLY; i++)
		n += r->fake.early[i].buf != NULL;
	return n;
}

static void test_what_is_expected_is_on_its_way(void **state)
{
	struct rig *r = rig_new(300, 1000, 1700);

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	/* A second read near the first is of a window, 64 KiB: what lies around in one piece, in a few. */
	for (uint32_t i = 0; i < 120; i++)
		expect(r, i);
	assert_in_range(r->fake.starts, 2, 6);
	for (uint32_t i = 0; i < 120; i++)
		check(r, i);
	assert_int_equal(r->fake.reads, 0);
	/* What is there is not read again. */
	unsigned starts = r->fake.starts;

	expect(r, 119);
	assert_int_equal(r->fake.starts, starts);
	check_all(r);
	rig_close(r);
}

static void test_what_is_expected_alone(void **state)
{
	struct rig *r = rig_new(300, 1000, 1700);

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	/* Its own blocks each, though they are near each other. */
	for (uint32_t i = 0; i < r->n; i += 17) {
		assert_true(r->t->ops->expect(r->t, r, (spw_entry_t){i}, r->objects[i].slot, true));
		for (unsigned n = 0; n < SPW_FILE_EARLY; n++)
			assert_true(!r->fake.early[n].buf || r->fake.early[n].len <= 8192);
		check(r, i);
	}
	assert_int_equal(r->fake.starts, (r->n + 16) / 17);
	assert_int_equal(r->fake.reads, 0);
	rig_close(r);
}

/* Whatever becomes of such a read, the bytes are right. */
static void test_an_early_read_that_fails(void **state)
{
	static const enum fault faults[] = {READ_EIO, READ_EAGAIN, READ_SHORT, READ_FLIP};

	(void)state;
	for (unsigned k = 0; k < 4; k++) {
		struct rig *r = rig_new(300, 1000, 1700);

		rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = k % 2}, NULL);
		assert_int_equal(write_range(r, 0, r->n), 0);
		r->fake.early_fault = faults[k];
		r->fake.flip = spw__slot_offset(r->objects[0].slot) % 4096 * 8 + 77;
		for (uint32_t i = 0; i < r->n; i++) {
			expect(r, i);
			check(r, i);
		}
		assert_true(r->fake.starts > 0 && r->fake.reads > 0);
		assert_int_equal(stats_of(r).errors, 0);
		rig_close(r);
	}
}

/* More than there is room for, all of them under way; the I/O refuses; and nobody comes for any. */
static void test_more_is_expected_than_there_is_room_for(void **state)
{
	struct rig *r = rig_new(2000, 3000, 4000);

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 64 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	r->fake.hold_early = true;
	for (uint32_t i = 0; i < r->n; i++)
		expect(r, i * 1153 % r->n);
	assert_in_range(r->fake.starts, 2, SPW_FILE_EARLY);
	unsigned starts = r->fake.starts;

	for (uint32_t i = 0; i < r->n; i++)
		check(r, i * 1153 % r->n);
	r->fake.refuse = true;
	for (uint32_t i = 0; i < r->n; i++)
		expect(r, i);
	assert_int_equal(r->fake.starts, starts);
	assert_false(expect(r, 0) && expect(r, r->n / 2) && expect(r, r->n - 1));
	check_all(r);
	/* Those that nobody came for make room. */
	r->fake.refuse = r->fake.hold_early = false;
	for (uint32_t i = 0; i < r->n; i++)
		expect(r, i * 1153 % r->n);
	assert_true(r->fake.starts > starts + 100);
	check_all(r);
	/* With some under way. */
	rig_close(r);
}

/* Where no read can be started, to say what is expected costs no read. */
static void test_early_reads_refused(void **state)
{
	uint64_t reads[2], bytes[2];

	(void)state;
	for (unsigned expects = 0; expects < 2; expects++) {
		struct rig *r = rig_new(3000, 1000, 1700);

		rig_open(r, (struct spw_file_layout){.max_bytes = 64 * MIB, .encrypt = true}, NULL);
		assert_int_equal(write_range(r, 0, r->n), 0);
		r->fake.refuse = true;
		for (uint32_t i = 0; i + 64 <= r->n; i += 32) {
			for (uint32_t k = 0; k < 64 && expects; k++)
				expect(r, i + k);
			for (uint32_t k = 0; k < 32; k++)
				check(r, i + k);
		}
		/* Scattered ones, eight at a time: each its own blocks. */
		for (uint32_t i = 0; i < r->n; i += 8) {
			for (uint32_t k = 0; k < 8 && expects; k++)
				expect(r, (i + k) * 1153 % r->n);
			for (uint32_t k = 0; k < 8; k++)
				check(r, (i + k) * 1153 % r->n);
		}
		reads[expects] = r->fake.reads;
		bytes[expects] = r->fake.read_bytes;
		rig_close(r);
	}
	assert_int_equal(reads[1], reads[0]);
	assert_int_equal(bytes[1], bytes[0]);
}

/* A slot that is freed while it is read, and written anew; and a slot that never was. */
static void test_what_was_expected_is_freed(void **state)
{
	struct rig *r = rig_new(150, 1000, 1700);

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 2 * MIB, .encrypt = true}, NULL);
	for (unsigned round = 0; round < 20; round++) {
		assert_int_equal(write_range(r, 0, r->n), 0);
		for (uint32_t i = 0; i < r->n; i++)
			expect(r, i);
		/* Read when it is something else that lies there. */
		drop_all(r);
		assert_int_equal(write_range(r, 0, r->n), 0);
		check_all(r);
	}
	assert_false(r->t->ops->expect(r->t, r, (spw_entry_t){7}, spw__slot(3, 500ull * MIB, 1, 100), false));
	drop_all(r);
	rig_close(r);
}

/* Whoever goes where a read under way would interrupt it waits for its own, also for those that it did not use. */
static void test_settle(void **state)
{
	struct rig *r = rig_new(300, 3000, 4000);
	int me, other;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	r->fake.hold_early = true;
	for (uint32_t i = 0; i < 6; i++)
		assert_true(r->t->ops->expect(r->t, i % 2 ? &me : &other, (spw_entry_t){i * 40},
					      r->objects[i * 40].slot, true));
	assert_int_equal(under_way(r), 6);
	check(r, 40);
	assert_int_equal(under_way(r), 5);
	r->t->ops->settle(r->t, &me);
	assert_int_equal(under_way(r), 3);
	/* What was read is there. */
	unsigned reads = r->fake.reads;

	check(r, 3 * 40);
	check(r, 5 * 40);
	assert_int_equal(r->fake.reads, reads);
	r->t->ops->settle(r->t, &me);
	assert_int_equal(under_way(r), 3);
	r->t->ops->settle(r->t, &other);
	assert_int_equal(under_way(r), 0);
	check_all(r);
	rig_close(r);
}

static void test_fork_with_early_reads(void **state)
{
	struct rig *r = rig_new(300, 1000, 1700);

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	r->fake.hold_early = true;
	for (uint32_t i = 0; i < r->n; i++)
		expect(r, i);
	assert_true(r->fake.starts > 0);
	assert_int_equal(r->t->ops->fork_prepare(r->t, 2), 0);
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		r->t->ops->fork_child(r->t, 2);
		/* To finish one of the parent's would be an error of the child's. */
		memset(r->fake.early, 0, sizeof(r->fake.early));
		check_all(r);
		for (uint32_t i = 0; i < r->n; i++)
			expect(r, i);
		check_all(r);
		_exit(0);
	}
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	spw__file_reap(r->sh, 2);
	check_all(r);
	rig_close(r);
}

/* The disk never answers: the tier goes, what was to be read into stays. */
static void test_destroy_with_a_read_that_never_ends(void **state)
{
	struct rig *r = rig_new(300, 1000, 1700);

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	expect(r, 7);
	r->fake.stuck = true;
	rig_close(r);
}

static void write_fault(enum fault fault, int want)
{
	struct rig *r = rig_new(400, 1000, 1700);
	struct spw_segment *g;

	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	r->fake.fault = fault;
	assert_int_equal(write_range(r, 0, 100), 0);
	assert_int_equal(r->status, want);
	assert_int_equal(stats_of(r).errors, 1);
	assert_int_equal(stats_of(r).failed, want != -ENOSPC);
	assert_int_equal(stats_of(r).answered, want == -ENOSPC);
	assert_int_equal(stats_of(r).failure, want == -ENOSPC ? 0 : want);
	assert_int_equal(stats_of(r).pages, 0);
	assert_int_equal(used_bytes(r), 0);
	/* It backs off, then goes on. */
	r->fake.fault = NONE;
	assert_int_equal(r->t->ops->begin(r->t, &g), want == -ENOSPC ? -ENOSPC : -EIO);
	clock_ns += SECOND / 20;
	assert_int_not_equal(r->t->ops->begin(r->t, &g), 0);
	clock_ns += SECOND / 20;
	assert_int_equal(r->t->ops->begin(r->t, &g), 0);
	r->t->ops->submit(r->t, g);
	assert_int_equal(write_range(r, 0, r->n), 0);
	assert_true(stats_of(r).answered > (want == -ENOSPC));
	assert_int_equal(stats_of(r).failure, 0);
	check_all(r);
	rig_close(r);
}

/* Each failure in a row doubles the wait, up to ten seconds; a success ends it. */
static void test_back_off_doubles(void **state)
{
	struct rig *r = rig_new(10, 1000, 1700);
	struct spw_segment *g;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	r->fake.fault = WRITE_EIO;
	for (uint64_t wait = SECOND / 10, n = 0; n < 10; n++) {
		assert_int_equal(write_range(r, 0, 1), 0);
		clock_ns += wait - 1;
		assert_int_equal(r->t->ops->begin(r->t, &g), -EIO);
		clock_ns += 1;
		wait = wait * 2 < 10 * SECOND ? wait * 2 : 10 * SECOND;
	}
	r->fake.fault = NONE;
	assert_int_equal(write_range(r, 0, 1), 0);
	r->fake.fault = WRITE_EIO;
	assert_int_equal(write_range(r, 0, 1), 0);
	clock_ns += SECOND / 10;
	assert_int_equal(r->t->ops->begin(r->t, &g), 0);
	r->t->ops->submit(r->t, g);
	check_all(r);
	rig_close(r);
}

/* Without memory for buffers nothing is written, and nothing is lost. */
static void test_no_memory(void **state)
{
	struct rig *r = rig_new(100, 1000, 1700);
	struct spw_file_io io = fake_io(r);
	struct spw_tier *t;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, 50), 0);
	strict_refuse(true);
	assert_int_equal(write_range(r, 50, 100), -ENOMEM);
	check_all(r);
	assert_int_equal(spw__file_create(3, "file", r->sh, 2, &io, &t), -ENOMEM);
	strict_fail_reserve = true;
	assert_int_equal(spw__file_create(3, "file", r->sh, 2, &io, &t), -ENOMEM);
	strict_fail_reserve = false;
	strict_refuse(false);
	assert_int_equal(spw__file_create(3, "file", r->sh, SPW_FILE_PROCS, &io, &t), -EINVAL);
	assert_int_equal(spw__file_create(SPW_MAX_TIERS, "file", r->sh, 2, &io, &t), -EINVAL);
	assert_int_equal(write_range(r, 50, 100), 0);
	check_all(r);
	rig_close(r);
}

/* Buffers that nobody used for a while are given back, and come again. */
static void test_idle_memory(void **state)
{
	struct rig *r = rig_new(1000, 1000, 1700);
	struct spw_segment *g;
	uint64_t busy;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, 500), 0);
	busy = stats_of(r).metadata_bytes;
	clock_ns += 2 * SECOND;
	assert_int_equal(begin(r, &g), 0);
	r->t->ops->submit(r->t, g);
	assert_true(stats_of(r).metadata_bytes + 4 * SPW_FILE_SEGMENT <= busy);
	assert_int_equal(write_range(r, 500, 1000), 0);
	check_all(r);
	rig_close(r);
}

static void test_write_eio(void **state)
{
	(void)state;
	write_fault(WRITE_EIO, -EIO);
}

static void test_write_short(void **state)
{
	(void)state;
	write_fault(WRITE_SHORT, -EIO);
}

static void test_write_refused(void **state)
{
	(void)state;
	write_fault(WRITE_REFUSED, -EBADF);
}

static void test_write_enospc(void **state)
{
	(void)state;
	write_fault(WRITE_ENOSPC, -ENOSPC);
}

/* The filesystem is full, but a segment that has its blocks comes free: no waiting. */
static void test_enospc_ends_with_a_free(void **state)
{
	struct rig *r = rig_new(700, 1000, 1000);
	struct spw_segment *g;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, 600), 0);
	r->fake.fault = WRITE_ENOSPC;
	assert_int_equal(write_range(r, 600, 700), 0);
	assert_int_equal(r->status, -ENOSPC);
	assert_int_equal(r->t->ops->begin(r->t, &g), -ENOSPC);
	r->fake.fault = NONE;
	for (uint32_t i = 0; i < 300; i++)
		drop(r, i);
	assert_int_equal(r->t->ops->begin(r->t, &g), 0);
	r->t->ops->submit(r->t, g);
	check_all(r);
	rig_close(r);
}

/* A write that says it was done, and was half done or not at all. */
static void test_torn_and_lost_writes(void **state)
{
	enum fault faults[] = {WRITE_TORN, WRITE_LOST};

	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		struct rig *r = rig_new(180, 1000, 1700);
		uint8_t buf[SPW_PAGE];
		unsigned bad = 0;

		rig_open(r, (struct spw_file_layout){.max_bytes = 4 * MIB, .encrypt = true}, NULL);
		assert_int_equal(ftruncate(r->fd, 4 * MIB), 0);
		r->fake.fault = faults[k];
		assert_int_equal(write_range(r, 0, r->n), 0);
		r->fake.fault = NONE;
		for (uint32_t i = 0; i < r->n; i++) {
			int err = get(r, i, buf);

			if (err)
				assert_int_equal(err, -EBADMSG);
			else
				check(r, i);
			bad += !!err;
		}
		assert_true(bad >= (faults[k] == WRITE_LOST ? r->n : r->n / 3));
		rig_close(r);
	}
}

static void test_read_errors(void **state)
{
	struct rig *r = rig_new(50, 1000, 1700);
	uint8_t buf[SPW_PAGE];

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 4 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	r->fake.fault = READ_EIO;
	assert_int_equal(get(r, 0, buf), -EIO);
	r->fake.fault = READ_SHORT;
	assert_int_equal(get(r, 0, buf), -EIO);
	assert_int_equal(stats_of(r).errors, 2);
	r->fake.fault = NONE;
	check_all(r);
	rig_close(r);
}

static void test_nothing_readable_on_disk_nothing_below_first_byte(void **state)
{
	(void)state;
	for (int encrypt = 0; encrypt < 2; encrypt++) {
		struct rig *r = rig_new(2000, 100, 4000);
		uint8_t header[4096], now[4096], *disk = malloc(16 * MIB);
		ssize_t n;

		assert_non_null(disk);
		memset(header, 0x5a, sizeof(header));
		assert_int_equal(pwrite(r->fd, header, sizeof(header), 0), sizeof(header));
		rig_open(r, (struct spw_file_layout){.first_byte = 4096, .max_bytes = 16 * MIB, .encrypt = encrypt},
			 NULL);
		assert_int_equal(write_range(r, 0, r->n), 0);
		assert_int_equal(r->fake.lowest, 4096);
		assert_int_equal(pread(r->fd, now, sizeof(now), 0), sizeof(now));
		assert_memory_equal(now, header, sizeof(now));
		n = pread(r->fd, disk, 16 * MIB, 0);
		assert_true(n > 2 * (ssize_t)MIB);
		assert_int_equal(memmem(disk, (size_t)n, pattern, sizeof(pattern)) != NULL, !encrypt);
		check_all(r);
		free(disk);
		rig_close(r);
	}
}

static void test_capacity(void **state)
{
	/* 32 MiB of pages at 3:1 in 16 MiB. */
	struct rig *r = rig_new(8192, 1200, 1530);
	struct spw_tier_stats st;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	check_all(r);
	st = stats_of(r);
	assert_int_equal(st.pages, r->n);
	assert_true(st.pages * SPW_PAGE > st.capacity_bytes);
	assert_true(st.used_bytes < st.stored_bytes + st.stored_bytes / 10);
	rig_close(r);
}

/* Neighbours are fetched together; what was fetched is not believed once the file has something else there. */
static void test_sequential_reads(void **state)
{
	struct rig *r = rig_new(2000, 500, 1700);

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, NULL);
	for (unsigned round = 0; round < 5; round++) {
		r->fake.reads = 0;
		assert_int_equal(write_range(r, 0, r->n), 0);
		check_all(r);
		assert_true(r->fake.reads < r->n / 20);
		for (unsigned i = 0; i < 500; i++)
			check(r, (uint32_t)(next_random(&r->random) % r->n));
	}
	assert_int_equal(stats_of(r).errors, 0);
	assert_true(stats_of(r).reads > 2 * r->n);
	rig_close(r);
}

/* How much there is below the capacity makes no difference; a segment that does not fit whole is not used. */
static void test_odd_capacities(void **state)
{
	struct spw_file_layout l = {.max_bytes = SPW_FILE_SEGMENT - 1};
	struct spw_file_shared *sh = shared_memory(spw__file_shared_size(MIB));
	uint64_t used, capacity;

	(void)state;
	assert_int_equal(spw__file_shared_init(sh, &l), -EINVAL);
	l = (struct spw_file_layout){.max_bytes = MIB, .first_byte = 100};
	assert_int_equal(spw__file_shared_init(sh, &l), -EINVAL);
	l = (struct spw_file_layout){.max_bytes = MIB - 1, .first_byte = 4096};
	assert_int_equal(spw__file_shared_init(sh, &l), 0);
	spw__file_shared_use(sh, &used, &capacity);
	assert_int_equal(used, 0);
	assert_int_equal(capacity, 3 * SPW_FILE_SEGMENT);
	munmap(sh, spw__file_shared_size(MIB));
	for (uint32_t segments = 1; segments < 12; segments++) {
		struct rig *r = rig_new(4000, 1200, 1500);

		rig_open(r, (struct spw_file_layout){.max_bytes = segments * SPW_FILE_SEGMENT + 4096, .encrypt = true},
			 NULL);
		assert_int_equal(write_range(r, 0, r->n), -ENOSPC);
		check_all(r);
		assert_true(stats_of(r).pages >= (segments > 2 ? segments - 1 : 1) * 150);
		assert_true(lseek(r->fd, 0, SEEK_END) <= segments * SPW_FILE_SEGMENT);
		rig_close(r);
	}
}

/* Replace the objects of [first, last) but those that are left free, cleaning when told that there is no room. */
static uint32_t replace_range(struct rig *r, uint32_t first, uint32_t last)
{
	uint32_t replaced = 0;

	for (uint32_t i = first; i < last; i++) {
		if (r->objects[i].version == GONE)
			continue;
		drop(r, i);
		replaced++;
	}
	for (uint32_t i = first; i < last;) {
		uint32_t end = i;

		while (end < last && r->objects[end].version != GONE && !r->objects[end].written)
			end++;
		if (end == i)
			i++;
		else if (write_range(r, i, end) == -ENOSPC)
			assert_true(clean(r));
	}
	return replaced;
}

/* Fill a file, free one object of fifty, and replace runs of the others: everything dead must be found. */
static void test_churn_at_98_percent(void **state)
{
	struct rig *r = rig_new(40000, 1200, 1530);
	struct spw_tier_stats st;
	uint32_t last;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 32 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), -ENOSPC);
	st = stats_of(r);
	last = (uint32_t)st.pages;
	assert_true(st.used_bytes < st.stored_bytes + st.stored_bytes * 15 / 100);
	for (uint32_t i = 0; i < last / 50; i++) {
		uint32_t gone = (uint32_t)(next_random(&r->random) % last);

		drop(r, gone);
		r->objects[gone].version = GONE;
	}
	for (uint32_t replaced = 0; replaced < last / 4;) {
		uint32_t i = (uint32_t)(next_random(&r->random) % last);

		replaced += replace_range(r, i, i + 100 < last ? i + 100 : last);
	}
	check_all(r);
	assert_int_equal(stats_of(r).errors, 0);
	rig_close(r);
}

/* Write objects from `first` on until there is neither room nor anything to clean. Returns how many. */
static uint32_t write_all_that_fits(struct rig *r, uint32_t first)
{
	uint32_t next = first;

	/* Most passes fill two segments to the last byte. */
	for (uint64_t passes = 0; passes < capacity_bytes(r) / SPW_FILE_SEGMENT; passes++) {
		assert_int_equal(write_range(r, next, r->n), -ENOSPC);
		while (r->objects[next].written)
			next++;
		if (!clean(r))
			return next - first;
	}
	fail_msg("cleaning goes on for ever");
	return 0;
}

/* A block or less is dead in each segment, and not much more in all of a small file. It comes back, and that is it. */
static void test_a_little_dead_everywhere(void **state)
{
	static const struct {
		uint32_t len, segments, freed;
	} c[] = {{100, 64, 30}, {700, 64, 4},      {1365, 768, 1}, {1365, 64, 2},
		 {1999, 24, 1}, {SPW_PAGE, 64, 1}, {1365, 12, 4}};

	(void)state;
	for (unsigned k = 0; k < sizeof(c) / sizeof(c[0]); k++) {
		uint64_t bytes = (uint64_t)c[k].segments * SPW_FILE_SEGMENT;
		struct rig *r = rig_new((uint32_t)(bytes * 8 / 7 / c[k].len), c[k].len * 7 / 8, c[k].len);
		unsigned *of = calloc(c[k].segments, sizeof(*of));
		uint32_t freed = 0, full;

		assert_non_null(of);
		rig_open(r, (struct spw_file_layout){.max_bytes = bytes, .encrypt = true}, NULL);
		full = write_all_that_fits(r, 0);
		for (uint32_t i = 0; i < full; i++) {
			if (of[spw__slot_offset(r->objects[i].slot) / SPW_FILE_SEGMENT]++ >= c[k].freed)
				continue;
			drop(r, i);
			freed++;
		}
		assert_in_range(write_all_that_fits(r, full), freed - freed / 20, freed + freed / 20);
		check_all(r);
		assert_int_equal(stats_of(r).errors, 0);
		free(of);
		rig_close(r);
	}
}

/* Less than a batch takes is not room, however it is moved; and what might not fit in the only free segment stays. */
static void test_too_little_dead(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		uint32_t segments = k ? 12 : 64, per = SPW_FILE_SEGMENT / (SPW_PAGE + 32);
		struct rig *r = rig_new(segments * 64, SPW_PAGE, SPW_PAGE);

		rig_open(r, (struct spw_file_layout){.max_bytes = segments * SPW_FILE_SEGMENT, .encrypt = true}, NULL);
		write_all_that_fits(r, 0);
		drop(r, 0);
		assert_false(clean(r));
		drop(r, 2 * per);
		assert_int_equal(clean(r), !k);
		if (k) {
			drop(r, 1);
			assert_true(clean(r));
		}
		check_all(r);
		rig_close(r);
	}
}

/* Free segments of a file that may be punched go back to the filesystem. */
static void test_discard(void **state)
{
	struct rig *r = rig_new(8000, 1200, 1530);

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 64 * MIB, .encrypt = true, .discard = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	assert_false(clean(r));
	assert_int_equal(r->fake.discards, 0);
	for (uint32_t i = 0; i < 6000; i++)
		drop(r, i);
	while (r->fake.discards < 6000 / 200) {
		unsigned before = r->fake.discards;

		assert_false(clean(r));
		assert_true(r->fake.discards > before);
	}
	check_all(r);
	assert_int_equal(write_range(r, 0, 6000), 0);
	check_all(r);
	rig_close(r);
}

/* Segments with a bad block are nobody's, whatever happens to the others: filled, cleaned, shared, reaped, punched. */
static void test_bad_blocks(void **state)
{
	/* Block 1 begins segment 0 and 64 ends it; 1000 and 1010 are in 15; 4095 is behind the last segment. */
	static const uint32_t bad[] = {64, 1000, 4095, 1, 1010, 1000, 200, 0, UINT32_MAX};
	const uint64_t usable = 16 * MIB / SPW_FILE_SEGMENT - 1 - 3;
	const struct spw_file_layout l = {.first_byte = 4096,
					  .max_bytes = 16 * MIB,
					  .encrypt = true,
					  .discard = true,
					  .bad = bad,
					  .bad_n = sizeof(bad) / sizeof(bad[0])};
	struct rig *r = rig_new(20000, 1200, 1530);
	uint64_t used, capacity;

	(void)state;
	rig_open(r, l, NULL);
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(write_range(r, 0, r->n), -ENOSPC);
		spw__file_shared_use(r->sh, &used, &capacity);
		assert_int_equal(capacity, usable * SPW_FILE_SEGMENT);
		assert_int_equal(stats_of(r).capacity_bytes, capacity);
		/* all but what cleaning needs */
		assert_int_equal(used, capacity - 2 * SPW_FILE_SEGMENT);
		check_all(r);
		for (uint32_t i = 0; i < r->n; i += 2)
			drop(r, i);
		assert_true(clean(r));
		assert_int_equal(r->t->ops->fork_prepare(r->t, 2), 0);
		for (unsigned p = 0; p < SPW_FILE_PROCS; p++)
			if (p != 1)
				spw__file_reap(r->sh, p);
		check_all(r);
		drop_all(r);
		assert_true(used_bytes(r) <= SPW_FILE_SEGMENT); /* the one that is written to next */
		assert_false(clean(r));
		assert_true(r->fake.discards > 0);
	}
	rig_close(r);
}

/* One segment that is left is enough, none is not. */
static void test_bad_blocks_nearly_everywhere(void **state)
{
	uint32_t bad[] = {1, 65, 193, 129};
	struct spw_file_layout l = {
		.first_byte = 4096, .max_bytes = MIB + 4096, .encrypt = true, .bad = bad, .bad_n = 3};
	struct rig *r = rig_new(2000, 1200, 1530);
	struct spw_file_shared *sh = shared_memory(spw__file_shared_size(l.max_bytes));

	(void)state;
	rig_open(r, l, NULL);
	assert_int_equal(write_range(r, 0, r->n), -ENOSPC);
	assert_int_equal(used_bytes(r), SPW_FILE_SEGMENT);
	assert_true(stats_of(r).pages >= 150);
	check_all(r);
	drop_all(r);
	rig_close(r);

	l.bad_n = 4;
	assert_int_equal(spw__file_shared_init(sh, &l), -EINVAL);
	munmap(sh, spw__file_shared_size(l.max_bytes));
}

/* Tell the other side of a pipe to go on, and wait for it. */
static void signal_peer(int fd)
{
	assert_int_equal(write(fd, "x", 1), 1);
}

static void await_peer(int fd)
{
	char c;

	assert_int_equal(read(fd, &c, 1), 1);
}

static void expect_exit(pid_t pid, int status)
{
	int got;

	assert_int_equal(waitpid(pid, &got, 0), pid);
	assert_true(WIFEXITED(got));
	assert_int_equal(WEXITSTATUS(got), status);
}

/* An assertion that fails in a child ends it, so that it does not go on with the parent's tests. */
#define IN_CHILD(pid) for (pid = fork(); pid == 0 && !setenv("CMOCKA_TEST_ABORT", "1", 1); _exit(0))

/* Both sides read what was written before the fork; a segment is free when the second has let go of it. */
static void test_fork_shares(void **state)
{
	struct rig *r = rig_new(2000, 500, 1700);
	struct spw_segment *g = NULL;
	int to_child[2], to_parent[2];
	uint8_t buf[SPW_PAGE];
	uint64_t shared;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(to_child) | pipe(to_parent), 0);
	rig_open(r, (struct spw_file_layout){.max_bytes = 32 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, 1000), 0);
	shared = used_bytes(r);
	/* In flight at the fork: the parent's alone. */
	r->fake.hold = true;
	for (uint32_t i = 1000; i < 1600; i++) {
		struct spw_obj o = object_of(r, i, 1, buf);

		r->objects[i].next = 1;
		assert_int_equal(add(r, &g, i, &o), 0);
	}
	r->t->ops->submit(r->t, g);
	assert_int_equal(r->t->ops->fork_prepare(r->t, 2), 0);
	fflush(NULL);
	IN_CHILD(pid)
	{
		r->t->ops->fork_child(r->t, 2);
		r->fake.hold = false;
		r->fake.n = 0;
		assert_int_equal(stats_of(r).used_bytes, shared);
		check_all(r);
		for (uint32_t i = 0; i < 500; i++)
			drop(r, i);
		if (write_range(r, 0, 500))
			_exit(2);
		check_all(r);
		signal_peer(to_parent[1]);
		await_peer(to_child[0]);
		check_all(r);
		drop_all(r);
		r->t->ops->destroy(r->t);
	}
	r->fake.hold = false;
	submit(r, NULL);
	await_peer(to_parent[0]);
	check_all(r);
	drop_all(r);
	r->t->ops->destroy(r->t);
	/* The child holds what it got and what it wrote. */
	assert_true(used_bytes(r) >= shared);
	signal_peer(to_child[1]);
	expect_exit(pid, 0);
	assert_int_equal(used_bytes(r), 0);
	close(to_child[0]);
	close(to_child[1]);
	close(to_parent[0]);
	close(to_parent[1]);
	munmap(r->sh, r->sh_bytes);
	close(r->fd);
	free(r->objects);
	free(r);
}

/* Moving objects out of a segment that another process holds too would free nothing. */
static void test_shared_segments_are_not_cleaned(void **state)
{
	struct rig *r = rig_new(3000, 1200, 1530);
	pid_t pid;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 4 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), -ENOSPC);
	for (uint32_t i = 0; i < r->n; i += 2)
		drop(r, i);
	fflush(NULL);
	assert_int_equal(r->t->ops->fork_prepare(r->t, 2), 0);
	IN_CHILD(pid)
	{
		r->t->ops->fork_child(r->t, 2);
		assert_false(clean(r));
	}
	assert_false(clean(r));
	expect_exit(pid, 0);
	spw__file_reap(r->sh, 2);
	assert_true(clean(r));
	rig_close(r);
}

/* While moves are in flight, the segment that they empty is not cleaned again. */
static void test_cleaning_goes_on_to_the_next(void **state)
{
	struct rig *r = rig_new(3000, 1200, 1530);
	static spw_entry_t e[256];
	static spw_slot_t s[256];
	static struct spw_obj objs[256];
	uint64_t segment[3];

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 4 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), -ENOSPC);
	for (uint32_t i = 0; i < r->n; i += 2)
		drop(r, i);
	r->fake.hold = true;
	for (unsigned k = 0; k < 3; k++) {
		struct spw_segment *g;
		spw_slot_t to;

		assert_true(r->t->ops->clean(r->t, false, e, s, objs, 256) > 0);
		segment[k] = spw__slot_offset(s[0]) / SPW_FILE_SEGMENT;
		for (unsigned i = 0; i < k; i++)
			assert_int_not_equal(segment[i], segment[k]);
		assert_int_equal(r->t->ops->begin(r->t, &g), 0);
		assert_int_equal(r->t->ops->add(r->t, g, e[0], &objs[0], s[0], &to), 0);
		r->objects[e[0].idx].next = r->objects[e[0].idx].version;
		r->t->ops->submit(r->t, g);
		r->t->ops->clean_done(r->t);
	}
	r->fake.hold = false;
	submit(r, NULL);
	drop_all(r);
	rig_close(r);
}

static uint64_t segment_of(spw_slot_t s)
{
	return spw__slot_offset(s) / SPW_FILE_SEGMENT;
}

static unsigned live_in(const struct rig *r, uint64_t segment)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < r->n; i++)
		n += r->objects[i].written && segment_of(r->objects[i].slot) == segment;
	return n;
}

/*
 * With room below, segments are named in the order in which they were written, full as they are; with room here, none.
 */
static void test_the_oldest_goes_first(void **state)
{
	struct rig *r = rig_new(3000, 1200, 1530);
	static spw_entry_t e[256];
	static spw_slot_t s[256];
	static struct spw_obj objs[256];
	uint32_t oldest = 0;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 4 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, 500), 0);
	assert_int_equal(r->t->ops->clean(r->t, true, e, s, objs, 256), 0);
	assert_int_equal(write_range(r, 500, r->n), -ENOSPC);
	for (unsigned n, segments = 0; (n = r->t->ops->clean(r->t, true, e, s, objs, 256)) > 0; segments++) {
		uint64_t segment = segment_of(r->objects[oldest].slot);

		/* Some batches at a time; it goes as a whole. */
		for (; n > 0; n = live_in(r, segment) ? r->t->ops->clean(r->t, true, e, s, objs, 256) : 0) {
			for (unsigned i = 0; i < n; i++) {
				assert_int_equal(segment_of(s[i]), segment);
				drop(r, e[i].idx); /* it is elsewhere now */
			}
			r->t->ops->clean_done(r->t);
		}
		assert_int_equal(live_in(r, segment), 0);
		while (!r->objects[oldest].written)
			oldest++;
		assert_true(segments < 8); /* then there is room again */
	}
	assert_true(oldest > 0);
	check_all(r);
	drop_all(r);
	rig_close(r);
}

static void test_fork_failed(void **state)
{
	struct rig *r = rig_new(1000, 500, 1700);

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 32 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, r->n), 0);
	assert_int_equal(r->t->ops->fork_prepare(r->t, 2), 0);
	r->t->ops->fork_failed(r->t, 2);
	check_all(r);
	drop_all(r);
	rig_close(r);
}

/* What the processes of a tree have to do with each other. */
struct tree {
	uint64_t steps; /* A */
	uint32_t stop;  /* A */
};

/* Write, free, share with children that never come to be, clean; until told to stop, if ever. */
static void busy_process(struct rig *r, uint64_t seed, unsigned first_child, struct tree *tree, bool checks)
{
	while (!__atomic_load_n(&tree->stop, __ATOMIC_ACQUIRE)) {
		uint64_t what = next_random(&seed);
		uint32_t first = (uint32_t)(next_random(&seed) % r->n), n = (uint32_t)(next_random(&seed) % 100);
		uint32_t last = first + n < r->n ? first + n : r->n;

		__atomic_fetch_add(&tree->steps, !checks, __ATOMIC_RELAXED);
		if (what % 8 < 4) {
			if (write_range(r, first, last) == -ENOSPC)
				clean(r);
		} else if (what % 8 < 7) {
			for (uint32_t i = first; i < last; i++)
				drop(r, i);
		} else {
			unsigned child = first_child + (unsigned)(what / 8 % 5);

			if (r->t->ops->fork_prepare(r->t, child))
				_exit(3);
			r->t->ops->fork_failed(r->t, child);
		}
		if (checks)
			check_all(r);
		clock_ns += SECOND;
	}
}

/* A child that is killed after some steps, between any two instructions; then it is reaped. */
static void kill_one(struct rig *r, uint64_t *random, struct tree *tree)
{
	uint64_t lifetime = 1 + next_random(random) % 20, spins = next_random(random) % 20000,
		 seed = next_random(random);
	int status;
	pid_t pid;

	__atomic_store_n(&tree->steps, 0, __ATOMIC_RELAXED);
	clock_ns += 10 * SECOND;
	assert_int_equal(r->t->ops->fork_prepare(r->t, 2), 0);
	IN_CHILD(pid)
	{
		r->t->ops->fork_child(r->t, 2);
		busy_process(r, seed, 3, tree, false);
	}
	while (__atomic_load_n(&tree->steps, __ATOMIC_RELAXED) < lifetime)
		assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	for (uint64_t i = 0; i < spins; i++)
		__asm__ volatile("pause");
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	for (unsigned p = 2; p < 8; p++)
		spw__file_reap(r->sh, p);
}

static void test_reap_after_kill(void **state)
{
	struct rig *r = rig_new(600, 500, 4000);
	struct tree *tree = shared_memory(4096);
	uint64_t random = 4711;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 4 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, 50), 0);
	fflush(NULL);
	for (unsigned round = 0; round < 60; round++) {
		kill_one(r, &random, tree);
		/* The parent's fifty. */
		assert_int_equal(used_bytes(r), SPW_FILE_SEGMENT);
		check_all(r);
	}
	drop_all(r);
	munmap(tree, 4096);
	rig_close(r);
}

/* While others are killed and reaped, one goes on and loses nothing. */
static void test_reap_beside_a_survivor(void **state)
{
	struct rig *r = rig_new(600, 500, 4000);
	struct tree *tree = shared_memory(4096);
	uint64_t random = 4712;
	pid_t survivor;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 4 * MIB, .encrypt = true}, NULL);
	assert_int_equal(write_range(r, 0, 50), 0);
	fflush(NULL);
	assert_int_equal(r->t->ops->fork_prepare(r->t, 8), 0);
	IN_CHILD(survivor)
	{
		r->t->ops->fork_child(r->t, 8);
		busy_process(r, 1, 9, tree, true);
		drop_all(r);
		r->t->ops->destroy(r->t);
	}
	for (unsigned round = 0; round < 30; round++) {
		kill_one(r, &random, tree);
		check_all(r);
	}
	__atomic_store_n(&tree->stop, 1, __ATOMIC_RELEASE);
	expect_exit(survivor, 0);
	assert_int_equal(used_bytes(r), SPW_FILE_SEGMENT);
	drop_all(r);
	munmap(tree, 4096);
	rig_close(r);
}

/* A write of the dead may still be on its way to the disk: where it goes must not be given to another at once. */
static void test_reap_lets_writes_rest(void **state)
{
	struct rig *r = rig_new(2000, 1200, 1500);
	struct spw_segment *g = NULL;
	uint8_t buf[SPW_PAGE];
	pid_t pid;

	(void)state;
	rig_open(r, (struct spw_file_layout){.max_bytes = 4 * MIB, .encrypt = true}, NULL);
	fflush(NULL);
	assert_int_equal(r->t->ops->fork_prepare(r->t, 2), 0);
	IN_CHILD(pid)
	{
		r->t->ops->fork_child(r->t, 2);
		r->fake.hold = true;
		for (uint32_t i = 0; i < 50; i++) {
			struct spw_obj o = object_of(r, i, 1, buf);

			if (add(r, &g, i, &o))
				_exit(2);
		}
		r->t->ops->submit(r->t, g);
	}
	expect_exit(pid, 0);
	assert_int_equal(used_bytes(r), SPW_FILE_SEGMENT);
	spw__file_reap(r->sh, 2);
	assert_int_equal(used_bytes(r), 0);
	assert_int_equal(write_range(r, 0, 50), 0);
	assert_true(spw__slot_offset(r->objects[0].slot) >= SPW_FILE_SEGMENT);
	clock_ns += 6 * SECOND;
	assert_int_equal(write_range(r, 0, 200), 0);
	assert_true(spw__slot_offset(r->objects[199].slot) < SPW_FILE_SEGMENT);
	check_all(r);
	rig_close(r);
}

/* ---- the real I/O ---- */

static void real_io(int flags, enum spw_file_watch watch)
{
	struct rig *r = rig_new(6000, 1200, 3000);
	struct spw_file_io io;
	unsigned char *in_core;
	uint64_t cached = 0;
	off_t size;
	pid_t pid;
	void *map;

	r->fd = temporary_file(flags);
	assert_int_equal(spw__file_io_open(r->fd, &io), 0);
	spw__file_io_watch(&io, watch);
	rig_open(r, (struct spw_file_layout){.max_bytes = 24 * MIB, .encrypt = true}, &io);
	assert_int_equal(write_range(r, 0, 5000), 0);
	check_all(r);
	for (unsigned i = 0; i < 40; i++) {
		uint32_t first = (uint32_t)(next_random(&r->random) % 5000);

		if (write_range(r, first, first + 100) == -ENOSPC)
			clean(r);
	}
	check_all(r);
	fflush(NULL);
	assert_int_equal(r->t->ops->fork_prepare(r->t, 2), 0);
	IN_CHILD(pid)
	{
		r->t->ops->fork_child(r->t, 2);
		check_all(r);
		for (uint32_t i = 0; i < 5000; i++)
			if (i % 8)
				drop(r, i);
		if (write_range(r, 0, 500))
			_exit(2);
		check_all(r);
		r->t->ops->destroy(r->t);
	}
	check_all(r);
	expect_exit(pid, 0);
	assert_int_equal(write_range(r, 0, 300), 0);
	check_all(r);
	assert_int_equal(stats_of(r).errors, 0);

	/* Nothing stays in the page cache. */
	size = lseek(r->fd, 0, SEEK_END);
	map = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, r->fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	in_core = malloc((size_t)size / 4096 + 1);
	assert_non_null(in_core);
	assert_int_equal(mincore(map, (size_t)size, in_core), 0);
	for (off_t i = 0; i < size / 4096; i++)
		cached += in_core[i] & 1;
	assert_true(cached < (uint64_t)size / 4096 / 20);
	free(in_core);
	munmap(map, (size_t)size);
	close(r->fake.fd);
	rig_close(r);
}

static void test_real_io_direct(void **state)
{
	(void)state;
	real_io(O_DIRECT, SPW_WATCH_NEVER);
}

static void test_real_io_watched(void **state)
{
	(void)state;
	real_io(O_DIRECT, SPW_WATCH_ALWAYS);
	real_io(O_DIRECT, SPW_WATCH_SPARE);
}

static void test_real_io_buffered(void **state)
{
	(void)state;
	real_io(0, SPW_WATCH_NEVER);
}

/* As in a container that forbids io_uring: writes are made by pwrite. */
static void test_real_io_without_io_uring(void **state)
{
	struct sock_filter refuse[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(refuse) / sizeof(*refuse), .filter = refuse};
	pid_t pid;

	(void)state;
	fflush(NULL);
	IN_CHILD(pid)
	{
		assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
		assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
		assert_int_equal(syscall(SYS_io_uring_setup, 1, NULL), -1);
		assert_int_equal(errno, EPERM);
		real_io(O_DIRECT, SPW_WATCH_ALWAYS);
	}
	expect_exit(pid, 0);
}

/* ---- threads ---- */

#define SHARED_ENTRIES 3000u
#define THREAD_READS   20000u

struct shared_entry {
	pthread_mutex_t lock;
	struct object o;
	bool moving, dead; /* dead: freed while moving */
};

struct crowd {
	struct rig *r;
	struct shared_entry e[SHARED_ENTRIES];
	unsigned running; /* A readers */
	uint64_t seed;    /* A */
};

/* Reads any entry and now and then frees one, while the writer moves them. */
static void *reader(void *arg)
{
	struct crowd *c = arg;
	uint64_t seed = __atomic_fetch_add(&c->seed, 1, __ATOMIC_RELAXED);
	uint8_t want[SPW_PAGE], got[SPW_PAGE];

	for (unsigned k = 0; k < THREAD_READS; k++) {
		uint32_t i = (uint32_t)(next_random(&seed) % SHARED_ENTRIES);
		struct shared_entry *e = &c->e[i];
		struct object before, after;
		int err = 0;

		pthread_mutex_lock(&e->lock);
		before = e->o;
		if (k % 4 == 0 && before.written) {
			if (e->moving)
				e->dead = true;
			else
				c->r->t->ops->free(c->r->t, before.slot);
			before.written = e->o.written = false;
		}
		pthread_mutex_unlock(&e->lock);
		if (!before.written)
			continue;
		err = c->r->t->ops->get(c->r->t, (spw_entry_t){i}, before.slot, got);
		pthread_mutex_lock(&e->lock);
		after = e->o;
		pthread_mutex_unlock(&e->lock);
		if (!after.written || after.version != before.version)
			continue;
		if (err || memcmp(got, want, object_of(c->r, i, before.version, want).len)) {
			fprintf(stderr, "entry %u version %u: %d\n", i, before.version, err);
			abort();
		}
	}
	__atomic_fetch_sub(&c->running, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void complete(struct crowd *c)
{
	const struct spw_move *moves;
	struct spw_segment *token;
	int status;
	unsigned n = c->r->t->ops->poll(c->r->t, 1000000, &moves, &status, &token);

	for (unsigned i = 0; i < n; i++) {
		struct shared_entry *e = &c->e[moves[i].entry.idx];

		assert_int_equal(status, 0);
		pthread_mutex_lock(&e->lock);
		if (e->o.written || e->dead)
			c->r->t->ops->free(c->r->t, e->o.slot);
		e->o = (struct object){
			.slot = moves[i].to, .version = e->o.next, .next = e->o.next, .written = !e->dead};
		if (e->dead)
			c->r->t->ops->free(c->r->t, moves[i].to);
		e->moving = e->dead = false;
		pthread_mutex_unlock(&e->lock);
	}
	if (n)
		c->r->t->ops->poll_done(c->r->t, token);
}

/* One round of the writer: new versions of a run of entries. */
static void write_run(struct crowd *c, uint32_t first, uint32_t n)
{
	struct spw_segment *g = NULL;
	uint8_t buf[SPW_PAGE];
	spw_slot_t to;

	for (uint32_t i = first; i < first + n && i < SHARED_ENTRIES; i++) {
		struct shared_entry *e = &c->e[i];

		while (!g && c->r->t->ops->begin(c->r->t, &g))
			complete(c);
		pthread_mutex_lock(&e->lock);
		if (!e->moving) {
			struct spw_obj o = object_of(c->r, i, e->o.version + 1, buf);

			if (!c->r->t->ops->add(c->r->t, g, (spw_entry_t){i}, &o, SPW_SLOT_NONE, &to)) {
				e->o.next = e->o.version + 1;
				e->moving = true;
			} else {
				c->r->t->ops->submit(c->r->t, g);
				g = NULL;
			}
		}
		pthread_mutex_unlock(&e->lock);
	}
	if (g)
		c->r->t->ops->submit(c->r->t, g);
}

static void test_threads(void **state)
{
	struct crowd *c = calloc(1, sizeof(*c));
	pthread_t threads[3];
	struct spw_file_io io;
	struct rig *r;

	(void)state;
	assert_non_null(c);
	c->r = r = rig_new(1, 500, 1700);
	assert_int_equal(spw__file_io_open(r->fd, &io), 0);
	rig_open(r, (struct spw_file_layout){.max_bytes = 16 * MIB, .encrypt = true}, &io);
	for (uint32_t i = 0; i < SHARED_ENTRIES; i++)
		pthread_mutex_init(&c->e[i].lock, NULL);
	c->running = 3;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader, c), 0);
	while (__atomic_load_n(&c->running, __ATOMIC_ACQUIRE)) {
		write_run(c, (uint32_t)(next_random(&r->random) % SHARED_ENTRIES), 200);
		complete(c);
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	for (uint32_t i = 0; i < SHARED_ENTRIES; i++) {
		while (c->e[i].moving)
			complete(c);
		if (c->e[i].o.written)
			r->t->ops->free(r->t, c->e[i].o.slot);
	}
	assert_int_equal(stats_of(r).pages, 0);
	/* All that is held is the tail. */
	assert_true(used_bytes(r) <= SPW_FILE_SEGMENT);
	rig_close(r);
	free(c);
}

static void test_real_io_on_a_bad_descriptor(void **state)
{
	struct spw_file_io io;
	uint64_t token;
	int64_t result;
	void *page = shared_memory(4096);

	(void)state;
	assert_int_equal(spw__file_io_open(-1, &io), -EBADF);
	int fd = temporary_file(0);

	assert_int_equal(spw__file_io_open(fd, &io), 0);
	close(fd);
	assert_int_equal(io.read(io.ctx, page, 4096, 0), -EBADF);
	assert_int_equal(io.write(io.ctx, page, 4096, 0, 77), 0);
	while (!io.reap(io.ctx, 1000000, &token, &result))
		;
	assert_int_equal(token, 77);
	assert_int_equal(result, -EBADF);
	/* Another descriptor of the file: what a forked child has. */
	fd = temporary_file(0);
	spw__file_io_set_fd(&io, fd);
	assert_int_equal(io.write(io.ctx, page, 4096, 0, 78), 0);
	while (!io.reap(io.ctx, 1000000, &token, &result))
		;
	assert_int_equal(token, 78);
	assert_int_equal(result, 4096);
	io.close(io.ctx);
	close(fd);
	munmap(page, 4096);
}

static void test_real_early_reads(void **state)
{
	int fd = temporary_file(O_DIRECT);
	size_t bytes = SPW_FILE_EARLY * 65536;
	uint8_t *out = shared_memory(bytes), *in = shared_memory(bytes);
	struct spw_file_io io;
	unsigned started = 0;

	(void)state;
	for (size_t i = 0; i < bytes; i++)
		out[i] = (uint8_t)(i * 31 + i / 4096);
	assert_int_equal(pwrite(fd, out, bytes, 0), bytes);
	assert_int_equal(spw__file_io_open(fd, &io), 0);
	for (unsigned round = 0; round < 50; round++) {
		uint32_t under_way = 0;

		memset(in, 0, bytes);
		for (unsigned n = 0; n < SPW_FILE_EARLY; n++)
			if (io.start && io.start(io.ctx, n, in + n * 65536, 65536, n * 65536))
				under_way |= 1u << n;
		started += (unsigned)__builtin_popcount(under_way);
		for (unsigned i = 0; i < SPW_FILE_EARLY; i++) {
			unsigned n = (i * 7 + round) % SPW_FILE_EARLY;
			int64_t got;

			if (!(under_way & 1u << n))
				continue;
			while (!io.finish(io.ctx, n, round % 2 * SECOND, &got))
				;
			assert_int_equal(got, 65536);
			assert_memory_equal(in + n * 65536, out + n * 65536, 65536);
		}
	}
	/* None where the page cache would keep what is read, or io_uring is refused. */
	print_message("%u early reads\n", started);
	/* Beyond the end. */
	if (io.start && io.start(io.ctx, 3, in, 65536, bytes - 4096)) {
		int64_t got = 0;

		assert_true(io.finish(io.ctx, 3, UINT64_MAX, &got));
		assert_int_equal(got, 4096);
	}
	io.close(io.ctx);
	close(fd);
	munmap(out, bytes);
	munmap(in, bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_round_trip_without_encryption),
		cmocka_unit_test(test_page_sizes),
		cmocka_unit_test(test_wrong_bytes),
		cmocka_unit_test(test_wrong_bytes_without_encryption),
		cmocka_unit_test(test_stale_segment),
		cmocka_unit_test(test_write_eio),
		cmocka_unit_test(test_write_short),
		cmocka_unit_test(test_write_refused),
		cmocka_unit_test(test_write_enospc),
		cmocka_unit_test(test_back_off_doubles),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_idle_memory),
		cmocka_unit_test(test_enospc_ends_with_a_free),
		cmocka_unit_test(test_torn_and_lost_writes),
		cmocka_unit_test(test_read_errors),
		cmocka_unit_test(test_nothing_readable_on_disk_nothing_below_first_byte),
		cmocka_unit_test(test_capacity),
		cmocka_unit_test(test_sequential_reads),
		cmocka_unit_test(test_odd_capacities),
		cmocka_unit_test(test_churn_at_98_percent),
		cmocka_unit_test(test_a_little_dead_everywhere),
		cmocka_unit_test(test_too_little_dead),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_bad_blocks),
		cmocka_unit_test(test_bad_blocks_nearly_everywhere),
		cmocka_unit_test(test_what_is_expected_is_on_its_way),
		cmocka_unit_test(test_what_is_expected_alone),
		cmocka_unit_test(test_an_early_read_that_fails),
		cmocka_unit_test(test_more_is_expected_than_there_is_room_for),
		cmocka_unit_test(test_early_reads_refused),
		cmocka_unit_test(test_destroy_with_a_read_that_never_ends),
		cmocka_unit_test(test_what_was_expected_is_freed),
		cmocka_unit_test(test_settle),
		cmocka_unit_test(test_fork_with_early_reads),
		cmocka_unit_test(test_real_early_reads),
		cmocka_unit_test(test_fork_shares),
		cmocka_unit_test(test_fork_failed),
		cmocka_unit_test(test_shared_segments_are_not_cleaned),
		cmocka_unit_test(test_cleaning_goes_on_to_the_next),
		cmocka_unit_test(test_the_oldest_goes_first),
		cmocka_unit_test(test_reap_after_kill),
		cmocka_unit_test(test_reap_beside_a_survivor),
		cmocka_unit_test(test_reap_lets_writes_rest),
		cmocka_unit_test(test_real_io_direct),
		cmocka_unit_test(test_real_io_watched),
		cmocka_unit_test(test_real_io_buffered),
		cmocka_unit_test(test_real_io_without_io_uring),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_real_io_on_a_bad_descriptor),
	};

	return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
