/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The four cases that a swap with entries must answer, twins, and drains: real tiers, the space with its hooks compiled
 * in, two or three threads, and every order in which they can pass the hooks (schedule.h).
 *
 * What a thread does in the space is written down with when it began and when it ended, by the count of steps. A load
 * may give what a store or a free made of the entry if that one began before the load ended, and nothing made later had
 * ended before the load began. After each order the entry is loaded once more, the tiers must hold as many objects as
 * its kind says, and when it is freed, none.
 */
#include "platform/platform.h"
#include "space/internal.h"
#include "space/space.h"
#include "tier/file.h"
#include "tier/zswap.h"

#include "schedule.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

#define FILE_BYTES (4u << 20)
#define FRAMES     4u
#define MAKINGS    8u
#define LOADS      16u
#define HOLDERS    4u
#define NOBODY     UINT32_MAX

#define GET(x)    __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define SET(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
#define ADD(x, n) __atomic_fetch_add(&(x), (n), __ATOMIC_RELAXED)

#define CHECK(cond)                                                            \
	do {                                                                   \
		if (!(cond))                                                   \
			fail_msg("%s, in the order %s", #cond, schedule.text); \
	} while (0)

#define AT(point) (1u << SPW__##point)

/* ---- time: each look at the clock is minutes later, so that a tier that backs off has done so long ago ---- */

uint64_t __wrap_spw__plat_now_ns(void);

uint64_t __wrap_spw__plat_now_ns(void)
{
	static uint64_t now;

	return ADD(now, 60000000000u);
}

/* ---- a disk in memory: a write is done when it is reaped ---- */

static struct {
	int fd;
	unsigned n;
	struct {
		const void *buf;
		size_t len;
		uint64_t off, token;
	} write[16];
	bool fail;
} disk;

static int64_t disk_read(void *ctx, void *buf, size_t len, uint64_t off)
{
	(void)ctx;
	return pread(disk.fd, buf, len, (off_t)off);
}

static int disk_write(void *ctx, const void *buf, size_t len, uint64_t off, uint64_t token)
{
	(void)ctx;
	disk.write[disk.n].buf = buf;
	disk.write[disk.n].len = len;
	disk.write[disk.n].off = off;
	disk.write[disk.n++].token = token;
	return 0;
}

static int disk_reap(void *ctx, uint64_t wait_ns, uint64_t *token, int64_t *result)
{
	(void)ctx;
	(void)wait_ns;
	if (!disk.n)
		return 0;
	*token = disk.write[0].token;
	*result = disk.fail ? -EIO : pwrite(disk.fd, disk.write[0].buf, disk.write[0].len, (off_t)disk.write[0].off);
	memmove(disk.write, disk.write + 1, --disk.n * sizeof(disk.write[0]));
	return 1;
}

static void disk_close(void *ctx)
{
	(void)ctx;
}

/* ---- the space, and the entry that all is about ---- */

static struct spw__space *sp;
static struct spw_tier *pool, *file, *refuge;
static struct spw_work *work[SCHEDULE_ACTORS + 1]; /* an actor's, and the main thread's */
static void *work_mem[SCHEDULE_ACTORS + 1];
static spw_entry_t e;
static uint32_t cluster;

/* Frames as a host has them: the page, and the version of it. */
static uint32_t frame[FRAMES]; /* A */

/* What became of the entry, and what was seen of it. Version 0 is zeros. */
static struct {
	uint32_t steps;          /* A */
	uint32_t makings, loads; /* A */
	struct {
		uint32_t began, ended; /* A */
		uint32_t version;      /* A; NOBODY: it had no effect */
	} made[MAKINGS];
	struct {
		uint32_t began, ended, version; /* A */
	} load[LOADS];
	int rc[SCHEDULE_ACTORS][4]; /* A what an actor's calls returned */
	uint32_t broken;            /* A bytes of no version, or a load that failed */
} seen;

/* Version v of the page: odd ones do not compress. 0 is zeros. */
static void make_page(uint64_t *p, uint32_t v)
{
	uint64_t x = v * 0x9e3779b97f4a7c15u;

	for (unsigned k = 0; k < SPW_PAGE / 8; k++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		p[k] = !v ? 0 : k == 0 ? v : v % 2 || k % 5 == 0 ? x ^ x >> 29 : v;
	}
}

static uint32_t version_of(const uint64_t *page)
{
	uint64_t want[SPW_PAGE / 8];

	make_page(want, (uint32_t)page[0]);
	return memcmp(page, want, SPW_PAGE) ? NOBODY : (uint32_t)page[0];
}

static uint32_t tick(void)
{
	return ADD(seen.steps, 1) + 1;
}

static uint32_t begin_making(uint32_t version)
{
	uint32_t m = ADD(seen.makings, 1);

	SET(seen.made[m].version, version);
	SET(seen.made[m].ended, NOBODY);
	SET(seen.made[m].began, tick());
	return m;
}

static void end_making(uint32_t m, bool effect)
{
	if (!effect)
		SET(seen.made[m].version, NOBODY);
	SET(seen.made[m].ended, tick());
}

static int store(unsigned me, uint32_t version, uint32_t f)
{
	uint64_t page[SPW_PAGE / 8];
	/* To store a frame is to change where its page is, not the page. */
	uint32_t m = f == SPW_NO_FRAME ? begin_making(version) : 0;
	int rc;

	make_page(page, version);
	rc = spw_store(sp, work[me], e, page, f);
	if (f == SPW_NO_FRAME)
		end_making(m, !rc);
	return rc;
}

/* One holder goes. last: it is known to be the last. */
static void drop(bool last)
{
	uint32_t m = last ? begin_making(0) : 0;

	spw_free(sp, &e, 1);
	if (last)
		end_making(m, true);
}

static void note_load(uint32_t began, uint32_t version)
{
	uint32_t l = ADD(seen.loads, 1);

	SET(seen.load[l].began, began);
	SET(seen.load[l].version, version);
	SET(seen.load[l].ended, tick());
}

/* A load, or of an entry in a frame what is in the frame. */
static int load(unsigned me)
{
	uint64_t page[SPW_PAGE / 8];
	uint32_t began = tick(), version, f;
	spw_slot_t where;
	int rc;

	memset(page, 0xa5, sizeof(page));
	rc = spw_load(sp, work[me], e, page, &where);
	version = version_of(page);
	if (rc == -EEXIST) {
		/*
		 * The frame may be emptied before it is looked at: then there was none, and the load saw that it was.
		 */
		if (spw_cache_get(sp, e, &f))
			return rc;
		version = GET(frame[f]);
	}
	if ((rc && rc != -ENOENT && rc != -EEXIST) || version == NOBODY)
		ADD(seen.broken, 1);
	note_load(began, version);
	return rc;
}

/* ---- what happens in one order, begin and end ---- */

static uint64_t pages_of(struct spw_tier *t)
{
	struct spw_tier_stats st;

	t->ops->stats(t, &st);
	return st.pages;
}

static uint64_t bytes_of(struct spw_tier *t)
{
	struct spw_tier_stats st;

	t->ops->stats(t, &st);
	return st.stored_bytes;
}

static void land(void)
{
	while (spw_writeback_under_way(sp))
		spw_writeback_poll(sp, 1);
}

static void on_pool(void)
{
	CHECK(!store(SCHEDULE_ACTORS, 1, SPW_NO_FRAME));
	CHECK(spw_kind(sp, e) == SPW_POOL);
}

static void on_file(void)
{
	on_pool();
	CHECK(spw_writeback_start(sp, UINT64_MAX, false) == 1);
	land();
	CHECK(spw_kind(sp, e) == SPW_SLOT);
}

static void on_file_shared(void)
{
	on_file();
	CHECK(!spw_dup(sp, &e, 1));
}

static void on_pool_shared(void)
{
	on_pool();
	CHECK(!spw_dup(sp, &e, 1));
}

static void on_pool_drained(void)
{
	on_pool();
	spw_drain_begin(sp, pool);
}

static void on_file_drained(void)
{
	on_file();
	spw_drain_begin(sp, file);
}

/* In frame 0, which was written to, with the old page still in the pool. */
static void in_frame(void)
{
	on_pool();
	CHECK(!spw_cache_add(sp, e, 0));
	SET(frame[0], 2);
	end_making(begin_making(2), true);
}

static void begin_order(void (*set)(void))
{
	memset(&seen, 0, sizeof(seen));
	memset(frame, 0, sizeof(frame));
	disk.fail = false;
	CHECK(!spw_cluster_take(sp, &cluster));
	e.idx = cluster * SPW_CLUSTER + 7;
	set();
}

static bool allowed(uint32_t load)
{
	uint32_t began = seen.load[load].began, ended = seen.load[load].ended;

	for (uint32_t m = 0; m < seen.makings; m++) {
		bool over = false;

		if (seen.made[m].version != seen.load[load].version || seen.made[m].began > ended)
			continue;
		for (uint32_t later = 0; later < seen.makings; later++)
			over |= seen.made[later].version != NOBODY && seen.made[later].began > seen.made[m].ended &&
				seen.made[later].ended < began;
		if (!over)
			return true;
	}
	return false;
}

/* What holds after every order, whoever took part in it. */
static void end_order(void)
{
	enum spw_kind kind;
	uint32_t f;

	land();
	spw_drain_cancel(sp, pool);
	spw_drain_cancel(sp, file);
	load(SCHEDULE_ACTORS);
	for (uint32_t l = 0; l < seen.loads; l++)
		CHECK(allowed(l));
	CHECK(!seen.broken);
	if (!spw_cache_get(sp, e, &f))
		CHECK(!spw_cache_del(sp, e, f, true));
	kind = spw_kind(sp, e);
	CHECK(pages_of(pool) + pages_of(refuge) == (kind == SPW_POOL));
	CHECK(pages_of(file) == (kind == SPW_SLOT));
	while (spw_count(sp, e))
		spw_free(sp, &e, 1);
	CHECK(!pages_of(pool) && !pages_of(file) && !pages_of(refuge));
	CHECK(!bytes_of(pool) && !bytes_of(file) && !bytes_of(refuge));
	CHECK(!spw_cluster_give(sp, cluster));
}

/*
 * Every order of the actors, each from `set`, through the points; end looks at what came of one. Says how many, for
 * a test in which nothing can overtake anything is none.
 */
static void explore(void (*set)(void), uint32_t points, void (*end)(void), void (*a)(unsigned), void (*b)(unsigned),
		    void (*c)(unsigned))
{
	void (*const run[SCHEDULE_ACTORS])(unsigned) = {a, b, c};
	unsigned orders = 0;
	const char *why;

	schedule.prefix = 0;
	do {
		schedule_points = 0;
		begin_order(set);
		schedule_points = points;
		why = schedule_run(run);
		if (why)
			fail_msg("%s, in the order %s", why, schedule.text);
		schedule_points = 0;
		if (end)
			end();
		end_order();
		orders++;
	} while (schedule_next());
	print_message("# %u orders\n", orders);
	assert_true(orders > 2);
}

/* ---- actors ---- */

static void loads(unsigned me)
{
	SET(seen.rc[me][0], load(me));
}

static void stores(unsigned me)
{
	SET(seen.rc[me][0], store(me, 10 + me, SPW_NO_FRAME));
}

static void frees(unsigned me)
{
	(void)me;
	drop(true);
}

static void frees_and_stores(unsigned me)
{
	drop(true);
	schedule_point();
	SET(seen.rc[me][0], store(me, 20 + me, SPW_NO_FRAME));
}

static void dups_and_frees(unsigned me)
{
	SET(seen.rc[me][0], spw_dup(sp, &e, 1));
	schedule_point();
	drop(false);
}

static void writes_back(unsigned me)
{
	SET(seen.rc[me][0], spw_writeback_start(sp, UINT64_MAX, false));
	schedule_point();
	spw_writeback_poll(sp, 0);
}

static void fails_to_write_back(unsigned me)
{
	SET(disk.fail, true);
	writes_back(me);
}

static void drain_on(unsigned me, struct spw_tier *t)
{
	int rc;

	while ((rc = spw_drain_step(sp, work[me], t, 1)) > 0)
		spw_writeback_poll(sp, 0);
	SET(seen.rc[me][0], rc);
}

static void drains_pool(unsigned me)
{
	spw_drain_begin(sp, pool);
	schedule_point();
	drain_on(me, pool);
}

static void drains_file(unsigned me)
{
	spw_drain_begin(sp, file);
	schedule_point();
	drain_on(me, file);
}

/* The file is closed while an object is on its way to it. */
static void writes_back_and_drains_file(unsigned me)
{
	spw_writeback_start(sp, UINT64_MAX, false);
	schedule_point();
	drains_file(me);
}

static void goes_on_to_drain_pool(unsigned me)
{
	drain_on(me, pool);
}

static void goes_on_to_drain_file(unsigned me)
{
	drain_on(me, file);
}

static void cancels_drains(unsigned me)
{
	(void)me;
	spw_drain_cancel(sp, pool);
	spw_drain_cancel(sp, file);
	schedule_point();
	SET(seen.rc[me][0], store(me, 10 + me, SPW_NO_FRAME));
}

/* A page table faults: the page comes into a frame, this one's or the one where it is already. */
static void faults(unsigned me)
{
	uint64_t page[SPW_PAGE / 8];
	spw_slot_t where;
	uint32_t f = me;
	int rc;

	for (;;) {
		rc = spw_load(sp, work[me], e, page, &where);
		schedule_point();
		if (!rc) {
			SET(frame[me], version_of(page));
			rc = spw_cache_add(sp, e, f = me);
		} else if (rc == -EEXIST) {
			rc = spw_cache_get(sp, e, &f);
		}
		if (!rc)
			break;
		if (rc != -EEXIST && rc != -ENOENT) {
			ADD(seen.broken, 1);
			return;
		}
	}
	SET(seen.rc[me][0], (int)f);
	SET(seen.rc[me][1], (int)GET(frame[f]));
}

/* Into a frame, and back to the clean bytes. */
static void visits_a_frame(unsigned me)
{
	if (spw_cache_add(sp, e, me))
		ADD(seen.broken, 1);
	SET(frame[me], 1);
	schedule_point();
	SET(seen.rc[me][0], spw_cache_del(sp, e, me, true));
}

static void stores_the_frame(unsigned me)
{
	SET(seen.rc[me][0], store(me, 2, 0));
}

/* The page table takes its page back from frame 0. */
static void takes_back(unsigned me)
{
	SET(seen.rc[me][0], spw_cache_del(sp, e, 0, false));
}

/* And evicts it again, stored from elsewhere. */
static void takes_back_and_stores(unsigned me)
{
	uint32_t m = begin_making(0);

	SET(seen.rc[me][0], spw_cache_del(sp, e, 0, false));
	end_making(m, !GET(seen.rc[me][0]));
	schedule_point();
	SET(seen.rc[me][1], store(me, 10 + me, SPW_NO_FRAME));
}

/*
 * Another page of version 1 goes out, and may come to share the entry. Says 1 when it does. Who shares it has the bytes
 * of that version from then on, whatever the others do.
 */
static void joins(unsigned me)
{
	uint64_t page[SPW_PAGE / 8];
	spw_entry_t own = {e.idx + 1 + me}, twin;
	spw_slot_t where;
	int rc;

	make_page(page, 1);
	rc = spw_store_or_find(sp, work[me], own, page, SPW_NO_FRAME, &twin);
	if (rc == SPW_TWIN) {
		schedule_point();
		rc = spw_join(sp, work[me], twin);
		if (twin.idx != e.idx || (rc && rc != -ESTALE))
			ADD(seen.broken, 1);
		schedule_point();
		SET(seen.rc[me][0], !rc);
		/* -EEXIST: another holder has it in a frame by now. */
		if (!rc && spw_load(sp, work[me], e, page, &where) != -EEXIST && version_of(page) != 1)
			ADD(seen.broken, 1);
	} else if (rc) {
		ADD(seen.broken, 1);
	}
	spw_free(sp, &own, 1);
}

/* One holder goes; if it was the last, the entry is given new bytes. */
static void leaves(unsigned me)
{
	SET(seen.rc[me][0], 1);
	drop(false);
	schedule_point();
	if (spw_kind(sp, e) == SPW_FREE)
		SET(seen.rc[me][1], !store(me, 20 + me, SPW_NO_FRAME));
}

/* ---- case 1 ---- */

static void nothing_in_ram(void)
{
	CHECK(!pages_of(pool));
}

static void case_1_data_is_on_a_swapfile(void **state)
{
	(void)state;
	explore(on_file, AT(LOAD_PEEKED) | AT(LOAD_READ), nothing_in_ram, loads, loads, NULL);
	explore(on_file, AT(LOAD_PEEKED) | AT(LOAD_READ) | AT(STORE_READY) | AT(REPLACED), NULL, loads, stores, NULL);
	explore(on_file, AT(LOAD_PEEKED) | AT(LOAD_READ) | AT(REPLACED), nothing_in_ram, loads, frees, loads);
	explore(on_file, AT(LOAD_PEEKED) | AT(LOAD_READ) | AT(REPLACED), NULL, loads, frees_and_stores, NULL);
	explore(on_file_shared, AT(LOAD_PEEKED) | AT(LOAD_READ), nothing_in_ram, loads, dups_and_frees, NULL);
	/* What is read is stored anew and written again meanwhile. */
	explore(on_file, AT(LOAD_PEEKED) | AT(LOAD_READ) | AT(STORE_READY) | AT(COMPLETE) | AT(COMPLETE_DONE), NULL,
		loads, stores, writes_back);
}

/* ---- case 2 ---- */

static uint64_t file_writes;

static void nothing_on_file(void)
{
	struct spw_tier_stats st;

	file->ops->stats(file, &st);
	CHECK(!st.pages && !st.stored_bytes && st.writes == file_writes);
}

static void case_2_data_is_compressed(void **state)
{
	struct spw_tier_stats st;

	(void)state;
	file->ops->stats(file, &st);
	file_writes = st.writes;
	explore(on_pool, AT(LOAD_PEEKED) | AT(STORE_READY) | AT(REPLACED), nothing_on_file, loads, stores, NULL);
	explore(on_pool, AT(LOAD_PEEKED) | AT(STORE_READY) | AT(REPLACED), nothing_on_file, loads, stores, stores);
	explore(on_pool, AT(LOAD_PEEKED) | AT(REPLACED), nothing_on_file, loads, frees, loads);
	explore(on_pool, AT(STORE_READY) | AT(REPLACED), nothing_on_file, stores, frees_and_stores, NULL);
	explore(on_pool, AT(LOAD_PEEKED) | AT(REPLACED), nothing_on_file, loads, frees_and_stores, NULL);
	explore(on_pool_shared, AT(LOAD_PEEKED) | AT(REPLACED), nothing_on_file, loads, dups_and_frees, NULL);
}

/* ---- case 3 ---- */

#define MOVE (AT(MOVE_MARKED) | AT(COMPLETE) | AT(COMPLETE_LOCKED) | AT(COMPLETE_DONE))

static void a_move_that_nobody_overtook_has_landed(void)
{
	land();
	if (seen.rc[0][0] == 1 && seen.makings == 1)
		CHECK(spw_kind(sp, e) == SPW_SLOT);
}

static void the_write_failed(void)
{
	land();
	CHECK(!pages_of(file) && spw_kind(sp, e) != SPW_SLOT);
}

static void case_3_data_is_being_written(void **state)
{
	void (*const ends[])(void) = {a_move_that_nobody_overtook_has_landed, the_write_failed};
	void (*const moves[])(unsigned) = {writes_back, fails_to_write_back};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		explore(on_pool, MOVE | AT(LOAD_PEEKED) | AT(LOAD_READ), ends[i], moves[i], loads, NULL);
		explore(on_pool, MOVE | AT(STORE_READY) | AT(REPLACED), ends[i], moves[i], stores, NULL);
		explore(on_pool, MOVE | AT(REPLACED), ends[i], moves[i], frees, NULL);
		explore(on_pool, MOVE | AT(STORE_READY) | AT(REPLACED), ends[i], moves[i], frees_and_stores, NULL);
		explore(on_pool, MOVE | AT(REPLACED), ends[i], moves[i], dups_and_frees, NULL);
		explore(on_pool, MOVE | AT(FRAME_TAKEN) | AT(FRAME_LEFT), ends[i], moves[i], visits_a_frame, NULL);
	}
	explore(on_pool, AT(COMPLETE) | AT(COMPLETE_DONE) | AT(LOAD_PEEKED) | AT(LOAD_READ) | AT(REPLACED), NULL,
		writes_back, loads, stores);
	explore(on_pool, AT(COMPLETE) | AT(COMPLETE_DONE) | AT(LOAD_PEEKED) | AT(LOAD_READ) | AT(REPLACED), NULL,
		writes_back, loads, frees_and_stores);
}

