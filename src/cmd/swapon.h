/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_SWAPON_H
#define SPW_CMD_SWAPON_H
/* argv begins behind "swapon". */
int spw__swapon(char **argv);
#endif
