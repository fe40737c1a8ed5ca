/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run within this one may use has to reach programs that it never sees: those that its program starts, by
 * whatever way, and whose agents begin with nothing but an environment. So the environment carries a number, in the
 * variable without which there is no agent at all, and what the number means is said here, once. It is never made more.
 *
 * Nobody tells when the last process of a group has ended: one that has not signed in yet is in no table. So a record
 * is not given back. It is taken anew when no other is left and nobody is known to need it; its id is then unknown, and
 * who comes with it may use nothing.
 */
#include "cmd/groups.h"

#include <stdio.h>
#include <string.h>

#include "cmd/limits.h"
#include "cmd/options.h"
#include "cmd/procfs.h"
#include "cmd/say.h"
#include "host/group.h"

#define ZSWAP 1u /* its bit */

static uint32_t bit_of(unsigned place)
{
	return 1u << (place + 1);
}

static bool on(const struct spw_swaps *s, unsigned place)
{
	return __atomic_load_n(&s->ctl->tier[place].state, __ATOMIC_RELAXED) == SPW_CTL_ON;
}

/* The tiers there are of those in `tiers`. */
static uint32_t present(const struct spw_swaps *s, uint32_t tiers)
{
	uint32_t there = s->ctl->zswap_bytes ? ZSWAP : 0;

	for (unsigned i = 0; i < SPW_CTL_TIERS; i++)
		there |= on(s, i) ? bit_of(i) : 0;
	return there & tiers;
}

/* The tier of that name, or else all of that kind. */
static uint32_t named(const struct spw_swaps *s, uint32_t tiers, const char *name)
{
	uint32_t of_kind = 0;

	for (unsigned i = 0; i < SPW_CTL_TIERS; i++) {
		bool ghost = s->ctl->tier[i].kind == SPW_CTL_GHOST;

		if (!(tiers & bit_of(i)))
			continue;
		if (!strcmp(name, s->at[i].name))
			return bit_of(i);
		if (!strcmp(name, ghost ? "ghost" : "file"))
			of_kind |= bit_of(i);
	}
	return strcmp(name, "zswap") ? of_kind : tiers & ZSWAP;
}

static uint32_t without_ghosts(const struct spw_swaps *s, uint32_t tiers)
{
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++)
		if (s->ctl->tier[i].kind == SPW_CTL_GHOST)
			tiers &= ~bit_of(i);
	return tiers;
}

/* "zswap, file, /scratch/more" */
static void list_names(const struct spw_swaps *s, uint32_t tiers, char *text, size_t room)
{
	size_t len = (size_t)snprintf(text, room, "%s", tiers & ZSWAP ? "zswap" : "");

	for (unsigned i = 0; i < SPW_CTL_TIERS && len < room; i++)
		if (tiers & bit_of(i))
			len += (size_t)snprintf(text + len, room - len, "%s%s", len ? ", " : "", s->at[i].name);
	if (!len)
		snprintf(text, room, "none");
}

/* The tiers that the names mean, of those in `tiers`. 0, or SPW_EXIT_FAILED with the one line said. */
static int choose(const struct spw_swaps *s, const json_t *names, uint32_t tiers, uint32_t *chosen)
{
	char there[512];
	const json_t *name;
	size_t i;

	list_names(s, tiers, there, sizeof(there));
	*chosen = 0;
	json_array_foreach(names, i, name)
	{
		const char *text = json_string_value(name);
		uint32_t found = text ? named(s, tiers, text) : 0;

		if (!found)
			return spw__fail("--swap %s: the run around this one has no such tier, or denies it here; "
					 "there are: %s",
					 text ? text : "", there);
		*chosen |= found;
	}
	/* A ghost holds nothing: pages counted on it are compressed in RAM. */
	if (!without_ghosts(s, *chosen))
		*chosen |= tiers & ZSWAP;
	if (!without_ghosts(s, *chosen))
		return spw__fail("--swap ghost: it holds nothing; name a tier that does as well, of: %s", there);
	return 0;
}

