/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agents find their configuration, their accounts and the shared part of the file tier in one mapping, so that one
 * descriptor of this process is all that they need, and that for no longer than it takes to map it. The key of the
 * file tier exists here and nowhere else: not in a file, not in a core dump.
 */
#include "cmd/region.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "cmd/say.h"

static size_t page_up(size_t bytes)
{
	return (bytes + SPW_PAGE - 1) & ~(size_t)(SPW_PAGE - 1);
}

static void configure(struct spw_ctl *ctl, const struct spw_options *o, const struct spw_swapfile *swap)
{
	ctl->magic = SPW_CTL_MAGIC;
	ctl->version = sizeof(*ctl);
	ctl->supervisor_pid = getpid();
	ctl->swap_fd = swap->fd;
	ctl->evict = o->evict;
	ctl->on_full = o->on_full;
	ctl->best_effort = o->best_effort;
	ctl->quiet = o->quiet;
	ctl->coding = o->codec.coding;
	ctl->level = (int8_t)o->codec.level;
	ctl->zswap_first = o->zswap_first;
}

static int share_file(struct spw_region *r, const struct spw_options *o, const struct spw_swapfile *swap)
{
	struct spw_file_layout layout = {
		.first_byte = swap->first_byte,
		.max_bytes = swap->max_bytes,
		.encrypt = o->encrypt,
		.discard = swap->discard,
	};

	r->ctl->file_max_bytes = swap->max_bytes;
	r->shared = (void *)((char *)r->ctl + r->ctl->file_shared_off);
	if (getrandom(layout.key, sizeof(layout.key), 0) != sizeof(layout.key))
		return spw__fail("no random key to be had: %s", strerror(errno));
	int err = spw__file_shared_init(r->shared, &layout);
	explicit_bzero(layout.key, sizeof(layout.key));
	return err ? spw__fail("swapfile of %llu bytes: %s", (unsigned long long)swap->max_bytes, strerror(-err)) : 0;
}

int spw__region_create(const struct spw_options *o, uint64_t ram, uint64_t zswap, const struct spw_swapfile *swap,
		       struct spw_region *out)
{
	size_t head = page_up(sizeof(struct spw_ctl));
	size_t bytes = head + (swap->fd >= 0 ? page_up(spw__file_shared_size(swap->max_bytes)) : 0);

	*out = (struct spw_region){.fd = memfd_create("spillway", MFD_CLOEXEC)};
	if (out->fd < 0 || ftruncate(out->fd, (off_t)bytes))
		return spw__fail("no memory for the control region: %s", strerror(errno));
	out->ctl = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, out->fd, 0);
	if (out->ctl == MAP_FAILED)
		return spw__fail("no memory for the control region: %s", strerror(errno));
	madvise(out->ctl, bytes, MADV_DONTDUMP);

	configure(out->ctl, o, swap);
	out->ctl->ram_limit_bytes = ram;
	out->ctl->zswap_bytes = zswap;
	out->ctl->file_shared_off = head;
	out->ctl->region_bytes = bytes;
	return swap->fd >= 0 ? share_file(out, o, swap) : 0;
}
