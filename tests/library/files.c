/* SPDX-License-Identifier: Apache-2.0 */
/* The files below the pool: which is filled, how they are let go, whose they are, and what they may not give back. */
#include "case.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define RAM  (8 * MIB)
#define MANY 8192u /* pages: four times the cap; as NOISE that is what they take on a file */

static int temporary_file(uint64_t bytes)
{
	char path[] = "/var/tmp/library-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	CHECK(fd >= 0 && !unlink(path) && !ftruncate(fd, (off_t)bytes), "%s: errno %d", path, errno);
	return fd;
}

/* fd -1: one without a name. Returns its number. */
static unsigned add_file(struct spw_space *s, int fd, uint64_t bytes, int priority, bool plaintext)
{
	struct spw_file_options o = SPW_FILE_OPTIONS;
	unsigned tier;
	int rc;

	o.fd = fd;
	o.bytes = bytes;
	o.priority = priority;
	o.plaintext = plaintext;
	rc = spw_space_add_file(s, &o, &tier);
	CHECK(!rc, "%d", rc);
	return tier;
}

static uint64_t bytes_on_disk(int fd)
{
	struct stat st;

	CHECK(!fstat(fd, &st));
	return (uint64_t)st.st_blocks * 512;
}

static void more_than_memory(enum spw_fault_mode mode)
{
	struct spw_space *s = new_space(RAM, mode);
	struct spw_space_stats st;
	char *base;
	struct spw_region *r = new_region(s, MANY, &base);

	add_file(s, -1, 64 * MIB, 0, false);
	for (unsigned i = 0; i < 3; i++) {
		write_pages(base, 0, MANY, NOISE, 1 + i);
		check_pages(base, 0, MANY, NOISE, 1 + i);
		for (uint64_t page = 0; page < MANY; page += 7)
			check_pages(base, page, 1, NOISE, 1 + i);
		for (uint64_t page = MANY; page-- > 0;)
			check_pages(base, page, 1, NOISE, 1 + i);
	}
	st = stats_of(s);
	CHECK(st.written_pages && st.read_pages && st.file_pages && st.file_bytes <= st.file_capacity &&
	      st.file_capacity <= 64 * MIB);
	CHECK(!st.over_events && st.peak_bytes <= RAM, "over %llu times, %llu KiB", (unsigned long long)st.over_events,
	      (unsigned long long)st.peak_bytes / 1024);
	spw_region_destroy(r);
	CHECK(!stats_of(s).file_pages);
	end_space(s);
}

/* Bytes that were read from a file and not written to are there already: nothing is stored for them. */
static void read_only(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_space_stats before, in, out;
	char *base;
	struct spw_region *r = new_region(s, MANY, &base);

	add_file(s, -1, 64 * MIB, 0, false);
	write_pages(base, 0, MANY, NOISE, 1);
	take_out(r);
	CHECK(!spw_region_advise(r, 0, MANY * PAGE, SPW_RANDOM));
	before = stats_of(s);
	check_pages(base, 0, 64, NOISE, 1);
	in = stats_of(s);
	take_out(r);
	out = stats_of(s);
	CHECK(in.read_pages - before.read_pages >= 32 && out.clean_pages - in.clean_pages >= 32,
	      "%llu read, %llu clean", (unsigned long long)(in.read_pages - before.read_pages),
	      (unsigned long long)(out.clean_pages - in.clean_pages));
	CHECK(out.clean_pages - in.clean_pages + out.stored_pages - in.stored_pages == 64, "%llu stored",
	      (unsigned long long)(out.stored_pages - in.stored_pages));
	check_pages(base, 0, MANY, NOISE, 1);
	spw_region_destroy(r);
	end_space(s);
}

static void file_by_signal(void)
{
	more_than_memory(SPW_FAULT_SIGNAL);
}

static void file_by_thread(void)
{
	more_than_memory(SPW_FAULT_THREAD);
}

static void file_of_a_user(void)
{
	become_ordinary();
	more_than_memory(SPW_FAULT_SIGNAL);
}

