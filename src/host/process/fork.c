/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork(2) when pages are out.
 *
 * The child gets a copy of the program's memory, of its holes, and of the agent's memory too: space, page table, pool.
 * What it does not get is threads. Two things can go wrong. The copy can be torn, if the agent's threads work while
 * the kernel copies; and the child's first instructions (libc's own, before any hook of ours) can touch a page that
 * is out, with nobody there to bring it.
 *
 * So: libc calls prepare() before the fork. The reclaimer parks, moves the frames' pages back and freezes the agent:
 * from here to the child's taking over its memory does not change; what happens meanwhile goes into a log (forklog.c).
 * UFFD_EVENT_FORK hands the handler the child's userfaultfd, and it serves the child's early faults out of the frozen
 * state. The child's hook starts a fresh agent thread, which asks the parent (over an abstract socket, for it has none
 * of the agent's descriptors) for its userfaultfd and the log; then it is on its own and the parent's reclaimer thaws.
 * The parent's faults are served until the fork event, and from there on wait for the thaw.
 *
 * Some children get all their pages at once and run uncapped: those made by a bare clone(2), without libc's hooks,
 * those for which no record is left in the control region, and those of a program that has given up the privileges by
 * which the agent opened its files. Without CAP_SYS_PTRACE there is no fork event: then prepare() brings every page in
 * first, and the child starts anew.
 */
#include "host/process/fork.h"
#include "host/process/agent.h"
#include "host/process/cow.h"
#include "host/text.h"
#include "host/uffd.h"
#include "platform/platform.h"
#include "platform/sys.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif
#define ALIVE_CHECK_MS 20
#define HOOK_STACK     (16u << 10) /* more than the hooks use; less than the smallest thread stack */

static size_t log_bytes(const struct spw__forklog *l)
{
	return offsetof(struct spw__forklog, item) + l->count * sizeof(l->item[0]);
}

static uint32_t state(const struct spw__fork *f)
{
	return __atomic_load_n(&f->state, __ATOMIC_ACQUIRE);
}

static void pass(struct spw__fork *f, enum spw__fork_state to)
{
	__atomic_store_n(&f->state, to, __ATOMIC_RELEASE);
	spw__wake_all(&f->state);
}

static void await(struct spw__fork *f, enum spw__fork_state want)
{
	for (uint32_t now; (now = state(f)) != want;)
		spw__wait(&f->state, now, 1000000000);
}

bool spw__fork_frozen(const struct spw__agent *a)
{
	return state(&a->fork) >= SPW_FORK_FROZEN;
}

bool spw__fork_wanted(const struct spw__agent *a)
{
	return state(&a->fork) != SPW_FORK_NONE;
}

/* The parent's address: abstract, so that nothing has to be removed. */
static socklen_t address(struct sockaddr_un *un, uint64_t pid, uint64_t nonce)
{
	const char prefix[] = "spillway-";
	size_t n = 1;

	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(un->sun_path + n, prefix, sizeof(prefix) - 1);
	n += sizeof(prefix) - 1;
	n += spw__put_number(un->sun_path + n, sizeof(un->sun_path) - n, pid, 10);
	un->sun_path[n++] = '-';
	n += spw__put_number(un->sun_path + n, sizeof(un->sun_path) - n, nonce, 16);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
}

int spw__fork_init(struct spw__agent *a)
{
	struct spw__fork *f = &a->fork;
	struct sockaddr_un un;

	f->child_fd = -1;
	f->listen_fd = -1;
	if (!(a->features & UFFD_FEATURE_EVENT_FORK))
		return 0;
	a->fork_pid = (uint64_t)spw__sys0(SYS_getpid);
	if (spw__sys3(SYS_getrandom, &a->fork_nonce, sizeof(a->fork_nonce), 0) != sizeof(a->fork_nonce))
		return -EIO;
	f->listen_fd = (int)spw__sys3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (f->listen_fd < 0)
		return f->listen_fd;
	socklen_t len = address(&un, a->fork_pid, a->fork_nonce);
	long ret = spw__sys3(SYS_bind, f->listen_fd, &un, len);

	return (int)(ret ? ret : spw__sys2(SYS_listen, f->listen_fd, 4));
}

