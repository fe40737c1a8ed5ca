/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_SERVE_H
#define SPW_CMD_SERVE_H
/*
 * The live control of a running tree, in `spillway run`: a socket that takes requests of the same user's (or root's)
 * `spillway list`, `set`, `swapon` and `swapoff`, and of a `spillway run` within the tree. See serve.c for the
 * protocol, ask.c for the other side.
 */
#include <poll.h>

#include "cmd/groups.h"
#include "cmd/tree.h"

#define SPW_SERVE_CLIENTS 8u
#define SPW_SERVE_POLLED  (1 + SPW_SERVE_CLIENTS)
#define SPW_SERVE_NAME    "spillway-control-" /* and the pid: what the socket was called while it had a name */
#define SPW_SERVE_BYTES   16384u              /* of a message at most; all bad pages of a header fit */

struct spw_client {
	int fd;                       /* -1: none */
	pid_t pid;                    /* who it is */
	uint64_t since_ns;            /* when it came: it has a second to ask */
	struct spw_swap_place *leave; /* what it has asked to take away */
	uint64_t pages;               /* that were on it then */
	uint64_t least, least_ns;     /* that were on it at the least, and since when */
	uint64_t next_ns;             /* when to tell it more */
};

struct spw_serve {
	int listen_fd; /* -1: no socket could be made */
	int name_fd;   /* the socket's inode, by which clients connect */
	struct spw_tree *tree;
	struct spw_groups groups;
	const struct spw_options *options; /* what the run was given: the pool's limit follows from it, and the cap */
	struct spw_client client[SPW_SERVE_CLIENTS];
};

/* Make the socket. A run without one goes on all the same. */
void spw__serve_open(struct spw_serve *s);
/* What to wait for; `p` has room for SPW_SERVE_POLLED. */
unsigned spw__serve_poll(const struct spw_serve *s, struct pollfd *p);
/* Take what has come, a new client too, and tell those who wait how far things are. Never sleeps. */
void spw__serve(struct spw_serve *s, bool new_client);

#endif
