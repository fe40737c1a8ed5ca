/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handler thread: it brings pages back.
 *
 * A message must not be read before the host lock is held: reading an event lets the program go on, and an eviction
 * at that moment would act on a map that is no longer true. So the thread locks, reads, handles, unlocks, and sleeps
 * only when there was nothing to read: while it wakes one fault's thread, the next message has often come. Every call
 * that puts a page in place can say -EAGAIN (an event waits behind this fault): then the waiting thread is woken to
 * fault again, and the event is read next.
 *
 * One wake-up costs more than a page. So pages that continue a stream are fetched in growing windows (ahead.c), and
 * memory that was never used before comes in runs (fresh.c).
 */
#include "host/latency.h"
#include "host/process/agent.h"
#include "host/process/cow.h"
#include "host/process/evict.h"
#include "host/uffd.h"
#include "platform/platform.h"
#include "platform/sys.h"

#include <errno.h>
#include <poll.h>

#define POLL_MS     1000   /* a fork that failed sends no event; it is noticed this late at most */
#define SWITCHES_NS 10000u /* what a fault costs that is not seen here: to wake the handler, and the thread */
#define OUT_NS      4000u  /* and to take a page out again */
#define WAIT_ROUNDS 64     /* of at most 1 ms: then the program goes on, over the cap */

int spw__fault_init(struct spw__agent *a)
{
	a->window = spw__plat_reserve((size_t)SPW__WINDOW_MAX * SPW_PAGE);
	return a->window ? spw__fresh_init(a) : -ENOMEM;
}

/* Take the host lock, but not while a fork is under way: that needs this thread, and nothing may change. */
static void lock_thawed(struct spw__agent *a)
{
	for (;;) {
		spw__lock(&a->lock);
		if (!spw__fork_frozen(a))
			return;
		spw__unlock(&a->lock);
		spw__fork_serve(a);
	}
}

