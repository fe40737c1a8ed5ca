/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_HOST_LOCK_H
#define SPW_HOST_LOCK_H
/* Locks and waiting that owe nothing to libc. Any thread; not async-signal-safe, but for spw__wake_all(). */
#include <stdint.h>

/* A futex lock: spins briefly, then sleeps. Not recursive. Zeroed = unlocked. */
struct spw__lock {
	uint32_t word; /* 0 free, 1 held, 2 held and waited for */
};
void spw__lock(struct spw__lock *l);
int spw__trylock(struct spw__lock *l);
void spw__unlock(struct spw__lock *l);

/* Sleep until *word != seen, a wake-up, or the time. Spurious returns are allowed. */
void spw__wait(uint32_t *word, uint32_t seen, uint64_t timeout_ns);
void spw__wake_all(uint32_t *word);
#endif
