/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPILLWAY_H
#define SPILLWAY_H
/*
 * libspillway: memory under a cap. A space has a cap and a set of tiers; regions of it are used like memory from
 * mmap(2), may be larger than the cap together, and what does not fit is compressed in RAM, then written to a file.
 *
 *	struct spw_space_options o = SPW_SPACE_OPTIONS;
 *	struct spw_space *space;
 *	struct spw_region *region;
 *
 *	o.ram = 512 << 20;
 *	if (spw_space_create(&o, &space) || spw_region_create(space, 4ull << 30, &region))
 *		...
 *	double *v = spw_region_address(region);
 *
 * Errors are -errno, success is 0. Every function may be called from any thread at once, but a region that is being
 * destroyed or resized is used by nobody else. None but spw_fault() and spw_version() are async-signal-safe.
 * There are no constructors; what belongs to the process and not to a space is the handler of SIGBUS (see
 * SPW_FAULT_SIGNAL) and two tables by address, which have room for some forty spaces; a file takes as much as one.
 *
 * A system call that is given memory which is out fails with EFAULT (but see SPW_FAULT_THREAD): the kernel does not
 * fault on a program's behalf. spw_region_pin() makes a range safe to hand over. A child made by fork(2) has none of
 * the regions: it gets SIGSEGV.
 *
 * A page that cannot be restored (the disk fails, its bytes were changed) ends the program with SIGBUS and a line on
 * stderr that says which: it never reads other bytes than it wrote.
 */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

struct spw_space;
struct spw_region;

/* How the fault on a page that is out comes to the library. */
enum spw_fault_mode {
	/*
	 * SIGBUS on the thread that faults: the fastest. No privilege is needed. A thread that blocks SIGBUS, or
	 * touches a region within a handler that blocks it, is killed by the kernel. The handler that the program had
	 * installed before is called for what is not Spillway's; one installed later calls spw_fault().
	 */
	SPW_FAULT_SIGNAL = 0,
	/*
	 * A thread of the space. Signals may be blocked. Where the system allows kernel faults (see userfaultfd(2)),
	 * system calls work on memory that is out.
	 */
	SPW_FAULT_THREAD,
};

struct spw_space_options {
	size_t size;        /* sizeof(struct spw_space_options), set by SPW_SPACE_OPTIONS */
	uint64_t ram;       /* bytes: the cap of resident pages, compressed pool and bookkeeping together; >= 4 MiB */
	uint64_t zswap;     /* bytes of `ram` that the pool may take; 0: 95 % */
	const char *codec;  /* "lz4", "zstd" or "zstd:LEVEL"; NULL: lz4 */
	uint32_t fault;     /* enum spw_fault_mode */
	uint64_t addresses; /* bytes that all regions may have together; 0: 256 GiB. Costs address space only */
};
#define SPW_SPACE_OPTIONS                                                         \
	{                                                                         \
		sizeof(struct spw_space_options), 0, 0, NULL, SPW_FAULT_SIGNAL, 0 \
	}

struct spw_file_options {
	size_t size;     /* sizeof(struct spw_file_options), set by SPW_FILE_OPTIONS */
	int fd;          /* open for reading and writing; stays the caller's. -1: a file without a name */
	const char *dir; /* where that is made; NULL: $TMPDIR; /var/tmp where that is not set, or in RAM */
	/*
	 * Of it to use at most. fd: it is used as far as it reaches, or as its swap header says; 0: all of that.
	 * A file without a name: how large it may get; 0: what is free there, less a tenth.
	 */
	uint64_t bytes;
	int32_t priority;   /* -128..127; the highest is filled first */
	uint32_t plaintext; /* 1: not encrypted (a keyed checksum still guards what is read) */
};
#define SPW_FILE_OPTIONS                                           \
	{                                                          \
		sizeof(struct spw_file_options), -1, NULL, 0, 0, 0 \
	}

struct spw_space_stats {
	uint64_t ram;            /* the cap, bytes */
	uint64_t used_bytes;     /* resident + pool + metadata */
	uint64_t peak_bytes;     /* the most that it ever was */
	uint64_t resident_bytes; /* pages of regions that are in memory */
	uint64_t pinned_bytes;   /* of them */
	uint64_t pool_bytes;     /* memory of the compressed pool */
	uint64_t metadata_bytes;
	uint64_t pool_pages;    /* pages that it holds; those that clones share may be resident, too */
	uint64_t same_pages;    /* pages whose words are all equal, held in no place */
	uint64_t file_pages;    /* pages on files */
	uint64_t file_bytes;    /* taken there */
	uint64_t file_capacity; /* bytes */
	uint64_t faults;        /* served: missing pages */
	uint64_t write_faults;  /* served: first writes to pages that came in by a read */
	uint64_t in_pages;      /* brought back */
	uint64_t out_pages;     /* taken out */
	uint64_t clean_pages;   /* of them, those whose copy on a file, or with a clone, was still good */
	uint64_t stored_pages;  /* compressed, or seen to be same-filled */
	uint64_t written_pages; /* moved from the pool to a file */
	uint64_t read_pages;    /* read from a file */
	uint64_t over_events;   /* times that the cap had to be exceeded, as every tier was full */
};

