/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reclaimer thread: it keeps the process within its share of the cap.
 *
 * Far from the cap it only looks, and the less often the further away: nothing of the program is registered and no
 * fault is slower. Near it the agent arms. From then on the thread holds `resident` (everything: the program's pages,
 * frames, pool, descriptors) at the target: it keeps a backlog of frames, so that pages have time to prove that they
 * are in use, and stores the oldest of them as room is needed. The pool is drained to the file tier from a
 * high-water mark down to a low one; that never holds up a fault, which finds its page in the pool until the write
 * has been confirmed.
 */
#include "host/counted.h"
#include "host/group.h"
#include "host/process/agent.h"
#include "host/process/cow.h"
#include "platform/platform.h"
#include "platform/sys.h"
#include "tier/zswap.h"

#include <errno.h>
#include <time.h>

#define MS              1000000ull
#define RECLAIM_NICE    (-20)
#define SCANS           3     /* of the map in a row, while they find something */
#define SCAN_SHARE      20ull /* time between two, in times that one takes */
#define SCAN_SOON       4ull  /* the same, where much is not known */
#define ARM_ROOM        (4ull << 20)
#define MARGIN_MIN      (1ull << 20) /* bytes below the target that the thread aims at */
#define GROWTH          8ull         /* bytes a nanosecond: faster than memory can be touched */
#define TICK_MAX        (50 * MS)
#define TICK_RESTING    (100 * MS)
#define BACKLOG_MIN     128u /* frames */
#define BACKLOG_MAX     8192u
#define POOL_HIGH       95u /* % of the pool's limit */
#define POOL_LOW        90u
#define SHARED_BATCH    4096u /* pages */
#define DRAIN_REST      (MS / 10)
#define DRY_MOST        6u /* 64 ms */
#define FEW             8u /* a part of what is shared, that a round of the sweep found of others */
#define STAGING_LEAST   (1ull << 20)
#define STAGING_MOST    (4ull << 20)
#define BESIDE_POOL     (6ull << 20) /* frames, buffers of files and margin: 3 to 4; the rest for the program */
#define WRITEBACK_BYTES (1u << 20)   /* asked for at a time */
#define RESCUE_STEP     (1u << 20)   /* bytes that the pool grows by for what is on a dead tier */
#define SQUEEZE_STEP    16u          /* the part of the pool that is given back to a program that has nothing left */
#define SQUEEZE_LEAST   (1ull << 20)
#define HEAT_PARTS      10u
#define SWEEPS          16u /* more than a page in use is spared for */
#define SWEPT_LEAST     (SWEEPS * SPW_FRAMES_BATCH / 4)

/*
 * With how little room to arm. That takes a ms, on a busy machine ten, and a program can fill some MiB in each.
 */
static uint64_t near_cap(uint64_t target)
{
	uint64_t room = target / 8 + ARM_ROOM;

	return room < target / 2 ? room : target / 2;
}

static uint64_t margin(uint64_t target)
{
	uint64_t part = target / 128;

	return part > MARGIN_MIN ? part : MARGIN_MIN;
}

/*
 * The least that a pool takes that is the way to a file: room for batches to fill while others are written. Of a small
 * cap no more than a 64th: sort, 149 MiB under 74, is a tenth slower with 4 MiB than with one.
 */
static uint64_t staging(const struct spw__agent *a)
{
	uint64_t part = spw__agent_target(a) / 64;

	return part < STAGING_LEAST ? STAGING_LEAST : part < STAGING_MOST ? part : STAGING_MOST;
}

/* The limit that all pools keep together, 0: this process has no zswap tier. */
static uint64_t zswap_bytes(const struct spw__agent *a)
{
	return a->tiers.pool ? __atomic_load_n(&a->ctl->zswap_bytes, __ATOMIC_RELAXED) : 0;
}

/* What the others leave of a limit that the pools of a group keep together. */
static uint64_t pool_left(const struct spw__agent *a, uint64_t limit, uint32_t group)
{
	uint64_t others = 0;

	for (unsigned i = 0; i < SPW_CTL_PROCS; i++) {
		const struct spw_ctl_proc *r = &a->ctl->proc[i];

		if (i != a->slot && __atomic_load_n(&r->pid, __ATOMIC_RELAXED) &&
		    spw__group_within(a->ctl, __atomic_load_n(&r->group, __ATOMIC_RELAXED), group))
			others += __atomic_load_n(&r->pool_bytes, __ATOMIC_RELAXED);
	}
	/* The others may have it all; the way to the file leads through the pool, and must not be shut. */
	uint64_t least = a->tiers.files ? (limit / 8 < staging(a) ? limit / 8 : staging(a)) : 0;

	return limit > others + least ? limit - others : least;
}

