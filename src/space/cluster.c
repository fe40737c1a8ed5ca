/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Clusters: which descriptors exist.
 *
 * A table sized by what might be swapped would be resident for what never is, and a tree would put a walk in front
 * of every fault. So descriptors lie in one flat sparse reservation, and 512 of them, one page, come and go together.
 * What says which are free is itself sparse: a 16-byte record per cluster number ever used, lists threaded through the
 * records, and the table goes back when the last cluster does.
 *
 * live never understates: it grows before an entry's word is seen to be live and shrinks after it is FREE. At 0 nobody
 * can have an entry of the cluster locked, because only live words are locked, and its page can go.
 */
#include "space/internal.h"

#define IN_TABLE_PAGE (SPW_PAGE / sizeof(struct spw__cluster))

static uint64_t *descriptors(struct spw__space *sp, uint32_t c)
{
	return &sp->desc[(size_t)c * SPW_CLUSTER];
}

static void push(struct spw__space *sp, uint32_t *head, uint32_t c)
{
	struct spw__cluster *r = &sp->table[c];

	r->next = *head;
	r->prev = 0;
	if (*head)
		sp->table[*head - 1].prev = c + 1;
	*head = c + 1;
}

static void unlink_from(struct spw__space *sp, uint32_t *head, uint32_t c)
{
	struct spw__cluster *r = &sp->table[c];

	if (r->next)
		sp->table[r->next - 1].prev = r->prev;
	if (r->prev)
		sp->table[r->prev - 1].next = r->next;
	else
		*head = r->next;
}

static void set_partial(struct spw__space *sp, uint32_t c, bool partial)
{
	if (sp->table[c].partial == partial)
		return;
	sp->table[c].partial = partial;
	if (partial)
		push(sp, &sp->partial, c);
	else
		unlink_from(sp, &sp->partial, c);
}

/* A cluster number with a committed page of FREE descriptors. Under the cluster lock. */
static int acquire(struct spw__space *sp, uint8_t state, uint32_t *out)
{
	uint32_t c = sp->free_clusters ? sp->free_clusters - 1 : sp->ever;

	if (c >= sp->max_clusters)
		return -ENOMEM;
	if (c == sp->ever && c % IN_TABLE_PAGE == 0 && spw__plat_commit(&sp->table[c], SPW_PAGE))
		return -ENOMEM;
	if (spw__plat_commit(descriptors(sp, c), SPW_PAGE))
		return -ENOMEM;
	if (c == sp->ever)
		__atomic_store_n(&sp->ever, c + 1, __ATOMIC_RELEASE);
	else
		unlink_from(sp, &sp->free_clusters, c);
	sp->table[c].cursor = 0;
	__atomic_store_n(&sp->table[c].denied, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&sp->table[c].state, state, __ATOMIC_RELEASE);
	SPW__ADD(sp->present, 1);
	*out = c;
	return 0;
}

/* The way back. All entries are FREE; the number is nobody's until the page is gone. Takes the lock away. */
static void release_and_unlock(struct spw__space *sp, uint32_t c)
{
	uint8_t state = sp->table[c].state;

	__atomic_store_n(&sp->table[c].state, SPW__CLUSTER_NONE, __ATOMIC_RELEASE);
	spw__spin_unlock(&sp->lock);
	if (state != SPW__CLUSTER_TAKEN)
		SPW__SUB(sp->touched, 1);
	spw__plat_discard(descriptors(sp, c), SPW_PAGE);
	spw__spin_lock(&sp->lock);
	push(sp, &sp->free_clusters, c);
	if (SPW__SUB(sp->present, 1) == 1) {
		size_t bytes = (sp->ever * sizeof(struct spw__cluster) + SPW__PAGE_MASK) & ~SPW__PAGE_MASK;

		sp->free_clusters = 0;
		__atomic_store_n(&sp->ever, 0, __ATOMIC_RELEASE);
		spw__plat_discard(sp->table, bytes);
	}
	spw__spin_unlock(&sp->lock);
}

void spw__cluster_touched(struct spw__space *sp, uint32_t c)
{
	spw__spin_lock(&sp->lock);
	if (sp->table[c].state == SPW__CLUSTER_NONE)
		spw__plat_discard(descriptors(sp, c), SPW_PAGE);
	spw__spin_unlock(&sp->lock);
}

int spw_cluster_take(struct spw__space *sp, uint32_t *cluster)
{
	int rc;

	spw__spin_lock(&sp->lock);
	rc = acquire(sp, SPW__CLUSTER_TAKEN, cluster);
	spw__spin_unlock(&sp->lock);
	return rc;
}

