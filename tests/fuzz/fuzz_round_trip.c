/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any page must come back. The input is a small program that writes the page by literals and by copies, because
 * mutated bytes alone hardly ever have the long matches that decoders are subtle about. First byte: codec.
 */
#include "codec/codec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CODECS 4u

static void *work_area(unsigned i, struct spw_codec *codec)
{
	static const char *const names[CODECS] = {"lz4", "zstd", "zstd:5", "zstd:13"};
	static void *work[CODECS];

	if (spw__codec_parse(names[i], codec))
		abort();
	if (!work[i]) {
		work[i] = aligned_alloc(64, (spw__codec_work_size(codec) + 63) / 64 * 64);
		if (!work[i] || spw__codec_work_init(codec, work[i]))
			abort();
	}
	return work[i];
}

/* Steps of three bytes: even first byte, that many literals of the other two; odd, a copy of a distance. */
static void write_page(uint8_t *page, const uint8_t *data, size_t size)
{
	size_t at = 0;

	memset(page, 0, SPW_PAGE);
	for (; size >= 3 && at < SPW_PAGE; data += 3, size -= 3) {
		size_t len = data[0] & 1 ? (size_t)data[0] * 4 : data[0] / 2u;
		size_t distance = (data[1] | (size_t)data[2] << 8) % SPW_PAGE + 1;

		for (; len && at < SPW_PAGE; len--, at++)
			if (data[0] & 1)
				page[at] = at < distance ? 0 : page[at - distance];
			else
				page[at] = (uint8_t)(data[1] + at * data[2]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t page[SPW_PAGE], obj[SPW_PAGE], *exact, *back;
	struct spw_codec codec;
	struct spw_obj o;
	void *work;

	if (!size)
		return 0;
	work = work_area(data[0] % CODECS, &codec);
	write_page(page, data + 1, size - 1);
	o.len = spw__codec_compress(&codec, work, page, obj, SPW_PAGE);
	if (!o.len)
		return 0;
	exact = malloc(o.len);
	back = malloc(SPW_PAGE);
	memcpy(exact, obj, o.len);
	o.data = exact;
	o.coding = codec.coding;
	if (spw__codec_restore(work, &o, back) || memcmp(back, page, SPW_PAGE) != 0)
		abort();
	free(exact);
	free(back);
	return 0;
}