/* The part of the limit that is a group's: as large as its cap is of the tree's, and enough for a way to the file. */
static uint64_t pool_part(const struct spw__agent *a, uint64_t limit, uint64_t ram)
{
	uint64_t tree = __atomic_load_n(&a->ctl->ram_limit_bytes, __ATOMIC_RELAXED);
	uint64_t part = limit / SPW_PAGE * (ram / SPW_PAGE) / (tree / SPW_PAGE) * SPW_PAGE;

	return part > staging(a) ? part : staging(a);
}

/* This process's share of it. */
static uint64_t pool_share(const struct spw__agent *a)
{
	uint64_t limit = zswap_bytes(a), left;

	/* Without a zswap tier the pool is only the way to the file, and leads there at once. */
	if (!limit)
		return staging(a);
	left = pool_left(a, limit, 0);
	for (const struct spw_ctl_group *g = spw__group(a->ctl, a->rec->group); g; g = spw__group(a->ctl, g->parent)) {
		if (!g->ram_limit_bytes)
			continue;
		uint64_t here = pool_left(a, pool_part(a, limit, g->ram_limit_bytes), g->id);

		left = here < left ? here : left;
	}
	return left;
}

/*
 * What of its share the pool may take. With a file behind it, never what the program, the frames and the buffers need:
 * of a cap of 32 MiB a share of 90 % leaves less than those take, and a program with nothing in memory can only be let
 * go over the cap.
 */
static uint64_t pool_room(const struct spw__agent *a, uint64_t share)
{
	uint64_t target = spw__agent_target(a), rest = target > BESIDE_POOL ? target - BESIDE_POOL : 0;

	if (!a->tiers.files)
		return share;
	rest = rest > staging(a) ? rest : staging(a);
	return share < rest ? share : rest;
}

/* What it is to take of that. */
static uint64_t pool_limit(const struct spw__agent *a, uint64_t room)
{
	uint64_t most = __atomic_load_n(&a->split.most, __ATOMIC_RELAXED);

	return (most && most < room ? most : room) + a->rescue;
}

/* More of the pool or more of the program? Only where what leaves the pool has a place. */
static void move_split(struct spw__agent *a, uint64_t room, const struct spw_tier_stats *pool)
{
	uint64_t all = (uint64_t)__atomic_load_n(&a->resident, __ATOMIC_RELAXED);

	if (zswap_bytes(a))
		spw__split_turn(&a->split, all > pool->used_bytes ? (all - pool->used_bytes) / SPW_PAGE : 0, pool,
				staging(a), room);
}

/*
 * When the sweeps find next to nothing of the program, whatever comes in goes out at the next fault, for the sake of a
 * pool that has the room. Such a pool is too large, whatever its size may be.
 */
static void squeeze_pool(struct spw__agent *a, unsigned taken)
{
	struct spw_tier_stats ts;
	uint64_t least = a->tiers.files ? staging(a) : SQUEEZE_LEAST;
	unsigned all = a->swept += taken;

	if (++a->sweeps < SWEEPS)
		return;
	a->sweeps = a->swept = 0;
	if (all >= SWEPT_LEAST)
		return;
	a->zswap->ops->stats(a->zswap, &ts);
	uint64_t most = ts.used_bytes - ts.used_bytes / SQUEEZE_STEP;

	__atomic_store_n(&a->split.most, most > least ? most : least, __ATOMIC_RELAXED);
}

/* There is room: the next time may be another one. */
static void release_pool(struct spw__agent *a, int64_t over)
{
	if (!a->tiers.files && over < -(int64_t)(spw__agent_target(a) / SQUEEZE_STEP))
		__atomic_store_n(&a->split.most, 0, __ATOMIC_RELAXED);
}

/*
 * Start moving objects to the file; raw_only: those that the pool gains nothing by. Whether any are on their way.
 * Making room there reads segments back, which the handler must not wait for.
 */