/* The page of e, at the frame it is in or restored into `page`. */
static const void *bytes_of(struct spw__agent *a, spw_entry_t e, void *page)
{
	spw_slot_t where = SPW_SLOT_NONE;
	uint32_t frame;

	if (spw_cache_get(a->space, e, &frame) == 0)
		return spw__frame_at(&a->frames, frame);
	int ret = spw_load(a->space, a->fault_work, e, page, &where);

	if (ret)
		spw__agent_lost(e, where, -ret);
	return page;
}

/* Bring what is out. False: the program has changed its mappings meanwhile, and some of it may be elsewhere now. */
static bool bring_pass(struct spw__agent *a)
{
	bool steady = true;

	for (uint32_t i = 0; i < a->regions.count; i++) {
		struct spw__region g = a->regions.at[i];

		for (uint64_t va = g.start; (va = spw__pt_next_out(&a->pt, va, g.end)) < g.end;) {
			spw_entry_t e = spw__pt_lookup(&a->pt, va);
			long done = spw__uffd_copy(a->uffd, (void *)(uintptr_t)va, bytes_of(a, e, a->window), SPW_PAGE);

			/* Without a mapping there may be an event to come that says where it is now. */
			if (done == -EAGAIN || (done == -ENOENT && spw__uffd_changing(a->uffd, a->ctl))) {
				spw__fault_drain(a);
				spw__sys0(SYS_sched_yield);
				steady = false;
				continue;
			}
			if (done < 0 && done != -EEXIST)
				spw__agent_die("cannot bring a page in before a fork", (int)-done);
			spw_free(a->space, &e, 1);
			spw__pt_came_in(&a->pt, va, 1);
			va += SPW_PAGE;
		}
	}
	return steady;
}

/* Every page that is out comes back, before a fork of which no event will tell. */
static void bring_all(struct spw__agent *a)
{
	while (!bring_pass(a))
		;
}

static void give_all(struct spw__agent *a, int fd, struct spw__held *h);

/* One message of a child that is being given its pages. Its faults end with the descriptor. */
static void read_given(struct spw__agent *a, int fd, struct spw__held *h)
{
	struct uffd_msg m;

	if (spw__sys3(SYS_read, fd, &m, sizeof(m)) != (long)sizeof(m) || m.event == UFFD_EVENT_PAGEFAULT)
		return;
	if (m.event == UFFD_EVENT_FORK) {
		struct spw__held so_far = *h;

		give_all(a, (int)m.arg.fork.ufd, &so_far);
	} else {
		spw__held_add(a, h, &m);
	}
}

/* The page at va to where the child has it by now. 0, or -ESRCH: the child is gone. */
static int give(struct spw__agent *a, int fd, struct spw__held *h, uint64_t va)
{
	for (;;) {
		bool dropped;
		void *to = (void *)(uintptr_t)spw__held_place(h, va, &dropped);

		if (dropped)
			return 0;
		long done = spw__uffd_copy(fd, to, bytes_of(a, spw__pt_lookup(&a->pt, va), a->window), SPW_PAGE);

		if (done > 0 || done == -EEXIST || done == -ENOENT)
			return 0;
		if (done == -ESRCH)
			return -ESRCH;
		if (done != -EAGAIN)
			spw__agent_die("cannot give a forked process its memory", (int)-done);
		read_given(a, fd, h);
		spw__sys0(SYS_sched_yield);
	}
}

/*
 * Every page that is out to the child behind fd, which will have no agent; closes fd. The child runs meanwhile, and its
 * changes of mappings wait to be read: h has those that were before.
 */
static void give_all(struct spw__agent *a, int fd, struct spw__held *h)
{
	int ret = 0;

	for (uint32_t i = 0; i < a->regions.count && !ret; i++) {
		struct spw__region g = a->regions.at[i];

		for (uint64_t va = g.start; !ret && (va = spw__pt_next_out(&a->pt, va, g.end)) < g.end; va += SPW_PAGE)
			ret = give(a, fd, h, va);
	}
	spw__sys1(SYS_close, fd);
}

void spw__fork_event(struct spw__agent *a, int fd)
{
	struct spw__held none = {.events = 0};

	/* Not announced by libc: nobody in the child will take over. */
	give_all(a, fd, &none);
}

/* Bring the page of e (or zeros) to va in the mm behind fd, by the log's leave. True if it was not there and is now. */
static bool place(struct spw__agent *a, int fd, uint64_t va, spw_entry_t e)
{
	void *to = (void *)(uintptr_t)va;
	spw_slot_t where = SPW_SLOT_NONE;

	if (e.idx == SPW_ENTRY_NONE)
		return spw__uffd_zero(fd, to, SPW_PAGE) > 0;
	int ret = spw_load(a->space, a->fault_work, e, a->window, &where);

	if (ret)
		spw__agent_lost(e, where, -ret);
	return spw__uffd_copy_quiet(fd, to, a->window, SPW_PAGE) > 0;
}

