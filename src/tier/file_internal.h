/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_TIER_FILE_INTERNAL_H
#define SPW_TIER_FILE_INTERNAL_H
/* What the files of the file tier share. The segment table is file_shared.c's, the bytes of a segment file_seal.c's. */
#include "platform/platform.h"
#include "platform/spin.h"
#include "tier/file.h"

#include <sodium/crypto_aead_aes256gcm.h>

#define SPW__BLOCK      4096u /* unit of I/O */
#define SPW__TAG        16u   /* bytes of a seal */
#define SPW__SEGS_NONE  UINT32_MAX
#define SPW__SEG_UNITS  (SPW_FILE_SEGMENT / SPW_UNIT)
#define SPW__SEG_BLOCKS (SPW_FILE_SEGMENT / SPW__BLOCK)

#define SPW__LOAD(p)   __atomic_load_n(&(p), __ATOMIC_RELAXED)
#define SPW__ADD(p, n) __atomic_fetch_add(&(p), (n), __ATOMIC_RELAXED)
#define SPW__SUB(p, n) __atomic_fetch_sub(&(p), (n), __ATOMIC_RELAXED)

static inline uint32_t spw__file_align(uint32_t n, uint32_t to)
{
	return (n + to - 1) & ~(to - 1);
}

/* ---- file_shared.c: which segments are taken, over all processes ---- */

struct spw_file_shared {
	uint64_t first_byte;
	uint32_t segments; /* that there are */
	uint32_t usable;   /* of them, those without a bad block */
	uint8_t encrypt;
	uint8_t discard;
	uint8_t key[SPW_FILE_KEY];
	/* A Generations given out; never reused while the key lives. */
	uint64_t sequence __attribute__((aligned(64)));
	/* A No segment below the low half is claimable; the high half counts changes. */
	uint64_t hint __attribute__((aligned(64)));
	/* A No segment from here on was ever claimed. */
	uint32_t top;
};

/*
 * Claim the lowest free segment, if `reserve` others stay free. `writing` until spw__seg_written(). The holder's
 * generation of it is *gen. 0 or -ENOSPC.
 */
int spw__seg_claim(struct spw_file_shared *sh, unsigned proc, uint32_t reserve, uint32_t *seg, uint64_t *gen);
/* The claimer has no write to it in flight, and will start none. */
void spw__seg_written(struct spw_file_shared *sh, uint32_t seg);
/* `proc` holds nothing in it any more. */
void spw__seg_drop(struct spw_file_shared *sh, uint32_t seg, unsigned proc);
/* Let `child` hold it too. The caller holds it. */
void spw__seg_share(struct spw_file_shared *sh, uint32_t seg, unsigned child);
/* Generation of a segment that the caller holds. */
uint64_t spw__seg_generation(const struct spw_file_shared *sh, uint32_t seg);
/* Nobody but `proc` holds it. */
bool spw__seg_exclusive(const struct spw_file_shared *sh, uint32_t seg, unsigned proc);
/* Usable segments that are not free. */
uint32_t spw__segs_taken(const struct spw_file_shared *sh);
/*
 * Take a free segment that still has blocks in the file, to give them back: 0, or -ENOENT. Then punched() it.
 */
int spw__seg_claim_used(struct spw_file_shared *sh, unsigned proc, uint32_t *seg);
void spw__seg_punched(struct spw_file_shared *sh, uint32_t seg);

static inline uint64_t spw__seg_offset(const struct spw_file_shared *sh, uint32_t seg)
{
	return sh->first_byte + (uint64_t)seg * SPW_FILE_SEGMENT;
}

/* ---- file_seal.c: authenticated bytes ---- */

struct spw__seal {
	crypto_aead_aes256gcm_state aes;
	uint8_t key[SPW_FILE_KEY];
	bool hardware; /* AES-GCM; else ChaCha20-Poly1305 */
	bool encrypt;
};

/* What is sealed together with the bytes; the place and the generation are in the nonce. */
struct spw__seal_id {
	uint64_t slot;
	uint32_t entry;
	uint32_t segment;
};

/* From a libc thread. 0 or -ENOSYS. */
int spw__seal_init(struct spw__seal *k, const uint8_t key[SPW_FILE_KEY], bool encrypt);
/*
 * The tag and the sealed bytes, SPW__TAG + len, to out, which goes to byte `at` of a segment of that generation. in may
 * be out + SPW__TAG.
 */
void spw__seal(const struct spw__seal *k, uint64_t gen, uint32_t at, const struct spw__seal_id *id, const void *in,
	       uint32_t len, uint8_t *out);
