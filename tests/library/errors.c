/* SPDX-License-Identifier: Apache-2.0 */
/* Every error that the header names and that can be had; what was there before a call that fails is there after it. */
#include "case.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RAM (4 * MIB)

static int create(struct spw_space_options o)
{
	struct spw_space *s;
	int rc = spw_space_create(&o, &s);

	CHECK(rc || !spw_space_destroy(s));
	return rc;
}

static void space_options(void)
{
	struct spw_space_options good = SPW_SPACE_OPTIONS, o;

	good.ram = RAM;
	CHECK(!create(good));
	o = good;
	o.size = 0;
	CHECK(create(o) == -EINVAL);
	o = good;
	o.ram = 0;
	CHECK(create(o) == -EINVAL);
	o.ram = RAM - 1;
	CHECK(create(o) == -EINVAL);
	o = good;
	o.fault = 2;
	CHECK(create(o) == -EINVAL);
	for (const char *const *codec = (const char *const[]){"", "lzo", "zstd:", "zstd:20", "lz4:1", NULL}; *codec;
	     codec++) {
		o = good;
		o.codec = *codec;
		CHECK(create(o) == -EINVAL, "%s", *codec);
	}
	for (const char *const *codec = (const char *const[]){"lz4", "zstd", "zstd:3", NULL}; *codec; codec++) {
		o = good;
		o.codec = *codec;
		CHECK(!create(o), "%s", *codec);
	}
}

static void no_descriptors(void)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	int last = dup(0);

	o.ram = RAM;
	CHECK(last >= 0 && !close(last));
	for (int n = last; n < last + 8; n++) {
		int rc;

		CHECK(!setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)n, (rlim_t)last + 8}));
		rc = create(o);
		CHECK(rc == -EMFILE || (!rc && n > last), "%d with %d", rc, n);
		CHECK(dup(0) == last || n == last, "a descriptor is left behind");
		close(last);
	}
	CHECK(!create(o));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void no_addresses(void)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;

	o.ram = RAM;
	CHECK(!setrlimit(RLIMIT_AS, &(struct rlimit){64 * MIB, RLIM_INFINITY}));
	CHECK(create(o) == -ENOMEM);
	CHECK(!setrlimit(RLIMIT_AS, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}));
	CHECK(!create(o));
}
#else
static void no_addresses(void)
{
	skip("the sanitizer has all of them");
}
#endif

#define DEVICE_NEW 0xaa00 /* USERFAULTFD_IOC_NEW, newer than Debian 12's headers */

/* From now on userfaultfd(2) with one of these flags, and what /dev/userfaultfd is asked for, fails so. */
static void refuse_userfaultfd(unsigned flags, int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 2),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, DEVICE_NEW, 3, 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, flags, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(*code), code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		skip("no seccomp");
}

static void refused(int error)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;

	o.ram = RAM;
	/* Whom the device is open to has it still. */
	become_ordinary();
	if (!access("/dev/userfaultfd", R_OK | W_OK))
		skip("/dev/userfaultfd is everybody's");
	refuse_userfaultfd(~0u, error);
	CHECK(create(o) == -error, "%d", create(o));
	o.fault = SPW_FAULT_THREAD;
	CHECK(create(o) == -error, "%d", create(o));
}

static void no_userfaultfd(void)
{
	refused(ENOSYS);
}

static void userfaultfd_not_permitted(void)
{
	refused(EPERM);
}

/* As Linux before 5.11 answers, which has no flag 1, and no device. */
static void userfaultfd_of_old(void)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;

	o.ram = RAM;
	int all = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (all < 0)
		skip("the call without that flag is not allowed here");
	close(all);
	refuse_userfaultfd(1, EINVAL);
	CHECK(!create(o), "%d", create(o));
	o.fault = SPW_FAULT_THREAD;
	CHECK(!create(o));
}

/* ---- regions ---- */

/* What a clone held of a region that is gone counts no longer when it has let go of it. */
static void addresses_of_a_clone(void)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	struct spw_region *r, *c, *other;
	struct spw_space *s;
	char *base;

	o.ram = 16 * MIB;
	o.addresses = 32 * MIB;
	CHECK(!spw_space_create(&o, &s));
	r = new_region(s, 16 * MIB / PAGE, &base);
	write_pages(base, 0, 16 * MIB / PAGE, TEXT, 1);
	c = new_clone(r, &base);
	spw_region_destroy(r);
	CHECK(spw_region_create(s, 16 * MIB, &other) == -ENOMEM, "the clone has it still");
	write_pages(base, 0, 16 * MIB / PAGE, TEXT, 2);
	other = new_region(s, 16 * MIB / PAGE, &base);
	write_pages(base, 0, 16 * MIB / PAGE, TEXT, 3);
	check_pages(spw_region_address(c), 0, 16 * MIB / PAGE, TEXT, 2);
	check_pages(base, 0, 16 * MIB / PAGE, TEXT, 3);
	spw_region_destroy(c);
	spw_region_destroy(other);
	end_space(s);
}

