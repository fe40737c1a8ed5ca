/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an address to a swap entry.
 *
 * The obvious table, one entry index a page, costs 4 bytes a page that is out, half as much as the descriptor itself.
 * But neighbouring pages go out and come in together, so a leaf (2 MiB of addresses) takes a whole cluster and page i
 * of the leaf is entry i of the cluster: one word serves 512 pages. Only mremap(2) breaks the pattern, by moving pages
 * to another place in their leaf; their entries must not change, so such a leaf becomes explicit: a table of 512
 * entry indexes, until its last page has come in.
 *
 * Where pages may share an entry (--dedup), every leaf is explicit from the beginning. An identity leaf takes an entry
 * that is alive for a page that is out, and that is not so of one that was shared and is now only the others'. To turn
 * such leaves explicit when it comes to sharing would take a way back from an entry to its page, which is as large.
 *
 * A slot of an explicit leaf is SPW_ENTRY_NONE unless its page is out.
 *
 * Leaf word: 0 = no page out. Bits 63-48 pages out in the leaf, bit 0 set: explicit, bits 47-1 table number; bit 0
 * clear: identity, bits 47-1 cluster number. The words lie in one flat sparse reservation over the 47 bits of user
 * addresses, so a lookup is two loads and no search. The ages of runs lie likewise.
 */
#include "host/process/pagetable.h"
#include "platform/platform.h"

#include <errno.h>
#include <string.h>

#define USER_BITS   47
#define LEAVES      (1ull << (USER_BITS - 21))
#define RUNS        (1ull << (USER_BITS - 16))
#define MAX_TABLES  (1u << 21) /* 4 TiB, like the clusters of the space */
#define MAX_ORPHANS (1u << 20)
#define EXPLICIT    1ull

static inline uint64_t leaf_number(uint64_t word)
{
	return (word & 0xffffffffffffull) >> 1;
}

static inline unsigned leaf_out(uint64_t word)
{
	return (unsigned)(word >> 48);
}

static inline unsigned page_of(uint64_t va)
{
	return (unsigned)(va / SPW_PAGE) % SPW_CLUSTER;
}

int spw__pt_init(struct spw__pt *pt, struct spw__space *sp, bool sharing)
{
	*pt = (struct spw__pt){.space = sp, .sharing = sharing};
	pt->leaf = spw__plat_reserve(LEAVES * sizeof(*pt->leaf));
	pt->age = spw__plat_reserve(RUNS);
	pt->table = spw__plat_reserve((size_t)MAX_TABLES * SPW_CLUSTER * sizeof(*pt->table));
	pt->orphan = spw__plat_reserve((size_t)MAX_ORPHANS * sizeof(*pt->orphan));
	return pt->leaf && pt->age && pt->table && pt->orphan ? 0 : -ENOMEM;
}

static uint32_t *table_of(const struct spw__pt *pt, uint64_t word)
{
	return pt->table + leaf_number(word) * SPW_CLUSTER;
}

spw_entry_t spw__pt_lookup(const struct spw__pt *pt, uint64_t va)
{
	uint64_t word = va >> USER_BITS ? 0 : pt->leaf[va / SPW_LEAF_BYTES];

	if (!word)
		return (spw_entry_t){SPW_ENTRY_NONE};
	if (word & EXPLICIT)
		return (spw_entry_t){table_of(pt, word)[page_of(va)]};
	return (spw_entry_t){(uint32_t)leaf_number(word) * SPW_CLUSTER + page_of(va)};
}

static void orphan_add(struct spw__pt *pt, uint32_t cluster)
{
	if (spw_cluster_give(pt->space, cluster) == -EBUSY && pt->orphans < MAX_ORPHANS)
		pt->orphan[pt->orphans++] = cluster;
}

void spw__pt_trim(struct spw__pt *pt)
{
	for (uint32_t i = pt->orphans; i-- > 0;) {
		if (spw_cluster_give(pt->space, pt->orphan[i]) != -EBUSY)
			pt->orphan[i] = pt->orphan[--pt->orphans];
	}
}

static int table_take(struct spw__pt *pt, uint32_t *number)
{
	if (pt->free_table) {
		*number = pt->free_table - 1;
		pt->free_table = pt->table[(size_t)*number * SPW_CLUSTER];
	} else if (pt->tables < MAX_TABLES) {
		*number = pt->tables++;
	} else {
		return -ENOMEM;
	}
	memset(pt->table + (size_t)*number * SPW_CLUSTER, 0xff, SPW_CLUSTER * sizeof(*pt->table));
	return 0;
}

static void leaf_drop(struct spw__pt *pt, uint64_t *leaf)
{
	uint64_t word = *leaf;

	*leaf = 0;
	if (word & EXPLICIT) {
		*table_of(pt, word) = pt->free_table;
		pt->free_table = (uint32_t)leaf_number(word) + 1;
	} else {
		orphan_add(pt, (uint32_t)leaf_number(word));
	}
}

static int leaf_make(struct spw__pt *pt, uint64_t *leaf)
{
	uint32_t number;
	int ret = pt->sharing ? table_take(pt, &number) : spw_cluster_take(pt->space, &number);

	if (!ret)
		*leaf = (uint64_t)number << 1 | (pt->sharing ? EXPLICIT : 0);
	return ret;
}

int spw__pt_reserve(struct spw__pt *pt, uint64_t va)
{
	uint64_t *leaf = &pt->leaf[va / SPW_LEAF_BYTES];

	/* Cluster 0, nothing out yet, would look like no leaf: never use it. */
	while (!*leaf) {
		int ret = leaf_make(pt, leaf);

		if (ret)
			return ret;
	}
	return 0;
}

