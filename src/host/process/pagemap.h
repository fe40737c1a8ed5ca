/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_PAGEMAP_H
#define SPW_PROCESS_PAGEMAP_H
/* /proc/self/pagemap: a word for each page. (Documentation/admin-guide/mm/pagemap.rst) */
#include "host/process/agent.h"
#include "platform/sys.h"

#define SPW_PM_PRESENT   (1ull << 63)
#define SPW_PM_SWAP      (1ull << 62) /* under migration, in the kernel's own swap, or a guard */
#define SPW_PM_FILE      (1ull << 61) /* or shared memory */
#define SPW_PM_GUARD     (1ull << 58) /* MADV_GUARD_INSTALL (Linux 6.15) */
#define SPW_PM_EXCLUSIVE (1ull << 56) /* mapped once; the zero page is not */

/* The words of `pages` pages from va on. Any thread of ours. */
static inline bool spw__pm_read(const struct spw__agent *a, uint64_t va, uint64_t *pm, uint64_t pages)
{
	return spw__sys4(SYS_pread64, a->pagemap_fd, pm, pages * sizeof(*pm), va / SPW_PAGE * sizeof(*pm)) ==
	       (long)(pages * sizeof(*pm));
}

/* Whether there is a page of memory. */
static inline bool spw__pm_there(uint64_t pm)
{
	return pm & (SPW_PM_PRESENT | SPW_PM_SWAP) && !(pm & SPW_PM_GUARD);
}
#endif