/* One early fault of the child. */
static void serve_child(struct spw__agent *a, uint64_t va)
{
	struct spw__fork *f = &a->fork;

	if (spw__forklog_full(&f->log))
		spw__agent_die("served a forked child too many pages before it took over", 0);
	if (place(a, f->child_fd, va, spw__forklog_lookup(a, &f->log, va, f->child_fd)))
		spw__forklog_placed(&f->log, va, false);
	spw__uffd_wake(f->child_fd, (void *)(uintptr_t)va, SPW_PAGE);
}

/*
 * A fault in the parent before the fork event. It cannot be held: the thread may be F, or hold a lock of libc's that F
 * waits for on its way to the clone. The agent's state, which F may be copying at this moment, stays as it is.
 */
static void serve_early(struct spw__agent *a, uint64_t va)
{
	struct spw__forklog *l = &a->fork.log;

	if (!spw__forklog_there(l, va)) {
		spw_entry_t e = spw__forklog_lookup(a, l, va, -1);

		/* Zeros matter only where something was taken away. */
		if (place(a, a->uffd, va, e) && (l->count || e.idx != SPW_ENTRY_NONE))
			spw__forklog_placed(l, va, true);
	}
	spw__uffd_wake(a->uffd, (void *)(uintptr_t)va, SPW_PAGE);
}

static bool is_write(const struct uffd_msg *m)
{
	return m->event == UFFD_EVENT_PAGEFAULT && m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP;
}

/* A write to what the fork shares. Now it cannot wait for room. */
static void let_write(int fd, uint64_t va)
{
	if (spw__uffd_protect(fd, (void *)(uintptr_t)va, SPW_PAGE, 0))
		spw__uffd_wake(fd, (void *)(uintptr_t)va, SPW_PAGE);
}

static void finish(struct spw__fork *f)
{
	if (f->child_fd >= 0)
		spw__sys1(SYS_close, f->child_fd);
	f->child_fd = -1;
	pass(f, SPW_FORK_DONE);
}

static void read_own(struct spw__agent *a)
{
	struct spw__fork *f = &a->fork;
	struct uffd_msg m;

	if (spw__sys3(SYS_read, a->uffd, &m, sizeof(m)) != (long)sizeof(m))
		return;
	bool copied = f->child_fd >= 0;

	switch (m.event) {
	case UFFD_EVENT_FORK:
		if (copied) {
			spw__held_add(a, &f->held, &m); /* another's, by a bare clone(2) */
			break;
		}
		f->child_fd = (int)m.arg.fork.ufd;
		if (f->uncapped) {
			spw__fork_event(a, f->child_fd);
			f->child_fd = -1;
			finish(f);
		}
		break;
	case UFFD_EVENT_PAGEFAULT:
		if (is_write(&m))
			let_write(a->uffd, spw__msg_page(&m));
		else if (copied || (spw__forklog_full(&f->log) && (int)m.arg.pagefault.feat.ptid != f->forker))
			spw__held_add(a, &f->held, &m);
		else
			serve_early(a, spw__msg_page(&m));
		break;
	default:
		spw__forklog_event(a, &f->log, &m, !copied);
	}
}

static void read_child(struct spw__agent *a)
{
	struct spw__fork *f = &a->fork;
	struct uffd_msg m;

	if (spw__sys3(SYS_read, f->child_fd, &m, sizeof(m)) != (long)sizeof(m))
		return;
	if (is_write(&m))
		let_write(f->child_fd, spw__msg_page(&m));
	else if (m.event == UFFD_EVENT_PAGEFAULT)
		serve_child(a, spw__msg_page(&m));
	else
		spw__agent_die("a forked child changed its mappings before it took over", m.event);
}

static bool child_dead(struct spw__agent *a)
{
	return spw__uffd_zero(a->fork.child_fd, a->ctl, SPW_PAGE) == -ESRCH;
}

/*
 * clone(2) returns only after this thread has read the fork event. If the hook behind it has run and this thread knows
 * of no event, none was sent: the fork failed, or the child is none of ours.
 */
