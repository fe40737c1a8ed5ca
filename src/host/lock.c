/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock and a way to wait that are neither libc's nor the program's.
 *
 * A pthread mutex may be interposed by the program, and what it keeps of its owner is read at %fs, where the agent's
 * threads have nothing. All that is needed is a word and futex(2).
 */
#include "host/lock.h"
#include "platform/platform.h"
#include "platform/sys.h"

#include <errno.h>
#include <linux/futex.h>

#define SPINS    200
#define STUCK_NS 3000000 /* longer than a lock is ever held by a thread that runs */

void spw__lock(struct spw__lock *l)
{
	for (unsigned i = 0; i < SPINS; i++) {
		if (spw__trylock(l))
			return;
		__builtin_ia32_pause();
	}
	while (__atomic_exchange_n(&l->word, 2, __ATOMIC_ACQUIRE) != 0) {
		struct {
			int64_t sec, nsec;
		} ts = {0, STUCK_NS};

		if (spw__sys4(SYS_futex, &l->word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 2, &ts) == -ETIMEDOUT &&
		    spw__plat_stuck)
			spw__plat_stuck();
	}
}

int spw__trylock(struct spw__lock *l)
{
	uint32_t free = 0;

	return __atomic_compare_exchange_n(&l->word, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

void spw__unlock(struct spw__lock *l)
{
	if (__atomic_exchange_n(&l->word, 0, __ATOMIC_RELEASE) == 2)
		spw__sys3(SYS_futex, &l->word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
}

void spw__wait(uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
	struct {
		int64_t sec, nsec;
	} ts = {(int64_t)(timeout_ns / 1000000000u), (int64_t)(timeout_ns % 1000000000u)};

	spw__sys4(SYS_futex, word, FUTEX_WAIT, seen, &ts);
}

void spw__wake_all(uint32_t *word)
{
	spw__sys3(SYS_futex, word, FUTEX_WAKE, 1 << 30);
}
