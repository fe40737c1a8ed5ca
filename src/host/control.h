/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_HOST_CONTROL_H
#define SPW_HOST_CONTROL_H
/*
 * The control region: one memfd made by `spillway run`, mapped shared by it and by the agent in every process of the
 * tree. It carries the configuration, one record a process, the counters of the tree, and the table of the tiers that
 * lie outside of RAM. These come and go while the tree runs.
 *
 * How an agent finds it: environment SPILLWAY_CONTROL=/proc/PID/fd/N, N open in `spillway run`, with :G behind it in
 * the processes of group G. A swapfile, and the memfd with the shared part of its tier, are reached likewise, through
 * /proc/PID/fd/<fd>. No descriptor is inherited by the program.
 *
 * All fields marked A are accessed by GCC __atomic builtins from several processes. Counters only grow. A record
 * belongs to the process whose pid it holds; the supervisor clears it when that process is dead, after giving
 * back what it held on the file tier and subtracting nothing: totals are kept in the tree's counters, so a kill -9
 * loses no statistics.
 */
#include <stdint.h>

#define SPW_CTL_MAGIC   0x3159574c4c495053ull /* "SPILLWY1" */
#define SPW_CTL_PROCS   256u
#define SPW_CTL_TIERS   8u
#define SPW_CTL_GROUPS  64u
#define SPW_CTL_LINES   8u
#define SPW_CTL_LINE    508u
#define SPW_CTL_ENV     "SPILLWAY_CONTROL"
#define SPW_LAT_BUCKETS 512u /* see spw__lat_bucket() in latency.h: 8 steps an octave of nanoseconds */

enum spw_evict { SPW_EVICT_AUTO = 0, SPW_EVICT_MOVE, SPW_EVICT_WP };
enum spw_on_full { SPW_FULL_GROW = 0, SPW_FULL_KILL };

enum spw_rest {
	SPW_REST_NO = 0,
	SPW_REST_PLACED, /* the handler does its work; kicked when beat stands still */
	SPW_REST_DRY,    /* there was nothing to take; kicked when the process grows */
};

/* What a process has on one tier. */
struct spw_ctl_part {
	uint64_t pages;      /* A objects */
	uint64_t stored;     /* A bytes of them */
	uint64_t lost;       /* A objects of them that cannot be read, when all others have left */
	uint64_t unopened;   /* A generation of a tier that it cannot open << 32 | errno, 0 = none */
	uint32_t generation; /* A of the tier that it has open, 0 = none: it can have nothing on it */
	int32_t error;       /* A -errno of the last attempt to empty it, 0 = none */
};

struct spw_ctl_proc {
	int32_t pid;             /* A 0 = free; claimed by compare-and-swap */
	uint32_t flags;          /* A SPW_PROC_* */
	uint64_t start_time;     /* A field 22 of /proc/PID/stat: tells a reused pid */
	uint64_t resident_bytes; /* A resident, everything in (pool, frames, metadata, file pages); by the agent */
	uint64_t shared_bytes;   /* A of it, counted by another process too after a fork: resident - shared adds up */
	uint64_t pool_bytes;     /* A memory of the pool's blocks */
	uint64_t pool_stored;    /* A bytes of live objects in it */
	uint64_t pool_pages;     /* A objects in it */
	uint64_t same_pages;     /* A entries of kind SAME */
	uint64_t metadata_bytes; /* A */
	uint64_t swapped_pages;  /* A pages that are out */
	uint64_t merged_pages;   /* A of them, those that share the entry of another: pages out less entries */
	uint64_t heat;           /* A pages that came back soon, in the last second or so; lowest gives first */
	uint64_t target_bytes;   /* A written by the supervisor: what resident - shared should come down to */
	uint32_t kick;           /* A futex: the reclaimer is wanted; counted up by its process and by the supervisor */
	uint32_t beat;           /* A counts up every ms or so while the handler does the reclaimer's work */
	uint32_t resting;        /* A enum spw_rest: why the reclaimer sleeps long, and when the supervisor kicks it */
	int32_t own_pid;         /* A of a forked child: its number in its pid namespace, which may not be pid */
	uint32_t group;          /* A id; 0 = of the tree, and no other */
	char comm[16];
	struct spw_ctl_part part[SPW_CTL_TIERS];
};
#define SPW_PROC_READY   1u /* the agent runs */
#define SPW_PROC_ARMED   2u /* it has registered memory */
#define SPW_PROC_REFUSED 4u /* it cannot cap this process and has said why */

