/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is wrong with a file only the agents meet, each by itself; and they have nobody to tell it to, for the program's
 * output is not theirs. They leave it in the control region, and it is said here: once on standard error, and by `list`
 * for as long as it is so.
 */
#include "cmd/health.h"

#include <string.h>

#include "cmd/say.h"

unsigned spw__health_unopened(const struct spw_swaps *s, const struct spw_swap_place *p, struct spw_unopened *out,
			      unsigned room)
{
	unsigned i = (unsigned)(p - s->at), n = 0;

	for (const struct spw_ctl_proc *r = s->ctl->proc; r < s->ctl->proc + SPW_CTL_PROCS; r++) {
		uint64_t met = __atomic_load_n(&r->part[i].unopened, __ATOMIC_RELAXED);

		if (__atomic_load_n(&r->pid, __ATOMIC_RELAXED) <= 0 || met >> 32 != s->ctl->tier[i].generation)
			continue;
		if (n < room)
			out[n] = (struct spw_unopened){.process = r, .error = (int)(uint32_t)met};
		n++;
	}
	return n;
}

/* Once a tier: a tree of many processes would say it many times. */
static void tell_unopened(const struct spw_swaps *s, struct spw_swap_place *p)
{
	struct spw_unopened u;

	if (p->told_unopened || !spw__health_unopened(s, p, &u, 1))
		return;
	p->told_unopened = true;
	spw__say("%s: %.16s (pid %d) cannot open it: %s; it does without, and tries again", p->name, u.process->comm,
		 u.process->pid, strerror(u.error));
}

void spw__health_look(struct spw_swaps *s)
{
	for (struct spw_swap_place *p = s->at; p < s->at + SPW_CTL_TIERS; p++)
		if (p->name[0])
			tell_unopened(s, p);
}