static bool no_child(struct spw__fork *f)
{
	return __atomic_load_n(&f->after, __ATOMIC_ACQUIRE);
}

/* Give the child that connected its descriptor and the log. True if it was the child. */
static bool hand_over(struct spw__agent *a, int sock)
{
	struct spw__fork *f = &a->fork;
	const struct spw_ctl_proc *r = &a->ctl->proc[f->child_slot];
	struct ucred who;
	socklen_t len = sizeof(who);
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {.iov_base = &f->log, .iov_len = log_bytes(&f->log)};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	if (spw__sys5(SYS_getsockopt, sock, SOL_SOCKET, SO_PEERCRED, &who, &len))
		return false;
	/* The kernel says the number in our pid namespace: the child's own, if it shares ours, or the supervisor's. */
	if (who.pid != __atomic_load_n(&r->pid, __ATOMIC_ACQUIRE) &&
	    who.pid != __atomic_load_n(&r->own_pid, __ATOMIC_RELAXED))
		return false;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &f->child_fd, sizeof(int));
	return spw__sys3(SYS_sendmsg, sock, &msg, MSG_NOSIGNAL) == (long)iov.iov_len;
}

void spw__fork_serve(struct spw__agent *a)
{
	struct spw__fork *f = &a->fork;

	if (state(f) == SPW_FORK_DONE)
		spw__wait(&f->state, SPW_FORK_DONE, 1000000);
	while (state(f) == SPW_FORK_FROZEN) {
		struct pollfd p[3] = {{.fd = a->uffd, .events = POLLIN},
				      {.fd = f->child_fd, .events = POLLIN},
				      {.fd = f->told ? f->listen_fd : -1, .events = POLLIN}};
		bool soon = f->listen_fd < 0 || (f->child_fd >= 0 && !f->told);
		long n = spw__sys3(SYS_poll, p, 3, soon ? 1 : ALIVE_CHECK_MS);

		if (p[0].revents & POLLIN)
			read_own(a);
		/* Mappings that changed before the copy may have their events still to come. */
		else if (f->child_fd >= 0 && !spw__uffd_changing(a->uffd, a->ctl))
			f->told = true;
		if (p[1].revents & POLLIN)
			read_child(a);
		if (p[2].revents & POLLIN) {
			int sock = (int)spw__sys4(SYS_accept4, f->listen_fd, 0, 0, SOCK_CLOEXEC);
			bool done = sock >= 0 && hand_over(a, sock);

			if (sock >= 0)
				spw__sys1(SYS_close, sock);
			if (done)
				finish(f);
		} else if (f->child_fd >= 0 ? n == 0 && child_dead(a) : (n == 0 || f->listen_fd < 0) && no_child(f)) {
			finish(f);
		}
	}
}

static void block_signals(uint64_t *old)
{
	uint64_t all = ~0ull;

	spw__sys4(SYS_rt_sigprocmask, SIG_BLOCK, &all, old, sizeof(all));
}

static void restore_signals(uint64_t mask)
{
	spw__sys4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof(mask));
}

static int reserve_record(struct spw__agent *a)
{
	int32_t mine = -__atomic_load_n(&a->rec->pid, __ATOMIC_RELAXED);

	a->fork.reservation = mine;
	for (unsigned i = 0; i < SPW_CTL_PROCS; i++) {
		int32_t none = 0;

		if (__atomic_compare_exchange_n(&a->ctl->proc[i].pid, &none, mine, 0, __ATOMIC_ACQ_REL,
						__ATOMIC_RELAXED))
			return (int)i;
	}
	return -EAGAIN;
}

/*
 * These hooks run on the program's stack, which may be managed memory. With the reclaimer parked no page of it goes
 * out, and what the hooks will need is brought in here, before the lock is held that serving it takes.
 */
static void touch_stack(void)
{
	volatile char room[HOOK_STACK];

	for (size_t i = 0; i < sizeof(room); i += SPW_PAGE / 2)
		room[i] = 0;
}

static void prepare(void)
{
	struct spw__agent *a = &spw__agent;
	struct spw__fork *f = &a->fork;
	uint64_t mask;

	block_signals(&mask);
	spw__lock(&f->lock);
	f->signals = mask;
	spw__lock(&a->work);
	if (!a->armed)
		return;
	spw__unlock(&a->work);
	f->forker = (int)spw__sys0(SYS_gettid);
	f->able = spw__agent_may_reopen(a);
	pass(f, SPW_FORK_PARK);
	spw__reclaim_kick(a);
	await(f, SPW_FORK_PARKED);
	touch_stack();
	pass(f, SPW_FORK_FREEZE);
	await(f, SPW_FORK_FROZEN);
}

