/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_SAY_H
#define SPW_CMD_SAY_H
/* What the command says: one line on stderr, `spillway: ...`. Its exit statuses are those of env(1) and timeout(1). */

#include <stddef.h>

enum {
	SPW_EXIT_FAILED = 125,         /* Spillway itself could not */
	SPW_EXIT_NOT_EXECUTABLE = 126, /* PROGRAM was found but cannot be executed */
	SPW_EXIT_NOT_FOUND = 127,      /* PROGRAM was not found */
	SPW_EXIT_SIGNAL = 128,         /* + N: PROGRAM ended by signal N */
};

void spw__say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same, as an error: returns SPW_EXIT_FAILED. */
int spw__fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* From now on what is said goes to `text`, without the name and the newline, the last line only; NULL: to stderr. */
void spw__say_into(char *text, size_t room);

#endif
