/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following the table of tiers.
 *
 * Which files there are is the supervisor's business, and changes while the program runs; to stop every process of the
 * tree for a change would be simple, and would take as long as its slowest. So each follows at its own pace: the thread
 * that does the reclaimer's work looks at one counter a round, opens what is new, and empties, a little at a time, what
 * is to go. Nobody else walks the list of tiers meanwhile, for stores, writeback and cleaning are that thread's. Loads
 * find a tier by its number, under the host lock: it is closed under that.
 *
 * The descriptors are the agent's own (thread.c), opened through those of `spillway run`.
 */
#include "host/process/tiers.h"
#include "host/group.h"
#include "host/process/agent.h"
#include "host/text.h"
#include "platform/linux.h"
#include "platform/platform.h"
#include "platform/sys.h"
#include "tier/ghost.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>

#define DRAIN_STEP 64u /* objects: some ms of small reads */
#define DEAD_STEP  8u  /* a disk that fails takes its time */
#define RETRY_MIN  100000000ull
#define RETRY_MAX  10000000000ull
#define POOL       1u /* the pool's bit */
#define NUMBERS    ((1u << SPW_MAX_TIERS) - 1)

/* A descriptor of `spillway run`, as a description of our own. */
static int open_theirs(const struct spw_ctl *c, int32_t fd, int flags)
{
	char folder[32] = "/proc/";
	size_t n = 6;

	n += spw__put_number(folder + n, sizeof(folder) - n, (uint64_t)c->supervisor_pid, 10);
	memcpy(folder + n, "/fd/", sizeof("/fd/"));
	return spw__open_numbered(folder, (uint64_t)fd, "", flags);
}

/*
 * O_DIRECT where the filesystem has it. Locked, for as long as this process may have pages there: `spillway run` may
 * end before it, and another must not take the file then.
 */
static int open_file(const struct spw_ctl *c, const struct spw_ctl_tier *t)
{
	int fd = open_theirs(c, t->fd, O_RDWR | O_DIRECT);

	fd = fd == -EINVAL ? open_theirs(c, t->fd, O_RDWR) : fd;
	if (fd >= 0)
		spw__sys2(SYS_flock, fd, LOCK_SH | LOCK_NB);
	return fd;
}

/* The part of a file tier that the tree shares. NULL with *error. */
static struct spw_file_shared *map_shared(const struct spw_ctl *c, const struct spw_ctl_tier *t, int *error)
{
	int fd = open_theirs(c, t->shared_fd, O_RDWR);