static bool needed(const struct spw_groups *g, const struct spw_ctl *c, unsigned i)
{
	uint32_t id = c->group[i].id;
	struct spw_stat st;

	if (!id)
		return false;
	if (!spw__proc_stat(g->owner[i].pid, &st) && st.start_time == g->owner[i].start_time)
		return true;
	for (const struct spw_ctl_group *other = c->group; other < c->group + SPW_CTL_GROUPS; other++)
		if (other->id && other->parent == id)
			return true;
	for (const struct spw_ctl_proc *r = c->proc; r < c->proc + SPW_CTL_PROCS; r++)
		if (__atomic_load_n(&r->pid, __ATOMIC_ACQUIRE) && __atomic_load_n(&r->group, __ATOMIC_RELAXED) == id)
			return true;
	return false;
}

/* A record that is free, or else the oldest that nobody needs. NULL: there is none. */
static struct spw_ctl_group *vacant(const struct spw_groups *g, struct spw_ctl *c)
{
	struct spw_ctl_group *oldest = NULL;

	for (unsigned i = 0; i < SPW_CTL_GROUPS; i++)
		if (!c->group[i].id)
			return &c->group[i];
	for (unsigned i = 0; i < SPW_CTL_GROUPS; i++)
		if ((!oldest || c->group[i].id < oldest->id) && !needed(g, c, i))
			oldest = &c->group[i];
	return oldest;
}

static uint64_t number(const json_t *request, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(request, key));

	return n > 0 ? (uint64_t)n : 0;
}

/* The cap that is asked for, 0: none. 0, or SPW_EXIT_FAILED with the one line said. */
static int choose_cap(const struct spw_ctl *c, uint32_t parent, const json_t *request, uint64_t *ram)
{
	uint64_t limit = __atomic_load_n(&c->ram_limit_bytes, __ATOMIC_RELAXED), own = spw__group_limit(c, parent);
	uint64_t percent = number(request, "percent");
	char a[32], b[32];

	limit = own < limit ? own : limit;
	*ram = percent ? spw__amount((struct spw_amount){SPW_AMOUNT_PERCENT, percent}, limit, 0)
		       : number(request, "ram");
	if (*ram > limit)
		return spw__fail("--ram: the run around this one has %s, and one within can only have less, not %s",
				 spw__size_text(limit, b), spw__size_text(*ram, a));
	if (*ram && *ram < SPW_RAM_LEAST)
		return spw__fail("a cap of %s is too small to work in; the least is --ram 16M",
				 spw__size_text(*ram, a));
	return 0;
}

int spw__groups_add(struct spw_groups *g, const struct spw_swaps *s, const json_t *request, pid_t pid, uint32_t *id)
{
	const json_t *names = json_object_get(request, "swap");
	uint32_t parent = (uint32_t)number(request, "group"), outer = spw__group_tiers(s->ctl, parent), tiers = outer;
	struct spw_ctl *c = s->ctl;
	struct spw_stat st;
	uint64_t ram;

	if (parent && !spw__group(c, parent))
		return spw__fail("the run within a run that this one was started in is not known any more");
	int failed = choose_cap(c, parent, request, &ram);
	if (!failed && json_array_size(names))
		failed = choose(s, names, present(s, outer), &tiers);
	*id = parent;
	if (failed || (tiers == outer && !ram))
		return failed;
	if (spw__proc_stat(pid, &st))
		return spw__fail("process %d: gone", pid);
	struct spw_ctl_group *r = vacant(g, c);
	if (!r)
		return spw__fail("%u runs are under way within one, which is as many as there can be", SPW_CTL_GROUPS);
	__atomic_store_n(&r->id, 0, __ATOMIC_RELEASE);
	r->parent = parent;
	r->ram_limit_bytes = ram;
	__atomic_store_n(&r->tiers, tiers, __ATOMIC_RELAXED);
	g->owner[r - c->group].pid = pid;
	g->owner[r - c->group].start_time = st.start_time;
	__atomic_store_n(&r->id, ++g->last, __ATOMIC_RELEASE);
	*id = r->id;
	return 0;
}
