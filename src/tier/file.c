/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The file tier: compressed pages packed into large writes.
 *
 * One page in one block would be simple, and would give away what compression won: a page of 1.3 KiB would take 4 KiB
 * of the file and a write of its own. So objects are packed into segments of 256 KiB, as they are in the pool but
 * sealed. The price is that a segment comes free only when its last object goes; cleaning (file_clean.c) moves the rest
 * of segments that are mostly dead.
 *
 * What an object costs in RAM is nothing: its slot says where it is, its owner stands in the segment. Per segment, a
 * process keeps how much of it is live; which processes hold it is in the table that all share (file_shared.c).
 *
 * A batch is what one write takes. Few objects at a time do not waste a segment: the next batch goes behind the last
 * one (the tail). The units of a batch count as live from the poll that reports it on, so a write that failed leaves
 * nothing to undo.
 */
#include "tier/file_internal.h"

#include <errno.h>
#include <string.h>

#define BACKOFF_MIN   100000000ull
#define BACKOFF_MAX   10000000000ull
#define IDLE_NS       1000000000ull
#define DESTROY_WAITS 300u /* of 100 ms */

_Static_assert(SPW__TAG + SPW_PAGE + SPW_UNIT + SPW__TAG + 2 * SPW_UNIT <= SPW__MIN_BATCH, "a RAW page fits");
_Static_assert(SPW__SEG_UNITS < SPW__PIN, "units and pins do not meet");

static uint32_t units_of(uint32_t len)
{
	return (SPW__TAG + len + SPW_UNIT - 1) / SPW_UNIT;
}

/* ---- segments of this process ---- */

static void let_go(struct spw__file *f, uint32_t seg)
{
	SPW__SUB(f->held, 1);
	spw__seg_drop(f->sh, seg, f->proc);
	__atomic_store_n(&f->freed, true, __ATOMIC_RELAXED);
}

/* Under the lock. */
static void unpin(struct spw__file *f, uint32_t seg)
{
	if (SPW__LOAD(f->live[seg]) / SPW__PIN == 1)
		spw__seg_written(f->sh, seg);
	if (!__atomic_sub_fetch(&f->live[seg], SPW__PIN, __ATOMIC_ACQ_REL))
		let_go(f, seg);
}

void spw__file_unpin(struct spw__file *f, uint32_t seg)
{
	spw__spin_lock(&f->lock);
	unpin(f, seg);
	spw__spin_unlock(&f->lock);
}

static void file_free(struct spw_tier *t, spw_slot_t s)
{
	struct spw__file *f = spw__file_of(t);
	uint64_t offset = spw__slot_offset(s) - f->sh->first_byte;
	uint32_t seg = (uint32_t)(offset / SPW_FILE_SEGMENT), units = units_of(spw__slot_len(s));
	uint32_t live;

	if (seg >= f->sh->segments)
		return;
	SPW__ADD(f->dead[seg], (uint16_t)units);
	live = __atomic_sub_fetch(&f->live[seg], units, __ATOMIC_ACQ_REL);
	SPW__SUB(f->pages, 1);
	SPW__SUB(f->stored, spw__slot_len(s));
	if (!live)
		let_go(f, seg);
}

/* ---- writing ---- */

/* Under the lock: what begin has to say before it looks for a segment. */
static int backing_off(struct spw__file *f)
{
	/* A freed segment has its blocks already: it can be written though the filesystem is full. */
	if (f->backoff_error == -ENOSPC && SPW__LOAD(f->freed))
		f->backoff_until = 0;
	return f->backoff_until && spw__plat_now_ns() < f->backoff_until ? f->backoff_error : 0;
}

static bool for_want_of_room(int status)
{
	return status == -ENOSPC || status == -EDQUOT;
}

/* Under the lock. */
static void back_off(struct spw__file *f, int status)
{
	uint64_t ns = f->backoff_ns * 2;

	f->backoff_ns = ns < BACKOFF_MIN ? BACKOFF_MIN : ns > BACKOFF_MAX ? BACKOFF_MAX : ns;
	f->backoff_until = spw__plat_now_ns() + f->backoff_ns;
	f->backoff_error = for_want_of_room(status) ? -ENOSPC : -EIO;
	__atomic_store_n(&f->freed, false, __ATOMIC_RELAXED);
}