/* The reverse. `sealed` is overwritten; out may be sealed + SPW__TAG. 0 or -EBADMSG. */
int spw__unseal(const struct spw__seal *k, uint64_t gen, uint32_t at, const struct spw__seal_id *id, uint8_t *sealed,
		uint32_t len, void *out);

/* ---- file_segment.c: batches in a segment ---- */

/* Where the bytes of a segment belong. */
struct spw__seg_place {
	const struct spw__seal *seal;
	uint64_t gen;
	uint64_t offset; /* of the segment in the file */
	uint32_t seg;
	uint8_t tier;
};

struct spw__owner {
	uint32_t entry;
	uint16_t word; /* length - 1 and coding, as in the low bits of the slot */
} __attribute__((packed));

/* Bytes that n objects' owners take at the end of a batch. */
uint32_t spw__owners_size(uint32_t n);
/*
 * Close a batch whose first block is at `base` of the segment and whose objects end at data + used: put the owners
 * at the end of its last block. Returns its bytes, whole blocks.
 */
uint32_t spw__batch_close(const struct spw__seg_place *p, uint8_t *data, uint32_t base, uint32_t used,
			  const struct spw_move *moves, uint32_t n);

/* Walks the objects of a segment read back from the file, the last batch first. Believes nothing that it reads. */
struct spw__seg_reader {
	struct spw__seg_place place;
	uint8_t *data;    /* the whole segment; unsealed in place */
	uint32_t blocks;  /* of it not walked yet */
	uint32_t n, next; /* owners of the batch, and the next of them */
	uint32_t at;      /* where its object is */
	uint32_t end;     /* where the batch's objects must end */
	const uint8_t *owners;
};

void spw__seg_reader_init(struct spw__seg_reader *r, const struct spw__seg_place *p, uint8_t *data);
/* The next object, or false. *bad counts objects whose seal did not fit. */
bool spw__seg_next(struct spw__seg_reader *r, spw_entry_t *e, spw_slot_t *s, struct spw_obj *o, uint64_t *bad);

/* ---- file.c, file_read.c and file_clean.c: the tier ---- */

#define SPW__MIN_BATCH   (2 * SPW__BLOCK) /* room in which any one object and its owner fit */
#define SPW__BATCHES     4u
/*
 * Segments that a pass of cleaning takes. The batch ends with a part of a block unused: if each segment's objects were
 * one, that would be 1 % of the file. As many as fit into the buffers when the first has to go behind the tail.
 */
#define SPW__PASS        (SPW__BATCHES - 1)
#define SPW__MOVES_MAX   (SPW_FILE_SEGMENT / (2 * SPW_UNIT + (uint32_t)sizeof(struct spw__owner)))
#define SPW__MOVES_BYTES (((uint32_t)sizeof(struct spw_move) * SPW__MOVES_MAX + SPW__BLOCK) & ~(SPW__BLOCK - 1))
#define SPW__CLEANED     8u /* segments cleaned lately, not looked at again while moves are in flight */

enum spw__batch_state { SPW__BATCH_FREE = 0, SPW__BATCH_OPEN, SPW__BATCH_FLYING, SPW__BATCH_DONE, SPW__BATCH_POLLED };

/* A batch of objects: one write, to the part of a segment from `base` on. */
struct spw_segment {
	struct spw__seg_place place;
	uint8_t *data;
	struct spw_move *moves;
	uint32_t n;
	uint32_t base;    /* in the segment, whole blocks */
	uint32_t used;    /* bytes of objects */
	uint32_t bytes;   /* of the write */
	uint32_t units;   /* that its objects take */
	uint32_t stored;  /* sum of their lengths */
	uint32_t padding; /* units that cleaning would win though nothing is freed */
	int status;
	uint8_t state; /* under the lock */
};

#define SPW__WINDOWS      SPW_FILE_EARLY
#define SPW__WIDE         (SPW__WINDOWS / 2) /* of them are for what lies around an object, the others for one */
#define SPW__WIDE_BYTES   (SPW_FILE_SEGMENT / 4 + SPW__BUFFER_BYTES)
#define SPW__STREAMS      8u
#define SPW__NEAR         (SPW_FILE_SEGMENT / 2) /* reads so far apart are of one stream */
#define SPW__BUFFERS      64u
#define SPW__BUFFER_BYTES (2 * SPW__BLOCK) /* a sealed page lies in at most two blocks */
#define SPW__READ_BYTES   ((SPW__BUFFERS + SPW__WINDOWS - SPW__WIDE) * SPW__BUFFER_BYTES + SPW__WIDE * SPW__WIDE_BYTES)

