/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cap holds for a tree of processes that come and go, each with an agent that sees only itself, some with none.
 * Walking /proc often enough to keep up with an allocation of gigabytes a second would cost as much as the program
 * saves. So processes are found by a walk every 50 ms, or at once when an agent has signed in or a child has ended;
 * between walks only one number of each known process is read, through a descriptor that stays open, and the nearer
 * the tree is to its cap the more often.
 *
 * What agents rely on: target_bytes of a READY record is the resident size, less what is shared, that its process
 * should hold itself to.
 */
#include "cmd/tree.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/procfs.h"
#include "cmd/program.h"
#include "cmd/targets.h"
#include "host/group.h"
#include "platform/platform.h"

#define MS                1000000ull
#define WALK_NS           (50 * MS)
#define TICK_LEAST_NS     (2 * MS)
#define TICK_ALONE_NS     (10 * MS)
#define TICK_MOST_NS      (50 * MS)
#define FILL_BYTES_PER_NS 8        /* no program fills memory faster than 8 GB/s */
#define BEAT_NS           (8 * MS) /* a handler that has done nothing for so long does not look after its process */
#define GROWN             (256u << 10)
#define NEWBORN_NS        (200 * MS)
#define SIGN_IN_NS        (1000 * MS) /* an agent that has not signed in by then is not there */
#define VERDICTS          64u
#define NO_RECORD         (-1)

struct executable {
	dev_t dev;
	ino_t ino;
};

struct spw_verdict {
	struct executable exe;
	bool cappable;
};

struct spw_process {
	pid_t pid, parent;
	uint64_t start_time;
	char comm[16];
	int statm;
	int record;     /* index of its agent's, NO_RECORD */
	bool seen;      /* in the walk under way */
	uint32_t group; /* id. It only ever goes to one within it, and those are younger */
	struct executable exe;
	uint64_t exe_since_ns;
	uint64_t resident, was; /* bytes, now and at the last look */
	uint32_t beat;          /* of its agent's handler, and since when it has not changed */
	uint64_t beat_ns;
	bool uncapped;
};

static struct spw_process *find(struct spw_tree *t, pid_t pid)
{
	for (unsigned i = 0; i < t->processes; i++)
		if (t->process[i].pid == pid)
			return &t->process[i];
	return NULL;
}

static void drop(struct spw_tree *t, struct spw_process *p)
{
	close(p->statm);
	*p = t->process[--t->processes];
}

static struct spw_process *add(struct spw_tree *t, pid_t pid)
{
	struct spw_stat st;

	if (spw__proc_stat(pid, &st) || st.dead)
		return NULL;
	if (t->processes == t->room) {
		unsigned room = t->room ? 2 * t->room : 64;
		void *grown = realloc(t->process, room * sizeof(*t->process));
		if (!grown)
			return NULL;
		t->process = grown;
		t->room = room;
	}
	int statm = spw__proc_open_statm(pid);
	if (statm < 0)
		return NULL;
	struct spw_process *p = &t->process[t->processes++];
	*p = (struct spw_process){
		.pid = pid,
		.parent = st.parent,
		.start_time = st.start_time,
		.statm = statm,
		.record = NO_RECORD,
		.exe_since_ns = t->now_ns,
	};
	const struct spw_process *parent = find(t, st.parent);

	p->group = parent ? parent->group : 0;
	memcpy(p->comm, st.comm, sizeof(p->comm));
	return p;
}

static void visit(void *ctx, pid_t pid)
{
	struct spw_tree *t = ctx;
	struct spw_process *p = find(t, pid);
	struct spw_stat st;

	if (p && spw__proc_stat(pid, &st) == 0 && (st.dead || st.start_time != p->start_time)) {
		drop(t, p);
		p = NULL;
	}
	if (!p)
		p = add(t, pid);
	if (!p || p->seen)
		return;
	p->seen = true;
	spw__proc_children(pid, visit, t);
}

/* The tree below this process. */
static void walk(struct spw_tree *t)
{
	for (unsigned i = 0; i < t->processes; i++)
		t->process[i].seen = false;
	spw__proc_children(getpid(), visit, t);
	for (unsigned i = t->processes; i-- > 0;) {
		struct spw_process *p = &t->process[i];
		struct spw_stat st;
		/* one whose parent ended under the walk is alive and will be seen in the next */
		if (!p->seen && (spw__proc_stat(p->pid, &st) || st.dead || st.start_time != p->start_time))
			drop(t, p);
	}
	t->next_walk_ns = t->now_ns + WALK_NS;
	/* Mostly libraries, which every program has. */
	if (spw__proc_own_share(&t->own_bytes))
		spw__proc_resident(t->own_statm, &t->own_bytes);
}

