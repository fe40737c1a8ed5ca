/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor DIR: what the kernel, the codec and the disk alone take for each step of a fault or an eviction.
 *
 * Whether a fault of so many microseconds is good cannot be told from the figure: most of it is not ours. This measures
 * what no way of doing it gets below. Each step is done over a region of 4 MiB that is made ready outside of the time,
 * and the median of many such sweeps is taken, so that what else runs on the machine does not count.
 *
 * A change of page tables interrupts every CPU that runs the process: steps are measured alone and beside a thread that
 * reads a page without end. One line each on stdout: "name pages alone beside", us a call of so many pages; DIR is for a
 * file of 1 GiB, read past the page cache. A step that this kernel does not have has the figures "-".
 */
#include "codec/codec.h"
#include "host/uffd.h"
#include "pages.h"
#include "tier/file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; newer than Debian 12's headers */
#endif

#define PAGES      1024u
#define BYTES      (PAGES * PAGE)
#define MOST       64u /* pages of a call */
#define HUGE       (2u << 20)
#define SWEEPS     101u
#define FILE_BYTES (1ull << 30)
#define FEW        20u /* calls of a sweep, of a step that takes long */

static char *region, *source, *forbidden, *unregistered, *huge, *moved;
static uint8_t *packed;
static uint32_t packed_len;
static uint8_t sealed[SPW__TAG + PAGE], opened[SPW__TAG + PAGE];
static struct spw__seal seal_key;
static const struct spw__seal_id seal_id = {.entry = 1};
static void *work;
static const struct spw_codec lz4 = {.coding = SPW_CODING_LZ4};
static int uffd, served_uffd, self = -1, file;
static char *served;
static void (*answer)(char *page);
static uint64_t random_state = 1;
static bool unknown; /* the step that is being measured */
static cpu_set_t everywhere;
static pid_t server_thread;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void *map(size_t bytes, int prot)
{
	void *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED, "mmap");
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

static void read_word(const void *p)
{
	/* Two bytes of code, which on_segv() steps over. */
	__asm__ volatile(".byte 0x8b, 0x00" : : "a"(p) : "memory");
}

static void write_word(void *p)
{
	*(volatile uint32_t *)p = 1;
}

/* What a signal costs that does nothing. */
static void on_segv(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 0;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	answer((char *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1)));
}

/* This thread and the one that serves, or each anywhere. */
static void bind_to_one_cpu(bool one)
{
	cpu_set_t cpus = everywhere;

	for (unsigned cpu = 0, kept = 0; one && cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &cpus) && kept++)
			CPU_CLR(cpu, &cpus);
	}
	must(!sched_setaffinity(0, sizeof(cpus), &cpus) && !sched_setaffinity(server_thread, sizeof(cpus), &cpus),
	     "sched_setaffinity");
}

/* ---- how the region is to be when a sweep begins ---- */

static void empty(void)
{
	must(!madvise(region, BYTES, MADV_DONTNEED), "MADV_DONTNEED");
}

static void fill(void)
{
	empty();
	must(spw__uffd_copy(uffd, region, source, BYTES) == BYTES, "UFFDIO_COPY");
}

static void fill_protected(void)
{
	empty();
	must(spw__uffd_copy_protected(uffd, region, source, BYTES) == BYTES, "UFFDIO_COPY");
}

/* What is moved into it is in another mapping before. */
static void empty_beside_full(void)
{
	empty();
	moved = memset(unregistered, 1, BYTES);
}

/* The first move of each huge page splits it. */
static void empty_beside_huge(void)
{
	empty();
	must(!madvise(huge, BYTES, MADV_DONTNEED), "MADV_DONTNEED");
	moved = memset(huge, 1, BYTES);
	int ret = madvise(huge, BYTES, MADV_COLLAPSE);

	/* Refused while somebody looks at one of the pages. */
	for (unsigned i = 1; ret && errno == EAGAIN && i < 100; i++)
		ret = madvise(huge, BYTES, MADV_COLLAPSE);
	unknown |= ret != 0;
}

