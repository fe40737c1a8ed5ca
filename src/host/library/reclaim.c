/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping under the cap.
 *
 * What may be resident is the cap less what the pool and the bookkeeping take; both change with every page that goes.
 * So each batch ends with a new account, and a page is counted before it comes in: the cap holds at every moment, not
 * after the next look.
 *
 * A page is taken out where it is. It is write-protected, so that what is compressed is what is dropped; a thread that
 * writes to it meanwhile waits for as long as its batch takes. Nothing is moved aside: to fetch a page back from the
 * pool costs no more than to move it twice. Pages that are BACKED are dropped only. The ranges of a batch go to the
 * kernel in one call.
 *
 * A thread of the space does that ahead of need, a thread that faults does it itself when there is no room left.
 * Writeback, cleaning and all that concerns the files is the former's.
 */
#include "host/library/library.h"
#include "platform/platform.h"
#include "platform/sys.h"
#include "tier/zswap.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define MS              1000000ull
#define LOOKS           4u
#define LOOK_PAGES      32u /* that resident may change by in the meantime */
#define BUDGET_LEAST    64u /* pages: two windows, whatever the rest takes */
#define ROOM_LOW        64u /* the thread begins at budget / ROOM_LOW free pages */
#define ROOM_HIGH       32u /* and ends at budget / ROOM_HIGH */
#define POOL_MOST       95u /* % of what bookkeeping leaves */
#define POOL_LEAST      (512u << 10)
#define POOL_HIGH       99u /* % of the pool's limit */
#define POOL_LOW        97u
#define WRITEBACK_BYTES (1u << 20) /* asked for at a time */
#define COMPACT_PAGES   64u
#define UPKEEP          (1000 * MS)
#define SPARE_PART      32u /* of the cap, in pages that may be in memory twice */
#define SPARE_MOST      512u
#define SEAT_BYTES      (128u << 10) /* of a work area that was used: what it takes of its stack and window */
#define SEATS_PART      16u          /* of the cap, the most that is left for work areas */
#define FILES_PART      4u           /* and for files */
#define FRUITLESS       8u           /* rounds in a row that made no room, before there is none */
#define FAILURES        8u           /* pages of a batch without a place, after which none is looked for */
#define BOOKS_A_PAGE    2u           /* bytes of a position: state and age */

/* ---- the account ---- */

/* Bytes of bookkeeping, without those of files; *files: theirs. */
static uint64_t metadata(struct spw_space *s, const struct spw_tier_stats *pool, uint64_t *files)
{
	struct spw__space_stats layer;
	struct spw_tier_stats file;

	*files = 0;
	for (unsigned i = 0; i < SPW__LIB_FILES; i++) {
		struct spw_tier *t = __atomic_load_n(&s->file[i].tier, __ATOMIC_ACQUIRE);

		if (!t)
			continue;
		t->ops->stats(t, &file);
		*files += file.metadata_bytes;
	}
	spw_stats(s->layer, &layer);
	return layer.metadata_bytes + pool->metadata_bytes +
	       layer.clusters * (SPW_CLUSTER * BOOKS_A_PAGE + sizeof(struct spw__leaf)) + sizeof(*s) +
	       spw__queue_bytes(s) + __atomic_load_n(&s->seated, __ATOMIC_RELAXED) * (uint64_t)SEAT_BYTES;
}

uint32_t spw__spare(uint64_t ram)
{
	uint64_t pages = ram / SPW_PAGE / SPARE_PART;

	return pages < SPARE_MOST ? (uint32_t)pages : SPARE_MOST;
}

/* Of bookkeeping that comes with the first use of a work area or a file: room that is left for it. */
static uint64_t reserve(const struct spw_space *s, uint64_t ram, uint64_t file_books)
{
	uint64_t seats = (uint64_t)(SPW__SEATS - __atomic_load_n(&s->seated, __ATOMIC_RELAXED)) * SEAT_BYTES;
	uint64_t files = (uint64_t)__atomic_load_n(&s->files, __ATOMIC_RELAXED) * SPW__FILE_BOOKS;

	files = files > file_books ? files - file_books : 0;
	return (seats < ram / SEATS_PART ? seats : ram / SEATS_PART) +
	       (files < ram / FILES_PART ? files : ram / FILES_PART);
}

