/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_STATS_H
#define SPW_CMD_STATS_H
/* --stats: what was measured over a run, as one JSON object. */
#include <jansson.h>
#include <stdio.h>

#include "cmd/tree.h"

/* What the tree takes now, and its tiers; the caller's to decref. */
json_t *spw__stats_live(const struct spw_tree *t);

void spw__stats_write(FILE *to, const struct spw_tree *t, double wall_seconds);

#endif
