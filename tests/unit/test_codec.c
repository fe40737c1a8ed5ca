/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codecs: every page comes back exactly, and bytes that are no page never read or write outside of what they were
 * given. Objects and pages lie at the end of exact heap buffers, and guard bytes follow them: AddressSanitizer sees
 * any overrun, and without it an overrun of the output still changes the guard.
 */
#include "codec/codec.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GUARD      64u
#define GUARD_BYTE 0x5a

static uint64_t rng = 88172645463325252u;

static uint32_t random32(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 16);
}

/* Contents as programs have them, from empty to noise. */
enum content {
	ZEROS,
	ONE_BYTE_SET,
	LAST_BYTE_SET,
	RAMP,
	POINTERS,
	WORDS,
	TEXT,
	THIRD_NOISE,
	RUNS,
	SHORT_PERIODS,
	ALMOST_NOISE,
	NOISE,
	CONTENTS
};

static void put_text(uint8_t *page)
{
	static const char *const words[] = {"the ", "page ", "of ", "memory ", "is ", "swapped ", "out, ", "again\n"};
	unsigned at = 0;

	while (at < SPW_PAGE) {
		const char *w = words[random32() % 8];

		for (; *w && at < SPW_PAGE; w++)
			page[at++] = (uint8_t)*w;
	}
}

static void make_page(uint8_t *page, enum content c)
{
	memset(page, 0, SPW_PAGE);
	switch (c) {
	case ONE_BYTE_SET:
		page[random32() % SPW_PAGE] = 1;
		return;
	case LAST_BYTE_SET:
		page[SPW_PAGE - 1] = 1;
		return;
	case TEXT:
		put_text(page);
		return;
	case RUNS:
		for (unsigned at = 0, len; at < SPW_PAGE; at += len) {
			len = 1 + random32() % 300;
			len = len < SPW_PAGE - at ? len : SPW_PAGE - at;
			memset(page + at, (int)random32(), len);
		}
		return;
	case SHORT_PERIODS:
		for (unsigned at = 0, left = 0, period = 1; at < SPW_PAGE; at++, left--) {
			if (!left) {
				left = 40 + random32() % 400;
				period = 1 + random32() % 40;
			}
			page[at] = at < period || left % 64 == 0 ? (uint8_t)random32() : page[at - period];
		}
		return;
	default:
		break;
	}
	for (unsigned i = 0; i < SPW_PAGE; i += 8) {
		uint64_t v = 0;

		if (c == RAMP)
			v = i;
		else if (c == POINTERS)
			v = 0x7f0000000000u + random32() % 0x1000000 * 16u;
		else if (c == WORDS)
			v = random32() % 512;
		else if (c == NOISE || (c == THIRD_NOISE && i < SPW_PAGE / 3) || (c == ALMOST_NOISE && i % 64))
			v = (uint64_t)random32() << 32 | random32();
		memcpy(page + i, &v, 8);
	}
}

struct bench {
	struct spw_codec codec;
	void *work;
	uint8_t *page, *back; /* exact, so that a byte too many is seen */
};

static void *aligned_dirty(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

	assert_non_null(p);
	/* A work area is not promised to be zero. */
	memset(p, 0xa5, bytes);
	return p;
}

static void open_bench(struct bench *b, const char *name)
{
	assert_int_equal(spw__codec_parse(name, &b->codec), 0);
	b->work = aligned_dirty(spw__codec_work_size(&b->codec));
	assert_int_equal(spw__codec_work_init(&b->codec, b->work), 0);
	b->page = malloc(SPW_PAGE);
	b->back = malloc(SPW_PAGE + GUARD);
	memset(b->back + SPW_PAGE, GUARD_BYTE, GUARD);
}

static void close_bench(struct bench *b)
{
	free(b->work);
	free(b->page);
	free(b->back);
}

/* Restores a copy of the object that ends where its buffer ends, to a page that does too. */
static int restore(struct bench *b, const void *data, uint32_t len, unsigned coding)
{
	uint8_t *exact = malloc(len ? len : 1), *out = malloc(SPW_PAGE);
	struct spw_obj o = {.data = exact, .len = len, .coding = (uint8_t)coding};
	int err;

	memcpy(exact, data, len);
	err = spw__codec_restore(b->work, &o, out);
	memcpy(b->back, out, SPW_PAGE);
	free(out);
	o.data = data;
	assert_int_equal(spw__codec_restore(b->work, &o, b->back), err);
	for (unsigned i = 0; i < GUARD; i++)
		assert_int_equal(b->back[SPW_PAGE + i], GUARD_BYTE);
	free(exact);
	return err;
}

