/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Pages to objects and back, by the coding that the object's slot names.
 *
 * Pages are compressed and restored inside faults of a program whose allocator may be what faulted, so a codec may not
 * allocate. Everything that it needs lies in one work area:
 *
 *	struct work | restorer (zstd; lz4 needs none) | compressor of the configured coding
 *
 * Every work area restores every coding, because a tier may hold objects of another process's codec. Memory of
 * the restorer that is never used is never touched.
 */
#include "codec/backend.h"

#include <errno.h>
#include <string.h>

#define ZSTD_MIN_LEVEL 1
#define ZSTD_MAX_LEVEL 19
#define ALIGN          64u

struct work {
	struct ZSTD_DCtx_s *restorer;
	union {
		void *lz4;
		struct ZSTD_CCtx_s *zstd;
	};
};

static size_t aligned(size_t bytes)
{
	return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

/* What follows word in text; NULL if text does not begin with it. */
static const char *after(const char *text, const char *word)
{
	while (*word)
		if (*text++ != *word++)
			return NULL;
	return text;
}

int spw__codec_parse(const char *text, struct spw_codec *out)
{
	const char *rest = after(text, "lz4");
	int level = 0;

	if (rest && !*rest) {
		*out = (struct spw_codec){.coding = SPW_CODING_LZ4};
		return 0;
	}
	rest = after(text, "zstd");
	if (rest && !*rest) {
		*out = (struct spw_codec){.coding = SPW_CODING_ZSTD, .level = ZSTD_MIN_LEVEL};
		return 0;
	}
	rest = after(text, "zstd:");
	if (!rest)
		return -EINVAL;
	for (; *rest; rest++) {
		if (*rest < '0' || *rest > '9')
			return -EINVAL;
		level = level * 10 + (*rest - '0');
		if (level > ZSTD_MAX_LEVEL)
			return -EINVAL;
	}
	if (level < ZSTD_MIN_LEVEL)
		return -EINVAL;
	*out = (struct spw_codec){.coding = SPW_CODING_ZSTD, .level = level};
	return 0;
}

static size_t compressor_offset(void)
{
	return aligned(sizeof(struct work)) + aligned(spw__zstd_restorer_size());
}

size_t spw__codec_work_size(const struct spw_codec *c)
{
	size_t compressor = c->coding == SPW_CODING_LZ4 ? spw__lz4_work_size() : spw__zstd_compressor_size(c->level);

	return compressor_offset() + aligned(compressor);
}

int spw__codec_work_init(const struct spw_codec *c, void *work)
{
	struct work *w = work;
	void *compressor = (char *)work + compressor_offset();

	w->restorer = spw__zstd_restorer_init((char *)work + aligned(sizeof(*w)));
	if (!w->restorer)
		return -EINVAL;
	if (c->coding == SPW_CODING_LZ4) {
		w->lz4 = compressor;
		return 0;
	}
	if (c->coding != SPW_CODING_ZSTD || c->level < ZSTD_MIN_LEVEL || c->level > ZSTD_MAX_LEVEL)
		return -EINVAL;
	w->zstd = spw__zstd_compressor_init(compressor, c->level);
	return w->zstd ? 0 : -EINVAL;
}

uint32_t spw__codec_compress(const struct spw_codec *c, void *work, const void *src, void *dst, uint32_t dst_size)
{
	struct work *w = work;

	if (c->coding == SPW_CODING_LZ4)
		return spw__lz4_compress(w->lz4, src, dst, dst_size);
	return spw__zstd_compress(w->zstd, src, dst, dst_size);
}

int spw__codec_restore(void *work, const struct spw_obj *o, void *dst)
{
	struct work *w = work;

	switch (o->coding) {
	case SPW_CODING_RAW:
		if (o->len != SPW_PAGE)
			return -EBADMSG;
		memcpy(dst, o->data, SPW_PAGE);
		return 0;
	case SPW_CODING_LZ4:
		return spw__lz4_restore(o->data, o->len, dst);
	case SPW_CODING_ZSTD:
		return spw__zstd_restore(w->restorer, o->data, o->len, dst);
	default:
		return -EBADMSG;
	}
}
