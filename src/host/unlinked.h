/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_HOST_UNLINKED_H
#define SPW_HOST_UNLINKED_H
/* Files without a name, for swap: what ends the process ends them. Any thread. */
#include <stdbool.h>
#include <stdint.h>

/* The directory that they are made in where none was named: $TMPDIR or /var/tmp; not one that is itself in RAM. */
const char *spw__unlinked_dir(void);
/* One in dir, for reading and writing, close-on-exec, mode 0600. A descriptor, or -1 with errno. */
int spw__unlinked_open(const char *dir);
/* How far a file may grow that was given no size: what is free around it, less a tenth. Bytes. */
uint64_t spw__unlinked_room(int fd);
/* Whether what fd is of is in RAM. */
bool spw__unlinked_in_ram(int fd);
#endif
