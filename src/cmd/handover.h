/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_HANDOVER_H
#define SPW_CMD_HANDOVER_H
/*
 * A swapfile that one process has opened for another: messages with a descriptor beside them, and what they say of it.
 */
#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "cmd/swapfile.h"

/* A message to a socket, with the descriptor `fd` (-1: none), which stays open here. 0 or -errno. */
int spw__handover_send(int sock, const char *text, size_t len, int fd);
/* As recv(2), and the descriptor that came in *fd, close-on-exec, or -1. Of several none is kept. */
ssize_t spw__handover_recv(int sock, void *text, size_t room, int flags, int *fd);

/* What the header of an open file or ghost said, for the other side. */
json_t *spw__handover_facts(const struct spw_swapfile *f);
/*
 * The other side: `fd` (-1 of a ghost) with these facts, as `swap` wants it. Never waits for the file system. Takes the
 * descriptor over. 0, or SPW_EXIT_FAILED with the one line said; then it is closed.
 */
int spw__handover_take(const struct spw_swap *swap, const json_t *facts, int fd, struct spw_swapfile *out);

#endif
