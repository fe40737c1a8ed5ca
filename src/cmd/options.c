/* SPDX-License-Identifier: Apache-2.0 */
/*
 * getopt permutes, so that an option of PROGRAM would be taken for one of ours, and its messages name the letter but
 * neither what was expected nor an example. The options here are few and all long: a table, and one pass that stops
 * at the first word that is no option, as env(1) and timeout(1) do.
 */
#include "cmd/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/say.h"

#define ZSWAP_PERCENT 90u /* of --ram, when no size is given */

int spw__size_parse(const char *text, uint64_t *out)
{
	static const char units[] = "KMGTPE";
	const char *unit;
	char *end;
	unsigned shift = 0;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	uint64_t whole = strtoull(text, &end, 10);
	if (errno)
		return -EINVAL;

	uint64_t thousandths = 0;
	if (*end == '.') {
		unsigned weight = 100;

		if (!isdigit((unsigned char)*++end))
			return -EINVAL;
		for (; isdigit((unsigned char)*end); end++, weight /= 10)
			thousandths += weight * (uint64_t)(*end - '0');
	}
	if (*end && (unit = strchr(units, toupper((unsigned char)*end)))) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
		if (*end == 'i' && end[1] == 'B')
			end += 2;
		else if (*end == 'B')
			end++;
	} else if (*end == 'B') {
		end++;
	}
	if (*end || (shift && whole >> (64 - shift)))
		return -EINVAL;
	*out = (whole << shift) + (uint64_t)(((unsigned __int128)thousandths << shift) / 1000);
	return 0;
}

uint64_t spw__amount(struct spw_amount a, uint64_t whole, unsigned default_percent)
{
	if (a.unit == SPW_AMOUNT_BYTES)
		return a.value;
	uint64_t percent = a.unit == SPW_AMOUNT_PERCENT ? a.value : default_percent;
	return (uint64_t)((unsigned __int128)whole * percent / 100) & ~(uint64_t)(SPW_PAGE - 1);
}

const char *spw__size_text(uint64_t bytes, char text[32])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	for (; value >= 1024 && unit < 6; unit++)
		value /= 1024;
	snprintf(text, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return text;
}

static int parse_amount(const char *text, struct spw_amount *out)
{
	size_t len = strlen(text);

	if (len > 1 && text[len - 1] == '%') {
		char *end;
		unsigned long percent = strtoul(text, &end, 10);

		if (!isdigit((unsigned char)text[0]) || end != text + len - 1 || percent < 1 || percent > 100)
			return -EINVAL;
		*out = (struct spw_amount){SPW_AMOUNT_PERCENT, percent};
		return 0;
	}
	out->unit = SPW_AMOUNT_BYTES;
	return spw__size_parse(text, &out->value);
}

static int set_ram(struct spw_options *o, const char *value)
{
	if (parse_amount(value, &o->ram))
		return spw__fail("--ram %s: not a size; say for instance --ram 512M, --ram 2G or --ram 25%%", value);
	return 0;
}

static const char *const kinds[] = {[SPW_SWAP_ZSWAP] = "zswap", [SPW_SWAP_FILE] = "file", [SPW_SWAP_GHOST] = "ghost"};

static int parse_priority(const char *text, int8_t *out)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (end == text || *end || n < INT8_MIN || n > INT8_MAX)
		return -EINVAL;
	*out = (int8_t)n;
	return 0;
}

/* One key=value. Says what is wrong. */
static int set_swap_key(struct spw_swap *s, const char *key)
{
	static const char *const known[] = {
		[SPW_SWAP_ZSWAP] = "size=SIZE|N%",
		[SPW_SWAP_FILE] = "size=SIZE, encrypt=on|off, priority=N and force",
		[SPW_SWAP_GHOST] = "priority=N",
	};
	const char *kind = kinds[s->kind];
	bool file = s->kind == SPW_SWAP_FILE;

	if (!strncmp(key, "size=", 5) && s->kind != SPW_SWAP_GHOST) {
		if (parse_amount(key + 5, &s->size) || (file && s->size.unit == SPW_AMOUNT_PERCENT) || !s->size.value)
			return spw__fail("--swap %s: size=%s: not a size; say for instance size=512M%s", kind, key + 5,
					 file ? "" : " or size=50%");
		return 0;
	}
	if (!strncmp(key, "priority=", 9) && s->kind != SPW_SWAP_ZSWAP) {
		s->prioritized = true;
		if (parse_priority(key + 9, &s->priority))
			return spw__fail("--swap %s: %s: a priority is a number from -128 to 127", kind, key);
		return 0;
	}
	if (file && (!strcmp(key, "encrypt=on") || !strcmp(key, "encrypt=off"))) {
		s->encrypt = !strcmp(key, "encrypt=on");
		return 0;
	}
	if (file && !strcmp(key, "force")) {
		s->force = true;
		return 0;
	}
	if (file && !strncmp(key, "encrypt=", 8))
		return spw__fail("--swap file: %s: say encrypt=on or encrypt=off", key);
	return spw__fail("--swap %s: unknown key '%s'; it knows %s", kind, key, known[s->kind]);
}

