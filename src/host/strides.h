/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_HOST_STRIDES_H
#define SPW_HOST_STRIDES_H
/*
 * Pages that a thread asks for at equal steps. See strides.c.
 *
 * For any thread, without a lock: async-signal-safe. Addresses and steps are bytes.
 */
#include <stdint.h>

#define SPW__STRIDES  8u  /* pages for one fault at most: as many as a file can read at a time, each alone */
#define SPW__STRIDERS 16u /* threads that are told apart, about */

/* Atomics, without order. Zeroed to begin with. */
struct spw__strides {
	struct {
		uint64_t last;   /* address that was asked for */
		int64_t step;    /* from the one before */
		uint32_t window; /* pages fetched for it */
	} of[SPW__STRIDERS];
};

/*
 * The thread (any number that it has for itself) asks for the page at va: how many to fetch, that one the first of
 * them. More than 1: so many, *step from each to the next; < 0 is back. Else *step stays as it is.
 */
unsigned spw__strides_next(struct spw__strides *s, uint64_t thread, uint64_t va, int64_t *step);
#endif
