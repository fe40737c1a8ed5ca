/* SPDX-License-Identifier: Apache-2.0 */
/* What all policies use, and the replay of a trace under one. */
#include "policy.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

void spw__deck_push(struct deck *d, unsigned list, uint32_t page)
{
	d->in[page] = (uint8_t)(list + 1);
	d->newer[page] = NONE;
	d->older[page] = d->n[list] ? d->newest[list] : NONE;
	if (d->n[list]++)
		d->newer[d->newest[list]] = page;
	else
		d->oldest[list] = page;
	d->newest[list] = page;
}

void spw__deck_remove(struct deck *d, uint32_t page)
{
	unsigned list = d->in[page] - 1u;
	uint32_t newer = d->newer[page], older = d->older[page];

	if (newer == NONE)
		d->newest[list] = older;
	else
		d->older[newer] = older;
	if (older == NONE)
		d->oldest[list] = newer;
	else
		d->newer[older] = newer;
	d->n[list]--;
	d->in[page] = 0;
}

uint32_t spw__deck_pop(struct deck *d, unsigned list)
{
	uint32_t page = d->oldest[list];

	spw__deck_remove(d, page);
	return page;
}

uint32_t spw__pick(struct model *m, uint32_t n)
{
	m->seed ^= m->seed << 13;
	m->seed ^= m->seed >> 7;
	m->seed ^= m->seed << 17;
	return (uint32_t)((m->seed >> 32) * n >> 32);
}

static const struct policy *find(const struct policy *p, const char *name)
{
	while (p->name && strcmp(p->name, name))
		p++;
	return p->name ? p : NULL;
}

const struct policy *spw__policy(const char *name)
{
	const struct policy *p = find(spw__hit_policies, name);

	return p ? p : find(spw__fault_policies, name);
}

static void run(struct model *m, uint8_t *state, struct replayed *out)
{
	enum { BEFORE = 1, IN = 2 };
	uint32_t resident = 0;

	for (m->now = 0; m->now < m->trace->n; m->now++) {
		uint32_t page = m->trace->page[m->now];

		if (state[page] & IN) {
			if (m->policy->hit)
				m->policy->hit(m, page);
			continue;
		}
		if (resident == m->cap) {
			state[m->policy->victim(m, page)] &= ~IN;
			m->taken++;
		} else {
			resident++;
		}
		m->policy->insert(m, page, state[page] & BEFORE);
		out->misses++;
		out->refaults += state[page] & BEFORE;
		state[page] = BEFORE | IN;
	}
}

bool spw__replay(const struct policy *p, const struct spw_trace *t, uint32_t cap, struct replayed *out)
{
	struct model *m = calloc(1, p->size);
	uint32_t *words = calloc(t->pages, 3 * sizeof(*words));
	uint8_t *bytes = calloc(t->pages, 2);
	bool done = false;

	*out = (struct replayed){0};
	if (m && words && bytes) {
		m->policy = p;
		m->trace = t;
		m->cap = cap;
		m->seed = 0x9e3779b97f4a7c15ull;
		m->deck.newer = words;
		m->deck.older = words + t->pages;
		m->mark = words + 2ull * t->pages;
		m->deck.in = bytes;
		done = !p->begin || p->begin(m);
		if (done)
			run(m, bytes + t->pages, out);
		if (p->end)
			p->end(m);
	}
	free(bytes);
	free(words);
	free(m);
	return done;
}