int spw__swap_parse(char *text, struct spw_swap *out)
{
	char *keys = strchr(text, ',');
	unsigned kind = 0;

	if (keys)
		*keys++ = '\0';
	char *path = strchr(text, ':');
	if (path)
		*path++ = '\0';

	while (kind < 3 && strcmp(text, kinds[kind]))
		kind++;
	if (kind == 3)
		return spw__fail("--swap %s: unknown kind; say zswap, file[:PATH] or ghost:PATH", text);
	*out = (struct spw_swap){.kind = kind, .path = path, .encrypt = true};
	if (kind == SPW_SWAP_ZSWAP && path)
		return spw__fail("--swap zswap:%s: zswap lives in RAM and takes no path; say --swap file:%s", path,
				 path);
	if (kind == SPW_SWAP_GHOST && (!path || !*path))
		return spw__fail("--swap ghost: it needs the file that spillway mkswap --ghost has made; say --swap "
				 "ghost:PATH");
	if (path && !*path)
		return spw__fail("--swap file: the path behind ':' is empty; name a file, or leave the ':' out");
	for (char *key; (key = strsep(&keys, ","));) {
		int failed = set_swap_key(out, key);
		if (failed)
			return failed;
	}
	if (out->force && !out->path)
		return spw__fail("--swap file: force: there is nothing to force without a path; leave it out");
	if (out->force && !out->encrypt)
		return spw__fail("--swap file: force: others could read what is swapped; leave encrypt=off out");
	return 0;
}

const struct spw_swap *spw__options_zswap(const struct spw_options *o)
{
	for (unsigned i = 0; i < o->swaps; i++)
		if (o->swap[i].kind == SPW_SWAP_ZSWAP)
			return &o->swap[i];
	return NULL;
}

uint64_t spw__options_zswap_bytes(const struct spw_options *o, uint64_t ram)
{
	const struct spw_swap *zswap = spw__options_zswap(o);

	return zswap ? spw__amount(zswap->size, ram, ZSWAP_PERCENT) : 0;
}

static int add_swap(struct spw_options *o, char *value)
{
	bool zswap = spw__options_zswap(o);
	struct spw_swap s;
	int failed = spw__swap_parse(value, &s);

	if (failed)
		return failed;
	if (s.kind == SPW_SWAP_ZSWAP && zswap)
		return spw__fail("--swap zswap: given twice; there is one pool, give it more by size=");
	if (s.kind != SPW_SWAP_ZSWAP && o->swaps - zswap == SPW_CTL_TIERS)
		return spw__fail("--swap %s: too many; %u files and ghosts are possible", value, SPW_CTL_TIERS);
	if (!s.prioritized)
		s.priority = (int8_t)(-1 - (int)o->swaps);
	o->swap[o->swaps++] = s;
	return 0;
}

/*
 * What was named first is used first. A ghost holds nothing: pages counted on it are compressed in RAM.
 */
static void complete_swaps(struct spw_options *o)
{
	bool storage = false;

	for (unsigned i = 0; i < o->swaps; i++)
		storage |= o->swap[i].kind != SPW_SWAP_GHOST;
	if (storage)
		return;
	memmove(&o->swap[1], &o->swap[0], o->swaps * sizeof(o->swap[0]));
	o->swap[0] = (struct spw_swap){.kind = SPW_SWAP_ZSWAP};
	if (!o->swaps++)
		o->swap[o->swaps++] = (struct spw_swap){.kind = SPW_SWAP_FILE, .encrypt = true, .priority = -1};
}

/* A tier of the run around this one, by name or kind: whether that has it is known there. */
static int add_tier(struct spw_options *o, const char *name)
{
	size_t kind = strcspn(name, ":");

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strchr(name, ',') || (name[kind] && !strncmp(name, kinds[i], kind) && !kinds[i][kind]))
			return spw__fail("--swap %s: a run within another can only choose among the tiers of that one, "
					 "by name or kind; say for instance --swap %s",
					 name, kinds[i]);
	if (o->tiers == SPW_SWAPS)
		return spw__fail("--swap %s: too many; %u can be named", name, SPW_SWAPS);
	o->tier[o->tiers++] = name;
	return 0;
}

static int set_codec(struct spw_options *o, const char *value)
{
	if (spw__codec_parse(value, &o->codec))
		return spw__fail("--codec %s: unknown codec; say lz4, zstd or zstd:LEVEL (1 to 19)", value);
	return 0;
}

