/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Swap without storage.
 *
 * A pool of compressed pages needs no file, but people count swap in files: what there is, how large, of which
 * priority. A ghost is counted like one and takes no byte. That a byte never reaches it must not hang on every caller's
 * care, so whatever would, comes to refuse() below.
 */
#include "tier/ghost.h"
#include "platform/platform.h"

#include <errno.h>

struct ghost {
	struct spw_tier tier;
	uint64_t pages;
	uint64_t refused; /* A */
};

/* The one place at which data for a ghost, or from it, ends. */
static int refuse(struct spw_tier *t)
{
	struct ghost *g = (struct ghost *)t;

	__atomic_add_fetch(&g->refused, 1, __ATOMIC_RELAXED);
	return -ENOMEDIUM;
}

static int ghost_put(struct spw_tier *t, spw_entry_t e, const struct spw_obj *o, spw_slot_t *out)
{
	(void)e;
	(void)o;
	*out = SPW_SLOT_NONE;
	return refuse(t);
}

static int ghost_begin(struct spw_tier *t, struct spw_segment **out)
{
	*out = NULL;
	return refuse(t);
}

static int ghost_get(struct spw_tier *t, spw_entry_t e, spw_slot_t s, void *buf)
{
	(void)e;
	(void)s;
	(void)buf;
	return refuse(t);
}

static uint64_t ghost_life(struct spw_tier *t, spw_slot_t s)
{
	(void)t;
	(void)s;
	return 0;
}

static void ghost_free(struct spw_tier *t, spw_slot_t s)
{
	(void)s;
	refuse(t);
}

static void ghost_stats(struct spw_tier *t, struct spw_tier_stats *out)
{
	struct ghost *g = (struct ghost *)t;

	*out = (struct spw_tier_stats){
		.capacity_bytes = g->pages * SPW_PAGE,
		.errors = __atomic_load_n(&g->refused, __ATOMIC_RELAXED),
		.metadata_bytes = SPW_PAGE,
	};
}

static void ghost_destroy(struct spw_tier *t)
{
	spw__plat_release(t, SPW_PAGE);
}

static const struct spw_tier_ops ghost_ops = {
	.kind = "ghost",
	.ghost = true,
	.put = ghost_put,
	.begin = ghost_begin,
	.get = ghost_get,
	.life = ghost_life,
	.free = ghost_free,
	.stats = ghost_stats,
	.destroy = ghost_destroy,
};

int spw__ghost_create(unsigned number, const char *name, uint64_t pages, struct spw_tier **out)
{
	struct ghost *g;

	if (number >= SPW_MAX_TIERS)
		return -EINVAL;
	g = spw__plat_reserve(SPW_PAGE);
	if (!g)
		return -ENOMEM;
	if (spw__plat_commit(g, SPW_PAGE)) {
		spw__plat_release(g, SPW_PAGE);
		return -ENOMEM;
	}
	*g = (struct ghost){
		.tier = {.ops = &ghost_ops, .name = name, .number = (uint8_t)number},
		.pages = pages,
	};
	*out = &g->tier;
	return 0;
}
