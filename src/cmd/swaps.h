/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_SWAPS_H
#define SPW_CMD_SWAPS_H
/* The tiers outside of RAM: opened here, and entered into the table that the agents follow (host/control.h). */
#include "cmd/options.h"
#include "cmd/swapfile.h"
#include "host/control.h"
#include "tier/file.h"

/* Number i of the table, as only this process knows it. */
struct spw_swap_place {
	char name[PATH_MAX];            /* "" when the place is free; unique */
	struct spw_swapfile file;       /* fd -1 of a ghost */
	struct spw_file_shared *shared; /* NULL of a ghost */
	int shared_fd;
	size_t shared_bytes;
};

struct spw_swaps {
	struct spw_ctl *ctl;
	struct spw_swap_place at[SPW_CTL_TIERS];
	int8_t zswap_priority; /* for the order in which tiers are named; all pages go through the pool */
	uint32_t generation;   /* last given out */
};

void spw__swaps_init(struct spw_swaps *s, struct spw_ctl *ctl);

/* Open what `swap` names (a file or a ghost) and let the agents use it. 0, or SPW_EXIT_FAILED with the line said. */
int spw__swaps_add(struct spw_swaps *s, const struct spw_swap *swap, bool quiet);

/* Give back what the process of record `proc` held. */
void spw__swaps_reap(struct spw_swaps *s, unsigned proc);

/* The descriptors that the table names, to `fd`; returns how many: at most 2 * SPW_CTL_TIERS. */
unsigned spw__swaps_descriptors(const struct spw_swaps *s, int *fd);

void spw__swaps_close(struct spw_swaps *s);

#endif