static void regions(void)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	struct spw_region *r, *c, *too_many;
	struct spw_space *s;

	o.ram = RAM;
	o.addresses = 64 * MIB;
	CHECK(!spw_space_create(&o, &s));
	CHECK(spw_space_set_ram(s, RAM - 1) == -EINVAL && stats_of(s).ram == RAM);
	CHECK(spw_region_create(s, 0, &r) == -EINVAL);
	CHECK(spw_region_create(s, SIZE_MAX, &r) == -ENOMEM || spw_region_create(s, SIZE_MAX, &r) == -EINVAL);
	CHECK(spw_region_create(s, 65 * MIB, &r) == -ENOMEM);
	CHECK(!spw_region_create(s, 1, &r) && spw_region_size(r) == PAGE);
	CHECK(spw_space_destroy(s) == -EBUSY);
	spw_region_destroy(r);

	CHECK(!spw_region_create(s, 40 * MIB, &r));
	*(volatile char *)spw_region_address(r) = 1;
	CHECK(spw_region_create(s, 40 * MIB, &too_many) == -ENOMEM);
	CHECK(spw_region_clone(r, &c) == -ENOMEM);
	CHECK(spw_region_resize(r, 80 * MIB) == -ENOMEM && spw_region_size(r) == 40 * MIB);
	CHECK(spw_region_resize(r, 0) == -EINVAL);
	CHECK(*(volatile char *)spw_region_address(r) == 1);
	CHECK(!spw_region_resize(r, 20 * MIB) && !spw_region_clone(r, &c));
	CHECK(*(volatile char *)spw_region_address(c) == 1);
	spw_region_destroy(c);
	spw_region_destroy(r);
	end_space(s);
}

static void ranges(void)
{
	static const struct {
		size_t offset, bytes;
	} bad[] = {{1, PAGE},
		   {0, PAGE + 1},
		   {0, 17 * PAGE},
		   {16 * PAGE, PAGE},
		   {SIZE_MAX - PAGE + 1, 2 * PAGE},
		   {PAGE, SIZE_MAX - PAGE + 1}};
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base;
	struct spw_region *r = new_region(s, 16, &base);

	write_pages(base, 0, 16, TEXT, 1);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		for (enum spw_advice a = SPW_WILLNEED; a <= SPW_DISCARD; a++)
			CHECK(spw_region_advise(r, bad[i].offset, bad[i].bytes, a) == -EINVAL, "%u", i);
		CHECK(spw_region_pin(r, bad[i].offset, bad[i].bytes) == -EINVAL, "%u", i);
		CHECK(spw_region_unpin(r, bad[i].offset, bad[i].bytes) == -EINVAL, "%u", i);
	}
	CHECK(spw_region_advise(r, 0, PAGE, (enum spw_advice)(SPW_DISCARD + 1)) == -EINVAL);
	check_pages(base, 0, 16, TEXT, 1);
	spw_region_destroy(r);
	end_space(s);
}

static void resize_of_pinned(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base, *next;
	struct spw_region *r = new_region(s, 512, &base), *other = new_region(s, 512, &next);

	write_pages(base, 0, 512, TEXT, 1);
	CHECK(!spw_region_pin(r, 500 * PAGE, PAGE));
	CHECK(spw_region_resize(r, 500 * PAGE) == -EBUSY && spw_region_size(r) == 512 * PAGE);
	CHECK(!spw_region_resize(r, 501 * PAGE) && spw_region_size(r) == 501 * PAGE && spw_region_address(r) == base);
	check_pages(base, 0, 501, TEXT, 1);
	int rc = spw_region_resize(r, 4096 * PAGE);

	CHECK(rc == -EBUSY || (!rc && spw_region_address(r) == base), "%d", rc);
	CHECK(!spw_region_unpin(r, 500 * PAGE, PAGE));
	CHECK(!spw_region_resize(r, 4096 * PAGE));
	check_pages(spw_region_address(r), 0, 501, TEXT, 1);
	check_pages(spw_region_address(r), 501, 4096 - 501, TEXT, 0);
	spw_region_destroy(r);
	spw_region_destroy(other);
	end_space(s);
}

/* ---- files ---- */

static int add(struct spw_space *s, struct spw_file_options o)
{
	unsigned tier;

	return spw_space_add_file(s, &o, &tier);
}

#define FULL 4096u /* pages: as NOISE more than the cap and 4 MiB on a file */

