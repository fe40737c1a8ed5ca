/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which memory is managed.
 *
 * Wrapping mmap(2) would not find it: libc's allocator and raw system calls go past every wrapper. The process's own
 * map knows all. A range is manageable when it is private, anonymous, readable, writable and not executable, at
 * least SPW_REGION_MIN long (or the heap), and neither the agent's own nor the main thread's stack (which the kernel
 * grows). What the map shows may be gone when the answer is used; registering then fails or hits a mapping that the
 * kernel refuses to move pages out of, and eviction asks the kernel again, atomically, page by page.
 */
#include "host/process/regions.h"
#include "host/text.h"
#include "host/uffd.h"
#include "platform/linux.h"
#include "platform/sys.h"
#include "space/space.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define THREAD_BLOCK (2 * SPW_PAGE) /* more than glibc keeps of a thread at the end of its stack */
#define MAX_REGIONS  (1u << 17)
#define TEXT_BYTES   (64u << 10)

int spw__regions_init(struct spw__regions *r)
{
	*r = (struct spw__regions){0};
	r->at = spw__plat_reserve(MAX_REGIONS * sizeof(*r->at));
	r->text = spw__plat_reserve(TEXT_BYTES);
	if (!r->at || !r->text)
		return -ENOMEM;
	r->maps_fd = spw__open("/proc/self/maps", O_RDONLY);
	return r->maps_fd < 0 ? r->maps_fd : 0;
}

