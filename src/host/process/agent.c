/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of the agent in a process.
 *
 * The preloaded library's constructor starts one thread and returns; everything else is that thread's work, so a
 * process that never comes near the cap pays for one clone(2). The thread opens its descriptors in a file table of its
 * own (thread.c), finds the control region of `spillway run`, takes a record there and watches. Near the cap it arms:
 * opens userfaultfd, makes the space and its tiers, starts the handler. There is no way back and none is needed: what
 * is registered but not out costs nothing.
 *
 * Without `spillway run` the tree has no cap to keep, so the agent ends the process when the supervisor is killed.
 */
#include "host/process/agent.h"
#include "host/group.h"
#include "host/process/fork.h"
#include "host/text.h"
#include "host/uffd.h"
#include "platform/linux.h"
#include "platform/sys.h"
#include "tier/zswap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct spw__agent spw__agent;

static char control_path[64];
static uint32_t group; /* of which this process is; fork and exec keep it */

uint64_t spw__agent_target(const struct spw__agent *a)
{
	uint64_t target = __atomic_load_n(&a->rec->target_bytes, __ATOMIC_RELAXED);

	/* Nobody shares the cap out before the first walk of the tree, nor after the supervisor has left. */
	if (!target || __atomic_load_n(&a->ctl->closing, __ATOMIC_RELAXED))
		target = __atomic_load_n(&a->ctl->ram_limit_bytes, __ATOMIC_RELAXED);
	/* What it was told last may be from before an exec, in the group around this one. */
	return target < a->group_limit ? target : a->group_limit;
}

bool spw__agent_over(const struct spw__agent *a)
{
	return __atomic_load_n(&a->resident, __ATOMIC_RELAXED) > (int64_t)spw__agent_target(a);
}

static __attribute__((noreturn)) void end_by(int sig)
{
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} dfl = {0};
	uint64_t none = 0;
	long pid = spw__sys0(SYS_getpid);

	spw__sys4(SYS_rt_sigaction, sig, &dfl, 0, sizeof(dfl.mask));
	spw__sys4(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof(none));
	/* To this thread: delivered when the call returns, before any other thread runs on. */
	spw__sys3(SYS_tgkill, pid, spw__sys0(SYS_gettid), sig);
	for (;;)
		spw__sys2(SYS_kill, pid, SIGKILL);
}

void spw__agent_lost(spw_entry_t e, spw_slot_t where, int error)
{
	spw__say("a page cannot be restored (entry %u, slot 0x%x): %s; stopping process %u with SIGBUS",
		 (uint64_t)e.idx, where.v,
		 error == EBADMSG ? "its bytes are damaged on the swap file" : "the swap file cannot be read",
		 (uint64_t)spw__sys0(SYS_getpid));
	end_by(SIGBUS);
}

void spw__agent_die(const char *what, int error)
{
	spw__say("the agent %s (error %u); stopping process %u rather than risk its memory", what, (uint64_t)error,
		 (uint64_t)spw__sys0(SYS_getpid));
	end_by(SIGBUS);
}

bool spw__agent_supervisor_dead(const struct spw__agent *a)
{
	struct pollfd p = {.fd = a->supervisor_fd, .events = POLLIN};

	return spw__sys3(SYS_poll, &p, 1, 0) == 1;
}

/* Memory that the program may pin, lock or share is not refused here: the kernel refuses to move its pages. */
#define REGISTER_MODE (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP)
#define BESIDE        512 /* small neighbours looked at */

/*
 * A mapping of which only a part is registered is two, and the program's mremap(2) of the whole is refused. It comes to
 * that when a part is protected differently for a while, or when the mapping replaced, in the last moment, the one that
 * was meant. So the small private anonymous neighbours, on the side of va that `step` says, are registered too. They
 * are not managed.
 */
static void register_beside(struct spw__agent *a, uint64_t va, int step)
{
	uint64_t start, end;

	for (unsigned n = 0; n < BESIDE; n++) {
		if (!spw__regions_ask(&a->regions, va, &start, &end) || end - start >= SPW_REGION_MIN ||
		    spw__plat_owns((void *)(uintptr_t)start) || spw__regions_cover(&a->regions, start, end) ||
		    spw__uffd_register(a->uffd, (void *)(uintptr_t)start, end - start, REGISTER_MODE))
			return;
		va = step < 0 ? start - SPW_PAGE : end;
	}
}