/* ---- case 4 ---- */

/* Both page tables have the page, from one frame. The first to take it has made it FRAME. */
static void one_frame_for_both(void)
{
	uint32_t f;

	CHECK(!spw_cache_get(sp, e, &f));
	CHECK(seen.rc[0][0] == (int)f && seen.rc[1][0] == (int)f);
	CHECK(seen.rc[0][1] == 1 && seen.rc[1][1] == 1);
	CHECK(spw_count(sp, e) == 2);
}

/* The store of the frame and the page table's taking it back: exactly one of them has it. */
static void one_of_store_and_return(void)
{
	if (seen.rc[0][0] == 0) {
		CHECK(seen.rc[1][0] == -ENOENT && spw_kind(sp, e) == SPW_POOL);
	} else {
		CHECK(seen.rc[0][0] == -ESTALE && seen.rc[1][0] == 0 && spw_kind(sp, e) == SPW_FREE);
		end_making(begin_making(0), true);
	}
}

/* The late store of the frame must not undo the one of the page's next life. */
static void the_newer_store_stays(void)
{
	CHECK(seen.rc[0][0] == (seen.rc[1][0] ? 0 : -ESTALE));
	CHECK(seen.rc[1][0] == 0 || seen.rc[1][0] == -ENOENT);
	CHECK(seen.rc[1][1] == 0);
}