struct spw_ctl_total {
	uint64_t swap_out_pages, swap_in_pages;        /* A stored / restored, over all processes ever */
	uint64_t same_filled_pages;                    /* A stores that were same-filled */
	uint64_t merged_pages;                         /* A stores that became one more holder of an entry */
	uint64_t writeback_pages;                      /* A */
	uint64_t pool_reads, pool_writes, pool_errors; /* A */
	uint64_t fault_count, fault_max_ns;            /* A */
	uint64_t fault_hist[SPW_LAT_BUCKETS];          /* A service time: message read to page in place */
	uint64_t full_events;                          /* A times every tier was full */
	uint64_t processes;                            /* A agents ever started */
};

enum spw_ctl_kind { SPW_CTL_FILE = 0, SPW_CTL_GHOST };
enum spw_ctl_state {
	SPW_CTL_OFF = 0,
	SPW_CTL_ON,
	SPW_CTL_DRAINING, /* each agent empties it and closes it */
	SPW_CTL_DEAD,     /* the same, but what cannot be read stays, and is no reason to stop */
};

/*
 * A tier outside of RAM. Number i of the table is tier i + 1 of every space; 0 is the pool. Filled in by the supervisor
 * before `state` says that it is there; the rest stays as it is until the place is taken anew, with another generation.
 */
struct spw_ctl_tier {
	uint32_t state;      /* A enum spw_ctl_state */
	uint32_t generation; /* never 0 */
	uint32_t kind;       /* enum spw_ctl_kind */
	int32_t priority;    /* higher is used first, equal ones in turn */
	int32_t fd;          /* in the supervisor: the file */
	int32_t shared_fd;   /* in the supervisor: the memfd of struct spw_file_shared */
	uint64_t shared_bytes;
	uint64_t pages;                 /* GHOST: what its header names */
	uint64_t reads, writes, errors; /* A over all processes ever */
	uint32_t failed;                /* A writes that failed, not for want of room, since one last did not */
	int32_t failure;                /* A -errno of the last */
};

/*
 * A group: the processes of a `spillway run` within this one, which may use no more than the group that it was started
 * in. Written by the supervisor, all of it before the id.
 */
struct spw_ctl_group {
	uint32_t id;              /* A 0 = free; above all that there were before */
	uint32_t parent;          /* id; 0 = the tree */
	uint32_t tiers;           /* A mask of tier numbers that it may use, and SPW_CTL_LATER. Bits only go */
	uint64_t ram_limit_bytes; /* cap of its processes and those of groups within it, together; 0 = none */
};
#define SPW_CTL_LATER (1u << 31) /* and what is swapped on later */

/* A line from an agent for the supervisor to say. */
struct spw_ctl_line {
	uint32_t state; /* A SPW_LINE_* */
	char text[SPW_CTL_LINE];
};
enum { SPW_LINE_FREE = 0, SPW_LINE_TAKEN, SPW_LINE_READY };

struct spw_ctl {
	/* Written once by the supervisor before the program starts. */
	uint64_t magic;
	uint32_t version; /* sizeof(struct spw_ctl): an agent of another build refuses */
	int32_t supervisor_pid;
	uint64_t memory_bytes; /* of the machine: no cap can be above */
	uint32_t evict;        /* enum spw_evict */
	uint32_t on_full;      /* enum spw_on_full */
	uint32_t best_effort;  /* 1: an agent that cannot cap stays silent */
	uint32_t quiet;
	uint8_t coding; /* enum spw_coding of the codec */
	int8_t level;
	uint8_t dedup; /* 1: equal pages are kept once */
	/* Live. */
	uint64_t ram_limit_bytes; /* A */
	uint64_t zswap_bytes;     /* A limit of all pools together; 0 = no zswap tier */
	uint32_t changes;         /* A counts changes of the table of tiers, from 1 */
	uint64_t ghost_pages;     /* A of all ghosts: what may be in the pools, when there is a ghost; 0 = no ghost */
	uint32_t closing;         /* A 1: the supervisor left in order; its death is no reason to die */
	uint32_t kill_tree;       /* A 1: --on-full kill fired; agents report and the supervisor ends the tree */
	uint64_t tree_bytes;      /* A resident of the tree, by the supervisor: uncapped processes in */
	uint64_t other_bytes;     /* A of it, in processes without an agent (and the supervisor) */
	uint64_t warned_full;     /* A 1 once somebody has printed the one line about being over the cap */
	struct spw_ctl_line line[SPW_CTL_LINES];
	struct spw_ctl_total total;
	struct spw_ctl_tier tier[SPW_CTL_TIERS];
	struct spw_ctl_group group[SPW_CTL_GROUPS];
	struct spw_ctl_proc proc[SPW_CTL_PROCS];
};
#endif
