/* SPDX-License-Identifier: Apache-2.0 */
/* Anonymous memory, which `spillway run` or the kernel swaps. */
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

const char memory_usage[] = "";

static void *memory;
static size_t size;

bool memory_option(const char *option)
{
	(void)option;
	return false;
}

char *memory_take(size_t bytes)
{
	size = bytes;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		perror("touch: mmap");
		exit(1);
	}
	madvise(memory, size, MADV_NOHUGEPAGE); /* the same faults under every rival */
	return memory;
}

void memory_report(void)
{
}

void memory_give_back(void)
{
	munmap(memory, size);
}
