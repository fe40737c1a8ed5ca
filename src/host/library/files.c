/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files below the pool.
 *
 * A tier comes and goes while nobody uses one: calls walk the table of tiers without a lock, and a thread that reads a
 * slot may be asleep in it. To stop every thread of the program is not the library's right; so whoever may use a tier
 * says that it is inside, and the thread of the space, whose work writeback and draining are, waits at the gate until
 * nobody is. Who asked sleeps meanwhile.
 */
#include "host/library/library.h"
#include "host/unlinked.h"
#include "platform/platform.h"
#include "tier/swaphdr.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEAST_BYTES (1ull << 20)
#define MOST_BYTES  (1ull << 40) /* what a slot can address */
#define DRAIN_STEP  64u          /* objects */
#define DRAIN_NS    2000000u     /* at a time */
#define GATE_NS     10000000u

/* ---- what the file is ---- */

/* Bytes of a file; a write behind them fails, and to make it larger ends the program. */
static uint64_t may_write(void)
{
	struct rlimit most;

	return getrlimit(RLIMIT_FSIZE, &most) ? UINT64_MAX : most.rlim_cur;
}

static int open_own(const struct spw_file_options *o, struct spw_file_layout *l, int *fd)
{
	*fd = spw__unlinked_open(o->dir ? o->dir : spw__unlinked_dir());
	if (*fd < 0)
		return -errno;
	l->discard = true;
	l->max_bytes = o->bytes ? o->bytes : spw__unlinked_room(*fd);
	if (may_write() < l->max_bytes) {
		if (o->bytes)
			return -EFBIG;
		l->max_bytes = may_write();
	}
	l->max_bytes = (l->max_bytes < MOST_BYTES ? l->max_bytes : MOST_BYTES) / SPW_PAGE * SPW_PAGE;
	return l->max_bytes >= LEAST_BYTES && ftruncate(*fd, (off_t)l->max_bytes) ? -errno : 0;
}

/* A description of our own: the caller's may have another mode of access, and be closed. */
static int open_theirs(int theirs)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", theirs);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd >= 0 ? fd : fcntl(theirs, F_DUPFD_CLOEXEC, 0);
}

/* The whole of it, or, if it says that it is swap, what its header says. *h is what l->bad points to. */
static int look_at(const struct spw_file_options *o, int fd, struct spw_file_layout *l, struct spw_swaphdr *h)
{
	struct stat st;
	uint64_t bytes;

	if (fstat(fd, &st))
		return -errno;
	bytes = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &bytes))
		return -errno;
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return -EINVAL;
	int ret = spw__swaphdr_read(fd, h);

	if (ret == 0) {
		uint64_t named = ((uint64_t)h->last_page + 1) * SPW_PAGE;

		if (named > bytes)
			return -EINVAL; /* a ghost, or a file that was cut off */
		bytes = named;
		l->first_byte = SPW_SWAPHDR_BYTES;
		l->bad = h->bad;
		l->bad_n = h->bad_pages;
	} else if (ret != -ENODATA) {
		return ret;
	}
	if (S_ISREG(st.st_mode) && may_write() < bytes)
		bytes = may_write();
	l->max_bytes = o->bytes && o->bytes < bytes ? o->bytes : bytes;
	l->max_bytes = (l->max_bytes < MOST_BYTES ? l->max_bytes : MOST_BYTES) / SPW_PAGE * SPW_PAGE;
	return 0;
}

static void close_file(struct spw__lib_file *f)
{
	if (f->tier)
		f->tier->ops->destroy(f->tier);
	if (f->shared)
		spw__plat_release(f->shared, f->shared_bytes);
	if (f->fd >= 0)
		close(f->fd);
	*f = (struct spw__lib_file){.fd = -1};
}

