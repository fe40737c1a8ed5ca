/* SPDX-License-Identifier: Apache-2.0 */
/* What a region is: memory under a cap, that system calls take when it is pinned, whoever the user is. */
#include "case.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RAM  (4 * MIB)
#define MANY 2048u /* pages: twice the cap */

static void behaves_like_memory(enum spw_fault_mode mode)
{
	struct spw_space *s = new_space(RAM, mode);
	char *base;
	struct spw_region *r = new_region(s, MANY, &base);

	check_pages(base, 0, MANY, TEXT, 0);
	for (enum kind k = TEXT; k <= SAME; k++) {
		uint64_t n = k == NOISE ? MANY / 16 : MANY;

		write_pages(base, 0, n, k, 100 * k + 1);
		check_pages(base, 0, n, k, 100 * k + 1);
		for (uint64_t i = n; i-- > 0;)
			check_pages(base, i, 1, k, 100 * k + 1);
	}
	spw_region_destroy(r);
	end_space(s);
}

static void memory_by_signal(void)
{
	behaves_like_memory(SPW_FAULT_SIGNAL);
}

static void memory_by_thread(void)
{
	behaves_like_memory(SPW_FAULT_THREAD);
}

static void ordinary_user(void)
{
	FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "r");
	bool allowed = f && getc(f) != '0';

	if (f)
		fclose(f);
	become_ordinary();
	behaves_like_memory(SPW_FAULT_SIGNAL);
	behaves_like_memory(SPW_FAULT_THREAD);
	if (allowed)
		skip("vm.unprivileged_userfaultfd is not 0 here, as it is by default");
}

static void advice(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_space_stats before, after;
	char *base;
	struct spw_region *r = new_region(s, 512, &base);

	write_pages(base, 0, 512, TEXT, 1);
	take_out(r);
	CHECK(region_stats(r).out_bytes == 512 * PAGE, "%llu", (unsigned long long)region_stats(r).out_bytes);

	/* Without readahead: it may fetch more than the range. */
	CHECK(!spw_region_advise(r, 0, 512 * PAGE, SPW_RANDOM));
	CHECK(!spw_region_advise(r, 16 * PAGE, 64 * PAGE, SPW_WILLNEED));
	before = stats_of(s);
	CHECK(region_stats(r).resident_bytes == 64 * PAGE && before.resident_bytes == 64 * PAGE, "%llu",
	      (unsigned long long)before.resident_bytes);
	check_pages(base, 16, 64, TEXT, 1);
	CHECK(stats_of(s).faults == before.faults, "what is needed is there");

	/* What is in memory is not in the pool as well. */
	CHECK(before.pool_pages == 512 - 64, "%llu", (unsigned long long)before.pool_pages);
	take_out(r);
	after = stats_of(s);
	CHECK(after.pool_pages == 512 && after.stored_pages - before.stored_pages == 64, "pool %llu, stored %llu",
	      (unsigned long long)after.pool_pages, (unsigned long long)(after.stored_pages - before.stored_pages));

	CHECK(!spw_region_advise(r, 8 * PAGE, 16 * PAGE, SPW_DISCARD));
	CHECK(region_stats(r).out_bytes == 496 * PAGE, "%llu", (unsigned long long)region_stats(r).out_bytes);
	check_pages(base, 0, 8, TEXT, 1);
	check_pages(base, 8, 16, TEXT, 0);
	check_pages(base, 24, 488, TEXT, 1);
	CHECK(!spw_region_advise(r, 0, 512 * PAGE, SPW_DISCARD));
	CHECK(!region_stats(r).resident_bytes && !region_stats(r).out_bytes);
	CHECK(!stats_of(s).pool_pages && !stats_of(s).resident_bytes);
	check_pages(base, 0, 512, TEXT, 0);
	spw_region_destroy(r);
	end_space(s);
}