static void empty_unregistered(void)
{
	must(!madvise(unregistered, BYTES, MADV_DONTNEED), "MADV_DONTNEED");
}

static void empty_served(void)
{
	must(!madvise(served, BYTES, MADV_DONTNEED), "MADV_DONTNEED");
}

static void empty_served_here(void)
{
	bind_to_one_cpu(true);
	empty_served();
}

static void as_it_is(void)
{
}

/* ---- the steps: `at` bytes into the region, `pages` pages ---- */

static void answer_zero(char *page)
{
	spw__uffd_zero(uffd, page, PAGE);
}

static void answer_copy(char *page)
{
	spw__uffd_copy_quiet(uffd, page, source, PAGE);
}

static void answer_unprotect(char *page)
{
	spw__uffd_protect(uffd, page, PAGE, 0);
}

/* An address that is none: the processor refuses it before there is a page to be looked for. */
static void signal_of_no_page(size_t at, unsigned pages)
{
	(void)at;
	(void)pages;
	read_word((void *)(1ull << 63));
}

static void signal_of_page(size_t at, unsigned pages)
{
	(void)at;
	(void)pages;
	read_word(forbidden);
}

static void first_write(size_t at, unsigned pages)
{
	(void)pages;
	write_word(unregistered + at);
}

static void bus_zero(size_t at, unsigned pages)
{
	(void)pages;
	answer = answer_zero;
	read_word(region + at);
}

static void bus_copy(size_t at, unsigned pages)
{
	(void)pages;
	answer = answer_copy;
	read_word(region + at);
}

static void bus_unprotect(size_t at, unsigned pages)
{
	(void)pages;
	answer = answer_unprotect;
	write_word(region + at);
}

static void thread_copy(size_t at, unsigned pages)
{
	(void)pages;
	read_word(served + at);
}

static void copy(size_t at, unsigned pages)
{
	must(spw__uffd_copy_quiet(uffd, region + at, source + at, pages * PAGE) > 0, "UFFDIO_COPY");
}

static void zero(size_t at, unsigned pages)
{
	must(spw__uffd_zero(uffd, region + at, pages * PAGE) > 0, "UFFDIO_ZEROPAGE");
}

static void move(size_t at, unsigned pages)
{
	unknown |= spw__uffd_move(uffd, region + at, moved + at, pages * PAGE) < 0;
}

static void protect(size_t at, unsigned pages)
{
	must(!spw__uffd_protect(uffd, region + at, pages * PAGE, 1), "UFFDIO_WRITEPROTECT");
}

static void unprotect(size_t at, unsigned pages)
{
	must(!spw__uffd_protect(uffd, region + at, pages * PAGE, 0), "UFFDIO_WRITEPROTECT");
}

static void drop(size_t at, unsigned pages)
{
	must(!madvise(region + at, pages * PAGE, MADV_DONTNEED), "MADV_DONTNEED");
}

/* As many pages, spread over the region, and none twice in a sweep. */
static void drop_scattered(size_t at, unsigned pages)
{
	struct iovec v[MOST];

	for (unsigned i = 0; i < pages; i++)
		v[i] = (struct iovec){region + at / pages + (size_t)i * (BYTES / pages), PAGE};
	unknown |= syscall(SYS_process_madvise, self, v, (size_t)pages, MADV_DONTNEED, 0) != (long)pages * PAGE;
}

static void compress(size_t at, unsigned pages)
{
	(void)pages;
	packed_len = spw__codec_compress(&lz4, work, source + at, packed, PAGE);
	must(packed_len, "lz4");
}

static void restore(size_t at, unsigned pages)
{
	static char page[PAGE];
	const struct spw_obj o = {packed, packed_len, SPW_CODING_LZ4};

	(void)at;
	(void)pages;
	must(!spw__codec_restore(work, &o, page), "lz4");
}

static void copy_bytes(size_t at, unsigned pages)
{
	memcpy(unregistered + at, source + at, pages * PAGE);
}

