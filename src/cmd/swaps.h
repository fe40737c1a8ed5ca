/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_SWAPS_H
#define SPW_CMD_SWAPS_H
/* The tiers outside of RAM: opened here, and entered into the table that the agents follow (host/control.h). */
#include "cmd/options.h"
#include "cmd/past.h"
#include "cmd/swapfile.h"
#include "host/control.h"
#include "tier/file.h"

#define SPW_SWAP_NAME (PATH_MAX + 16)

/* Number i of the table, as only this process knows it. */
struct spw_swap_place {
	char name[SPW_SWAP_NAME];       /* "" when the place is free; unique */
	struct spw_swapfile file;       /* fd -1 of a ghost */
	struct spw_file_shared *shared; /* NULL of a ghost */
	int shared_fd;
	size_t shared_bytes;
	/* health.c */
	bool told_unopened;  /* that a process cannot open it */
	uint32_t failed;     /* writes in a row that had failed at the last look */
	uint64_t failing_ns; /* when the row began */
	int died_of;         /* errno; 0 = it is not dead */
	uint64_t lost;       /* pages at the most that could not be read when it was dead */
};

struct spw_swaps {
	struct spw_ctl *ctl;
	struct spw_swap_place at[SPW_CTL_TIERS];
	int8_t zswap_priority; /* for the order in which tiers are named; all pages go through the pool */
	uint32_t generation;   /* last given out */
	struct spw_pasts past;
};

/* Empty, and without a table. */
void spw__swaps_init(struct spw_swaps *s);

/* Open what `swap` names (a file or a ghost) and let the agents use it. 0, or SPW_EXIT_FAILED with the line said. */
int spw__swaps_add(struct spw_swaps *s, const struct spw_swap *swap, bool quiet);

/* The same in two steps, for what another process opens: would it be added? Nothing is opened. */
int spw__swaps_offer(struct spw_swaps *s, const struct spw_swap *swap);
/* Add what is open, after an offer that was not refused. Takes the file over, in any case. */
int spw__swaps_take(struct spw_swaps *s, const struct spw_swap *swap, struct spw_swapfile *file);

/* A priority below all that there are, as far as there is one. */
int8_t spw__swaps_lowest(const struct spw_swaps *s);

/* What is on a place, over all processes that are there. */
struct spw_swap_use {
	uint64_t pages, stored;
	uint64_t lost;      /* pages of a dead one that cannot be read, as far as that is known */
	unsigned processes; /* that have it open */
	int error;          /* of one that could not empty it, 0 = none */
};

/* The place of that name, or NULL. */
struct spw_swap_place *spw__swaps_find(struct spw_swaps *s, const char *name);
/* Bytes: what is taken of it, and all. */
void spw__swaps_size(const struct spw_swaps *s, const struct spw_swap_place *p, uint64_t *used, uint64_t *capacity);
struct spw_swap_use spw__swaps_use(const struct spw_swaps *s, const struct spw_swap_place *p);
/*
 * Let the agents empty the place and close it, or (cancel) let them use it again. Once no process has it open, remove.
 */
void spw__swaps_drain(struct spw_swaps *s, struct spw_swap_place *p);
void spw__swaps_cancel(struct spw_swaps *s, struct spw_swap_place *p);
/* It has failed for good, with that errno: the same, but there is no way back, and what cannot be read stays. */
void spw__swaps_die(struct spw_swaps *s, struct spw_swap_place *p, int error);
void spw__swaps_remove(struct spw_swaps *s, struct spw_swap_place *p);

/* Give back what the process of record `proc` held. */
void spw__swaps_reap(struct spw_swaps *s, unsigned proc);

/* The descriptors that the table names, to `fd`; returns how many: at most 2 * SPW_CTL_TIERS. */
unsigned spw__swaps_descriptors(const struct spw_swaps *s, int *fd);

void spw__swaps_close(struct spw_swaps *s);

#endif