/* Index of the first region that ends after va. */
static uint32_t first_after(const struct spw__regions *r, uint64_t va)
{
	uint32_t lo = 0, hi = r->count;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (r->at[mid].end > va)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

const struct spw__region *spw__regions_at(const struct spw__regions *r, uint64_t va)
{
	uint32_t i = first_after(r, va);

	return i < r->count ? &r->at[i] : NULL;
}

bool spw__regions_cover(const struct spw__regions *r, uint64_t start, uint64_t end)
{
	const struct spw__region *g = spw__regions_at(r, start);

	return g && g->start <= start && g->end >= end;
}

bool spw__regions_next(const struct spw__regions *r, uint64_t *from, uint64_t *to)
{
	const struct spw__region *g = *from < *to ? spw__regions_at(r, *from) : NULL;

	if (!g || g->start >= *to)
		return false;
	*from = g->start > *from ? g->start : *from;
	*to = g->end < *to ? g->end : *to;
	return true;
}

static void remove_at(struct spw__regions *r, uint32_t i, uint32_t n)
{
	memmove(&r->at[i], &r->at[i + n], (r->count - i - n) * sizeof(*r->at));
	r->count -= n;
}

static int insert_at(struct spw__regions *r, uint32_t i, uint64_t start, uint64_t end)
{
	if (r->count == MAX_REGIONS)
		return -ENOMEM;
	memmove(&r->at[i + 1], &r->at[i], (r->count - i) * sizeof(*r->at));
	r->at[i] = (struct spw__region){start, end};
	r->count++;
	return 0;
}

void spw__regions_cut(struct spw__regions *r, uint64_t start, uint64_t end)
{
	for (uint32_t i = first_after(r, start); i < r->count && r->at[i].start < end;) {
		struct spw__region *g = &r->at[i];
		uint64_t lo = g->start > start ? g->start : start, hi = g->end < end ? g->end : end;

		r->bytes -= hi - lo;
		if (lo == g->start && hi == g->end) {
			remove_at(r, i, 1);
			continue;
		}
		if (lo == g->start) {
			g->start = hi;
		} else if (hi == g->end) {
			g->end = lo;
		} else {
			uint64_t tail = g->end;

			g->end = lo;
			/* A full table loses the tail: it is found and added again by the next scan. */
			if (insert_at(r, i + 1, hi, tail))
				r->bytes -= tail - hi;
		}
		i++;
	}
}

int spw__regions_add(struct spw__regions *r, uint64_t start, uint64_t end)
{
	spw__regions_cut(r, start, end);
	uint32_t i = first_after(r, start);
	bool joins_prev = i > 0 && r->at[i - 1].end == start, joins_next = i < r->count && r->at[i].start == end;

	r->bytes += end - start;
	if (joins_prev && joins_next) {
		r->at[i - 1].end = r->at[i].end;
		remove_at(r, i, 1);
	} else if (joins_prev) {
		r->at[i - 1].end = end;
	} else if (joins_next) {
		r->at[i].start = start;
	} else {
		return insert_at(r, i, start, end);
	}
	return 0;
}

static const char *parse_hex(const char *p, uint64_t *v)
{
	*v = 0;
	for (;; p++) {
		unsigned d = (unsigned)*p - '0';

		if (d > 9)
			d = (unsigned)*p - 'a' + 10;
		if (d > 15 || (*p > '9' && *p < 'a'))
			return p;
		*v = *v << 4 | d;
	}
}

/*
 * A small mapping next to a region may have been one with it, before it grew or was cut while it was being registered.
 */
static bool adjoins(const struct spw__regions *r, uint64_t start, uint64_t end)
{
	return spw__regions_cover(r, start - SPW_PAGE, start) || spw__regions_cover(r, end, end + SPW_PAGE);
}

/* One line of the map: "start-end perms offset dev inode   name". */
static bool manageable(const struct spw__regions *r, const char *line, uint64_t *start, uint64_t *end)
{
	uint64_t inode;
	const char *p = parse_hex(line, start);

	p = parse_hex(p + 1, end);
	if (memcmp(p, " rw-p ", 6) != 0)
		return false;
	p = strchr(p + 6, ' '); /* after the offset */
	p = p ? strchr(p + 1, ' ') : NULL;
	if (!p)
		return false;
	p = parse_hex(p + 1, &inode);
	while (*p == ' ')
		p++;
	bool heap = memcmp(p, "[heap]", 6) == 0;

	if (inode != 0 || (*p == '[' && !heap && memcmp(p, "[anon:", 6) != 0))
		return false;
	return (heap || *end - *start >= SPW_REGION_MIN || adjoins(r, *start, *end)) &&
	       !spw__plat_owns((void *)(uintptr_t)*start);
}

/* Read fd from its start and call line(ctx, text) for each line, without its newline. 0 or -errno, of line() too. */
static int each_line(struct spw__regions *r, int fd, int (*line)(void *ctx, const char *text), void *ctx)
{
	size_t have = 0;
	uint64_t off = 0;

	for (;;) {
		long n = spw__sys4(SYS_pread64, fd, r->text + have, TEXT_BYTES - 1 - have, off);

		if (n <= 0)
			return (int)n;
		off += (uint64_t)n;
		have += (size_t)n;
		r->text[have] = 0;
		char *at = r->text;

		for (char *nl; (nl = strchr(at, '\n')) != NULL; at = nl + 1) {
			*nl = 0;
			int ret = line(ctx, at);

			if (ret < 0)
				return ret;
		}
		have -= (size_t)(at - r->text);
		memmove(r->text, at, have);
	}
}

struct scan {
	struct spw__regions *r;
	spw__take_fn *take;
	void *ctx;
	uint64_t start, end; /* found, and not yet taken; 0 = none */
	uint64_t guard;      /* end of the last mapping without access */
};

static int take_found(struct scan *s, uint64_t next)
{
	uint64_t end = s->end;

	s->end = 0;
	return end ? s->take(s->ctx, s->start, end, next) : 0;
}

static int scan_line(void *ctx, const char *text)
{
	struct scan *s = ctx;
	uint64_t start, end;
	bool good = manageable(s->r, text, &start, &end);

	/*
	 * Behind a guard: the stack of a thread, with what libc keeps of it at the end. The kernel writes there when
	 * the thread has exited, for those who wait for that, and a page that is out then fails it without an event.
	 */
	if (good && s->guard == start && end - start >= SPW_REGION_MIN)
		end -= THREAD_BLOCK;
	if (strstr(text, " ---p "))
		s->guard = end;
	good = good && !spw__regions_cover(s->r, start, end);
	int ret = take_found(s, start);

	if (good) {
		s->start = start;
		s->end = end;
	}
	return ret;
}

int spw__regions_scan(struct spw__regions *r, spw__take_fn *take, void *ctx)
{
	struct scan s = {.r = r, .take = take, .ctx = ctx};
	int ret = each_line(r, r->maps_fd, scan_line, &s);

	return ret ? ret : take_found(&s, s.end);
}

/* The kernel's ioctl to look a mapping up (Linux 6.11), newer than Debian 12's headers: struct procmap_query. */
#define PROCMAP_QUERY 0xc0686611
#define QUERY_SHARED  (1u << 3)

bool spw__regions_ask(const struct spw__regions *r, uint64_t va, uint64_t *start, uint64_t *end)
{
	struct {
		uint64_t size, query_flags, query_addr, vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
		uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
		uint64_t vma_name_addr, build_id_addr;
	} q = {.size = sizeof(q), .query_addr = va};

	if (spw__sys3(SYS_ioctl, r->maps_fd, PROCMAP_QUERY, &q))
		return false;
	*start = q.vma_start;
	*end = q.vma_end;
	return !(q.vma_flags & QUERY_SHARED) && q.inode == 0;
}

struct lost {
	struct spw__regions *r;
	int uffd;
	void (*lose)(void *ctx, uint64_t start, uint64_t end);
	void *ctx;
	uint64_t start, end; /* of the mapping whose lines are being read */
};

static int lost_line(void *ctx, const char *text)
{
	struct lost *l = ctx;

	if ((*text >= '0' && *text <= '9') || (*text >= 'a' && *text <= 'f')) {
		uint64_t before = l->end;
		const char *p = parse_hex(text, &l->start);

		parse_hex(p + 1, &l->end);
		l->lose(l->ctx, before, l->start);
		/* A mapping is registered as a whole or not at all. */
		const struct spw__region *g = spw__regions_at(l->r, l->start);

		if (g && g->start < l->end && !spw__uffd_registered(l->uffd, l->start))
			l->lose(l->ctx, l->start, l->end);
	} else if (memcmp(text, "VmFlags:", 8) == 0 && strstr(text, " wf")) {
		l->lose(l->ctx, l->start, l->end);
	}
	return 0;
}

int spw__regions_lost(struct spw__regions *r, int uffd, bool wiped,
		      void (*lose)(void *ctx, uint64_t start, uint64_t end), void *ctx)
{
	struct lost l = {.r = r, .uffd = uffd, .lose = lose, .ctx = ctx};
	int fd = wiped ? spw__open("/proc/self/smaps", O_RDONLY) : r->maps_fd;

	if (fd < 0)
		return fd;
	int ret = each_line(r, fd, lost_line, &l);

	if (wiped)
		spw__sys1(SYS_close, fd);
	lose(ctx, l.end, UINT64_MAX);
	return ret;
}
