/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_HELP_H
#define SPW_CMD_HELP_H
#include <stdbool.h>

/* Whether the arguments of a subcommand, which end with NULL, begin with a call for its help. */
bool spw__help_wanted(char **argv);

/* Help texts, on stdout; return the exit status. */
int spw__help(void);
int spw__help_run(void);
int spw__help_mkswap(void);
int spw__help_doctor(void);
int spw__help_swapon(void);

#endif
