/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * One page through Zstandard with both contexts in the caller's work area.
 *
 * Zstandard's contexts allocate, and a context for any input takes a megabyte and more. Static contexts never
 * allocate; sized for a source of one page they take 50 to 400 KiB by level. The frame is stripped of what the slot
 * already says: magic number, content size, checksum, dictionary. Two bytes of header stay.
 */
#define ZSTD_STATIC_LINKING_ONLY
#include "codec/backend.h"

#include <errno.h>
#include <zstd.h>

size_t spw__zstd_compressor_size(int level)
{
	return ZSTD_estimateCCtxSize_usingCParams(ZSTD_getCParams(level, SPW_PAGE, 0));
}

struct ZSTD_CCtx_s *spw__zstd_compressor_init(void *work, int level)
{
	ZSTD_CCtx *c = ZSTD_initStaticCCtx(work, spw__zstd_compressor_size(level));

	if (!c || ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_format, ZSTD_f_zstd1_magicless)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 0)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_dictIDFlag, 0)))
		return NULL;
	return c;
}

uint32_t spw__zstd_compress(struct ZSTD_CCtx_s *c, const void *src, void *dst, uint32_t dst_size)
{
	size_t len = ZSTD_compress2(c, dst, dst_size, src, SPW_PAGE);

	return ZSTD_isError(len) ? 0 : (uint32_t)len;
}

size_t spw__zstd_restorer_size(void)
{
	return ZSTD_estimateDCtxSize();
}

struct ZSTD_DCtx_s *spw__zstd_restorer_init(void *work)
{
	ZSTD_DCtx *d = ZSTD_initStaticDCtx(work, ZSTD_estimateDCtxSize());

	if (!d || ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_format, ZSTD_f_zstd1_magicless)))
		return NULL;
	return d;
}

int spw__zstd_restore(struct ZSTD_DCtx_s *d, const void *src, uint32_t len, void *dst)
{
	return ZSTD_decompressDCtx(d, dst, SPW_PAGE, src, len) == SPW_PAGE ? 0 : -EBADMSG;
}