/* A page that came in by a read asks before it is written. */
static void first_writes(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_space_stats before, after;
	char *base;
	struct spw_region *r = new_region(s, 64, &base);

	CHECK(!spw_region_advise(r, 0, 64 * PAGE, SPW_RANDOM));
	write_pages(base, 0, 64, TEXT, 1);
	take_out(r);
	check_pages(base, 0, 64, TEXT, 1);
	before = stats_of(s);
	for (unsigned i = 0; i < 64; i += 2)
		base[i * PAGE + 4000] ^= 0x55;
	after = stats_of(s);
	CHECK(after.write_faults - before.write_faults == 32 && after.faults == before.faults, "%llu",
	      (unsigned long long)(after.write_faults - before.write_faults));
	before = after;
	take_out(r);
	after = stats_of(s);
	CHECK(after.stored_pages - before.stored_pages == 64);
	for (unsigned i = 0; i < 64; i += 2)
		base[i * PAGE + 4000] ^= 0x55;
	check_pages(base, 0, 64, TEXT, 1);
	spw_region_destroy(r);
	end_space(s);
}

/* Ask for each `by`-th of n pages from `first` on, all of which are out; returns the faults that took. */
static uint64_t walk(struct spw_space *s, struct spw_region *r, uint64_t first, int64_t by, unsigned n, bool write)
{
	char *base = spw_region_address(r);
	struct spw_space_stats before;

	take_out(r);
	before = stats_of(s);
	for (unsigned i = 0; i < n; i++) {
		uint64_t page = first + (uint64_t)(by * i);

		if (write)
			write_pages(base, page, 1, TEXT, 1);
		else
			check_pages(base, page, 1, TEXT, 1);
	}
	/* A thread lets go of pages after they are there. Who pins them waits for that. */
	for (unsigned i = 0; i < n; i++) {
		size_t page = (first + (uint64_t)(by * i)) * PAGE;

		CHECK(!spw_region_pin(r, page, PAGE) && !spw_region_unpin(r, page, PAGE));
	}
	return stats_of(s).faults - before.faults;
}

/* Pages at equal steps come along, also from other leaves, and none that nobody can ask for. */
static void equal_steps(enum spw_fault_mode mode)
{
	static const int64_t by[] = {17, -17, 2, -1, 61};
	struct spw_space *s = new_space(4 * RAM, mode);
	char *base;
	struct spw_region *r = new_region(s, MANY, &base);

	write_pages(base, 0, MANY, TEXT, 1);
	for (unsigned i = 0; i < sizeof(by) / sizeof(*by); i++) {
		for (int write = 0; write < 2; write++) {
			uint64_t step = (uint64_t)(by[i] < 0 ? -by[i] : by[i]), n = (MANY + step - 1) / step;
			uint64_t first = by[i] < 0 ? (n - 1) * step : 0;
			/* 1, 1, 2 and 4 pages, then 8 each time. */
			uint64_t faults = walk(s, r, first, by[i], (unsigned)n, write), most = 4 + (n - 8 + 7) / 8;

			CHECK(faults <= most, "%lld: %llu faults of %llu pages", (long long)by[i],
			      (unsigned long long)faults, (unsigned long long)n);
			CHECK(region_stats(r).resident_bytes == n * PAGE, "%lld: %llu instead of %llu pages",
			      (long long)by[i], (unsigned long long)region_stats(r).resident_bytes / PAGE,
			      (unsigned long long)n);
		}
	}
	/* A stride that ends has fetched one page for nothing here. */
	CHECK(walk(s, r, 5, 17, 3, false) <= 3 && region_stats(r).resident_bytes == 4 * PAGE);
	CHECK(!spw_region_advise(r, 0, MANY * PAGE, SPW_RANDOM));
	CHECK(walk(s, r, 5, 17, 3, false) <= 3 && region_stats(r).resident_bytes == 3 * PAGE);
	CHECK(!spw_region_advise(r, 0, MANY * PAGE, SPW_NORMAL));
	take_out(r);
	check_pages(base, 0, MANY, TEXT, 1);

	/* What was never touched stays so. */
	CHECK(!spw_region_advise(r, 0, MANY * PAGE, SPW_DISCARD));
	for (unsigned i = 0; i < 50; i++)
		check_pages(base, i * 17, 1, TEXT, 0);
	CHECK(region_stats(r).resident_bytes == 50 * PAGE);
	spw_region_destroy(r);
	end_space(s);
}

