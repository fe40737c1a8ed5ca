/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_REGIONS_H
#define SPW_PROCESS_REGIONS_H
/*
 * The ranges of the program's memory that are registered with the agent's userfaultfd, and how new ones are found.
 * See regions.c. All functions need the host lock. Addresses in bytes, whole pages.
 */
#include <stdbool.h>
#include <stdint.h>

#define SPW_REGION_MIN (1u << 20) /* smaller mappings stay the kernel's; the heap is taken at any size */

struct spw__region {
	uint64_t start, end;
};

struct spw__regions {
	struct spw__region *at; /* sorted, disjoint, neighbours joined */
	uint32_t count;
	int maps_fd;    /* /proc/self/maps */
	char *text;     /* buffer for it */
	uint64_t bytes; /* sum of the sizes */
};

int spw__regions_init(struct spw__regions *r);
int spw__regions_add(struct spw__regions *r, uint64_t start, uint64_t end);
void spw__regions_cut(struct spw__regions *r, uint64_t start, uint64_t end);
/* The region that holds va, or the first one after it; NULL if none. */
const struct spw__region *spw__regions_at(const struct spw__regions *r, uint64_t va);
bool spw__regions_cover(const struct spw__regions *r, uint64_t start, uint64_t end);
/*
 * The next piece of a region in [*from, *to): true, and *from and *to are its ends. A walk goes on from there, with *to
 * the end of the whole again. The piece may be cut meanwhile.
 */
bool spw__regions_next(const struct spw__regions *r, uint64_t *from, uint64_t *to);

/*
 * Read the process's map and call take(ctx, start, end, next) for every manageable range that is not covered; next is
 * where the next mapping starts. 0 or -errno, take()'s too.
 */
typedef int spw__take_fn(void *ctx, uint64_t start, uint64_t end, uint64_t next);
int spw__regions_scan(struct spw__regions *r, spw__take_fn *take, void *ctx);
/*
 * The mapping that holds va now: true, *start and *end. False if there is none, if it is shared or a file's, or if the
 * kernel cannot be asked (before Linux 6.11).
 */
bool spw__regions_ask(const struct spw__regions *r, uint64_t va, uint64_t *start, uint64_t *end);
/*
 * In a forked child: call lose(ctx, start, end) for every range of addresses that did not come over with its pages: not
 * mapped, not registered with uffd, or (wiped: looked for too) wiped by MADV_WIPEONFORK. 0 or -errno. To look for wiped
 * ranges the kernel walks the whole page table: slow.
 */
int spw__regions_lost(struct spw__regions *r, int uffd, bool wiped,
		      void (*lose)(void *ctx, uint64_t start, uint64_t end), void *ctx);
#endif
