/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_NEST_H
#define SPW_CMD_NEST_H
/* `spillway run` within a run. */
#include <stdbool.h>

/* Whether this process is of one. */
bool spw__nested(void);
/* argv begins behind "run". The exit status, when it has not become PROGRAM. */
int spw__nest(char **argv);

#endif
