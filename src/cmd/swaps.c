/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tier is entered in this order: its file, the part of it that the tree shares, the words of the table, and last the
 * state that says that they are true. An agent that looks in between sees nothing. The key of a file exists in its
 * shared part and nowhere else: not in a file, not in a core dump.
 */
#include "cmd/swaps.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "cmd/say.h"

void spw__swaps_init(struct spw_swaps *s)
{
	*s = (struct spw_swaps){0};
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++)
		s->at[i].file.fd = s->at[i].shared_fd = -1;
}

static struct spw_swap_place *find(struct spw_swaps *s, const char *name)
{
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++)
		if (!strcmp(s->at[i].name, name))
			return &s->at[i];
	return NULL;
}

/*
 * Its path from the root on, so that it means the same in every directory and is never "file", which is what one
 * without a path is called. Names go into JSON: what is no UTF-8 is changed. A number tells those apart that would be
 * equal.
 */
static void name_place(struct spw_swaps *s, struct spw_swap_place *p, const char *path)
{
	char base[PATH_MAX], name[SPW_SWAP_NAME];

	snprintf(base, sizeof(base), "%s", path ? path : "file");
	json_t *valid = json_string(base);
	for (char *at = base; !valid && *at; at++)
		*at = (unsigned char)*at < 0x80 ? *at : '?';
	json_decref(valid);
	snprintf(name, sizeof(name), "%s", base);
	for (unsigned n = 2; find(s, name); n++)
		snprintf(name, sizeof(name), "%s.%u", base, n);
	memcpy(p->name, name, sizeof(name));
}

/* The segment table, which every process of the tree maps. */
static int share(struct spw_swap_place *p, bool encrypt)
{
	struct spw_file_layout layout = {
		.first_byte = p->file.first_byte,
		.max_bytes = p->file.max_bytes,
		.encrypt = encrypt,
		.discard = p->file.discard,
		.bad = p->file.bad,
		.bad_n = p->file.bad_n,
	};
	void *map;

	p->shared_bytes = spw__file_shared_size(p->file.max_bytes);
	p->shared_fd = memfd_create("spillway-file", MFD_CLOEXEC);
	if (p->shared_fd < 0 || ftruncate(p->shared_fd, (off_t)p->shared_bytes))
		return spw__fail("no memory for the table of a swapfile: %s", strerror(errno));
	map = mmap(NULL, p->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->shared_fd, 0);
	if (map == MAP_FAILED)
		return spw__fail("no memory for the table of a swapfile: %s", strerror(errno));
	p->shared = map;
	madvise(map, p->shared_bytes, MADV_DONTDUMP);
	if (getrandom(layout.key, sizeof(layout.key), 0) != sizeof(layout.key))
		return spw__fail("no random key to be had: %s", strerror(errno));
	int err = spw__file_shared_init(p->shared, &layout);
	explicit_bzero(layout.key, sizeof(layout.key));
	if (err && p->file.bad_n)
		return spw__fail("--swap file:%s: nowhere 256 KiB without a bad page; use another device",
				 p->file.path);
	return err ? spw__fail("swapfile of %llu bytes: %s", (unsigned long long)p->file.max_bytes, strerror(-err)) : 0;
}

static void vacate(struct spw_swap_place *p)
{
	if (p->shared)
		munmap(p->shared, p->shared_bytes);
	if (p->shared_fd >= 0)
		close(p->shared_fd);
	spw__swapfile_close(&p->file);
	*p = (struct spw_swap_place){.file.fd = -1, .shared_fd = -1};
}

/* A group that was told by name what it may use is not to use what takes the place of that. */
static void deny_to_groups(struct spw_ctl *c, uint32_t bit)
{
	for (struct spw_ctl_group *g = c->group; g < c->group + SPW_CTL_GROUPS; g++)
		if (!(g->tiers & SPW_CTL_LATER))
			__atomic_fetch_and(&g->tiers, ~bit, __ATOMIC_RELEASE);
}