static void drain(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	int fd = temporary_file(64 * MIB);
	unsigned first, second;
	uint64_t read;
	char *base;
	struct spw_region *r = new_region(s, MANY, &base);

	first = add_file(s, fd, 64 * MIB, 0, false);
	write_pages(base, 0, MANY, NOISE, 1);
	CHECK(stats_of(s).file_pages);
	CHECK(spw_space_drain(s, first) == -ENOSPC, "there is no other place");
	check_pages(base, 0, MANY, NOISE, 1);
	read = stats_of(s).read_pages;
	second = add_file(s, -1, 64 * MIB, 0, false);
	CHECK(second != first);
	CHECK(!spw_space_drain(s, first));
	CHECK(read && stats_of(s).read_pages >= read, "%llu, were %llu", (unsigned long long)stats_of(s).read_pages,
	      (unsigned long long)read);
	/* It is the caller's, and nothing comes from there any more. */
	CHECK(!ftruncate(fd, 0) && !close(fd));
	check_pages(base, 0, MANY, NOISE, 1);
	CHECK(spw_space_drain(s, first) == -ENOENT);

	/* There is room without it. */
	write_pages(base, 0, MANY, SAME, 1);
	CHECK(!spw_space_drain(s, second));
	CHECK(!stats_of(s).file_capacity && !stats_of(s).file_pages);
	check_pages(base, 0, MANY, SAME, 1);
	spw_region_destroy(r);
	end_space(s);
}

static void priorities(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	int low = temporary_file(64 * MIB), high = temporary_file(16 * MIB);
	char *base;
	struct spw_region *r = new_region(s, MANY, &base);

	add_file(s, low, 64 * MIB, -5, false);
	add_file(s, high, 16 * MIB, 5, false);
	write_pages(base, 0, 4 * MIB / PAGE, NOISE, 1);
	CHECK(!spw_region_advise(r, 0, MANY * PAGE, SPW_COLD));
	write_pages(base, 0, 12 * MIB / PAGE, NOISE, 1);
	CHECK(stats_of(s).file_pages && bytes_on_disk(high) >= MIB && bytes_on_disk(low) < MIB / 4, "%llu, %llu",
	      (unsigned long long)bytes_on_disk(high), (unsigned long long)bytes_on_disk(low));
	write_pages(base, 0, MANY, NOISE, 1);
	CHECK(bytes_on_disk(low) >= MIB, "%llu", (unsigned long long)bytes_on_disk(low));
	check_pages(base, 0, MANY, NOISE, 1);
	spw_region_destroy(r);
	end_space(s);
	CHECK(!close(low) && !close(high));
}

/* A region that may use only the file which is filled last. */
static void a_narrow_region(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	int low = temporary_file(64 * MIB), high = temporary_file(64 * MIB);
	unsigned to = 1u << add_file(s, low, 64 * MIB, -5, false) | 1;
	char *base, *wide;
	struct spw_region *r = new_region(s, MANY, &base), *w = new_region(s, MANY, &wide), *c;

	add_file(s, high, 64 * MIB, 5, false);
	write_pages(base, 0, 1, NOISE, 1);
	CHECK(spw_region_allow(r, 0) == -EINVAL && spw_region_allow(r, to - 1) == -EINVAL &&
	      spw_region_allow(r, 1u << 16 | 1) == -EINVAL);
	CHECK(!spw_region_allow(r, to) && spw_region_allow(r, 0xffff) == -EPERM);
	CHECK(spw_region_clone(r, &c) == -EPERM);
	write_pages(base, 0, MANY, NOISE, 1);
	CHECK(bytes_on_disk(low) >= 16 * MIB && !bytes_on_disk(high), "%llu, %llu",
	      (unsigned long long)bytes_on_disk(low), (unsigned long long)bytes_on_disk(high));
	write_pages(wide, 0, MANY, NOISE, 2);
	CHECK(bytes_on_disk(high) >= 16 * MIB, "%llu", (unsigned long long)bytes_on_disk(high));
	check_pages(base, 0, MANY, NOISE, 1);
	check_pages(wide, 0, MANY, NOISE, 2);
	c = new_clone(w, &base);
	CHECK(spw_region_allow(w, to) == -EPERM && spw_region_allow(c, to) == -EPERM);
	spw_region_destroy(c);
	spw_region_destroy(w);
	spw_region_destroy(r);
	end_space(s);
	CHECK(!close(low) && !close(high));
}

