/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_TIER_ZSWAP_H
#define SPW_TIER_ZSWAP_H
/* The RAM tier: objects in size-classed blocks of one reserved range. See zswap.c. */
#include "tier/tier.h"

/*
 * size_bytes: most memory that blocks may take; UINT64_MAX for no limit of its own (then reserve_bytes bounds it).
 * reserve_bytes: address space. 0, -ENOMEM, -EINVAL.
 */
int spw__zswap_create(unsigned number, const char *name, uint64_t size_bytes, uint64_t reserve_bytes,
		      struct spw_tier **out);
/* Change the limit of a live pool; never moves anything. */
void spw__zswap_set_size(struct spw_tier *t, uint64_t size_bytes);
#endif
