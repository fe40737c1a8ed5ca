/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `spillway run`: everything that can fail is tried before the program starts, so that a program either runs under its
 * cap or does not run. Then this process has no more to do with it than a supervisor must: it accounts, and otherwise
 * is not there. Signals go through to the program, stdin and stdout belong to it alone, its status is ours.
 */
#include "cmd/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cmd/caps.h"
#include "cmd/health.h"
#include "cmd/help.h"
#include "cmd/launch.h"
#include "cmd/limits.h"
#include "cmd/nest.h"
#include "cmd/options.h"
#include "cmd/program.h"
#include "cmd/region.h"
#include "cmd/relay.h"
#include "cmd/say.h"
#include "cmd/serve.h"
#include "cmd/stats.h"
#include "cmd/swaps.h"
#include "cmd/tree.h"
#include "platform/platform.h"

#define NOTABLE (16ull << 20) /* bytes over the cap, or 5 % of it: worth a line at the end */

/* One run, from its options to its end. */
struct run {
	struct spw_options o;
	uint64_t ram, zswap;
	char path[PATH_MAX], agent[PATH_MAX];
	bool have_agent;
	struct spw_region region;
	struct spw_swaps swaps;
	struct spw_tree tree;
	struct spw_serve serve;
	FILE *stats;
	int signals; /* signalfd */
	pid_t program;
	int status; /* wait status of the program */
	bool ended;
};

static double seconds(void)
{
	return (double)spw__plat_now_ns() / 1e9;
}

/* Can this program be capped, here? With --best-effort it need not. */
static int check_cappable(struct run *r)
{
	char why[1024];
	struct spw_caps caps;

	spw__caps(&caps);
	r->have_agent = spw__agent_find(r->agent) == 0;
	if (r->o.best_effort)
		return 0;
	if (!r->have_agent)
		return spw__fail("the agent library is missing: %s; install it beside the command (make install)",
				 r->agent);
	if (strpbrk(r->agent, ": "))
		return spw__fail("the agent library is in a directory that LD_PRELOAD cannot name: %s; move it to a "
				 "path without "
				 "spaces and colons",
				 r->agent);
	if (spw__caps_refusal(&caps, r->o.evict, why, sizeof(why)))
		return spw__fail("%s", why);
	return spw__launch_check(r->o.program[0], r->path);
}

static int settle_sizes(struct run *r)
{
	struct spw_limit limit;
	char a[32], b[32];
	int err = spw__limit(&limit);

	if (err && r->o.ram.unit != SPW_AMOUNT_BYTES)
		return spw__fail("cannot tell how much memory there is (%s); say --ram SIZE", strerror(-err));
	r->ram = spw__amount(r->o.ram, limit.bytes, SPW_RAM_PERCENT);
	if (r->ram < SPW_RAM_LEAST)
		return spw__fail("a cap of %s is too small to work in; the least is --ram %s",
				 spw__size_text(r->ram, a), "16M");
	r->zswap = spw__options_zswap_bytes(&r->o, r->ram);
	if (r->zswap > r->ram)
		return spw__fail("--swap zswap,size: %s do not fit under a cap of %s; the pool is part of it",
				 spw__size_text(r->zswap, a), spw__size_text(r->ram, b));
	return 0;
}

static int open_stats(struct run *r)
{
	if (!r->o.stats)
		return 0;
	r->stats = strcmp(r->o.stats, "-") ? fopen(r->o.stats, "we") : stderr;
	return r->stats ? 0 : spw__fail("--stats %s: %s", r->o.stats, strerror(errno));
}

static int add_swaps(struct run *r)
{
	const struct spw_swap *zswap = spw__options_zswap(&r->o);
	int failed = 0;

	r->swaps.ctl = r->region.ctl;
	r->swaps.zswap_priority = zswap ? zswap->priority : 0;
	for (unsigned i = 0; i < r->o.swaps && !failed; i++)
		if (r->o.swap[i].kind != SPW_SWAP_ZSWAP)
			failed = spw__swaps_add(&r->swaps, &r->o.swap[i], r->o.quiet);
	return failed;
}