static void enter(struct spw_swaps *s, const struct spw_swap_place *p, const struct spw_swap *swap)
{
	struct spw_ctl_tier *t = &s->ctl->tier[p - s->at];

	*t = (struct spw_ctl_tier){
		.generation = ++s->generation,
		.kind = swap->kind == SPW_SWAP_GHOST ? SPW_CTL_GHOST : SPW_CTL_FILE,
		.priority = swap->priority,
		.fd = p->file.fd,
		.shared_fd = p->shared_fd,
		.shared_bytes = p->shared_bytes,
		.pages = p->file.pages,
	};
	deny_to_groups(s->ctl, 1u << (p - s->at + 1));
	__atomic_store_n(&t->state, SPW_CTL_ON, __ATOMIC_RELEASE);
	__atomic_add_fetch(&s->ctl->ghost_pages, p->file.pages, __ATOMIC_RELAXED);
	__atomic_add_fetch(&s->ctl->changes, 1, __ATOMIC_RELEASE);
}

static int fail_twice(const char *name)
{
	return spw__fail("%s: in use by this run already", name);
}

int spw__swaps_offer(struct spw_swaps *s, const struct spw_swap *swap)
{
	if (!find(s, ""))
		return spw__fail("%u files and ghosts are in use, which is as many as there can be", SPW_CTL_TIERS);
	if (!swap->path)
		return 0;
	char path[PATH_MAX];
	int failed = spw__swapfile_absolute(swap->path, path, sizeof(path));

	return failed ? failed : find(s, path) ? fail_twice(swap->path) : 0;
}

int spw__swaps_take(struct spw_swaps *s, const struct spw_swap *swap, struct spw_swapfile *file)
{
	struct spw_swap_place *p = find(s, "");
	char path[PATH_MAX];
	int failed = swap->path ? spw__swapfile_absolute(swap->path, path, sizeof(path)) : 0;

	for (unsigned i = 0; i < SPW_CTL_TIERS && !failed; i++)
		if (spw__swapfile_same(&s->at[i].file, file))
			failed = fail_twice(s->at[i].name);
	p->file = *file;
	if (!failed && swap->kind == SPW_SWAP_FILE)
		failed = share(p, swap->encrypt);
	if (failed) {
		vacate(p);
		return failed;
	}
	name_place(s, p, swap->path ? path : NULL);
	enter(s, p, swap);
	return 0;
}

int spw__swaps_add(struct spw_swaps *s, const struct spw_swap *swap, bool quiet)
{
	struct spw_swapfile file;
	int failed = spw__swaps_offer(s, swap);

	if (!failed)
		failed = spw__swapfile_open(swap, quiet, &file);
	return failed ? failed : spw__swaps_take(s, swap, &file);
}

struct spw_swap_place *spw__swaps_find(struct spw_swaps *s, const char *name)
{
	return *name ? find(s, name) : NULL;
}

int8_t spw__swaps_lowest(const struct spw_swaps *s)
{
	int lowest = s->zswap_priority < 0 ? s->zswap_priority : 0;

	for (unsigned i = 0; i < SPW_CTL_TIERS; i++)
		if (s->at[i].name[0] && s->ctl->tier[i].priority < lowest)
			lowest = s->ctl->tier[i].priority;
	return (int8_t)(lowest > INT8_MIN ? lowest - 1 : lowest);
}

void spw__swaps_size(const struct spw_swaps *s, const struct spw_swap_place *p, uint64_t *used, uint64_t *capacity)
{
	*used = 0;
	*capacity = s->ctl->tier[p - s->at].pages * SPW_PAGE;
	if (p->shared)
		spw__file_shared_use(p->shared, used, capacity);
}

struct spw_swap_use spw__swaps_use(const struct spw_swaps *s, const struct spw_swap_place *p)
{
	unsigned i = (unsigned)(p - s->at);
	uint32_t generation = s->ctl->tier[i].generation;
	struct spw_swap_use use = {0};