static bool send(struct spw__agent *a, bool raw_only, bool may_clean)
{
	int ret = spw_writeback_start(a->space, WRITEBACK_BYTES, raw_only);

	if (ret == -ENOSPC && may_clean)
		ret = spw_clean(a->space, a->reclaim_work);
	else if (ret == -ENOSPC && !raw_only)
		spw__reclaim_kick(a);
	return ret > 0 || ret == -EAGAIN;
}

/* Keep the pool between its marks. Returns whether objects are on their way to the file. */
static bool writeback(struct spw__agent *a, bool may_clean)
{
	struct spw_tier_stats ts;
	uint64_t share = pool_share(a), room = pool_room(a, share), limit = pool_limit(a, room);

	/* With a file, a pool that is to be smaller takes pages in while it sends others on. */
	spw__zswap_set_size(a->zswap, a->tiers.files ? share + a->rescue : limit);
	if (!a->tiers.files)
		return false;
	spw_writeback_poll(a->space, 0);
	a->zswap->ops->stats(a->zswap, &ts);
	move_split(a, room, &ts);
	if (ts.used_bytes * 100 > limit * POOL_HIGH || !zswap_bytes(a))
		a->draining = true;
	else if (ts.used_bytes * 100 < limit * POOL_LOW)
		a->draining = false;
	return send(a, !a->draining, may_clean);
}

/* Whether the pools of the tree hold as many pages as the ghosts' headers name. */
static bool counted_out(const struct spw__agent *a)
{
	uint64_t most = __atomic_load_n(&a->ctl->ghost_pages, __ATOMIC_RELAXED);
	struct spw__space_stats s;

	if (!most)
		return false;
	spw_stats(a->space, &s);
	uint64_t pages = spw__ghosts_counted(a->ctl, a->rec) + s.pool + (spw__ghosts_count_same(a->ctl) ? s.same : 0);

	return pages + (most < 2 * SPW_FRAMES_BATCH ? 0 : SPW_FRAMES_BATCH) >= most;
}

/* Every tier is full. Said once; what happens then is --on-full. */
static void report_full(struct spw__agent *a)
{
	struct spw_ctl *c = a->ctl;

	if (!a->reported)
		__atomic_add_fetch(&c->total.full_events, 1, __ATOMIC_RELAXED);
	a->reported = true;
	__atomic_store_n(&a->full, 1, __ATOMIC_RELAXED);
	if (c->on_full == SPW_FULL_KILL) {
		__atomic_store_n(&c->kill_tree, 1, __ATOMIC_RELEASE);
		return;
	}
	if (!__atomic_exchange_n(&c->warned_full, 1, __ATOMIC_RELAXED) && !c->quiet)
		spw__say("every swap tier is full: memory grows over the cap; give more with --swap file,size=... or "
			 "free disk");
}

/*
 * What can be read of a dead tier is brought to safety, and what is full then is a matter of --on-full: to grow is for
 * the pool to grow beyond its limit. Returns whether it may grow.
 */
static bool make_rescue_room(struct spw__agent *a)
{
	if (!a->tiers.no_room || spw_writeback_under_way(a->space))
		return false;
	/* What is in the pool can go to another file, which can be cleaned. */
	if (send(a, false, true))
		return false;
	report_full(a);
	if (a->ctl->on_full != SPW_FULL_GROW)
		return false;
	a->rescue += RESCUE_STEP;
	return true;
}

/* When no more comes, the pool is to be as small again as what is in it lets it. */
static void end_rescue_room(struct spw__agent *a)
{
	struct spw_tier_stats ts;

	if (!a->rescue || a->tiers.rescuing)
		return;
	a->zswap->ops->stats(a->zswap, &ts);
	uint64_t least = pool_limit(a, pool_room(a, pool_share(a))) - a->rescue,
		 over = ts.used_bytes > least ? ts.used_bytes - least : 0;

	a->rescue = over < a->rescue ? over : a->rescue;
}

static uint32_t backlog(uint64_t target)
{
	uint64_t frames = target / 32 / SPW_PAGE;

	return frames < BACKLOG_MIN ? BACKLOG_MIN : frames > BACKLOG_MAX ? BACKLOG_MAX : (uint32_t)frames;
}