static int make_tier(struct spw__lib_file *f, const struct spw_file_layout *l, unsigned number)
{
	int flags = fcntl(f->fd, F_GETFL), ret;

	/* Read and written past the page cache where the filesystem can. */
	if (flags >= 0)
		fcntl(f->fd, F_SETFL, flags | O_DIRECT);
	f->shared_bytes = spw__round_up(spw__file_shared_size(l->max_bytes), SPW_PAGE);
	f->shared = spw__plat_reserve(f->shared_bytes);
	if (!f->shared)
		return -ENOMEM;
	ret = spw__file_shared_init(f->shared, l);
	ret = ret ? ret : spw__file_io_open(f->fd, &f->io);
	if (ret)
		return ret;
	spw__file_io_watch(&f->io, SPW_WATCH_SPARE);
	ret = spw__file_create(number, "file", f->shared, 0, &f->io, &f->tier);
	if (ret)
		f->io.close(f->io.ctx);
	return ret;
}

static int open_file(const struct spw_file_options *o, unsigned number, struct spw__lib_file *f)
{
	struct spw_file_layout l = {.encrypt = !o->plaintext};
	struct spw_swaphdr h;
	int ret;

	*f = (struct spw__lib_file){.fd = -1};
	if (o->fd >= 0) {
		f->fd = open_theirs(o->fd);
		ret = f->fd < 0 ? -errno : look_at(o, f->fd, &l, &h);
	} else {
		ret = open_own(o, &l, &f->fd);
	}
	if (!ret && l.max_bytes < LEAST_BYTES)
		ret = -ENOSPC;
	if (!ret && getrandom(l.key, sizeof(l.key), 0) != sizeof(l.key))
		ret = -EIO;
	ret = ret ? ret : make_tier(f, &l, number);
	if (ret)
		close_file(f);
	else
		f->tier->priority = (int8_t)o->priority;
	explicit_bzero(l.key, sizeof(l.key));
	return ret;
}

/* ---- asking ---- */

/* Of the thread of the space. With s->admin held. */
static int ask(struct spw_space *s, bool drain, unsigned number, struct spw__lib_file *f)
{
	struct spw__request *q = &s->request;

	q->drain = drain;
	q->number = number;
	q->file = f;
	__atomic_store_n(&q->state, SPW__REQUEST_ASKED, __ATOMIC_RELEASE);
	spw__kick(s);
	while (__atomic_load_n(&q->state, __ATOMIC_ACQUIRE) == SPW__REQUEST_ASKED)
		spw__wait(&q->state, SPW__REQUEST_ASKED, 1000000000);
	q->state = SPW__REQUEST_NONE;
	return q->result;
}

int spw_space_add_file(struct spw_space *s, const struct spw_file_options *o, unsigned *tier)
{
	struct spw__lib_file f;
	unsigned i = 0;
	int ret;

	if (o->size != sizeof(*o) || o->priority < INT8_MIN || o->priority > INT8_MAX)
		return -EINVAL;
	pthread_mutex_lock(&s->admin);
	while (i < SPW__LIB_FILES && s->file[i].tier)
		i++;
	if (i == SPW__LIB_FILES)
		ret = -ENOSPC;
	else if ((i + 1) * (uint64_t)SPW__FILE_BOOKS > s->ram / 2)
		ret = -ENOMEM;
	else
		ret = open_file(o, i + 1, &f);
	if (ret == 0) {
		ret = ask(s, false, i, &f);
		if (ret)
			close_file(&f);
		else if (tier)
			*tier = i + 1;
	}
	pthread_mutex_unlock(&s->admin);
	return ret;
}

int spw_space_drain(struct spw_space *s, unsigned tier)
{
	struct spw__lib_file f;
	int ret = -ENOENT;

	pthread_mutex_lock(&s->admin);
	if (tier && tier <= SPW__LIB_FILES && s->file[tier - 1].tier)
		ret = ask(s, true, tier - 1, &f);
	if (ret == 0) {
		struct spw_tier_stats st;

		f.tier->ops->stats(f.tier, &st);
		__atomic_add_fetch(&s->reads, st.reads, __ATOMIC_RELAXED);
		close_file(&f);
	}
	pthread_mutex_unlock(&s->admin);
	return ret;
}

