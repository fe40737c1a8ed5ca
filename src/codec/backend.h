/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_CODEC_BACKEND_H
#define SPW_CODEC_BACKEND_H
/* The compression libraries as codec.c sees them. Sizes and contracts as in codec.h; work areas aligned to 64. */
#include "codec/codec.h"

size_t spw__lz4_work_size(void);
uint32_t spw__lz4_compress(void *work, const void *src, void *dst, uint32_t dst_size);
int spw__lz4_restore(const void *src, uint32_t src_len, void *dst);

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;
size_t spw__zstd_compressor_size(int level);
struct ZSTD_CCtx_s *spw__zstd_compressor_init(void *work, int level);
uint32_t spw__zstd_compress(struct ZSTD_CCtx_s *c, const void *src, void *dst, uint32_t dst_size);
size_t spw__zstd_restorer_size(void);
struct ZSTD_DCtx_s *spw__zstd_restorer_init(void *work);
int spw__zstd_restore(struct ZSTD_DCtx_s *d, const void *src, uint32_t len, void *dst);

#endif