static uint32_t compress(struct bench *b, uint8_t *dst, uint32_t dst_size)
{
	uint8_t *exact = malloc(dst_size);
	uint32_t len = spw__codec_compress(&b->codec, b->work, b->page, exact, dst_size);

	assert_true(len <= dst_size);
	memcpy(dst, exact, len);
	free(exact);
	return len;
}

static void test_parse(void **state)
{
	static const char *const bad[] = {"",        "lz",      "lz4 ",    "lz4:1",
					  "zstd:",   "zstd:0",  "zstd:20", "zstd:-1",
					  "zstd:1x", "zstd: 1", "ZSTD",    "zstd:99999999999999999999",
					  "zst",     "zstd1"};
	struct spw_codec c;

	(void)state;
	assert_int_equal(spw__codec_parse("lz4", &c), 0);
	assert_int_equal(c.coding, SPW_CODING_LZ4);
	assert_int_equal(spw__codec_parse("zstd", &c), 0);
	assert_int_equal(c.coding, SPW_CODING_ZSTD);
	assert_int_equal(c.level, 1);
	assert_int_equal(spw__codec_parse("zstd:19", &c), 0);
	assert_int_equal(c.level, 19);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(spw__codec_parse(bad[i], &c), -EINVAL);
}

static void test_init_refuses_what_parse_refuses(void **state)
{
	struct spw_codec good = {.coding = SPW_CODING_ZSTD, .level = 19}, bad = {.coding = SPW_CODING_ZSTD, .level = 0};
	void *work = aligned_dirty(spw__codec_work_size(&good));

	(void)state;
	assert_int_equal(spw__codec_work_init(&bad, work), -EINVAL);
	bad.level = 20;
	assert_int_equal(spw__codec_work_init(&bad, work), -EINVAL);
	bad.coding = SPW_CODING_RAW;
	assert_int_equal(spw__codec_work_init(&bad, work), -EINVAL);
	free(work);
}

static void round_trips(const char *name, unsigned rounds)
{
	uint8_t obj[SPW_PAGE];
	struct bench b;

	open_bench(&b, name);
	for (unsigned i = 0; i < rounds; i++) {
		enum content c = (enum content)(i % CONTENTS);
		uint32_t len;

		make_page(b.page, c);
		len = compress(&b, obj, SPW_PAGE);
		if (!len) {
			assert_true(c >= ALMOST_NOISE);
			continue;
		}
		if (c <= LAST_BYTE_SET)
			assert_true(len < 100);
		assert_int_equal(restore(&b, obj, len, b.codec.coding), 0);
		assert_memory_equal(b.back, b.page, SPW_PAGE);
	}
	close_bench(&b);
}

static void test_lz4_round_trips(void **state)
{
	(void)state;
	round_trips("lz4", 4000);
}

static void test_zstd_round_trips_on_every_level(void **state)
{
	char name[32];

	(void)state;
	for (int level = 1; level <= 19; level++) {
		snprintf(name, sizeof(name), "zstd:%d", level);
		round_trips(name, level < 10 ? 20 * CONTENTS : 2 * CONTENTS);
	}
}

static void test_raw(void **state)
{
	struct bench b;

	(void)state;
	open_bench(&b, "lz4");
	make_page(b.page, NOISE);
	assert_int_equal(restore(&b, b.page, SPW_PAGE, SPW_CODING_RAW), 0);
	assert_memory_equal(b.back, b.page, SPW_PAGE);
	assert_int_equal(restore(&b, b.page, SPW_PAGE - 1, SPW_CODING_RAW), -EBADMSG);
	assert_int_equal(restore(&b, b.page, SPW_PAGE, 3), -EBADMSG);
	close_bench(&b);
}