static void steps_by_signal(void)
{
	equal_steps(SPW_FAULT_SIGNAL);
}

static void steps_by_thread(void)
{
	equal_steps(SPW_FAULT_THREAD);
}

static void resizing(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base;
	struct spw_region *r = new_region(s, 100, &base), *other = new_region(s, 100, &base);

	spw_region_destroy(other);
	base = spw_region_address(r);
	write_pages(base, 0, 100, TEXT, 1);
	take_out(r);
	check_pages(base, 90, 5, TEXT, 1);
	CHECK(!spw_region_resize(r, MANY * PAGE - 4095) && spw_region_size(r) == MANY * PAGE);
	base = spw_region_address(r);
	CHECK(region_stats(r).out_bytes + region_stats(r).resident_bytes >= 100 * PAGE);
	check_pages(base, 0, 100, TEXT, 1);
	check_pages(base, 100, MANY - 100, TEXT, 0);
	write_pages(base, 0, MANY, TEXT, 5);
	CHECK(!spw_region_resize(r, 50 * PAGE) && spw_region_size(r) == 50 * PAGE);
	base = spw_region_address(r);
	CHECK(region_stats(r).out_bytes <= 50 * PAGE && region_stats(r).resident_bytes <= 50 * PAGE);
	CHECK(!spw_region_resize(r, MANY * PAGE));
	base = spw_region_address(r);
	check_pages(base, 0, 50, TEXT, 5);
	check_pages(base, 50, MANY - 50, TEXT, 0);
	spw_region_destroy(r);
	end_space(s);
}

/* ---- system calls ---- */

static int scratch_file(void)
{
	int fd = memfd_create("scratch", MFD_CLOEXEC);

	CHECK(fd >= 0 && !ftruncate(fd, MIB));
	return fd;
}

