/* SPDX-License-Identifier: Apache-2.0 */
/* The command: its subcommands, by name. */
#include <stdio.h>
#include <string.h>

#include "cmd/ask.h"
#include "cmd/help.h"
#include "cmd/mkswap.h"
#include "cmd/run.h"
#include "cmd/say.h"
#include "cmd/swapon.h"

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (!strcmp(name, "run"))
		return spw__run(argv + 2);
	if (!strcmp(name, "list"))
		return spw__list(argv + 2);
	if (!strcmp(name, "set"))
		return spw__set(argv + 2);
	if (!strcmp(name, "swapon"))
		return spw__swapon(argv + 2);
	if (!strcmp(name, "swapoff"))
		return spw__swapoff(argv + 2);
	if (!strcmp(name, "mkswap"))
		return spw__mkswap(argc - 1, argv + 1);
	if (!strcmp(name, "doctor"))
		return spw__doctor(argv + 2);
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
		return spw__help();
	if (!strcmp(name, "--version")) {
		puts("spillway " SPW_VERSION);
		return 0;
	}
	if (!*name)
		return spw__fail("nothing to do; see spillway --help");
	return spw__fail("%s: unknown %s; see spillway --help", name, name[0] == '-' ? "option" : "subcommand");
}
