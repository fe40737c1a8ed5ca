/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A space of the library: its life, its cap and its figures.
 *
 * The page tables are flat arrays by position, reserved for as much as the space may ever have and resident where it
 * has something: what finds a page in a signal handler can neither wait for a tree to be rebalanced nor allocate.
 * Nothing here comes from malloc: a program may build its allocator on regions.
 */
#include "host/library/library.h"
#include "host/text.h"
#include "host/uffd.h"
#include "platform/platform.h"
#include "platform/sys.h"
#include "tier/zswap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_LEAST      (4ull << 20)
#define ADDRESSES      (256ull << 30)
#define ADDRESSES_MOST (4ull << 40)
#define ZSWAP_PERCENT  95u
#define POOL_MOST      (1ull << 40) /* that the pool can address */
#define SIGNAL_STACK   (64u << 10)

void spw__lib_die(const char *what, int error)
{
	char line[200] = "spillway: ";
	size_t n = strlen(line);

	memcpy(line + n, what, strnlen(what, 100));
	n += strnlen(what, 100);
	if (error) {
		memcpy(line + n, ", error ", 8);
		n += 8 + spw__put_number(line + n + 8, 20, (uint64_t)error, 10);
	}
	line[n++] = '\n';
	spw__sys3(SYS_write, 2, line, n);
	sigset_t bus;

	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	signal(SIGBUS, SIG_DFL);
	pthread_sigmask(SIG_UNBLOCK, &bus, NULL);
	for (;;)
		spw__sys3(SYS_tgkill, getpid(), spw__sys0(SYS_gettid), SIGBUS);
}

void spw__lib_lost(uint64_t va, spw_slot_t where, int error)
{
	char what[100] = "cannot restore the page at 0x";
	size_t n = strlen(what);

	n += spw__put_number(what + n, 16, va, 16);
	memcpy(what + n, " from tier ", 11);
	n += 11 + spw__put_number(what + n + 11, 2, spw__slot_tier(where), 10);
	memcpy(what + n, " at ", 4);
	n += 4 + spw__put_number(what + n + 4, 16, spw__slot_offset(where), 10);
	strcpy(what + n, error == -EBADMSG ? ": changed" : ": unreadable");
	spw__lib_die(what, -error);
}

/* ---- who is inside, and with what ---- */

void spw__enter(struct spw_space *s)
{
	for (unsigned spins = 0;; spins++) {
		__atomic_add_fetch(&s->inside, 1, __ATOMIC_SEQ_CST);
		if (!__atomic_load_n(&s->gate, __ATOMIC_SEQ_CST))
			return;
		spw__leave(s);
		spw__plat_relax(spins);
	}
}

void spw__leave(struct spw_space *s)
{
	__atomic_sub_fetch(&s->inside, 1, __ATOMIC_SEQ_CST);
}

struct spw__seat *spw__seat_take(struct spw_space *s)
{
	uint32_t taken = __atomic_load_n(&s->seats, __ATOMIC_RELAXED);

	for (unsigned spins = 0;;) {
		/* The lowest, so that no more of them become resident than are used at once. */
		unsigned i = (unsigned)__builtin_ctz(~taken);

		if (i >= SPW__SEATS) {
			spw__plat_relax(spins++);
			taken = __atomic_load_n(&s->seats, __ATOMIC_RELAXED);
		} else if (__atomic_compare_exchange_n(&s->seats, &taken, taken | 1u << i, false, __ATOMIC_ACQUIRE,
						       __ATOMIC_RELAXED)) {
			/* Of two at once one may be forgotten, until it is taken again. */
			if (__atomic_load_n(&s->seated, __ATOMIC_RELAXED) <= i)
				__atomic_store_n(&s->seated, i + 1, __ATOMIC_RELAXED);
			return &s->seat[i];
		}
	}
}

void spw__seat_give(struct spw_space *s, struct spw__seat *seat)
{
	__atomic_fetch_and(&s->seats, ~(1u << (seat - s->seat)), __ATOMIC_RELEASE);
}

void spw__signals_block(sigset_t *old)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, old);
}

void spw__call_begin(struct spw_space *s, struct spw__call *c)
{
	spw__signals_block(&c->signals);
	c->seat = spw__seat_take(s);
	spw__enter(s);
}

void spw__call_end(struct spw_space *s, struct spw__call *c)
{
	spw__leave(s);
	spw__seat_give(s, c->seat);
	pthread_sigmask(SIG_SETMASK, &c->signals, NULL);
}

/* ---- create and destroy ---- */