static int prepare(struct run *r)
{
	int failed = spw__launch_find(r->o.program[0], r->path);

	if (!failed)
		failed = settle_sizes(r);
	if (!failed)
		failed = check_cappable(r);
	if (!failed)
		failed = open_stats(r);
	if (!failed)
		failed = spw__region_create(&r->o, r->ram, r->zswap, &r->region);
	if (!failed)
		failed = add_swaps(r);
	return failed;
}

/* Block what is to be read from the signalfd: all but what a fault of this process itself raises. */
static int block_signals(struct run *r, struct spw_launch *l)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t all;

	sigfillset(&all);
	for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigdelset(&all, faults[i]);
	sigprocmask(SIG_SETMASK, &all, &l->mask);
	sigaction(SIGCHLD, &dfl, &l->chld); /* ignored, it would leave no status to wait for */
	r->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	return r->signals < 0 ? spw__fail("signalfd: %s", strerror(errno)) : 0;
}

/* Were one of the first three closed, a descriptor of ours would take its place. The program finds it closed still. */
static void fill_first_three(void)
{
	int fd;

	while ((fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && fd <= STDERR_FILENO)
		;
	if (fd >= 0)
		close(fd);
}

static void close_others(const int *keep, unsigned n)
{
	unsigned from = 3;

	for (;;) {
		unsigned next = ~0u;
		for (unsigned i = 0; i < n; i++)
			if (keep[i] >= (int)from && (unsigned)keep[i] < next)
				next = (unsigned)keep[i];
		if (next > from)
			close_range(from, next - 1, 0);
		if (next == ~0u)
			return;
		from = next + 1;
	}
}

/*
 * A pipe ends when its last holder lets go: the program's input, output and whatever else it was given must not be
 * kept open here. And what was inherited as a limit on files is the program's, not ours.
 */
static void let_go(const struct run *r)
{
	int keep[5 + 2 * SPW_CTL_TIERS] = {r->signals, r->region.fd, r->serve.listen_fd, r->serve.name_fd,
					   r->stats && r->stats != stderr ? fileno(r->stats) : -1};
	unsigned kept = 5 + spw__swaps_descriptors(&r->swaps, keep + 5);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct rlimit files;

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
	}
	close_others(keep, kept);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* Wait for all that has ended or stopped. */
static void reap(struct run *r)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
		if (pid != r->program)
			continue;
		if (!WIFSTOPPED(status)) {
			r->status = status;
			r->ended = true;
		} else if (WSTOPSIG(status) != SIGSTOP) {
			/* job control: the shell waits for this process to stop as well, and continues both */
			kill(getpid(), SIGSTOP);
			kill(r->program, SIGCONT);
		}
	}
}

static bool read_signals(struct run *r)
{
	struct signalfd_siginfo info;
	bool child = false;

	while (read(r->signals, &info, sizeof(info)) == sizeof(info)) {
		child |= info.ssi_signo == SIGCHLD;
		spw__relay(r->program, &info);
	}
	if (child)
		reap(r);
	return child;
}

/* What the agents have left to be said. */
static void say_lines(struct spw_ctl *ctl)
{
	for (unsigned i = 0; i < SPW_CTL_LINES; i++) {
		struct spw_ctl_line *l = &ctl->line[i];

		if (__atomic_load_n(&l->state, __ATOMIC_ACQUIRE) != SPW_LINE_READY)
			continue;
		ssize_t said = write(STDERR_FILENO, l->text, strnlen(l->text, sizeof(l->text)));
		(void)said; /* nowhere left to complain to */
		__atomic_store_n(&l->state, SPW_LINE_FREE, __ATOMIC_RELEASE);
	}
}