int spw__pt_entry(struct spw__pt *pt, uint64_t va, spw_entry_t *e)
{
	int ret = spw__pt_reserve(pt, va);

	if (ret)
		return ret;
	*e = spw__pt_lookup(pt, va);
	if (e->idx != SPW_ENTRY_NONE)
		return 0;
	ret = spw_alloc(pt->space, e, 1);
	if (!ret)
		table_of(pt, pt->leaf[va / SPW_LEAF_BYTES])[page_of(va)] = e->idx;
	return ret;
}

void spw__pt_share(struct spw__pt *pt, uint64_t va, spw_entry_t e)
{
	uint64_t word = pt->leaf[va / SPW_LEAF_BYTES];

	/* Of an entry that an identity leaf has as well, the last of its holders would not be told from others. */
	if (!(word & EXPLICIT))
		__builtin_trap();
	table_of(pt, word)[page_of(va)] = e.idx;
}

void spw__pt_settle(struct spw__pt *pt, uint64_t va)
{
	uint64_t *leaf = &pt->leaf[va / SPW_LEAF_BYTES];

	if (*leaf && !leaf_out(*leaf))
		leaf_drop(pt, leaf);
}

void spw__pt_went_out(struct spw__pt *pt, uint64_t va, unsigned n)
{
	pt->leaf[va / SPW_LEAF_BYTES] += (uint64_t)n << 48;
	pt->out += n;
}

void spw__pt_came_in(struct spw__pt *pt, uint64_t va, unsigned n)
{
	uint64_t *leaf = &pt->leaf[va / SPW_LEAF_BYTES];

	/* A page counted in twice would let go of a leaf while others are out: better to die. */
	if (leaf_out(*leaf) < n)
		__builtin_trap();
	*leaf -= (uint64_t)n << 48;
	pt->out -= n;
	/* The entry may be alive, if others share it, or soon be another page's. */
	if (*leaf & EXPLICIT)
		memset(&table_of(pt, *leaf)[page_of(va)], 0xff, n * sizeof(*pt->table));
	spw__pt_settle(pt, va);
}

uint64_t spw__pt_next_out(const struct spw__pt *pt, uint64_t va, uint64_t end)
{
	while (va < end) {
		if (!pt->leaf[va / SPW_LEAF_BYTES]) {
			va = (va / SPW_LEAF_BYTES + 1) * SPW_LEAF_BYTES;
			continue;
		}
		spw_entry_t e = spw__pt_lookup(pt, va);

		if (e.idx != SPW_ENTRY_NONE && spw_kind(pt->space, e) != SPW_FREE)
			return va;
		va += SPW_PAGE;
	}
	return end;
}

uint64_t spw__pt_free_range(struct spw__pt *pt, uint64_t start, uint64_t end)
{
	uint64_t freed = 0;

	for (uint64_t va = start; (va = spw__pt_next_out(pt, va, end)) < end; va += SPW_PAGE) {
		spw_entry_t e = spw__pt_lookup(pt, va);

		spw_free(pt->space, &e, 1);
		spw__pt_came_in(pt, va, 1);
		freed++;
	}
	return freed;
}

static int make_explicit(struct spw__pt *pt, uint64_t va)
{
	uint64_t *leaf = &pt->leaf[va / SPW_LEAF_BYTES], word = *leaf;

	if (word & EXPLICIT)
		return 0;
	uint32_t number;
	int ret = table_take(pt, &number);

	if (ret)
		return ret;
	if (word) {
		uint32_t first = (uint32_t)leaf_number(word) * SPW_CLUSTER;

		for (unsigned i = 0; i < SPW_CLUSTER; i++) {
			if (spw_kind(pt->space, (spw_entry_t){first + i}) != SPW_FREE)
				pt->table[(size_t)number * SPW_CLUSTER + i] = first + i;
		}
		orphan_add(pt, (uint32_t)leaf_number(word));
	}
	*leaf = (word >> 48 << 48) | (uint64_t)number << 1 | EXPLICIT;
	return 0;
}

int spw__pt_move_range(struct spw__pt *pt, uint64_t from, uint64_t to, uint64_t len)
{
	for (uint64_t va = from; (va = spw__pt_next_out(pt, va, from + len)) < from + len; va += SPW_PAGE) {
		uint64_t dst = va - from + to;
		uint64_t *src_leaf = &pt->leaf[va / SPW_LEAF_BYTES], *dst_leaf = &pt->leaf[dst / SPW_LEAF_BYTES];

		/* A whole leaf that lands on a leaf keeps its shape. */
		if (va % SPW_LEAF_BYTES == 0 && dst % SPW_LEAF_BYTES == 0 && !*dst_leaf &&
		    from + len - va >= SPW_LEAF_BYTES) {
			*dst_leaf = *src_leaf;
			*src_leaf = 0;
			va += SPW_LEAF_BYTES - SPW_PAGE;
			continue;
		}
		int ret = make_explicit(pt, va);

		ret = ret ? ret : make_explicit(pt, dst);
		if (ret)
			return ret;
		table_of(pt, *dst_leaf)[page_of(dst)] = table_of(pt, *src_leaf)[page_of(va)];
		spw__pt_went_out(pt, dst, 1);
		spw__pt_came_in(pt, va, 1);
	}
	return 0;
}

uint64_t spw__pt_metadata(const struct spw__pt *pt)
{
	/* One page of leaf words covers 1 GiB of addresses, one of ages 256 MiB: what is out bounds both from below. */
	uint64_t dense = pt->out * SPW_PAGE;

	return (dense >> 30) * SPW_PAGE + (dense >> 28) * SPW_PAGE + 2ull * SPW_PAGE +
	       (uint64_t)pt->tables * SPW_CLUSTER * sizeof(*pt->table) + (uint64_t)pt->orphans * sizeof(*pt->orphan);
}
