/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_CAPS_H
#define SPW_CMD_CAPS_H
/* What this kernel and these rights allow. */
#include <stdbool.h>

#include "host/control.h"

struct spw_caps {
	int error;     /* 0, or -errno: no userfaultfd that sees the kernel's own faults */
	bool device;   /* it comes from /dev/userfaultfd */
	bool events;   /* remap, remove and unmap are reported */
	bool move, wp; /* ways of taking a page out */
	bool fork;     /* fork is reported (CAP_SYS_PTRACE) */
	bool io_uring;
	char fix[256]; /* when error: the command that helps */
};

void spw__caps(struct spw_caps *out);

/* Can the program's memory be managed with this way of evicting? NULL, or the one line that says why not. */
const char *spw__caps_refusal(const struct spw_caps *c, enum spw_evict evict, char *why, unsigned size);

#endif
