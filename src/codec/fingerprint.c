/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * What is stored has just been compressed, in 2 us or so, and to know it again should not cost half as much once more.
 * SipHash of libsodium takes 1.1 us for an object of 2 KiB, XXH3 0.1. XXH3 does not promise that its numbers cannot be
 * made to meet; as equal numbers prove nothing here, all that this could bring about is that equal pages are not found.
 */
#include "codec/fingerprint.h"

#include <xxhash.h>

uint64_t spw__fingerprint(const struct spw_obj *o, uint64_t key)
{
	return XXH3_64bits_withSeed(o->data, o->len, key ^ o->coding);
}
