/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_RUN_H
#define SPW_CMD_RUN_H
/* The subcommands. argv begins behind the subcommand's name; the result is the exit status. */

int spw__run(char **argv);
int spw__doctor(char **argv);

#endif
