/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The supply of blocks: which are in use, which are resident, which is the oldest.
 *
 * A pool that frees to a general allocator cannot say what it holds resident, and one that returns every block at
 * once pays a system call and sixteen page faults whenever the demand swings. So a free block is in one of three
 * places, and taken from the first that has one: a small cache of resident blocks; the idle map, lowest number
 * first, which keeps the used part of the range compact; the untouched rest of the range. Everything that
 * describes blocks lies in sparse arrays that become resident with the blocks that they describe.
 *
 * Age without a clock: blocks queue in the order in which they were taken. Putting an object into a hole only marks
 * the block young, with no lock of the queue; when it gets to the head of the queue the mark buys it another round
 * (second chance), so every skipped block is paid for by a put. Blocks of incompressible pages, which gain least by
 * being in RAM, wait in a queue that goes first. One that has been named leaves it until it gets another page:
 * its pages may be on their way out, and naming it again would keep all others from their turn.
 */
#include "tier/block.h"

#include <errno.h>

#define WORD_BITS   64u
#define MAX_SKIPS   32u /* young blocks passed over in one search: bounds the time under the lock */
#define CACHE_SHARE 64u /* the cache takes at most one resident block in so many */

static size_t pages(size_t bytes)
{
	return (bytes + SPW_PAGE - 1) & ~(size_t)(SPW_PAGE - 1);
}

static size_t idle_bytes(uint32_t blocks)
{
	return pages((blocks + WORD_BITS - 1) / WORD_BITS * sizeof(uint64_t));
}

static size_t describe_bytes(uint32_t blocks)
{
	return pages(blocks * sizeof(struct spw__block));
}

size_t spw__blocks_size(uint32_t max)
{
	return idle_bytes(max) + describe_bytes(max) + SPW_BLOCK + (size_t)max * SPW_BLOCK;
}

static uint32_t limit_of(const struct spw__blocks *bs, uint64_t bytes)
{
	return bytes / SPW_BLOCK < bs->max ? (uint32_t)(bytes / SPW_BLOCK) : bs->max;
}

void spw__blocks_init(struct spw__blocks *bs, void *mem, uint32_t max, uint64_t limit_bytes)
{
	uintptr_t end = (uintptr_t)mem + idle_bytes(max) + describe_bytes(max);

	bs->idle = mem;
	bs->block = (struct spw__block *)((char *)mem + idle_bytes(max));
	bs->base = (char *)((end + SPW_BLOCK - 1) & ~(uintptr_t)(SPW_BLOCK - 1));
	bs->max = max;
	bs->limit = limit_of(bs, limit_bytes);
	bs->oldest[0] = bs->oldest[1] = SPW_BLOCK_NONE;
}

static uint32_t cache_room(const struct spw__blocks *bs)
{
	uint32_t share = bs->resident / CACHE_SHARE + 1;

	return share < SPW_BLOCK_CACHE ? share : SPW_BLOCK_CACHE;
}

/* The lowest, or highest, of the cache. */
static uint32_t uncache(struct spw__blocks *bs, bool highest)
{
	uint32_t at = 0, b;

	for (uint32_t i = 1; i < bs->cached; i++)
		if ((bs->cache[i] > bs->cache[at]) == highest)
			at = i;
	b = bs->cache[at];
	bs->cache[at] = bs->cache[--bs->cached];
	return b;
}

static void set_idle(struct spw__blocks *bs, uint32_t b)
{
	bs->idle[b / WORD_BITS] |= 1ull << b % WORD_BITS;
	if (b / WORD_BITS < bs->idle_hint)
		bs->idle_hint = b / WORD_BITS;
	bs->idle_count++;
	bs->resident--;
}

/* Returns the memory of a block that is in no list. The lock is not held: this enters the kernel. */
static void discard(struct spw__blocks *bs, uint32_t b)
{
	spw__plat_discard(bs->base + (size_t)b * SPW_BLOCK, SPW_BLOCK);
	spw__spin_lock(&bs->lock);
	set_idle(bs, b);
	spw__spin_unlock(&bs->lock);
}

/* Ends a change of what is resident: unlocks, and discards what the cache holds beyond its room or the limit. */
static void trim_and_unlock(struct spw__blocks *bs)
{
	uint32_t extra[SPW_BLOCK_CACHE + 1], n = 0;

	while (bs->cached && (bs->resident - n > bs->limit || bs->cached > cache_room(bs)))
		extra[n++] = uncache(bs, true);
	spw__spin_unlock(&bs->lock);
	while (n)
		discard(bs, extra[--n]);
}

