/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is wrong with a file only the agents meet, each by itself; and they have nobody to tell it to, for the program's
 * output is not theirs. They leave it in the control region, and it is said here: once on standard error, and by `list`
 * for as long as it is so.
 *
 * A file whose writes fail is passed over, and tried again less and less often. When is it dead? One error says
 * nothing, for disks come back; nor do errors in reading, for they are of one place, and what is lost there is lost
 * either way. So it is when every write of every process has failed for a time in which a disk that comes back has come
 * back, and often enough; a write refused for want of room is none that failed. A device that says that it is gone is
 * taken at its word.
 */
#include "cmd/health.h"

#include <errno.h>
#include <string.h>

#include "cmd/say.h"
#include "platform/platform.h"

#define DEAD_NS     10000000000ull /* that writes have failed for */
#define DEAD_WRITES 6u             /* and how many at least */

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

static bool gone(int error)
{
	return error == ENODEV || error == ENXIO || error == EROFS || error == ENOTCONN || error == ESTALE;
}

/* Whether it has died, by what its writes came to. *error is what of. */
static bool dies(struct spw_swap_place *p, const struct spw_ctl_tier *t, uint64_t now, int *error)
{
	uint32_t failed = __atomic_load_n(&t->failed, __ATOMIC_ACQUIRE), known = p->failed;

	p->failed = failed;
	if (!known || failed < known)
		p->failing_ns = now;
	/* The row is as long as it was when the last of it failed. */
	if (failed <= known)
		return false;
	*error = -__atomic_load_n(&t->failure, __ATOMIC_RELAXED);
	return gone(*error) || (failed >= DEAD_WRITES && now - p->failing_ns >= DEAD_NS);
}

/* It is dead: is it empty? */
static bool follow_dead(struct spw_swaps *s, struct spw_swap_place *p)
{
	struct spw_swap_use use = spw__swaps_use(s, p);

	p->lost = use.lost > p->lost ? use.lost : p->lost;
	if (!use.processes)
		spw__swaps_remove(s, p);
	return !use.processes;
}

bool spw__health_look(struct spw_swaps *s)
{
	uint64_t now = spw__plat_now_ns();
	bool changed = false;
	int error;

	for (struct spw_swap_place *p = s->at; p < s->at + SPW_CTL_TIERS; p++) {
		const struct spw_ctl_tier *t = &s->ctl->tier[p - s->at];

		if (!p->name[0])
			continue;
		tell_unopened(s, p);
		if (p->died_of) {
			changed |= follow_dead(s, p);
		} else if (__atomic_load_n(&t->state, __ATOMIC_RELAXED) == SPW_CTL_ON && dies(p, t, now, &error)) {
			spw__say(
				"%s: dead (%s): nothing more is written to it, and what can be read is moved elsewhere",
				p->name, strerror(error));
			spw__swaps_die(s, p, error);
			changed = true;
		}
	}
	return changed;
}
