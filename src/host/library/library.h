/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_LIBRARY_H
#define SPW_LIBRARY_H
/*
 * The library host: regions of memory whose faults come to this process. What its files share; include/spillway.h is
 * what a program sees.
 *
 * A position is a page's number in its space: cluster * SPW_CLUSTER + page in the leaf. It is the index of the entry
 * that the page has for itself ("its own"), of its state, and of the frame that it is when it is one. A leaf is 2 MiB
 * of a region and takes a cluster when it is first touched.
 *
 * The state of a page is one byte, changed only by who has its BUSY bit:
 *
 *	IN      it is resident, else missing: behind its entry, or FREE (zeros)
 *	PROT    IN, and the first write asks (write-protected)
 *	BACKED  PROT, and the entry that it holds has the same bytes: it can go without being stored
 *	FRAME   PROT, and it is the frame of the entry that it holds: others that hold the entry read it here
 *	PINNED  IN, and stays
 *	QUEUED  it is in a queue; stays while it is missing, until the queue comes to it
 *	MAIN    of the queue for pages that came back soon
 *
 * Which entry a page holds: its own; in leaves that shared pages with a clone, what `held` says.
 *
 * Locks: BUSY of a page; then those of the space layer. Who has one page BUSY only tries to have another, but if both
 * are of a range of one region that it takes in order. A thread has its signals blocked while it has a page BUSY or a
 * seat. `enter` and `leave` go around everything that may use a tier; a tier comes and goes while nobody is inside. A
 * thread enters before it has a page BUSY, and may wait for room inside.
 */
#include "host/lock.h"
#include "host/split.h"
#include "host/strides.h"
#include "platform/spin.h"
#include "space/space.h"
#include "spillway.h"
#include "tier/file.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#define SPW__IN     1u
#define SPW__PROT   2u
#define SPW__BACKED 4u
#define SPW__FRAME  8u
#define SPW__PINNED 16u
#define SPW__QUEUED 32u
#define SPW__MAIN   64u
#define SPW__BUSY   128u

#define SPW__LEAF_BYTES  ((uint64_t)SPW_CLUSTER * SPW_PAGE)
#define SPW__WINDOW      16u        /* pages brought in for one fault at most */
#define SPW__BATCH       64u        /* pages taken out at a time */
#define SPW__SEATS       16u        /* threads that can be served at once; more wait */
#define SPW__FILE_BOOKS  (2u << 20) /* bytes of the buffers of a file that is written and read */
#define SPW__ALL_TIERS   ((1u << SPW_MAX_TIERS) - 1)
#define SPW__LIB_FILES   8u
#define SPW__LIB_STREAMS 4u

/* Positions in the order in which they came. See queue.c. */
struct spw__queue {
	uint32_t *at;
	uint64_t head, tail; /* A head - tail of them are in it */
};

/* What a thread that serves a fault or takes pages out works with. */
struct spw__seat {
	struct spw_work *work;
	char *window; /* SPW__WINDOW pages */
	char *stack;  /* its end: signal handlers run here */
	uint32_t position[SPW__BATCH];
	uint64_t faults, write_faults, in, out, clean, stored, overs; /* A counted by its holder */
};

/* By cluster. */
struct spw__leaf {
	uint64_t va;     /* of its first page */
	uint32_t next;   /* of those that wait to be given back: cluster + 1 */
	uint32_t shared; /* A 1: `held` says what its pages hold */
};

struct spw__stream {
	uint64_t next;   /* A address that would continue it */
	uint32_t window; /* A pages fetched last time */
};

struct spw_region {
	struct spw_space *space;
	uint64_t base;   /* aligned to a leaf */
	uint64_t bytes;  /* whole pages */
	uint64_t span;   /* mapped: whole leaves */
	uint32_t advice; /* A enum spw_advice: SPW_NORMAL or SPW_RANDOM */
	uint32_t hand;   /* A of the streams */
	uint32_t tiers;  /* A that its pages may go to, a bit for each number; changes under lock */
	bool cloned;     /* it is a clone, or ever had one; under lock */
	struct spw__stream stream[SPW__LIB_STREAMS];
	struct spw__strides strides;
	struct spw__spin lock; /* of cluster[] */
	uint32_t *cluster;     /* A by leaf: cluster + 1, 0 = none yet; a mapping */
	uint64_t most;         /* leaves that it has room for */
};

