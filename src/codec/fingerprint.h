/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_FINGERPRINT_H
#define SPW_FINGERPRINT_H
/*
 * A number that equal objects have in common, and others only by chance: for finding them, never for telling that they
 * are equal. key is a secret random number, so that nobody can choose bytes whose numbers meet. Any thread.
 */
#include "space/entry.h"

uint64_t spw__fingerprint(const struct spw_obj *o, uint64_t key);

#endif
