/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_MKSWAP_H
#define SPW_CMD_MKSWAP_H

/* `spillway mkswap`; argv[0] is "mkswap". Returns the exit status. */
int spw__mkswap(int argc, char **argv);

#endif