static void system_calls_need_a_pin(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	int fd = scratch_file();
	char *base, page[PAGE];
	struct spw_region *r = new_region(s, 64, &base);

	write_pages(base, 0, 64, TEXT, 1);
	take_out(r);
	errno = 0;
	CHECK(pwrite(fd, base, 16 * PAGE, 0) == -1 && errno == EFAULT, "errno %d", errno);
	CHECK(pread(fd, base, 16 * PAGE, 0) == -1 && errno == EFAULT, "errno %d", errno);

	CHECK(!spw_region_pin(r, 0, 16 * PAGE));
	CHECK(region_stats(r).pinned_bytes == 16 * PAGE && stats_of(s).pinned_bytes == 16 * PAGE);
	CHECK(pwrite(fd, base, 16 * PAGE, 0) == 16 * PAGE, "errno %d", errno);
	CHECK(pread(fd, page, PAGE, 15 * PAGE) == PAGE && is_page(page, TEXT, 16));
	for (unsigned i = 0; i < 16; i++) {
		write_page(page, NOISE, 50 + i);
		CHECK(pwrite(fd, page, PAGE, i * PAGE) == PAGE);
	}
	CHECK(pread(fd, base, 16 * PAGE, 0) == 16 * PAGE, "errno %d", errno);
	CHECK(!spw_region_unpin(r, 0, 16 * PAGE) && !stats_of(s).pinned_bytes);
	take_out(r);
	check_pages(base, 0, 16, NOISE, 50);
	check_pages(base, 16, 48, TEXT, 1);

	/* A page that was only read is write-protected, and none before anything was written to it is there. */
	CHECK(!spw_region_pin(r, 20 * PAGE, PAGE));
	CHECK(pread(fd, base + 20 * PAGE, PAGE, 0) == PAGE, "errno %d", errno);
	CHECK(!spw_region_unpin(r, 20 * PAGE, PAGE));
	take_out(r);
	CHECK(is_page(base + 20 * PAGE, NOISE, 50));
	CHECK(!spw_region_resize(r, 128 * PAGE));
	base = spw_region_address(r);
	CHECK(!spw_region_pin(r, 100 * PAGE, PAGE));
	CHECK(pwrite(fd, base + 100 * PAGE, PAGE, 0) == PAGE, "errno %d", errno);
	CHECK(pread(fd, page, PAGE, 0) == PAGE && is_page(page, TEXT, 0));
	CHECK(!spw_region_unpin(r, 100 * PAGE, PAGE));
	close(fd);
	spw_region_destroy(r);
	end_space(s);
}

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static void system_calls_by_thread(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_THREAD);
	int fd = scratch_file(), uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	char *base, *copy = malloc(MANY * PAGE);
	struct spw_region *r = new_region(s, MANY, &base);

	if (uffd < 0)
		skip("no kernel faults for this user");
	close(uffd);
	write_pages(base, 0, MANY, TEXT, 1);
	take_out(r);
	CHECK(pwrite(fd, base, MANY * PAGE, 0) == MANY * PAGE, "errno %d", errno);
	CHECK(pread(fd, copy, MANY * PAGE, 0) == MANY * PAGE);
	check_pages(copy, 0, MANY, TEXT, 1);
	write_pages(copy, 0, MANY, TEXT, 9);
	CHECK(pwrite(fd, copy, MANY * PAGE, 0) == MANY * PAGE);
	take_out(r);
	CHECK(pread(fd, base, MANY * PAGE, 0) == MANY * PAGE, "errno %d", errno);
	check_pages(base, 0, MANY, TEXT, 9);
	free(copy);
	close(fd);
	spw_region_destroy(r);
	end_space(s);
}

/* Whether a system call can read the page. */
static bool readable(int fd, const char *page)
{
	ssize_t n = pwrite(fd, page, PAGE, 0);

	CHECK(n == PAGE || (n == -1 && errno == EFAULT), "%zd, errno %d", n, errno);
	return n == PAGE;
}

static void pins_nest(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	int fd = scratch_file();
	char *base;
	struct spw_region *r = new_region(s, 32, &base);

	write_pages(base, 0, 32, TEXT, 1);
	take_out(r);
	CHECK(!spw_region_pin(r, 0, 16 * PAGE));
	CHECK(!spw_region_pin(r, 8 * PAGE, 16 * PAGE));
	CHECK(region_stats(r).pinned_bytes == 24 * PAGE, "%llu", (unsigned long long)region_stats(r).pinned_bytes);
	take_out(r);
	CHECK(!spw_region_unpin(r, 0, 16 * PAGE));
	take_out(r);
	CHECK(!readable(fd, base) && readable(fd, base + 8 * PAGE) && readable(fd, base + 23 * PAGE) &&
	      !readable(fd, base + 24 * PAGE));
	CHECK(!spw_region_unpin(r, 8 * PAGE, 16 * PAGE));
	take_out(r);
	CHECK(!readable(fd, base + 8 * PAGE) && !readable(fd, base + 23 * PAGE));

	for (unsigned i = 0; i < 255; i++)
		CHECK(!spw_region_pin(r, 4 * PAGE, PAGE), "%u", i);
	CHECK(spw_region_pin(r, 4 * PAGE, PAGE) == -EAGAIN);
	CHECK(spw_region_pin(r, 0, 16 * PAGE) == -EAGAIN);
	CHECK(region_stats(r).pinned_bytes == PAGE, "of a pin that failed nothing stays");
	take_out(r);
	CHECK(!readable(fd, base) && readable(fd, base + 4 * PAGE) && !readable(fd, base + 5 * PAGE));
	for (unsigned i = 0; i < 255; i++)
		CHECK(!spw_region_unpin(r, 4 * PAGE, PAGE), "%u", i);
	take_out(r);
	CHECK(!readable(fd, base + 4 * PAGE));
	check_pages(base, 0, 32, TEXT, 1);
	close(fd);
	spw_region_destroy(r);
	end_space(s);
}

