/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Compressing a page with LZ4, with the state in the caller's work area.
 *
 * The state is a 16 KiB hash table that LZ4 clears for every page, a fifth of the time of an easily compressed one.
 * LZ4's ways to go on with a stale table (the streaming interface, states of less than 4 KiB) were measured: they win
 * that fifth back on pages of zeros and noise and lose as much on text and code, whose every probe then meets a stale
 * position and a mispredicted branch. So the table is cleared, which also makes a page's object depend on nothing but
 * the page.
 */
#include "codec/backend.h"

#include <lz4.h>

#define ACCELERATION 1 /* 2 was 5 % faster on text and code, and lost 3 to 18 % of the ratio */

size_t spw__lz4_work_size(void)
{
	return sizeof(LZ4_stream_t);
}

uint32_t spw__lz4_compress(void *work, const void *src, void *dst, uint32_t dst_size)
{
	return (uint32_t)LZ4_compress_fast_extState(work, src, dst, SPW_PAGE, (int)dst_size, ACCELERATION);
}