/* In the parent, as soon as the kernel has made the child (or failed to). */
static void parent(void)
{
	struct spw__agent *a = &spw__agent;
	struct spw__fork *f = &a->fork;
	uint64_t mask = f->signals;

	if (!a->armed) {
		spw__unlock(&a->work);
	} else {
		__atomic_store_n(&f->after, 1, __ATOMIC_RELEASE);
		await(f, SPW_FORK_NONE);
	}
	spw__unlock(&f->lock);
	restore_signals(mask);
}

/* Each side of a fork has half of all that there was, until it is measured and the cap is shared out anew. */
static void halve(const struct spw__agent *a, struct spw_ctl_proc *r)
{
	int64_t resident = __atomic_load_n(&a->resident, __ATOMIC_RELAXED);

	__atomic_store_n(&r->target_bytes, spw__agent_target(a) / 2, __ATOMIC_RELAXED);
	__atomic_store_n(&r->shared_bytes, resident > 0 ? (uint64_t)resident / 2 : 0, __ATOMIC_RELAXED);
}

static void freeze(struct spw__agent *a)
{
	struct spw__fork *f = &a->fork;

	spw__evict_undo(a);
	/* What is left there (pages of ranges unmapped since) would be shared with the child, and then stuck. */
	spw__frames_empty(a);
	f->log.count = f->held.events = f->held.faults = 0;
	f->told = false;
	f->ready = 0;
	f->after = 0;
	if (f->listen_fd < 0) {
		bring_all(a);
		spw__cow_guard(a);
		return;
	}
	spw__cow_guard(a);
	int slot = f->able ? reserve_record(a) : -EACCES;
	int ret = slot < 0 ? 0 : spw_fork_prepare(a->space, (unsigned)slot);

	if (ret)
		spw__agent_die("cannot prepare a fork", -ret);
	f->uncapped = slot < 0;
	f->child_slot = (unsigned)slot;
	if (!f->uncapped)
		halve(a, &a->ctl->proc[slot]);
}

static void thaw(struct spw__agent *a)
{
	struct spw__fork *f = &a->fork;

	a->family = true;
	a->shared_next = 0;
	struct spw_ctl_proc *r = f->uncapped || f->listen_fd < 0 ? NULL : &a->ctl->proc[f->child_slot];

	if (r && __atomic_load_n(&r->pid, __ATOMIC_ACQUIRE) < 0) {
		spw_fork_failed(a->space, f->child_slot);
		__atomic_store_n(&r->pid, 0, __ATOMIC_RELEASE);
	} else if (r) {
		halve(a, a->rec);
	}
	spw__forklog_settle(a, &f->log);
	spw__held_release(a, &f->held);
}

void spw__fork_park(struct spw__agent *a)
{
	struct spw__fork *f = &a->fork;

	if (state(f) != SPW_FORK_PARK)
		return;
	/*
	 * Nobody watches the handler meanwhile. Once the lock was ours, it has seen the fork and binds itself no more.
	 */
	spw__lock(&a->lock);
	spw__place_free(a);
	spw__unlock(&a->lock);
	pass(f, SPW_FORK_PARKED);
	await(f, SPW_FORK_FREEZE);
	spw__lock(&a->lock);
	freeze(a);
	pass(f, SPW_FORK_FROZEN);
	spw__unlock(&a->lock);
	await(f, SPW_FORK_DONE);
	spw__lock(&a->lock);
	thaw(a);
	pass(f, SPW_FORK_NONE);
	spw__unlock(&a->lock);
}

static int receive(struct spw__agent *a)
{
	struct sockaddr_un un;
	socklen_t len = address(&un, a->fork_pid, a->fork_nonce);
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct spw__forklog *l = &a->fork.log;
	int sock = (int)spw__sys3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = -1;
	long ret = sock < 0 ? sock : spw__sys3(SYS_connect, sock, &un, len);

	l->count = 0;
	for (size_t have = 0; ret >= 0 && have < log_bytes(l); have += (size_t)ret) {
		struct iovec iov = {.iov_base = (char *)l + have, .iov_len = sizeof(*l) - have};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

		if (have == 0) {
			msg.msg_control = control;
			msg.msg_controllen = sizeof(control);
		}
		ret = spw__sys3(SYS_recvmsg, sock, &msg, MSG_CMSG_CLOEXEC);
		if (ret == 0)
			ret = -EPIPE;
		struct cmsghdr *c = have == 0 && ret > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

		if (c)
			memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	}
	if (sock >= 0)
		spw__sys1(SYS_close, sock);
	return ret < 0 ? (int)ret : fd;
}

