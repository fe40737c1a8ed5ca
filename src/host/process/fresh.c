/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is used for the first time.
 *
 * One wake-up costs more than a page, so pages come in runs. They are mapped to the zero page, which takes no memory
 * until the program writes to them, and the kernel serves that write by itself.
 *
 * But it costs the kernel's fault, and a flush of the old entry on every CPU that the program and we run on: 12 us
 * where the reclaimer is at work on another. A program that fills memory from one end to the other pays that for each
 * page. So a run that is written to and follows one that has been written to the end is put in place as memory of its
 * own, zeroed. What the program does not come to use of it is memory for nothing: such runs are short, and from time to
 * time one is the zero page again, for nothing else shows what has been written to.
 *
 * UFFDIO_ZEROPAGE leaves a guard (MADV_GUARD_INSTALL) in place, UFFDIO_COPY does not: so a run of memory ends before
 * anything that the page map shows.
 */
#include "host/process/fresh.h"
#include "host/process/agent.h"
#include "host/process/pagemap.h"
#include "host/uffd.h"
#include "platform/platform.h"

#include <errno.h>

#define RUN     (2u << 20) /* bytes mapped for one fault at most */
#define RUN_MIN (64u << 10)
#define FILL    15u /* pages of memory for one fault: few steps of programs go on where it ends */
#define FILLS   32u /* runs of memory, and then one that can be judged */
#define LOOK    16u /* the last pages of a run, by which it is judged */
#define OURS    (SPW_PM_PRESENT | SPW_PM_EXCLUSIVE)

int spw__fresh_init(struct spw__agent *a)
{
	a->zeros = spw__plat_reserve((size_t)FILL * SPW_PAGE);
	return a->zeros ? 0 : -ENOMEM;
}

/* Has the end of it been written to? The zero page is nobody's alone. */
static bool written(const struct spw__agent *a, uint64_t from, uint64_t to)
{
	uint64_t pm[LOOK], n = (to - from) / SPW_PAGE, there = 0;

	n = n < LOOK ? n : LOOK;
	if (!spw__pm_read(a, to - n * SPW_PAGE, pm, n))
		return false;
	for (unsigned i = 0; i < n; i++)
		there += (pm[i] & OURS) == OURS;
	return there == n;
}

/* Where a run from va on ends that may go to `stop`: at the end of the region, or where something is out. */
static uint64_t end_of(struct spw__agent *a, uint64_t va, uint64_t stop)
{
	const struct spw__region *g = spw__regions_at(&a->regions, va);

	if (!g || g->start > va)
		return va + SPW_PAGE;
	return spw__pt_next_out(&a->pt, va, stop < g->end ? stop : g->end);
}

/* Bytes put in place, or -errno. */
static long fill(struct spw__agent *a, uint64_t va)
{
	uint64_t end = end_of(a, va, va + (uint64_t)FILL * SPW_PAGE), pages = (end - va) / SPW_PAGE, pm[FILL], n = 0;

	if (!spw__pm_read(a, va, pm, pages))
		return -EIO;
	while (n < pages && !(pm[n] & (SPW_PM_PRESENT | SPW_PM_SWAP)))
		n++;
	if (!n)
		return -EEXIST;
	spw__event_missing(a, va, va + n * SPW_PAGE);
	return spw__uffd_copy_quiet(a->uffd, (void *)(uintptr_t)va, a->zeros, n * SPW_PAGE);
}

/* The same with the zero page. */
static long map_zeros(struct spw__agent *a, uint64_t va)
{
	int64_t spare = (int64_t)spw__agent_target(a) - __atomic_load_n(&a->resident, __ATOMIC_RELAXED);
	uint64_t run = spare > 4 * (int64_t)RUN ? RUN : RUN_MIN, end = end_of(a, va, (va / run + 1) * run);

	spw__event_missing(a, va, end);
	long done = spw__uffd_zero(a->uffd, (void *)(uintptr_t)va, end - va);

	/* The run may reach into another mapping; the page that was asked for does not. */
	if (done < 0 && end - va > SPW_PAGE)
		done = spw__uffd_zero(a->uffd, (void *)(uintptr_t)va, SPW_PAGE);
	return done;
}

unsigned spw__fresh_serve(struct spw__agent *a, uint64_t va, bool write, bool *filled)
{
	struct spw__fresh *f = &a->fresh;
	unsigned i = 0;
	long done = -ENOENT;

	while (i < SPW__FRESH_RUNS && f->run[i].to != va)
		i++;
	uint32_t fills = i < SPW__FRESH_RUNS ? f->run[i].filled : 0;

	if (write && i < SPW__FRESH_RUNS && fills < FILLS && (fills || written(a, f->run[i].from, va)))
		done = fill(a, va);
	*filled = done > 0;
	if (done <= 0 && done != -EAGAIN)
		done = map_zeros(a, va);
	if (done <= 0)
		return 0;
	if (i == SPW__FRESH_RUNS && write)
		i = f->hand++ % SPW__FRESH_RUNS;
	if (i < SPW__FRESH_RUNS) {
		f->run[i].from = va;
		f->run[i].to = va + (uint64_t)done;
		f->run[i].filled = *filled ? fills + 1 : 0;
	}
	return (unsigned)((uint64_t)done / SPW_PAGE);
}
