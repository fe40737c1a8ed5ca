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
 * own, zeroed. What the program does not come to use of it is memory for nothing; so it is short, and of a length that
 * leaves a program with a step of some power of two beside the end.
 */
#include "host/process/fresh.h"
#include "host/process/agent.h"
#include "host/uffd.h"
#include "platform/platform.h"
#include "platform/sys.h"

#include <errno.h>

#define RUN          (2u << 20) /* bytes mapped for one fault at most */
#define RUN_MIN      (64u << 10)
#define FILL         (15u * SPW_PAGE) /* bytes of memory for one fault: no step of a program's */
#define LOOK         16u              /* the last pages of a run, by which it is judged */
#define PM_PRESENT   (1ull << 63)
#define PM_EXCLUSIVE (1ull << 56)

int spw__fresh_init(struct spw__agent *a)
{
	a->zeros = spw__plat_reserve(FILL);
	return a->zeros ? 0 : -ENOMEM;
}

/* Has the end of it been written to? The zero page is nobody's alone. */
static bool written(const struct spw__agent *a, uint64_t from, uint64_t to)
{
	uint64_t pm[LOOK], n = (to - from) / SPW_PAGE, there = 0;

	n = n < LOOK ? n : LOOK;
	if (spw__sys4(SYS_pread64, a->pagemap_fd, pm, n * sizeof(pm[0]), (to / SPW_PAGE - n) * sizeof(pm[0])) !=
	    (long)(n * sizeof(pm[0])))
		return false;
	for (unsigned i = 0; i < n; i++)
		there += (pm[i] & (PM_PRESENT | PM_EXCLUSIVE)) == (PM_PRESENT | PM_EXCLUSIVE);
	return there == n;
}

/* The run that ends at va, or one to be used anew. */
static unsigned run_before(struct spw__fresh *f, uint64_t va)
{
	for (unsigned i = 0; i < SPW__FRESH_RUNS; i++) {
		if (f->run[i].to == va)
			return i;
	}
	unsigned i = f->hand++ % SPW__FRESH_RUNS;

	f->run[i].to = 0;
	return i;
}

/* Where a run from va on ends that may go to `stop`: at the end of the region, or where something is out. */
static uint64_t end_of(struct spw__agent *a, uint64_t va, uint64_t stop)
{
	const struct spw__region *g = spw__regions_at(&a->regions, va);

	if (!g || g->start > va)
		return va + SPW_PAGE;
	return spw__pt_next_out(&a->pt, va, stop < g->end ? stop : g->end);
}

static long map_zeros(struct spw__agent *a, uint64_t va)
{
	int64_t spare = (int64_t)spw__agent_target(a) - __atomic_load_n(&a->resident, __ATOMIC_RELAXED);
	uint64_t run = spare > 4 * (int64_t)RUN ? RUN : RUN_MIN, end = end_of(a, va, (va / run + 1) * run);
	long done = spw__uffd_zero(a->uffd, (void *)(uintptr_t)va, end - va);

	/* The run may reach into another mapping; the page that was asked for does not. */
	if (done < 0 && end - va > SPW_PAGE)
		done = spw__uffd_zero(a->uffd, (void *)(uintptr_t)va, SPW_PAGE);
	return done;
}

unsigned spw__fresh_serve(struct spw__agent *a, uint64_t va, bool write)
{
	struct spw__fresh *f = &a->fresh;
	unsigned i = run_before(f, va);
	bool fill = write && f->run[i].to == va && (f->run[i].filled || written(a, f->run[i].from, f->run[i].to));
	long done = -ENOENT;

	if (fill)
		done = spw__uffd_copy_quiet(a->uffd, (void *)(uintptr_t)va, a->zeros, end_of(a, va, va + FILL) - va);
	f->run[i].filled = done > 0;
	if (done <= 0)
		done = map_zeros(a, va);
	if (done <= 0)
		return 0;
	f->run[i].from = va;
	f->run[i].to = va + (uint64_t)done;
	return (unsigned)((uint64_t)done / SPW_PAGE);
}
