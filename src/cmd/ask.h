/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_ASK_H
#define SPW_CMD_ASK_H
/* The subcommands that ask a running `spillway run` for something. argv begins behind the subcommand's name. */

int spw__list(char **argv);
int spw__set(char **argv);
int spw__swapon(char **argv);
int spw__swapoff(char **argv);

#endif
