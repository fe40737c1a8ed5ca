/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_PLATFORM_SPIN_H
#define SPW_PLATFORM_SPIN_H
/* A spin lock. Zero is unlocked, so that platform memory needs no set-up. */
#include "platform/platform.h"

#include <stdbool.h>

struct spw__spin {
	uint8_t taken;
};

static inline void spw__spin_lock(struct spw__spin *l)
{
	unsigned spins = 0;

	while (__atomic_exchange_n(&l->taken, 1, __ATOMIC_ACQUIRE))
		while (__atomic_load_n(&l->taken, __ATOMIC_RELAXED))
			spw__plat_relax(spins++);
}

/* Take the lock if nobody has it. What is only ever tried may be held while sleeping. */
static inline bool spw__spin_try(struct spw__spin *l)
{
	return !__atomic_exchange_n(&l->taken, 1, __ATOMIC_ACQUIRE);
}

static inline void spw__spin_unlock(struct spw__spin *l)
{
	__atomic_store_n(&l->taken, 0, __ATOMIC_RELEASE);
}

#endif
