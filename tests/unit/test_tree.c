/* SPDX-License-Identifier: Apache-2.0 */
/* How soon the supervisor looks again: what the tree's state asks for, not how long it takes. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cmd/tree.h"

#define MIB   (1ull << 20)
#define GROUP 1

/* No process here has a record. */
void spw__swaps_reap(struct spw_swaps *s, unsigned proc)
{
	(void)s;
	(void)proc;
	fail();
}

static pid_t idle_child(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	while (!pid)
		pause();
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void a_group_that_nobody_is_in_asks_for_no_looks(void **state)
{
	struct spw_region region = {.fd = -1, .ctl = calloc(1, sizeof(struct spw_ctl))};
	struct spw_tree tree;

	(void)state;
	assert_non_null(region.ctl);
	region.ctl->ram_limit_bytes = 1024 * 1024 * MIB;
	assert_int_equal(spw__tree_open(&tree, &region, NULL, getpid(), "test"), 0);
	uint64_t seldom = spw__tree_tick(&tree, true);

	region.ctl->group[0] = (struct spw_ctl_group){.id = GROUP, .ram_limit_bytes = 16 * MIB};
	assert_int_equal(spw__tree_tick(&tree, true), seldom);
	pid_t beside = idle_child(), within = idle_child();

	assert_int_equal(spw__tree_tick(&tree, true), seldom);
	spw__tree_join(&tree, within, GROUP);
	assert_true(spw__tree_tick(&tree, true) < seldom);
	end(within);
	assert_int_equal(spw__tree_tick(&tree, true), seldom);
	end(beside);
	assert_int_equal(spw__tree_tick(&tree, true), seldom);
	assert_int_equal(tree.processes, 0);
	close(tree.own_statm);
	free(tree.process);
	free(tree.verdict);
	free(region.ctl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_group_that_nobody_is_in_asks_for_no_looks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
