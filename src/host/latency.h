/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_HOST_LATENCY_H
#define SPW_HOST_LATENCY_H
/* A log-linear histogram of nanoseconds: 8 steps an octave, so a bucket is at most 12.5 % wide. */
#include <stdint.h>

static inline unsigned spw__lat_bucket(uint64_t ns)
{
	if (ns < 8)
		return (unsigned)ns;
	unsigned octave = 63u - (unsigned)__builtin_clzll(ns);
	return (octave - 2) * 8 + (unsigned)(ns >> (octave - 3) & 7);
}

/* The smallest value of a bucket, the inverse of the above. */
static inline uint64_t spw__lat_floor(unsigned bucket)
{
	if (bucket < 16)
		return bucket;
	unsigned octave = bucket / 8 + 2;
	return (uint64_t)(8 + bucket % 8) << (octave - 3);
}
#endif
