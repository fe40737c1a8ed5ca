/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_CODEC_H
#define SPW_CODEC_H
/*
 * Codecs turn one 4 KiB page into an object and back. No allocation: each thread brings a work area of
 * spw__codec_work_size() bytes, aligned to 64, prepared once by spw__codec_work_init(). One work area serves one
 * thread at a time; nothing else is shared. Decompression is bounds-checked and safe on hostile bytes.
 */
#include "space/entry.h"

struct spw_codec {
	uint8_t coding; /* what compress produces: SPW_CODING_LZ4 or SPW_CODING_ZSTD */
	int level;      /* zstd 1..19 (default 1); unused by lz4 */
};

/* "lz4", "zstd", "zstd:LEVEL". 0, or -EINVAL for anything else. */
int spw__codec_parse(const char *text, struct spw_codec *out);

/* Bytes of work area that compress with c and decompress of every coding need. */
size_t spw__codec_work_size(const struct spw_codec *c);
int spw__codec_work_init(const struct spw_codec *c, void *work);

/*
 * Compress the page at src into dst (dst_size bytes). Returns the length (1..dst_size), or 0 when it does not fit:
 * the caller then stores the page raw.
 */
uint32_t spw__codec_compress(const struct spw_codec *c, void *work, const void *src, void *dst, uint32_t dst_size);

/*
 * Restore the page of an object (any coding, RAW too) into dst, SPW_PAGE bytes. 0, or -EBADMSG when the bytes do not
 * decode to exactly one page; dst is then undefined.
 */
int spw__codec_restore(void *work, const struct spw_obj *o, void *dst);

#endif
