/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's limit stands in a file whose place depends on the cgroup version, on where the hierarchy is mounted
 * and on how much of it the container sees; a limit further up binds as well. /proc/self/cgroup says where this
 * process is, /proc/self/mountinfo where that is to be seen, and every directory from there up to the mount is asked.
 */
#include "cmd/limits.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a memory hierarchy is mounted and which part of it. */
struct hierarchy {
	bool v2;
	char root[PATH_MAX], mount[PATH_MAX];
};

static uint64_t read_limit(const char *path)
{
	char text[64];
	FILE *f = fopen(path, "re");

	if (!f)
		return UINT64_MAX;
	bool got = fgets(text, sizeof(text), f);
	fclose(f);
	if (!got || !strncmp(text, "max", 3))
		return UINT64_MAX;
	return strtoull(text, NULL, 10); /* v1 says "none" as a number near 2^63, above any machine's memory */
}

static void ask(struct spw_limit *least, const struct hierarchy *h, char *dir)
{
	size_t floor = strlen(h->mount);

	for (;;) {
		char path[2 * PATH_MAX + 32];
		snprintf(path, sizeof(path), "%s/%s", dir, h->v2 ? "memory.max" : "memory.limit_in_bytes");
		uint64_t bytes = read_limit(path);
		if (bytes < least->bytes) {
			least->bytes = bytes;
			snprintf(least->source, sizeof(least->source), "%.*s", (int)sizeof(least->source) - 1, path);
		}
		char *slash = strrchr(dir, '/');
		if (!slash || strlen(dir) <= floor)
			return;
		*slash = '\0';
	}
}

/* The path of this process in the hierarchy: the line "0::PATH" (v2) or "N:...memory...:PATH" (v1). */
static bool own_path(bool v2, char path[PATH_MAX])
{
	char line[PATH_MAX + 256];
	bool found = false;
	FILE *f = fopen("/proc/self/cgroup", "re");

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *controllers = strchr(line, ':');
		char *at = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!at)
			continue;
		*at++ = '\0';
		at[strcspn(at, "\n")] = '\0';
		controllers++;
		if (v2 ? *controllers : !strstr(controllers, "memory"))
			continue;
		snprintf(path, PATH_MAX, "%s", at);
		found = true;
	}
	if (f)
		fclose(f);
	return found;
}

/* A line of mountinfo: "36 35 98:0 ROOT MOUNT options... - TYPE SOURCE SUPEROPTIONS". */
static bool parse_mount(char *line, struct hierarchy *h)
{
	char super[512] = "", type[64] = "";
	char *tail = strstr(line, " - ");

	if (!tail || sscanf(tail, " - %63s %*s %511s", type, super) < 1)
		return false;
	h->v2 = !strcmp(type, "cgroup2");
	if (!h->v2 && (strcmp(type, "cgroup") || !strstr(super, "memory")))
		return false;
	return sscanf(line, "%*s %*s %*s %4095s %4095s", h->root, h->mount) == 2;
}

static void ask_hierarchy(struct spw_limit *least, const struct hierarchy *h)
{
	char own[PATH_MAX], dir[2 * PATH_MAX];
	size_t root = strcmp(h->root, "/") ? strlen(h->root) : 0;

	if (!own_path(h->v2, own))
		return;
	/* A container without a cgroup namespace sees its own part mounted at the top: strip what is above it. */
	const char *below = !strncmp(own, h->root, root) ? own + root : "";
	snprintf(dir, sizeof(dir), "%s%s", h->mount, strcmp(below, "/") ? below : "");
	ask(least, h, dir);
}

int spw__limit(struct spw_limit *out)
{
	char line[2 * PATH_MAX + 1024];
	struct hierarchy h;
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/meminfo", "re");

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f) && sscanf(line, "MemTotal: %llu kB", &kib) != 1)
		;
	fclose(f);
	if (!kib)
		return -EIO;
	*out = (struct spw_limit){.bytes = kib * 1024, .source = "machine"};

	f = fopen("/proc/self/mountinfo", "re");
	while (f && fgets(line, sizeof(line), f))
		if (parse_mount(line, &h))
			ask_hierarchy(out, &h);
	if (f)
		fclose(f);
	return 0;
}
