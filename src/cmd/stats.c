/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Totals come from the tree's counters, which outlive the processes that counted; states (pages out, memory taken) are
 * sums over the records of the processes that are there at the end. Nothing is computed from what it ought to be.
 */
#include "cmd/stats.h"

#include <jansson.h>
#include <string.h>

#include "cmd/health.h"
#include "host/latency.h"

#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

/* The records summed up. */
struct sums {
	uint64_t swapped_pages, metadata_bytes;
	uint64_t pool_bytes, pool_stored, pool_pages;
	struct {
		uint64_t pages, stored;
	} part[SPW_CTL_TIERS];
};

static struct sums sum_records(const struct spw_ctl *ctl)
{
	struct sums s = {0};

	for (const struct spw_ctl_proc *r = ctl->proc; r < ctl->proc + SPW_CTL_PROCS; r++) {
		if (LOAD(r->pid) <= 0)
			continue;
		s.swapped_pages += LOAD(r->swapped_pages);
		s.metadata_bytes += LOAD(r->metadata_bytes);
		s.pool_bytes += LOAD(r->pool_bytes);
		s.pool_stored += LOAD(r->pool_stored);
		s.pool_pages += LOAD(r->pool_pages);
		for (unsigned i = 0; i < SPW_CTL_TIERS; i++) {
			s.part[i].pages += LOAD(r->part[i].pages);
			s.part[i].stored += LOAD(r->part[i].stored);
		}
	}
	return s;
}

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

/* The smallest time that no less than `percent` of the faults kept to within their bucket. */
static uint64_t percentile(const struct spw_ctl_total *total, unsigned percent)
{
	uint64_t all = 0, seen = 0;

	for (unsigned i = 0; i < SPW_LAT_BUCKETS; i++)
		all += LOAD(total->fault_hist[i]);
	for (unsigned i = 0; i < SPW_LAT_BUCKETS; i++) {
		seen += LOAD(total->fault_hist[i]);
		if (seen && seen * 100 >= all * percent)
			return spw__lat_floor(i);
	}
	return 0;
}

static json_t *faults(const struct spw_ctl_total *total)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "count", number(LOAD(total->fault_count)), "p50_ns",
			 number(percentile(total, 50)), "p99_ns", number(percentile(total, 99)), "max_ns",
			 number(LOAD(total->fault_max_ns)));
}

/* What is said of each tier. */
struct figures {
	const char *name, *kind, *state;
	uint64_t capacity, used, pages, stored, reads, writes, errors, lost;
	int priority, died_of;
};

static json_t *tier(const struct figures *f)
{
	json_t *o =
		json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:s}", "name", f->name, "kind", f->kind,
			  "capacity_bytes", number(f->capacity), "used_bytes", number(f->used), "pages",
			  number(f->pages), "stored_bytes", number(f->stored), "reads", number(f->reads), "writes",
			  number(f->writes), "errors", number(f->errors), "priority", f->priority, "state", f->state);

	if (f->died_of) {
		json_object_set_new(o, "error", json_string(strerror(f->died_of)));
		json_object_set_new(o, "unreadable_pages", number(f->lost));
	}
	return o;
}

static json_t *zswap_tier(const struct spw_swaps *swaps, const struct sums *s)
{
	const struct spw_ctl *ctl = swaps->ctl;

	return tier(&(struct figures){
		.name = "zswap",
		.kind = "zswap",
		.capacity = ctl->zswap_bytes,
		.used = s->pool_bytes,
		.pages = s->pool_pages,
		.stored = s->pool_stored,
		.reads = LOAD(ctl->total.pool_reads),
		.writes = LOAD(ctl->total.pool_writes),
		.errors = LOAD(ctl->total.pool_errors),
		.priority = swaps->zswap_priority,
		.state = "on",
	});
}

/* Who cannot open it, if anybody. */
static void add_unopened(json_t *tier, const struct spw_swaps *swaps, const struct spw_swap_place *p)
{
	struct spw_unopened u[SPW_UNOPENED];
	unsigned all = spw__health_unopened(swaps, p, u, SPW_UNOPENED);
	json_t *list = json_array();

	if (all) {
		json_object_set_new(tier, "unopened_processes", number(all));
		json_object_set(tier, "unopened", list);
	}
	for (unsigned i = 0; i < all && i < SPW_UNOPENED; i++) {
		json_t *name =
			json_stringn(u[i].process->comm, strnlen(u[i].process->comm, sizeof(u[i].process->comm)));

		json_array_append_new(list, json_pack("{s:i, s:o, s:s}", "pid", u[i].process->pid, "name",
						      name ? name : json_string("?"), "error", strerror(u[i].error)));
	}
	json_decref(list);
}

static json_t *other_tier(const struct spw_swaps *swaps, unsigned i, const struct sums *s)
{
	const struct spw_ctl_tier *t = &swaps->ctl->tier[i];
	const struct spw_swap_place *p = &swaps->at[i];
	struct figures f = {
		.name = p->name,
		.kind = p->shared ? "file" : "ghost",
		.pages = s->part[i].pages,
		.stored = s->part[i].stored,
		.reads = LOAD(t->reads),
		.writes = LOAD(t->writes),
		.errors = LOAD(t->errors),
		.priority = t->priority,
		.state = p->died_of                           ? "dead"
			 : LOAD(t->state) == SPW_CTL_DRAINING ? "draining"
							      : "on",
		.died_of = p->died_of,
		.lost = spw__swaps_use(swaps, p).lost,
	};

	spw__swaps_size(swaps, p, &f.used, &f.capacity);
	json_t *o = tier(&f);
	add_unopened(o, swaps, p);
	return o;
}