/* Bytes that are to go. */
static int64_t over_mark(const struct spw__agent *a)
{
	uint64_t target = spw__agent_target(a);

	return __atomic_load_n(&a->resident, __ATOMIC_RELAXED) - (int64_t)(target - margin(target));
}

/*
 * What a fork shared comes last: each side needs a copy of its own of such a page before it can be rid of it, and until
 * both are, there is more of it than before. To find that there is nothing else takes a look at all of the map, so then
 * many are taken before the next. Nor is it spared until nothing else is left: a process that is down to a few pages of
 * its own faults at every step, beside shared ones that nobody uses.
 */
static void limit_shared(struct spw__agent *a)
{
	bool few = (uint64_t)a->own_last * FEW * SPW_PAGE < a->forked;

	if (!a->family || (!few && !spw__agent_over(a)))
		a->shared_left = 0;
	else if (few && !a->shared_left)
		a->shared_left = SHARED_BATCH;
}

/* Take pages out while the backlog of frames is short. False: there is none, and no page to be had. */
static bool stage(struct spw__agent *a, bool may_fault)
{
	uint64_t target = spw__agent_target(a),
		 waiting = __atomic_load_n(&a->frames.head, __ATOMIC_RELAXED) - a->frames.tail;

	if (waiting >= backlog(target))
		return true;
	limit_shared(a);
	unsigned taken = spw__evict(a, SPW_FRAMES_BATCH, may_fault);

	if (taken < SPW_FRAMES_BATCH && !a->shared_left && a->family && spw__agent_over(a)) {
		a->shared_left = SHARED_BATCH;
		taken += spw__evict(a, SPW_FRAMES_BATCH, may_fault);
	}
	a->shared_left -= taken < a->shared_left ? taken : a->shared_left;
	if (!a->busy)
		squeeze_pool(a, taken);
	return taken || waiting;
}

/* Store a batch of frames, and tell whoever waits for room. As spw__frames_store(). */
static int store(struct spw__agent *a)
{
	int ret = counted_out(a) ? -ENOSPC : spw__frames_store(a);

	if (ret <= 0)
		return ret;
	a->reported = false;
	__atomic_store_n(&a->full, 0, __ATOMIC_RELAXED);
	__atomic_add_fetch(&a->room, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&a->waiting, __ATOMIC_SEQ_CST))
		spw__wake_all(&a->room);
	return ret;
}

/* One round of the thread's work. Returns false when there is nothing to do at the moment. */
static bool reclaim_step(struct spw__agent *a, bool *starved)
{
	bool moving = writeback(a, true);
	int64_t over = over_mark(a);

	*starved = false;
	if (over <= 0) {
		__atomic_store_n(&a->full, 0, __ATOMIC_RELAXED);
		release_pool(a, over);
		return false;
	}
	if (!stage(a, true)) {
		*starved = true;
		/* Under the target, what is shared has not been tried. */
		__atomic_store_n(&a->full, spw__agent_over(a), __ATOMIC_RELAXED);
		return false;
	}
	int ret = store(a);

	if (ret > 0)
		return true;
	/* A pool of few blocks can be full below its marks: of blocks of other sizes. */
	if (ret == -ENOSPC && !moving)
		moving = a->tiers.files && send(a, false, true);
	bool moved = (moving || ret == -ENOSPC) && spw_writeback_poll(a->space, MS) > 0;

	if (ret == -ENOSPC && !moved && !spw_writeback_under_way(a->space))
		report_full(a);
	return moving && moved;
}

/* The same by the handler, which may neither fault nor wait for what is on its way to the file. */
static bool reclaim_step_here(struct spw__agent *a)
{
	writeback(a, false);
	return stage(a, false) && store(a) > 0;
}

bool spw__reclaim_here(struct spw__agent *a)
{
	uint64_t now = spw__plat_now_ns(), data;
	bool done;

	if (!spw__place_reclaims(a) || __atomic_load_n(&a->full, __ATOMIC_RELAXED) || !spw__trylock(&a->work))
		return false;
	if (now - a->measured > MS) {
		spw__measure(a, &data);
		if (data != a->scanned_data)
			spw__reclaim_kick(a);
		spw_compact(a->space, SPW_FRAMES_BATCH);
		spw__publish(a, now);
		__atomic_add_fetch(&a->rec->beat, 1, __ATOMIC_RELAXED);
	}
	done = !a->busy && over_mark(a) > 0 && reclaim_step_here(a);
	/* A page that has to be touched first: that is for a thread that may fault. */
	if (a->busy)
		spw__reclaim_kick(a);
	spw__unlock(&a->work);
	return done;
}

