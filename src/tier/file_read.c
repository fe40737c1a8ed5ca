/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Reading objects back.
 *
 * A random read fetches the one or two blocks that the object lies in. A sequential one would do that for each object,
 * though the next dozens lie around it: they went out together, if in whatever order the pool held them, which is
 * often the reverse of the program's. So a read near another fetches the whole window of the file that it lies in, and
 * the following ones find their bytes there. A caller who knows what he is going to ask for says so before: then the
 * windows are on their way together, while he does something else. Nobody has to tell a window that its part of the
 * file was written anew: bytes of another generation do not pass the seal, and what does not pass is read again from
 * the file before it is an error.
 */
#include "tier/file_internal.h"

#include <errno.h>

struct place {
	uint64_t first; /* first block */
	uint32_t skip;  /* to the object in it */
	uint32_t span;  /* bytes, whole blocks */
	uint32_t len;   /* of the object */
	uint32_t seg;
	uint32_t at; /* in the segment */
	uint64_t gen;
	struct spw__seal_id id;
};

static int unseal(const struct spw__file *f, const struct place *p, uint8_t *data, void *buf)
{
	return spw__unseal(&f->seal, p->gen, p->at, &p->id, data + p->skip, p->len, buf);
}

static uint8_t *window_data(const struct spw__file *f, const struct spw__window *w)
{
	size_t i = (size_t)(w - f->window), wide = i < SPW__WIDE ? i : SPW__WIDE;

	return f->read_data + SPW__BUFFERS * SPW__BUFFER_BYTES + wide * SPW__WIDE_BYTES +
	       (i - wide) * SPW__BUFFER_BYTES;
}

/* p lies whole in what is in w, or on its way there. */
static bool covers(const struct spw__window *w, const struct place *p)
{
	uint64_t first = SPW__LOAD(w->first);

	return p->first >= first && p->first + p->span <= first + SPW__LOAD(w->bytes);
}

static void note_use(struct spw__file *f, struct spw__window *w)
{
	__atomic_store_n(&w->used, SPW__ADD(f->window_n, 1) + 1, __ATOMIC_RELAXED);
}

/* The read into w has ended. Its lock held. */
static void filled(struct spw__window *w, int64_t got)
{
	w->coming = false;
	__atomic_store_n(&w->who, NULL, __ATOMIC_RELAXED);
	__atomic_store_n(&w->bytes, got > 0 ? (uint32_t)got : 0, __ATOMIC_RELAXED);
}

/* Whether nothing is on its way to w any more, after a wait of wait_ns at most. Its lock held. */
static bool settle(struct spw__file *f, struct spw__window *w, uint64_t wait_ns)
{
	int64_t got;

	if (w->coming && f->io.finish(f->io.ctx, (unsigned)(w - f->window), wait_ns, &got))
		filled(w, got);
	return !w->coming;
}

static bool from_window(struct spw__file *f, const struct place *p, void *buf)
{
	bool found = false;

	for (unsigned i = 0; i < SPW__WINDOWS && !found; i++) {
		struct spw__window *w = &f->window[i];

		if (!covers(w, p) || !spw__spin_try(&w->lock))
			continue;
		found = settle(f, w, UINT64_MAX) && covers(w, p) &&
			!unseal(f, p, window_data(f, w) + (p->first - w->first), buf);
		if (found && i < SPW__WIDE)
			note_use(f, w);
		else if (found) /* a narrow one has nothing else: the next to be taken */
			__atomic_store_n(&w->used, 0, __ATOMIC_RELAXED);
		spw__spin_unlock(&w->lock);
	}
	return found;
}

/* The late read that this one is near, or SPW__STREAMS. */
static unsigned near_which(const struct spw__file *f, const struct place *p)
{
	unsigned i = 0;

	for (; i < SPW__STREAMS; i++) {
		uint64_t at = SPW__LOAD(f->late[i]);

		if (at && p->first < at + SPW__NEAR && at < p->first + SPW__NEAR)
			break;
	}
	return i;
}

