/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_RELAY_H
#define SPW_CMD_RELAY_H
/* Which signals of `spillway run` are the program's. */
#include <sys/signalfd.h>
#include <sys/types.h>

/* Pass on to `program`, a child of this process, what this process was sent in its place. */
void spw__relay(pid_t program, const struct signalfd_siginfo *info);

#endif
