/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_PROGRAM_H
#define SPW_CMD_PROGRAM_H
/* PROGRAM: where it is, and whether an agent can be loaded into it. */
#include <limits.h>
#include <stdbool.h>

/* Find name as execvp(3) would. 0, -ENOENT, or -EACCES when what is there cannot be executed. */
int spw__program_find(const char *name, char path[PATH_MAX]);

/*
 * Can the file at path be capped? A script is followed to its interpreter. 0; 1 when it cannot, `why` then names
 * cause and fix; -errno when that could not be found out (-ENOENT: an interpreter is missing), `why` then names what.
 */
int spw__program_check(const char *path, char *why, unsigned size);

#define SPW_AGENT_NAME "libspillway-agent.so"

/* The agent library: next to the command, or in ../lib/spillway. 0, or -errno with `path` the last place asked. */
int spw__agent_find(char path[PATH_MAX]);

#endif
