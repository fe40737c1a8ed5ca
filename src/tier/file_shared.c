/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The segment table: which parts of the file are taken, and by which processes.
 *
 * Every process of a tree maps it, and any of them may be killed between any two instructions. A shared lock would
 * then stay locked, and a count of holders would stay wrong: nobody could say whether the dead one had counted itself
 * out already. So there is no lock and no count. A segment has one word that is taken by compare-and-swap together
 * with the name of its owner, and a set of the other processes that a fork made holders of it. Each step leaves a state
 * that says whose it is, and spw__file_reap() finishes any step of the dead.
 *
 * The word:  bits 0-7 owner, 8 HELD by the owner, 9 SHARED, 10 WRITING, 11 TAKEN, 12 USED, 13-51 generation,
 *            52-63 version
 *   TAKEN          not free
 *   HELD           the owner itself has live objects in it. The common case needs nothing but this
 *   SHARED         the set of sharers means something; until the first fork its memory is never touched
 *   WRITING        the owner may have a write in flight
 *   TAKEN alone    generation 0, which is given to nobody: the segment has a bad block. It stays so for ever: whoever
 *                  looks for a free segment goes past it, and it counts neither as taken nor as room
 *   not TAKEN      0: has no blocks in the file. USED: may have. USED | WRITING: as before, and its owner died with a
 *                  write in flight, which may reach the disk after the death: the segment rests until the time in
 *                  the generation's place is REST_MS ago. (A late write would be found out by the seal, not
 *                  believed; but it would cost the next owner its objects.)
 *
 * A set of 256 bits cannot be read at once. Freeing is: read the word, see no HELD, see no sharer, compare-and-swap
 * the word. A sharer that is added in the meantime is added by another holder, who may let go before that holder's
 * own bit is looked at. Therefore adding ends with a new version in the word, before the adder can let go; and since a
 * dead adder may not have come that far, reaping changes the version before it takes the dead out.
 */
#include "tier/file_internal.h"

#include <errno.h>
#include <string.h>

#define OWNER     0xffull
#define HELD      (1ull << 8)
#define SHARED    (1ull << 9)
#define WRITING   (1ull << 10)
#define TAKEN     (1ull << 11)
#define USED      (1ull << 12)
#define GEN_SHIFT 13
#define GEN_MASK  ((1ull << 39) - 1)
#define VERSION   (1ull << 52)
#define BAD       TAKEN
#define REST_MS   5000u

#define TABLE_BYTES 4096u /* where the words begin */
#define MAX_BYTES   ((uint64_t)SPW_UNIT << 36)

struct sharers {
	uint64_t bits[SPW_FILE_PROCS / 64];
};

_Static_assert(sizeof(struct spw_file_shared) <= TABLE_BYTES, "the header fits its page");

static uint32_t segments_of(uint64_t bytes)
{
	return (uint32_t)((bytes < MAX_BYTES ? bytes : MAX_BYTES) / SPW_FILE_SEGMENT);
}

static size_t words_size(uint32_t segments)
{
	return (segments * sizeof(uint64_t) + TABLE_BYTES - 1) & ~(size_t)(TABLE_BYTES - 1);
}

static uint64_t *word_of(const struct spw_file_shared *sh, uint32_t seg)
{
	return (uint64_t *)((uintptr_t)sh + TABLE_BYTES) + seg;
}

static struct sharers *sharers_of(const struct spw_file_shared *sh, uint32_t seg)
{
	return (struct sharers *)((uintptr_t)sh + TABLE_BYTES + words_size(sh->segments)) + seg;
}

static uint64_t word(const struct spw_file_shared *sh, uint32_t seg)
{
	return __atomic_load_n(word_of(sh, seg), __ATOMIC_SEQ_CST);
}