	*error = fd;
	if (fd < 0)
		return NULL;
	long p = spw__sys6(SYS_mmap, 0, t->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	spw__sys1(SYS_close, fd);
	*error = (int)p;
	return p < 0 && p > -(long)SPW_PAGE ? NULL : (struct spw_file_shared *)p;
}

static int attach_file(struct spw__agent *a, unsigned i, struct spw__open_tier *o)
{
	const struct spw_ctl_tier *t = &a->ctl->tier[i];
	int ret;

	o->shared = map_shared(a->ctl, t, &ret);
	if (!o->shared)
		return ret;
	o->shared_bytes = t->shared_bytes;
	o->fd = open_file(a->ctl, t);
	ret = o->fd < 0 ? o->fd : spw__file_io_open(o->fd, &o->io);
	if (ret == 0) {
		ret = spw__file_create(i + 1, "file", o->shared, a->slot, &o->io, &o->tier);
		if (ret)
			o->io.close(o->io.ctx);
	}
	if (ret && o->fd >= 0)
		spw__sys1(SYS_close, o->fd);
	if (ret)
		spw__sys2(SYS_munmap, o->shared, o->shared_bytes);
	return ret;
}

static int open_tier(struct spw__agent *a, unsigned i)
{
	const struct spw_ctl_tier *t = &a->ctl->tier[i];
	struct spw__open_tier o = {.generation = t->generation, .fd = -1};
	int ret =
		t->kind == SPW_CTL_GHOST ? spw__ghost_create(i + 1, "ghost", t->pages, &o.tier) : attach_file(a, i, &o);

	if (ret)
		return ret;
	o.tier->priority = (int8_t)t->priority;
	spw__lock(&a->lock);
	ret = spw__space_add_tier(a->space, o.tier);
	if (ret)
		spw__agent_die("cannot use a new tier", -ret);
	a->tiers.open[i] = o;
	spw__unlock(&a->lock);
	a->tiers.files += t->kind == SPW_CTL_FILE;
	return 0;
}

/*
 * Said before it is true: the supervisor takes a tier out of the table when it is to go and nobody says that he has it.
 */
static int attach(struct spw__agent *a, unsigned i)
{
	const struct spw_ctl_tier *t = &a->ctl->tier[i];
	uint32_t *mine = &a->rec->part[i].generation, generation = t->generation;
	int ret = 0;

	__atomic_store_n(mine, generation, __ATOMIC_SEQ_CST);
	bool there = __atomic_load_n(&t->state, __ATOMIC_SEQ_CST) == SPW_CTL_ON && t->generation == generation;

	if (there)
		ret = open_tier(a, i);
	if (!there || ret)
		__atomic_store_n(mine, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&a->rec->part[i].unopened, ret ? (uint64_t)generation << 32 | (uint32_t)-ret : 0,
			 __ATOMIC_RELAXED);
	return ret;
}

static void begin_drain(struct spw__agent *a, unsigned i, bool dead)
{
	struct spw__open_tier *o = &a->tiers.open[i];

	__atomic_store_n(&a->rec->part[i].error, 0, __ATOMIC_RELAXED);
	if (dead)
		spw_drain_rescue(a->space, o->tier);
	else
		spw_drain_begin(a->space, o->tier);
	a->tiers.draining += !o->draining;
	o->draining = true;
	o->dead = dead;
}

static void end_drain(struct spw__agent *a, unsigned i)
{
	struct spw__open_tier *o = &a->tiers.open[i];

	if (o->draining) {
		spw_drain_cancel(a->space, o->tier);
		a->tiers.draining--;
	}
	o->draining = false;
}

static uint32_t allowed(const struct spw__agent *a)
{
	return spw__group_tiers(a->ctl, a->rec->group);
}

/* What this process may use no more. All pages go through the pool, whether or not they may stay. */
static int narrow(struct spw__agent *a)
{
	uint32_t tiers = allowed(a);

	a->tiers.pool = tiers & POOL;
	return spw_allow(a->space, (tiers | POOL) & NUMBERS);
}

/* 0, or -errno: it cannot be opened. */
static int follow(struct spw__agent *a, unsigned i)
{
	uint32_t state = __atomic_load_n(&a->ctl->tier[i].state, __ATOMIC_ACQUIRE);
	const struct spw__open_tier *o = &a->tiers.open[i];

	/* A place that is taken anew is taken from the groups first. */
	if (state == SPW_CTL_ON && !o->tier)
		return allowed(a) & 1u << (i + 1) ? attach(a, i) : 0;
	if (state == SPW_CTL_ON)
		end_drain(a, i);
	else if (state == SPW_CTL_DRAINING && o->tier && !o->draining)
		begin_drain(a, i, false);
	else if (state == SPW_CTL_DEAD && o->tier && !o->dead)
		begin_drain(a, i, true);
	else if (!o->tier)
		__atomic_store_n(&a->rec->part[i].unopened, 0, __ATOMIC_RELAXED);
	return 0;
}

void spw__tiers_follow(struct spw__agent *a)
{
	uint32_t changes = __atomic_load_n(&a->ctl->changes, __ATOMIC_ACQUIRE);
	struct spw__tiers *t = &a->tiers;
	bool failed;

	if (changes == t->changes && (!t->retry_at || spw__plat_now_ns() < t->retry_at))
		return;
	if (changes != t->changes)
		t->retry_ns = 0;
	t->changes = changes;
	failed = narrow(a) != 0;
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++)
		failed |= follow(a, i) != 0;
	t->retry_ns = t->retry_ns * 2 < RETRY_MIN   ? RETRY_MIN
		      : t->retry_ns * 2 > RETRY_MAX ? RETRY_MAX
						    : t->retry_ns * 2;
	t->retry_at = failed ? spw__plat_now_ns() + t->retry_ns : 0;
}

/* How its writes do. The supervisor looks at the row of failures, over all processes. */
static void publish_failures(struct spw_ctl_tier *t, const struct spw_tier_stats *s, const struct spw_tier_stats *was)
{
	bool answered = s->answered != was->answered;

	if (answered)
		__atomic_store_n(&t->failed, 0, __ATOMIC_RELAXED);
	if (s->failed == was->failed || !s->failure)
		return;
	__atomic_store_n(&t->failure, s->failure, __ATOMIC_RELAXED);
	__atomic_add_fetch(&t->failed, answered ? 1 : (uint32_t)(s->failed - was->failed), __ATOMIC_RELEASE);
}

static void publish(struct spw__agent *a, unsigned i)
{
	struct spw__open_tier *o = &a->tiers.open[i];
	struct spw_ctl_part *part = &a->rec->part[i];
	struct spw_ctl_tier *t = &a->ctl->tier[i];
	struct spw_tier_stats s;

	o->tier->ops->stats(o->tier, &s);
	__atomic_store_n(&part->pages, s.pages, __ATOMIC_RELAXED);
	__atomic_store_n(&part->stored, s.stored_bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&part->lost, o->rescued ? s.pages : 0, __ATOMIC_RELAXED);
	__atomic_add_fetch(&t->reads, s.reads - o->published.reads, __ATOMIC_RELAXED);
	__atomic_add_fetch(&t->writes, s.writes - o->published.writes, __ATOMIC_RELAXED);
	__atomic_add_fetch(&t->errors, s.errors - o->published.errors, __ATOMIC_RELAXED);
	publish_failures(t, &s, &o->published);
	o->published = s;
}

