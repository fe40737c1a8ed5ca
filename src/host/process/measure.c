/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process takes, and what the rest of the tree is told of it.
 *
 * `resident` decides everything, so it has to be cheap to ask and must not miss anything: one number of statm has the
 * program's pages, frames, pool and descriptors. What a fork shared, and the text of programs that run more than once,
 * it counts once a process; and to know how much that is the kernel has to walk the page table: so that is asked less
 * often the longer it takes.
 */
#include "host/process/agent.h"
#include "host/text.h"
#include "platform/platform.h"
#include "platform/sys.h"

#include <fcntl.h>
#include <string.h>

#define PUBLISH_NS   10000000ull
#define SHARED_SHARE 20ull  /* time between two counts of shared pages, in times that one takes */
#define LITTLE_SHARE 100ull /* where next to nothing is shared by a fork */
#define LITTLE       16u    /* that is, of what is resident */
#define TEXT_PART    64u    /* less of files is not looked into */

/* Of /proc/self/statm, in pages. */
struct statm {
	uint64_t resident; /* the second number */
	uint64_t others;   /* the third: of that, what is a file's or shared memory */
	/*
	 * The sixth: what the program may write to and has for itself. An arena of malloc grows by mprotect(2), within
	 * address space that was there before: of that the size (the first number) shows nothing.
	 */
	uint64_t data;
};

static struct statm read_statm(const struct spw__agent *a)
{
	char text[128] = "";
	uint64_t number[6] = {0};

	spw__sys4(SYS_pread64, a->statm_fd, text, sizeof(text) - 1, 0);
	const char *p = text;

	for (unsigned i = 0; i < 6 && p; i++) {
		number[i] = spw__number_at(p);
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	return (struct statm){.resident = number[1], .others = number[2], .data = number[5]};
}

/* The number behind a name in /proc/self/smaps_rollup, bytes. */
static uint64_t rollup(const char *text, const char *name)
{
	const char *p = strstr(text, name);

	for (p = p ? p + strlen(name) : ""; *p == ' '; p++)
		;
	return spw__number_at(p) << 10;
}

bool spw__forked_little(const struct spw__agent *a)
{
	return a->forked < (uint64_t)__atomic_load_n(&a->resident, __ATOMIC_RELAXED) / LITTLE;
}

/* Pages that others hold as well are resident in each: count this one's part. The kernel has to walk for it. */
static void measure_shared(struct spw__agent *a)
{
	char text[1024];
	uint64_t began = spw__plat_now_ns();

	if (began < a->shared_next)
		return;
	__atomic_store_n(&a->copied, 0, __ATOMIC_RELAXED);
	int fd = spw__open("/proc/self/smaps_rollup", O_RDONLY);
	long n = spw__sys3(SYS_read, fd, text, sizeof(text) - 1);

	spw__sys1(SYS_close, fd);
	if (n <= 0)
		return;
	text[n] = 0;
	uint64_t rss = rollup(text, "Rss:"), pss = rollup(text, "Pss:");
	uint64_t anon = rollup(text, "Anonymous:"), pss_anon = rollup(text, "Pss_Anon:");

	a->shared = rss > pss ? rss - pss : 0;
	/* Linux before 5.9 does not tell. */
	a->forked = !pss_anon ? a->shared : anon > pss_anon ? anon - pss_anon : 0;
	uint64_t now = spw__plat_now_ns();

	a->shared_next = now + (spw__forked_little(a) ? LITTLE_SHARE : SHARED_SHARE) * (now - began);
}

void spw__measure(struct spw__agent *a, uint64_t *data)
{
	struct statm m = read_statm(a);

	/* Without a fork it is files that others have as well: two compilers have one text in memory. */
	if (a->family || (a->armed && m.others * TEXT_PART > m.resident)) {
		measure_shared(a);
		m = read_statm(a); /* that took some ms */
	} else {
		a->shared = 0;
	}
	uint64_t resident = m.resident * SPW_PAGE;

	*data = m.data;
	__atomic_store_n(&a->rec->resident_bytes, resident, __ATOMIC_RELAXED);
	/* What has been copied since is not shared any more. */
	uint64_t copied = __atomic_load_n(&a->copied, __ATOMIC_RELAXED);
	uint64_t shared = a->shared > copied ? a->shared - copied : 0;

	shared = shared < resident ? shared : resident;
	__atomic_store_n(&a->rec->shared_bytes, shared, __ATOMIC_RELAXED);
	__atomic_store_n(&a->resident, (int64_t)(resident - shared), __ATOMIC_RELAXED);
	a->measured = spw__plat_now_ns();
}

/* What was not yet added to the tree's counter. */
static void add(uint64_t *total, uint64_t now, uint64_t *last)
{
	__atomic_add_fetch(total, now - *last, __ATOMIC_RELAXED);
	*last = now;
}

static void tell(uint64_t *where, uint64_t now)
{
	__atomic_store_n(where, now, __ATOMIC_RELAXED);
}

void spw__publish(struct spw__agent *a, uint64_t now)
{
	if (now - a->published_at < PUBLISH_NS)
		return;
	a->published_at = now;

	struct spw_tier_stats pool;
	struct spw__published *last = &a->published;
	struct spw_ctl_total *t = &a->ctl->total;
	struct spw_ctl_proc *r = a->rec;
	struct spw__space_stats ss;

	a->zswap->ops->stats(a->zswap, &pool);
	spw__lock(&a->lock);
	spw_stats(a->space, &ss);
	uint64_t metadata = spw__pt_metadata(&a->pt), out = a->pt.out;

	spw__unlock(&a->lock);
	tell(&r->metadata_bytes, metadata + ss.metadata_bytes + pool.metadata_bytes + spw__tiers_publish(a));
	tell(&r->same_pages, ss.same);
	tell(&r->swapped_pages, out);
	tell(&r->merged_pages, out > ss.entries ? out - ss.entries : 0);
	tell(&r->pool_bytes, pool.used_bytes);
	tell(&r->pool_stored, pool.stored_bytes);
	tell(&r->pool_pages, pool.pages);
	add(&t->same_filled_pages, ss.same_stores, &last->same);
	add(&t->merged_pages, ss.joins, &last->merged);
	add(&t->writeback_pages, ss.writebacks, &last->writebacks);
	add(&t->pool_reads, pool.reads, &last->pool.reads);
	add(&t->pool_writes, pool.writes, &last->pool.writes);
	add(&t->pool_errors, pool.errors, &last->pool.errors);
}