/* What is in a frame takes no store but the frame's, and the frame keeps what it had. */
static void the_store_waited_its_turn(void)
{
	CHECK(seen.rc[0][0] == 0 || seen.rc[0][0] == -ESTALE);
	CHECK(seen.rc[1][0] == 0 && spw_kind(sp, e) == SPW_POOL);
}

static void stored_or_stale(void)
{
	CHECK(seen.rc[0][0] == 0 || seen.rc[0][0] == -ESTALE);
}

/* The store may have taken the frame first: then the fault has a frame of its own. */
static void the_fault_has_the_page(void)
{
	CHECK(seen.rc[0][0] == 0 || seen.rc[0][0] == -ESTALE);
	CHECK(seen.rc[1][1] == 2);
}

static void case_4_data_is_back_through_another_page_table(void **state)
{
	uint32_t cache = AT(FRAME_TAKEN) | AT(FRAME_LEFT);

	(void)state;
	explore(on_file_shared, cache | AT(LOAD_PEEKED) | AT(LOAD_READ), one_frame_for_both, faults, faults, NULL);
	explore(on_pool_shared, cache | AT(LOAD_PEEKED), one_frame_for_both, faults, faults, NULL);
	explore(on_pool_shared, AT(FRAME_TAKEN) | AT(COMPLETE) | AT(COMPLETE_DONE), one_frame_for_both, faults, faults,
		writes_back);
	explore(in_frame, cache | AT(STORE_READY) | AT(REPLACED) | AT(LOAD_PEEKED), the_fault_has_the_page,
		stores_the_frame, faults, NULL);
	explore(in_frame, cache | AT(STORE_READY) | AT(REPLACED), one_of_store_and_return, stores_the_frame, takes_back,
		NULL);
	explore(in_frame, cache | AT(STORE_READY) | AT(REPLACED), the_newer_store_stays, stores_the_frame,
		takes_back_and_stores, NULL);
	explore(on_pool, cache | AT(STORE_READY) | AT(REPLACED), the_store_waited_its_turn, stores, visits_a_frame,
		NULL);
	explore(in_frame, cache | AT(STORE_READY) | AT(REPLACED), stored_or_stale, stores_the_frame, frees, NULL);
	explore(in_frame, cache | AT(STORE_READY) | AT(COMPLETE) | AT(COMPLETE_LOCKED), stored_or_stale,
		stores_the_frame, frees, writes_back);
}

