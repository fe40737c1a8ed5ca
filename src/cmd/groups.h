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
 * The group for a run of process `pid` that was started in "group" and is to use only the tiers in "swap", by name or
 * kind, if any are named, and no more memory than "ram", or "percent" of what there is; 0 is as much as there is. Where
 * it narrows nothing it is the one it was started in. 0, or SPW_EXIT_FAILED with the one line said.
 */
int spw__groups_add(struct spw_groups *g, const struct spw_swaps *s, const json_t *request, pid_t pid, uint32_t *id);

#endif
