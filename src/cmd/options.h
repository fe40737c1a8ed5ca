/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_CMD_OPTIONS_H
#define SPW_CMD_OPTIONS_H
/* The command line of `spillway run`, parsed and checked against itself; nothing here looks at the machine. */
#include <stdbool.h>
#include <stdint.h>

#include "codec/codec.h"
#include "host/control.h"

/* "512M" or "25%" or not given. */
struct spw_amount {
	enum { SPW_AMOUNT_DEFAULT = 0, SPW_AMOUNT_BYTES, SPW_AMOUNT_PERCENT } unit;
	uint64_t value;
};

enum spw_swap_kind { SPW_SWAP_ZSWAP, SPW_SWAP_FILE, SPW_SWAP_GHOST };

/* One --swap. */
struct spw_swap {
	enum spw_swap_kind kind;
	struct spw_amount size;
	const char *path; /* NULL: unlinked, in $TMPDIR or /var/tmp */
	bool encrypt;
	bool force;       /* take the file at path whoever owns or may read it; encrypted only */
	bool prioritized; /* priority was given; else each is below those before it */
	int8_t priority;
};
#define SPW_SWAPS (SPW_CTL_TIERS + 1) /* zswap is in RAM */

struct spw_options {
	struct spw_amount ram;
	struct spw_swap swap[SPW_SWAPS]; /* as named; the defaults where none was */
	unsigned swaps;
	const char *tier[SPW_SWAPS]; /* of a run within another: its tiers that may be used, as named; none is all */
	unsigned tiers;

	struct spw_codec codec;
	enum spw_evict evict;
	enum spw_on_full on_full;
	const char *stats; /* "-" is stderr, NULL is none */
	bool dedup, quiet, best_effort;
	bool help;
	char **program; /* PROGRAM and its arguments, NULL-terminated */
};

/*
 * argv begins behind "run". 0, or SPW_EXIT_FAILED with the one line said. The strings stay argv's. With `help` set
 * nothing else was checked. nested: of a run within another, which can only narrow what that one has.
 */
int spw__options_parse(char **argv, bool nested, struct spw_options *out);

/* One --swap: KIND[:PATH][,key=value...]. 0, or SPW_EXIT_FAILED with the one line said. The text is cut into pieces. */
int spw__swap_parse(char *text, struct spw_swap *out);

/* The zswap among them, or NULL. */
const struct spw_swap *spw__options_zswap(const struct spw_options *o);
/* The limit of the pool under a cap of `ram` bytes, 0 without a zswap. It may be more than the cap. */
uint64_t spw__options_zswap_bytes(const struct spw_options *o, uint64_t ram);

/* A size such as 4096, 512M, 2G, 1.5GiB; powers of 1024. 0 or -EINVAL. */
int spw__size_parse(const char *text, uint64_t *out);

/* An amount in bytes: itself, its percentage of `whole`, or the default's percentage. */
uint64_t spw__amount(struct spw_amount a, uint64_t whole, unsigned default_percent);

/* "512.0 MiB" into a buffer of 32. */
const char *spw__size_text(uint64_t bytes, char text[32]);

#endif