	for (const struct spw_ctl_proc *r = s->ctl->proc; r < s->ctl->proc + SPW_CTL_PROCS; r++) {
		const struct spw_ctl_part *part = &r->part[i];

		if (!__atomic_load_n(&r->pid, __ATOMIC_ACQUIRE) ||
		    __atomic_load_n(&part->generation, __ATOMIC_SEQ_CST) != generation)
			continue;
		use.processes++;
		use.pages += __atomic_load_n(&part->pages, __ATOMIC_RELAXED);
		use.stored += __atomic_load_n(&part->stored, __ATOMIC_RELAXED);
		use.lost += __atomic_load_n(&part->lost, __ATOMIC_RELAXED);
		int error = __atomic_load_n(&part->error, __ATOMIC_RELAXED);

		use.error = error ? error : use.error;
	}
	return use;
}

static void change(struct spw_swaps *s, const struct spw_swap_place *p, enum spw_ctl_state state)
{
	__atomic_store_n(&s->ctl->tier[p - s->at].state, state, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&s->ctl->changes, 1, __ATOMIC_RELEASE);
}

/* Let the agents empty it, for this reason. */
static void leave(struct spw_swaps *s, struct spw_swap_place *p, enum spw_ctl_state state)
{
	/* Errors of an attempt before this one say nothing. */
	for (struct spw_ctl_proc *r = s->ctl->proc; r < s->ctl->proc + SPW_CTL_PROCS; r++)
		__atomic_store_n(&r->part[p - s->at].error, 0, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&s->ctl->ghost_pages, s->ctl->tier[p - s->at].pages, __ATOMIC_RELAXED);
	change(s, p, state);
}

void spw__swaps_drain(struct spw_swaps *s, struct spw_swap_place *p)
{
	leave(s, p, SPW_CTL_DRAINING);
}

void spw__swaps_die(struct spw_swaps *s, struct spw_swap_place *p, int error)
{
	p->died_of = error;
	leave(s, p, SPW_CTL_DEAD);
}

void spw__swaps_cancel(struct spw_swaps *s, struct spw_swap_place *p)
{
	__atomic_add_fetch(&s->ctl->ghost_pages, s->ctl->tier[p - s->at].pages, __ATOMIC_RELAXED);
	change(s, p, SPW_CTL_ON);
}

/* What was done on it stays in the statistics. */
static void remember(struct spw_swaps *s, const struct spw_swap_place *p)
{
	const struct spw_ctl_tier *t = &s->ctl->tier[p - s->at];
	struct spw_past past = {
		.kind = t->kind,
		.priority = t->priority,
		.reads = __atomic_load_n(&t->reads, __ATOMIC_RELAXED),
		.writes = __atomic_load_n(&t->writes, __ATOMIC_RELAXED),
		.errors = __atomic_load_n(&t->errors, __ATOMIC_RELAXED),
		.died_of = p->died_of,
		.lost = p->lost,
	};
	uint64_t used;

	spw__swaps_size(s, p, &used, &past.capacity_bytes);
	spw__past_add(&s->past, p->name, &past);
}

void spw__swaps_remove(struct spw_swaps *s, struct spw_swap_place *p)
{
	remember(s, p);
	change(s, p, SPW_CTL_OFF);
	vacate(p);
}

void spw__swaps_reap(struct spw_swaps *s, unsigned proc)
{
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++)
		if (s->at[i].shared)
			spw__file_reap(s->at[i].shared, proc);
}

unsigned spw__swaps_descriptors(const struct spw_swaps *s, int *fd)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SPW_CTL_TIERS; i++) {
		if (s->at[i].file.fd >= 0)
			fd[n++] = s->at[i].file.fd;
		if (s->at[i].shared_fd >= 0)
			fd[n++] = s->at[i].shared_fd;
	}
	return n;
}

void spw__swaps_close(struct spw_swaps *s)
{
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++)
		vacate(&s->at[i]);
	spw__past_free(&s->past);
}
