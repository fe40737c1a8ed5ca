/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What swapping costs without the layer of entries: the functions of space/space.h that bench/layer.c calls, for a page
 * table whose words are the locations.
 *
 * A benchmark that only times the layer says nothing of what it adds. Here nothing stands between page table and tier:
 * no entry, no cluster, no count, no swap cache, no statistics. The index of an "entry" is the page's place in one flat
 * table, whose word has the form of a descriptor (kind, lock, slot) because some form it must have. Tiers and codec are
 * the same objects. Linked in the place of src/space, whose members the linker then has no reason to take.
 *
 * When bytes move, the word that says where they are has to be found and rewritten. That is easy here because there is
 * one page table, and an object's owner is its index; with two that share a page, each would have to be searched.
 * A move has nothing beside it, so it needs no protocol.
 */
#include "platform/platform.h"
#include "space/descriptor.h"
#include "space/same.h"

#include <errno.h>
#include <string.h>

#define POLL_NS 10000000u

struct spw__space {
	uint64_t *table;
	uint32_t max_leaves, leaves;
	struct spw_codec codec;
	struct spw_tier *tier[SPW_MAX_TIERS];
	struct spw_tier *ram, *file;
	size_t bytes;
};

struct spw_work {
	void *codec;
	uint8_t *page;
};

/* ---- set-up, as in space.c ---- */

#define WORK_HEAD 64u

int spw__space_create(const struct spw__space_config *cfg, struct spw__space **out)
{
	size_t bytes = SPW_PAGE + (size_t)cfg->max_clusters * SPW_PAGE;
	struct spw__space *sp = spw__plat_reserve(bytes);

	if (!sp)
		return -ENOMEM;
	sp->table = (uint64_t *)((char *)sp + SPW_PAGE);
	sp->max_leaves = cfg->max_clusters;
	sp->codec = cfg->codec;
	sp->bytes = bytes;
	*out = sp;
	return 0;
}

void spw__space_destroy(struct spw__space *sp)
{
	spw__plat_release(sp, sp->bytes);
}

/* One tier of each shape is in use: the last that was added. */
int spw__space_add_tier(struct spw__space *sp, struct spw_tier *t)
{
	sp->tier[t->number] = t;
	*(t->ops->put ? &sp->ram : &sp->file) = t;
	return 0;
}

size_t spw_work_size(const struct spw__space *sp)
{
	return WORK_HEAD + SPW_PAGE + spw__codec_work_size(&sp->codec);
}

int spw_work_init(const struct spw__space *sp, void *mem, struct spw_work **out)
{
	struct spw_work *w = mem;

	w->page = (uint8_t *)mem + WORK_HEAD;
	w->codec = w->page + SPW_PAGE;
	*out = w;
	return spw__codec_work_init(&sp->codec, w->codec);
}

/* Nothing is counted. */
void spw_stats(struct spw__space *sp, struct spw__space_stats *out)
{
	(void)sp;
	memset(out, 0, sizeof(*out));
}

/* ---- leaves of the page table: 512 words, as a cluster is 512 descriptors ---- */

int spw_cluster_take(struct spw__space *sp, uint32_t *leaf)
{
	if (sp->leaves == sp->max_leaves)
		return -ENOMEM;
	*leaf = sp->leaves++;
	return 0;
}

int spw_cluster_give(struct spw__space *sp, uint32_t leaf)
{
	spw__plat_discard(&sp->table[(size_t)leaf * SPW_CLUSTER], SPW_PAGE);
	sp->leaves--;
	return 0;
}

/* ---- pages ---- */

static struct spw_tier *tier_of(const struct spw__space *sp, spw_slot_t s)
{
	return sp->tier[spw__slot_tier(s)];
}

static void let_go(struct spw__space *sp, uint64_t w)
{
	spw_slot_t s = spw__word_slot(w);

	if (spw__word_stored(w))
		tier_of(sp, s)->ops->free(tier_of(sp, s), s);
}

enum spw_kind spw_kind(const struct spw__space *sp, spw_entry_t e)
{
	return spw__word_kind(spw__word_peek(&sp->table[e.idx]));
}

int spw_store(struct spw__space *sp, struct spw_work *work, spw_entry_t e, const void *page, uint32_t frame)
{
	struct spw_obj o = {.data = page, .len = SPW_PAGE, .coding = SPW_CODING_RAW};
	uint64_t *d = &sp->table[e.idx], w;
	uint32_t pattern, len;
	spw_slot_t s;
	int rc;

	(void)frame;
	if (spw__same_filled(page, &pattern)) {
		spw__word_lock(d, true, &w);
		spw__word_unlock(d, spw__word(SPW_SAME, pattern));
		let_go(sp, w);
		return 0;
	}
	len = spw__codec_compress(&sp->codec, work->codec, page, work->page, SPW_PAGE / 4 * 3);
	if (len)
		o = (struct spw_obj){.data = work->page, .len = len, .coding = sp->codec.coding};
	spw__word_lock(d, true, &w);
	rc = sp->ram->ops->put(sp->ram, e, &o, &s);
	spw__word_unlock(d, rc ? w : spw__word(SPW_POOL, s.v));
	if (!rc)
		let_go(sp, w);
	return rc;
}

