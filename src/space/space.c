/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The space as an object: its memory, its tiers, its figures.
 *
 * It lives in other people's programs, where a capacity that is only promised must cost nothing: so one reservation of
 * address space is cut into the parts below, and each part becomes resident by use.
 */
#include "space/internal.h"

#define MAX_CLUSTERS ((1u << 23) - 1) /* the last cluster of 2^23 would own SPW_ENTRY_NONE */

static size_t whole_pages(size_t bytes)
{
	return (bytes + SPW__PAGE_MASK) & ~SPW__PAGE_MASK;
}

int spw__space_create(const struct spw__space_config *cfg, struct spw__space **out)
{
	uint32_t clusters = cfg->max_clusters < MAX_CLUSTERS ? cfg->max_clusters : MAX_CLUSTERS;
	size_t self = whole_pages(sizeof(struct spw__space));
	size_t table = whole_pages(clusters * sizeof(struct spw__cluster));
	size_t frame = whole_pages(cfg->max_frames * sizeof(uint64_t));
	size_t orphan = whole_pages(SPW__MOVES_MAX * sizeof(uint64_t));
	size_t twin = cfg->max_twins * sizeof(uint64_t);
	size_t words = (size_t)clusters * SPW_CLUSTER * sizeof(uint64_t);
	size_t bytes = self + table + frame + orphan + twin + 2 * words;
	struct spw__space *sp;
	char *p;

	if (!cfg->max_clusters || cfg->max_clusters > MAX_CLUSTERS + 1 || cfg->max_frames == SPW_NO_FRAME ||
	    cfg->max_twins & (cfg->max_twins - 1) || twin & SPW__PAGE_MASK)
		return -EINVAL;
	p = spw__plat_reserve(bytes);
	if (!p)
		return -ENOMEM;
	if (spw__plat_commit(p, self) || (frame && spw__plat_commit(p + self + table, frame)) ||
	    (twin && spw__plat_commit(p + self + table + frame + orphan, twin))) {
		spw__plat_release(p, bytes);
		return -ENOMEM;
	}
	sp = (struct spw__space *)(void *)p;
	sp->bytes = bytes;
	sp->max_clusters = clusters;
	sp->max_frames = cfg->max_frames;
	sp->codec = cfg->codec;
	sp->table = (void *)(p + self);
	sp->frame = (void *)(p + self + table);
	sp->orphan = (void *)(p + self + table + frame);
	sp->twin = twin ? (void *)(p + self + table + frame + orphan) : NULL;
	sp->max_twins = cfg->max_twins;
	sp->twin_key = cfg->twin_key;
	sp->desc = (void *)(p + self + table + frame + orphan + twin);
	sp->overflow = (void *)(p + self + table + frame + orphan + twin + words);
	*out = sp;
	return 0;
}

void spw__space_destroy(struct spw__space *sp)
{
	spw__plat_release(sp, sp->bytes);
}

int spw__space_add_tier(struct spw__space *sp, struct spw_tier *t)
{
	unsigned n = 0, at;

	while (sp->order[n])
		n++;
	if (n == SPW_MAX_TIERS)
		return -ENOSPC;
	if (t->number >= SPW_MAX_TIERS)
		return -EINVAL;
	if (sp->tier[t->number])
		return -EEXIST;
	sp->tier[t->number] = t;
	if (t->ops->ghost)
		return 0;
	for (at = n; at > 0 && sp->order[at - 1]->priority < t->priority; at--)
		sp->order[at] = sp->order[at - 1];
	sp->order[at] = t;
	return 0;
}

#define WORK_HEAD 64u

size_t spw_work_size(const struct spw__space *sp)
{
	return WORK_HEAD + 2 * SPW_PAGE + spw__codec_work_size(&sp->codec);
}

int spw_work_init(const struct spw__space *sp, void *mem, struct spw_work **out)
{
	struct spw_work *w = mem;

	_Static_assert(sizeof(*w) <= WORK_HEAD, "the head of a work area");
	w->page = (uint8_t *)mem + WORK_HEAD;
	w->codec = w->page + 2 * SPW_PAGE;
	*out = w;
	return spw__codec_work_init(&sp->codec, w->codec);
}

/* Resident at the most: each store that was noted has touched one page. */
static uint64_t twin_bytes(const struct spw__space *sp, const struct spw__space_stats *st)
{
	uint64_t all = sp->max_twins * sizeof(*sp->twin), touched = (st->stores - st->same_stores) * SPW_PAGE;

	return touched < all ? touched : all;
}

void spw_stats(struct spw__space *sp, struct spw__space_stats *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < SPW__SHARDS; i++) {
		const struct spw__shard *s = &sp->shard[i];

		out->same += SPW__LOAD(s->kinds[SPW_SAME]);
		out->pool += SPW__LOAD(s->kinds[SPW_POOL]);
		out->slot += SPW__LOAD(s->kinds[SPW_SLOT]);
		out->frame += SPW__LOAD(s->kinds[SPW_FRAME]);
		out->stores += SPW__LOAD(s->stores);
		out->loads += SPW__LOAD(s->loads);
		out->same_stores += SPW__LOAD(s->same_stores);
		out->joins += SPW__LOAD(s->joins);
	}
	out->entries = out->same + out->pool + out->slot + out->frame;
	out->clusters = SPW__LOAD(sp->present);
	out->writebacks = SPW__LOAD(sp->writebacks);
	out->relocations = SPW__LOAD(sp->relocations);
	out->cancels = SPW__LOAD(sp->cancels);
	out->metadata_bytes = whole_pages(sizeof(*sp)) +
			      whole_pages(SPW__LOAD(sp->ever) * sizeof(struct spw__cluster)) +
			      whole_pages(SPW__LOAD(sp->frames_touched) * sizeof(*sp->frame)) +
			      whole_pages(SPW__LOAD(sp->orphans) * sizeof(*sp->orphan)) + twin_bytes(sp, out) +
			      (SPW__LOAD(sp->touched) + SPW__LOAD(sp->overflow_pages)) * (uint64_t)SPW_PAGE;
}