/* It is empty. */
static void detach(struct spw__agent *a, unsigned i)
{
	struct spw__open_tier o = a->tiers.open[i];

	publish(a, i);
	spw__lock(&a->lock);
	int ret = spw__space_remove_tier(a->space, o.tier);

	if (ret == 0)
		a->tiers.open[i] = (struct spw__open_tier){.fd = -1};
	spw__unlock(&a->lock);
	if (ret)
		return;
	o.tier->ops->destroy(o.tier);
	if (o.shared) {
		spw__sys2(SYS_munmap, o.shared, o.shared_bytes);
		spw__sys1(SYS_close, o.fd);
		a->tiers.files--;
		/* What the pool was to leave for the program, with a file to go to, is nothing to go by without one. */
		if (!a->tiers.files)
			__atomic_store_n(&a->split.most, 0, __ATOMIC_RELAXED);
	}
	a->tiers.draining--;
	__atomic_store_n(&a->rec->part[i].generation, 0, __ATOMIC_RELEASE);
}

/* A dead tier after a step of its drain. */
static void note_rescue(struct spw__agent *a, struct spw__open_tier *o, int ret)
{
	o->rescued = ret == -EIO || ret == -EBADMSG;
	a->tiers.rescuing |= !o->rescued;
	a->tiers.no_room |= ret == -ENOSPC;
}

bool spw__tiers_drain(struct spw__agent *a, uint64_t until)
{
	bool more = false;

	a->tiers.rescuing = a->tiers.no_room = false;
	for (unsigned i = 0; i < SPW_CTL_TIERS && a->tiers.draining; i++) {
		struct spw__open_tier *o = &a->tiers.open[i];
		int ret = o->draining ? SPW_DRAIN_MORE : -ECANCELED;

		while (ret > 0) {
			ret = spw_drain_step(a->space, a->reclaim_work, o->tier, o->dead ? DEAD_STEP : DRAIN_STEP);
			spw_writeback_poll(a->space, 0);
			if (ret == SPW_DRAIN_WAITS || spw__plat_now_ns() > until)
				break;
		}
		if (o->dead && ret)
			note_rescue(a, o, ret);
		if (ret == 0)
			detach(a, i);
		else if (ret != -ECANCELED)
			publish(a, i);
		if (ret < 0 && ret != -ECANCELED)
			__atomic_store_n(&a->rec->part[i].error, ret, __ATOMIC_RELAXED);
		more |= ret > 0;
	}
	return more;
}

int spw__tiers_reopen(struct spw__agent *a)
{
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++) {
		struct spw__open_tier *o = &a->tiers.open[i];

		if (!o->tier)
			continue;
		if (o->shared) {
			o->fd = open_file(a->ctl, &a->ctl->tier[i]);
			/* What is on a dead one may be lost, and is then when it is needed. */
			if (o->fd < 0 && __atomic_load_n(&a->ctl->tier[i].state, __ATOMIC_ACQUIRE) != SPW_CTL_DEAD)
				return o->fd;
			spw__file_io_set_fd(&o->io, o->fd);
		}
		__atomic_store_n(&a->rec->part[i].generation, o->generation, __ATOMIC_RELEASE);
	}
	return 0;
}

void spw__tiers_reap(const struct spw_ctl *c, unsigned slot)
{
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++) {
		const struct spw_ctl_tier *t = &c->tier[i];
		bool file = __atomic_load_n(&t->state, __ATOMIC_ACQUIRE) != SPW_CTL_OFF && t->kind == SPW_CTL_FILE;
		int error;
		struct spw_file_shared *shared = file ? map_shared(c, t, &error) : NULL;

		if (!shared)
			continue;
		spw__file_reap(shared, slot);
		spw__sys2(SYS_munmap, shared, t->shared_bytes);
	}
}

void spw__tiers_watch(struct spw__agent *a, bool on)
{
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++) {
		if (a->tiers.open[i].shared)
			spw__file_io_watch(&a->tiers.open[i].io, on ? SPW_WATCH_ALWAYS : SPW_WATCH_NEVER);
	}
}

uint64_t spw__tiers_publish(struct spw__agent *a)
{
	uint64_t metadata = 0;

	for (unsigned i = 0; i < SPW_CTL_TIERS; i++) {
		if (!a->tiers.open[i].tier)
			continue;
		publish(a, i);
		metadata += a->tiers.open[i].published.metadata_bytes;
	}
	return metadata;
}