/* ---- twins ---- */

/* Who held it, and who joined, does; unless the holder was the last when it left. */
static void all_holders_are_counted(void)
{
	bool joined = seen.rc[0][0] == 1, left = seen.rc[1][0] == 1, anew = seen.rc[1][1] == 1;

	CHECK(anew == (left && !joined));
	CHECK(spw_count(sp, e) == 1u + joined - left + anew);
}

static void both_may_join(void)
{
	CHECK(spw_count(sp, e) == 1u + (seen.rc[0][0] == 1) + (seen.rc[1][0] == 1));
}

static void joined_or_not(void)
{
	land();
	CHECK(spw_count(sp, e) == 1u + (seen.rc[0][0] == 1));
}

static void twins_against_everything(void **state)
{
	(void)state;
	explore(on_pool, AT(REPLACED) | AT(LOAD_PEEKED) | AT(STORE_READY), all_holders_are_counted, joins, leaves,
		NULL);
	explore(on_pool, AT(LOAD_PEEKED) | AT(STORE_READY), both_may_join, joins, joins, NULL);
	explore(on_pool, MOVE | AT(LOAD_PEEKED) | AT(LOAD_READ), joined_or_not, joins, writes_back, NULL);
	explore(on_pool, MOVE | AT(LOAD_PEEKED) | AT(LOAD_READ), joined_or_not, joins, fails_to_write_back, NULL);
	explore(on_pool, AT(FRAME_TAKEN) | AT(FRAME_LEFT) | AT(LOAD_PEEKED), joined_or_not, joins, visits_a_frame,
		NULL);
	explore(on_pool, AT(DRAIN_FOUND) | AT(REPLACED) | AT(LOAD_PEEKED), joined_or_not, joins, drains_pool, NULL);
}