static void file_options(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_file_options good = SPW_FILE_OPTIONS, o;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), memory = memfd_create("none", MFD_CLOEXEC),
	    large = memfd_create("large", MFD_CLOEXEC);
	struct spw_region *r;
	char *base;

	CHECK(fd >= 0 && memory >= 0 && !close(memory));
	good.bytes = MIB;
	o = good;
	o.size = 0;
	CHECK(add(s, o) == -EINVAL);
	o = good;
	o.priority = 128;
	CHECK(add(s, o) == -EINVAL);
	o.priority = -129;
	CHECK(add(s, o) == -EINVAL);
	o = good;
	o.bytes = 1;
	CHECK(add(s, o) == -EINVAL || add(s, o) == -ENOSPC, "%d", add(s, o));
	o = good;
	o.dir = "/nonexistent";
	CHECK(add(s, o) == -ENOENT, "%d", add(s, o));
	o.dir = "/dev/null";
	CHECK(add(s, o) == -ENOTDIR, "%d", add(s, o));
	o = good;
	o.fd = memory;
	CHECK(add(s, o) == -EBADF, "%d", add(s, o));
	o.fd = fd;
	CHECK(add(s, o) < 0, "not for writing");
	CHECK(fcntl(fd, F_GETFD) >= 0, "it stays the caller's");
	close(fd);
	CHECK(!stats_of(s).file_capacity);

	/* A file beyond that would end the program by SIGXFSZ, or could not be written to its end. */
	CHECK(large >= 0 && !ftruncate(large, 16 * MIB));
	CHECK(!setrlimit(RLIMIT_FSIZE, &(struct rlimit){4 * MIB, RLIM_INFINITY}));
	o = good;
	o.bytes = 8 * MIB;
	CHECK(add(s, o) == -EFBIG);
	o.bytes = 0;
	CHECK(!add(s, o) && stats_of(s).file_capacity && stats_of(s).file_capacity <= 4 * MIB, "%llu",
	      (unsigned long long)stats_of(s).file_capacity);
	end_space(s);
	s = new_space(RAM, SPW_FAULT_SIGNAL);
	o.fd = large;
	CHECK(!add(s, o) && stats_of(s).file_capacity <= 4 * MIB, "%llu",
	      (unsigned long long)stats_of(s).file_capacity);
	r = new_region(s, FULL, &base);
	write_pages(base, 0, FULL, NOISE, 1);
	CHECK(stats_of(s).file_bytes > 3 * MIB, "it was not filled: %llu", (unsigned long long)stats_of(s).file_bytes);
	check_pages(base, 0, FULL, NOISE, 1);
	spw_region_destroy(r);
	CHECK(!setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}));
	end_space(s);
}

static void files_are_counted(void)
{
	struct spw_space *small = new_space(RAM, SPW_FAULT_SIGNAL), *s = new_space(32 * MIB, SPW_FAULT_SIGNAL);
	struct spw_file_options o = SPW_FILE_OPTIONS;
	unsigned tier[8], again;

	o.bytes = MIB;
	CHECK(!spw_space_add_file(small, &o, &again));
	CHECK(spw_space_add_file(small, &o, &again) == -ENOMEM, "two take all of the cap");
	end_space(small);
	CHECK(spw_space_drain(s, 0) == -ENOENT && spw_space_drain(s, 12345) == -ENOENT);
	for (unsigned i = 0; i < 8; i++) {
		CHECK(!spw_space_add_file(s, &o, &tier[i]));
		for (unsigned k = 0; k < i; k++)
			CHECK(tier[k] != tier[i]);
	}
	CHECK(spw_space_add_file(s, &o, &again) == -ENOSPC);
	CHECK(!spw_space_drain(s, tier[3]));
	CHECK(!spw_space_add_file(s, &o, &again));
	end_space(s);
}

static void version(void)
{
	unsigned a, b, c;
	char rest;

	CHECK(sscanf(spw_version(), "%u.%u.%u%c", &a, &b, &c, &rest) == 3, "%s", spw_version());
}

/* A program compiled with less, or more, than this library knows. */
static void other_sizes(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct {
		struct spw_space_stats st;
		uint64_t more;
	} out;

	memset(&out, 0xa5, sizeof(out));
	spw_space_stats(s, &out.st, 8);
	CHECK(out.st.ram == RAM && out.st.used_bytes == 0xa5a5a5a5a5a5a5a5u);
	memset(&out, 0xa5, sizeof(out));
	spw_space_stats(s, &out.st, sizeof(out));
	CHECK(out.st.ram == RAM && !out.st.over_events && !out.more, "what the library does not know is 0");
	end_space(s);
}

const struct spw_test_case error_cases[] = {
	{"options of a space", space_options},
	{"no descriptors left", no_descriptors},
	{"no addresses left", no_addresses},
	{"no userfaultfd", no_userfaultfd},
	{"userfaultfd is not permitted", userfaultfd_not_permitted},
	{"userfaultfd of an old kernel", userfaultfd_of_old},
	{"regions", regions},
	{"addresses that a clone held", addresses_of_a_clone},
	{"ranges", ranges},
	{"pinned pages and a new size", resize_of_pinned},
	{"options of a file", file_options},
	{"files", files_are_counted},
	{"the version", version},
	{"structures of another size", other_sizes},
	{NULL, NULL},
};