static struct spw_ctl_proc *record(const struct spw_tree *t, const struct spw_process *p)
{
	return p->record == NO_RECORD ? NULL : &t->region->ctl->proc[p->record];
}

static bool ready(const struct spw_tree *t, const struct spw_process *p)
{
	const struct spw_ctl_proc *r = record(t, p);
	uint32_t flags = r ? __atomic_load_n(&r->flags, __ATOMIC_ACQUIRE) : 0;

	return (flags & (SPW_PROC_READY | SPW_PROC_REFUSED)) == SPW_PROC_READY;
}

/* Give back what the process of record i held. The pid goes last: from then on the record is another's to claim. */
static void give_back(const struct spw_tree *t, unsigned i)
{
	struct spw_ctl_proc *r = &t->region->ctl->proc[i];

	spw__swaps_reap(t->swaps, i);
	__atomic_store_n(&r->flags, 0, __ATOMIC_RELAXED);
	memset((char *)r + offsetof(struct spw_ctl_proc, start_time), 0,
	       sizeof(*r) - offsetof(struct spw_ctl_proc, start_time));
	__atomic_store_n(&r->pid, 0, __ATOMIC_RELEASE);
}

/* The process of record i has ended. */
static void release(const struct spw_tree *t, unsigned i)
{
	/* What the program held at its end is for the statistics, which end with it. */
	if (t->region->ctl->proc[i].pid != t->program)
		give_back(t, i);
}

/* Match records with processes: new ones are added, those of dead ones released. */
static void match_records(struct spw_tree *t)
{
	for (unsigned i = 0; i < t->processes; i++)
		t->process[i].record = NO_RECORD;
	for (unsigned i = 0; i < SPW_CTL_PROCS; i++) {
		const struct spw_ctl_proc *r = &t->region->ctl->proc[i];
		pid_t pid = __atomic_load_n(&r->pid, __ATOMIC_ACQUIRE);

		if (pid < 0 && kill(-pid, 0) && errno == ESRCH)
			release(t, i); /* reserved for a child by a process that died before it could fork */
		if (pid <= 0)
			continue;
		struct spw_process *p = find(t, pid);
		if (!p)
			p = add(t, pid);
		uint64_t start = __atomic_load_n(&r->start_time, __ATOMIC_ACQUIRE); /* 0: being claimed */
		if (!p || (start && start != p->start_time))
			release(t, i);
		else
			p->record = (int)i;
		uint32_t group = __atomic_load_n(&r->group, __ATOMIC_RELAXED);

		if (p && p->record == (int)i && group > p->group)
			p->group = group;
	}
}

static struct executable executable_of(pid_t pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (stat(path, &st))
		return (struct executable){0};
	return (struct executable){st.st_dev, st.st_ino};
}

static bool same_executable(struct executable a, struct executable b)
{
	return a.dev == b.dev && a.ino == b.ino;
}

/* Can this executable hold an agent? Remembered, for builds run the same tool thousands of times. */
static bool cappable(struct spw_tree *t, const struct spw_process *p)
{
	char path[64], why[256];

	for (unsigned i = 0; i < t->verdicts; i++)
		if (same_executable(t->verdict[i].exe, p->exe))
			return t->verdict[i].cappable;
	snprintf(path, sizeof(path), "/proc/%d/exe", p->pid);
	int answer = spw__program_check(path, why, sizeof(why));
	/* it may have ended or executed another meanwhile: then nothing is known of this one */
	if (answer < 0 || !same_executable(executable_of(p->pid), p->exe))
		return true;
	t->verdict[t->next_verdict] = (struct spw_verdict){p->exe, answer == 0};
	t->next_verdict = (t->next_verdict + 1) % VERDICTS;
	if (t->verdicts < VERDICTS)
		t->verdicts++;
	return answer == 0;
}

