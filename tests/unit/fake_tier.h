/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_TESTS_FAKE_TIER_H
#define SPW_TESTS_FAKE_TIER_H
/*
 * Tiers whose every step a test decides: objects in an array, one object an address, failures and completions on
 * demand. They check what a real tier cannot: that nothing is freed twice, mapped or read when it is not there, or
 * overwritten.
 */
#include "tier/tier.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_OBJECTS  4096u
#define FAKE_BATCH    64u /* objects of a segment */
#define FAKE_SEGMENTS 8u

struct spw_segment {
	struct spw_move moves[FAKE_BATCH];
	unsigned n, bytes;
	bool open, flying;
};

struct fake_tier {
	struct spw_tier tier;
	struct {
		bool used;
		uint32_t owner;
		uint32_t len;
		uint32_t life; /* objects so far */
		uint8_t coding;
		uint8_t data[SPW_PAGE];
	} object[FAKE_OBJECTS];
	unsigned live, last;
	struct spw_segment segment[FAKE_SEGMENTS];
	struct spw_segment *queue[FAKE_SEGMENTS]; /* submitted, in order */
	unsigned queued;
	unsigned cursor; /* of victims */

	/* What the test decides. */
	int fail_put, fail_begin, fail_add, fail_get; /* -errno of every such call */
	int fail_get_once;
	int write_status;  /* of the next segment that completes */
	bool hold;         /* no segment completes */
	bool reuse_lowest; /* hand out the lowest free address, not the next one */
	int fail_fork;
	void (*in_get)(void *arg);    /* runs once in the middle of the next get */
	void (*after_get)(void *arg); /* and at its end */
	void *in_get_arg;             /* of both */
	unsigned clean_below;         /* clean() names the objects below this address, each once a pass */
	unsigned clean_next;          /* the address that it goes on with */
	unsigned batch_bytes;         /* of objects that a segment holds at most; 0: any */
	unsigned clean_more;          /* and by so many calls more */
	bool asked_oldest;            /* by the last clean() */
	unsigned gets;
	unsigned forks, fork_fails, children;
};

static inline struct fake_tier *fake_of(struct spw_tier *t)
{
	return (struct fake_tier *)t;
}

static inline unsigned fake_index(spw_slot_t s)
{
	return (unsigned)(spw__slot_offset(s) / SPW_PAGE);
}

static inline int fake_place(struct fake_tier *f, spw_entry_t e, const struct spw_obj *o, spw_slot_t *out)
{
	unsigned from = f->reuse_lowest ? 0 : f->last + 1;

	for (unsigned i = 0; i < FAKE_OBJECTS; i++) {
		unsigned at = (from + i) % FAKE_OBJECTS;

		if (f->object[at].used)
			continue;
		f->object[at].used = true;
		f->object[at].life++;
		f->object[at].owner = e.idx;
		f->object[at].len = o->len;
		f->object[at].coding = o->coding;
		memcpy(f->object[at].data, o->data, o->len);
		f->last = at;
		f->live++;
		*out = spw__slot(f->tier.number, (uint64_t)at * SPW_PAGE, o->coding, o->len);
		return 0;
	}
	return -ENOSPC;
}

static inline spw_slot_t fake_slot(const struct fake_tier *f, unsigned at)
{
	return spw__slot(f->tier.number, (uint64_t)at * SPW_PAGE, f->object[at].coding, f->object[at].len);
}

static int fake_put(struct spw_tier *t, spw_entry_t e, const struct spw_obj *o, spw_slot_t *out)
{
	return fake_of(t)->fail_put ? fake_of(t)->fail_put : fake_place(fake_of(t), e, o, out);
}

static const void *fake_map(struct spw_tier *t, spw_slot_t s)
{
	struct fake_tier *f = fake_of(t);

	assert(f->object[fake_index(s)].used && spw__slot_same(fake_slot(f, fake_index(s)), s));
	return f->object[fake_index(s)].data;
}