/*
 * Whether one registered mapping covers [start, end), none of it managed yet. The map may have changed since it was
 * read, and registering skips holes; moving pages out of memory that is not registered would lose them. With its first
 * page there, placing zeros in the whole range fails with EEXIST if, and only if, it is so. Should the first page go in
 * that moment, by a discard that was let go before there was anything to discard, zeros are placed: so no page of the
 * range may be out.
 */
static bool registered_whole(struct spw__agent *a, uint64_t start, uint64_t end)
{
	spw__fault_serve(a, start);
	return spw__event_clear(a, start, start + SPW_PAGE) && spw__page_there(a, start) &&
	       spw__uffd_zero(a->uffd, (void *)(uintptr_t)start, end - start) == -EEXIST;
}

int spw__agent_register(struct spw__agent *a, uint64_t start, uint64_t end, uint64_t next)
{
	void *p = (void *)(uintptr_t)start;
	uint64_t first, last;

	if (spw__regions_ask(&a->regions, start, &first, &last)) {
		if (first != start || last < end)
			return -EAGAIN;
		end = last;
	}
	/* Up to the next mapping, should this one grow just now. */
	int ret = spw__uffd_register(a->uffd, p, (next > end ? next : end) - start, REGISTER_MODE);

	if (ret)
		ret = spw__uffd_register(a->uffd, p, end - start, REGISTER_MODE);
	if (ret)
		return ret;
	register_beside(a, start - SPW_PAGE, -1);
	register_beside(a, end, 1);
	for (uint64_t from = start, to; from < end; from = to) {
		const struct spw__region *g = spw__regions_at(&a->regions, from);
		bool known = g && g->start <= from;

		to = known ? g->end : g && g->start < end ? g->start : end;
		if (!known && !registered_whole(a, from, to))
			return -EAGAIN;
	}
	return 0;
}

static int open_uffd(struct spw__agent *a)
{
	/* With MOVE asked for by name there is nothing to fall back to. */
	unsigned step = a->ctl->evict == SPW_EVICT_MOVE ? 2 : 1;
	uint64_t base = UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |
			UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_THREAD_ID;
	uint64_t tries[] = {base | UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_MOVE, base | UFFD_FEATURE_EVENT_FORK,
			    base | UFFD_FEATURE_MOVE, base};
	int ret = -EINVAL;

	for (unsigned i = 0; i < 4 && ret < 0; i += step) {
		a->features = tries[i];
		ret = spw__uffd_open(&a->features, true);
	}
	a->uffd = ret;
	return ret < 0 ? ret : 0;
}

static struct spw_work *make_work(struct spw__agent *a)
{
	struct spw_work *w;
	void *mem = spw__plat_reserve((spw_work_size(a->space) + SPW_PAGE - 1) / SPW_PAGE * SPW_PAGE);

	return mem && spw_work_init(a->space, mem, &w) == 0 ? w : NULL;
}

#define TWINS_LEAST (1u << 12)
#define TWINS_MOST  (1u << 18)

/*
 * With --dedup, how many objects are remembered to find equal ones: as many as the cap has pages. A pool of half the
 * cap that compresses 3:1 holds half as many again.
 */
static uint32_t twins(const struct spw__agent *a)
{
	uint64_t pages = __atomic_load_n(&a->ctl->ram_limit_bytes, __ATOMIC_RELAXED) / SPW_PAGE;
	uint32_t n = TWINS_LEAST;

	while (n < TWINS_MOST && 2 * n <= pages)
		n *= 2;
	return a->ctl->dedup ? n : 0;
}

static int make_space(struct spw__agent *a)
{
	struct spw__space_config cfg = {
		.max_clusters = 1u << 21, /* 4 TiB of memory */
		.max_frames = SPW_FRAMES,
		.codec = {.coding = a->ctl->coding, .level = a->ctl->level},
		.max_twins = twins(a),
	};

	if (spw__sys3(SYS_getrandom, &cfg.twin_key, sizeof(cfg.twin_key), 0) != sizeof(cfg.twin_key))
		return -EIO;
	int ret = spw__space_create(&cfg, &a->space);

	if (ret)
		return ret;
	/* Room for every byte under any cap: the pool's own limit is set, and changed, while it runs. */
	ret = spw__zswap_create(0, "zswap", a->ctl->zswap_bytes, a->ctl->memory_bytes * 2, &a->zswap);
	ret = ret ? ret : spw__space_add_tier(a->space, a->zswap);
	if (ret)
		return ret;
	/* The pool alone is better than no cap. */
	spw__tiers_follow(a);
	a->reclaim_work = make_work(a);
	a->fault_work = make_work(a);
	return a->reclaim_work && a->fault_work ? spw__pt_init(&a->pt, a->space, a->ctl->dedup) : -ENOMEM;
}