/* On failure *old is the word as it is. */
static bool swap(struct spw_file_shared *sh, uint32_t seg, uint64_t *old, uint64_t new)
{
	return __atomic_compare_exchange_n(word_of(sh, seg), old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static uint64_t generation(uint64_t w)
{
	return w >> GEN_SHIFT & GEN_MASK;
}

static uint64_t now_ms(void)
{
	return spw__plat_now_ns() / 1000000u & GEN_MASK;
}

static bool resting(uint64_t w, uint64_t now)
{
	return (w & (TAKEN | WRITING)) == WRITING && ((now - generation(w)) & GEN_MASK) < REST_MS;
}

static bool has_sharers(const struct spw_file_shared *sh, uint32_t seg)
{
	const struct sharers *s = sharers_of(sh, seg);

	for (unsigned i = 0; i < SPW_FILE_PROCS / 64; i++)
		if (__atomic_load_n(&s->bits[i], __ATOMIC_SEQ_CST))
			return true;
	return false;
}

static bool has_sharer(const struct spw_file_shared *sh, uint32_t seg, unsigned proc)
{
	return __atomic_load_n(&sharers_of(sh, seg)->bits[proc / 64], __ATOMIC_SEQ_CST) & 1ull << proc % 64;
}

static void add_sharer(struct spw_file_shared *sh, uint32_t seg, unsigned proc)
{
	__atomic_fetch_or(&sharers_of(sh, seg)->bits[proc / 64], 1ull << proc % 64, __ATOMIC_SEQ_CST);
}

static void remove_sharer(struct spw_file_shared *sh, uint32_t seg, unsigned proc)
{
	__atomic_fetch_and(&sharers_of(sh, seg)->bits[proc / 64], ~(1ull << proc % 64), __ATOMIC_SEQ_CST);
}

/* Segment `seg` has become free. */
static void hint_lower(struct spw_file_shared *sh, uint32_t seg)
{
	uint64_t old = __atomic_load_n(&sh->hint, __ATOMIC_SEQ_CST), new;

	do {
		uint32_t low = (uint32_t)old < seg ? (uint32_t)old : seg;

		new = ((old >> 32) + 1) << 32 | low;
	} while (!__atomic_compare_exchange_n(&sh->hint, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

/* Every segment below `seg` was seen taken, unless one was freed since `seen`. */
static void hint_raise(struct spw_file_shared *sh, uint64_t seen, uint32_t seg)
{
	uint64_t new = (seen & ~(uint64_t)UINT32_MAX) | seg;

	__atomic_compare_exchange_n(&sh->hint, &seen, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Free the segment if nobody holds it. */
static void settle(struct spw_file_shared *sh, uint32_t seg, uint64_t gen)
{
	uint64_t w = word(sh, seg);

	for (;;) {
		if (!(w & TAKEN) || w & HELD || generation(w) != gen)
			return;
		if (w & SHARED && has_sharers(sh, seg))
			return;
		if (swap(sh, seg, &w, w & WRITING ? USED | WRITING | now_ms() << GEN_SHIFT : USED))
			break;
	}
	hint_lower(sh, seg);
}

/* Change flags of a taken segment, of this generation only. */
static void change(struct spw_file_shared *sh, uint32_t seg, uint64_t gen, uint64_t set, uint64_t clear,
		   uint64_t version)
{
	uint64_t w = word(sh, seg);

	while (w & TAKEN && generation(w) == gen)
		if (swap(sh, seg, &w, ((w | set) & ~clear) + version))
			return;
}

size_t spw__file_shared_size(uint64_t max_bytes)
{
	uint32_t n = segments_of(max_bytes);

	return TABLE_BYTES + words_size(n) +
	       ((n * sizeof(struct sharers) + TABLE_BYTES - 1) & ~(size_t)(TABLE_BYTES - 1));
}

/* Keep everybody out of the segments that have a bad block. */
static void mark_bad(struct spw_file_shared *sh, const struct spw_file_layout *l)
{
	for (uint32_t i = 0; i < l->bad_n; i++) {
		uint64_t at = (uint64_t)l->bad[i] * SPW__BLOCK, seg = (at - sh->first_byte) / SPW_FILE_SEGMENT;

		if (at < sh->first_byte || seg >= sh->segments || *word_of(sh, (uint32_t)seg) == BAD)
			continue;
		*word_of(sh, (uint32_t)seg) = BAD;
		sh->usable--;
	}
}

int spw__file_shared_init(struct spw_file_shared *sh, const struct spw_file_layout *l)
{
	uint64_t end = l->max_bytes < MAX_BYTES ? l->max_bytes : MAX_BYTES;

	if (l->first_byte % SPW__BLOCK || end < l->first_byte + SPW_FILE_SEGMENT)
		return -EINVAL;
	sh->first_byte = l->first_byte;
	sh->segments = sh->usable = segments_of(end - l->first_byte);
	mark_bad(sh, l);
	if (!sh->usable)
		return -EINVAL;
	sh->encrypt = l->encrypt;
	sh->discard = l->discard;
	memcpy(sh->key, l->key, sizeof(sh->key));
	return 0;
}

static bool others_free(const struct spw_file_shared *sh, uint32_t from, uint32_t want)
{
	for (uint32_t i = from; want && i < sh->segments; i++)
		want -= !(word(sh, i) & TAKEN);
	return !want;
}

/* A new generation, or 0 at the end of all. */
static uint64_t next_generation(struct spw_file_shared *sh)
{
	uint64_t gen = __atomic_add_fetch(&sh->sequence, 1, __ATOMIC_SEQ_CST);

	return gen <= GEN_MASK ? gen : 0;
}

static bool claim(struct spw_file_shared *sh, uint32_t seg, uint64_t w, unsigned proc, uint64_t *gen)
{
	uint32_t top = SPW__LOAD(sh->top);

	*gen = next_generation(sh);
	if (!*gen)
		return false;
	/* First, so that a reaper looks at what is claimed next. */
	while (top <= seg &&
	       !__atomic_compare_exchange_n(&sh->top, &top, seg + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	return swap(sh, seg, &w, TAKEN | HELD | WRITING | proc | *gen << GEN_SHIFT);
}

int spw__seg_claim(struct spw_file_shared *sh, unsigned proc, uint32_t reserve, uint32_t *seg, uint64_t *gen)
{
	uint64_t hint = __atomic_load_n(&sh->hint, __ATOMIC_SEQ_CST);
	uint32_t lowest = SPW__SEGS_NONE; /* free, but not to be had yet */
	uint64_t now = 0;

	for (uint32_t i = (uint32_t)hint; i < sh->segments; i++) {
		uint64_t w = word(sh, i);

		if (w & TAKEN)
			continue;
		if (w & WRITING && !now)
			now = now_ms();
		if (!resting(w, now)) {
			if (!others_free(sh, i + 1, reserve)) {
				hint_raise(sh, hint, lowest == SPW__SEGS_NONE ? i : lowest);
				return -ENOSPC;
			}
			if (claim(sh, i, w, proc, gen)) {
				hint_raise(sh, hint, lowest == SPW__SEGS_NONE ? i + 1 : lowest);
				*seg = i;
				return 0;
			}
			if (!*gen)
				return -ENOSPC;
		}
		if (lowest == SPW__SEGS_NONE)
			lowest = i;
	}
	hint_raise(sh, hint, lowest == SPW__SEGS_NONE ? sh->segments : lowest);
	return -ENOSPC;
}

void spw__seg_written(struct spw_file_shared *sh, uint32_t seg)
{
	__atomic_fetch_and(word_of(sh, seg), ~WRITING, __ATOMIC_SEQ_CST);
}

void spw__seg_drop(struct spw_file_shared *sh, uint32_t seg, unsigned proc)
{
	uint64_t w = word(sh, seg);

	if (w & HELD && (w & OWNER) == proc)
		change(sh, seg, generation(w), 0, HELD, 0);
	else
		remove_sharer(sh, seg, proc);
	settle(sh, seg, generation(w));
}

void spw__seg_share(struct spw_file_shared *sh, uint32_t seg, unsigned child)
{
	uint64_t gen = spw__seg_generation(sh, seg);

	change(sh, seg, gen, SHARED, 0, 0);
	add_sharer(sh, seg, child);
	change(sh, seg, gen, 0, 0, VERSION);
}

uint64_t spw__seg_generation(const struct spw_file_shared *sh, uint32_t seg)
{
	return generation(word(sh, seg));
}

bool spw__seg_exclusive(const struct spw_file_shared *sh, uint32_t seg, unsigned proc)
{
	uint64_t w = word(sh, seg);

	if (w & HELD && (w & OWNER) == proc)
		return !(w & SHARED) || !has_sharers(sh, seg);
	if (w & HELD)
		return false;
	for (unsigned i = 0; i < SPW_FILE_PROCS; i++)
		if (i != proc && has_sharer(sh, seg, i))
			return false;
	return true;
}

uint32_t spw__segs_taken(const struct spw_file_shared *sh)
{
	uint32_t top = SPW__LOAD(sh->top), n = 0;

	for (uint32_t i = 0; i < top; i++) {
		uint64_t w = SPW__LOAD(*word_of(sh, i));

		n += w & TAKEN && w != BAD;
	}
	return n;
}

int spw__seg_claim_used(struct spw_file_shared *sh, unsigned proc, uint32_t *seg)
{
	uint64_t now = now_ms(), gen;

	/* From the top: a claim takes the lowest, and would have to allocate its blocks again. */
	for (uint32_t i = SPW__LOAD(sh->top); i-- > 0;) {
		uint64_t w = word(sh, i);

		if (w & TAKEN || !(w & USED) || resting(w, now))
			continue;
		if (claim(sh, i, w, proc, &gen)) {
			*seg = i;
			return 0;
		}
	}
	return -ENOENT;
}

void spw__seg_punched(struct spw_file_shared *sh, uint32_t seg)
{
	__atomic_store_n(word_of(sh, seg), 0, __ATOMIC_SEQ_CST);
	hint_lower(sh, seg);
}

void spw__file_reap(struct spw_file_shared *sh, unsigned proc)
{
	uint32_t top = __atomic_load_n(&sh->top, __ATOMIC_SEQ_CST);

	for (uint32_t i = 0; i < top; i++) {
		uint64_t w = word(sh, i), gen = generation(w);

		if (!(w & TAKEN) || w == BAD)
			continue;
		if (w & HELD && (w & OWNER) == proc)
			change(sh, i, gen, 0, HELD, VERSION);
		if (w & SHARED && has_sharer(sh, i, proc)) {
			change(sh, i, gen, 0, 0, VERSION);
			remove_sharer(sh, i, proc);
		}
		settle(sh, i, gen);
	}
	/* It may have died between freeing a segment and lowering the hint. */
	hint_lower(sh, 0);
}

void spw__file_shared_use(const struct spw_file_shared *sh, uint64_t *used_bytes, uint64_t *capacity_bytes)
{
	*used_bytes = (uint64_t)spw__segs_taken(sh) * SPW_FILE_SEGMENT;
	*capacity_bytes = (uint64_t)sh->usable * SPW_FILE_SEGMENT;
}
