/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_TIER_FILE_H
#define SPW_TIER_FILE_H
/*
 * The file tier: segments of sealed objects on a file or block device. See file.c.
 *
 * The file is shared by every process of a tree, so what says which segments are taken lives in a region that all of
 * them map (struct spw_file_shared, laid out and initialised once by the creator): per segment a generation and the
 * set of processes that hold live objects in it. A segment is free when its set is empty; a dead process is taken out
 * of every set by spw__file_reap().
 */
#include "tier/tier.h"

#define SPW_FILE_PROCS   256u          /* processes that may share a file tier */
#define SPW_FILE_SEGMENT (256u * 1024) /* bytes of a segment */
#define SPW_FILE_EARLY   16u           /* reads that may be on their way before they are asked for */
#define SPW_FILE_KEY     32u           /* bytes of the key */

struct spw_file_shared;

/* Bytes of the shared region for a file of at most max_bytes. */
size_t spw__file_shared_size(uint64_t max_bytes);

struct spw_file_layout {
	uint64_t first_byte; /* where segments may begin: after a swap header, 4096; else 0 */
	uint64_t max_bytes;  /* end of the usable file */
	bool encrypt;        /* seal with AEAD; off: a keyed checksum still guards every object */
	bool discard;        /* freed segments may be punched out of the file */
	const uint32_t *bad; /* blocks of 4096 bytes that are never read or written, by number from byte 0; any order */
	uint32_t bad_n;
	uint8_t key[SPW_FILE_KEY];
};

/* Lay out a zeroed region of spw__file_shared_size() bytes. 0; -EINVAL: no segment has room and no bad block. */
int spw__file_shared_init(struct spw_file_shared *sh, const struct spw_file_layout *l);

/* Give back everything that process slot `proc` held. Any process may call it once `proc` is dead. */
void spw__file_reap(struct spw_file_shared *sh, unsigned proc);

/* Bytes taken by segments, and the capacity (without segments that have a bad block), over all processes. */
void spw__file_shared_use(const struct spw_file_shared *sh, uint64_t *used_bytes, uint64_t *capacity_bytes);

/*
 * The I/O below a file tier; the real one is io_uring with O_DIRECT (spw__file_io_open), tests put a failing one in
 * between. All are called without tier locks held, but for those of windows, which nobody waits for. Offsets and
 * lengths are multiples of 4096, buffers are aligned so.
 */
struct spw_file_io {
	void *ctx;
	/* Read len bytes; may sleep. Bytes read (short only at end of file) or -errno. Any thread. */
	int64_t (*read)(void *ctx, void *buf, size_t len, uint64_t off);
	/*
	 * Optional, both: start read number n < SPW_FILE_EARLY, which is not under way; buf stays untouched until it has
	 * ended. Does not wait for the disk. False: not now. finish: true once it has ended, with *result as of read;
	 * false: not yet, after wait_ns. Any thread, one at a time for the same n.
	 */
	bool (*start)(void *ctx, unsigned n, void *buf, size_t len, uint64_t off);
	bool (*finish)(void *ctx, unsigned n, uint64_t wait_ns, int64_t *result);
	/* Start a write; token comes back from reap. 0 or -errno. buf stays untouched until then. */
	int (*write)(void *ctx, const void *buf, size_t len, uint64_t off, uint64_t token);
	/* One finished write: 1 with *token and *result (bytes or -errno), 0 if none within wait_ns. One thread. */
	int (*reap)(void *ctx, uint64_t wait_ns, uint64_t *token, int64_t *result);
	/* Optional: give the range back to the filesystem. */
	void (*discard)(void *ctx, uint64_t off, uint64_t len);
	void (*close)(void *ctx);
};

/*
 * Real I/O on an open file descriptor, which stays the caller's. The ring is made at the first write, by the process
 * that writes; a forked child makes its own. Falls back to pread/pwrite where io_uring is refused. -errno.
 */
int spw__file_io_open(int fd, struct spw_file_io *out);
/*
 * Whether small reads are watched: the thread that reads does not sleep, but keeps its CPU while a fast disk works.
 * ALWAYS is for callers whose threads give way to all others; SPARE watches as long as nobody else wants the CPU. Any
 * thread.
 */
enum spw_file_watch { SPW_WATCH_NEVER, SPW_WATCH_ALWAYS, SPW_WATCH_SPARE };
void spw__file_io_watch(const struct spw_file_io *io, enum spw_file_watch how);
/* In a forked child, where the file is open under another number; no I/O may be under way. */
void spw__file_io_set_fd(const struct spw_file_io *io, int fd);

/*
 * This process's tier object on a shared region that it has mapped. proc: its slot. 0, -ENOMEM, -EINVAL.
 * In a forked child, fork_child() renews the I/O and drops what was in flight.
 */
int spw__file_create(unsigned number, const char *name, struct spw_file_shared *sh, unsigned proc,
		     const struct spw_file_io *io, struct spw_tier **out);
#endif
