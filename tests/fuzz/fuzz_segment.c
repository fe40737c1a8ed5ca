/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a segment read back from the file. The seals would keep nearly all of them from the reader, so some
 * batches get owners that are sealed as they should be and lie about everything: what the reader returns must still
 * lie inside of the segment, and it must come to an end.
 */
#include "tier/file_internal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FOOTER_BYTES 16u
#define OFFSET       (7ull * SPW_FILE_SEGMENT)

/* The last batch of `blocks` blocks: n owners from the input, sealed, for objects from block `base` on. */
static void forge_batch(const struct spw__seg_place *p, uint8_t *segment, uint32_t blocks, uint32_t base, uint32_t n)
{
	uint32_t end = blocks * SPW__BLOCK, size = spw__owners_size(n), from = base * SPW__BLOCK;
	uint32_t footer[4], bytes = n * (uint32_t)sizeof(struct spw__owner);
	struct spw__seal_id id = {.slot = p->offset + from, .entry = n, .segment = p->seg};

	if (!n || from >= end || size > end - from)
		return;
	spw__seal(p->seal, p->gen, end - size, &id, segment + end - size + SPW__TAG, bytes, segment + end - size);
	memcpy(footer, "SpwS", 4);
	footer[1] = n;
	footer[2] = from;
	footer[3] = 0;
	memcpy(segment + end - FOOTER_BYTES, footer, sizeof(footer));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t key[SPW_FILE_KEY];
	static uint8_t segment[SPW_FILE_SEGMENT];
	static struct spw__seal seal;
	struct spw__seg_place place = {.seal = &seal, .gen = 5, .offset = OFFSET, .seg = 7, .tier = 2};
	struct spw__seg_reader r;
	uint64_t bad = 0, objects = 0;
	struct spw_obj o;
	spw_entry_t e;
	spw_slot_t s;

	if (spw__seal_init(&seal, key, size && data[0] & 1))
		abort();
	memset(segment, 0, sizeof(segment));
	/* From the end, where the reader begins. */
	size = size < SPW_FILE_SEGMENT ? size : SPW_FILE_SEGMENT;
	memcpy(segment + SPW_FILE_SEGMENT - size, data, size);
	for (size_t i = 1; i + 4 <= size && i < 32; i += 4) {
		uint32_t n = data[i + 2] | (uint32_t)data[i + 3] << 8;

		/* Few owners mostly, as each costs an unsealing. */
		forge_batch(&place, segment, data[i] % SPW__SEG_BLOCKS + 1, data[i + 1] % SPW__SEG_BLOCKS,
			    n == UINT16_MAX ? SPW__MOVES_MAX + 1 : n % 256);
	}
	spw__seg_reader_init(&r, &place, segment);
	while (spw__seg_next(&r, &e, &s, &o, &bad)) {
		const uint8_t *bytes = o.data;

		if (bytes < segment + SPW__TAG || o.len > SPW_PAGE || bytes + o.len > segment + SPW_FILE_SEGMENT ||
		    spw__slot_offset(s) != OFFSET + (uint64_t)(bytes - segment) - SPW__TAG ||
		    ++objects > SPW__MOVES_MAX)
			abort();
	}
	if (bad > SPW__MOVES_MAX * (uint64_t)SPW__SEG_BLOCKS)
		abort();
	return 0;
}