struct spw_region_stats {
	uint64_t bytes;
	uint64_t resident_bytes;
	uint64_t pinned_bytes;
	uint64_t out_bytes;    /* behind entries, in whatever tier */
	uint64_t shared_bytes; /* of resident and out, held by clones too */
};

enum spw_advice {
	SPW_NORMAL = 0, /* of the whole region: readahead where reads follow each other, or at equal steps */
	SPW_RANDOM,     /* of the whole region: no readahead */
	SPW_WILLNEED,   /* bring the range in, as far as the cap allows */
	SPW_COLD,       /* take the range out now */
	SPW_DISCARD,    /* its contents are of no use any more: it reads as zeros */
};

/* -EINVAL, -ENOMEM, -ENOSYS (no userfaultfd, or older than Linux 5.7), -EPERM, -EMFILE, -ENFILE, -EAGAIN (threads). */
int spw_space_create(const struct spw_space_options *o, struct spw_space **out);
/* All its regions must be gone: -EBUSY. */
int spw_space_destroy(struct spw_space *s);
/*
 * Another file below the pool. *tier is its number. -EINVAL; -ENOMEM: its buffers, 2 MiB, would be more than the half
 * of the cap together with those of the others; -ENOSPC: 8 files, or no room on the disk; -EFBIG: more than the
 * process may write (setrlimit(2)); -EINVAL, -EPROTONOSUPPORT: its swap header; -EIO: nor can it be read; errors of
 * open(2).
 */
int spw_space_add_file(struct spw_space *s, const struct spw_file_options *o, unsigned *tier);
/*
 * Empty it into the other tiers, then let go of it. Sleeps. -ENOENT; -ENOSPC, -ENOMEM: no room elsewhere; -EIO,
 * -EBADMSG: something on it cannot be read, or has other bytes than were written. On error it stays.
 */
int spw_space_drain(struct spw_space *s, unsigned tier);
/* Another cap. Takes effect at once; what is over it is taken out in the background. -EINVAL. */
int spw_space_set_ram(struct spw_space *s, uint64_t ram);
/* What there is, and was. size: sizeof(*out), as the program was compiled. */
void spw_space_stats(struct spw_space *s, struct spw_space_stats *out, size_t size);

/* `bytes` of zeros, rounded up to whole pages. -EINVAL, -ENOMEM. */
int spw_region_create(struct spw_space *s, size_t bytes, struct spw_region **out);
void spw_region_destroy(struct spw_region *r);
void *spw_region_address(const struct spw_region *r);
size_t spw_region_size(const struct spw_region *r);
/*
 * Another size: what is cut off is gone, what is added reads as zeros. The address may change (pages that are out do
 * not move). -EINVAL, -ENOMEM, -EBUSY: pinned pages would be cut off or moved.
 */
int spw_region_resize(struct spw_region *r, size_t bytes);
/*
 * A copy on write: another region of the same contents, sharing the stored pages for as long as neither side writes
 * to them. Nothing is read, decompressed or copied but pages that are pinned. Each page is as it was at some moment
 * during the call. -ENOMEM, -EPERM (spw_region_allow()).
 */
int spw_region_clone(struct spw_region *r, struct spw_region **out);
/*
 * Which tiers the region's pages may go to from now on: bit 0 the pool, bit N the file that spw_space_add_file()
 * numbered N, those that come later too. It can only be narrowed, and what is somewhere already stays until it is
 * stored anew. Where none of them has room the pages stay in memory, over the cap if need be. -EINVAL: no such tiers,
 * or not the pool, which is the way to the files; -EPERM: wider than before, or the region is a clone, or ever had
 * one. A clone of a region that was narrowed is refused: -EPERM.
 */
int spw_region_allow(struct spw_region *r, uint32_t tiers);
/* [offset, offset + bytes), whole pages. -EINVAL; -EBUSY: SPW_DISCARD of pages that are pinned. */
int spw_region_advise(struct spw_region *r, size_t offset, size_t bytes, enum spw_advice advice);
/*
 * Bring the pages of [offset, offset + bytes) in and keep them there, readable and writable by system calls, until
 * spw_region_unpin() of the same range. Pins add up. Whole pages, else -EINVAL; -ENOMEM: the cap has no room for
 * them, -EAGAIN: 255 pins, -EIO, -EBADMSG: a page could not be restored. On error nothing stays pinned.
 */
int spw_region_pin(struct spw_region *r, size_t offset, size_t bytes);
int spw_region_unpin(struct spw_region *r, size_t offset, size_t bytes);
void spw_region_stats(struct spw_region *r, struct spw_region_stats *out, size_t size);

/*
 * For a program's own SIGBUS handler (SA_SIGINFO): 1 if the fault was Spillway's and has been served, so that the
 * handler returns; 0 if not. Async-signal-safe. All signals should be blocked while it runs (sa_mask).
 */
int spw_fault(int sig, void *siginfo, void *ucontext);

/* "1.2.3" */
const char *spw_version(void);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
