/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_BENCH_MEMORY_H
#define SPW_BENCH_MEMORY_H
/* Where bench/touch.c has its memory from: mmap(2) (memory_map.c) or libspillway (memory_library.c). */
#include <stdbool.h>
#include <stddef.h>

/* The options that memory_option() knows, for the usage; "" or with a space in front. */
extern const char memory_usage[];

/* Take an option of the command line. false: it is none. */
bool memory_option(const char *option);
/* Zeros. Ends the program when there is no memory. Once. */
char *memory_take(size_t bytes);
/* What is known of what was taken, as lines "stat NAME NUMBER" on stdout. */
void memory_report(void);
/* All of it. */
void memory_give_back(void);

#endif
