/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_PROCESS_COW_H
#define SPW_PROCESS_COW_H
/* Writes to pages that a fork shared. See cow.c. */
#include <stdint.h>

struct spw__agent;

/* Before a fork: from here on a write to what is shared asks the handler. Host lock held. */
void spw__cow_guard(struct spw__agent *a);
/*
 * [va, va + bytes) may be written to; `count` bytes of it are taken as copied. 0 or -errno, then nothing is changed.
 * Any thread of ours.
 */
int spw__cow_open(struct spw__agent *a, uint64_t va, uint64_t bytes, uint64_t count);
/* Nobody shares much any more: no write asks. Host lock held. */
void spw__cow_lift(struct spw__agent *a);
#endif
