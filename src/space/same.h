/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_SPACE_SAME_H
#define SPW_SPACE_SAME_H
/* Same-filled pages: told from others, and made again from the one word that fills them. */
#include "space/entry.h"

#include <string.h>

/* Whether all 32-bit words of the page are equal. Most pages that are not say so in the first or the last words. */
static inline bool spw__same_filled(const void *page, uint32_t *pattern)
{
	const unsigned char *p = page;
	uint32_t second, last;

	memcpy(pattern, p, sizeof(*pattern));
	memcpy(&second, p + 4, sizeof(second));
	memcpy(&last, p + SPW_PAGE - 4, sizeof(last));
	return *pattern == second && *pattern == last && !memcmp(p, p + 4, SPW_PAGE - 4);
}

static inline void spw__same_fill(void *page, uint32_t pattern)
{
	unsigned char *p = page;

	if (pattern == (pattern & 0xff) * 0x01010101u) {
		memset(p, (int)(pattern & 0xff), SPW_PAGE);
		return;
	}
	memcpy(p, &pattern, sizeof(pattern));
	for (size_t done = sizeof(pattern); done < SPW_PAGE; done *= 2)
		memcpy(p + done, p, done);
}

#endif