static void set_state(struct spw__file *f, struct spw_segment *g, enum spw__batch_state state)
{
	spw__spin_lock(&f->lock);
	g->state = state;
	spw__spin_unlock(&f->lock);
}

/* Under the lock: a batch in that state, or NULL. */
static struct spw_segment *batch_in(struct spw__file *f, enum spw__batch_state state)
{
	for (unsigned i = 0; i < SPW__BATCHES; i++)
		if (f->batch[i].state == state)
			return &f->batch[i];
	return NULL;
}

/* A free segment for the batch; a few stay in reserve, without which cleaning could not make room for itself. */
static int claim_segment(struct spw__file *f, struct spw_segment *g)
{
	bool cleaning = SPW__LOAD(f->may_claim);
	uint32_t seg, top;
	int err = spw__seg_claim(f->sh, f->proc, cleaning ? 0 : spw__file_reserve(f->sh), &seg, &g->place.gen);

	if (err)
		return err;
	if (cleaning)
		SPW__SUB(f->may_claim, 1);
	g->place.seg = seg;
	g->base = 0;
	__atomic_store_n(&f->dead[seg], 0, __ATOMIC_RELAXED);
	__atomic_store_n(&f->live[seg], SPW__PIN, __ATOMIC_RELAXED);
	SPW__ADD(f->held, 1);
	top = SPW__LOAD(f->top);
	while (top <= seg &&
	       !__atomic_compare_exchange_n(&f->top, &top, seg + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	return 0;
}

static int file_begin(struct spw_tier *t, struct spw_segment **out)
{
	struct spw__file *f = spw__file_of(t);
	struct spw_segment *g = NULL;
	bool fresh = true;
	int err;

	spw__spin_lock(&f->lock);
	err = backing_off(f);
	if (!err) {
		g = batch_in(f, SPW__BATCH_FREE);
		err = !g ? -EAGAIN : spw__plat_commit(g->data, SPW_FILE_SEGMENT);
		err = err ? err : spw__plat_commit(g->moves, SPW__MOVES_BYTES);
	}
	if (!err) {
		g->state = SPW__BATCH_OPEN;
		if (f->tail != SPW__SEGS_NONE) {
			g->place.seg = f->tail;
			g->place.gen = f->tail_gen;
			g->base = f->tail_base;
			f->tail = SPW__SEGS_NONE;
			fresh = false;
		}
	}
	spw__spin_unlock(&f->lock);
	if (err)
		return err;
	if (fresh) {
		err = claim_segment(f, g);
		if (err) {
			set_state(f, g, SPW__BATCH_FREE);
			return err;
		}
	}
	g->place.offset = spw__seg_offset(f->sh, g->place.seg);
	g->n = g->used = g->units = g->stored = g->padding = 0;
	g->status = 0;
	*out = g;
	return 0;
}

static int file_add(struct spw_tier *t, struct spw_segment *g, spw_entry_t e, const struct spw_obj *o, spw_slot_t from,
		    spw_slot_t *out)
{
	uint32_t at = g->base + g->used, units = units_of(o->len);
	spw_slot_t to = spw__slot(t->number, g->place.offset + at, o->coding, o->len);
	struct spw__seal_id id = {.slot = to.v, .entry = e.idx, .segment = g->place.seg};

	if (at + units * SPW_UNIT + spw__owners_size(g->n + 1) > SPW_FILE_SEGMENT)
		return -ENOSPC;
	spw__seal(g->place.seal, g->place.gen, at, &id, o->data, o->len, g->data + g->used);
	g->moves[g->n++] = (struct spw_move){.entry = e, .from = from, .to = to};
	g->used += units * SPW_UNIT;
	g->units += units;
	g->stored += o->len;
	*out = to;
	return 0;
}

/* Under the lock: the segment has room from `base` on, and the pin that goes with it. */
static void put_tail(struct spw__file *f, const struct spw_segment *g, uint32_t base)
{
	if (SPW_FILE_SEGMENT - base >= SPW__MIN_BATCH && f->tail == SPW__SEGS_NONE) {
		f->tail = g->place.seg;
		f->tail_gen = g->place.gen;
		f->tail_base = base;
		return;
	}
	SPW__ADD(f->dead[g->place.seg], (uint16_t)((SPW_FILE_SEGMENT - base) / SPW_UNIT));
	unpin(f, g->place.seg);
}

/* Under the lock: buffers that nobody used for a while cost memory for nothing. */
static void discard_idle(struct spw__file *f)
{
	uint64_t now;

	if (!f->resident)
		return;
	now = spw__plat_now_ns();
	if (now - f->used_at < IDLE_NS)
		return;
	for (unsigned i = 0; i < SPW__BATCHES; i++) {
		if (f->batch[i].state != SPW__BATCH_FREE) {
			f->used_at = now;
			return;
		}
	}
	spw__plat_discard(f->data, (size_t)SPW__BATCHES * SPW_FILE_SEGMENT);
	spw__plat_discard(f->batch[0].moves, (size_t)SPW__BATCHES * SPW__MOVES_BYTES);
	__atomic_store_n(&f->resident, false, __ATOMIC_RELAXED);
}

static int file_submit(struct spw_tier *t, struct spw_segment *g)
{
	struct spw__file *f = spw__file_of(t);
	int err;

	if (!g->n) {
		spw__spin_lock(&f->lock);
		put_tail(f, g, g->base);
		g->state = SPW__BATCH_FREE;
		discard_idle(f);
		spw__spin_unlock(&f->lock);
		return 0;
	}
	g->bytes = spw__batch_close(&g->place, g->data, g->base, g->used, g->moves, g->n);
	/* At the end of a segment it is what no object fitted in. */
	if (g->base + g->bytes < SPW_FILE_SEGMENT)
		g->padding = (g->bytes - g->used - spw__owners_size(g->n)) / SPW_UNIT;
	spw__spin_lock(&f->lock);
	__atomic_store_n(&f->resident, true, __ATOMIC_RELAXED);
	SPW__ADD(f->live[g->place.seg], SPW__PIN);
	put_tail(f, g, g->base + g->bytes);
	g->state = SPW__BATCH_FLYING;
	spw__spin_unlock(&f->lock);
	err = f->io.write(f->io.ctx, g->data, g->bytes, g->place.offset + g->base, (uint64_t)(g - f->batch));
	if (err) {
		g->status = err;
		set_state(f, g, SPW__BATCH_DONE);
	}
	return 0;
}

/* The next batch that is finished, marked POLLED, or NULL. */
static struct spw_segment *next_finished(struct spw__file *f, uint64_t wait_ns)
{
	struct spw_segment *g;
	bool flying;
	uint64_t token;
	int64_t result;

	spw__spin_lock(&f->lock);
	g = batch_in(f, SPW__BATCH_DONE);
	if (g)
		g->state = SPW__BATCH_POLLED;
	flying = batch_in(f, SPW__BATCH_FLYING);
	if (!g && !flying)
		discard_idle(f);
	spw__spin_unlock(&f->lock);
	if (g || !flying || f->io.reap(f->io.ctx, wait_ns, &token, &result) <= 0 || token >= SPW__BATCHES)
		return g;
	g = &f->batch[token];
	set_state(f, g, SPW__BATCH_POLLED);
	g->status = result < 0 ? (int)result : result < (int64_t)g->bytes ? -EIO : 0;
	return g;
}

static void note_answer(struct spw__file *f, int status)
{
	bool answered = !status || for_want_of_room(status);

	__atomic_store_n(&f->failure, answered ? 0 : status, __ATOMIC_RELAXED);
	SPW__ADD(*(answered ? &f->answered : &f->failed), 1);
}

static unsigned file_poll(struct spw_tier *t, uint64_t wait_ns, const struct spw_move **moves, int *status,
			  struct spw_segment **token)
{
	struct spw__file *f = spw__file_of(t);
	struct spw_segment *g = next_finished(f, wait_ns);

	if (!g)
		return 0;
	if (!g->status) {
		__atomic_fetch_add(&f->live[g->place.seg], g->units, __ATOMIC_ACQ_REL);
		SPW__ADD(f->dead[g->place.seg], (uint16_t)g->padding);
		SPW__ADD(f->pages, g->n);
		SPW__ADD(f->stored, g->stored);
		SPW__ADD(f->writes, g->n);
	} else {
		SPW__ADD(f->dead[g->place.seg], (uint16_t)(g->bytes / SPW_UNIT));
		SPW__ADD(f->errors, 1);
	}
	note_answer(f, g->status);
	*moves = g->moves;
	*status = g->status;
	*token = g;
	return g->n;
}

static void file_poll_done(struct spw_tier *t, struct spw_segment *g)
{
	struct spw__file *f = spw__file_of(t);
	uint32_t seg = g->place.seg;

	spw__spin_lock(&f->lock);
	if (g->status && f->tail == seg) {
		f->tail = SPW__SEGS_NONE;
		SPW__ADD(f->dead[seg], (uint16_t)((SPW_FILE_SEGMENT - f->tail_base) / SPW_UNIT));
		unpin(f, seg);
	}
	unpin(f, seg);
	if (g->status)
		back_off(f, g->status);
	else
		f->backoff_until = f->backoff_ns = 0;
	f->used_at = spw__plat_now_ns();
	g->state = SPW__BATCH_FREE;
	spw__spin_unlock(&f->lock);
}

/* ---- the rest ---- */

static void file_stats(struct spw_tier *t, struct spw_tier_stats *out)
{
	struct spw__file *f = spw__file_of(t);
	uint64_t top = SPW__LOAD(f->top);

	*out = (struct spw_tier_stats){
		.capacity_bytes = (uint64_t)f->sh->usable * SPW_FILE_SEGMENT,
		.used_bytes = (uint64_t)SPW__LOAD(f->held) * SPW_FILE_SEGMENT,
		.stored_bytes = SPW__LOAD(f->stored),
		.pages = SPW__LOAD(f->pages),
		.reads = SPW__LOAD(f->reads),
		.writes = SPW__LOAD(f->writes),
		.errors = SPW__LOAD(f->errors),
		.answered = SPW__LOAD(f->answered),
		.failed = SPW__LOAD(f->failed),
		.failure = SPW__LOAD(f->failure),
		.metadata_bytes = sizeof(*f) + top * (sizeof(*f->live) + sizeof(*f->dead) + sizeof(uint64_t)) +
				  spw__file_read_memory(f) +
				  (SPW__LOAD(f->resident) ? SPW__BATCHES * (SPW_FILE_SEGMENT + SPW__MOVES_BYTES) : 0),
	};
}

/* Share what has live objects. What is only pinned is on its way, and stays with the parent. */
static int file_fork_prepare(struct spw_tier *t, unsigned child)
{
	struct spw__file *f = spw__file_of(t);

	for (uint32_t i = 0; i < f->top; i++)
		if (SPW__LOAD(f->live[i]) % SPW__PIN)
			spw__seg_share(f->sh, i, child);
	return 0;
}

static void file_fork_failed(struct spw_tier *t, unsigned child)
{
	struct spw__file *f = spw__file_of(t);

	for (uint32_t i = 0; i < f->top; i++)
		if (SPW__LOAD(f->live[i]) % SPW__PIN)
			spw__seg_drop(f->sh, i, child);
}

static void file_fork_child(struct spw_tier *t, unsigned child)
{
	struct spw__file *f = spw__file_of(t);

	f->proc = (uint8_t)child;
	f->lock = (struct spw__spin){0};
	for (unsigned i = 0; i < SPW__BATCHES; i++)
		f->batch[i].state = SPW__BATCH_FREE;
	f->held = 0;
	for (uint32_t i = 0; i < f->top; i++) {
		f->live[i] %= SPW__PIN;
		f->held += !!f->live[i];
	}
	f->tail = SPW__SEGS_NONE;
	f->backoff_until = f->backoff_ns = 0;
	f->reading = false;
	f->may_claim = 0;
	f->clean_seg = SPW__SEGS_NONE;
	spw__file_read_reset(f);
}

static void file_destroy(struct spw_tier *t)
{
	struct spw__file *f = spw__file_of(t);
	const struct spw_move *moves;
	struct spw_segment *g;
	bool reads_ended = false;
	int status;

	/* A segment must not go to another process while our write to it may still come. */
	for (unsigned i = 0; i < DESTROY_WAITS && batch_in(f, SPW__BATCH_FLYING); i++)
		if (file_poll(t, 100000000, &moves, &status, &g))
			file_poll_done(t, g);
	for (unsigned i = 0; i < DESTROY_WAITS && !reads_ended; i++)
		reads_ended = spw__file_read_end(f, 100000000 / SPW_FILE_EARLY);
	if (f->tail != SPW__SEGS_NONE)
		spw__file_unpin(f, f->tail);
	for (uint32_t i = 0; i < f->top; i++)
		if (f->live[i])
			let_go(f, i);
	/* The memory is the read's as long as it is under way, though the disk may never answer. */
	if (!reads_ended)
		return;
	f->io.close(f->io.ctx);
	spw__plat_release(f, f->bytes);
}

static const struct spw_tier_ops file_ops = {
	.kind = "file",
	.begin = file_begin,
	.add = file_add,
	.submit = file_submit,
	.poll = file_poll,
	.poll_done = file_poll_done,
	.get = spw__file_get,
	.expect = spw__file_expect,
	.settle = spw__file_settle,
	.life = spw__file_life,
	.clean = spw__file_clean,
	.clean_done = spw__file_clean_done,
	.free = file_free,
	.stats = file_stats,
	.fork_prepare = file_fork_prepare,
	.fork_child = file_fork_child,
	.fork_failed = file_fork_failed,
	.destroy = file_destroy,
};

static size_t blocks(size_t bytes)
{
	return (bytes + SPW__BLOCK - 1) & ~(size_t)(SPW__BLOCK - 1);
}

int spw__file_create(unsigned number, const char *name, struct spw_file_shared *sh, unsigned proc,
		     const struct spw_file_io *io, struct spw_tier **out)
{
	size_t live = blocks(sizeof(struct spw__file)), dead = live + blocks(sh->segments * sizeof(uint32_t));
	size_t data = dead + blocks(sh->segments * sizeof(uint16_t));
	size_t reads = data + (size_t)(SPW__BATCHES + 1) * SPW_FILE_SEGMENT, moves = reads + SPW__READ_BYTES;
	size_t bytes = moves + (size_t)SPW__BATCHES * SPW__MOVES_BYTES;
	struct spw__file *f;
	uint8_t *base;
	int err;

	if (number >= SPW_MAX_TIERS || proc >= SPW_FILE_PROCS)
		return -EINVAL;
	base = spw__plat_reserve(bytes);
	if (!base)
		return -ENOMEM;
	f = (struct spw__file *)base;
	err = spw__plat_commit(base, data);
	if (!err)
		err = spw__plat_commit(base + reads, SPW__READ_BYTES);
	if (!err)
		err = spw__seal_init(&f->seal, sh->key, sh->encrypt);
	if (err) {
		spw__plat_release(base, bytes);
		return err;
	}
	f->tier = (struct spw_tier){.ops = &file_ops, .name = name, .number = (uint8_t)number};
	f->sh = sh;
	f->io = *io;
	f->proc = (uint8_t)proc;
	f->bytes = bytes;
	f->live = (uint32_t *)(base + live);
	f->dead = (uint16_t *)(base + dead);
	f->data = base + data;
	f->read_data = base + reads;
	f->tail = f->clean_seg = SPW__SEGS_NONE;
	for (unsigned i = 0; i < SPW__BATCHES; i++) {
		f->batch[i].data = f->data + (size_t)i * SPW_FILE_SEGMENT;
		f->batch[i].moves = (struct spw_move *)(base + moves + (size_t)i * SPW__MOVES_BYTES);
		f->batch[i].place.seal = &f->seal;
		f->batch[i].place.tier = (uint8_t)number;
	}
	*out = &f->tier;
	return 0;
}