static void fake_free(struct spw_tier *t, spw_slot_t s)
{
	struct fake_tier *f = fake_of(t);

	assert(f->object[fake_index(s)].used && spw__slot_same(fake_slot(f, fake_index(s)), s));
	f->object[fake_index(s)].used = false;
	memset(f->object[fake_index(s)].data, 0xdd, SPW_PAGE);
	f->live--;
}

static unsigned fake_victims(struct spw_tier *t, spw_entry_t *e, spw_slot_t *s, unsigned max)
{
	struct fake_tier *f = fake_of(t);
	unsigned n = 0;

	for (unsigned i = 0; i < FAKE_OBJECTS && n < max && n < f->live; i++) {
		unsigned at = f->cursor++ % FAKE_OBJECTS;

		if (!f->object[at].used)
			continue;
		e[n].idx = f->object[at].owner;
		s[n++] = fake_slot(f, at);
	}
	return n;
}

static unsigned fake_sparse(struct spw_tier *t, spw_entry_t *e, spw_slot_t *s, unsigned max)
{
	fake_of(t)->cursor = 0;
	return fake_victims(t, e, s, max);
}

static int fake_begin(struct spw_tier *t, struct spw_segment **out)
{
	struct fake_tier *f = fake_of(t);

	if (f->fail_begin)
		return f->fail_begin;
	for (unsigned i = 0; i < FAKE_SEGMENTS; i++) {
		if (f->segment[i].open || f->segment[i].flying)
			continue;
		f->segment[i] = (struct spw_segment){.open = true};
		*out = &f->segment[i];
		return 0;
	}
	return -EAGAIN;
}

static int fake_add(struct spw_tier *t, struct spw_segment *g, spw_entry_t e, const struct spw_obj *o, spw_slot_t from,
		    spw_slot_t *out)
{
	struct fake_tier *f = fake_of(t);
	int rc;

	assert(g->open);
	if (f->fail_add)
		return f->fail_add;
	if (g->n == FAKE_BATCH || (f->batch_bytes && g->bytes + o->len > f->batch_bytes))
		return -ENOSPC;
	rc = fake_place(f, e, o, out);
	if (rc)
		return rc;
	g->moves[g->n++] = (struct spw_move){.entry = e, .from = from, .to = *out};
	g->bytes += o->len;
	return 0;
}

static int fake_submit(struct spw_tier *t, struct spw_segment *g)
{
	struct fake_tier *f = fake_of(t);

	assert(g->open);
	g->open = false;
	g->flying = g->n > 0;
	if (g->n)
		f->queue[f->queued++] = g;
	return 0;
}

static unsigned fake_poll(struct spw_tier *t, uint64_t wait_ns, const struct spw_move **moves, int *status,
			  struct spw_segment **token)
{
	struct fake_tier *f = fake_of(t);
	struct spw_segment *g = f->queue[0];

	(void)wait_ns;
	if (!f->queued || f->hold)
		return 0;
	*moves = g->moves;
	*status = f->write_status;
	*token = g;
	for (unsigned i = 0; i < g->n && f->write_status; i++)
		fake_free(t, g->moves[i].to);
	f->write_status = 0;
	memmove(f->queue, f->queue + 1, --f->queued * sizeof(f->queue[0]));
	return g->n;
}

static void fake_poll_done(struct spw_tier *t, struct spw_segment *token)
{
	(void)t;
	assert(token->flying);
	token->flying = false;
}

