/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Reading objects back.
 *
 * A random read fetches the one or two blocks that the object lies in. A sequential one would do that for each object,
 * though the next dozens lie around it: they went out together, if in whatever order the pool held them, which is
 * often the reverse of the program's. So a read near another fetches the whole window of the file that it lies in, and
 * the following ones find their bytes there. Nobody has to tell a window that its part of the file was written anew:
 * bytes of another generation do not pass the seal, and what does not pass is read again from the file before it is an
 * error.
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
	return f->read_data + SPW__BUFFERS * SPW__BUFFER_BYTES + (size_t)(w - f->window) * SPW__WINDOW_BYTES;
}

static bool covers(const struct spw__window *w, const struct place *p)
{
	uint64_t first = SPW__LOAD(w->first);

	return p->first >= first && p->first + p->span <= first + SPW__LOAD(w->bytes);
}

static void note_use(struct spw__file *f, struct spw__window *w)
{
	__atomic_store_n(&w->used, SPW__ADD(f->window_n, 1) + 1, __ATOMIC_RELAXED);
}

static bool from_window(struct spw__file *f, const struct place *p, void *buf)
{
	bool found = false;

	for (unsigned i = 0; i < SPW__WINDOWS && !found; i++) {
		struct spw__window *w = &f->window[i];

		if (!covers(w, p) || !spw__spin_try(&w->lock))
			continue;
		found = covers(w, p) && !unseal(f, p, window_data(f, w) + (p->first - w->first), buf);
		if (found)
			note_use(f, w);
		spw__spin_unlock(&w->lock);
	}
	return found;
}

/* Is this read near a late one? Remembers where it is itself. */
static bool local(struct spw__file *f, const struct place *p)
{
	for (unsigned i = 0; i < SPW__STREAMS; i++) {
		uint64_t at = SPW__LOAD(f->late[i]);

		if (at && p->first < at + SPW__NEAR && at < p->first + SPW__NEAR) {
			__atomic_store_n(&f->late[i], p->first, __ATOMIC_RELAXED);
			return true;
		}
	}
	__atomic_store_n(&f->late[SPW__ADD(f->late_n, 1) % SPW__STREAMS], p->first, __ATOMIC_RELAXED);
	return false;
}

static struct spw__window *oldest_window(struct spw__file *f)
{
	struct spw__window *oldest = f->window;

	for (struct spw__window *w = f->window; w < f->window + SPW__WINDOWS; w++)
		if (SPW__LOAD(w->used) < SPW__LOAD(oldest->used))
			oldest = w;
	return oldest;
}

/*
 * Fill the window that the object lies in, not beyond its segment. Windows overlap by the longest object, so that each
 * lies whole in the one in which it begins. False if all are busy or the object could not be read.
 */
static bool fill_window(struct spw__file *f, const struct place *p)
{
	struct spw__window *w = oldest_window(f);
	uint64_t seg = spw__seg_offset(f->sh, p->seg), stride = SPW__WINDOW_BYTES - SPW__BUFFER_BYTES;
	uint64_t from = seg + (p->first - seg) / stride * stride, left = seg + SPW_FILE_SEGMENT - from;
	uint32_t want = left < SPW__WINDOW_BYTES ? (uint32_t)left : SPW__WINDOW_BYTES;
	int64_t got;

	if (!spw__spin_try(&w->lock))
		return false;
	got = f->io.read(f->io.ctx, window_data(f, w), want, from);
	__atomic_store_n(&w->first, from, __ATOMIC_RELAXED);
	__atomic_store_n(&w->bytes, got > 0 ? (uint32_t)got : 0, __ATOMIC_RELAXED);
	note_use(f, w);
	spw__spin_unlock(&w->lock);
	return got > 0 && covers(w, p);
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

int spw__file_get(struct spw_tier *t, spw_entry_t e, spw_slot_t s, void *buf)
{
	struct spw__file *f = spw__file_of(t);
	uint64_t offset = spw__slot_offset(s);
	uint32_t len = spw__slot_len(s), skip = offset % SPW__BLOCK;
	uint32_t seg = (uint32_t)((offset - f->sh->first_byte) / SPW_FILE_SEGMENT);
	struct place p = {
		.first = offset - skip,
		.skip = skip,
		.span = spw__file_align(skip + SPW__TAG + len, SPW__BLOCK),
		.len = len,
		.seg = seg,
		.id = {.slot = s.v, .entry = e.idx, .segment = seg},
	};
	int err;

	if (seg >= f->sh->segments)
		return -EBADMSG;
	p.at = (uint32_t)(offset - spw__seg_offset(f->sh, seg));
	p.gen = spw__seg_generation(f->sh, seg);
	SPW__ADD(f->reads, 1);
	bool near = local(f, &p);

	if (from_window(f, &p, buf) || (near && fill_window(f, &p) && from_window(f, &p, buf)))
		return 0;
	err = from_file(f, &p, buf);
	/* Of another generation now: the slot was freed while it was read, and the caller will see that. */
	if (err && spw__seg_generation(f->sh, seg) == p.gen)
		SPW__ADD(f->errors, 1);
	return err;
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
	for (unsigned i = 0; i < SPW__WINDOWS; i++)
		f->window[i].lock = (struct spw__spin){0};
}

uint64_t spw__file_read_memory(const struct spw__file *f)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < SPW__WINDOWS; i++)
		bytes += SPW__LOAD(f->window[i].bytes) ? SPW__WINDOW_BYTES : 0;
	return bytes;
}