/* Others want the memory, and the pinned pages stay what they are. */
static void pins_under_pressure(void)
{
	struct spw_space *s = new_space(2 * RAM, SPW_FAULT_SIGNAL);
	int fd = scratch_file();
	char *base, *others;
	struct spw_region *r = new_region(s, 512, &base), *o = new_region(s, MANY, &others);

	write_pages(base, 0, 512, TEXT, 1);
	take_out(r);
	CHECK(!spw_region_pin(r, 0, 256 * PAGE));
	for (unsigned i = 0; i < 3; i++) {
		write_pages(others, 0, MANY, TEXT, 7 + i);
		check_pages(others, 0, MANY, TEXT, 7 + i);
		CHECK(pwrite(fd, base, 256 * PAGE, 0) == 256 * PAGE, "errno %d", errno);
	}
	CHECK(stats_of(s).pinned_bytes == 256 * PAGE);
	CHECK(spw_region_pin(o, 0, MANY * PAGE) == -ENOMEM);
	CHECK(stats_of(s).pinned_bytes == 256 * PAGE, "%llu", (unsigned long long)stats_of(s).pinned_bytes);
	check_pages(others, 0, MANY, TEXT, 9);
	CHECK(!spw_region_unpin(r, 0, 256 * PAGE));
	check_pages(base, 0, 512, TEXT, 1);
	close(fd);
	spw_region_destroy(r);
	spw_region_destroy(o);
	end_space(s);
}

/* What is pinned stays where a system call finds it. */
static void discard_of_pinned(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	int fd = scratch_file();
	char *base;
	struct spw_region *r = new_region(s, 16, &base);

	write_pages(base, 0, 16, TEXT, 1);
	CHECK(!spw_region_pin(r, 0, 8 * PAGE));
	CHECK(spw_region_advise(r, 0, 16 * PAGE, SPW_DISCARD) == -EBUSY);
	CHECK(region_stats(r).pinned_bytes == 8 * PAGE, "%llu", (unsigned long long)region_stats(r).pinned_bytes);
	CHECK(readable(fd, base) && readable(fd, base + 7 * PAGE));
	check_pages(base, 0, 16, TEXT, 1);
	CHECK(!spw_region_unpin(r, 0, 8 * PAGE));
	CHECK(!spw_region_advise(r, 0, 16 * PAGE, SPW_DISCARD));
	check_pages(base, 0, 16, TEXT, 0);
	close(fd);
	spw_region_destroy(r);
	end_space(s);
}

/* ---- the cap ---- */

struct watch {
	struct spw_space *space;
	int stop;
	uint64_t looks, most, over;
};

static void *watch(void *arg)
{
	struct watch *w = arg;

	do {
		struct spw_space_stats st = stats_of(w->space);

		w->most = st.used_bytes > w->most ? st.used_bytes : w->most;
		w->over += st.used_bytes > st.ram;
		CHECK(st.peak_bytes >= w->most, "peak %llu of %llu", (unsigned long long)st.peak_bytes,
		      (unsigned long long)w->most);
		w->looks++;
	} while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED));
	return NULL;
}

struct writer {
	char *base;
	uint64_t seed;
};

#define WRITERS 4u

static void *write_and_read(void *arg)
{
	struct writer *w = arg;

	for (unsigned i = 0; i < 3; i++) {
		write_pages(w->base, 0, MANY, TEXT, w->seed + i);
		check_pages(w->base, 0, MANY, TEXT, w->seed + i);
	}
	return NULL;
}