/* Whether a page's bytes can be seen in the file. */
static bool is_seen(int fd, const char *page)
{
	struct stat st;
	char *all;
	bool seen;

	CHECK(!fstat(fd, &st) && (all = malloc((size_t)st.st_size)));
	CHECK(pread(fd, all, (size_t)st.st_size, 0) == st.st_size);
	seen = memmem(all, (size_t)st.st_size, page, 64);
	free(all);
	return seen;
}

static bool seen_on_file(bool plaintext)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	int fd = temporary_file(64 * MIB);
	char *base, page[PAGE];
	struct spw_region *r = new_region(s, MANY, &base);
	bool seen = false;

	add_file(s, fd, 64 * MIB, 0, plaintext);
	write_pages(base, 0, MANY, NOISE, 1);
	CHECK(stats_of(s).file_pages > MANY / 2);
	for (uint64_t i = 0; i < MANY; i += MANY / 8) {
		write_page(page, NOISE, 1 + i);
		seen = seen || is_seen(fd, page);
	}
	check_pages(base, 0, MANY, NOISE, 1);
	spw_region_destroy(r);
	end_space(s);
	CHECK(!close(fd), "the file stays the caller's");
	return seen;
}

static void encryption(void)
{
	CHECK(!seen_on_file(false), "encrypted");
	CHECK(seen_on_file(true), "plain: or else the search finds nothing at all");
}

/* ---- swap areas, as mkswap(8) makes them ---- */

struct area {
	char boot[1024];
	uint32_t version, last_page, bads;
	uint8_t uuid[16], label[16], padding[468];
	uint32_t bad[637];
	char end[12]; /* of the page; the signature is its last ten bytes */
};

static struct area area_of(uint64_t bytes)
{
	struct area a = {.boot = "a boot loader", .version = 1, .last_page = (uint32_t)(bytes / PAGE - 1)};

	memcpy(a.end + 2, "SWAPSPACE2", 10);
	return a;
}

static int add_area(struct spw_space *s, int fd, const struct area *a)
{
	struct spw_file_options o = SPW_FILE_OPTIONS;

	o.fd = fd;
	CHECK(pwrite(fd, a, sizeof(*a), 0) == sizeof(*a));
	return spw_space_add_file(s, &o, NULL);
}

/* What a swap area's header names is used, and neither the header nor a bad page is written. */
static void swap_areas(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	int fd = temporary_file(64 * MIB);
	struct area good = area_of(48 * MIB), a, is;
	static const uint32_t bad[] = {1, 2, 700, 5000};
	uint8_t mark[PAGE], page[PAGE];
	char *base;
	struct spw_region *r = new_region(s, MANY, &base);

	CHECK(sizeof(a) == PAGE);
	a = good;
	a.version = 2;
	CHECK(add_area(s, fd, &a) == -EPROTONOSUPPORT);
	a = area_of(128 * MIB);
	CHECK(add_area(s, fd, &a) == -EINVAL, "it names more than there is, as a ghost does");
	a = good;
	a.bads = 638;
	CHECK(add_area(s, fd, &a) == -EINVAL);
	a.bads = 1;
	a.bad[0] = a.last_page + 1;
	CHECK(add_area(s, fd, &a) == -EINVAL);

	memset(mark, 0x5a, sizeof(mark));
	for (unsigned i = 0; i < 4; i++) {
		good.bad[good.bads++] = bad[i];
		CHECK(pwrite(fd, mark, PAGE, (off_t)bad[i] * PAGE) == PAGE);
	}
	CHECK(!add_area(s, fd, &good));
	CHECK(stats_of(s).file_capacity <= 48 * MIB && stats_of(s).file_capacity > 40 * MIB);
	for (unsigned i = 1; i <= 3; i++) {
		write_pages(base, 0, MANY, NOISE, i);
		check_pages(base, 0, MANY, NOISE, i);
	}
	CHECK(stats_of(s).file_bytes > 20 * MIB, "or a page in the midst of it was not reached");
	CHECK(pread(fd, &is, sizeof(is), 0) == sizeof(is) && !memcmp(&is, &good, sizeof(is)));
	for (unsigned i = 0; i < 4; i++)
		CHECK(pread(fd, page, PAGE, (off_t)bad[i] * PAGE) == PAGE && !memcmp(page, mark, PAGE), "%u", bad[i]);
	CHECK(pread(fd, page, PAGE, 48 * MIB) == PAGE && !page[0] && !memcmp(page, page + 1, PAGE - 1));
	spw_region_destroy(r);
	end_space(s);
	CHECK(!close(fd));
}

