/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `spillway run` within a run. A cap within a cap with a supervisor and files of its own would be counted by nobody:
 * its program would leave the tree that the outer cap is for. So this one joins the outer run. It asks there for a
 * group that may use less, and becomes the program, which begins in that group: there is nothing to relay or to wait
 * for.
 */
#include "cmd/nest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/ask.h"
#include "cmd/help.h"
#include "cmd/launch.h"
#include "cmd/options.h"
#include "cmd/program.h"
#include "cmd/say.h"
#include "host/control.h"

/* The way to the run around this one, and the group in it. */
struct outer {
	int pid, fd;
	unsigned group;
};

bool spw__nested(void)
{
	const char *way = getenv(SPW_CTL_ENV);

	return way && *way;
}

static int find_outer(struct outer *o)
{
	const char *way = getenv(SPW_CTL_ENV), *preload = getenv("LD_PRELOAD");

	if (sscanf(way, "/proc/%d/fd/%d:%u", &o->pid, &o->fd, &o->group) < 2)
		return spw__fail(SPW_CTL_ENV "=%s: not the way to a spillway run; unset it to begin one", way);
	if (!preload || !strstr(preload, SPW_AGENT_NAME))
		return spw__fail(SPW_CTL_ENV " is set, but the agent is not in LD_PRELOAD any more; leave both as the "
					     "run around this one set them, or unset both");
	return 0;
}

/* Ask for a group that may use less, and be in it from now on. */
static int narrow(struct outer *o, const struct spw_options *options)
{
	int socket = spw__ask_connect(o->pid);
	json_t *names = json_array(), *answer;

	if (socket == -EACCES || socket == -EPERM)
		return spw__fail("the run around this one, process %d, is another user's; only its user and root may "
				 "run something within it",
				 o->pid);
	if (socket < 0)
		return spw__fail(SPW_CTL_ENV " names process %d, which is no spillway run, or not any more; unset it "
					     "to begin one",
				 o->pid);
	for (unsigned i = 0; i < options->tiers; i++)
		if (json_array_append_new(names, json_string(options->tier[i])))
			return spw__fail("--swap %s: not UTF-8, in which requests are made", options->tier[i]);
	const struct spw_amount *ram = &options->ram;
	json_t *request = json_pack("{s:s, s:I, s:o, s:I}", "do", "nest", "group", (json_int_t)o->group, "swap", names,
				    ram->unit == SPW_AMOUNT_PERCENT ? "percent" : "ram", (json_int_t)ram->value);
	int failed = spw__ask(socket, request, -1, "the run around this one", &answer);
	if (failed)
		return failed;
	o->group = (unsigned)json_integer_value(json_object_get(answer, "group"));
	json_decref(answer);
	return 0;
}

static int set_environment(const struct outer *o)
{
	char way[64];

	snprintf(way, sizeof(way), o->group ? "/proc/%d/fd/%d:%u" : "/proc/%d/fd/%d", o->pid, o->fd, o->group);
	return setenv(SPW_CTL_ENV, way, 1) ? spw__fail("no memory for the environment") : 0;
}

int spw__nest(char **argv)
{
	struct outer outer = {0};
	struct spw_options o;
	char path[PATH_MAX];

	int failed = spw__options_parse(argv, true, &o);
	if (!failed && o.help)
		return spw__help_run();
	if (!failed)
		failed = spw__launch_find(o.program[0], path);
	if (!failed && !o.best_effort)
		failed = spw__launch_check(o.program[0], path);
	if (!failed)
		failed = find_outer(&outer);
	if (!failed)
		failed = narrow(&outer, &o);
	if (!failed)
		failed = set_environment(&outer);
	if (failed)
		return failed;
	int err = spw__launch_exec(path, o.program);
	spw__say("%s: %s", o.program[0], strerror(-err));
	return err == -ENOENT ? SPW_EXIT_NOT_FOUND : SPW_EXIT_NOT_EXECUTABLE;
}