static void test_work_area_of_one_codec_restores_the_other(void **state)
{
	static const char *const names[] = {"lz4", "zstd"};
	uint8_t obj[2][SPW_PAGE];
	uint32_t len[2];
	struct bench b[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		open_bench(&b[i], names[i]);
		make_page(b[i].page, TEXT);
		len[i] = compress(&b[i], obj[i], SPW_PAGE);
		assert_true(len[i] > 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(restore(&b[i], obj[!i], len[!i], b[!i].codec.coding), 0);
		assert_memory_equal(b[i].back, b[!i].page, SPW_PAGE);
	}
	close_bench(&b[0]);
	close_bench(&b[1]);
}

static void does_not_fit(const char *name)
{
	uint8_t obj[SPW_PAGE];
	struct bench b;

	open_bench(&b, name);
	make_page(b.page, NOISE);
	assert_int_equal(compress(&b, obj, 3072), 0);
	assert_int_equal(compress(&b, obj, SPW_PAGE), 0);
	make_page(b.page, TEXT);
	for (uint32_t len = compress(&b, obj, SPW_PAGE), size = 1; size <= len + 40; size++) {
		uint32_t got = compress(&b, obj, size);

		if (size < len / 2)
			assert_int_equal(got, 0);
		if (!got)
			continue;
		assert_int_equal(restore(&b, obj, got, b.codec.coding), 0);
		assert_memory_equal(b.back, b.page, SPW_PAGE);
	}
	close_bench(&b);
}

static void test_what_does_not_fit_is_refused(void **state)
{
	(void)state;
	does_not_fit("lz4");
	does_not_fit("zstd");
}

/* A page's object depends on nothing that went through the work area before. */
static void test_compression_has_no_memory(void **state)
{
	static const char *const names[] = {"lz4", "zstd", "zstd:12"};
	uint8_t first[SPW_PAGE], again[SPW_PAGE], kept[SPW_PAGE], scratch[SPW_PAGE];

	(void)state;
	for (unsigned n = 0; n < 3; n++) {
		struct bench b;
		uint32_t len;

		open_bench(&b, names[n]);
		make_page(b.page, TEXT);
		memcpy(kept, b.page, SPW_PAGE);
		len = compress(&b, first, SPW_PAGE);
		for (unsigned i = 0; i < 50; i++) {
			make_page(b.page, (enum content)(i % CONTENTS));
			compress(&b, scratch, i % 2 ? SPW_PAGE : 100);
		}
		memcpy(b.page, kept, SPW_PAGE);
		assert_int_equal(compress(&b, again, SPW_PAGE), len);
		assert_memory_equal(first, again, len);
		close_bench(&b);
	}
}

static void hostile(const char *name)
{
	uint8_t obj[SPW_PAGE], bent[SPW_PAGE];
	struct bench b;

	open_bench(&b, name);
	for (unsigned i = 0; i < 1200; i++) {
		uint32_t len, bits;

		make_page(b.page, (enum content)(i % CONTENTS));
		len = compress(&b, obj, SPW_PAGE);
		if (!len)
			continue;
		/* Cut short, it may never pass for the page. */
		assert_int_equal(restore(&b, obj, random32() % len, b.codec.coding), -EBADMSG);
		memcpy(bent, obj, len);
		bits = 1 + random32() % 8;
		while (bits--)
			bent[random32() % len] ^= (uint8_t)(1u << random32() % 8);
		restore(&b, bent, len, b.codec.coding);
		/* The pair of lengths that a wrong slot could bring. */
		memset(bent + len, 0, sizeof(bent) - len);
		restore(&b, bent, 1 + random32() % SPW_PAGE, b.codec.coding);
		/* Whatever happened, the work area still works. */
		assert_int_equal(restore(&b, obj, len, b.codec.coding), 0);
		assert_memory_equal(b.back, b.page, SPW_PAGE);
	}
	for (unsigned i = 0; i < 20000; i++) {
		uint32_t len = 1 + random32() % (i % 2 ? 40 : SPW_PAGE);

		for (uint32_t at = 0; at < len; at++)
			bent[at] = (uint8_t)(random32() % 4 ? random32() : 0);
		restore(&b, bent, len, b.codec.coding);
	}
	close_bench(&b);
}

static void test_hostile_bytes_stay_in_bounds(void **state)
{
	(void)state;
	hostile("lz4");
	hostile("zstd");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_init_refuses_what_parse_refuses),
		cmocka_unit_test(test_lz4_round_trips),
		cmocka_unit_test(test_zstd_round_trips_on_every_level),
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_work_area_of_one_codec_restores_the_other),
		cmocka_unit_test(test_what_does_not_fit_is_refused),
		cmocka_unit_test(test_compression_has_no_memory),
		cmocka_unit_test(test_hostile_bytes_stay_in_bounds),
	};

	return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
