/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text without stdio.
 *
 * snprintf(3) and sscanf(3) may call the program's malloc and read its locale, under locks that a thread of the program
 * may hold. What the agent has to write and read is little: numbers, and a few files of /proc.
 */
#include "host/text.h"
#include "platform/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define PATH_ROOM 96u

size_t spw__put_number(char *out, size_t room, uint64_t v, unsigned base)
{
	char tmp[24];
	size_t n = 0;

	do {
		tmp[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	size_t len = n < room ? n : room;

	for (size_t i = 0; i < len; i++)
		out[i] = tmp[n - 1 - i];
	return len;
}

uint64_t spw__number_at(const char *p)
{
	uint64_t v = 0;

	for (; *p >= '0' && *p <= '9'; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	return v;
}

const char *spw__stat_field(const char *text, int n)
{
	const char *p = strrchr(text, ')');

	for (int field = 2; p && field < n; field++)
		p = strchr(p + 1, ' ');
	return p ? p + 1 : NULL;
}

int spw__open(const char *path, int flags)
{
	return (int)spw__sys4(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0);
}

int spw__open_numbered(const char *before, uint64_t v, const char *after, int flags)
{
	char path[PATH_ROOM], number[20];
	size_t head = strlen(before), digits = spw__put_number(number, sizeof(number), v, 10), tail = strlen(after);

	if (head + digits + tail >= sizeof(path))
		return -ENAMETOOLONG;
	memcpy(path, before, head);
	memcpy(path + head, number, digits);
	memcpy(path + head + digits, after, tail);
	path[head + digits + tail] = 0;
	return spw__open(path, flags);
}
