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
 * One wake-up costs more than a page. Pages that continue a stream are fetched in growing windows; pages never used
 * before are mapped to the zero page in long runs, so that the kernel serves the writes to them by itself.
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

#define ZERO_RUN     (2u << 20) /* bytes of untouched memory mapped for one fault at most */
#define ZERO_RUN_MIN (64u << 10)
#define POLL_MS      1000 /* a fork that failed sends no event; it is noticed this late at most */
#define WAIT_ROUNDS  64   /* of at most 1 ms: then the program goes on, over the cap */

int spw__fault_init(struct spw__agent *a)
{
	a->window = spw__plat_reserve((size_t)SPW_WINDOW_MAX * SPW_PAGE);
	return a->window ? 0 : -ENOMEM;
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

static void count_fault(struct spw__agent *a, uint64_t began, unsigned pages)
{
	uint64_t ns = spw__plat_now_ns() - began;
	struct spw_ctl_total *t = &a->ctl->total;
	uint64_t max = __atomic_load_n(&t->fault_max_ns, __ATOMIC_RELAXED);

	__atomic_add_fetch(&t->fault_count, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&t->fault_hist[spw__lat_bucket(ns)], 1, __ATOMIC_RELAXED);
	while (ns > max &&
	       !__atomic_compare_exchange_n(&t->fault_max_ns, &max, ns, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	__atomic_add_fetch(&a->faults_window, pages, __ATOMIC_RELAXED);
}

/* How many pages to fetch at va: grows while the faults continue a stream. */
static unsigned stream_window(struct spw__agent *a, uint64_t va)
{
	for (unsigned i = 0; i < SPW_STREAMS; i++) {
		struct spw__stream *s = &a->stream[i];

		if (s->next == va && s->window) {
			s->window = s->window * 2 < SPW_WINDOW_MAX ? s->window * 2 : SPW_WINDOW_MAX;
			return s->window;
		}
	}
	a->stream[a->stream_hand++ % SPW_STREAMS] = (struct spw__stream){.next = va, .window = 1};
	return 1;
}

static void stream_advance(struct spw__agent *a, uint64_t va, unsigned pages)
{
	for (unsigned i = 0; i < SPW_STREAMS; i++) {
		if (a->stream[i].next == va)
			a->stream[i].next = va + (uint64_t)pages * SPW_PAGE;
	}
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

/* A page that was never out: zeros, and for its untouched neighbours too. Returns the pages put in place. */
static unsigned serve_zero(struct spw__agent *a, uint64_t va)
{
	const struct spw__region *g = spw__regions_at(&a->regions, va);
	uint64_t end = va + SPW_PAGE;
	int64_t spare = (int64_t)spw__agent_target(a) - __atomic_load_n(&a->resident, __ATOMIC_RELAXED);
	uint64_t run = spare > 4 * ZERO_RUN ? ZERO_RUN : ZERO_RUN_MIN;

	if (g && g->start <= va) {
		uint64_t stop = (va / run + 1) * run;

		stop = stop < g->end ? stop : g->end;
		end = spw__pt_next_out(&a->pt, va, stop);
	}
	long done = spw__uffd_zero(a->uffd, (void *)(uintptr_t)va, end - va);

	/* The run may reach into another mapping; the page that was asked for does not. */
	if (done < 0 && end - va > SPW_PAGE)
		done = spw__uffd_zero(a->uffd, (void *)(uintptr_t)va, SPW_PAGE);
	if (done < 0)
		return 0;
	placed(a, (unsigned)((uint64_t)done / SPW_PAGE)); /* none yet; but the next measurement may be late */
	return (unsigned)((uint64_t)done / SPW_PAGE);
}

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
	/* Not even the first: an event waits, or the page has been stored meanwhile. */
	return n;
}

/* Put n pages in place from the window. */
static long put(struct spw__agent *a, uint64_t va, unsigned n)
{
	void *to = (void *)(uintptr_t)va;
	long done = spw__uffd_copy_quiet(a->uffd, to, a->window, (size_t)n * SPW_PAGE);

	/* A window may reach past the mapping; the page that was asked for does not. */
	if (done <= 0 && n > 1)
		done = spw__uffd_copy_quiet(a->uffd, to, a->window, SPW_PAGE);
	if (done > 0)
		placed(a, (unsigned)((size_t)done / SPW_PAGE));
	return done;
}

/* Bytes in a tier: restore a window of pages and place them by one call. */
static unsigned serve_stored(struct spw__agent *a, uint64_t va, spw_entry_t e)
{
	unsigned want = stream_window(a, va), have = 0;
	spw_slot_t where = SPW_SLOT_NONE;
	uint64_t began = spw__plat_now_ns();
	uint32_t from_file = 0; /* a bit for each page */

	while (have < want) {
		spw_entry_t next = spw__pt_lookup(&a->pt, va + (uint64_t)have * SPW_PAGE);

		if (have && (next.idx == SPW_ENTRY_NONE || spw_kind(a->space, next) == SPW_FREE ||
			     spw_kind(a->space, next) == SPW_FRAME))
			break;
		e = next;
		from_file |= (uint32_t)(spw_kind(a->space, e) == SPW_SLOT) << have;
		int ret = spw_load(a->space, a->fault_work, e, a->window + (size_t)have * SPW_PAGE, &where);

		if (ret && have == 0)
			spw__agent_lost(e, where, -ret);
		if (ret)
			break;
		have++;
	}
	long done = put(a, va, have);

	if (done <= 0)
		return 0;
	have = (unsigned)((size_t)done / SPW_PAGE);
	uint64_t each = (spw__plat_now_ns() - began) / have;

	for (unsigned i = 0; i < have; i++) {
		uint64_t at = va + (uint64_t)i * SPW_PAGE;

		e = spw__pt_lookup(&a->pt, at);
		spw__split_in(&a->split, e, from_file >> i & 1, each);
		spw_free(a->space, &e, 1);
		spw__pt_came_in(&a->pt, at, 1);
	}
	stream_advance(a, va, have);
	__atomic_add_fetch(&a->ctl->total.swap_in_pages, have, __ATOMIC_RELAXED);
	return have;
}

/* The pages whose waiters are to be woken, be it to fault again. */
struct served {
	uint64_t va;
	unsigned pages;
};

/* A missing page was asked for. may_wait: for room; the lock is let go meanwhile. */
static struct served serve(struct spw__agent *a, uint64_t va, bool may_wait)
{
	const struct served again = {va, 1};
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
	unsigned pages = 0, zeros = 0;

	spw__event_missing(a, va);
	if (kind == SPW_FREE)
		zeros = serve_zero(a, va);
	else if (kind == SPW_FRAME)
		pages = serve_frame(a, va);
	else
		pages = serve_stored(a, va, e);
	if (pages)
		count_fault(a, began, pages);
	return pages + zeros ? (struct served){va, pages + zeros} : again;
}

/* A page that a fork shared is written to, and the following ones if a stream goes on with it. */
static struct served serve_write(struct spw__agent *a, uint64_t va)
{
	if (!wait_for_room(a, va))
		return (struct served){va, 1};
	const struct spw__region *g = spw__regions_at(&a->regions, va);
	uint64_t bytes = (uint64_t)stream_window(a, va) * SPW_PAGE;
	uint64_t most = g && g->start <= va ? g->end - va : SPW_PAGE;

	bytes = bytes < most ? bytes : most;
	/* This wakes. */
	if (spw__cow_open(a, va, bytes, bytes)) {
		/* An event is to be read first, and the kernel gives faults before events. */
		spw__fault_drain(a);
		return (struct served){va, 1};
	}
	stream_advance(a, va, (unsigned)(bytes / SPW_PAGE));
	return (struct served){0, 0};
}

static void wake(struct spw__agent *a, struct served s)
{
	if (s.pages)
		spw__uffd_wake(a->uffd, (void *)(uintptr_t)s.va, (size_t)s.pages * SPW_PAGE);
}

void spw__fault_serve(struct spw__agent *a, uint64_t va)
{
	wake(a, serve(a, va, false));
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
		wake(a, (struct served){fault[--faults], 1});
}

int spw__fault_thread(void *agent)
{
	struct spw__agent *a = agent;
	struct pollfd p = {.fd = a->uffd, .events = POLLIN};
	struct uffd_msg m;

	spw__place_init(a);
	for (bool waited = false;;) {
		struct served s = {0, 0};

		/* Now, while the program's thread waits: once it runs, a handler on its CPU does not. */
		spw__reclaim_here(a);
		lock_thawed(a);
		bool got = read_message(a, &m);

		if (got && !handled(a, &m)) {
			spw__place_fault(a, m.arg.pagefault.feat.ptid, waited);
			s = is_write(&m) ? serve_write(a, spw__msg_page(&m)) : serve(a, spw__msg_page(&m), true);
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
