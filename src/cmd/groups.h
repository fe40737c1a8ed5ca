/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_GROUPS_H
#define SPW_CMD_GROUPS_H
/* The groups of a run (struct spw_ctl_group): what a `spillway run` within it has narrowed, for all that it starts. */
#include <jansson.h>
#include <sys/types.h>

#include "cmd/swaps.h"

struct spw_groups {
	uint32_t last; /* id given out */
	struct {
		pid_t pid; /* who asked for it, and goes on as its first program */
		uint64_t start_time;
	} owner[SPW_CTL_GROUPS];
};

/*
 * The group for a run of process `pid` in group `parent` that is to use only the tiers named, by name or kind, if any are.
 * Where it narrows nothing it is `parent`. 0, or SPW_EXIT_FAILED with the one line said.
 */
int spw__groups_add(struct spw_groups *g, const struct spw_swaps *s, uint32_t parent, const json_t *names, pid_t pid,
		    uint32_t *id);

#endif
