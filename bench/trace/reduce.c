/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reduce < LACKEY > TRACE: the data accesses of `valgrind --tool=lackey --trace-mem=yes` as a trace (trace.h).
 *
 * A program makes some hundred million accesses a second, and most are to the page of the one before. Lackey writes
 * each by a system call of its own, "I  ADDRESS,SIZE" for an instruction and " L", " S" or " M" for a load, a store or
 * both. A reader that sleeps in read(2) would be woken for each line, which costs more than all the rest: this one lets
 * the pipe fill.
 */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PAGE      4096u
#define PIPE_SIZE (1 << 20)
#define PAUSE_NS  2000000l

static struct {
	uint64_t page, at; /* number of its last record */
} near[SPW_TRACE_NEAR];    /* latest first */
static unsigned near_count;
static uint64_t records, accesses, last;

static void put_varint(uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		putchar_unlocked((int)(v & 0x7f) | 0x80);
	putchar_unlocked((int)v);
}

static void record(uint64_t page, bool write)
{
	int64_t delta = (int64_t)(page - last);

	put_varint((((uint64_t)delta << 1) ^ (uint64_t)(delta >> 63)) << 1 | write);
	last = page;
	records++;
}

static void touch(uint64_t page, bool write)
{
	unsigned i = 0;

	while (i < near_count && near[i].page != page)
		i++;
	uint64_t at = i < near_count ? near[i].at : 0;

	if (i == near_count || records - at >= SPW_TRACE_AGAIN) {
		record(page, write);
		at = records;
	}
	if (i == SPW_TRACE_NEAR)
		i--;
	else if (i == near_count)
		near_count++;
	memmove(&near[1], &near[0], i * sizeof(near[0]));
	near[0].page = page;
	near[0].at = at;
}

/* One line, [s, end). What is no access (instructions, lackey's own messages) is passed over. */
static void line(const char *s, const char *end)
{
	uint64_t address = 0, size = 0;
	char kind = s + 3 < end && s[0] == ' ' && s[2] == ' ' ? s[1] : 0;

	if (kind != 'L' && kind != 'S' && kind != 'M')
		return;
	for (s += 3; s < end && *s != ','; s++)
		address = address << 4 | (uint64_t)(*s <= '9' ? *s - '0' : *s - 'a' + 10);
	for (s++; s < end; s++)
		size = size * 10 + (uint64_t)(*s - '0');
	accesses++;
	for (uint64_t page = address / PAGE; page <= (address + size - 1) / PAGE; page++)
		touch(page, kind != 'L');
}

/* The lines of text[0, n). Returns how much of it is the beginning of one that is still to come. */
static size_t lines(char *text, size_t n)
{
	char *s = text, *end;

	while ((end = memchr(s, '\n', n - (size_t)(s - text)))) {
		line(s, end);
		s = end + 1;
	}
	size_t rest = n - (size_t)(s - text);

	memmove(text, s, rest);
	return rest;
}

int main(void)
{
	static char text[PIPE_SIZE];
	size_t have = 0;
	ssize_t got;

	fcntl(STDIN_FILENO, F_SETPIPE_SZ, PIPE_SIZE);
	fwrite(SPW_TRACE_MAGIC, 1, sizeof(SPW_TRACE_MAGIC) - 1, stdout);
	while ((got = read(STDIN_FILENO, text + have, sizeof(text) - have)) > 0) {
		have = lines(text, have + (size_t)got);
		if ((size_t)got < PIPE_SIZE / 2)
			nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
	}
	putchar(0);
	put_varint(accesses);
	if (got < 0 || have || !accesses || fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "reduce: %s\n",
			got < 0 || accesses ? strerror(errno) : "no access came in: is it lackey's output?");
		return 1;
	}
	return 0;
}