/*
 * Ranges that the program keeps from its children. The kernel does not tell; the program's madvise(2) calls go past
 * here (by libc's name: a bare system call is not seen). Such programs are few, so only they pay for the child's closer
 * look.
 */
static uint32_t keeps_from_children; /* A */

__attribute__((visibility("default"))) int madvise(void *p, size_t len, int advice)
{
	if (advice == MADV_WIPEONFORK || advice == MADV_DONTFORK)
		__atomic_store_n(&keeps_from_children, 1, __ATOMIC_RELEASE);
	long ret = spw__sys3(SYS_madvise, p, len, advice);

	/* The kernel tells of a discard, but not of a guard, which discards too. The guard stays. */
	if (ret == 0 && advice == MADV_GUARD_INSTALL)
		spw__sys3(SYS_madvise, p, len, MADV_DONTNEED);
	if (ret < 0)
		errno = (int)-ret;
	return ret < 0 ? -1 : 0;
}

static void lose(void *agent, uint64_t start, uint64_t end)
{
	struct spw__agent *a = agent;

	for (uint64_t from = start, to = end; spw__regions_next(&a->regions, &from, &to); from = to, to = end) {
		spw__pt_free_range(&a->pt, from, to);
		/* Found again by the next scan if it is there. */
		spw__regions_cut(&a->regions, from, to);
	}
}

static void take_over(struct spw__agent *a)
{
	a->uffd = receive(a);
	if (a->uffd < 0)
		spw__agent_die("did not get its descriptor after a fork", -a->uffd);
	spw__forklog_inherit(a, &a->fork.log);
	if (spw__regions_lost(&a->regions, a->uffd, __atomic_load_n(&keeps_from_children, __ATOMIC_ACQUIRE), lose, a))
		spw__agent_die("cannot read its map after a fork", EIO);
}

/* The child's reclaimer, to begin with. */
static int child_thread(void *agent)
{
	struct spw__agent *a = agent;
	struct spw__fork *f = &a->fork;
	int ret = spw__agent_reopen(a);

	if (ret)
		spw__agent_die("cannot open what it needs after a fork", -ret);
	spw_fork_child(a->space, a->slot);
	take_over(a);
	ret = spw__frames_reopen(a);
	ret = ret ? ret : spw__fork_init(a);
	a->reclaim_tid = (int)spw__sys0(SYS_gettid);
	/* The program may have given up, since the last time, what it takes. */
	spw__place_ask(a);
	if (ret == 0)
		ret = spw__thread_start(spw__fault_thread, a, 0);
	if (ret < 0)
		spw__agent_die("cannot start after a fork", -ret);
	__atomic_fetch_or(&a->rec->flags, SPW_PROC_READY | SPW_PROC_ARMED, __ATOMIC_RELEASE);
	__atomic_store_n(&f->ready, 1, __ATOMIC_RELEASE);
	spw__wake_all(&f->ready);
	return spw__reclaim_thread(a);
}

static void child(void)
{
	struct spw__agent *a = &spw__agent;
	struct spw__fork *f = &a->fork;
	bool armed = a->armed && f->listen_fd >= 0 && !f->uncapped;
	uint64_t mask = f->signals;

	spw__threads_forget();
	a->lock = a->work = f->lock = (struct spw__lock){0};
	f->state = SPW_FORK_NONE;
	if (!armed) {
		spw__agent_restart(a);
		restore_signals(mask);
		return;
	}
	a->slot = f->child_slot;
	a->family = true;
	a->shared_next = 0;
	a->faults_window = 0; /* the parent's misses */
	spw__agent_inherit(a);
	if (spw__thread_start(child_thread, a, 1) < 0)
		spw__agent_die("cannot start a thread after a fork", EAGAIN);
	while (!__atomic_load_n(&f->ready, __ATOMIC_ACQUIRE))
		spw__wait(&f->ready, 0, 1000000000);
	restore_signals(mask);
}

void spw__fork_watch(void)
{
	pthread_atfork(prepare, parent, child);
}