/* A file below the pool. */
struct spw__lib_file {
	struct spw_tier *tier; /* NULL: none */
	struct spw_file_io io;
	struct spw_file_shared *shared;
	size_t shared_bytes;
	int fd;
};

/* Work for the thread of the space, asked for by another, one at a time. */
struct spw__request {
	uint32_t state;             /* A futex: SPW__REQUEST_* */
	bool drain;                 /* else add */
	bool begun;                 /* of the thread of the space */
	unsigned number;            /* of the row in file[] */
	struct spw__lib_file *file; /* the asker's: what is added, or was drained */
	int result;
};
enum { SPW__REQUEST_NONE = 0, SPW__REQUEST_ASKED, SPW__REQUEST_DONE };

struct spw_space {
	struct spw__space *layer;
	struct spw_tier *zswap;
	struct spw__lib_file file[SPW__LIB_FILES]; /* read inside; changed by the thread while nobody is */
	uint32_t files;                            /* A */
	uint64_t reads;                            /* A of files that went */
	int uffd, pidfd;
	uint32_t fault_mode;
	uint32_t leaves;   /* most that regions may have */
	uint32_t clusters; /* for these, and for the entries of pages that parted from a clone */
	bool whole_vector; /* process_madvise(2) takes many ranges at once */

	char *tables; /* what follows, and the queues, lie there */
	size_t tables_bytes;
	struct spw__leaf *leaf;
	uint8_t *state; /* A by position, as the three below */
	uint8_t *age;   /* A when it was taken out, in epochs */
	uint8_t *pins;
	uint32_t *held; /* 0: its own entry, 1: none, else index + 2 */

	struct spw__spin queue_lock;
	struct spw__queue probation, main;
	uint64_t epoch_taken; /* positions popped in this epoch */
	uint8_t epoch;        /* A */

	struct spw__seat seat[SPW__SEATS];
	uint32_t seats;  /* A bit i: seat i is taken */
	uint32_t seated; /* A of those that ever were, the highest + 1 */
	void *zeros;     /* SPW__WINDOW pages */

	/* A, atomics. */
	uint64_t ram, zswap_bytes;
	uint64_t resident;    /* pages, those that are about to be counted */
	uint64_t budget_turn; /* pages that may be: the low half; the high one: of which of the looks that is */
	uint32_t looks;
	uint64_t pool;    /* bytes that the pool may take */
	uint64_t used;    /* leaves that regions have, or that wait for their entries */
	uint32_t spare;   /* of the pages that may be in memory twice, while they are stored: those that are not */
	uint64_t pinned;  /* pages */
	uint64_t peak;    /* bytes */
	uint32_t inside;  /* threads that may use a tier */
	uint32_t gate;    /* 1: nobody enters */
	uint32_t full;    /* 1: no tier has room, and none can be made */
	uint32_t room;    /* futex: something was given back */
	uint32_t wanting; /* threads that wait for room in the pool */
	uint32_t kick;    /* futex: the thread is wanted */
	uint32_t asleep;  /* the thread is */
	uint32_t regions;
	uint32_t stop;

	struct spw__split split; /* turned by the thread */

	struct spw__spin zombie_lock;
	uint32_t zombies; /* leaves whose entries others hold: cluster + 1 */

	pthread_mutex_t admin; /* who changes the files */
	struct spw__request request;
	pthread_t thread, handler;
	int wake_fd;      /* ends the handler */
	uint32_t reading; /* odd while it serves what it has read */
	size_t seat_bytes;
	char *seat_memory;
};

static inline uint64_t spw__round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

