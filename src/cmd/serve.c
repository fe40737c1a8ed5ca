/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A socket in the file system needs a directory, and is left behind by a run that is killed; an abstract one has no
 * owner and no mode. So this one is bound to a name, mode 0600, and loses it at once; an O_PATH descriptor keeps the
 * inode. Clients connect through /proc/PID/fd/N, where the kernel still asks for the permission to write. Who they are
 * is asked again when they have come.
 *
 * Messages are JSON objects, one a packet. A request has "do" and its arguments; the last answer has "ok" or "error",
 * those before it tell of progress. A client that hangs up takes its request back.
 *
 * Nothing here waits for anybody: the tree is accounted for by the same thread. Not for a file system either: a file is
 * opened by who asks for it (swapon.c), after an "offer" of it, and comes as a descriptor beside the request.
 */
#include "cmd/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmd/handover.h"
#include "cmd/limits.h"
#include "cmd/say.h"
#include "cmd/stats.h"
#include "host/counted.h"
#include "platform/platform.h"

#define TELL_NS     100000000ull
#define IDLE_NS     1000000000ull
#define GIVE_UP_NS  2000000000ull /* without a page less; room may come free meanwhile */
#define POOL_PACKED 90u           /* % of a pool that is stored bytes, when it has been compacted */

/* Bind in `dir`, keep the inode, drop the name. */
static bool open_in(struct spw_serve *s, const char *dir)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int len = dir ? snprintf(un.sun_path, sizeof(un.sun_path), "%s/%s%d", dir, SPW_SERVE_NAME, getpid()) : 0;

	if (len <= 0 || len >= (int)sizeof(un.sun_path))
		return false;
	s->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask = umask(0177);
	bool bound = !bind(s->listen_fd, (struct sockaddr *)&un, sizeof(un));

	umask(mask);
	if (bound) {
		s->name_fd = open(un.sun_path, O_PATH | O_CLOEXEC | O_NOFOLLOW);
		unlink(un.sun_path);
	}
	if (bound && s->name_fd >= 0 && !listen(s->listen_fd, (int)SPW_SERVE_CLIENTS))
		return true;
	close(s->listen_fd);
	s->listen_fd = -1;
	return false;
}