static void count_fault(struct spw__agent *a, uint64_t began)
{
	uint64_t ns = spw__plat_now_ns() - began;
	struct spw_ctl_total *t = &a->ctl->total;
	uint64_t max = __atomic_load_n(&t->fault_max_ns, __ATOMIC_RELAXED);

	__atomic_add_fetch(&t->fault_count, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&t->fault_hist[spw__lat_bucket(ns)], 1, __ATOMIC_RELAXED);
	while (ns > max &&
	       !__atomic_compare_exchange_n(&t->fault_max_ns, &max, ns, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/* Pages came back that would still be there, had this process more memory. */
static void count_missed(struct spw__agent *a, unsigned pages)
{
	__atomic_add_fetch(&a->faults_window, pages, __ATOMIC_RELAXED);
}

/* Over the target, where waiting helps. */
static bool short_of_room(const struct spw__agent *a)
{
	return spw__agent_over(a) && !__atomic_load_n(&a->full, __ATOMIC_RELAXED);
}

/*
 * Hold the fault at va back until the reclaimer has made room. The lock is let go meanwhile. False: a fork has frozen
 * the agent, and may be waiting for a lock that the fault's thread holds; it will fault again.
 */
static bool wait_for_room(struct spw__agent *a, uint64_t va)
{
	if (!short_of_room(a))
		return true;
	spw__unlock(&a->lock);
	__atomic_store_n(&a->waiting, 1, __ATOMIC_SEQ_CST);
	/* An eviction by copy needs this thread to read on. */
	for (unsigned i = 0; i < WAIT_ROUNDS && short_of_room(a) && !spw__copy_under_way(a); i++) {
		uint32_t seen = __atomic_load_n(&a->room, __ATOMIC_ACQUIRE);

		if (spw__reclaim_here(a))
			continue;
		spw__reclaim_kick(a);
		if (short_of_room(a))
			spw__wait(&a->room, seen, 1000000);
	}
	__atomic_store_n(&a->waiting, 0, __ATOMIC_SEQ_CST);
	spw__lock(&a->lock);
	if (!spw__fork_frozen(a))
		return true;
	spw__unlock(&a->lock);
	spw__uffd_wake(a->uffd, (void *)(uintptr_t)va, SPW_PAGE);
	lock_thawed(a);
	return false;
}

static void placed(struct spw__agent *a, unsigned pages)
{
	__atomic_add_fetch(&a->resident, (int64_t)pages * SPW_PAGE, __ATOMIC_RELAXED);
}

/* The pages whose waiters are to be woken, be it to fault again. */
struct served {
	uint64_t va;
	unsigned pages;
	bool at_once; /* they had been out or are new, are memory, and no disk was waited for */
};

/* The page is in a frame: the program has it back, and its run counts as in use. */
static unsigned serve_frame(struct spw__agent *a, uint64_t va)
{
	uint64_t end = (va / SPW_RUN_BYTES + 1) * SPW_RUN_BYTES;
	unsigned n = 0;
	uint32_t frame;

	for (; va < end; va += SPW_PAGE, n++) {
		spw_entry_t e = spw__pt_lookup(&a->pt, va);

		if (spw_cache_get(a->space, e, &frame) || spw__frame_return(a, va, e, frame))
			break;
		*spw__pt_age(&a->pt, va) = 3;
		spw__pt_came_in(&a->pt, va, 1);
	}
	count_missed(a, n);
	/* Not even the first: an event waits, or the page has been stored meanwhile. */
	return n;
}

/* The page at va has its bytes in a tier; it is neither here nor on its way out. */
static bool stored(struct spw__agent *a, uint64_t va)
{
	spw_entry_t e = spw__pt_lookup(&a->pt, va);
	enum spw_kind kind = e.idx == SPW_ENTRY_NONE ? SPW_FREE : spw_kind(a->space, e);

	return kind != SPW_FREE && kind != SPW_FRAME;
}

/* What is to come in for the fault at va, which is stored. */
static struct spw__ahead_span fetched_for(struct spw__agent *a, uint64_t va)
{
	struct spw__ahead_span most = spw__ahead_wanted(&a->ahead, va), out;

	for (out.from = va; out.from > most.from && stored(a, out.from - SPW_PAGE);)
		out.from -= SPW_PAGE;
	for (out.to = va + SPW_PAGE; out.to < most.to && stored(a, out.to);)
		out.to += SPW_PAGE;
	return spw__ahead_choose(&a->ahead, va, out);
}

/* What is to be put in place, restored. */
struct restored {
	struct spw__ahead_span at;
	const char *bytes;
	uint32_t from_file; /* a bit for each page */
};

/* One more page, at the lower or the upper end. 0, or -errno from spw_load(). */
static int restore(struct spw__agent *a, struct restored *r, char *to, uint64_t va, spw_slot_t *where)
{
	spw_entry_t e = spw__pt_lookup(&a->pt, va);
	uint32_t from_file = spw_kind(a->space, e) == SPW_SLOT;
	int ret = spw_load(a->space, a->fault_work, e, to, where);

	if (ret)
		return ret;
	if (va < r->at.from) {
		r->from_file = r->from_file << 1 | from_file;
		r->at.from = va;
		r->bytes = to;
	} else {
		r->from_file |= from_file << (r->at.to - r->at.from) / SPW_PAGE;
		r->at.to = va + SPW_PAGE;
	}
	return 0;
}

/* The page at va, and of those that are to come with it what can be read: the others speak when they are asked for. */
static struct restored restore_all(struct spw__agent *a, uint64_t va, struct spw__ahead_span want)
{
	char *asked = a->window + (va - want.from);
	struct restored r = {.at = {va, va}, .bytes = asked};
	spw_slot_t where = SPW_SLOT_NONE;
	int ret = restore(a, &r, asked, va, &where);

	if (ret)
		spw__agent_lost(spw__pt_lookup(&a->pt, va), where, -ret);
	while (r.at.to < want.to && !restore(a, &r, a->window + (r.at.to - want.from), r.at.to, &where))
		;
	while (r.at.from > want.from &&
	       !restore(a, &r, a->window + (r.at.from - SPW_PAGE - want.from), r.at.from - SPW_PAGE, &where))
		;
	return r;
}

/* If the page is on a file, it begins to be read. False: it does not. */
static bool expect(struct spw__agent *a, uint64_t va, bool alone)
{
	return spw_expect(a->space, a->fault_work, spw__pt_lookup(&a->pt, va), alone);
}

/*
 * The page at va is wanted, and `want` comes in for it: what is on a file of that, and of what will be wanted next. How
 * many pages are to come in at equal steps, *step from each to the next.
 */
static unsigned expect_all(struct spw__agent *a, uint64_t va, struct spw__ahead_span want, int64_t *step)
{
	unsigned n = (unsigned)((want.to - want.from) / SPW_PAGE);

	if (n > 1) {
		/* A stream will ask for as much again. */
		n *= a->ahead.level ? 1 : 2;
		for (unsigned i = 0; i < n; i++)
			expect(a, want.from + (uint64_t)i * SPW_PAGE, false);
		return 1;
	}
	n = spw__strides_next(&a->strides, a->asking, va, step);
	for (unsigned i = 0; n > 1 && i < SPW__STRIDES; i++)
		expect(a, va + i * (uint64_t)*step, true);
	return n;
}

/* Put it in place. What has been is left in it: nothing, if an event is to be read first. */
static void put(struct spw__agent *a, uint64_t asked, struct restored *r)
{
	uint64_t bytes = r->at.to - r->at.from, skip = asked - r->at.from;
	long done = spw__uffd_copy_quiet(a->uffd, (void *)(uintptr_t)r->at.from, r->bytes, bytes);

	/* It may reach past the mapping; the page that was asked for does not. */
	if (done <= 0 && bytes > SPW_PAGE) {
		r->at.from = asked;
		r->from_file >>= skip / SPW_PAGE;
		done = spw__uffd_copy_quiet(a->uffd, (void *)(uintptr_t)asked, r->bytes + skip, SPW_PAGE);
	}
	r->at.to = r->at.from + (done > 0 ? (uint64_t)done : 0);
	placed(a, (unsigned)((r->at.to - r->at.from) / SPW_PAGE));
}

/* What has been put in place is the program's again, each page for so many ns. */
static void came_in(struct spw__agent *a, const struct restored *r, uint64_t each)
{
	unsigned pages = (unsigned)((r->at.to - r->at.from) / SPW_PAGE);
	int64_t resident = __atomic_load_n(&a->resident, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < pages; i++) {
		uint64_t at = r->at.from + (uint64_t)i * SPW_PAGE;
		spw_entry_t e = spw__pt_lookup(&a->pt, at);

		count_missed(a, spw__split_soon(&a->split, e, resident > 0 ? (uint64_t)resident / SPW_PAGE : 0));
		spw__split_in(&a->split, e, r->from_file >> i & 1, each);
		spw_free(a->space, &e, 1);
		spw__pt_came_in(&a->pt, at, 1);
	}
	__atomic_add_fetch(&a->ctl->total.swap_in_pages, pages, __ATOMIC_RELAXED);
}

/*
 * The pages behind va, n with that, come along, if they are in memory or on their way; the others speak when they are
 * asked for. Nobody is woken for them: whose fault is to come finds its page.
 */
static void bring_stride(struct spw__agent *a, uint64_t va, unsigned n, uint64_t step)
{
	for (unsigned i = 1; i < n; i++) {
		uint64_t began = spw__plat_now_ns(), at = va + i * step;
		struct restored r = {.at = {at, at}, .bytes = a->window};
		spw_slot_t where;

		/* So that always as many are under way. */
		expect(a, at + (SPW__STRIDES - 1) * step, true);
		if (!stored(a, at) || !expect(a, at, true) || restore(a, &r, a->window, at, &where))
			continue;
		put(a, at, &r);
		if (r.at.to == r.at.from)
			break; /* an event is to be read first */
		came_in(a, &r, spw__plat_now_ns() - began + OUT_NS);
	}
}

/*
 * The page at va has its bytes in a tier. What has been put in place, and that page: if it has not, it is tried again.
 */
static struct served serve_stored(struct spw__agent *a, uint64_t va)
{
	uint64_t began = spw__plat_now_ns();
	struct spw__ahead_span want = fetched_for(a, va);
	int64_t step = 0;
	unsigned strides = expect_all(a, va, want, &step);
	struct restored r = restore_all(a, va, want);

	put(a, va, &r);
	unsigned pages = (unsigned)((r.at.to - r.at.from) / SPW_PAGE);

	if (!pages)
		return (struct served){va, 0, false};
	came_in(a, &r, (spw__plat_now_ns() - began + SWITCHES_NS) / pages + OUT_NS);
	if (r.at.to > va)
		spw__ahead_advance(&a->ahead, va, (unsigned)((r.at.to - va) / SPW_PAGE));
	bring_stride(a, va, strides, (uint64_t)step);
	if (r.at.to <= va)
		pages = (unsigned)((va + SPW_PAGE - r.at.from) / SPW_PAGE);
	return (struct served){r.at.from, pages, !r.from_file};
}

/* A missing page was asked for. may_wait: for room; the lock is let go meanwhile. */
static struct served serve(struct spw__agent *a, uint64_t va, bool write, bool may_wait)
{
	const struct served again = {va, 1, false};
	uint64_t began = spw__plat_now_ns();

	if (may_wait && !wait_for_room(a, va))
		return again;
	/*
	 * Begun while we waited: pages that are neither there nor known to be out must not be taken for untouched ones.
	 */
	if (spw__copy_under_way(a))
		return again;
	spw_entry_t e = spw__pt_lookup(&a->pt, va);
	enum spw_kind kind = e.idx == SPW_ENTRY_NONE ? SPW_FREE : spw_kind(a->space, e);
	struct served s = {va, 0, false};
	bool zeros = kind == SPW_FREE;

	spw__event_missing(a, va, va + SPW_PAGE);
	if (zeros) {
		s.pages = spw__fresh_serve(a, va, write, &s.at_once);
		placed(a, s.pages); /* or not yet, where it is the zero page; but the next measurement may be late */
	} else if (kind == SPW_FRAME) {
		s.pages = serve_frame(a, va);
	} else {
		s = serve_stored(a, va);
	}
	if (s.pages && !zeros)
		count_fault(a, began);
	/*
	 * An event is to be read first, and the kernel gives faults before events. A thread that shares the handler's
	 * CPU would fault again before the handler reads on. (Who registers a mapping must find the event still to
	 * come.)
	 */
	if (!s.pages && may_wait)
		spw__fault_drain(a);
	return s.pages ? s : again;
}

/* A page that a fork shared is written to, and the following ones if a stream goes on with it. */
static struct served serve_write(struct spw__agent *a, uint64_t va)
{
	if (!wait_for_room(a, va))
		return (struct served){va, 1, false};
	const struct spw__region *g = spw__regions_at(&a->regions, va);
	uint64_t bytes = (uint64_t)spw__ahead_stream(&a->ahead, va) * SPW_PAGE;
	uint64_t most = g && g->start <= va ? g->end - va : SPW_PAGE;

	bytes = bytes < most ? bytes : most;
	/* This wakes. */
	if (spw__cow_open(a, va, bytes, bytes)) {
		spw__fault_drain(a); /* as in serve() */
		return (struct served){va, 1, false};
	}
	spw__ahead_advance(&a->ahead, va, (unsigned)(bytes / SPW_PAGE));
	return (struct served){0, 0, false};
}

static void wake(struct spw__agent *a, struct served s)
{
	if (s.pages)
		spw__uffd_wake(a->uffd, (void *)(uintptr_t)s.va, (size_t)s.pages * SPW_PAGE);
}

void spw__fault_serve(struct spw__agent *a, uint64_t va)
{
	wake(a, serve(a, va, false, false));
}

/* False: none is there. */
static bool read_message(struct spw__agent *a, struct uffd_msg *m)
{
	return spw__sys3(SYS_read, a->uffd, m, sizeof(*m)) == (long)sizeof(*m);
}

static bool is_write(const struct uffd_msg *m)
{
	return m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP;
}

static bool is_first_write(const struct uffd_msg *m)
{
	return m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
}

/* Handle a message that is no fault which brings memory in. False: it is one. */
static bool handled(struct spw__agent *a, const struct uffd_msg *m)
{
	if (spw__copy_holds(a, m))
		return true;
	if (m->event != UFFD_EVENT_PAGEFAULT)
		spw__event(a, m);
	else if (is_write(m) && !a->guarded)
		/* A page that was on its way out and stayed, or not shared any more. This wakes. */
		spw__uffd_protect(a->uffd, (void *)(uintptr_t)spw__msg_page(m), SPW_PAGE, 0);
	else
		return false;
	return true;
}

/*
 * Events are what is wanted here, but the kernel gives the faults first. To serve them would be to let the program go
 * on: its threads could fault again faster than they are served, by a thread that no target holds up and that should be
 * reclaiming. So they stay away until all is read, and then fault again.
 */
void spw__fault_drain(struct spw__agent *a)
{
	uint64_t fault[SPW_HELD];
	unsigned faults = 0;
	struct uffd_msg m;

	while (faults < SPW_HELD && read_message(a, &m)) {
		if (!handled(a, &m))
			fault[faults++] = spw__msg_page(&m);
	}
	while (faults > 0)
		wake(a, (struct served){fault[--faults], 1, false});
}

int spw__fault_thread(void *agent)
{
	struct spw__agent *a = agent;
	struct pollfd p = {.fd = a->uffd, .events = POLLIN};
	struct uffd_msg m;

	spw__place_init(a);
	for (bool waited = false;;) {
		struct served s = {0, 0, false};

		/* Now, while the program's thread waits: once it runs, a handler on its CPU does not. */
		spw__reclaim_here(a);
		lock_thawed(a);
		bool got = read_message(a, &m);

		if (got && !handled(a, &m)) {
			a->asking = m.arg.pagefault.feat.ptid;
			spw__place_fault(a, a->asking, waited);
			s = is_write(&m) ? serve_write(a, spw__msg_page(&m))
					 : serve(a, spw__msg_page(&m), is_first_write(&m), true);
			/*
			 * While this thread waits for a disk it has the lock that the reclaimer needs: two are no
			 * faster then.
			 */
			spw__place_served(a, s.at_once ? s.pages : 1);
		}
		spw__unlock(&a->lock);
		/* And for that reason holding no lock. */
		if (got)
			wake(a, s);
		else
			spw__sys3(SYS_poll, &p, 1, POLL_MS);
		waited = !got;
	}
}