static int arm(struct spw__agent *a)
{
	int ret = open_uffd(a);

	if (ret)
		return ret;
	a->move = a->features & UFFD_FEATURE_MOVE && a->ctl->evict != SPW_EVICT_WP;
	a->pagemap_fd = spw__open("/proc/self/pagemap", O_RDONLY);
	if (a->pagemap_fd < 0)
		return a->pagemap_fd;
	ret = make_space(a);
	ret = ret ? ret : spw__frames_init(a);
	ret = ret ? ret : spw__regions_init(&a->regions);
	ret = ret ? ret : spw__fault_init(a);
	ret = ret ? ret : spw__fork_init(a);
	if (ret)
		return ret;
	spw__place_ask(a);
	ret = spw__thread_start(spw__fault_thread, a, 0);
	return ret < 0 ? ret : 0;
}

int spw__agent_arm(struct spw__agent *a)
{
	int ret = arm(a);

	if (ret == 0) {
		a->armed = true;
		__atomic_fetch_or(&a->rec->flags, SPW_PROC_ARMED, __ATOMIC_RELAXED);
		return 0;
	}
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++) {
		__atomic_store_n(&a->rec->part[i].unopened, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&a->rec->part[i].generation, 0, __ATOMIC_RELEASE);
	}
	__atomic_fetch_or(&a->rec->flags, SPW_PROC_REFUSED, __ATOMIC_RELAXED);
	if (!a->ctl->best_effort)
		spw__say("process %u cannot be capped (error %u); run `spillway doctor`",
			 (uint64_t)spw__sys0(SYS_getpid), (uint64_t)-ret);
	return ret;
}

