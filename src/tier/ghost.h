/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_TIER_GHOST_H
#define SPW_TIER_GHOST_H
/*
 * A ghost swapfile: one that is only its header. It says how many pages of swap there are, and holds none of them.
 *
 * Every function of the tier that would reach data returns -ENOMEDIUM and counts an error; the space never calls one.
 * Any thread.
 */
#include "tier/tier.h"

/* pages: what the header names. 0, -ENOMEM, -EINVAL (number). destroy() gives it back. */
int spw__ghost_create(unsigned number, const char *name, uint64_t pages, struct spw_tier **out);
#endif
