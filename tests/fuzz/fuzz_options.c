/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes, split at NUL, as the command line of `spillway run`. The parser writes into the words that it is given, so
 * each is an allocation of its own length. What it takes must not contradict itself; what it says is not looked at.
 */
#include "cmd/options.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/say.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define WORDS 64u

void spw__say(const char *fmt, ...)
{
	(void)fmt;
}

int spw__fail(const char *fmt, ...)
{
	(void)fmt;
	return SPW_EXIT_FAILED;
}

static void require(int truth)
{
	if (!truth)
		abort();
}

static void check_swap(const struct spw_swap *s)
{
	require(s->kind <= SPW_SWAP_GHOST);
	require(s->kind != SPW_SWAP_ZSWAP || !s->path);
	require(s->kind != SPW_SWAP_GHOST || s->path);
	require(!s->path || *s->path);
	require(!s->force || (s->encrypt && s->path));
	require(s->kind == SPW_SWAP_ZSWAP || s->size.unit != SPW_AMOUNT_PERCENT);
}

/* Of a run within another: names of tiers, and nothing else that matters. */
static void check_nested(const struct spw_options *o)
{
	require(!o->swaps && o->tiers <= SPW_SWAPS && !o->stats);
	for (unsigned i = 0; i < o->tiers; i++)
		require(o->tier[i] && !strchr(o->tier[i], ','));
}

static void check(const struct spw_options *o, bool nested, char **argv, unsigned n)
{
	unsigned pools = 0, ghosts = 0;
	char text[32];

	require(o->program > argv - 1 && o->program < argv + n && *o->program);
	if (nested) {
		check_nested(o);
		return;
	}
	require(o->swaps && o->swaps <= SPW_SWAPS);
	for (unsigned i = 0; i < o->swaps; i++) {
		check_swap(&o->swap[i]);
		pools += o->swap[i].kind == SPW_SWAP_ZSWAP;
		ghosts += o->swap[i].kind == SPW_SWAP_GHOST;
	}
	require(pools <= 1 && o->swaps - pools <= SPW_CTL_TIERS);
	/* Pages have to be somewhere. */
	require(ghosts < o->swaps);
	require(o->ram.unit != SPW_AMOUNT_PERCENT || (o->ram.value >= 1 && o->ram.value <= 100));
	require(strlen(spw__size_text(o->ram.value, text)) < sizeof(text));
	if (pools)
		spw__amount(spw__options_zswap(o)->size, UINT64_MAX, 50);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *argv[WORDS + 1] = {NULL}, *mine[WORDS];
	struct spw_options o;
	bool nested = size && *data == 'n';
	unsigned n = 0;

	if (nested) {
		data++;
		size--;
	}
	while (size && n < WORDS) {
		size_t len = strnlen((const char *)data, size);

		mine[n] = argv[n] = strndup((const char *)data, len);
		if (!mine[n++])
			abort();
		size -= len;
		data += len;
		if (size) {
			size--;
			data++;
		}
	}
	if (!spw__options_parse(argv, nested, &o) && !o.help)
		check(&o, nested, argv, n);
	for (unsigned i = 0; i < n; i++)
		free(mine[i]);
	return 0;
}