static int make_seats(struct spw_space *s)
{
	size_t work = spw__round_up(spw_work_size(s->layer), SPW_PAGE);
	size_t one = work + SPW__WINDOW * SPW_PAGE + SIGNAL_STACK;
	int ret = 0;

	s->seat_bytes = one * SPW__SEATS;
	s->seat_memory = spw__lib_map(s->seat_bytes);
	s->zeros = spw__lib_map(SPW__WINDOW * SPW_PAGE);
	if (!s->seat_memory || !s->zeros)
		return -ENOMEM;
	for (unsigned i = 0; i < SPW__SEATS && !ret; i++) {
		char *p = s->seat_memory + i * one;

		ret = spw_work_init(s->layer, p, &s->seat[i].work);
		s->seat[i].window = p + work;
		s->seat[i].stack = p + one;
	}
	return ret;
}

/* The tables by position and by cluster, in one reservation. */
static int make_tables(struct spw_space *s)
{
	s->tables_bytes = s->clusters * (sizeof(*s->leaf) + SPW_CLUSTER * (3 * sizeof(uint32_t) + 3));
	s->tables_bytes = spw__round_up(s->tables_bytes, SPW_PAGE);
	s->tables = spw__plat_reserve(s->tables_bytes);
	if (!s->tables)
		return -ENOMEM;

	size_t positions = (size_t)s->clusters * SPW_CLUSTER;

	/* The rings first: they give back whole pages. */
	s->probation.at = (void *)s->tables;
	s->main.at = s->probation.at + positions;
	s->held = s->main.at + positions;
	s->leaf = (void *)(s->held + positions);
	s->state = (void *)(s->leaf + s->clusters);
	s->age = s->state + positions;
	s->pins = s->age + positions;
	return 0;
}

/* As much as all regions could need, stored as they are and in holes. */
static uint64_t pool_addresses(const struct spw_space *s)
{
	uint64_t bytes = 2 * s->leaves * SPW__LEAF_BYTES;

	return bytes < POOL_MOST ? bytes : POOL_MOST;
}

static int make_layer(struct spw_space *s, const struct spw_codec *codec)
{
	struct spw__space_config cfg = {
		.max_clusters = s->clusters, .max_frames = s->clusters * SPW_CLUSTER, .codec = *codec};
	int ret = spw__space_create(&cfg, &s->layer);

	ret = ret ? ret : spw__zswap_create(0, "zswap", s->zswap_bytes, pool_addresses(s), &s->zswap);
	return ret ? ret : spw__space_add_tier(s->layer, s->zswap);
}

static int open_uffd(struct spw_space *s)
{
	bool signal = s->fault_mode == SPW_FAULT_SIGNAL;
	uint64_t features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | (signal ? UFFD_FEATURE_SIGBUS : 0), want = features;

	s->uffd = spw__uffd_open(&features, !signal);
	if (s->uffd < 0 && !signal) {
		features = want;
		s->uffd = spw__uffd_open(&features, false);
	}
	if (s->uffd < 0)
		return s->uffd == -EINVAL ? -ENOSYS : s->uffd;
	s->pidfd = (int)spw__sys2(SYS_pidfd_open, getpid(), 0);
	s->whole_vector = s->pidfd >= 0;
	return features == want ? 0 : -ENOSYS;
}

static void unmake(struct spw_space *s)
{
	spw__files_close(s);
	if (s->zswap)
		s->zswap->ops->destroy(s->zswap);
	if (s->layer)
		spw__space_destroy(s->layer);
	if (s->tables)
		spw__plat_release(s->tables, s->tables_bytes);
	if (s->seat_memory)
		munmap(s->seat_memory, s->seat_bytes);
	if (s->zeros)
		munmap(s->zeros, SPW__WINDOW * SPW_PAGE);
	if (s->uffd >= 0)
		close(s->uffd);
	if (s->pidfd >= 0)
		close(s->pidfd);
	munmap(s, sizeof(*s));
}

