/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_REGION_H
#define SPW_CMD_REGION_H
/* The control region (host/control.h), made and configured. */
#include "cmd/options.h"
#include "host/control.h"

struct spw_region {
	int fd; /* the memfd, close-on-exec */
	struct spw_ctl *ctl;
};

/* 0, or SPW_EXIT_FAILED with the one line said. */
int spw__region_create(const struct spw_options *o, uint64_t ram, uint64_t zswap, struct spw_region *out);

#endif