/* Part of the file as it was once. */
struct spw__window {
	struct spw__spin lock; /* of what follows, and of the bytes */
	uint64_t first;
	uint32_t bytes;  /* A that are there, or on their way; 0: nothing */
	bool coming;     /* they are on their way */
	const void *who; /* A who asked for that; NULL: nobody, or it has ended */
	uint64_t used;   /* A window_n when last used */
};

struct spw__file {
	struct spw_tier tier;
	struct spw_file_shared *sh;
	struct spw_file_io io;
	struct spw__seal seal;
	uint8_t proc;
	size_t bytes; /* of the reservation, which holds everything below too */

	/*
	 * A Per segment: what this process has live in it, in units (low half), and pins (high half): batches not
	 * finished, and the tail. The process holds the segment while this is not 0.
	 */
	uint32_t *live;
	uint16_t *dead; /* A units that cleaning would win */
	uint8_t *data;  /* batches', then of the segment being cleaned */
	uint8_t *read_data;

	struct spw__spin lock __attribute__((aligned(64))); /* of what follows */
	struct spw_segment batch[SPW__BATCHES];
	uint32_t tail, tail_base; /* segment with room behind its last batch, or SPW__SEGS_NONE */
	uint64_t tail_gen;
	uint64_t backoff_until, backoff_ns;
	int backoff_error;
	uint64_t used_at; /* when a batch last ended */
	bool resident;    /* A batch buffers were used since they were last discarded */
	bool freed;       /* A a segment came free since backing off */

	/* Cleaning: one thread. */
	struct spw__seg_reader reader;
	bool reading;       /* the reader has more */
	bool clean_used;    /* the buffer is resident */
	uint32_t may_claim; /* A segments that cleaning may still take of the reserve; 0 between passes */
	uint32_t clean_seg; /* pinned, or SPW__SEGS_NONE */
	uint32_t cursor;
	uint32_t plan[SPW__PASS], planned; /* segments to clean next, the last first */
	uint32_t pass;                     /* segments that were read since the pass began */
	uint32_t cleaned[SPW__CLEANED], cleaned_n;

	/* Reading: file_read.c. */
	uint64_t buffers __attribute__((aligned(64))); /* A bit per read buffer in use */
	uint64_t late[SPW__STREAMS];                   /* A where the last reads were */
	uint32_t late_n;                               /* A */
	struct spw__window window[SPW__WINDOWS];
	uint64_t window_n; /* A uses of windows */

	uint32_t top;                                  /* A own segments are below */
	uint32_t held;                                 /* A own segments */
	uint64_t pages, stored, reads, writes, errors; /* A */
	uint64_t answered, failed;                     /* A as in struct spw_tier_stats */
	int failure;                                   /* A */
};

#define SPW__PIN 0x10000u

static inline struct spw__file *spw__file_of(struct spw_tier *t)
{
	return (struct spw__file *)t;
}

static inline uint8_t *spw__clean_buffer(const struct spw__file *f)
{
	return f->data + SPW__BATCHES * SPW_FILE_SEGMENT;
}

/* Segments that only cleaning may take: it needs room to make room. */
static inline uint32_t spw__file_reserve(const struct spw_file_shared *sh)
{
	uint32_t n = sh->usable;

	return n < 2 ? 0 : n < 16 ? 1 : n < 512 ? 2 : n / 256;
}

int spw__file_get(struct spw_tier *t, spw_entry_t e, spw_slot_t s, void *buf);
bool spw__file_expect(struct spw_tier *t, const void *who, spw_entry_t e, spw_slot_t s, bool alone);
void spw__file_settle(struct spw_tier *t, const void *who);
uint64_t spw__file_life(struct spw_tier *t, spw_slot_t s);
/* In a forked child: what was on its way comes to the parent. */
void spw__file_read_reset(struct spw__file *f);
/* Whether nothing is on its way any more, after a wait of wait_ns for each read at most. No other thread reads. */
bool spw__file_read_end(struct spw__file *f, uint64_t wait_ns);
/* Resident bytes of windows. */
uint64_t spw__file_read_memory(const struct spw__file *f);

/* Let go of a pin, and of the segment if nothing else of it is ours. */
void spw__file_unpin(struct spw__file *f, uint32_t seg);

unsigned spw__file_clean(struct spw_tier *t, bool oldest, spw_entry_t *e, spw_slot_t *s, struct spw_obj *objs,
			 unsigned max);
void spw__file_clean_done(struct spw_tier *t);

#endif
