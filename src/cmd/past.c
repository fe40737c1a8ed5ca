/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was done on a tier belongs to the run, not to the place that the tier had in the table: that is another's soon.
 * A script that gives and takes swap all day must not make the supervisor grow, for it counts under the cap. So the
 * latest are kept, and those before them are one sum.
 */
#include "cmd/past.h"

#include <stdlib.h>
#include <string.h>

static void sum_up(struct spw_pasts *p, const struct spw_past *one)
{
	p->sum.reads += one->reads;
	p->sum.writes += one->writes;
	p->sum.errors += one->errors;
}

void spw__past_add(struct spw_pasts *p, const char *name, const struct spw_past *one)
{
	struct spw_past *at = &p->at[p->left % SPW_PAST];

	if (p->left >= SPW_PAST)
		sum_up(p, at);
	free(at->name);
	*at = *one;
	at->name = strdup(name);
	p->left++;
}

unsigned spw__past_summed(const struct spw_pasts *p)
{
	return p->left > SPW_PAST ? p->left - SPW_PAST : 0;
}

void spw__past_free(struct spw_pasts *p)
{
	for (unsigned i = 0; i < SPW_PAST; i++)
		free(p->at[i].name);
}