/* Four threads, together with twice the cap; compressed it fits. */
static void cap_is_kept(void)
{
	struct spw_space *s = new_space(16 * MIB, SPW_FAULT_SIGNAL);
	struct watch w = {.space = s};
	struct writer writer[WRITERS];
	struct spw_region *r[WRITERS];
	pthread_t watcher, id[WRITERS];

	CHECK(!pthread_create(&watcher, NULL, watch, &w));
	for (unsigned i = 0; i < WRITERS; i++) {
		r[i] = new_region(s, MANY, &writer[i].base);
		writer[i].seed = 1 + i * 10000;
		CHECK(!pthread_create(&id[i], NULL, write_and_read, &writer[i]));
	}
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(id[i], NULL);
	__atomic_store_n(&w.stop, 1, __ATOMIC_RELAXED);
	pthread_join(watcher, NULL);
	CHECK(!w.over && w.most <= 16 * MIB, "over %llu times of %llu, %llu KiB at the most",
	      (unsigned long long)w.over, (unsigned long long)w.looks, (unsigned long long)w.most / 1024);
	CHECK(stats_of(s).peak_bytes <= 16 * MIB, "%llu KiB", (unsigned long long)stats_of(s).peak_bytes / 1024);
	CHECK(!stats_of(s).over_events);
	for (unsigned i = 0; i < WRITERS; i++) {
		check_pages(writer[i].base, 0, MANY, TEXT, writer[i].seed + 2);
		spw_region_destroy(r[i]);
	}
	end_space(s);
}

/* What does not compress has nowhere to go: the cap gives way, the bytes do not. */
static void everything_full(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	struct spw_space_stats st;
	char *base, *more;
	struct spw_region *r = new_region(s, MANY, &base), *m;

	write_pages(base, 0, MANY, NOISE, 1);
	st = stats_of(s);
	CHECK(st.over_events && st.used_bytes > RAM && st.peak_bytes >= st.used_bytes, "%llu times, %llu KiB",
	      (unsigned long long)st.over_events, (unsigned long long)st.used_bytes / 1024);
	check_pages(base, 0, MANY, NOISE, 1);
	/* There is room again, and the cap holds again. */
	CHECK(!spw_region_advise(r, 0, MANY * PAGE, SPW_DISCARD));
	CHECK(stats_of(s).used_bytes <= RAM);
	m = new_region(s, MANY, &more);
	st = stats_of(s);
	write_pages(more, 0, MANY / 2, TEXT, 1);
	check_pages(more, 0, MANY / 2, TEXT, 1);
	CHECK(stats_of(s).over_events == st.over_events && stats_of(s).used_bytes <= RAM, "%llu times more, %llu KiB",
	      (unsigned long long)(stats_of(s).over_events - st.over_events),
	      (unsigned long long)stats_of(s).used_bytes / 1024);
	spw_region_destroy(r);
	spw_region_destroy(m);
	end_space(s);
}

static void another_cap(void)
{
	struct spw_space *s = new_space(16 * MIB, SPW_FAULT_SIGNAL);
	char *base;
	struct spw_region *r = new_region(s, MANY, &base);

	write_pages(base, 0, MANY, TEXT, 1);
	CHECK(!stats_of(s).out_pages && stats_of(s).resident_bytes == MANY * PAGE);
	CHECK(!spw_space_set_ram(s, 5 * MIB) && stats_of(s).ram == 5 * MIB);
	while (stats_of(s).used_bytes > 5 * MIB)
		sched_yield();
	check_pages(base, 0, MANY, TEXT, 1);
	CHECK(stats_of(s).used_bytes <= 5 * MIB);
	CHECK(!spw_space_set_ram(s, 16 * MIB));
	check_pages(base, 0, MANY, TEXT, 1);
	CHECK(stats_of(s).resident_bytes == MANY * PAGE, "%llu", (unsigned long long)stats_of(s).resident_bytes);
	spw_region_destroy(r);
	end_space(s);
}