void spw__reclaim_kick(struct spw__agent *a)
{
	__atomic_add_fetch(&a->rec->kick, 1, __ATOMIC_RELEASE);
	spw__wake_all(&a->rec->kick);
}

/* What the thread remembers from round to round. Times in ns. */
struct rounds {
	uint64_t watched_at, heat_at, second_at, scanned_at, scan_cost;
	uint32_t beat;
	bool starved;
	bool draining;     /* a tier that is to go is not empty yet */
	unsigned dry;      /* rounds in a row that found nothing to take in the same map, or no room for it */
	uint64_t dry_cost; /* of the last one */
};

static uint64_t sleep_long(struct spw__agent *a, enum spw_rest why, uint64_t ns)
{
	__atomic_store_n(&a->rec->resting, why, __ATOMIC_RELAXED);
	return ns < TICK_RESTING ? ns : TICK_RESTING;
}

/*
 * How long to sleep. While a handler that shares the program's CPU does the work, this thread would only drive the
 * program from that CPU: the supervisor looks after the process, and kicks.
 */
static uint64_t rest(struct spw__agent *a, struct rounds *r, uint64_t room)
{
	uint32_t now = __atomic_load_n(&a->rec->beat, __ATOMIC_RELAXED);
	bool resting = spw__place_reclaims(a) && now != r->beat && !spw__agent_over(a);
	uint64_t sleep = room / GROWTH;

	r->beat = now;
	if (r->draining)
		return DRAIN_REST;
	if (resting)
		return sleep_long(a, SPW_REST_PLACED, TICK_RESTING);
	/*
	 * Where there was nothing to take, to look again costs a walk of the whole map. A fault that waits kicks, too.
	 */
	if (r->dry) {
		uint64_t dry = MS << r->dry, share = r->dry_cost * SCAN_SHARE;

		return sleep_long(a, SPW_REST_DRY, dry > share ? dry : share);
	}
	__atomic_store_n(&a->rec->resting, SPW_REST_NO, __ATOMIC_RELAXED);
	return sleep < MS ? MS : sleep > TICK_MAX ? TICK_MAX : sleep;
}

static int take_region(void *agent, uint64_t start, uint64_t end, uint64_t next)
{
	struct spw__agent *a = agent;
	int ret = spw__agent_register(a, start, end, next);

	/* Had it changed meanwhile, the next look at the map finds its other part. */
	if (ret == 0 || ret == -EAGAIN)
		a->rescan = true;
	/* What the kernel will not register stays the kernel's. */
	return ret ? 0 : spw__regions_add(&a->regions, start, end);
}

static void scan(struct spw__agent *a)
{
	spw__lock(&a->lock);
	spw__fault_drain(a);
	for (unsigned again = 0; again < SCANS; again++) {
		a->rescan = false;
		spw__regions_scan(&a->regions, take_region, a);
		if (!a->rescan)
			break;
	}
	spw__unlock(&a->lock);
}

