/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_POLICY_H
#define SPW_POLICY_H
/*
 * What a policy of reclaim is to the replayer: it is told of pages that come in, says which one goes when there is no
 * room, and, if it has `hit`, is told of accesses to pages that are there. In user space nobody can tell it that: a
 * policy with `hit` is a bound, one without is a candidate.
 */
#include "trace.h"

#include <stddef.h>

#define LISTS 4u

/* Pages in lists, each in one at most, newest first. */
struct deck {
	uint32_t *newer, *older; /* by page */
	uint8_t *in;             /* list + 1, 0: none; by page */
	uint32_t newest[LISTS], oldest[LISTS], n[LISTS];
};

/* What every policy has; its own state begins with it. */
struct model {
	const struct policy *policy;
	const struct spw_trace *trace;
	uint32_t cap;   /* pages */
	uint32_t now;   /* record of the trace */
	uint64_t taken; /* pages that went */
	uint64_t seed;
	struct deck deck;
	uint32_t *mark; /* for the policy, by page: 0 at first */
};

struct policy {
	const char *name;
	size_t size;                                                 /* of its state */
	bool (*begin)(struct model *m);                              /* NULL: nothing to do. False: no memory */
	void (*end)(struct model *m);                                /* NULL: nothing to do */
	void (*hit)(struct model *m, uint32_t page);                 /* NULL: does not want to know */
	uint32_t (*victim)(struct model *m, uint32_t page);          /* which goes, for the page to come in */
	void (*insert)(struct model *m, uint32_t page, bool before); /* before: it has been here */

	/* Of the queues of policy_faults.c. */
	unsigned part;   /* probation is 1 / part of what is there; 0: there is none */
	unsigned window; /* back within that many eighths of the cap is soon */
	unsigned levels; /* times that it came back soon that count */
	bool any;        /* of main any page goes, not the oldest */
};

/* Ended by one without a name. */
extern const struct policy spw__hit_policies[];   /* the bounds, and what they are without their hits */
extern const struct policy spw__fault_policies[]; /* policy_faults.c */

/* Which of the policies; NULL: none of that name. */
const struct policy *spw__policy(const char *name);

/* Pages that came in, and those of them that had been there before. */
struct replayed {
	uint64_t misses, refaults;
};
/* False: no memory. cap > 0. */
bool spw__replay(const struct policy *p, const struct spw_trace *t, uint32_t cap, struct replayed *out);

void spw__deck_push(struct deck *d, unsigned list, uint32_t page);
void spw__deck_remove(struct deck *d, uint32_t page);
/* Takes the oldest of a list that is not empty. */
uint32_t spw__deck_pop(struct deck *d, unsigned list);
static inline bool spw__deck_has(const struct deck *d, unsigned list, uint32_t page)
{
	return d->in[page] == list + 1;
}
/* Below n; the same numbers in each run. */
uint32_t spw__pick(struct model *m, uint32_t n);
#endif
