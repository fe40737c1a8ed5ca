/* SPDX-License-Identifier: Apache-2.0 */
/* A region of libspillway: the library has the cap, the pool and the file, the rest of the process is none of its own. */
#include "memory.h"
#include "spillway.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char memory_usage[] = " ram=SIZE [zswap=SIZE] [file=DIR|none] [fault=signal|thread]";

static struct spw_space_options options = SPW_SPACE_OPTIONS;
static struct spw_file_options file = SPW_FILE_OPTIONS;
static bool no_file;
static struct spw_space *space;
static struct spw_region *region;

static void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "touch: %s: %s\n", what, strerror(-err));
	exit(1);
}

/* 512M, 2G, or bytes. 0: no size. */
static uint64_t size_of(const char *text)
{
	char *end;
	uint64_t bytes = strtoull(text, &end, 10);
	unsigned shift = *end == 'G' ? 30 : *end == 'M' ? 20 : 0;

	return end[shift != 0] ? 0 : bytes << shift;
}

bool memory_option(const char *option)
{
	if (!strncmp(option, "ram=", 4))
		return (options.ram = size_of(option + 4)) != 0;
	if (!strncmp(option, "zswap=", 6))
		return (options.zswap = size_of(option + 6)) != 0;
	if (!strcmp(option, "file=none"))
		return no_file = true;
	if (!strncmp(option, "file=", 5))
		return *(file.dir = option + 5) != '\0';
	options.fault = strcmp(option, "fault=thread") ? SPW_FAULT_SIGNAL : SPW_FAULT_THREAD;
	return options.fault == SPW_FAULT_THREAD || !strcmp(option, "fault=signal");
}

char *memory_take(size_t bytes)
{
	unsigned tier;

	must(spw_space_create(&options, &space), "space");
	if (!no_file)
		must(spw_space_add_file(space, &file, &tier), "file");
	must(spw_region_create(space, bytes, &region), "region");
	return spw_region_address(region);
}

void memory_report(void)
{
	struct spw_space_stats s;

	spw_space_stats(space, &s, sizeof(s));
	const struct {
		const char *name;
		uint64_t value;
	} all[] = {
		{"resident_bytes", s.resident_bytes}, {"pool_bytes", s.pool_bytes}, {"used_bytes", s.used_bytes},
		{"peak_bytes", s.peak_bytes},         {"in_pages", s.in_pages},     {"over_events", s.over_events},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		printf("stat %s %llu\n", all[i].name, (unsigned long long)all[i].value);
}

void memory_give_back(void)
{
	spw_region_destroy(region);
}