void spw__serve_open(struct spw_serve *s)
{
	const char *const dirs[] = {getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp", "/var/tmp", "/run"};

	s->listen_fd = s->name_fd = -1;
	for (unsigned i = 0; i < SPW_SERVE_CLIENTS; i++)
		s->client[i].fd = -1;
	for (unsigned i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		if (open_in(s, dirs[i]))
			return;
}

unsigned spw__serve_poll(const struct spw_serve *s, struct pollfd *p)
{
	unsigned n = 0;

	p[n++] = (struct pollfd){.fd = s->listen_fd, .events = POLLIN};
	for (unsigned i = 0; i < SPW_SERVE_CLIENTS; i++)
		if (s->client[i].fd >= 0)
			p[n++] = (struct pollfd){.fd = s->client[i].fd, .events = POLLIN};
	return n;
}

/* The client's request is done with, or taken back. */
static void hang_up(struct spw_serve *s, struct spw_client *c)
{
	if (c->leave) {
		spw__swaps_cancel(s->tree->swaps, c->leave);
		spw__tree_kick(s->tree);
	}
	close(c->fd);
	*c = (struct spw_client){.fd = -1};
}

/* Takes the object over. False: the client is gone, or does not read. */
static bool tell(struct spw_client *c, json_t *message)
{
	if (!message)
		message = json_pack("{s:s}", "error", "refused; the reason is not UTF-8");
	char *text = json_dumps(message, JSON_COMPACT);
	bool told = text && send(c->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;

	free(text);
	json_decref(message);
	return told;
}

static void answer(struct spw_serve *s, struct spw_client *c, json_t *message)
{
	tell(c, message);
	hang_up(s, c);
}

static void __attribute__((format(printf, 3, 4)))
refuse(struct spw_serve *s, struct spw_client *c, const char *fmt, ...)
{
	char why[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	answer(s, c, json_pack("{s:s}", "error", why));
}

static void do_set(struct spw_serve *s, struct spw_client *c, const json_t *request)
{
	struct spw_ctl *ctl = s->tree->region->ctl;
	uint64_t ram = (uint64_t)json_integer_value(json_object_get(request, "ram"));
	char a[32], b[32];

	if (ram < SPW_RAM_LEAST) {
		refuse(s, c, "a cap of %s is too small to work in; the least is 16M", spw__size_text(ram, a));
		return;
	}
	if (ram > ctl->memory_bytes) {
		refuse(s, c, "a cap of %s is more than there is, %s", spw__size_text(ram, a),
		       spw__size_text(ctl->memory_bytes, b));
		return;
	}
	uint64_t pool = spw__options_zswap_bytes(s->options, ram);

	__atomic_store_n(&ctl->zswap_bytes, pool < ram ? pool : ram, __ATOMIC_RELAXED);
	spw__tree_limit(s->tree, ram);
	spw__tree_kick(s->tree);
	answer(s, c, json_pack("{s:b, s:I}", "ok", 1, "ram_limit_bytes", (json_int_t)ram));
}

/*
 * The tier that is asked for, in `text` and in `swap`, if there is room for it. 0, or SPW_EXIT_FAILED with the line
 * said.
 */
static int read_swap(const struct spw_serve *s, const json_t *request, char text[SPW_SERVE_BYTES],
		     struct spw_swap *swap)
{
	const char *said = json_string_value(json_object_get(request, "swap"));

	snprintf(text, SPW_SERVE_BYTES, "%s", said ? said : "");
	int failed = spw__swap_parse(text, swap);
	if (!failed && swap->kind == SPW_SWAP_ZSWAP)
		failed = spw__fail("a pool is there from the start or not at all; `spillway set` changes its size "
				   "with the cap");
	if (!failed && !swap->prioritized)
		swap->priority = spw__swaps_lowest(s->tree->swaps);
	return failed ? failed : spw__swaps_offer(s->tree->swaps, swap);
}

/* Takes the descriptor over. */
static int take(struct spw_serve *s, const json_t *request, int fd)
{
	char text[SPW_SERVE_BYTES];
	struct spw_swapfile file = {.fd = fd};
	struct spw_swap swap;
	int failed = read_swap(s, request, text, &swap);

	if (failed) {
		spw__swapfile_close(&file);
		return failed;
	}
	failed = spw__handover_take(&swap, json_object_get(request, "file"), fd, &file);
	if (!failed)
		failed = spw__swaps_take(s->tree->swaps, &swap, &file);
	if (!failed)
		spw__tree_kick(s->tree);
	return failed;
}

static void answer_swap(struct spw_serve *s, struct spw_client *c, int failed, const char *why)
{
	spw__say_into(NULL, 0);
	answer(s, c, failed ? json_pack("{s:s}", "error", why) : json_pack("{s:b}", "ok", 1));
}

static void do_offer(struct spw_serve *s, struct spw_client *c, const json_t *request)
{
	char why[1024] = "", text[SPW_SERVE_BYTES];
	struct spw_swap swap;

	spw__say_into(why, sizeof(why));
	answer_swap(s, c, read_swap(s, request, text, &swap), why);
}

static void do_swapon(struct spw_serve *s, struct spw_client *c, const json_t *request, int fd)
{
	char why[1024] = "";

	spw__say_into(why, sizeof(why));
	answer_swap(s, c, take(s, request, fd), why);
}

/*
 * What a process's pool takes when it has been compacted. What was freed a moment ago leaves holes, which may be most
 * of it.
 */
static uint64_t compacted(const struct spw_ctl_proc *r)
{
	uint64_t bytes = __atomic_load_n(&r->pool_bytes, __ATOMIC_RELAXED);
	uint64_t packed = __atomic_load_n(&r->pool_stored, __ATOMIC_RELAXED) / POOL_PACKED * 100;

	return packed < bytes ? packed : bytes;
}

/* What the pools and the other files have room for, bytes. */
static uint64_t room_elsewhere(const struct spw_serve *s, const struct spw_swap_place *but)
{
	const struct spw_swaps *swaps = s->tree->swaps;
	const struct spw_ctl *ctl = swaps->ctl;
	uint64_t room = __atomic_load_n(&ctl->zswap_bytes, __ATOMIC_RELAXED), pools = 0;

	for (unsigned i = 0; i < SPW_CTL_PROCS; i++)
		if (__atomic_load_n(&ctl->proc[i].pid, __ATOMIC_RELAXED) > 0)
			pools += compacted(&ctl->proc[i]);
	room = room > pools ? room - pools : 0;
	for (unsigned i = 0; i < SPW_CTL_TIERS; i++) {
		const struct spw_swap_place *p = &swaps->at[i];
		uint64_t used, capacity;

		if (p == but || !p->shared || __atomic_load_n(&ctl->tier[i].state, __ATOMIC_RELAXED) != SPW_CTL_ON)
			continue;
		spw__file_shared_use(p->shared, &used, &capacity);
		room += capacity - used;
	}
	return room;
}

/* The place that has the first of these names that any has. */
static struct spw_swap_place *named(const struct spw_serve *s, const json_t *names)
{
	struct spw_swap_place *p = NULL;
	const json_t *name;
	size_t i;

	json_array_foreach(names, i, name) p =
		p || !json_string_value(name) ? p : spw__swaps_find(s->tree->swaps, json_string_value(name));
	return p;
}

static void do_swapoff(struct spw_serve *s, struct spw_client *c, const json_t *request)
{
	const char *name = json_string_value(json_array_get(json_object_get(request, "tier"), 0));
	struct spw_swap_place *p = named(s, json_object_get(request, "tier"));
	const struct spw_ctl *ctl = s->tree->swaps->ctl;
	char a[32], b[32];

	if (!p) {
		refuse(s, c, "%s: no tier of that name; `spillway list %d` shows them", name ? name : "", getpid());
		return;
	}
	const struct spw_ctl_tier *t = &ctl->tier[p - s->tree->swaps->at];
	struct spw_swap_use use = spw__swaps_use(s->tree->swaps, p);
	uint64_t room = room_elsewhere(s, p), left = ctl->ghost_pages - t->pages,
		 pages = spw__ghosts_counted(ctl, NULL);

	if (p->died_of) {
		refuse(s, c,
		       "%s: it is dead (%s) and leaves by itself, when nothing is on it; %llu of its pages cannot "
		       "be read",
		       p->name, strerror(p->died_of), (unsigned long long)use.lost);
	} else if (__atomic_load_n(&t->state, __ATOMIC_RELAXED) != SPW_CTL_ON) {
		refuse(s, c, "%s: it is being taken away already", p->name);
	} else if (p->shared && use.stored > room) {
		refuse(s, c,
		       "%s: %s are on it, and the pool and the other files have room for %s; give more first "
		       "(spillway swapon, spillway set)",
		       p->name, spw__size_text(use.stored, a), spw__size_text(room, b));
	} else if (!p->shared && left && pages > left) {
		refuse(s, c,
		       "%s: %llu pages are in the pool, and the other ghosts name %llu; give another first "
		       "(spillway swapon)",
		       p->name, (unsigned long long)pages, (unsigned long long)left);
	} else {
		c->leave = p;
		c->pages = c->least = use.pages;
		c->least_ns = spw__plat_now_ns();
		spw__swaps_drain(s->tree->swaps, p);
		spw__tree_kick(s->tree);
	}
}

/* A request to take a tier away goes on. */
static void follow(struct spw_serve *s, struct spw_client *c)
{
	struct spw_swap_use use = spw__swaps_use(s->tree->swaps, c->leave);
	struct spw_swap_place *p = c->leave;

	if (use.pages < c->least) {
		c->least = use.pages;
		c->least_ns = spw__plat_now_ns();
	}
	if (!use.processes) {
		spw__swaps_remove(s->tree->swaps, p);
		c->leave = NULL;
		answer(s, c, json_pack("{s:b, s:I}", "ok", 1, "pages", (json_int_t)c->pages));
	} else if (use.error && spw__plat_now_ns() - c->least_ns > GIVE_UP_NS) {
		refuse(s, c, "%s: %llu of its pages stay there (%s); it is used on", p->name,
		       (unsigned long long)use.pages,
		       use.error == -ENOSPC ? "nothing else has room for them" : strerror(-use.error));
	} else if (spw__plat_now_ns() >= c->next_ns) {
		c->next_ns = spw__plat_now_ns() + TELL_NS;
		if (!tell(c, json_pack("{s:I, s:I}", "pages", (json_int_t)use.pages, "of", (json_int_t)c->pages)))
			hang_up(s, c);
	}
}

/* A run within this one: what its processes may use from now on, by a number. */
static void do_nest(struct spw_serve *s, struct spw_client *c, const json_t *request)
{
	char why[1024] = "";
	uint32_t id;

	spw__say_into(why, sizeof(why));
	int failed = spw__groups_add(&s->groups, s->tree->swaps, request, c->pid, &id);

	spw__say_into(NULL, 0);
	if (failed) {
		refuse(s, c, "%s", why);
		return;
	}
	spw__tree_join(s->tree, c->pid, id);
	answer(s, c, json_pack("{s:b, s:I}", "ok", 1, "group", (json_int_t)id));
}

static void do_list(struct spw_serve *s, struct spw_client *c)
{
	answer(s, c, spw__stats_live(s->tree));
}

/* Takes the descriptor over. */
static void perform(struct spw_serve *s, struct spw_client *c, const json_t *request, int fd)
{
	const char *what = json_string_value(json_object_get(request, "do"));

	what = what ? what : "";
	if (!strcmp(what, "swapon")) {
		do_swapon(s, c, request, fd);
		return;
	}
	if (fd >= 0)
		close(fd);
	if (!strcmp(what, "list"))
		do_list(s, c);
	else if (!strcmp(what, "set"))
		do_set(s, c, request);
	else if (!strcmp(what, "offer"))
		do_offer(s, c, request);
	else if (!strcmp(what, "swapoff"))
		do_swapoff(s, c, request);
	else if (!strcmp(what, "nest"))
		do_nest(s, c, request);
	else
		refuse(s, c, "not understood; are both of the same version (" SPW_VERSION ")?");
}

static void receive(struct spw_serve *s, struct spw_client *c)
{
	char text[SPW_SERVE_BYTES];
	int fd;
	ssize_t got = spw__handover_recv(c->fd, text, sizeof(text), MSG_DONTWAIT, &fd);

	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		if (!c->leave && spw__plat_now_ns() - c->since_ns > IDLE_NS)
			hang_up(s, c);
		return;
	}
	if (got <= 0 || c->leave) {
		if (fd >= 0)
			close(fd);
		hang_up(s, c);
		return;
	}
	json_t *request = json_loadb(text, (size_t)got, 0, NULL);

	perform(s, c, request, fd);
	json_decref(request);
}

static void accept_one(struct spw_serve *s)
{
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred who;
	socklen_t len = sizeof(who);

	if (fd < 0)
		return;
	for (unsigned i = 0; i < SPW_SERVE_CLIENTS; i++) {
		struct spw_client *c = &s->client[i];

		if (c->fd >= 0)
			continue;
		*c = (struct spw_client){.fd = fd, .since_ns = spw__plat_now_ns()};
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) || (who.uid && who.uid != geteuid()))
			refuse(s, c, "this run is another user's");
		else
			c->pid = who.pid;
		return;
	}
	close(fd);
}

void spw__serve(struct spw_serve *s, bool new_client)
{
	if (new_client)
		accept_one(s);
	for (unsigned i = 0; i < SPW_SERVE_CLIENTS; i++) {
		if (s->client[i].fd >= 0)
			receive(s, &s->client[i]);
		if (s->client[i].leave)
			follow(s, &s->client[i]);
	}
}
