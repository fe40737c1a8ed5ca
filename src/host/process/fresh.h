/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_FRESH_H
#define SPW_PROCESS_FRESH_H
/* Memory that is used for the first time. See fresh.c. */
#include <stdbool.h>
#include <stdint.h>

#define SPW__FRESH_RUNS 8u

struct spw__agent;

/* Zeroed to begin with. Guarded by the host lock. */
struct spw__fresh {
	struct {
		uint64_t from, to; /* pages that were put in place for one fault, bytes */
		uint32_t filled;   /* runs in a row, with memory of their own; 0 = with the zero page */
	} run[SPW__FRESH_RUNS];
	uint32_t hand;
};

/* Make what it needs. 0 or -errno. */
int spw__fresh_init(struct spw__agent *a);
/*
 * The page at va, never used before, is read, or written to. It is put in place, with those that follow; who waits is
 * not woken. Pages put in place: 0, an event is to be read first. *filled: they are memory, not the zero page. Host
 * lock held.
 */
unsigned spw__fresh_serve(struct spw__agent *a, uint64_t va, bool write, bool *filled);
#endif
