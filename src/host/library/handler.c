/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults on a thread of the space, for programs whose threads block SIGBUS, or whose system calls use memory that may
 * be out. It costs two switches of threads a fault.
 */
#include "host/library/library.h"
#include "host/uffd.h"
#include "platform/sys.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MESSAGES 16u

static void serve(struct spw_space *s, const struct uffd_msg *m)
{
	uint64_t va = m->arg.pagefault.address & ~(uint64_t)(SPW_PAGE - 1);
	bool write = m->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	struct spw_region *r = m->event == UFFD_EVENT_PAGEFAULT ? spw__region_at(va) : NULL;

	if (r) {
		struct spw__seat *seat = spw__seat_take(s);

		spw__enter(s);
		spw__lib_fault(r, seat, va, write);
		spw__leave(s);
		spw__seat_give(s, seat);
	}
	/* Whoever waits for it, and came after it had been brought. */
	spw__uffd_wake(s->uffd, (void *)(uintptr_t)va, SPW_PAGE);
}

static void *handler_main(void *space)
{
	struct spw_space *s = space;
	struct pollfd fds[] = {{.fd = s->uffd, .events = POLLIN}, {.fd = s->wake_fd, .events = POLLIN}};
	struct uffd_msg m[MESSAGES];

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents)
			return NULL;
		__atomic_add_fetch(&s->reading, 1, __ATOMIC_SEQ_CST);
		ssize_t n = read(s->uffd, m, sizeof(m));

		for (ssize_t i = 0; i < n / (ssize_t)sizeof(m[0]); i++)
			serve(s, &m[i]);
		__atomic_add_fetch(&s->reading, 1, __ATOMIC_SEQ_CST);
	}
}

void spw__handler_pass(struct spw_space *s)
{
	uint32_t seen = __atomic_load_n(&s->reading, __ATOMIC_SEQ_CST);

	for (unsigned spins = 0; seen % 2 && __atomic_load_n(&s->reading, __ATOMIC_SEQ_CST) == seen; spins++)
		spw__plat_relax(spins);
}

int spw__handler_start(struct spw_space *s)
{
	sigset_t old;
	int ret;

	s->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (s->wake_fd < 0)
		return -errno;
	spw__signals_block(&old);
	ret = -pthread_create(&s->handler, NULL, handler_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		close(s->wake_fd);
	return ret;
}

void spw__handler_stop(struct spw_space *s)
{
	eventfd_write(s->wake_fd, 1);
	pthread_join(s->handler, NULL);
	close(s->wake_fd);
}