/* ---- bytes that were changed ---- */

/* A region most of which is on a file, the first of a space, every block of which then becomes other bytes. */
static struct spw_region *damaged(bool plaintext, struct spw_space **of, char **base)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	int fd = temporary_file(64 * MIB);
	struct spw_region *r = new_region(s, MANY, base);
	uint64_t x = 5;
	struct stat st;

	*of = s;
	CHECK(add_file(s, fd, 64 * MIB, 0, plaintext) == 1);
	write_pages(*base, 0, MANY, NOISE, 1);
	CHECK(stats_of(s).file_pages > MANY / 2);
	CHECK(!fstat(fd, &st));
	for (off_t at = 0; at < st.st_size; at += 512) {
		uint64_t bytes = next_random(&x);

		CHECK(pwrite(fd, &bytes, 8, at + (off_t)(bytes % 63 * 8)) == 8);
	}
	return r;
}

/* One that a pin of it alone cannot restore. Those that can be are what they were. */
static uint64_t lost_page(struct spw_region *r, const char *base)
{
	for (uint64_t i = 0; i < MANY; i++) {
		int rc = spw_region_pin(r, i * PAGE, PAGE);

		if (rc == -EBADMSG)
			return i;
		CHECK(!rc, "%d", rc);
		CHECK(is_page(base + i * PAGE, NOISE, 1 + i));
		CHECK(!spw_region_unpin(r, i * PAGE, PAGE));
	}
	failed(__FILE__, __LINE__, "nothing is lost", " ");
}

static void touch_lost(void *plaintext)
{
	char *base;
	struct spw_space *s;
	struct spw_region *r;

	signal(SIGBUS, SIG_DFL);
	r = damaged(plaintext, &s, &base);
	(void)*(volatile char *)(base + lost_page(r, base) * PAGE);
}

static void changed_bytes(bool plaintext)
{
	char line[4096] = "", *base, *said;
	int p[2], status, saved = dup(2);
	struct spw_space *s;
	struct spw_region *r;

	CHECK(saved >= 0 && !pipe(p) && dup2(p[1], 2) == 2 && !close(p[1]));
	status = status_of(touch_lost, plaintext ? "plaintext" : NULL);
	CHECK(dup2(saved, 2) == 2);
	CHECK(read(p[0], line, sizeof(line) - 1) > 0, "it says nothing");
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %x, %s", status, line);
	/* A sanitizer may have said something before. */
	said = strstr(line, "spillway: ");
	CHECK(said && strchr(said, '\n') == said + strlen(said) - 1, "not one line: %s", line);

	r = damaged(plaintext, &s, &base);
	uint64_t lost = lost_page(r, base), first = lost ? lost - 1 : 0;

	CHECK(spw_region_pin(r, first * PAGE, 8 * PAGE) == -EBADMSG);
	CHECK(!region_stats(r).pinned_bytes);
	add_file(s, -1, 64 * MIB, 0, plaintext);
	CHECK(spw_space_drain(s, 1) == -EBADMSG, "what is lost cannot go to the other");
	CHECK(spw_region_pin(r, lost * PAGE, PAGE) == -EBADMSG, "the file stays");
	/* New contents need none of the old. */
	CHECK(!spw_region_advise(r, lost * PAGE, PAGE, SPW_DISCARD));
	CHECK(is_page(base + lost * PAGE, NOISE, 0));
	spw_region_destroy(r);
}

static void changed_bytes_encrypted(void)
{
	changed_bytes(false);
}

static void changed_bytes_plain(void)
{
	changed_bytes(true);
}

const struct spw_test_case file_cases[] = {
	{"pages that are only read from a file", read_only},
	{"a file, faults by signal", file_by_signal},
	{"a file, faults by thread", file_by_thread},
	{"a file of an ordinary user", file_of_a_user},
	{"drain", drain},
	{"priorities", priorities},
	{"a region that may use one file only", a_narrow_region},
	{"encryption", encryption},
	{"swap areas", swap_areas},
	{"bytes of an encrypted file are changed", changed_bytes_encrypted},
	{"bytes of a plain file are changed", changed_bytes_plain},
	{NULL, NULL},
};
