/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_BENCH_PAGES_H
#define SPW_BENCH_PAGES_H
/* The pages that are measured with: each different, made from its number. */
#include <stdint.h>
#include <string.h>

#define PAGE  4096u
#define PART  512u
#define NOISE 168u /* bytes of a part, of a page that compresses 3:1 */

/* splitmix64: any state gives good noise, so a page's needs no more than its number. */
static inline uint64_t noise(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* Page n of a set: of each part the first `bytes`, whole words, are noise, the rest zeros. */
static inline void make_noisy_page(uint64_t n, unsigned bytes, char *page)
{
	uint64_t state = n << 20, word;

	for (unsigned part = 0; part < PAGE; part += PART) {
		for (unsigned i = 0; i < bytes; i += sizeof(word)) {
			word = noise(&state);
			memcpy(page + part + i, &word, sizeof(word));
		}
		memset(page + part + bytes, 0, PART - bytes);
	}
}

/* A third of it noise, so it compresses 3:1. */
static inline void make_page(uint64_t n, char *page)
{
	make_noisy_page(n, NOISE, page);
}

#endif