static void several_spaces(void)
{
	enum { SPACES = 6 };
	struct spw_space *s[SPACES];
	struct spw_region *r[SPACES];
	char *base[SPACES];
	struct writer w[SPACES];
	pthread_t id[SPACES];

	for (unsigned i = 0; i < SPACES; i++) {
		s[i] = new_space((5 + i) * MIB, i % 2 ? SPW_FAULT_THREAD : SPW_FAULT_SIGNAL);
		r[i] = new_region(s[i], MANY, &base[i]);
		w[i] = (struct writer){base[i], 1 + i * 10000};
		CHECK(!pthread_create(&id[i], NULL, write_and_read, &w[i]));
	}
	for (unsigned i = 0; i < SPACES; i++)
		pthread_join(id[i], NULL);
	CHECK(spw_space_destroy(s[0]) == -EBUSY);
	for (unsigned i = 0; i < SPACES; i++) {
		CHECK(stats_of(s[i]).ram == (5 + i) * MIB && stats_of(s[i]).peak_bytes <= (5 + i) * MIB,
		      "space %u: %llu KiB, over %llu times", i, (unsigned long long)stats_of(s[i]).peak_bytes / 1024,
		      (unsigned long long)stats_of(s[i]).over_events);
		spw_region_destroy(r[i]);
		end_space(s[i]);
		for (unsigned k = i + 1; k < SPACES; k++)
			check_pages(base[k], i, 100, TEXT, w[k].seed + 2);
	}
}

/* The pool is full, and there is nothing else: what takes no place there goes all the same, also behind what cannot. */
static void full_pool(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *noise, *base;
	struct spw_region *r = new_region(s, MANY, &noise), *mixed = new_region(s, 64, &base);

	write_pages(noise, 0, MANY, NOISE, 1);
	CHECK(stats_of(s).over_events, "it is not full");
	write_pages(base, 0, 4, NOISE, 1);
	write_pages(base, 4, 60, SAME, 1);
	CHECK(!spw_region_advise(mixed, 0, 64 * PAGE, SPW_COLD));
	CHECK(region_stats(mixed).resident_bytes <= 4 * PAGE, "%llu pages",
	      (unsigned long long)region_stats(mixed).resident_bytes / PAGE);
	check_pages(noise, 0, MANY, NOISE, 1);
	check_pages(base, 0, 4, NOISE, 1);
	check_pages(base, 4, 60, SAME, 1);
	spw_region_destroy(r);
	spw_region_destroy(mixed);
	end_space(s);
}

/* Two threads fault on a page at once, and the region goes as soon as both have it: two messages, one of them late. */
struct pair {
	pthread_barrier_t barrier;
	char *volatile page;
};

static void *touch_with(void *arg)
{
	struct pair *p = arg;

	for (;;) {
		pthread_barrier_wait(&p->barrier);
		if (!p->page)
			return NULL;
		CHECK(!*(volatile char *)p->page);
		pthread_barrier_wait(&p->barrier);
	}
}

static void region_goes_behind_a_fault(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_THREAD);
	struct pair p;
	pthread_t id;

	CHECK(!pthread_barrier_init(&p.barrier, NULL, 2) && !pthread_create(&id, NULL, touch_with, &p));
	for (unsigned i = 0; i < 1000; i++) {
		char *base;
		struct spw_region *r = new_region(s, 1, &base);

		p.page = base;
		pthread_barrier_wait(&p.barrier);
		CHECK(!*(volatile char *)base);
		pthread_barrier_wait(&p.barrier);
		/* By turns: its addresses go, its table goes, and both. */
		CHECK(i % 3 == 0 || !spw_region_resize(r, 4 * MIB));
		if (i % 3 == 1)
			CHECK(!spw_region_resize(r, 64 * MIB));
		spw_region_destroy(r);
	}
	CHECK(!stats_of(s).resident_bytes, "%llu", (unsigned long long)stats_of(s).resident_bytes);
	p.page = NULL;
	pthread_barrier_wait(&p.barrier);
	pthread_join(id, NULL);
	pthread_barrier_destroy(&p.barrier);
	end_space(s);
}