/* On a CPU: to have been preempted, or to have waited for a lock, does not make a scan a costly one. */
static uint64_t time_run(void)
{
	struct timespec t = {0};

	spw__sys2(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

static void supervisor_gone(struct spw__agent *a)
{
	if (a->supervisor_fd < 0 || __atomic_load_n(&a->ctl->closing, __ATOMIC_ACQUIRE))
		return;
	if (spw__agent_supervisor_dead(a) && !__atomic_load_n(&a->ctl->closing, __ATOMIC_ACQUIRE))
		spw__sys2(SYS_kill, spw__sys0(SYS_getpid), 9);
}

/*
 * Look at the map if it may have changed. The scans' part of this thread's time is bounded: a map of thousands of
 * ranges takes time to read. They get more of it where the process may soon be over its target, for so much is not
 * known, and half where it is, for what is not known cannot be taken.
 */
static void keep_scanned(struct spw__agent *a, struct rounds *r, uint64_t data, uint64_t room, uint64_t now)
{
	uint64_t unknown = data > a->scanned_data ? (data - a->scanned_data) * SPW_PAGE : 0;

	if (data == a->scanned_data && !r->starved && !__atomic_load_n(&a->rescan, __ATOMIC_RELAXED))
		return;
	uint64_t share = !room ? 1 : unknown > room ? SCAN_SOON : SCAN_SHARE;

	if (now - r->scanned_at <= share * r->scan_cost)
		return;
	uint64_t began = time_run();

	scan(a);
	if (data != a->scanned_data)
		r->dry = 0;
	a->scanned_data = data;
	r->scanned_at = spw__plat_now_ns();
	r->scan_cost = time_run() - began;
}

static void each_second(struct spw__agent *a)
{
	if (a->tiers.files)
		spw_clean(a->space, a->reclaim_work);
	if (a->guarded && spw__forked_little(a)) {
		spw__lock(&a->lock);
		spw__cow_lift(a);
		spw__unlock(&a->lock);
	}
}

/* Of the last second and, less and less, of those before: a process that is left too little is to get more soon. */
static void publish_heat(struct spw__agent *a)
{
	uint64_t heat = __atomic_load_n(&a->rec->heat, __ATOMIC_RELAXED);

	heat -= (heat + HEAT_PARTS - 1) / HEAT_PARTS;
	heat += __atomic_exchange_n(&a->faults_window, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&a->rec->heat, heat, __ATOMIC_RELAXED);
}

/* One round of an armed agent. */
static void work(struct spw__agent *a, struct rounds *r, uint64_t data, uint64_t room, uint64_t now)
{
	spw__place_watch(a);
	spw__tiers_follow(a);
	keep_scanned(a, r, data, room, now);
	uint64_t until = spw__plat_now_ns() + MS, began = time_run();

	/* Near a handler on the program's CPU, work from another costs both: only what is urgent. */
	if (spw__place_reclaims(a) && !spw__agent_over(a) && !a->busy)
		writeback(a, true);
	else
		while (reclaim_step(a, &r->starved) && spw__plat_now_ns() < until)
			;
	/* To take pages out that nothing has room for, over and over, is work for the program too. */
	bool dry = r->starved || __atomic_load_n(&a->full, __ATOMIC_RELAXED);

	r->dry = dry ? r->dry + (r->dry < DRY_MOST) : 0;
	r->dry_cost = time_run() - began;
	/* While the pool overflows, what is oldest on a file makes room for it by going further down. */
	if (a->draining && a->tiers.files > 1)
		spw_clean(a->space, a->reclaim_work);
	r->draining = a->tiers.draining && spw__tiers_drain(a, spw__plat_now_ns() + MS);
	r->draining |= make_rescue_room(a);
	end_rescue_room(a);
	spw_compact(a->space, SPW_FRAMES_BATCH);
	spw__publish(a, now);
	if (now - r->heat_at > 1000 / HEAT_PARTS * MS) {
		publish_heat(a);
		r->heat_at = now;
	}
	if (now - r->second_at > 1000 * MS) {
		each_second(a);
		r->second_at = now;
	}
}

int spw__reclaim_thread(void *agent)
{
	struct spw__agent *a = agent;
	struct rounds r = {0};
	uint64_t data;

	a->reclaim_tid = (int)spw__sys0(SYS_gettid);
	/* Before those who fill the memory, where that is allowed. */
	spw__sys3(SYS_setpriority, 0 /* PRIO_PROCESS */, a->reclaim_tid, RECLAIM_NICE);
	for (;;) {
		uint32_t seen = __atomic_load_n(&a->rec->kick, __ATOMIC_ACQUIRE);

		spw__lock(&a->work);
		spw__fork_park(a);
		uint64_t now = spw__plat_now_ns(), target = spw__agent_target(a);

		spw__measure(a, &data);
		uint64_t resident = (uint64_t)__atomic_load_n(&a->resident, __ATOMIC_RELAXED);
		uint64_t room = target > resident ? target - resident : 0;

		if (now - r.watched_at > 100 * MS) {
			supervisor_gone(a);
			r.watched_at = now;
		}
		if (!a->armed && room < near_cap(target) && spw__agent_arm(a)) {
			a->refused = true;
			spw__unlock(&a->work);
			return 0;
		}
		if (a->armed)
			work(a, &r, data, room, now);
		spw__unlock(&a->work);
		spw__wait(&a->rec->kick, seen, rest(a, &r, room));
	}
}
