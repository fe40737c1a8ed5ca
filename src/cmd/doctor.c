/* SPDX-License-Identifier: Apache-2.0 */
/* `spillway doctor`: the checks that `spillway run` makes before it starts a program, all of them, at leisure. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "cmd/caps.h"
#include "cmd/help.h"
#include "cmd/limits.h"
#include "cmd/options.h"
#include "cmd/program.h"
#include "cmd/run.h"
#include "cmd/say.h"
#include "cmd/swapfile.h"
#include "host/unlinked.h"

enum verdict { OK, MISSING, OPTIONAL };

static unsigned missing;

static void __attribute__((format(printf, 3, 4))) line(enum verdict v, const char *what, const char *fmt, ...)
{
	static const char *const words[] = {[OK] = "ok", [MISSING] = "missing", [OPTIONAL] = "limited"};
	va_list args;

	printf("%-8s %-16s ", words[v], what);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	missing += v == MISSING;
}

static void check_faults(void)
{
	struct spw_caps c;
	struct utsname kernel;
	char why[512];

	spw__caps(&c);
	uname(&kernel);
	line(OK, "kernel", "Linux %s", kernel.release);
	if (spw__caps_refusal(&c, SPW_EVICT_AUTO, why, sizeof(why))) {
		line(MISSING, "userfaultfd", "%s", why);
		return;
	}
	line(OK, "userfaultfd", "%s", c.device ? "through /dev/userfaultfd" : "permitted");
	if (c.move)
		line(OK, "eviction", "by move%s", c.wp ? ", or by write-protect (--evict wp)" : "");
	else
		line(OK, "eviction", "by write-protect; Linux 6.8 would move, which is faster");
	if (c.fork)
		line(OK, "fork events", "permitted");
	else
		line(OPTIONAL, "fork events",
		     "need CAP_SYS_PTRACE; programs that fork are then evicted with more care");
	if (c.io_uring)
		line(OK, "io_uring", "permitted");
	else
		line(OPTIONAL, "io_uring", "not permitted; the swapfile is written by plain system calls");
}

static void check_agent(void)
{
	char path[PATH_MAX];

	if (spw__agent_find(path))
		line(MISSING, "agent", "%s is not there; make install puts it there", path);
	else if (strpbrk(path, ": "))
		line(MISSING, "agent", "%s: LD_PRELOAD cannot name it; move it to a path without spaces and colons",
		     path);
	else
		line(OK, "agent", "%s", path);
}

static void check_memory(void)
{
	struct spw_limit limit;
	char there[32], cap[32];
	int err = spw__limit(&limit);

	if (err) {
		line(OPTIONAL, "memory", "cannot tell how much there is (%s); say --ram SIZE", strerror(-err));
		return;
	}
	uint64_t ram = spw__amount((struct spw_amount){0}, limit.bytes, SPW_RAM_PERCENT);
	line(OK, "memory", "%s (%s), so that --ram is %s when not given", spw__size_text(limit.bytes, there),
	     limit.source, spw__size_text(ram, cap));
}

static void check_swapfile(void)
{
	const struct spw_swap o = {.kind = SPW_SWAP_FILE};
	struct spw_swapfile s;
	char room[32];

	if (spw__swapfile_open(&o, true, &s)) {
		line(MISSING, "swapfile",
		     "no file can be made in %s; set TMPDIR, or say --swap file:PATH or --swap zswap",
		     spw__unlinked_dir());
		return;
	}
	line(OK, "swapfile", "may grow to %s in %s", spw__size_text(s.max_bytes, room), spw__unlinked_dir());
	spw__swapfile_close(&s);
}

int spw__doctor(char **argv)
{
	if (spw__help_wanted(argv))
		return spw__help_doctor();
	if (argv[0])
		return spw__fail("doctor: takes no arguments; see spillway doctor --help");
	check_faults();
	check_agent();
	check_memory();
	check_swapfile();
	puts(missing ? "spillway run will not work here until what is missing is there." : "spillway run works here.");
	return missing ? 1 : 0;
}