static void uncap(struct spw_tree *t, struct spw_process *p)
{
	if (p->uncapped)
		return;
	p->uncapped = true;
	t->uncapped_processes++;
	for (unsigned i = 0; i < t->uncapped_names; i++)
		if (!strcmp(t->uncapped[i].comm, p->comm)) {
			t->uncapped[i].processes++;
			return;
		}
	if (t->uncapped_names == SPW_UNCAPPED_NAMES)
		return;
	struct spw_uncapped *u = &t->uncapped[t->uncapped_names++];
	*u = (struct spw_uncapped){.processes = 1};
	memcpy(u->comm, p->comm, sizeof(u->comm));
}

/* Between fork and exec: still the parent's program, and (vfork) or all but (fork) the parent's memory. */
static bool newborn(struct spw_tree *t, const struct spw_process *p)
{
	const struct spw_process *parent = find(t, p->parent);

	if (!parent || !same_executable(p->exe, parent->exe))
		return false;
	return t->now_ns - p->exe_since_ns < NEWBORN_NS || syscall(SYS_kcmp, p->pid, parent->pid, KCMP_VM, 0, 0) == 0;
}

/* What it has executed has no agent: what the agent of the program before held is nobody's. */
static void disown(const struct spw_tree *t, struct spw_process *p)
{
	if (p->record != NO_RECORD)
		give_back(t, (unsigned)p->record);
	p->record = NO_RECORD;
}

/* It has executed another program, whose agent, if it gets one, says so itself. */
static void await_agent(const struct spw_tree *t, const struct spw_process *p)
{
	struct spw_ctl_proc *r = record(t, p);

	if (!r || spw__proc_maps(p->pid, SPW_AGENT_NAME))
		return;
	__atomic_fetch_and(&r->flags, ~(SPW_PROC_READY | SPW_PROC_ARMED), __ATOMIC_ACQ_REL);
	/* Should it have come in between, it has said so in vain. */
	if (spw__proc_maps(p->pid, SPW_AGENT_NAME))
		__atomic_fetch_or(&r->flags, SPW_PROC_READY, __ATOMIC_RELEASE);
}

/* Settle whether the process runs under the cap. */
static void classify(struct spw_tree *t, struct spw_process *p)
{
	struct executable exe = executable_of(p->pid);
	struct spw_stat st;

	if (!exe.ino)
		return; /* gone */
	if (!same_executable(exe, p->exe)) {
		p->exe = exe;
		p->exe_since_ns = t->now_ns;
		if (!spw__proc_stat(p->pid, &st))
			memcpy(p->comm, st.comm, sizeof(p->comm));
		/* what its agent signed in was the program before exec */
		await_agent(t, p);
		if (!cappable(t, p) && !spw__proc_maps(p->pid, SPW_AGENT_NAME)) {
			disown(t, p);
			uncap(t, p);
		}
	}
	if (ready(t, p) || p->uncapped)
		return;
	const struct spw_ctl_proc *r = record(t, p);
	bool refused = r && __atomic_load_n(&r->flags, __ATOMIC_ACQUIRE) & SPW_PROC_REFUSED;

	if (!refused && (t->now_ns - p->exe_since_ns <= SIGN_IN_NS || newborn(t, p)))
		return;
	if (!refused && !spw__proc_maps(p->pid, SPW_AGENT_NAME))
		disown(t, p);
	uncap(t, p);
}

static void note_uncapped_peak(struct spw_tree *t, const struct spw_process *p)
{
	for (unsigned i = 0; i < t->uncapped_names; i++)
		if (!strcmp(t->uncapped[i].comm, p->comm) && t->uncapped[i].peak_bytes < p->resident)
			t->uncapped[i].peak_bytes = p->resident;
}

/* Read what p takes. false: it is gone. */
static bool measure(struct spw_tree *t, struct spw_process *p)
{
	p->was = p->resident;
	if (spw__proc_resident(p->statm, &p->resident))
		return false;
	/* statm speaks for the first thread: when that has left, the agent knows better */
	if (!p->resident && ready(t, p))
		p->resident = __atomic_load_n(&record(t, p)->resident_bytes, __ATOMIC_RELAXED);
	if (p->uncapped)
		note_uncapped_peak(t, p);
	return true;
}

/* Whether the agent's reclaimer, which rests, is wanted. */
static bool wanted(const struct spw_tree *t, const struct spw_process *p, const struct spw_ctl_proc *r)
{
	switch (__atomic_load_n(&r->resting, __ATOMIC_RELAXED)) {
	case SPW_REST_PLACED:
		return t->now_ns - p->beat_ns >= BEAT_NS ||
		       p->resident > __atomic_load_n(&r->target_bytes, __ATOMIC_RELAXED) +
					     __atomic_load_n(&r->shared_bytes, __ATOMIC_RELAXED);
	case SPW_REST_DRY:
		return p->resident > p->was + GROWN;
	default:
		return false;
	}
}