static void seal(size_t at, unsigned pages)
{
	(void)at;
	(void)pages;
	spw__seal(&seal_key, 1, 0, &seal_id, packed, packed_len, sealed);
}

static void unseal(size_t at, unsigned pages)
{
	(void)at;
	(void)pages;
	memcpy(opened, sealed, SPW__TAG + packed_len);
	must(!spw__unseal(&seal_key, 1, 0, &seal_id, opened, packed_len, opened + SPW__TAG), "unseal");
}

static void read_file(size_t at, unsigned pages)
{
	off_t from = (off_t)(noise(&random_state) % (FILE_BYTES / PAGE - pages) * PAGE);

	(void)at;
	must(pread(file, unregistered, pages * PAGE, from) == (ssize_t)(pages * PAGE), "read");
}

static void write_file(size_t at, unsigned pages)
{
	must(pwrite(file, source + at, pages * PAGE, (off_t)at) == (ssize_t)(pages * PAGE), "write");
}

/* ---- measuring ---- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct step {
	const char *name;
	void (*ready)(void);
	void (*call)(size_t at, unsigned pages);
	unsigned pages;
	unsigned calls; /* of a sweep; 0: as many as the region has room for */
};

static double measure(const struct step *s)
{
	double took[SWEEPS];
	unsigned calls = s->calls ? s->calls : PAGES / s->pages;

	for (unsigned i = 0; i < SWEEPS; i++) {
		s->ready();
		double began = now_us();

		for (unsigned c = 0; c < calls; c++)
			s->call((size_t)c * s->pages * PAGE % BYTES, s->pages);
		took[i] = (now_us() - began) / calls;
	}
	qsort(took, SWEEPS, sizeof(*took), by_value);
	return took[SWEEPS / 2];
}

static void *read_without_end(void *stop)
{
	must(!sched_setaffinity(0, sizeof(everywhere), &everywhere), "sched_setaffinity");
	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED))
		;
	return NULL;
}

static double measure_beside(const struct step *s)
{
	bool stop = false;
	pthread_t reader;

	must(!pthread_create(&reader, NULL, read_without_end, &stop), "thread");
	double us = measure(s);

	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(reader, NULL);
	return us;
}

static void run(const struct step *s)
{
	unknown = false;
	bind_to_one_cpu(false);
	double alone = measure(s), beside = unknown ? 0 : measure_beside(s);

	if (unknown)
		printf("%s %u - -\n", s->name, s->pages);
	else
		printf("%s %u %.4f %.4f\n", s->name, s->pages, alone, beside);
	fflush(stdout);
}

static const struct step steps[] = {
	{"signal-no-page", as_it_is, signal_of_no_page, 1, 0},
	{"signal-page", as_it_is, signal_of_page, 1, 0},
	{"anonymous-first-write", empty_unregistered, first_write, 1, 0},
	{"sigbus-zeropage", empty, bus_zero, 1, 0},
	{"sigbus-copy", empty, bus_copy, 1, 0},
	{"sigbus-unprotect", fill_protected, bus_unprotect, 1, 0},
	{"thread-copy", empty_served, thread_copy, 1, FEW},
	{"thread-copy-one-cpu", empty_served_here, thread_copy, 1, FEW},
	{"copy", empty, copy, 1, 0},
	{"copy", empty, copy, 16, 0},
	{"copy", empty, copy, 64, 0},
	{"zeropage", empty, zero, 1, 0},
	{"move", empty_beside_full, move, 1, 0},
	{"move", empty_beside_full, move, 16, 0},
	{"move", empty_beside_full, move, 64, 0},
	{"move-huge", empty_beside_huge, move, 64, 0},
	{"protect", fill, protect, 1, 0},
	{"protect", fill, protect, 16, 0},
	{"protect", fill, protect, 64, 0},
	{"unprotect", fill_protected, unprotect, 1, 0},
	{"unprotect", fill_protected, unprotect, 64, 0},
	{"dontneed", fill, drop, 1, 0},
	{"dontneed", fill, drop, 16, 0},
	{"dontneed", fill, drop, 64, 0},
	{"dontneed-scattered", fill, drop_scattered, 16, 0},
	{"dontneed-scattered", fill, drop_scattered, 64, 0},
	{"lz4-compress", as_it_is, compress, 1, 0},
	{"lz4-restore", as_it_is, restore, 1, 0},
	{"copy-bytes", as_it_is, copy_bytes, 1, 0},
	{"seal", as_it_is, seal, 1, 0},
	{"unseal", as_it_is, unseal, 1, 0},
	{"read-direct", as_it_is, read_file, 1, FEW},
	{"read-direct", as_it_is, read_file, 2, FEW},
	{"write-direct", as_it_is, write_file, 16, FEW},
	{"write-direct", as_it_is, write_file, 64, FEW},
};

