/* SPDX-License-Identifier: Apache-2.0 */
/* The swap header as bytes, and ghosts, which are opened for nothing but their header. */
#include "tier/swaphdr.h"

#include <byteswap.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cmd/say.h"
#include "cmd/swapfile.h"

/* Where the fields are, said a second time and not by the struct under test. */
#define VERSION   1024
#define LAST_PAGE 1028
#define BAD_PAGES 1032
#define UUID      1036
#define LABEL     1052
#define BAD       1536
#define SIGNATURE 4086

static uint8_t page[SPW_SWAPHDR_BYTES];

static void put(unsigned at, uint32_t value)
{
	memcpy(page + at, &value, sizeof(value));
}

/* A good header of 1000 pages with the bad pages 5 and 1000. */
static int setup(void **state)
{
	(void)state;
	memset(page, 0, sizeof(page));
	memset(page, 0xeb, 1024);
	put(VERSION, 1);
	put(LAST_PAGE, 1000);
	put(BAD_PAGES, 2);
	put(BAD, 5);
	put(BAD + 4, 1000);
	memcpy(page + UUID, "0123456789abcdef", 16);
	memcpy(page + LABEL, "fifteen letters", 16);
	memcpy(page + SIGNATURE, "SWAPSPACE2", 10);
	return 0;
}

static int parse(void)
{
	static struct spw_swaphdr h;

	return spw__swaphdr_parse(page, &h);
}

static void assert_the_good_one(void)
{
	struct spw_swaphdr h;

	assert_int_equal(spw__swaphdr_parse(page, &h), 0);
	assert_int_equal(h.last_page, 1000);
	assert_int_equal(h.bad_pages, 2);
	assert_int_equal(h.bad[0], 5);
	assert_int_equal(h.bad[1], 1000);
	assert_memory_equal(h.uuid, "0123456789abcdef", 16);
	assert_string_equal(h.label, "fifteen letters");
}

static void test_parse(void **state)
{
	(void)state;
	assert_the_good_one();
}

static void test_other_byte_order(void **state)
{
	(void)state;
	put(VERSION, bswap_32(1));
	put(LAST_PAGE, bswap_32(1000));
	put(BAD_PAGES, bswap_32(2));
	put(BAD, bswap_32(5));
	put(BAD + 4, bswap_32(1000));
	assert_the_good_one();
	put(BAD, 5);
	assert_int_equal(parse(), -EINVAL);
}

static void test_format(void **state)
{
	struct spw_swaphdr h;
	uint8_t again[SPW_SWAPHDR_BYTES];

	(void)state;
	assert_int_equal(spw__swaphdr_parse(page, &h), 0);
	spw__swaphdr_format(&h, again);
	memset(page, 0, 1024);
	assert_memory_equal(again, page, sizeof(page));
}

static void test_no_header(void **state)
{
	(void)state;
	page[SIGNATURE + 9] = '1';
	assert_int_equal(parse(), -ENODATA);
	page[SIGNATURE + 9] = '2';
	put(VERSION, 2);
	assert_int_equal(parse(), -EPROTONOSUPPORT);
}

static void test_numbers(void **state)
{
	(void)state;
	put(BAD, 0);
	assert_int_equal(parse(), -EINVAL);
	put(BAD, 1001);
	assert_int_equal(parse(), -EINVAL);
	put(BAD, 1);
	assert_int_equal(parse(), 0);
	put(LAST_PAGE, 999);
	assert_int_equal(parse(), -EINVAL);
	put(BAD_PAGES, 0);
	assert_int_equal(parse(), 0);
	put(LAST_PAGE, 0);
	assert_int_equal(parse(), -EINVAL);
}

static void test_full_list(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 637; i++)
		put(BAD + 4 * i, i + 1);
	assert_memory_equal(page + SIGNATURE, "SWAPSPACE2", 10);
	put(BAD_PAGES, 637);
	assert_int_equal(parse(), 0);
	put(BAD_PAGES, 638);
	assert_int_equal(parse(), -EINVAL);
	put(BAD_PAGES, UINT32_MAX);
	assert_int_equal(parse(), -EINVAL);
}

static void test_label_without_end(void **state)
{
	struct spw_swaphdr h;

	(void)state;
	memcpy(page + LABEL, "sixteen letters!", 16);
	assert_int_equal(spw__swaphdr_parse(page, &h), 0);
	assert_string_equal(h.label, "sixteen letters");
}

/* ---- ghosts ---- */

/* A file of these bytes, by its path. */
static const char *file_of(const void *bytes, size_t n)
{
	static char path[64];
	int fd;

	snprintf(path, sizeof(path), "/var/tmp/spillway-test-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
	return path;
}

/* Open it as a ghost, and what was said. */
static int open_ghost(const char *path, uint64_t *pages, char said[1024])
{
	FILE *heard = tmpfile();
	int kept = dup(STDERR_FILENO), status;

	assert_non_null(heard);
	dup2(fileno(heard), STDERR_FILENO);
	status = spw__ghost_open(path, pages);
	dup2(kept, STDERR_FILENO);
	close(kept);
	rewind(heard);
	said[fread(said, 1, 1023, heard)] = '\0';
	fclose(heard);
	return status;
}

static void test_ghost(void **state)
{
	const char *path = file_of(page, sizeof(page));
	struct stat before, after;
	uint64_t pages = 0;
	char said[1024];

	(void)state;
	assert_int_equal(chmod(path, 0400), 0);
	assert_int_equal(stat(path, &before), 0);
	assert_int_equal(open_ghost(path, &pages, said), 0);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(pages, 1000);
	assert_string_equal(said, "");
	assert_int_equal(after.st_size, before.st_size);
	assert_int_equal(after.st_blocks, before.st_blocks);
	assert_int_equal(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
	assert_int_equal(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	assert_int_equal(after.st_ctim.tv_nsec, before.st_ctim.tv_nsec);
	unlink(path);
}

static void assert_refused(const char *path, const char *why)
{
	uint64_t pages = 77;
	char said[1024];

	assert_int_equal(open_ghost(path, &pages, said), SPW_EXIT_FAILED);
	assert_int_equal(pages, 77);
	assert_non_null(strstr(said, path));
	assert_non_null(strstr(said, why));
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

static void test_ghost_refused(void **state)
{
	const char *path = file_of(page, sizeof(page) - 1);

	(void)state;
	assert_refused(path, "no swap header; make a ghost: spillway mkswap --ghost");
	unlink(path);
	assert_refused(path, "does not exist; make a ghost: spillway mkswap --ghost");
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_refused(path, "no swap header");
	unlink(path);
	assert_refused("/", "no swap header");
	put(LAST_PAGE, 7);
	path = file_of(page, sizeof(page));
	assert_refused(path, "its swap header is damaged");
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_parse, setup),
		cmocka_unit_test_setup(test_other_byte_order, setup),
		cmocka_unit_test_setup(test_format, setup),
		cmocka_unit_test_setup(test_no_header, setup),
		cmocka_unit_test_setup(test_numbers, setup),
		cmocka_unit_test_setup(test_full_list, setup),
		cmocka_unit_test_setup(test_label_without_end, setup),
		cmocka_unit_test_setup(test_ghost, setup),
		cmocka_unit_test_setup(test_ghost_refused, setup),
	};

	return cmocka_run_group_tests_name("swaphdr", tests, NULL, NULL);
}