static int set_fault(const char *value)
{
	if (strcmp(value, "auto") && strcmp(value, "thread"))
		return spw__fail("--fault %s: unknown mode; say auto or thread", value);
	return 0; /* the handler thread is the one mode there is, so that auto is thread */
}

static int set_evict(struct spw_options *o, const char *value)
{
	static const char *const names[] = {
		[SPW_EVICT_AUTO] = "auto", [SPW_EVICT_MOVE] = "move", [SPW_EVICT_WP] = "wp"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(value, names[i])) {
			o->evict = i;
			return 0;
		}
	return spw__fail("--evict %s: unknown way; say auto, move or wp", value);
}

static int set_on_full(struct spw_options *o, const char *value)
{
	if (strcmp(value, "grow") && strcmp(value, "kill"))
		return spw__fail("--on-full %s: say grow (go over the cap and warn) or kill (end the program)", value);
	o->on_full = strcmp(value, "kill") ? SPW_FULL_GROW : SPW_FULL_KILL;
	return 0;
}

enum option {
	OPT_UNKNOWN,
	OPT_RAM,
	OPT_SWAP,
	OPT_CODEC,
	OPT_FAULT,
	OPT_EVICT,
	OPT_DEDUP,
	OPT_ON_FULL,
	OPT_STATS,
	OPT_QUIET,
	OPT_BEST_EFFORT,
	OPT_HELP,
};

static const struct {
	const char *name;
	enum option option;
	const char *value; /* what its value looks like; NULL: it takes none */
	bool outer;        /* a run within another has it from that one */
} table[] = {
	{"--ram", OPT_RAM, "512M", false},
	{"--swap", OPT_SWAP, "zswap", false},
	{"--codec", OPT_CODEC, "lz4", true},
	{"--fault", OPT_FAULT, "auto", true},
	{"--evict", OPT_EVICT, "auto", true},
	{"--on-full", OPT_ON_FULL, "grow", true},
	{"--stats", OPT_STATS, "FILE", true},
	{"--quiet", OPT_QUIET, NULL, false},
	{"--dedup", OPT_DEDUP, NULL, true},
	{"-q", OPT_QUIET, NULL, false},
	{"--best-effort", OPT_BEST_EFFORT, NULL, false},
	{"--help", OPT_HELP, NULL, false},
	{"-h", OPT_HELP, NULL, false},
};

static int apply(struct spw_options *o, bool nested, enum option option, char *value)
{
	switch (option) {
	case OPT_RAM:
		return set_ram(o, value);
	case OPT_SWAP:
		return nested ? add_tier(o, value) : add_swap(o, value);
	case OPT_CODEC:
		return set_codec(o, value);
	case OPT_FAULT:
		return set_fault(value);
	case OPT_EVICT:
		return set_evict(o, value);
	case OPT_DEDUP:
		o->dedup = true;
		return 0;
	case OPT_ON_FULL:
		return set_on_full(o, value);
	case OPT_STATS:
		o->stats = value;
		return 0;
	case OPT_QUIET:
		o->quiet = true;
		return 0;
	case OPT_BEST_EFFORT:
		o->best_effort = true;
		return 0;
	case OPT_HELP:
		o->help = true;
		return 0;
	case OPT_UNKNOWN:
		break;
	}
	return SPW_EXIT_FAILED;
}

int spw__options_parse(char **argv, bool nested, struct spw_options *out)
{
	static char no_value[] = "";

	*out = (struct spw_options){0};
	spw__codec_parse("lz4", &out->codec);

	for (; *argv && (*argv)[0] == '-'; argv++) {
		if (!strcmp(*argv, "--")) {
			argv++;
			break;
		}
		char *value = strchr(*argv, '=');
		size_t len = value ? (size_t)(value - *argv) : strlen(*argv);
		unsigned i = 0;
		const unsigned n = sizeof(table) / sizeof(table[0]);

		while (i < n && (strlen(table[i].name) != len || strncmp(*argv, table[i].name, len)))
			i++;
		if (i == n)
			return spw__fail("%.*s: unknown option; see spillway run --help", (int)len, *argv);
		if (nested && table[i].outer)
			return spw__fail("%s: a run within another has it from that one; leave it out", table[i].name);
		if (value && !table[i].value)
			return spw__fail("%s: takes no value", table[i].name);
		if (value)
			value++;
		else if (!table[i].value)
			value = no_value;
		else if (!(value = *++argv))
			return spw__fail("%s: needs a value, for instance %s %s", table[i].name, table[i].name,
					 table[i].value);

		int failed = apply(out, nested, table[i].option, value);
		if (failed || out->help)
			return failed;
	}
	if (!*argv)
		return spw__fail("no PROGRAM given; say for instance: spillway run --ram 512M -- PROGRAM ARG...");
	out->program = argv;
	if (!nested)
		complete_swaps(out);
	return 0;
}