static int load_file(struct spw__space *sp, struct spw_work *work, spw_entry_t e, uint64_t w, void *page)
{
	spw_slot_t s = spw__word_slot(w);
	struct spw_obj o = {.data = work->page, .len = spw__slot_len(s), .coding = (uint8_t)spw__slot_coding(s)};
	int rc = tier_of(sp, s)->ops->get(tier_of(sp, s), e, s, work->page);

	if (spw__word_peek(&sp->table[e.idx]) != w)
		return -EAGAIN;
	return rc ? rc : spw__codec_restore(work->codec, &o, page);
}

int spw_load(struct spw__space *sp, struct spw_work *work, spw_entry_t e, void *page, spw_slot_t *where)
{
	uint64_t *d = &sp->table[e.idx], w = spw__word_peek(d);
	struct spw_obj o;
	int rc;

	if (spw__word_kind(w) == SPW_SAME) {
		spw__same_fill(page, (uint32_t)spw__word_payload(w));
		return 0;
	}
	while (spw__word_kind(w) == SPW_SLOT && (rc = load_file(sp, work, e, w, page)) == -EAGAIN)
		w = spw__word_peek(d);
	if (spw__word_kind(w) == SPW_POOL && spw__word_lock(d, false, &w)) {
		*where = spw__word_slot(w);
		o = (struct spw_obj){.data = sp->ram->ops->map(sp->ram, *where),
				     .len = spw__slot_len(*where),
				     .coding = (uint8_t)spw__slot_coding(*where)};
		rc = spw__codec_restore(work->codec, &o, page);
		spw__word_unlock(d, w | SPW__REFERENCED);
	} else if (!w) {
		memset(page, 0, SPW_PAGE);
		rc = -ENOENT;
	}
	return rc;
}

static void free_one(struct spw__space *sp, uint64_t *d)
{
	uint64_t w;

	if (!spw__word_lock(d, false, &w))
		return;
	spw__word_unlock(d, 0);
	let_go(sp, w);
}

void spw_free(struct spw__space *sp, const spw_entry_t *e, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		free_one(sp, &sp->table[e[i].idx]);
}

void spw_free_range(struct spw__space *sp, spw_entry_t first, unsigned n)
{
	for (uint64_t *d = &sp->table[first.idx], *end = d + n; d < end; d++)
		if (spw__word_peek(d))
			free_one(sp, d);
}

/* ---- relocation ---- */

/* The object has gone from w's slot to `to`: write the page table's word anew. */
static void rewrite(struct spw__space *sp, spw_entry_t e, enum spw_kind kind, spw_slot_t to)
{
	uint64_t w;

	spw__word_lock(&sp->table[e.idx], false, &w);
	spw__word_unlock(&sp->table[e.idx], spw__word(kind, to.v));
	let_go(sp, w);
}

/* Write the segment and wait for it. */
static int flush(struct spw__space *sp, struct spw_segment **g)
{
	struct spw_tier *file = sp->file;
	const struct spw_move *moves;
	struct spw_segment *token;
	int status = 0;
	unsigned n;

	if (!*g || file->ops->submit(file, *g))
		return 0;
	*g = NULL;
	do
		n = file->ops->poll(file, POLL_NS, &moves, &status, &token);
	while (!n);
	for (unsigned i = 0; i < n && !status; i++)
		rewrite(sp, moves[i].entry, SPW_SLOT, moves[i].to);
	file->ops->poll_done(file, token);
	return status;
}

static int send(struct spw__space *sp, struct spw_segment **g, spw_entry_t e, spw_slot_t from, const struct spw_obj *o)
{
	struct spw_tier *file = sp->file;
	spw_slot_t to;
	int rc = *g ? 0 : file->ops->begin(file, g);

	while (!rc && (rc = file->ops->add(file, *g, e, o, from, &to)) == -ENOSPC) {
		rc = flush(sp, g);
		rc = rc ? rc : file->ops->begin(file, g);
	}
	return rc;
}

static int move(struct spw__space *sp, struct spw_work *work, struct spw_segment **g, spw_entry_t e, spw_slot_t from)
{
	struct spw_obj o = {.data = work->page, .len = spw__slot_len(from), .coding = (uint8_t)spw__slot_coding(from)};
	struct spw_tier *t = tier_of(sp, from);
	spw_slot_t to;
	int rc;

	if (t == sp->ram) {
		o.data = t->ops->map(t, from);
		return send(sp, g, e, from, &o);
	}
	rc = t->ops->get(t, e, from, work->page);
	rc = rc ? rc : sp->ram->ops->put(sp->ram, e, &o, &to);
	if (!rc)
		rewrite(sp, e, SPW_POOL, to);
	return rc;
}

/* From RAM to the file or back: every word of the page table is looked at. */
int spw_drain(struct spw__space *sp, struct spw_work *work, struct spw_tier *t)
{
	struct spw_segment *g = NULL;
	int rc = 0;

	for (uint32_t i = 0; i < sp->leaves * SPW_CLUSTER && !rc; i++) {
		uint64_t w = spw__word_peek(&sp->table[i]);

		if (spw__word_stored(w) && tier_of(sp, spw__word_slot(w)) == t)
			rc = move(sp, work, &g, (spw_entry_t){i}, spw__word_slot(w));
	}
	return rc ? rc : flush(sp, &g);
}