/* Until the program has ended. 0, or SPW_EXIT_FAILED when --on-full kill has ended it. */
static int supervise(struct run *r)
{
	struct pollfd p[1 + SPW_SERVE_POLLED] = {{.fd = r->signals, .events = POLLIN}};
	struct spw_ctl *ctl = r->region.ctl;
	bool changed = true;

	while (!r->ended) {
		say_lines(ctl);
		if (__atomic_load_n(&ctl->kill_tree, __ATOMIC_ACQUIRE)) {
			spw__tree_kill();
			return spw__fail("every tier is full; the program was ended (--on-full kill)");
		}
		uint64_t ns = spw__tree_tick(&r->tree, changed);
		if (spw__health_look(&r->swaps))
			spw__tree_kick(&r->tree);
		struct timespec wait = {.tv_nsec = (long)ns};
		bool woken = ppoll(p, 1 + spw__serve_poll(&r->serve, p + 1), &wait, NULL) > 0;

		changed = woken && p[0].revents && read_signals(r);
		spw__serve(&r->serve, woken && p[1].revents);
	}
	return 0;
}

static void report(const struct run *r)
{
	const struct spw_tree *t = &r->tree;
	char text[2048] = "", peak[32], cap[32];
	size_t len = 0;

	if (r->o.quiet)
		return;
	uint64_t limit = r->region.ctl->ram_limit_bytes;
	if (t->exceeded_bytes > (limit / 20 > NOTABLE ? limit / 20 : NOTABLE))
		spw__say("for a while the cap was exceeded: by %s at the most, under a cap of %s",
			 spw__size_text(t->exceeded_bytes, peak), spw__size_text(limit, cap));
	if (!t->uncapped_processes)
		return;
	for (unsigned i = 0; i < t->uncapped_names && len < sizeof(text); i++) {
		const struct spw_uncapped *u = &t->uncapped[i];
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s x%u, peak %s", i ? "; " : "", u->comm,
					u->processes, spw__size_text(u->peak_bytes, peak));
	}
	spw__say("%u process%s ran without the cap: %s", t->uncapped_processes, t->uncapped_processes == 1 ? "" : "es",
		 text);
}

static int start(struct run *r)
{
	struct spw_launch l = {
		.path = r->path,
		.argv = r->o.program,
		.agent = r->have_agent ? r->agent : NULL,
		.control_fd = r->region.fd,
	};
	int failed = block_signals(r, &l);

	if (failed)
		return failed;
	r->serve = (struct spw_serve){.tree = &r->tree, .options = &r->o};
	spw__serve_open(&r->serve);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	r->program = spw__launch(&l);
	if (r->program < 0)
		return -r->program;
	let_go(r);
	if (spw__tree_open(&r->tree, &r->region, &r->swaps, r->program, r->o.program[0])) {
		spw__tree_kill();
		return spw__fail("no memory to supervise with");
	}
	return 0;
}

int spw__run(char **argv)
{
	struct run r = {0};
	double begin;

	if (spw__nested())
		return spw__nest(argv);
	int failed = spw__options_parse(argv, false, &r.o);
	if (failed)
		return failed;
	if (r.o.help)
		return spw__help_run();

	spw__swaps_init(&r.swaps);
	fill_first_three();
	failed = prepare(&r);
	begin = seconds();
	if (!failed)
		failed = start(&r);
	if (!failed) {
		failed = supervise(&r);
		__atomic_store_n(&r.region.ctl->closing, 1, __ATOMIC_RELEASE);
		say_lines(r.region.ctl);
		report(&r);
		if (r.stats)
			spw__stats_write(r.stats, &r.tree, seconds() - begin);
	}
	if (r.stats && r.stats != stderr && fclose(r.stats) && !failed)
		failed = spw__fail("--stats %s: %s", r.o.stats, strerror(errno));
	spw__swaps_close(&r.swaps);
	if (failed)
		return failed;
	return WIFSIGNALED(r.status) ? SPW_EXIT_SIGNAL + WTERMSIG(r.status) : WEXITSTATUS(r.status);
}
