/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_HEALTH_H
#define SPW_CMD_HEALTH_H
/* Files that do not work as they should. See health.c. Of the supervisor's one thread. */
#include "cmd/swaps.h"

/*
 * Look at what the agents have met, and say what is new. A file that has died is to be emptied from then on, and is
 * removed when it is. Once a tick; cheap. Returns whether the table has changed.
 */
bool spw__health_look(struct spw_swaps *s);

/* A process that cannot open a tier. */
struct spw_unopened {
	const struct spw_ctl_proc *process;
	int error; /* errno */
};
#define SPW_UNOPENED 16u /* that are told of one by one */

/* Those that cannot open the tier of that place now, up to `room` of them; returns how many there are. */
unsigned spw__health_unopened(const struct spw_swaps *s, const struct spw_swap_place *p, struct spw_unopened *out,
			      unsigned room);

#endif
