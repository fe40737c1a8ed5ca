/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agents find their configuration and their accounts in one mapping, so that one descriptor of this process is all that
 * they need, and that for no longer than it takes to map it.
 */
#include "cmd/region.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cmd/say.h"

int spw__region_create(const struct spw_options *o, uint64_t ram, uint64_t zswap, struct spw_region *out)
{
	*out = (struct spw_region){.fd = memfd_create("spillway", MFD_CLOEXEC)};
	if (out->fd < 0 || ftruncate(out->fd, sizeof(*out->ctl)))
		return spw__fail("no memory for the control region: %s", strerror(errno));
	out->ctl = mmap(NULL, sizeof(*out->ctl), PROT_READ | PROT_WRITE, MAP_SHARED, out->fd, 0);
	if (out->ctl == MAP_FAILED)
		return spw__fail("no memory for the control region: %s", strerror(errno));
	madvise(out->ctl, sizeof(*out->ctl), MADV_DONTDUMP);

	struct spw_ctl *ctl = out->ctl;

	ctl->magic = SPW_CTL_MAGIC;
	ctl->version = sizeof(*ctl);
	ctl->supervisor_pid = getpid();
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * SPW_PAGE;

	ctl->memory_bytes = memory > ram ? memory : ram;
	ctl->ram_limit_bytes = ram;
	ctl->zswap_bytes = zswap;
	ctl->changes = 1;
	ctl->evict = o->evict;
	ctl->dedup = o->dedup;
	ctl->on_full = o->on_full;
	ctl->best_effort = o->best_effort;
	ctl->quiet = o->quiet;
	ctl->coding = o->codec.coding;
	ctl->level = (int8_t)o->codec.level;
	return 0;
}