static void note_peak(struct spw_space *s, uint64_t used)
{
	uint64_t peak = __atomic_load_n(&s->peak, __ATOMIC_RELAXED);

	while (used > peak &&
	       !__atomic_compare_exchange_n(&s->peak, &peak, used, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/*
 * Resident bytes and the pool's, of one moment: who is driven from the CPU between the two counts pages twice that
 * went from one to the other.
 */
static uint64_t look(struct spw_space *s, struct spw_tier_stats *pool)
{
	uint64_t before, after = __atomic_load_n(&s->resident, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < LOOKS; i++) {
		before = after;
		s->zswap->ops->stats(s->zswap, pool);
		after = __atomic_load_n(&s->resident, __ATOMIC_RELAXED);
		if ((before > after ? before - after : after - before) <= LOOK_PAGES)
			break;
	}
	return after * SPW_PAGE;
}

/*
 * Whoever looked later knows better: one who was driven from the CPU since he looked would let in what has gone to the
 * pool meanwhile.
 */
static void set_budget(struct spw_space *s, uint32_t turn, uint64_t pages)
{
	uint64_t was = __atomic_load_n(&s->budget_turn, __ATOMIC_RELAXED), is;

	pages = pages > BUDGET_LEAST ? pages : BUDGET_LEAST;
	is = (uint64_t)turn << 32 | (pages < UINT32_MAX ? pages : UINT32_MAX);
	while ((int32_t)(turn - (uint32_t)(was >> 32)) > 0 &&
	       !__atomic_compare_exchange_n(&s->budget_turn, &was, is, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

uint32_t spw__budget(const struct spw_space *s)
{
	return (uint32_t)__atomic_load_n(&s->budget_turn, __ATOMIC_RELAXED);
}

void spw__account(struct spw_space *s, struct spw_space_stats *st)
{
	uint32_t turn = __atomic_add_fetch(&s->looks, 1, __ATOMIC_RELAXED);
	uint64_t ram = __atomic_load_n(&s->ram, __ATOMIC_RELAXED),
		 zswap = __atomic_load_n(&s->zswap_bytes, __ATOMIC_RELAXED);
	struct spw_tier_stats pool;
	uint64_t resident = look(s, &pool);
	uint64_t file_books, books = metadata(s, &pool, &file_books) + file_books;
	uint64_t fixed = books + reserve(s, ram, file_books) + (uint64_t)spw__spare(ram) * SPW_PAGE;
	uint64_t left = fixed < ram ? ram - fixed : 0, part = left / 100 * POOL_MOST;
	uint64_t budget = pool.used_bytes < left ? (left - pool.used_bytes) / SPW_PAGE : 0;

	set_budget(s, turn, budget);
	/* Whatever goes to a file goes through the pool. */
	part = part > POOL_LEAST ? part : POOL_LEAST;
	__atomic_store_n(&s->pool, zswap < part ? zswap : part, __ATOMIC_RELAXED);
	note_peak(s, resident + pool.used_bytes + books);
	if (st)
		*st = (struct spw_space_stats){
			.ram = ram,
			.used_bytes = resident + pool.used_bytes + books,
			.resident_bytes = resident,
			.pool_bytes = pool.used_bytes,
			.pool_pages = pool.pages,
			.metadata_bytes = books,
			.peak_bytes = __atomic_load_n(&s->peak, __ATOMIC_RELAXED),
		};
}

/* Pages that may still come in; negative: over. */
static int64_t headroom(const struct spw_space *s)
{
	return (int64_t)spw__budget(s) - (int64_t)__atomic_load_n(&s->resident, __ATOMIC_SEQ_CST);
}

/* ---- taking out ---- */

static bool follows(uint32_t o, uint32_t before)
{
	return o == before + 1 && o % SPW_CLUSTER;
}

static unsigned run_length(const uint32_t *o, unsigned n)
{
	unsigned len = 1;

	while (len < n && follows(o[len], o[len - 1]))
		len++;
	return len;
}

/* The kernel takes one range, or on recent ones (6.13) a vector of them. */
static void drop_ranges(struct spw_space *s, struct iovec *v, unsigned n)
{
	for (unsigned i = 0; i < n;) {
		long ret = s->whole_vector && n - i > 1
				   ? spw__sys5(SYS_process_madvise, s->pidfd, &v[i], n - i, MADV_DONTNEED, 0)
				   : -EINVAL;

		if (ret > 0) {
			for (; i < n && (size_t)ret >= v[i].iov_len; i++)
				ret -= (long)v[i].iov_len;
			continue;
		}
		s->whole_vector = s->whole_vector && n - i == 1;
		ret = spw__sys3(SYS_madvise, v[i].iov_base, v[i].iov_len, MADV_DONTNEED);
		if (ret && ret != -EAGAIN)
			spw__lib_die("cannot drop a page", (int)-ret);
		i += ret == 0;
	}
}

void spw__drop(struct spw_space *s, const uint32_t *o, unsigned n)
{
	struct iovec v[SPW__BATCH];
	unsigned ranges = 0;

	for (unsigned i = 0, len; i < n; i += len) {
		len = run_length(o + i, n - i);
		v[ranges++] = (struct iovec){(void *)(uintptr_t)spw__page_va(s, o[i]), (size_t)len * SPW_PAGE};
	}
	drop_ranges(s, v, ranges);
}

/* Those that can be written are not from now on. */
static void protect(const struct spw_space *s, const uint32_t *o, uint8_t *state, unsigned n)
{
	for (unsigned i = 0, len; i < n; i += len) {
		len = 1;
		if (state[i] & SPW__PROT)
			continue;
		while (i + len < n && follows(o[i + len], o[i + len - 1]) && !(state[i + len] & SPW__PROT))
			len++;
		spw__page_protect(s, o[i], len, true);
		for (unsigned j = 0; j < len; j++)
			state[i + j] |= SPW__PROT;
	}
}

/* It is BACKED: what is left to do before its page can go. */
static void leave_frame(struct spw_space *s, uint32_t o, uint8_t state)
{
	if (state & SPW__FRAME && spw_cache_del(s->layer, spw__page_held(s, o), o, true))
		spw__lib_die("a page is not the frame of its entry", 0);
}

int spw__take_out(struct spw_space *s, struct spw__seat *seat, uint32_t *o, uint8_t *state, unsigned n)
{
	uint32_t gone[SPW__BATCH] = {0};
	unsigned out = 0, failed = 0;
	int ret = 0;

	protect(s, o, state, n);
	for (unsigned i = 0; i < n; i++) {
		seat->clean += !!(state[i] & SPW__BACKED);
		/* A full pool may have room for a page of another size. */
		if (!(state[i] & SPW__BACKED) && failed < FAILURES) {
			int err = spw__page_store(s, seat, o[i], &state[i]);

			failed += !!err;
			ret = ret ? ret : err;
		}
		if (state[i] & SPW__BACKED) {
			leave_frame(s, o[i], state[i]);
			gone[out++] = o[i];
		}
	}
	spw__drop(s, gone, out);
	for (unsigned i = 0; i < n; i++) {
		if (state[i] & SPW__BACKED) {
			spw__age_mark(s, o[i]);
			spw__split_out(&s->split, spw__page_held(s, o[i]));
			state[i] &= SPW__QUEUED | SPW__MAIN;
		} else if (!(state[i] & SPW__QUEUED)) {
			/* Without a place it has its turn again. Once let go it may be held by who waits for that turn. */
			spw__queue_push(s, &o[i], &state[i], 1);
			state[i] |= SPW__QUEUED;
		}
		spw__page_unlock(s, o[i], state[i]);
	}
	seat->out += out;
	spw__room_give(s, out);
	return ret;
}

/* Leave to have up to n pages in memory twice; at least one. */
static unsigned spare_take(struct spw_space *s, unsigned n)
{
	for (unsigned spins = 0;; spins++) {
		uint32_t left = __atomic_load_n(&s->spare, __ATOMIC_RELAXED);
		unsigned got = n < left ? n : left;

		/* It is below 0 for a moment, when the cap was lowered. */
		if (left && left <= SPARE_MOST &&
		    __atomic_compare_exchange_n(&s->spare, &left, left - got, false, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return got;
		spw__plat_relax(spins);
	}
}

static void spare_give(struct spw_space *s, unsigned n)
{
	__atomic_add_fetch(&s->spare, n, __ATOMIC_RELEASE);
}

static void sort(uint32_t *o, unsigned n)
{
	for (unsigned i = 1; i < n; i++) {
		uint32_t x = o[i];
		unsigned at = i;

		for (; at && o[at - 1] > x; at--)
			o[at] = o[at - 1];
		o[at] = x;
	}
}

/*
 * Take the next batch out. Pages that went (> 0); 0: there are none that may go; -EBUSY: somebody is at all of them;
 * -ENOSPC, -ENOMEM: none could for want of room.
 */
static int take_batch(struct spw_space *s, struct spw__seat *seat)
{
	uint8_t state[SPW__BATCH], none[SPW__BATCH] = {0};
	uint32_t back[SPW__BATCH];
	unsigned spare = spare_take(s, SPW__BATCH), n = spw__queue_pop(s, seat->position, spare), kept = 0, busy = 0;
	uint64_t before = seat->out;

	sort(seat->position, n);
	for (unsigned i = 0; i < n; i++) {
		uint32_t o = seat->position[i];

		if (!spw__page_try(s, o, &state[kept])) {
			back[busy++] = o;
			continue;
		}
		state[kept] &= ~SPW__QUEUED;
		if (state[kept] & SPW__IN && !(state[kept] & SPW__PINNED))
			seat->position[kept++] = o;
		else
			spw__page_unlock(s, o, state[kept]);
	}
	int ret = spw__take_out(s, seat, seat->position, state, kept);

	spw__queue_push(s, back, none, busy);
	spw__account(s, NULL);
	spare_give(s, spare);
	if (seat->out != before)
		return (int)(seat->out - before);
	return ret ? ret : n ? -EBUSY : 0;
}

/* ---- making room ---- */

void spw__kick(struct spw_space *s)
{
	__atomic_add_fetch(&s->kick, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&s->asleep, __ATOMIC_SEQ_CST))
		spw__wake_all(&s->kick);
}

void spw__room_give(struct spw_space *s, uint64_t n)
{
	if (!n)
		return;
	__atomic_sub_fetch(&s->resident, n, __ATOMIC_SEQ_CST);
	/* Not full any more: who finds somebody else at the pages that could go waits again. The pool may still be. */
	if (__atomic_load_n(&s->full, __ATOMIC_SEQ_CST) && !__atomic_load_n(&s->wanting, __ATOMIC_SEQ_CST))
		__atomic_store_n(&s->full, false, __ATOMIC_SEQ_CST);
}

unsigned spw__room_try(struct spw_space *s, unsigned n)
{
	int64_t left = headroom(s);

	if (left < 0)
		left = 0;
	n = n < left ? n : (unsigned)left;
	if (n)
		__atomic_add_fetch(&s->resident, n, __ATOMIC_RELAXED);
	return n;
}

bool spw__room_wait(struct spw_space *s)
{
	uint32_t seen = __atomic_load_n(&s->room, __ATOMIC_ACQUIRE);

	if (__atomic_load_n(&s->full, __ATOMIC_ACQUIRE))
		return false;
	spw__kick(s);
	spw__wait(&s->room, seen, MS);
	return true;
}

bool spw__pool_wait(struct spw_space *s)
{
	__atomic_add_fetch(&s->wanting, 1, __ATOMIC_SEQ_CST);
	bool hope = spw__room_wait(s);

	__atomic_sub_fetch(&s->wanting, 1, __ATOMIC_SEQ_CST);
	return hope;
}

void spw__room_take(struct spw_space *s, struct spw__seat *seat, unsigned n)
{
	__atomic_add_fetch(&s->resident, n, __ATOMIC_RELAXED);
	if (headroom(s) < (int64_t)(spw__budget(s) / ROOM_LOW) && __atomic_load_n(&s->asleep, __ATOMIC_RELAXED))
		spw__kick(s);
	while (headroom(s) < 0) {
		if (take_batch(s, seat) > 0)
			continue;
		if (headroom(s) < 0 && !spw__room_wait(s)) {
			seat->overs++;
			return;
		}
	}
}

/* ---- the thread ---- */

/* What it remembers from round to round. */
struct rounds {
	bool draining; /* the pool is between its marks, on the way down */
	unsigned fruitless;
	uint64_t upkept, compacted;
	struct spw__seat *seat;
};

static void give_notice(struct spw_space *s, bool full)
{
	__atomic_store_n(&s->full, full, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&s->room, 1, __ATOMIC_RELEASE);
	spw__wake_all(&s->room);
}

/* Start moving objects to the files. Whether any are on their way. */
static bool send(struct spw_space *s, struct rounds *r, bool raw_only)
{
	int ret = spw_writeback_start(s->layer, WRITEBACK_BYTES, raw_only);

	if (ret == -ENOSPC)
		ret = spw_clean(s->layer, r->seat->work);
	return ret > 0 || ret == -EAGAIN;
}

/* Take note of what has arrived in the files. Whether anything has. */
static bool reap(struct spw_space *s, uint64_t wait_ns)
{
	bool some = spw_writeback_poll(s->layer, wait_ns) > 0;

	if (some)
		give_notice(s, false);
	return some;
}

/* Keep the pool between its marks. Whether objects are on their way to the files. */
static bool writeback(struct spw_space *s, struct rounds *r)
{
	uint64_t limit = __atomic_load_n(&s->pool, __ATOMIC_RELAXED), most;
	struct spw_tier_stats pool;

	spw__zswap_set_size(s->zswap, limit);
	if (!__atomic_load_n(&s->files, __ATOMIC_RELAXED))
		return false;
	reap(s, 0);
	s->zswap->ops->stats(s->zswap, &pool);
	spw__split_turn(&s->split, __atomic_load_n(&s->resident, __ATOMIC_RELAXED), &pool, POOL_LEAST, limit);
	most = __atomic_load_n(&s->split.most, __ATOMIC_RELAXED);
	limit = most && most < limit ? most : limit;
	if (pool.used_bytes * 100 > limit * POOL_HIGH)
		r->draining = true;
	else if (pool.used_bytes * 100 < limit * POOL_LOW)
		r->draining = false;
	return send(s, r, !r->draining);
}

static void upkeep(struct spw_space *s, struct rounds *r)
{
	uint64_t now = spw__plat_now_ns();

	if (now - r->compacted > MS) {
		r->compacted = now;
		spw_compact(s->layer, COMPACT_PAGES);
	}
	if (now - r->upkept > UPKEEP) {
		r->upkept = now;
		if (__atomic_load_n(&s->files, __ATOMIC_RELAXED))
			spw_clean(s->layer, r->seat->work);
	}
}

/* One round. Whether there is more to do at once. */
static bool round_once(struct spw_space *s, struct rounds *r)
{
	bool wanting = __atomic_load_n(&s->wanting, __ATOMIC_SEQ_CST), moving = writeback(s, r);
	bool enough = headroom(s) >= (int64_t)(spw__budget(s) / ROOM_HIGH);

	if (enough && !wanting) {
		spw__account(s, NULL);
		return r->draining && moving;
	}
	int ret = enough ? -ENOSPC : take_batch(s, r->seat);

	if (ret > 0) {
		r->fruitless = 0;
		give_notice(s, false);
		return true;
	}
	if (ret == -EBUSY)
		return true;
	/* A pool of few blocks can be full below its marks: of blocks of other sizes. */
	if (ret && !moving)
		moving = __atomic_load_n(&s->files, __ATOMIC_RELAXED) && send(s, r, false);
	bool moved = reap(s, MS);

	spw__account(s, NULL);
	if (moving || moved || spw_writeback_under_way(s->layer)) {
		r->fruitless = 0;
		return true;
	}
	/* Every tier is full, or all that is resident is pinned. */
	if (headroom(s) >= 0 && !wanting)
		return false;
	if (++r->fruitless < FRUITLESS)
		return true;
	give_notice(s, true);
	/* Given since it was looked for, and by somebody who could not know: spw__room_give(). */
	if (headroom(s) >= 0 && !wanting) {
		__atomic_store_n(&s->full, false, __ATOMIC_SEQ_CST);
		r->fruitless = 0;
	}
	return false;
}

static void rest(struct spw_space *s, uint32_t seen)
{
	/* Somebody may wait for the room that a write makes. */
	if (spw_writeback_under_way(s->layer)) {
		reap(s, MS);
		return;
	}
	__atomic_store_n(&s->asleep, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&s->kick, __ATOMIC_SEQ_CST) == seen)
		spw__wait(&s->kick, seen, UPKEEP);
	__atomic_store_n(&s->asleep, 0, __ATOMIC_SEQ_CST);
}

void *spw__reclaim_main(void *space)
{
	struct spw_space *s = space;
	struct rounds r = {.seat = spw__seat_take(s)};

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		uint32_t seen = __atomic_load_n(&s->kick, __ATOMIC_SEQ_CST);

		bool asked = spw__request_serve(s, r.seat);

		upkeep(s, &r);
		if (!round_once(s, &r) && !asked)
			rest(s, seen);
	}
	while (spw_writeback_under_way(s->layer))
		spw_writeback_poll(s->layer, MS);
	spw__seat_give(s, r.seat);
	return NULL;
}