/* This is a late read now, instead of the one that it is near. */
static void note_read(struct spw__file *f, const struct place *p, unsigned which)
{
	if (which == SPW__STREAMS)
		which = SPW__ADD(f->late_n, 1) % SPW__STREAMS;
	__atomic_store_n(&f->late[which], p->first, __ATOMIC_RELAXED);
}

/* The least used wide or narrow one, with its lock; NULL if that is busy. */
static struct spw__window *take_window(struct spw__file *f, bool wide)
{
	struct spw__window *w = f->window + (wide ? 0 : SPW__WIDE),
			   *end = wide ? w + SPW__WIDE : f->window + SPW__WINDOWS;
	struct spw__window *oldest = w;

	for (; w < end; w++)
		if (SPW__LOAD(w->used) < SPW__LOAD(oldest->used))
			oldest = w;
	if (!spw__spin_try(&oldest->lock))
		return NULL;
	if (settle(f, oldest, 0))
		return oldest;
	note_use(f, oldest); /* the next time another */
	spw__spin_unlock(&oldest->lock);
	return NULL;
}

/*
 * The blocks of the object alone, or (wide) the window that it lies in, not beyond its segment. Windows overlap by the
 * longest object, so that each lies whole in the one in which it begins.
 */
static uint64_t extent(const struct spw__file *f, const struct place *p, bool wide, uint32_t *bytes)
{
	uint64_t seg = spw__seg_offset(f->sh, p->seg), stride = SPW__WIDE_BYTES - SPW__BUFFER_BYTES;
	uint64_t from = wide ? seg + (p->first - seg) / stride * stride : p->first;
	uint64_t left = seg + SPW_FILE_SEGMENT - from, most = wide ? SPW__WIDE_BYTES : p->span;

	*bytes = left < most ? (uint32_t)left : (uint32_t)most;
	return from;
}

/* w is for these from now on. Its lock held. */
static void aim(struct spw__file *f, struct spw__window *w, uint64_t first, uint32_t bytes)
{
	__atomic_store_n(&w->first, first, __ATOMIC_RELAXED);
	__atomic_store_n(&w->bytes, bytes, __ATOMIC_RELAXED);
	note_use(f, w);
}

/* False if all windows are busy or the object could not be read. */
static bool fill_window(struct spw__file *f, const struct place *p)
{
	struct spw__window *w = take_window(f, true);
	uint32_t bytes;

	if (!w)
		return false;
	uint64_t first = extent(f, p, true, &bytes);

	aim(f, w, first, bytes);
	filled(w, f->io.read(f->io.ctx, window_data(f, w), bytes, first));
	spw__spin_unlock(&w->lock);
	return covers(w, p);
}

static unsigned take_buffer(struct spw__file *f)
{
	uint64_t used = SPW__LOAD(f->buffers);

	for (unsigned spins = 0;; spins++) {
		/* The lowest, so that no more of them become resident than are used at once. */
		unsigned i = ~used ? (unsigned)__builtin_ctzll(~used) : SPW__BUFFERS;

		if (i == SPW__BUFFERS) {
			spw__plat_relax(spins);
			used = SPW__LOAD(f->buffers);
		} else if (__atomic_compare_exchange_n(&f->buffers, &used, used | 1ull << i, false, __ATOMIC_ACQUIRE,
						       __ATOMIC_RELAXED)) {
			return i;
		}
	}
}

static int from_file(struct spw__file *f, const struct place *p, void *buf)
{
	unsigned i = take_buffer(f);
	uint8_t *data = f->read_data + (size_t)i * SPW__BUFFER_BYTES;
	int err = f->io.read(f->io.ctx, data, p->span, p->first) == p->span ? unseal(f, p, data, buf) : -EIO;

	__atomic_fetch_and(&f->buffers, ~(1ull << i), __ATOMIC_RELEASE);
	return err;
}

/* False: it lies nowhere. */
static bool place_of(const struct spw__file *f, spw_entry_t e, spw_slot_t s, struct place *p)
{
	uint64_t offset = spw__slot_offset(s);
	uint32_t len = spw__slot_len(s), skip = offset % SPW__BLOCK;
	uint32_t seg = (uint32_t)((offset - f->sh->first_byte) / SPW_FILE_SEGMENT);

	if (seg >= f->sh->segments)
		return false;
	*p = (struct place){
		.first = offset - skip,
		.skip = skip,
		.span = spw__file_align(skip + SPW__TAG + len, SPW__BLOCK),
		.len = len,
		.seg = seg,
		.at = (uint32_t)(offset - spw__seg_offset(f->sh, seg)),
		.gen = spw__seg_generation(f->sh, seg),
		.id = {.slot = s.v, .entry = e.idx, .segment = seg},
	};
	return true;
}