void spw__blocks_set_limit(struct spw__blocks *bs, uint64_t bytes)
{
	spw__spin_lock(&bs->lock);
	bs->limit = limit_of(bs, bytes);
	trim_and_unlock(bs);
}

static int commit_range(void *p, size_t bytes)
{
	uintptr_t first = (uintptr_t)p & ~(uintptr_t)(SPW_PAGE - 1);

	return spw__plat_commit((void *)first, pages((uintptr_t)p + bytes - first));
}

/* A block that is not resident yet. */
static int take_idle(struct spw__blocks *bs, uint32_t *b)
{
	int err;

	if (bs->idle_count) {
		while (!bs->idle[bs->idle_hint])
			bs->idle_hint++;
		*b = bs->idle_hint * WORD_BITS + (uint32_t)__builtin_ctzll(bs->idle[bs->idle_hint]);
		bs->idle[*b / WORD_BITS] &= ~(1ull << *b % WORD_BITS);
		bs->idle_count--;
	} else {
		if (bs->top == bs->max)
			return -ENOSPC;
		*b = bs->top;
		if (commit_range(&bs->idle[*b / WORD_BITS], sizeof(uint64_t)) ||
		    commit_range(&bs->block[*b], sizeof(struct spw__block)))
			return -ENOMEM;
		bs->top++;
	}
	bs->resident++;
	err = spw__plat_commit(bs->base + (size_t)*b * SPW_BLOCK, SPW_BLOCK);
	if (err)
		set_idle(bs, *b);
	return err;
}

static bool is_first(const struct spw__blocks *bs, uint32_t b)
{
	return __atomic_load_n(&bs->block[b].age, __ATOMIC_RELAXED) & SPW_AGE_FIRST;
}

/* To the end of a queue, young no longer. Returns whether it was. */
static bool enqueue(struct spw__blocks *bs, uint32_t b, bool first)
{
	uint8_t was = __atomic_exchange_n(&bs->block[b].age, first ? SPW_AGE_FIRST : 0, __ATOMIC_RELAXED);

	spw__block_link(bs->block, SPW_BY_AGE, &bs->oldest[first], b, true);
	return was & SPW_AGE_YOUNG;
}

static void dequeue(struct spw__blocks *bs, uint32_t b)
{
	spw__block_unlink(bs->block, SPW_BY_AGE, &bs->oldest[is_first(bs, b)], b);
}

int spw__block_take(struct spw__blocks *bs, bool first, uint32_t *b)
{
	int err = 0;

	spw__spin_lock(&bs->lock);
	if (bs->resident + !bs->cached > bs->limit)
		err = -ENOSPC;
	else if (bs->cached)
		*b = uncache(bs, false);
	else
		err = take_idle(bs, b);
	if (!err) {
		__atomic_store_n(&bs->block[*b].cls, SPW_CLASS_NONE, __ATOMIC_RELAXED);
		enqueue(bs, *b, first);
	}
	spw__spin_unlock(&bs->lock);
	return err;
}

void spw__block_give(struct spw__blocks *bs, uint32_t b)
{
	spw__spin_lock(&bs->lock);
	dequeue(bs, b);
	bs->cache[bs->cached++] = b;
	trim_and_unlock(bs);
}

uint32_t spw__block_oldest(struct spw__blocks *bs)
{
	uint32_t b = SPW_BLOCK_NONE;

	spw__spin_lock(&bs->lock);
	for (unsigned skips = 0; skips <= MAX_SKIPS; skips++) {
		bool first = bs->oldest[1] != SPW_BLOCK_NONE;

		if (bs->oldest[first] == SPW_BLOCK_NONE)
			break;
		b = bs->oldest[first];
		dequeue(bs, b);
		if (!enqueue(bs, b, false) || first)
			break;
	}
	spw__spin_unlock(&bs->lock);
	return b;
}

void spw__block_put_first(struct spw__blocks *bs, uint32_t b)
{
	spw__spin_lock(&bs->lock);
	if (!is_first(bs, b)) {
		dequeue(bs, b);
		enqueue(bs, b, true);
	}
	spw__spin_unlock(&bs->lock);
}

uint64_t spw__blocks_resident_bytes(struct spw__blocks *bs)
{
	uint64_t bytes;

	spw__spin_lock(&bs->lock);
	bytes = (uint64_t)bs->resident * SPW_BLOCK;
	spw__spin_unlock(&bs->lock);
	return bytes;
}

uint64_t spw__blocks_metadata_bytes(struct spw__blocks *bs)
{
	uint32_t top;

	spw__spin_lock(&bs->lock);
	top = bs->top;
	spw__spin_unlock(&bs->lock);
	return idle_bytes(top) + describe_bytes(top);
}