/* ---- drains ---- */

#define DRAIN (AT(DRAIN_FOUND) | AT(DRAIN_READ) | AT(REPLACED))

static void drained_pool(void)
{
	land();
	CHECK(seen.rc[0][0] == 0 && !pages_of(pool));
}

static void drained_file(void)
{
	land();
	CHECK(seen.rc[0][0] == 0 && !pages_of(file));
}

/* Whatever came first, the pool took the store that followed the cancel. */
static void cancelled(void)
{
	land();
	CHECK(seen.rc[0][0] == 0 || seen.rc[0][0] == -ECANCELED);
	CHECK(seen.rc[1][0] == 0 && spw_kind(sp, e) == SPW_POOL && pages_of(pool) == 1);
}

static void drain_against_everything(void **state)
{
	void (*const others[])(unsigned) = {loads, stores, frees, frees_and_stores, dups_and_frees, visits_a_frame};
	void (*const sets[])(void) = {on_pool, on_file};
	void (*const drains[])(unsigned) = {drains_pool, drains_file};
	void (*const ends[])(void) = {drained_pool, drained_file};
	uint32_t points = DRAIN | AT(LOAD_PEEKED) | AT(LOAD_READ) | AT(STORE_READY) | AT(FRAME_TAKEN) | AT(COMPLETE);

	(void)state;
	for (unsigned tier = 0; tier < 2; tier++)
		for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++)
			explore(sets[tier], points, ends[tier], drains[tier], others[i], NULL);
	explore(on_pool, points, drained_file, writes_back_and_drains_file, loads, NULL);
	explore(on_pool, points, drained_file, writes_back_and_drains_file, frees_and_stores, NULL);
	explore(on_pool_drained, points, cancelled, goes_on_to_drain_pool, cancels_drains, NULL);
	explore(on_file_drained, points, cancelled, goes_on_to_drain_file, cancels_drains, NULL);
}

