/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_PLATFORM_LINUX_H
#define SPW_PLATFORM_LINUX_H
/* What the process host asks of the Linux platform beyond platform.h: which memory is Spillway's own. */
#include "platform/platform.h"

#include <stdbool.h>

#define SPW_PLAT_RANGES 128u /* reservations that may exist at once */

struct spw__plat_range {
	uintptr_t base;
	size_t bytes;
};

/* Whether p lies in a reservation. Any thread, no lock. */
bool spw__plat_owns(const void *p);

/* Copies the reservations to out, in no order. Returns how many there are, at most SPW_PLAT_RANGES. */
unsigned spw__plat_ranges(struct spw__plat_range out[SPW_PLAT_RANGES]);

#endif
