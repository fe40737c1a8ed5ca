/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Counts: how many page tables hold an entry.
 *
 * A count wide enough for every fork bomb would cost each entry bytes that one in a million needs; a chain of
 * continuations would make dup walk. So up to 14 holders are counted in the word itself. Above that the word says 15
 * and the count is in the cluster's overflow page, one 64-bit count an entry, which is resident only while an entry
 * of the cluster needs it. An entry comes back into its word at 7, not at 14, so that a count that goes up and down
 * around 15 does not commit and discard a page each time.
 */
#include "space/internal.h"

#define INLINE_AGAIN 7u

static uint64_t *overflow_page(struct spw__space *sp, uint32_t c)
{
	return &sp->overflow[(size_t)c * SPW_CLUSTER];
}

/* A locked entry begins to need the overflow page of its cluster. */
static int overflow_enter(struct spw__space *sp, spw_entry_t e)
{
	uint32_t c = spw__cluster_of(e);
	int rc = 0;

	spw__spin_lock(&sp->lock);
	if (!sp->table[c].overflows) {
		rc = spw__plat_commit(overflow_page(sp, c), SPW_PAGE);
		if (!rc)
			SPW__ADD(sp->overflow_pages, 1);
	}
	if (!rc)
		sp->table[c].overflows++;
	spw__spin_unlock(&sp->lock);
	return rc ? -ENOMEM : 0;
}

static void overflow_leave(struct spw__space *sp, spw_entry_t e)
{
	uint32_t c = spw__cluster_of(e);

	spw__spin_lock(&sp->lock);
	if (!--sp->table[c].overflows) {
		spw__plat_discard(overflow_page(sp, c), SPW_PAGE);
		SPW__SUB(sp->overflow_pages, 1);
	}
	spw__spin_unlock(&sp->lock);
}

int spw__hold(struct spw__space *sp, spw_entry_t e, uint64_t *w)
{
	if (spw__word_count(*w) == SPW__COUNT_TABLE) {
		sp->overflow[e.idx]++;
		return 0;
	}
	if (spw__word_count(*w) + 1 == SPW__COUNT_TABLE) {
		if (overflow_enter(sp, e))
			return -ENOMEM;
		sp->overflow[e.idx] = SPW__COUNT_TABLE;
	}
	*w += SPW__COUNT_ONE;
	return 0;
}

static int dup_one(struct spw__space *sp, spw_entry_t e)
{
	uint64_t w;
	int rc;

	if (!spw__lock(sp, e, &w))
		return -ENOENT;
	rc = spw__hold(sp, e, &w);
	spw__unlock(sp, e, w);
	return rc;
}

/* One holder fewer of a locked entry that has others. Returns its new word. */
static uint64_t drop_holder(struct spw__space *sp, spw_entry_t e, uint64_t w)
{
	if (spw__word_count(w) != SPW__COUNT_TABLE)
		return w - SPW__COUNT_ONE;
	if (--sp->overflow[e.idx] > INLINE_AGAIN)
		return w;
	overflow_leave(sp, e);
	return (w & ~SPW__COUNT_MASK) | INLINE_AGAIN * SPW__COUNT_ONE;
}

/* Returns 1 if the entry is FREE by this, for the caller to tell its cluster; else 0. */
static unsigned free_one(struct spw__space *sp, spw_entry_t e)
{
	uint64_t w, backing;

	if (!spw__lock(sp, e, &w))
		return 0;
	if (spw__word_count(w) > 1) {
		spw__unlock(sp, e, drop_holder(sp, e, w));
		return 0;
	}
	backing = spw__word_kind(w) == SPW_FRAME ? spw__frame_leave(sp, w) : w;
	spw__replace(sp, e, w, 0, backing);
	return 1;
}

int spw_dup(struct spw__space *sp, const spw_entry_t *e, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int rc = dup_one(sp, e[i]);

		if (rc) {
			spw_free(sp, e, i);
			return rc;
		}
	}
	return 0;
}

void spw_free(struct spw__space *sp, const spw_entry_t *e, unsigned n)
{
	unsigned freed = 0;

	for (unsigned i = 0; i < n; i++) {
		freed += free_one(sp, e[i]);
		if (i + 1 == n || spw__cluster_of(e[i + 1]) != spw__cluster_of(e[i])) {
			spw__cluster_dead(sp, spw__cluster_of(e[i]), freed);
			freed = 0;
		}
	}
}

void spw_free_range(struct spw__space *sp, spw_entry_t first, unsigned n)
{
	uint64_t end = (uint64_t)first.idx + n, ever = __atomic_load_n(&sp->ever, __ATOMIC_ACQUIRE);

	if (end > ever * SPW_CLUSTER)
		end = ever * SPW_CLUSTER;
	for (uint64_t i = first.idx; i < end;) {
		uint32_t c = (uint32_t)(i / SPW_CLUSTER);
		uint64_t stop = (uint64_t)(c + 1) * SPW_CLUSTER < end ? (uint64_t)(c + 1) * SPW_CLUSTER : end;
		unsigned freed = 0;

		if (!__atomic_load_n(&sp->table[c].live, __ATOMIC_ACQUIRE))
			i = stop;
		for (; i < stop; i++)
			if (spw__word_peek(&sp->desc[i]))
				freed += free_one(sp, (spw_entry_t){(uint32_t)i});
		spw__cluster_dead(sp, c, freed);
	}
}

uint32_t spw_count(struct spw__space *sp, spw_entry_t e)
{
	uint64_t w = spw__peek(sp, e);
	uint32_t n;

	if (spw__word_count(w) != SPW__COUNT_TABLE)
		return spw__word_count(w);
	if (!spw__lock(sp, e, &w))
		return 0;
	n = spw__word_count(w);
	if (n == SPW__COUNT_TABLE)
		n = (uint32_t)sp->overflow[e.idx];
	spw__unlock(sp, e, w);
	return n;
}
