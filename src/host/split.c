/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pool or pages?
 *
 * A page of memory holds one page of the program, or three that are compressed. Reads at random from a set that does
 * not fit are served best by a large pool: whatever it does not hold is read from a file. A program that goes back to
 * what it has just used wants its pages: a large pool is full of what nobody asks for, and drives out what is needed
 * next. So a fixed share is wrong by a factor, for one or for the other.
 *
 * What one more page would be worth on either side can be seen in what comes back. Resident, it would have spared those
 * faults whose page had gone out within the last few evictions: their cost, by the number of evictions looked at. (A
 * refault distance, as in mm/workingset.c of Linux.) In the pool it saves the way to the file, for those reads that the
 * older half of the pool serves: the younger half would be there in a smaller pool, too. Where one side is clearly
 * worth more, the split moves.
 *
 * When each page went out is remembered of one page in SAMPLE only, in a table of fixed size that forgets.
 */
#include "host/split.h"

#define SAMPLE      16u
#define REACH_PART  4u /* of what is resident */
#define REACH_LEAST 64u
#define REACH_MOST  (SPW__SPLIT_TRACKED * SAMPLE / 4)
#define TURN_LEAST  1024u   /* evictions: of fewer, the sample has not enough to go by */
#define FADE        8u      /* the part of what is known of distances that a turn forgets */
#define STEP        8u      /* the part of the pool that moves at a time */
#define CLEARLY     3u      /* halves: worth so much more */
#define FILE_NS     100000u /* before one was read */
#define EVIDENCE    8u      /* pages of the sample: fewer are chance */

static uint32_t hash(spw_entry_t e)
{
	return e.idx * 2654435761u;
}

static bool sampled(uint32_t h)
{
	return (h >> 16) % SAMPLE == 0;
}

static uint64_t get(const uint64_t *n)
{
	return __atomic_load_n(n, __ATOMIC_RELAXED);
}

static void set(uint64_t *n, uint64_t to)
{
	__atomic_store_n(n, to, __ATOMIC_RELAXED);
}

static void add(uint64_t *n, uint64_t more)
{
	__atomic_add_fetch(n, more, __ATOMIC_RELAXED);
}

void spw__split_out(struct spw__split *s, spw_entry_t e)
{
	uint32_t h = hash(e), at = h >> 20, when = (uint32_t)get(&s->out);

	add(&s->out, 1);
	if (!sampled(h))
		return;
	add(&s->seen, 1);
	__atomic_store_n(&s->went[at].entry, e.idx, __ATOMIC_RELAXED);
	__atomic_store_n(&s->went[at].when, when, __ATOMIC_RELAXED);
}

/* Evictions since it went out; too many where that has been forgotten, or is torn by a page that goes out meanwhile. */
static uint64_t distance(const struct spw__split *s, spw_entry_t e)
{
	uint32_t at = hash(e) >> 20, now = (uint32_t)get(&s->out);

	if (__atomic_load_n(&s->went[at].entry, __ATOMIC_RELAXED) != e.idx)
		return UINT64_MAX;
	return now - __atomic_load_n(&s->went[at].when, __ATOMIC_RELAXED);
}

unsigned spw__split_soon(const struct spw__split *s, spw_entry_t e, uint64_t evictions)
{
	if (!sampled(hash(e)))
		return 0;
	uint64_t d = distance(s, e);

	/* Of longer ago than is remembered, nothing is known: it counts. */
	return d <= evictions || (d == UINT64_MAX && evictions > SPW__SPLIT_TRACKED * SAMPLE) ? SAMPLE : 0;
}

void spw__split_in(struct spw__split *s, spw_entry_t e, bool from_file, uint64_t ns)
{
	add(&s->hits[from_file], 1);
	add(&s->hits_ns[from_file], ns);
	if (!sampled(hash(e)))
		return;
	uint64_t d = distance(s, e);

	if (d < 1u << SPW__SPLIT_OCTAVES)
		add(&s->back[d ? 63 - __builtin_clzll(d) : 0], 1);
	if (d <= get(&s->reach)) {
		add(&s->near, 1);
		add(&s->near_ns, ns);
	}
	if (!from_file && d > get(&s->half))
		add(&s->far, 1);
}

/* What a read from the file costs more than one from the pool. */
static uint64_t dearer(const struct spw__split *s)
{
	uint64_t pool = get(&s->hits[0]) ? get(&s->hits_ns[0]) / get(&s->hits[0]) : 0;
	uint64_t file = get(&s->hits[1]) ? get(&s->hits_ns[1]) / get(&s->hits[1]) : FILE_NS;

	return file > pool ? file - pool : 0;
}

static uint64_t bounded(uint64_t n, uint64_t least, uint64_t most)
{
	return n < least ? least : n > most ? most : n;
}

/*
 * How many evictions ago those pages went out that divide the pool, of `pages`, into halves. Of what went out since,
 * part has come back and is not there any more: the more, the longer ago.
 */
static uint64_t half_of(const struct spw__split *s, uint64_t pages)
{
	uint64_t seen = get(&s->seen), left = pages / 2, stay = seen, evictions = 1;

	if (!seen)
		return UINT64_MAX;
	for (unsigned i = 0; i < SPW__SPLIT_OCTAVES; i++, evictions *= 2) {
		uint64_t back = get(&s->back[i]);

		stay = stay > back ? stay - back : 0;
		/*
		 * By the sample, all that went out has come back. Chance, if most of the half is found by then; else
		 * the pool has pages that went longer ago than is known.
		 */
		if (!stay)
			return left * 4 < pages / 2 ? evictions : UINT64_MAX;
		if (left * seen / stay < evictions)
			break;
		left -= evictions * stay / seen;
	}
	return evictions + left * seen / stay;
}

static void fade(uint64_t *n)
{
	set(n, get(n) - (get(n) + FADE - 1) / FADE);
}

void spw__split_turn(struct spw__split *s, uint64_t resident, const struct spw_tier_stats *pool, uint64_t least,
		     uint64_t limit)
{
	uint64_t reach = get(&s->reach), most = get(&s->most), used = pool->used_bytes;

	if (get(&s->out) - s->turned < (reach > TURN_LEAST ? reach : TURN_LEAST))
		return;
	/* A thousandth of a ns, for each page of memory. */
	uint64_t pages = get(&s->near_ns) * SAMPLE * 1000 / (reach ? reach : 1);
	uint64_t packed = get(&s->far) * SAMPLE * dearer(s) * 1000 / (used / SPW_PAGE / 2 + 1);

	bool less = pages * 2 > packed * CLEARLY && get(&s->near) >= EVIDENCE;

	most = most ? most : limit;
	/* Twice in a row: what goes to a file for a change of the pattern is dearly read back. */
	if (less && s->less)
		most = (used < most ? used : most) / STEP * (STEP - 1);
	else if (packed * 2 > pages * CLEARLY && used >= most / STEP * (STEP - 1))
		most += most / STEP;
	set(&s->most, bounded(most, least, limit > least ? limit : least));
	set(&s->reach, bounded(resident / REACH_PART, REACH_LEAST, REACH_MOST));
	set(&s->half, half_of(s, pool->pages));
	fade(&s->seen);
	for (unsigned i = 0; i < SPW__SPLIT_OCTAVES; i++)
		fade(&s->back[i]);
	set(&s->near, 0);
	set(&s->near_ns, 0);
	set(&s->far, 0);
	for (unsigned i = 0; i < 2; i++) {
		set(&s->hits[i], 0);
		set(&s->hits_ns[i], 0);
	}
	s->less = less;
	s->turned = get(&s->out);
}
