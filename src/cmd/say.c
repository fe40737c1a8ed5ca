/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several processes of a tree write to one stderr. A line that stdio hands over in pieces is torn between them, so
 * each is put together first and written by one call.
 */
#include "cmd/say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static char *kept;
static size_t kept_room;

void spw__say_into(char *text, size_t room)
{
	kept = text;
	kept_room = room;
}

static void line(const char *fmt, va_list args)
{
	char text[1024];
	int saved = errno;

	if (kept) {
		vsnprintf(kept, kept_room, fmt, args);
		return;
	}
	int len = snprintf(text, sizeof(text), "spillway: ");

	len += vsnprintf(text + len, sizeof(text) - 1 - len, fmt, args);
	if (len > (int)sizeof(text) - 2)
		len = (int)sizeof(text) - 2;
	text[len++] = '\n';
	if (write(STDERR_FILENO, text, len) < 0)
		errno = saved; /* nowhere left to complain to */
	errno = saved;
}

void spw__say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	line(fmt, args);
	va_end(args);
}

int spw__fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	line(fmt, args);
	va_end(args);
	return SPW_EXIT_FAILED;
}