int spw__file_get(struct spw_tier *t, spw_entry_t e, spw_slot_t s, void *buf)
{
	struct spw__file *f = spw__file_of(t);
	struct place p;
	int err;

	if (!place_of(f, e, s, &p))
		return -EBADMSG;
	SPW__ADD(f->reads, 1);
	unsigned near = near_which(f, &p);

	note_read(f, &p, near);
	if (from_window(f, &p, buf) || (near < SPW__STREAMS && fill_window(f, &p) && from_window(f, &p, buf)))
		return 0;
	err = from_file(f, &p, buf);
	/* Of another generation now: the slot was freed while it was read, and the caller will see that. */
	if (err && spw__seg_generation(f->sh, p.seg) == p.gen)
		SPW__ADD(f->errors, 1);
	return err;
}

bool spw__file_expect(struct spw_tier *t, const void *who, spw_entry_t e, spw_slot_t s, bool alone)
{
	struct spw__file *f = spw__file_of(t);
	struct spw__window *w;
	struct place p;

	if (!f->io.start || !place_of(f, e, s, &p))
		return false;
	for (w = f->window; w < f->window + SPW__WINDOWS; w++)
		if (covers(w, &p))
			return true;
	unsigned near = near_which(f, &p);
	bool wide = near < SPW__STREAMS && !alone;

	w = take_window(f, wide);
	if (!w)
		return false;
	uint32_t bytes;
	uint64_t first = extent(f, &p, wide, &bytes);
	bool begun = f->io.start(f->io.ctx, (unsigned)(w - f->window), window_data(f, w), bytes, first);

	/* Else the window keeps what it has, and nobody takes a read to be near this one. */
	if (begun) {
		aim(f, w, first, bytes);
		w->coming = true;
		__atomic_store_n(&w->who, who, __ATOMIC_RELAXED);
		note_read(f, &p, near);
	}
	spw__spin_unlock(&w->lock);
	return begun;
}

void spw__file_settle(struct spw_tier *t, const void *who)
{
	struct spw__file *f = spw__file_of(t);

	for (struct spw__window *w = f->window; w < f->window + SPW__WINDOWS; w++) {
		for (unsigned spins = 0; SPW__LOAD(w->who) == who; spins++) {
			if (!spw__spin_try(&w->lock)) {
				spw__plat_relax(spins);
				continue;
			}
			if (w->who == who)
				settle(f, w, UINT64_MAX);
			spw__spin_unlock(&w->lock);
		}
	}
}

uint64_t spw__file_life(struct spw_tier *t, spw_slot_t s)
{
	struct spw__file *f = spw__file_of(t);
	uint32_t seg = (uint32_t)((spw__slot_offset(s) - f->sh->first_byte) / SPW_FILE_SEGMENT);

	/* No place of a segment is written twice in one generation. */
	return seg < f->sh->segments ? spw__seg_generation(f->sh, seg) : 0;
}

void spw__file_read_reset(struct spw__file *f)
{
	f->buffers = 0;
	for (struct spw__window *w = f->window; w < f->window + SPW__WINDOWS; w++) {
		w->lock = (struct spw__spin){0};
		if (w->coming)
			filled(w, 0);
	}
}

bool spw__file_read_end(struct spw__file *f, uint64_t wait_ns)
{
	bool all = true;

	for (struct spw__window *w = f->window; w < f->window + SPW__WINDOWS; w++)
		all &= settle(f, w, wait_ns);
	return all;
}

uint64_t spw__file_read_memory(const struct spw__file *f)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < SPW__WINDOWS; i++)
		if (SPW__LOAD(f->window[i].bytes))
			bytes += i < SPW__WIDE ? SPW__WIDE_BYTES : SPW__BUFFER_BYTES;
	return bytes;
}