/* As many as there may be: what one too many had taken by then is given back. */
static void as_many_spaces_as_may_be(void)
{
	enum { SOME = 40, TOO_MANY = 200 };
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	struct spw_space *s[TOO_MANY];
	struct spw_region *r[TOO_MANY];
	unsigned n = 0;
	char *base;
	int rc = 0;

	o.ram = 4 * MIB;
	o.addresses = 64 * MIB;
	for (; n < TOO_MANY && !(rc = spw_space_create(&o, &s[n])); n++)
		r[n] = new_region(s[n], 1, &base);
	CHECK(rc == -ENOMEM && n >= SOME, "%d with %u", rc, n);
	spw_region_destroy(r[0]);
	end_space(s[0]);
	CHECK(!spw_space_create(&o, &s[0]), "one is gone");
	r[0] = new_region(s[0], 1, &base);
	CHECK(spw_space_create(&o, &s[n]) == -ENOMEM);
	for (unsigned i = 0; i < n; i++) {
		char *page = spw_region_address(r[i]);

		write_pages(page, 0, 1, TEXT, i);
		take_out(r[i]);
		check_pages(page, 0, 1, TEXT, i);
		spw_region_destroy(r[i]);
		end_space(s[i]);
	}
}

/* All of them touch the same pages at once, in and out. */
static void *race_for_pages(void *arg)
{
	char *base = arg;

	for (unsigned round = 0; round < 200; round++)
		for (uint64_t i = 0; i < 16; i++)
			check_pages(base, (round * 16 + i) % MANY, 1, TEXT, 1);
	return NULL;
}

static void *take_out_again(void *arg)
{
	for (unsigned i = 0; i < 300; i++)
		CHECK(!spw_region_advise(arg, 0, MANY * PAGE, SPW_COLD));
	return NULL;
}

static void threads_race_for_pages(void)
{
	struct spw_space *s = new_space(RAM, SPW_FAULT_SIGNAL);
	char *base;
	struct spw_region *r = new_region(s, MANY, &base);
	pthread_t id[40];

	write_pages(base, 0, MANY, TEXT, 1);
	for (unsigned i = 0; i < 40; i++)
		CHECK(!pthread_create(&id[i], NULL, i ? race_for_pages : take_out_again, i ? (void *)base : r));
	for (unsigned i = 0; i < 40; i++)
		pthread_join(id[i], NULL);
	check_pages(base, 0, MANY, TEXT, 1);
	spw_region_destroy(r);
	end_space(s);
}

const struct spw_test_case memory_cases[] = {
	{"memory, faults by signal", memory_by_signal},
	{"memory, faults by thread", memory_by_thread},
	{"an ordinary user", ordinary_user},
	{"advice", advice},
	{"first writes", first_writes},
	{"equal steps, by signal", steps_by_signal},
	{"equal steps, by a thread", steps_by_thread},
	{"resizing", resizing},
	{"system calls need a pin", system_calls_need_a_pin},
	{"system calls, faults by thread", system_calls_by_thread},
	{"pins nest", pins_nest},
	{"pins under pressure", pins_under_pressure},
	{"pinned pages are discarded", discard_of_pinned},
	{"the cap is kept", cap_is_kept},
	{"every tier is full", everything_full},
	{"another cap", another_cap},
	{"several spaces", several_spaces},
	{"a full pool", full_pool},
	{"a region goes behind a fault, by thread", region_goes_behind_a_fault},
	{"as many spaces as may be", as_many_spaces_as_may_be},
	{"threads race for pages", threads_race_for_pages},
	{NULL, NULL},
};
