/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A descriptor carries what opening a file has won: the claim on a device, the lock on a file, the right to write. What
 * it does not carry is what was read in the file, and reading it again would be to wait for the file system, from which
 * the one that opens is there to keep the other. So that is told.
 *
 * Descriptors come whether they are asked for or not, and stay open until somebody closes them. Room is made for one:
 * the kernel closes those that find none.
 */
#include "cmd/handover.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/say.h"

union control {
	struct cmsghdr head;
	char room[CMSG_SPACE(sizeof(int))];
};

int spw__handover_send(int sock, const char *text, size_t len, int fd)
{
	union control c = {
		.head = {.cmsg_len = CMSG_LEN(sizeof(fd)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	struct iovec part = {.iov_base = (char *)text, .iov_len = len};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};

	memcpy(CMSG_DATA(&c.head), &fd, sizeof(fd));
	if (fd >= 0) {
		m.msg_control = &c;
		m.msg_controllen = CMSG_LEN(sizeof(fd));
	}
	return sendmsg(sock, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

ssize_t spw__handover_recv(int sock, void *text, size_t room, int flags, int *fd)
{
	union control c;
	struct iovec part = {.iov_base = text, .iov_len = room};
	/* Not CMSG_SPACE: its padding is room for a second one. */
	struct msghdr m = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = CMSG_LEN(sizeof(*fd))};
	ssize_t got = recvmsg(sock, &m, flags | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *head = got < 0 ? NULL : CMSG_FIRSTHDR(&m);

	*fd = -1;
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
	    head->cmsg_len == CMSG_LEN(sizeof(*fd)))
		memcpy(fd, CMSG_DATA(head), sizeof(*fd));
	if (*fd >= 0 && m.msg_flags & MSG_CTRUNC) {
		close(*fd);
		*fd = -1;
	}
	return got;
}

json_t *spw__handover_facts(const struct spw_swapfile *f)
{
	json_t *bad = json_array();

	if (f->pages)
		return json_pack("{s:I, s:o}", "pages", (json_int_t)f->pages, "bad", bad);
	for (uint32_t i = 0; i < f->bad_n; i++)
		json_array_append_new(bad, json_integer(f->bad[i]));
	return json_pack("{s:I, s:b, s:o}", "bytes", (json_int_t)f->max_bytes, "discard", f->discard, "bad", bad);
}

static uint64_t number(const json_t *facts, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(facts, key));

	return n > 0 ? (uint64_t)n : 0;
}

static int read_facts(const json_t *facts, struct spw_swapfile *f)
{
	const json_t *bad = json_object_get(facts, "bad"), *page;
	size_t i;

	f->pages = number(facts, "pages");
	f->max_bytes = number(facts, "bytes");
	f->discard = json_is_true(json_object_get(facts, "discard"));
	if (json_array_size(bad) > SPW_SWAPHDR_BAD)
		return -EINVAL;
	json_array_foreach(bad, i, page)
	{
		json_int_t n = json_integer_value(page);

		if (n <= 0 || n > UINT32_MAX)
			return -EINVAL;
		f->bad[f->bad_n++] = (uint32_t)n;
	}
	return 0;
}

int spw__handover_take(const struct spw_swap *swap, const json_t *facts, int fd, struct spw_swapfile *out)
{
	*out = (struct spw_swapfile){.fd = fd};
	int failed = read_facts(facts, out) ? spw__fail("--swap file: bad pages that are no numbers of pages")
					    : spw__swapfile_adopt(swap, out);
	if (failed)
		spw__swapfile_close(out);
	return failed;
}
