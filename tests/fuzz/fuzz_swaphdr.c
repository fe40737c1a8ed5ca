/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any page as a swap header: what is taken for one must keep its own word about pages and bad pages, and must come back
 * the same from the page that it is formatted to. Most pages lack the signature, so that is put there unless the
 * input says otherwise; what the input leaves of the page is zeros, which keeps inputs short.
 */
#include "tier/swaphdr.h"

#include <byteswap.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FIELDS  1024u /* where the version is, */
#define HEAD    44u   /* and the bytes from there to the end of the label */
#define BAD     1536u /* where the bad pages are */
#define NO_MARK 0x80

static void require(int truth)
{
	if (!truth)
		abort();
}

/* A page from the input: the fields, then bad pages. */
static void make(uint8_t *page, const uint8_t *data, size_t size, uint8_t how)
{
	size_t head = size < HEAD ? size : HEAD, list = size - head;

	memset(page, 0, SPW_SWAPHDR_BYTES);
	memcpy(page + FIELDS, data, head);
	memcpy(page + BAD, data + head, list < SPW_SWAPHDR_BYTES - BAD ? list : SPW_SWAPHDR_BYTES - BAD);
	if (!(how & NO_MARK))
		memcpy(page + SPW_SWAPHDR_BYTES - 10, "SWAPSPACE2", 10);
	if (how & 1)
		memcpy(page + FIELDS, &(uint32_t){1}, 4);
	if (how & 2)
		memcpy(page + FIELDS, &(uint32_t){bswap_32(1)}, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct spw_swaphdr h, again;
	uint8_t *page = malloc(SPW_SWAPHDR_BYTES); /* exact, so that a read past it is seen */

	if (!page || !size)
		return free(page), 0;
	make(page, data + 1, size - 1, data[0]);
	if (!spw__swaphdr_parse(page, &h)) {
		require(!memcmp(page + SPW_SWAPHDR_BYTES - 10, "SWAPSPACE2", 10));
		require(h.last_page && h.bad_pages <= SPW_SWAPHDR_BAD);
		for (uint32_t i = 0; i < h.bad_pages; i++)
			require(h.bad[i] && h.bad[i] <= h.last_page);
		require(strnlen(h.label, sizeof(h.label)) <= SPW_SWAPHDR_LABEL);
		spw__swaphdr_format(&h, page);
		require(!spw__swaphdr_parse(page, &again));
		require(!memcmp(&h, &again, sizeof(h)));
	}
	free(page);
	return 0;
}