int spw_cluster_give(struct spw__space *sp, uint32_t cluster)
{
	if (__atomic_load_n(&sp->table[cluster].live, __ATOMIC_ACQUIRE))
		return -EBUSY;
	spw__spin_lock(&sp->lock);
	release_and_unlock(sp, cluster);
	return 0;
}

static bool taken(const struct spw__space *sp, uint32_t c)
{
	return __atomic_load_n(&sp->table[c].state, __ATOMIC_RELAXED) >= SPW__CLUSTER_TAKEN;
}

#define ALL_TIERS ((1u << SPW_MAX_TIERS) - 1)

/* A tier once denied is never allowed again, so two that narrow at the same time both get their way. */
int spw_allow(struct spw__space *sp, uint32_t tiers)
{
	if (tiers & ~ALL_TIERS)
		return -EINVAL;
	if (tiers & SPW__LOAD(sp->denied))
		return -EPERM;
	__atomic_fetch_or(&sp->denied, ALL_TIERS & ~tiers, __ATOMIC_SEQ_CST);
	return 0;
}

int spw_cluster_allow(struct spw__space *sp, uint32_t cluster, uint32_t tiers)
{
	uint16_t *denied = &sp->table[cluster].denied;

	if (tiers & ~ALL_TIERS || !taken(sp, cluster))
		return -EINVAL;
	if (tiers & (SPW__LOAD(sp->denied) | SPW__LOAD(*denied)))
		return -EPERM;
	__atomic_fetch_or(denied, (uint16_t)(ALL_TIERS & ~tiers), __ATOMIC_SEQ_CST);
	return 0;
}

bool spw__lock_owned(struct spw__space *sp, spw_entry_t e, uint64_t *w)
{
	return spw__entry_valid(sp, e) && spw__word_lock(&sp->desc[e.idx], taken(sp, spw__cluster_of(e)), w);
}

void spw__cluster_live(struct spw__space *sp, uint32_t c)
{
	struct spw__cluster *r = &sp->table[c];

	SPW__ADD(r->live, 1);
	if (SPW__LOAD(r->state) == SPW__CLUSTER_TAKEN &&
	    __atomic_exchange_n(&r->state, SPW__CLUSTER_TOUCHED, __ATOMIC_RELAXED) == SPW__CLUSTER_TAKEN)
		SPW__ADD(sp->touched, 1);
}

void spw__cluster_dead(struct spw__space *sp, uint32_t c, unsigned n)
{
	struct spw__cluster *r = &sp->table[c];

	if (!n)
		return;
	if (taken(sp, c)) {
		__atomic_fetch_sub(&r->live, n, __ATOMIC_RELEASE);
		return;
	}
	spw__spin_lock(&sp->lock);
	if (SPW__SUB(r->live, n) == n) {
		set_partial(sp, c, false);
		release_and_unlock(sp, c);
		return;
	}
	set_partial(sp, c, r->live < SPW_CLUSTER);
	spw__spin_unlock(&sp->lock);
}

/* Up to n entries of SHARED cluster c, in order from its cursor. Under the cluster lock. */
static unsigned alloc_from(struct spw__space *sp, uint32_t c, spw_entry_t *e, unsigned n)
{
	uint64_t word = spw__word(SPW_SAME, 0) | SPW__COUNT_ONE;
	struct spw__cluster *r = &sp->table[c];
	uint64_t *d = descriptors(sp, c);
	unsigned got = 0;

	for (unsigned i = 0; i < SPW_CLUSTER && got < n; i++) {
		unsigned at = (r->cursor + i) % SPW_CLUSTER;

		if (spw__word_peek(&d[at]))
			continue;
		e[got++].idx = c * SPW_CLUSTER + at;
		SPW__ADD(r->live, 1);
		__atomic_store_n(&d[at], word, __ATOMIC_RELEASE);
	}
	if (got) {
		r->cursor = (uint16_t)((e[got - 1].idx + 1) % SPW_CLUSTER);
		SPW__ADD(spw__shard(sp, e[0])->kinds[SPW_SAME], got);
	}
	/* Entries on their way out may still be counted; the last of them puts the cluster back on the list. */
	set_partial(sp, c, SPW__LOAD(r->live) < SPW_CLUSTER);
	return got;
}

int spw_alloc(struct spw__space *sp, spw_entry_t *e, unsigned n)
{
	unsigned got = 0;
	int rc = 0;

	spw__spin_lock(&sp->lock);
	while (got < n) {
		uint32_t c = sp->partial - 1;

		if (!sp->partial) {
			rc = acquire(sp, SPW__CLUSTER_SHARED, &c);
			if (rc)
				break;
			SPW__ADD(sp->touched, 1);
		}
		got += alloc_from(sp, c, e + got, n - got);
	}
	spw__spin_unlock(&sp->lock);
	if (rc)
		spw_free(sp, e, got);
	return rc;
}
