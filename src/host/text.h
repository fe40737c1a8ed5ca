/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_HOST_TEXT_H
#define SPW_HOST_TEXT_H
/* Numbers in text, and files of /proc named by a number. See text.c. Any thread, no lock. */
#include <stddef.h>
#include <stdint.h>

/* The digits of v, as many as fit, without a final 0. Returns how many. base: 10 or 16. */
size_t spw__put_number(char *out, size_t room, uint64_t v, unsigned base);
/* The decimal number that p begins with; 0 if it begins with none. */
uint64_t spw__number_at(const char *p);
/* Field `n` (3 and up) of the text of a /proc stat file, in which field 2 may hold anything. NULL if there is none. */
const char *spw__stat_field(const char *text, int n);
/* open(2), O_CLOEXEC. fd or -errno. */
int spw__open(const char *path, int flags);
/* The same of the path `before`, v in decimal, `after`. -ENAMETOOLONG over 95 characters. */
int spw__open_numbered(const char *before, uint64_t v, const char *after, int flags);
#endif