/* To the file first, and the file may close too. */
static void drain_by_writing(void **state)
{
	void (*const others[])(unsigned) = {loads, stores, frees_and_stores, visits_a_frame};
	uint32_t points = MOVE | AT(DRAIN_FOUND) | AT(LOAD_PEEKED) | AT(LOAD_READ) | AT(REPLACED) | AT(FRAME_TAKEN);

	(void)state;
	spw_drain_begin(sp, refuge);
	for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		explore(on_pool, points, drained_pool, drains_pool, others[i], NULL);
	explore(on_pool_drained, points, cancelled, goes_on_to_drain_pool, cancels_drains, NULL);
	spw_drain_cancel(sp, refuge);
}

/* ---- a store that was there before the drain ---- */

/* Found empty, and then the store landed: the tier stays, with its page, and the next drain finds it. */
static void not_lost_with_the_tier(void)
{
	int rc = spw__space_remove_tier(sp, pool);

	CHECK(seen.rc[0][0] == 0 && seen.rc[1][0] == 0);
	CHECK(rc == (pages_of(pool) ? -EBUSY : 0));
	CHECK(!spw_drain(sp, work[SCHEDULE_ACTORS], pool));
	if (rc)
		rc = spw__space_remove_tier(sp, pool);
	CHECK(!rc && !pages_of(pool));
	CHECK(!spw__space_add_tier(sp, pool));
}