/* ---- doing ---- */

/*
 * False: somebody stays inside. It may wait for room, which is this thread's to make, so this does not wait for ever.
 */
static bool shut_gate(struct spw_space *s)
{
	uint64_t until = spw__plat_now_ns() + GATE_NS;

	__atomic_store_n(&s->gate, 1, __ATOMIC_SEQ_CST);
	for (unsigned spins = 0; __atomic_load_n(&s->inside, __ATOMIC_SEQ_CST); spins++) {
		if (spw__plat_now_ns() > until) {
			__atomic_store_n(&s->gate, 0, __ATOMIC_SEQ_CST);
			return false;
		}
		spw__plat_relax(spins);
	}
	return true;
}

static void open_gate(struct spw_space *s)
{
	__atomic_store_n(&s->gate, 0, __ATOMIC_SEQ_CST);
}

/*
 * Out of the space, and out of the table that is read inside. A store that began before the drain may have landed on
 * the tier yet: then there is more to do.
 */
static int remove_tier(struct spw_space *s, struct spw__lib_file *f)
{
	if (!shut_gate(s))
		return SPW_DRAIN_MORE;
	int ret = spw__space_remove_tier(s->layer, f->tier);

	if (ret == 0) {
		*s->request.file = *f;
		*f = (struct spw__lib_file){.fd = -1};
	}
	open_gate(s);
	return ret ? SPW_DRAIN_MORE : 0;
}

/* Some of it: > 0 if there is more to do. */
static int drain_some(struct spw_space *s, struct spw_work *work, struct spw__lib_file *f)
{
	struct spw__request *q = &s->request;
	struct spw_tier *t = f->tier;
	uint64_t until = spw__plat_now_ns() + DRAIN_NS;
	int ret = SPW_DRAIN_MORE;

	if (!q->begun)
		spw_drain_begin(s->layer, t);
	q->begun = true;
	while (ret > 0 && spw__plat_now_ns() < until) {
		ret = spw_drain_step(s->layer, work, t, DRAIN_STEP);
		spw_writeback_poll(s->layer, ret == SPW_DRAIN_WAITS ? DRAIN_NS : 0);
		if (ret == 0)
			ret = remove_tier(s, f);
	}
	if (ret < 0)
		spw_drain_cancel(s->layer, t);
	return ret;
}

/* > 0: not now. */
static int add(struct spw_space *s, struct spw__lib_file *f)
{
	if (!shut_gate(s))
		return 1;
	int ret = spw__space_add_tier(s->layer, s->request.file->tier);

	if (ret == 0)
		*f = *s->request.file;
	open_gate(s);
	__atomic_store_n(&s->full, 0, __ATOMIC_RELEASE);
	return ret;
}

bool spw__request_serve(struct spw_space *s, struct spw__seat *seat)
{
	struct spw__request *q = &s->request;

	if (__atomic_load_n(&q->state, __ATOMIC_ACQUIRE) != SPW__REQUEST_ASKED)
		return false;
	struct spw__lib_file *f = &s->file[q->number];
	int ret = q->drain ? drain_some(s, seat->work, f) : add(s, f);

	if (ret > 0)
		return true;
	if (ret == 0)
		__atomic_add_fetch(&s->files, q->drain ? -1u : 1u, __ATOMIC_RELAXED);
	q->begun = false;
	/* Before who asked goes on: what is left for the bookkeeping of a file is nobody's to fill from here. */
	spw__account(s, NULL);
	q->result = ret;
	__atomic_store_n(&q->state, SPW__REQUEST_DONE, __ATOMIC_RELEASE);
	spw__wake_all(&q->state);
	return false;
}

void spw__files_close(struct spw_space *s)
{
	for (unsigned i = 0; i < SPW__LIB_FILES; i++)
		if (s->file[i].tier)
			close_file(&s->file[i]);
}
