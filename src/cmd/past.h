/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_PAST_H
#define SPW_CMD_PAST_H
/* The tiers that have left, for the statistics. See past.c. Of the supervisor's one thread. */
#include <stdint.h>

#include "host/control.h"

#define SPW_PAST 16u /* that are told of one by one */

/* As it was when it left. */
struct spw_past {
	char *name;
	enum spw_ctl_kind kind;
	int priority;
	uint64_t capacity_bytes, reads, writes, errors;
	int died_of;   /* errno; 0 = it was taken away */
	uint64_t lost; /* pages that could not be read then */
};

struct spw_pasts {
	struct spw_past at[SPW_PAST]; /* the latest; number i at i % SPW_PAST */
	unsigned left;                /* ever */
	struct spw_past sum;          /* reads, writes and errors of those before them */
};

/* Keep it. The name is copied, and NULL without memory for that. */
void spw__past_add(struct spw_pasts *p, const char *name, const struct spw_past *one);
/* How many went into the sum. */
unsigned spw__past_summed(const struct spw_pasts *p);
void spw__past_free(struct spw_pasts *p);

#endif
