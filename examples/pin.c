/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls and memory that is out: the kernel does not ask the library on a program's behalf, so read(2) into it
 * fails with EFAULT. A range that is pinned stays in, and is as good as any memory.
 *
 *	cc pin.c $(pkg-config --cflags --libs libspillway)
 */
#include <err.h>
#include <errno.h>
#include <spillway.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB  ((size_t)1 << 20)
#define RAM  (16 * MIB)
#define SIZE MIB

static void check(int r, const char *what)
{
	if (r)
		errx(1, "%s: %s", what, strerror(-r));
}

int main(void)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	struct spw_space *space;
	struct spw_region *region;
	o.ram = RAM;
	check(spw_space_create(&o, &space), "spw_space_create");
	check(spw_region_create(space, 2 * RAM, &region), "spw_region_create");
	char *memory = spw_region_address(region);

	/* What is to be read. */
	char *text = malloc(SIZE);
	FILE *file = tmpfile();
	if (!text || !file)
		err(1, "no memory or file");
	for (size_t i = 0; i < SIZE; i++)
		text[i] = (char)('a' + i % 26);
	if (fwrite(text, 1, SIZE, file) != SIZE || fflush(file))
		err(1, "cannot write the file");
	int fd = fileno(file);

	/* Take the range out, as the library does by itself when memory gets scarce. */
	memset(memory, 1, SIZE);
	check(spw_region_advise(region, 0, SIZE, SPW_COLD), "spw_region_advise");

	ssize_t n = pread(fd, memory, SIZE, 0);
	printf("not pinned: read gives %zd, %s\n", n, n < 0 ? strerror(errno) : "no error");
	if (n != -1 || errno != EFAULT)
		errx(1, "it was to fail with EFAULT");

	/* Bring the range in and keep it there, for the time of the call. It counts towards the cap. */
	check(spw_region_pin(region, 0, SIZE), "spw_region_pin");
	n = pread(fd, memory, SIZE, 0);
	check(spw_region_unpin(region, 0, SIZE), "spw_region_unpin");
	printf("pinned:     read gives %zd\n", n);
	if (n != (ssize_t)SIZE)
		errx(1, "it was to read it all");

	/* Now it may go out again, and comes back when the program itself touches it. */
	check(spw_region_advise(region, 0, SIZE, SPW_COLD), "spw_region_advise");
	if (memcmp(memory, text, SIZE) != 0)
		errx(1, "what was read is not what is there");

	fclose(file);
	free(text);
	spw_region_destroy(region);
	check(spw_space_destroy(space), "spw_space_destroy");
	return 0;
}
