/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_STATS_H
#define SPW_CMD_STATS_H
/* --stats: what was measured over a run, as one JSON object. */
#include <stdio.h>

#include "cmd/tree.h"

void spw__stats_write(FILE *to, const struct spw_tree *t, double wall_seconds);

#endif
