/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_ASK_H
#define SPW_CMD_ASK_H
/* Asking a running `spillway run`, and the subcommands that do no more. argv begins behind the subcommand's name. */
#include <jansson.h>
#include <sys/types.h>

int spw__list(char **argv);
int spw__set(char **argv);
int spw__swapoff(char **argv);

/* A connection to the run whose pid it is, or -errno; -ENOENT: the process is no run. */
int spw__ask_connect(pid_t pid);
/* The same for a pid as text. 0, or SPW_EXIT_FAILED with the one line said. */
int spw__ask_open(const char *pid, int *fd);
/*
 * One request on the connection, with the descriptor `with` (-1: none) beside it; `what` names it in what is said.
 * Takes the request and the connection over. 0 with the last answer in *answer (if that is not NULL), the caller's to
 * decref, or SPW_EXIT_FAILED with the one line said.
 */
int spw__ask(int fd, json_t *request, int with, const char *what, json_t **answer);

#endif