static int fake_get(struct spw_tier *t, spw_entry_t e, spw_slot_t s, void *buf)
{
	struct fake_tier *f = fake_of(t);
	void (*hook)(void *) = f->in_get;
	int once;

	f->gets++;
	f->in_get = NULL;
	if (hook)
		hook(f->in_get_arg);
	once = f->fail_get_once;
	f->fail_get_once = 0;
	if (once)
		return once;
	if (f->fail_get)
		return f->fail_get;
	if (!f->object[fake_index(s)].used || !spw__slot_same(fake_slot(f, fake_index(s)), s) ||
	    f->object[fake_index(s)].owner != e.idx)
		return -EBADMSG;
	memcpy(buf, f->object[fake_index(s)].data, spw__slot_len(s));
	hook = f->after_get;
	f->after_get = NULL;
	if (hook)
		hook(f->in_get_arg);
	return 0;
}

static uint64_t fake_life(struct spw_tier *t, spw_slot_t s)
{
	return fake_of(t)->object[fake_index(s)].life;
}

static unsigned fake_clean(struct spw_tier *t, bool oldest, spw_entry_t *e, spw_slot_t *s, struct spw_obj *objs,
			   unsigned max)
{
	struct fake_tier *f = fake_of(t);
	unsigned n = 0;

	f->asked_oldest = oldest;
	for (; f->clean_next < f->clean_below && n < max; f->clean_next++) {
		unsigned at = f->clean_next;

		if (!f->object[at].used)
			continue;
		e[n].idx = f->object[at].owner;
		s[n] = fake_slot(f, at);
		objs[n++] = (struct spw_obj){
			.data = f->object[at].data, .len = f->object[at].len, .coding = f->object[at].coding};
	}
	return n;
}

static void fake_clean_done(struct spw_tier *t)
{
	struct fake_tier *f = fake_of(t);

	f->clean_next = 0;
	if (f->clean_more)
		f->clean_more--;
	else
		f->clean_below = 0;
}

static void fake_stats(struct spw_tier *t, struct spw_tier_stats *out)
{
	*out = (struct spw_tier_stats){.pages = fake_of(t)->live};
}

static int fake_fork_prepare(struct spw_tier *t, unsigned child)
{
	(void)child;
	fake_of(t)->forks += !fake_of(t)->fail_fork;
	return fake_of(t)->fail_fork;
}

static void fake_fork_child(struct spw_tier *t, unsigned child)
{
	struct fake_tier *f = fake_of(t);

	(void)child;
	f->children++;
	for (; f->queued; f->queued--)
		for (unsigned i = 0; i < f->queue[f->queued - 1]->n; i++)
			fake_free(t, f->queue[f->queued - 1]->moves[i].to);
	memset(f->segment, 0, sizeof(f->segment));
}

static void fake_fork_failed(struct spw_tier *t, unsigned child)
{
	(void)child;
	fake_of(t)->fork_fails++;
}

static const struct spw_tier_ops fake_ram_ops = {
	.kind = "fake-ram",
	.put = fake_put,
	.map = fake_map,
	.victims = fake_victims,
	.sparse = fake_sparse,
	.free = fake_free,
	.stats = fake_stats,
	.fork_prepare = fake_fork_prepare,
	.fork_failed = fake_fork_failed,
};

static const struct spw_tier_ops fake_batch_ops = {
	.kind = "fake-batch",
	.begin = fake_begin,
	.add = fake_add,
	.submit = fake_submit,
	.poll = fake_poll,
	.poll_done = fake_poll_done,
	.get = fake_get,
	.life = fake_life,
	.clean = fake_clean,
	.clean_done = fake_clean_done,
	.free = fake_free,
	.stats = fake_stats,
	.fork_prepare = fake_fork_prepare,
	.fork_child = fake_fork_child,
	.fork_failed = fake_fork_failed,
};

static inline struct fake_tier *fake_create(bool batch, unsigned number, int priority)
{
	struct fake_tier *f = calloc(1, sizeof(*f));

	assert(f);
	f->tier = (struct spw_tier){.ops = batch ? &fake_batch_ops : &fake_ram_ops,
				    .name = "fake",
				    .number = (uint8_t)number,
				    .priority = (int8_t)priority};
	f->last = FAKE_OBJECTS - 1;
	return f;
}

#endif