static void kick(struct spw_ctl_proc *r)
{
	__atomic_add_fetch(&r->kick, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &r->kick, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Wake it then. */
static void look_after(const struct spw_tree *t, struct spw_process *p)
{
	struct spw_ctl_proc *r = record(t, p);
	uint32_t beat = __atomic_load_n(&r->beat, __ATOMIC_RELAXED);

	if (beat != p->beat) {
		p->beat = beat;
		p->beat_ns = t->now_ns;
	}
	if (wanted(t, p, r))
		kick(r);
}

/* What is to be shared out, and to whom. */
struct sharing {
	struct spw_share share[SPW_CTL_PROCS];
	unsigned n;
	uint64_t capped, other; /* bytes of those with an agent and of those without */
};

static bool counts(struct spw_tree *t, const struct spw_process *p)
{
	return ready(t, p) || !newborn(t, p);
}

static void count(struct spw_tree *t, const struct spw_process *p, struct sharing *s)
{
	const struct spw_ctl_proc *r = record(t, p);

	if (!ready(t, p)) {
		s->other += p->resident;
		return;
	}
	struct spw_share *one = &s->share[s->n++];

	*one = (struct spw_share){
		.resident = p->resident,
		.shared = __atomic_load_n(&r->shared_bytes, __ATOMIC_RELAXED),
		.heat = __atomic_load_n(&r->heat, __ATOMIC_RELAXED),
		.record = (unsigned)p->record,
	};
	s->capped += one->resident > one->shared ? one->resident - one->shared : 0;
}

/*
 * Share out a group's own cap. Nobody may keep more by it than he was given by the caps around it. Returns the room
 * that is left in it: no end of it when nobody is there, as a record stays when the last of the group has ended
 * (groups.c).
 */
static uint64_t account_group(struct spw_tree *t, const struct spw_ctl_group *g, uint64_t *target)
{
	struct sharing s = {.n = 0};
	bool empty = true;

	for (unsigned i = 0; i < t->processes; i++) {
		const struct spw_process *p = &t->process[i];
		if (!spw__group_within(t->region->ctl, p->group, g->id))
			continue;
		empty = false;
		if (counts(t, p))
			count(t, p, &s);
	}
	if (empty)
		return UINT64_MAX;
	spw__targets(s.share, s.n, g->ram_limit_bytes, s.other, t->now_ns - t->last_ns);
	for (unsigned i = 0; i < s.n; i++)
		if (s.share[i].target < target[s.share[i].record])
			target[s.share[i].record] = s.share[i].target;
	return g->ram_limit_bytes > s.other + s.capped ? g->ram_limit_bytes - s.other - s.capped : 0;
}

/*
 * Sum up the tree and share out the caps. Returns the resident bytes of the tree; *room: what the fullest cap leaves.
 */
static uint64_t account(struct spw_tree *t, uint64_t *room)
{
	struct spw_ctl *ctl = t->region->ctl;
	uint64_t target[SPW_CTL_PROCS], limit = __atomic_load_n(&ctl->ram_limit_bytes, __ATOMIC_RELAXED);
	struct sharing s = {.n = 0};

	s.other = t->own_bytes;
	for (unsigned i = t->processes; i-- > 0;) {
		struct spw_process *p = &t->process[i];
		if (!measure(t, p)) {
			if (p->record != NO_RECORD)
				release(t, (unsigned)p->record);
			drop(t, p);
			continue;
		}
		if (ready(t, p))
			look_after(t, p);
		if (counts(t, p))
			count(t, p, &s);
	}
	uint64_t bytes = s.other + s.capped;

	*room = limit > bytes ? limit - bytes : 0;
	spw__targets(s.share, s.n, limit, s.other, t->now_ns - t->last_ns);
	for (unsigned i = 0; i < s.n; i++)
		target[s.share[i].record] = s.share[i].target;
	for (const struct spw_ctl_group *g = ctl->group; g < ctl->group + SPW_CTL_GROUPS; g++) {
		uint64_t left = g->ram_limit_bytes ? account_group(t, g, target) : *room;
		*room = left < *room ? left : *room;
	}
	for (unsigned i = 0; i < s.n; i++)
		__atomic_store_n(&ctl->proc[s.share[i].record].target_bytes, target[s.share[i].record],
				 __ATOMIC_RELAXED);
	__atomic_store_n(&ctl->other_bytes, s.other, __ATOMIC_RELAXED);
	__atomic_store_n(&ctl->tree_bytes, bytes, __ATOMIC_RELEASE);
	return bytes;
}

static void note_peaks(struct spw_tree *t, uint64_t bytes)
{
	struct spw_peak sum = {0};
	uint64_t merged = 0;

	uint64_t limit = t->region->ctl->ram_limit_bytes;

	if (t->resident_peak_bytes < bytes)
		t->resident_peak_bytes = bytes;
	if (bytes <= limit)
		t->settling = false;
	else if (!t->settling && bytes - limit > t->exceeded_bytes)
		t->exceeded_bytes = bytes - limit;
	for (unsigned i = 0; i < t->processes; i++) {
		const struct spw_ctl_proc *r = record(t, &t->process[i]);
		if (!r)
			continue;
		sum.swapped_pages += __atomic_load_n(&r->swapped_pages, __ATOMIC_RELAXED);
		sum.metadata_bytes += __atomic_load_n(&r->metadata_bytes, __ATOMIC_RELAXED);
		merged += __atomic_load_n(&r->merged_pages, __ATOMIC_RELAXED);
	}
	if (t->merged_pages_peak < merged)
		t->merged_pages_peak = merged;
	if (t->peak.swapped_pages < sum.swapped_pages)
		t->peak = sum;
}

int spw__tree_open(struct spw_tree *t, const struct spw_region *r, struct spw_swaps *s, pid_t program, const char *name)
{
	*t = (struct spw_tree){.region = r,
			       .swaps = s,
			       .program = program,
			       .name = name,
			       .own_statm = spw__proc_open_statm(getpid()),
			       .last_ns = spw__plat_now_ns()};
	t->verdict = calloc(VERDICTS, sizeof(*t->verdict));
	return t->verdict && t->own_statm >= 0 ? 0 : -ENOMEM;
}

uint64_t spw__tree_tick(struct spw_tree *t, bool changed)
{
	unsigned known = t->processes;

	t->now_ns = spw__plat_now_ns();
	changed |= t->now_ns >= t->next_walk_ns;
	if (changed)
		walk(t);
	match_records(t);
	if (changed || t->processes != known)
		for (unsigned i = 0; i < t->processes; i++)
			classify(t, &t->process[i]);
	uint64_t room;

	note_peaks(t, account(t, &room));
	t->last_ns = t->now_ns;

	uint64_t wait = room / FILL_BYTES_PER_NS;
	/* One process alone keeps the cap by itself. */
	uint64_t least = t->processes > 1 ? TICK_LEAST_NS : TICK_ALONE_NS;

	return wait < least ? least : wait > TICK_MOST_NS ? TICK_MOST_NS : wait;
}

void spw__tree_join(struct spw_tree *t, pid_t pid, uint32_t group)
{
	struct spw_process *p = find(t, pid);

	p = p ? p : add(t, pid);
	if (p && group > p->group)
		p->group = group;
}

void spw__tree_limit(struct spw_tree *t, uint64_t bytes)
{
	uint64_t *limit = &t->region->ctl->ram_limit_bytes;

	t->settling |= bytes < *limit;
	__atomic_store_n(limit, bytes, __ATOMIC_RELAXED);
}

void spw__tree_kick(const struct spw_tree *t)
{
	for (unsigned i = 0; i < SPW_CTL_PROCS; i++)
		if (__atomic_load_n(&t->region->ctl->proc[i].pid, __ATOMIC_RELAXED) > 0)
			kick(&t->region->ctl->proc[i]);
}

static void kill_one(void *ctx, pid_t pid)
{
	unsigned *killed = ctx;

	kill(pid, SIGKILL);
	++*killed;
	spw__proc_children(pid, kill_one, killed);
}

void spw__tree_kill(void)
{
	for (unsigned killed = 1; killed;) {
		killed = 0;
		spw__proc_children(getpid(), kill_one, &killed);
		/* children of a dead one become this process's own, and are met in the next round */
		while (waitpid(-1, NULL, killed ? 0 : WNOHANG) > 0)
			;
	}
}
