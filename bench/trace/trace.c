/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a trace. Addresses are sparse; a policy is to have arrays by page, so pages get numbers as they come. */
#include "trace.h"

#include <stdlib.h>
#include <string.h>

/* Numbers of pages, by open addressing: `number` is that of the page + 1, 0 is free. */
struct numbers {
	uint64_t *page;
	uint32_t *number;
	uint64_t size; /* a power of two */
	uint32_t count;
};

static uint64_t place(const struct numbers *h, uint64_t page)
{
	uint64_t i = page * 0x9e3779b97f4a7c15ull >> 20;

	while (h->number[i & (h->size - 1)] && h->page[i & (h->size - 1)] != page)
		i++;
	return i & (h->size - 1);
}

static bool grow(struct numbers *h)
{
	struct numbers larger = {.size = h->size ? h->size * 2 : 1024, .count = h->count};

	larger.page = calloc(larger.size, sizeof(*larger.page));
	larger.number = calloc(larger.size, sizeof(*larger.number));
	for (uint64_t i = 0; larger.page && larger.number && i < h->size; i++) {
		uint64_t at = h->number[i] ? place(&larger, h->page[i]) : 0;

		if (h->number[i]) {
			larger.page[at] = h->page[i];
			larger.number[at] = h->number[i];
		}
	}
	free(h->page);
	free(h->number);
	*h = larger;
	return h->page && h->number;
}

static bool number_of(struct numbers *h, uint64_t page, uint32_t *number)
{
	if (h->count * 2ull >= h->size && !grow(h))
		return false;
	uint64_t at = place(h, page);

	if (!h->number[at]) {
		h->page[at] = page;
		h->number[at] = ++h->count;
	}
	*number = h->number[at] - 1;
	return true;
}

static bool get_varint(FILE *f, uint64_t *v)
{
	int c = 0x80;

	*v = 0;
	for (unsigned shift = 0; c & 0x80; shift += 7) {
		c = shift < 64 ? getc_unlocked(f) : EOF;
		if (c == EOF)
			return false;
		*v |= (uint64_t)(c & 0x7f) << shift;
	}
	return true;
}

static bool append(struct spw_trace *t, uint32_t *room, uint32_t page)
{
	if (t->n == *room) {
		uint32_t more = *room ? *room * 2 : 4096;
		uint32_t *larger = more > *room ? realloc(t->page, more * sizeof(*larger)) : NULL;

		if (!larger)
			return false;
		t->page = larger;
		*room = more;
	}
	t->page[t->n++] = page;
	return true;
}

static const char *read_records(FILE *f, struct spw_trace *t, struct numbers *h)
{
	uint64_t v, page = 0;
	uint32_t room = 0, number;

	while (get_varint(f, &v) && v) {
		uint64_t zigzag = v >> 1;

		page += (zigzag >> 1) ^ -(zigzag & 1);
		t->writes += v & 1;
		if (!number_of(h, page, &number) || !append(t, &room, number))
			return "it is larger than memory";
	}
	t->pages = h->count;
	return v || feof(f) || !get_varint(f, &t->accesses) ? "it is cut off" : NULL;
}

const char *spw__trace_read(FILE *f, struct spw_trace *t)
{
	char magic[sizeof(SPW_TRACE_MAGIC) - 1];
	struct numbers h = {0};

	*t = (struct spw_trace){0};
	if (fread(magic, sizeof(magic), 1, f) != 1 || memcmp(magic, SPW_TRACE_MAGIC, sizeof(magic)))
		return "it is no trace";
	const char *wrong = read_records(f, t, &h);

	free(h.page);
	free(h.number);
	return wrong;
}

void spw__trace_free(struct spw_trace *t)
{
	free(t->page);
}