/* Field 22 of /proc/self/stat. */
static uint64_t start_time(void)
{
	char text[512];
	int fd = spw__open("/proc/self/stat", O_RDONLY);
	long n = spw__sys3(SYS_read, fd, text, sizeof(text) - 1);

	spw__sys1(SYS_close, fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	const char *field = spw__stat_field(text, 22);

	return field ? spw__number_at(field) : 0;
}

static void fill_record(struct spw_ctl_proc *r)
{
	__atomic_store_n(&r->group, group, __ATOMIC_RELAXED);
	__atomic_store_n(&r->start_time, start_time(), __ATOMIC_RELAXED);
	spw__sys5(SYS_prctl, PR_GET_NAME, r->comm, 0, 0, 0);
}

/* Our number as the supervisor sees it: in a pid namespace of the program's own, getpid() would give another. */
static int32_t outer_pid(void)
{
	char text[16] = "";

	spw__sys4(SYS_readlinkat, AT_FDCWD, "/proc/self", text, sizeof(text) - 1);
	int32_t pid = (int32_t)spw__number_at(text);

	return pid ? pid : (int32_t)spw__sys0(SYS_getpid);
}

/* After exec the record of the old image is ours to go on with, but not what it held on files. */
static bool reuse_record(struct spw__agent *a, int32_t pid)
{
	for (unsigned i = 0; i < SPW_CTL_PROCS; i++) {
		struct spw_ctl_proc *r = &a->ctl->proc[i];

		if (__atomic_load_n(&r->pid, __ATOMIC_ACQUIRE) != pid || r->start_time != start_time())
			continue;
		/* Where that fails, it comes free with the process. */
		spw__tiers_reap(a->ctl, i);
		memset(r->part, 0, sizeof(r->part));
		memset(&r->pool_bytes, 0,
		       offsetof(struct spw_ctl_proc, target_bytes) - offsetof(struct spw_ctl_proc, pool_bytes));
		a->rec = r;
		a->slot = i;
		fill_record(r);
		return true;
	}
	return false;
}

int spw__agent_enlist(struct spw__agent *a)
{
	int32_t pid = outer_pid();

	if (reuse_record(a, pid))
		return 0;
	for (unsigned i = 0; i < SPW_CTL_PROCS; i++) {
		struct spw_ctl_proc *r = &a->ctl->proc[i];
		int32_t none = 0;

		if (!__atomic_compare_exchange_n(&r->pid, &none, pid, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			continue;
		a->rec = r;
		a->slot = i;
		fill_record(r);
		return 0;
	}
	return -EAGAIN;
}

void spw__agent_inherit(struct spw__agent *a)
{
	int32_t reserved = a->fork.reservation;

	a->rec = &a->ctl->proc[a->slot];
	/* When the parent has been killed since, its reservation is gone, and the record may be another's. */
	if (!__atomic_compare_exchange_n(&a->rec->pid, &reserved, outer_pid(), false, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED))
		spw__agent_die("lost its parent during a fork", 0);
	__atomic_store_n(&a->rec->own_pid, (int32_t)spw__sys0(SYS_getpid), __ATOMIC_RELAXED);
	__atomic_add_fetch(&a->ctl->total.processes, 1, __ATOMIC_RELAXED);
}

static bool may_open(const char *path, int mode)
{
	long ret = spw__sys4(SYS_faccessat2, AT_FDCWD, path, mode, AT_EACCESS);

	return ret == 0 || ret == -ENOSYS;
}

bool spw__agent_may_reopen(const struct spw__agent *a)
{
	return may_open("/proc/self/pagemap", R_OK) && (!a->tiers.files || may_open(control_path, R_OK | W_OK));
}

int spw__agent_reopen(struct spw__agent *a)
{
	fill_record(a->rec);
	int ret = spw__tiers_reopen(a);

	if (ret)
		return ret;
	a->pagemap_fd = spw__open("/proc/self/pagemap", O_RDONLY);
	a->regions.maps_fd = spw__open("/proc/self/maps", O_RDONLY);
	if (a->pagemap_fd < 0 || a->regions.maps_fd < 0)
		return -EIO;
	return spw__agent_open(a);
}

/* The thread's descriptors that do not depend on arming. */
int spw__agent_open(struct spw__agent *a)
{
	a->statm_fd = spw__open("/proc/self/statm", O_RDONLY);
	a->supervisor_fd = (int)spw__sys2(SYS_pidfd_open, a->ctl->supervisor_pid, 0);
	return a->statm_fd < 0 ? a->statm_fd : 0;
}

static int attach(struct spw__agent *a)
{
	struct stat st;
	int fd = spw__open(control_path, O_RDWR);

	if (fd < 0)
		return fd;
	long ret = spw__sys2(SYS_fstat, fd, &st);
	long p = ret ? ret : spw__sys6(SYS_mmap, 0, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	spw__sys1(SYS_close, fd);
	if (p < 0 && p > -4096)
		return (int)p;
	a->ctl = (struct spw_ctl *)p;
	if ((size_t)st.st_size < sizeof(*a->ctl) || a->ctl->magic != SPW_CTL_MAGIC ||
	    a->ctl->version != sizeof(struct spw_ctl))
		return -EPROTO;
	spw__say_through(a->ctl);
	a->group_limit = spw__group_limit(a->ctl, group);
	return 0;
}

static int first_thread(void *agent)
{
	struct spw__agent *a = agent;
	int ret = attach(a);

	ret = ret ? ret : spw__agent_enlist(a);
	ret = ret ? ret : spw__agent_open(a);
	/* Without a supervisor there is no cap: the process goes on as if it had never been preloaded. */
	if (ret)
		return ret;
	__atomic_add_fetch(&a->ctl->total.processes, 1, __ATOMIC_RELAXED);
	__atomic_fetch_or(&a->rec->flags, SPW_PROC_READY, __ATOMIC_RELEASE);
	return spw__reclaim_thread(a);
}

void spw__agent_restart(struct spw__agent *a)
{
	struct spw__plat_range own[SPW_PLAT_RANGES];
	unsigned n = spw__plat_ranges(own);

	while (n-- > 0)
		spw__plat_release((void *)own[n].base, own[n].bytes);
	*a = (struct spw__agent){0};
	spw__thread_start(first_thread, a, 1);
}

static __attribute__((constructor)) void begin(void)
{
	const char *path = getenv(SPW_CTL_ENV);

	if (!path || *path != '/' || strlen(path) >= sizeof(control_path))
		return;
	memcpy(control_path, path, strlen(path) + 1);
	char *number = strchr(control_path, ':');

	if (number) {
		*number++ = '\0';
		group = (uint32_t)spw__number_at(number);
	}
	if (spw__thread_start(first_thread, &spw__agent, 1) >= 0)
		spw__fork_watch();
}