/* ---- region.c ---- */
/* The region of an address, NULL: none. Async-signal-safe. */
struct spw_region *spw__region_at(uint64_t va);
/* The position of the page at va of the region; its leaf gets a cluster if it has none. 0 or -ENOMEM. */
int spw__position(struct spw_region *r, uint64_t va, uint32_t *o);
/* The same, where the leaf has one. False: it has none, so no page of it was ever touched. */
bool spw__position_if(struct spw_region *r, uint64_t va, uint32_t *o);
/* The first page from *va on, and before `to`, whose leaf has one; *va is moved there. False: there is none. */
bool spw__position_next(struct spw_region *r, uint64_t *va, uint64_t to, uint32_t *o);
/* See to it that a table of all regions exists. 0 or -ENOMEM. */
int spw__regions_init(void);
/* Memory that no allocator of the program knows of. NULL: none. */
void *spw__lib_map(size_t bytes);
/* `span` of addresses, whole leaves, that begin with one, registered and for nobody yet. 0 and *base, or -errno. */
int spw__region_map(const struct spw_space *s, uint64_t span, uint64_t *base);
/* [base, base + span) is of r from now on; NULL: of no region. */
void spw__region_say(uint64_t base, uint64_t span, struct spw_region *r);
/* Register what is mapped at [base, base + span), and what else a region's mapping is. 0 or -errno. */
int spw__region_prepare(const struct spw_space *s, uint64_t base, uint64_t span);
/* As if [from, to), addresses of the region, had never been touched. */
void spw__region_discard(struct spw_region *r, uint64_t from, uint64_t to);
/* The leaves from the one of `from` on have nothing any more: let go of their clusters. Signals blocked. */
void spw__region_drop_leaves(struct spw_region *r, uint64_t from);
/* Whether a page of [from, to), addresses of the region, is pinned. */
bool spw__region_has_pins(struct spw_region *r, uint64_t from, uint64_t to);
/* Count n leaves more, or less, of those that regions may have. 0 or -ENOMEM. */
int spw__leaves_take(struct spw_space *s, uint64_t n);
void spw__leaves_give(struct spw_space *s, uint64_t n);
/* Whole pages that lie in the region, or not. */
bool spw__region_has(const struct spw_region *r, size_t offset, size_t bytes);

/* ---- page.c ---- */
/* Wait for the page, returns its state (without BUSY). */
uint8_t spw__page_lock(struct spw_space *s, uint32_t o);
/* False: somebody else has it. */
bool spw__page_try(struct spw_space *s, uint32_t o, uint8_t *state);
void spw__page_unlock(struct spw_space *s, uint32_t o, uint8_t state);
static inline uint64_t spw__page_va(const struct spw_space *s, uint32_t o)
{
	return s->leaf[o / SPW_CLUSTER].va + (uint64_t)(o % SPW_CLUSTER) * SPW_PAGE;
}
/* Write-protect n pages of one leaf, or open them; of a range, the same. They are BUSY, or nobody's yet. */
void spw__page_protect(const struct spw_space *s, uint32_t o, unsigned n, bool on);
void spw__range_protect(const struct spw_space *s, uint64_t va, uint64_t bytes, bool on);
/* For who has the page BUSY: the entry that it holds; idx SPW_ENTRY_NONE: none. */
spw_entry_t spw__page_held(const struct spw_space *s, uint32_t o);
void spw__page_hold(struct spw_space *s, uint32_t o, spw_entry_t e);
/* An entry for it to hold, that is FREE or its alone. 0 or -ENOMEM. */
int spw__page_entry(struct spw_space *s, uint32_t o, spw_entry_t *e);
/* It holds its entry no more; others that do keep the bytes, if need be from this page. Returns the new state. */
uint8_t spw__page_let_go(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t state);
/* It is IN and PROT, and about to be written: no longer. Does not open it. Returns the new state. */
uint8_t spw__page_own(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t state);
/* Its bytes (IN and PROT) under an entry: BACKED. 0, -ENOSPC, -ENOMEM. */
int spw__page_store(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t *state);

/* ---- space.c ---- */
/* Around everything that may use a tier; may wait. */
void spw__enter(struct spw_space *s);
void spw__leave(struct spw_space *s);
struct spw__seat *spw__seat_take(struct spw_space *s);
void spw__seat_give(struct spw_space *s, struct spw__seat *seat);
/* What a call of the API begins and ends with: signals blocked, a seat, inside. */
struct spw__call {
	sigset_t signals;
	struct spw__seat *seat;
};
void spw__signals_block(sigset_t *old);
void spw__call_begin(struct spw_space *s, struct spw__call *c);
void spw__call_end(struct spw_space *s, struct spw__call *c);
/* Stop the program: one line, then SIGBUS with its default action. For bytes that cannot be restored. */
void spw__lib_lost(uint64_t va, spw_slot_t where, int error) __attribute__((noreturn));
/* The same for what must not happen. */
void spw__lib_die(const char *what, int error) __attribute__((noreturn));