static void nowhere(void)
{
	end_making(begin_making(0), true);
}

static void a_late_store_is_not_lost_with_its_tier(void **state)
{
	(void)state;
	explore(nowhere, AT(STORE_READY) | AT(PUT_CHOSEN) | AT(DRAIN_FOUND), not_lost_with_the_tier, drains_pool,
		stores, NULL);
}

/* ---- a lock that is taken too late for its cluster ---- */

static spw_entry_t alone; /* in a cluster of its own, which goes with it */

static void in_a_cluster_of_its_own(void)
{
	nowhere();
	CHECK(!spw_alloc(sp, &alone, 1));
}

static void dups_alone(unsigned me)
{
	seen.rc[me][0] = spw_dup(sp, &alone, 1);
}

static void frees_alone(unsigned me)
{
	(void)me;
	spw_free(sp, &alone, 1);
}

/* Bit 56 of a page's word in the page map: memory that is this process's alone, so not the kernel's page of zeros. */
static bool has_page(const void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t word = 0;

	CHECK(fd >= 0 &&
	      pread(fd, &word, sizeof(word), (off_t)((uintptr_t)p / SPW_PAGE * sizeof(word))) == sizeof(word));
	close(fd);
	return word >> 56 & 1;
}

static void leaves_no_page(void)
{
	const void *descriptor = &sp->desc[alone.idx];

	if (!seen.rc[0][0]) {
		CHECK(has_page(descriptor));
		spw_free(sp, &alone, 1);
	}
	CHECK(!has_page(descriptor));
}

static void a_late_lock_leaves_no_page_of_descriptors(void **state)
{
	(void)state;
	explore(in_a_cluster_of_its_own, AT(WORD_SEEN) | AT(REPLACED), leaves_no_page, dups_alone, frees_alone, NULL);
}

