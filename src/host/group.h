/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_HOST_GROUP_H
#define SPW_HOST_GROUP_H
/* What the processes of a group may do: the agents hold themselves to it, the supervisor shares it out. */
#include "host/control.h"

#include <stdbool.h>
#include <stddef.h>

/* The record of a group. NULL: there is none, as there is none of the tree, 0. */
static inline const struct spw_ctl_group *spw__group(const struct spw_ctl *c, uint32_t id)
{
	for (const struct spw_ctl_group *g = c->group; id && g < c->group + SPW_CTL_GROUPS; g++)
		if (__atomic_load_n(&g->id, __ATOMIC_ACQUIRE) == id)
			return g;
	return NULL;
}

/* The tiers that it may use: all of the tree's, those of its record, or of a group that nobody knows none. */
static inline uint32_t spw__group_tiers(const struct spw_ctl *c, uint32_t id)
{
	const struct spw_ctl_group *g = spw__group(c, id);

	return !id ? UINT32_MAX : g ? __atomic_load_n(&g->tiers, __ATOMIC_ACQUIRE) : 0;
}

/* Whether it is `outer` or within it. */
static inline bool spw__group_within(const struct spw_ctl *c, uint32_t id, uint32_t outer)
{
	/* Whatever it is, it is within the tree. */
	if (!outer)
		return true;
	for (const struct spw_ctl_group *g; id > outer; id = g ? g->parent : 0)
		g = spw__group(c, id);
	return id == outer;
}

/* The lowest cap of it and the groups around it; UINT64_MAX: none has one. */
static inline uint64_t spw__group_limit(const struct spw_ctl *c, uint32_t id)
{
	uint64_t least = UINT64_MAX;

	for (const struct spw_ctl_group *g = spw__group(c, id); g; g = spw__group(c, g->parent))
		if (g->ram_limit_bytes && g->ram_limit_bytes < least)
			least = g->ram_limit_bytes;
	return least;
}
#endif