/* To a caller who knows `size` bytes of statistics, what is had of them; the rest is 0. */
void spw__stats_give(void *out, size_t size, const void *st, size_t have);

/* ---- ahead.c ---- */
/* How many pages a fault at va is to bring, that page the first of them, and how far apart: bytes, < 0 is back. */
unsigned spw__lib_ahead(struct spw_region *r, uint64_t va, int64_t *step);

/* ---- fault.c ---- */
/* See to it that the page at va is there, and if `write` can be written. Inside. */
void spw__lib_fault(struct spw_region *r, struct spw__seat *seat, uint64_t va, bool write);
/*
 * The same for a page that the caller has BUSY, and alone; keeps it so. It has been counted already. 0, -EIO or
 * -EBADMSG with *where; -EAGAIN: its frame is not to be had now, let go of the page and try again.
 */
int spw__lib_bring(struct spw_space *s, struct spw__seat *seat, uint32_t o, uint8_t *state, bool write,
		   spw_slot_t *where);

/* ---- queue.c ---- */
/* n pages that came in, states without QUEUED, BUSY. Into the queue that MAIN says. */
void spw__queue_push(struct spw_space *s, const uint32_t *o, const uint8_t *state, unsigned n);
/* Up to max positions to take out next, QUEUED still. */
unsigned spw__queue_pop(struct spw_space *s, uint32_t *o, unsigned max);
/* What the queues take, about. */
uint64_t spw__queue_bytes(const struct spw_space *s);
/* Whether a page taken out at that age came back soon. */
bool spw__age_recent(const struct spw_space *s, uint32_t o);
void spw__age_mark(struct spw_space *s, uint32_t o);

/* ---- reclaim.c ---- */
/* Count n pages more as resident, having made room for them; sleeps for it if need be. Inside. */
void spw__room_take(struct spw_space *s, struct spw__seat *seat, unsigned n);
/* The same of as many of n as there is room for now. Returns how many. */
unsigned spw__room_try(struct spw_space *s, unsigned n);
void spw__room_give(struct spw_space *s, uint64_t n);
/* There is no room for a page: wait for some. False: there will be none. */
bool spw__room_wait(struct spw_space *s);
/* The same for room in the pool, of which there may be none though pages have room. */
bool spw__pool_wait(struct spw_space *s);
/* Take n pages out, none of them pinned. All are BUSY, ascending, in `state`; they are let go. 0, -ENOSPC, -ENOMEM. */
int spw__take_out(struct spw_space *s, struct spw__seat *seat, uint32_t *o, uint8_t *state, unsigned n);
/* Drop what is resident of n pages that are BUSY and ascending. */
void spw__drop(struct spw_space *s, const uint32_t *o, unsigned n);
/* What may be resident, from what the pool and the bookkeeping take now. st: what that is, or NULL. Inside. */
void spw__account(struct spw_space *s, struct spw_space_stats *st);
/* Pages that may be resident, by the last account. */
uint32_t spw__budget(const struct spw_space *s);
/* Pages of a cap of `ram` bytes that may be in memory twice, while they are stored. */
uint32_t spw__spare(uint64_t ram);
void spw__kick(struct spw_space *s);
void *spw__reclaim_main(void *space);

/* ---- files.c ---- */
/* The thread of the space: do some of what was asked for. Whether more is left. */
bool spw__request_serve(struct spw_space *s, struct spw__seat *seat);
void spw__files_close(struct spw_space *s);

/* ---- signal.c ---- */
int spw__signal_install(void);
void spw__signal_remove(void);

/* ---- handler.c ---- */
int spw__handler_start(struct spw_space *s);
void spw__handler_stop(struct spw_space *s);
/*
 * Faults that it has read by now are served. Of two threads that faulted on one page the first message wakes both, and
 * they may be done with the region before the second comes up. The caller has no page BUSY.
 */
void spw__handler_pass(struct spw_space *s);
#endif