/* ---- counts, by threads that run at once ---- */

#define DUPS 30000u

static void *dups_many(void *arg)
{
	int *rc = arg;

	for (unsigned i = 0; i < DUPS && !*rc; i++)
		*rc = spw_dup(sp, &e, 1);
	return NULL;
}

static void *frees_many(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < DUPS; i++)
		spw_free(sp, &e, 1);
	return NULL;
}

static void all_at_once(void *(*run)(void *), int rc[HOLDERS])
{
	pthread_t t[HOLDERS];

	for (unsigned i = 0; i < HOLDERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, run, &rc[i]), 0);
	for (unsigned i = 0; i < HOLDERS; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(rc[i], 0);
	}
}

static void counts_go_past_a_hundred_thousand_from_four_threads(void **state)
{
	struct spw__space_stats before, after;
	int rc[HOLDERS] = {0};

	(void)state;
	begin_order(on_file);
	schedule_pin(false);
	spw_stats(sp, &before);
	all_at_once(dups_many, rc);
	assert_int_equal(spw_count(sp, e), HOLDERS * DUPS + 1);
	load(SCHEDULE_ACTORS);
	all_at_once(frees_many, rc);
	assert_int_equal(spw_count(sp, e), 1);
	spw_stats(sp, &after);
	assert_int_equal(after.metadata_bytes, before.metadata_bytes);
	/* One holder has gone; the last ones go from several threads, too many of them. */
	assert_int_equal(spw_dup(sp, &e, 1), 0);
	drop(false);
	end_making(begin_making(0), true);
	all_at_once(frees_many, rc);
	assert_int_equal(spw_kind(sp, e), SPW_FREE);
	end_order();
	schedule_pin(true);
}

/* ---- the frame of the tests ---- */

static int setup(void **state)
{
	struct spw__space_config cfg = {
		.max_clusters = 4,
		.max_frames = FRAMES,
		.codec = {.coding = SPW_CODING_LZ4},
		.max_twins = 512,
	};
	size_t size = spw__file_shared_size(FILE_BYTES);
	struct spw_file_layout layout = {.max_bytes = FILE_BYTES, .encrypt = true, .key = "cases"};
	struct spw_file_io io = {
		.ctx = NULL, .read = disk_read, .write = disk_write, .reap = disk_reap, .close = disk_close};
	struct spw_file_shared *sh = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	(void)state;
	disk.fd = memfd_create("cases", 0);
	assert_true(sh != MAP_FAILED && disk.fd >= 0);
	assert_int_equal(spw__file_shared_init(sh, &layout), 0);
	assert_int_equal(spw__space_create(&cfg, &sp), 0);
	assert_int_equal(spw__zswap_create(0, "pool", UINT64_MAX, 1u << 26, &pool), 0);
	assert_int_equal(spw__file_create(1, "file", sh, 0, &io, &file), 0);
	assert_int_equal(spw__zswap_create(2, "refuge", UINT64_MAX, 1u << 26, &refuge), 0);
	pool->priority = 10;
	refuge->priority = -10;
	assert_int_equal(spw__space_add_tier(sp, pool), 0);
	assert_int_equal(spw__space_add_tier(sp, file), 0);
	assert_int_equal(spw__space_add_tier(sp, refuge), 0);
	for (unsigned i = 0; i <= SCHEDULE_ACTORS; i++) {
		work_mem[i] = aligned_alloc(64, (spw_work_size(sp) + 63) & ~(size_t)63);
		assert_int_equal(spw_work_init(sp, work_mem[i], &work[i]), 0);
	}
	schedule_pin(true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	spw__space_destroy(sp);
	pool->ops->destroy(pool);
	file->ops->destroy(file);
	refuge->ops->destroy(refuge);
	for (unsigned i = 0; i <= SCHEDULE_ACTORS; i++)
		free(work_mem[i]);
	close(disk.fd);
	return 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(case_1_data_is_on_a_swapfile),
		cmocka_unit_test(case_2_data_is_compressed),
		cmocka_unit_test(case_3_data_is_being_written),
		cmocka_unit_test(case_4_data_is_back_through_another_page_table),
		cmocka_unit_test(twins_against_everything),
		cmocka_unit_test(drain_against_everything),
		cmocka_unit_test(drain_by_writing),
		cmocka_unit_test(a_late_store_is_not_lost_with_its_tier),
		cmocka_unit_test(a_late_lock_leaves_no_page_of_descriptors),
		cmocka_unit_test(counts_go_past_a_hundred_thousand_from_four_threads),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