static int start_threads(struct spw_space *s)
{
	sigset_t old;
	int ret;

	spw__signals_block(&old);
	ret = -pthread_create(&s->thread, NULL, spw__reclaim_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

static void stop_threads(struct spw_space *s)
{
	__atomic_store_n(&s->stop, 1, __ATOMIC_RELEASE);
	spw__kick(s);
	pthread_join(s->thread, NULL);
}

/* 0 or -errno. */
static int check(const struct spw_space_options *o, struct spw_codec *codec)
{
	if (o->size != sizeof(*o) || o->ram < RAM_LEAST || o->fault > SPW_FAULT_THREAD || o->addresses > ADDRESSES_MOST)
		return -EINVAL;
	return spw__codec_parse(o->codec ? o->codec : "lz4", codec);
}

static int begin_faults(struct spw_space *s)
{
	return s->fault_mode == SPW_FAULT_SIGNAL ? spw__signal_install() : spw__handler_start(s);
}

static void end_faults(struct spw_space *s)
{
	if (s->fault_mode == SPW_FAULT_SIGNAL)
		spw__signal_remove();
	else
		spw__handler_stop(s);
}

static int make(struct spw_space *s, const struct spw_codec *codec)
{
	int ret = spw__regions_init();

	ret = ret ? ret : open_uffd(s);
	ret = ret ? ret : make_layer(s, codec);
	ret = ret ? ret : make_tables(s);
	ret = ret ? ret : make_seats(s);
	if (ret)
		return ret;
	spw__account(s, NULL);
	ret = begin_faults(s);
	if (ret)
		return ret;
	ret = start_threads(s);
	if (ret)
		end_faults(s);
	return ret;
}

int spw_space_create(const struct spw_space_options *o, struct spw_space **out)
{
	struct spw_codec codec;
	int ret = check(o, &codec);

	if (ret)
		return ret;
	struct spw_space *s = spw__lib_map(sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->uffd = s->pidfd = -1;
	s->fault_mode = o->fault;
	s->ram = o->ram;
	s->zswap_bytes = o->zswap ? o->zswap : o->ram / 100 * ZSWAP_PERCENT;
	s->leaves = (uint32_t)((o->addresses ? o->addresses : ADDRESSES) / SPW__LEAF_BYTES);
	s->clusters = 2 * s->leaves;
	s->spare = spw__spare(o->ram);
	pthread_mutex_init(&s->admin, NULL);
	ret = s->leaves ? make(s, &codec) : -EINVAL;
	if (ret)
		unmake(s);
	else
		*out = s;
	return ret;
}

int spw_space_destroy(struct spw_space *s)
{
	if (__atomic_load_n(&s->regions, __ATOMIC_ACQUIRE))
		return -EBUSY;
	stop_threads(s);
	end_faults(s);
	pthread_mutex_destroy(&s->admin);
	unmake(s);
	return 0;
}

int spw_space_set_ram(struct spw_space *s, uint64_t ram)
{
	struct spw__call c;

	if (ram < RAM_LEAST)
		return -EINVAL;
	pthread_mutex_lock(&s->admin);
	/* The pool's part stays what it was of the whole. */
	uint64_t part = (uint64_t)((unsigned __int128)s->zswap_bytes * ram / s->ram);

	__atomic_store_n(&s->zswap_bytes, part < SPW_PAGE ? SPW_PAGE : part, __ATOMIC_RELAXED);
	__atomic_add_fetch(&s->spare, spw__spare(ram) - spw__spare(s->ram), __ATOMIC_RELAXED);
	__atomic_store_n(&s->ram, ram, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&s->admin);
	spw__call_begin(s, &c);
	spw__account(s, NULL);
	spw__call_end(s, &c);
	spw__kick(s);
	return 0;
}

/* ---- figures ---- */

static void add_seats(const struct spw_space *s, struct spw_space_stats *st)
{
	for (unsigned i = 0; i < SPW__SEATS; i++) {
		const struct spw__seat *seat = &s->seat[i];

		st->faults += __atomic_load_n(&seat->faults, __ATOMIC_RELAXED);
		st->write_faults += __atomic_load_n(&seat->write_faults, __ATOMIC_RELAXED);
		st->in_pages += __atomic_load_n(&seat->in, __ATOMIC_RELAXED);
		st->out_pages += __atomic_load_n(&seat->out, __ATOMIC_RELAXED);
		st->clean_pages += __atomic_load_n(&seat->clean, __ATOMIC_RELAXED);
		st->stored_pages += __atomic_load_n(&seat->stored, __ATOMIC_RELAXED);
		st->over_events += __atomic_load_n(&seat->overs, __ATOMIC_RELAXED);
	}
}

static void add_files(struct spw_space *s, struct spw_space_stats *st)
{
	st->read_pages = __atomic_load_n(&s->reads, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < SPW__LIB_FILES; i++) {
		struct spw_tier_stats t;

		if (!s->file[i].tier)
			continue;
		s->file[i].tier->ops->stats(s->file[i].tier, &t);
		st->file_pages += t.pages;
		st->file_bytes += t.used_bytes;
		st->file_capacity += t.capacity_bytes;
		st->read_pages += t.reads;
	}
}

void spw_space_stats(struct spw_space *s, struct spw_space_stats *out, size_t size)
{
	struct spw_space_stats st = {0};
	struct spw__space_stats layer;
	struct spw__call c;

	spw__call_begin(s, &c); /* no file goes meanwhile */
	spw__account(s, &st);
	spw_stats(s->layer, &layer);
	add_seats(s, &st);
	add_files(s, &st);
	spw__call_end(s, &c);
	st.pinned_bytes = __atomic_load_n(&s->pinned, __ATOMIC_RELAXED) * SPW_PAGE;
	st.same_pages = layer.same;
	st.written_pages = layer.writebacks;
	spw__stats_give(out, size, &st, sizeof(st));
}

void spw__stats_give(void *out, size_t size, const void *st, size_t have)
{
	memset(out, 0, size);
	memcpy(out, st, size < have ? size : have);
}

const char *spw_version(void)
{
	return SPW_VERSION;
}
