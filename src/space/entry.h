/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_SPACE_ENTRY_H
#define SPW_SPACE_ENTRY_H
/*
 * The two handles of Spillway, each a struct type of its own so that the compiler keeps them apart.
 *
 * An entry is what a page table holds for a page that is out. It is stable: it never says where the bytes are, so
 * nothing that holds one has to be found when the bytes move. A slot is a location in one tier and changes whenever
 * they do.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPW_PAGE       4096u      /* bytes of a page */
#define SPW_CLUSTER    512u       /* entries of a cluster: one page of descriptors */
#define SPW_MAX_TIERS  16u        /* tier numbers fit in 4 bits */
#define SPW_UNIT       16u        /* granule of a location, bytes */
#define SPW_ENTRY_NONE UINT32_MAX /* the index no entry has */

typedef struct spw_entry {
	uint32_t idx; /* index of the descriptor; idx / SPW_CLUSTER is the cluster */
} spw_entry_t;

/* How the bytes of an object are coded. Two bits of the slot. */
enum spw_coding { SPW_CODING_RAW = 0, SPW_CODING_LZ4 = 1, SPW_CODING_ZSTD = 2 };

/*
 * A slot: 54 bits. bits 0-11 length - 1 of the stored object in bytes (1..4096), 12-13 coding, 14-49 offset in units
 * of SPW_UNIT bytes (1 TiB a tier), 50-53 tier number. The length and the coding travel with the location so that no
 * tier needs a header of its own to know them.
 */
typedef struct spw_slot {
	uint64_t v;
} spw_slot_t;

#define SPW_SLOT_BITS 54
#define SPW_SLOT_NONE ((spw_slot_t){UINT64_MAX})

static inline spw_slot_t spw__slot(unsigned tier, uint64_t offset, unsigned coding, unsigned len)
{
	return (spw_slot_t){(uint64_t)(len - 1) | (uint64_t)coding << 12 | (offset / SPW_UNIT) << 14 |
			    (uint64_t)tier << 50};
}

static inline unsigned spw__slot_len(spw_slot_t s)
{
	return (unsigned)(s.v & 0xfff) + 1;
}

static inline unsigned spw__slot_coding(spw_slot_t s)
{
	return (unsigned)(s.v >> 12) & 3;
}

static inline uint64_t spw__slot_offset(spw_slot_t s)
{
	return ((s.v >> 14) & 0xfffffffffull) * SPW_UNIT;
}

static inline unsigned spw__slot_tier(spw_slot_t s)
{
	return (unsigned)(s.v >> 50) & 0xf;
}

static inline bool spw__slot_same(spw_slot_t a, spw_slot_t b)
{
	return a.v == b.v;
}

/* A page in its stored form: what travels between tiers, never decompressed on the way. */
struct spw_obj {
	const void *data;
	uint32_t len; /* 1..SPW_PAGE; SPW_PAGE only when coding is RAW */
	uint8_t coding;
};

#endif
