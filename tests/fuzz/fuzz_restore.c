/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an object of any coding: restore must stay inside of what it is given, and what LZ4's own decoder takes
 * for a page too must be the same page. (LZ4's takes the invalid distance 0, so it may take more.)
 */
#include "codec/codec.h"

#include <lz4.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *work_area(void)
{
	static const struct spw_codec codec = {.coding = SPW_CODING_LZ4};
	static void *work;

	if (!work) {
		work = aligned_alloc(64, (spw__codec_work_size(&codec) + 63) / 64 * 64);
		if (!work || spw__codec_work_init(&codec, work))
			abort();
	}
	return work;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *exact, *page, expected[SPW_PAGE];
	struct spw_obj o;
	int err;

	if (size < 2 || size > SPW_PAGE + 1)
		return 0;
	o = (struct spw_obj){.len = (uint32_t)size - 1, .coding = data[0] & 3};
	exact = malloc(o.len);
	page = malloc(SPW_PAGE);
	memcpy(exact, data + 1, o.len);
	o.data = exact;
	err = spw__codec_restore(work_area(), &o, page);
	if (!err && o.coding == SPW_CODING_LZ4 &&
	    LZ4_decompress_safe((const char *)exact, (char *)expected, (int)o.len, SPW_PAGE) == SPW_PAGE &&
	    memcmp(page, expected, SPW_PAGE) != 0)
		abort();
	free(exact);
	free(page);
	return 0;
}