/* Those that there are, in order of priority. */
static json_t *tiers(const struct spw_swaps *swaps, const struct sums *s)
{
	const struct spw_ctl *ctl = swaps->ctl;
	json_t *list = json_array();

	for (int priority = INT8_MAX; priority >= INT8_MIN; priority--) {
		if (ctl->zswap_bytes && swaps->zswap_priority == priority)
			json_array_append_new(list, zswap_tier(swaps, s));
		for (unsigned i = 0; i < SPW_CTL_TIERS; i++)
			if (swaps->at[i].name[0] && ctl->tier[i].priority == priority)
				json_array_append_new(list, other_tier(swaps, i, s));
	}
	return list;
}

/* Those that have left, the latest first. */
static void add_past(json_t *list, const struct spw_pasts *pasts)
{
	for (unsigned i = pasts->left; i-- > spw__past_summed(pasts);) {
		const struct spw_past *p = &pasts->at[i % SPW_PAST];

		json_array_append_new(list, tier(&(struct figures){
						    .name = p->name ? p->name : "",
						    .kind = p->kind == SPW_CTL_FILE ? "file" : "ghost",
						    .capacity = p->capacity_bytes,
						    .reads = p->reads,
						    .writes = p->writes,
						    .errors = p->errors,
						    .priority = p->priority,
						    .state = p->died_of ? "dead" : "off",
						    .died_of = p->died_of,
						    .lost = p->lost,
					    }));
	}
}

/* Those that are not told of one by one any more. */
static json_t *tiers_before(const struct spw_pasts *p)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "tiers", number(spw__past_summed(p)), "reads", number(p->sum.reads),
			 "writes", number(p->sum.writes), "errors", number(p->sum.errors));
}

json_t *spw__stats_live(const struct spw_tree *t)
{
	const struct spw_ctl *ctl = t->region->ctl;
	struct sums s = sum_records(ctl);
	json_t *o = json_object();

	json_object_set_new(o, "ok", json_true());
	json_object_set_new(o, "pid", json_integer(ctl->supervisor_pid));
	json_object_set_new(o, "program", json_string(t->name));
	json_object_set_new(o, "program_pid", json_integer(t->program));
	json_object_set_new(o, "ram_limit_bytes", number(LOAD(ctl->ram_limit_bytes)));
	json_object_set_new(o, "resident_bytes", number(LOAD(ctl->tree_bytes)));
	json_object_set_new(o, "swapped_pages", number(s.swapped_pages));
	json_object_set_new(o, "processes", json_integer(t->processes));
	json_object_set_new(o, "tiers", tiers(t->swaps, &s));
	return o;
}

void spw__stats_write(FILE *to, const struct spw_tree *t, double wall_seconds)
{
	const struct spw_ctl *ctl = t->region->ctl;
	const struct spw_ctl_total *total = &ctl->total;
	struct sums s = sum_records(ctl);
	json_t *o = json_object();

	json_object_set_new(o, "version", json_string(SPW_VERSION));
	json_object_set_new(o, "wall_seconds", json_real(wall_seconds));
	json_object_set_new(o, "ram_limit_bytes", number(ctl->ram_limit_bytes));
	json_object_set_new(o, "resident_peak_bytes", number(t->resident_peak_bytes));
	json_object_set_new(o, "swapped_pages", number(s.swapped_pages));
	json_object_set_new(o, "swapped_pages_peak", number(t->peak.swapped_pages));
	json_object_set_new(o, "swap_out_pages", number(LOAD(total->swap_out_pages)));
	json_object_set_new(o, "swap_in_pages", number(LOAD(total->swap_in_pages)));
	json_object_set_new(o, "same_filled_pages", number(LOAD(total->same_filled_pages)));
	json_object_set_new(o, "merged_pages", number(LOAD(total->merged_pages)));
	json_object_set_new(o, "merged_pages_peak", number(t->merged_pages_peak));
	json_object_set_new(o, "writeback_pages", number(LOAD(total->writeback_pages)));
	/* both of the sample with the most pages out: afterwards neither says what a page costs */
	json_object_set_new(o, "metadata_bytes", number(t->peak.metadata_bytes));
	json_object_set_new(
		o, "metadata_bytes_per_page",
		json_real(t->peak.swapped_pages ? (double)t->peak.metadata_bytes / (double)t->peak.swapped_pages : 0));
	json_object_set_new(o, "cap_exceeded_bytes", number(t->exceeded_bytes));
	json_object_set_new(o, "processes", number(LOAD(total->processes) + t->uncapped_processes));
	json_object_set_new(o, "processes_uncapped", number(t->uncapped_processes));
	json_object_set_new(o, "faults", faults(total));
	json_t *list = tiers(t->swaps, &s);
	add_past(list, &t->swaps->past);
	json_object_set_new(o, "tiers", list);
	if (spw__past_summed(&t->swaps->past))
		json_object_set_new(o, "tiers_before", tiers_before(&t->swaps->past));
	json_dumpf(o, to, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	fputc('\n', to);
	json_decref(o);
}
