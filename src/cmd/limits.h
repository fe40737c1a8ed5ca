/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_LIMITS_H
#define SPW_CMD_LIMITS_H
/* How much memory there is to have: the smallest of the machine's and of every cgroup's above this process. */
#include <stdint.h>

#define SPW_RAM_PERCENT 80u           /* of it, when --ram is not given */
#define SPW_RAM_LEAST   (16ull << 20) /* below this a dynamic program and the agent have no room to work */

struct spw_limit {
	uint64_t bytes;
	char source[512]; /* "machine" or the file that said so */
};

/* 0 or -errno (no /proc/meminfo). */
int spw__limit(struct spw_limit *out);

#endif