/* ---- setting up ---- */

static void *serve(void *unused)
{
	struct pollfd p = {.fd = served_uffd, .events = POLLIN};
	struct uffd_msg m;

	(void)unused;
	__atomic_store_n(&server_thread, (pid_t)syscall(SYS_gettid), __ATOMIC_RELAXED);
	while (poll(&p, 1, -1) > 0)
		while (read(served_uffd, &m, sizeof(m)) == sizeof(m))
			spw__uffd_copy(served_uffd,
				       (void *)(uintptr_t)(m.arg.pagefault.address & ~(uint64_t)(PAGE - 1)), source,
				       PAGE);
	return NULL;
}

static int open_uffd(uint64_t features, void *p)
{
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
	int fd = spw__uffd_open(&features, false);

	must(fd >= 0 && !spw__uffd_register(fd, p, BYTES, mode), "userfaultfd");
	return fd;
}

static void catch (int sig, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};

	sigfillset(&a.sa_mask);
	must(!sigaction(sig, &a, NULL), "sigaction");
}

static void set_up_memory(void)
{
	pthread_t server;

	source = map(BYTES, PROT_READ | PROT_WRITE);
	for (unsigned i = 0; i < PAGES; i++)
		make_page(i, source + (size_t)i * PAGE);
	region = map(BYTES, PROT_READ | PROT_WRITE);
	served = map(BYTES, PROT_READ | PROT_WRITE);
	unregistered = map(BYTES, PROT_READ | PROT_WRITE);
	huge = map(BYTES + HUGE, PROT_READ | PROT_WRITE);
	huge += (HUGE - (uintptr_t)huge % HUGE) % HUGE;
	madvise(huge, BYTES, MADV_HUGEPAGE);
	forbidden = map(PAGE, PROT_NONE);
	uffd = open_uffd(UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP, region);
	served_uffd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP, served);
	catch (SIGSEGV, on_segv);
	catch (SIGBUS, on_bus);
	self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	must(!sched_getaffinity(0, sizeof(everywhere), &everywhere), "sched_getaffinity");
	must(!pthread_create(&server, NULL, serve, NULL), "thread");
	while (!__atomic_load_n(&server_thread, __ATOMIC_RELAXED))
		sched_yield();
}

static void set_up_codec(void)
{
	static const uint8_t key[SPW_FILE_KEY] = {1};

	packed = malloc(PAGE);
	must(!spw__seal_init(&seal_key, key, true), "sodium");
	work = aligned_alloc(64, (spw__codec_work_size(&lz4) + 63) / 64 * 64);
	must(packed && work && !spw__codec_work_init(&lz4, work), "memory");
}

/* Without a name from the start, so that it is gone however this ends. */
static void set_up_file(const char *folder)
{
	file = open(folder, O_TMPFILE | O_RDWR | O_DIRECT, 0600);
	must(file >= 0, folder);
	for (uint64_t at = 0; at < FILE_BYTES; at += BYTES)
		must(pwrite(file, source, BYTES, (off_t)at) == BYTES, "write");
	must(!fsync(file), "write");
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: floor DIR\n");
		return 2;
	}
	set_up_memory();
	set_up_codec();
	set_up_file(argv[1]);
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++)
		run(&steps[i]);
	return 0;
}
