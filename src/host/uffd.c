/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The userfaultfd calls of the agent.
 *
 * A descriptor that serves whole programs must also get the faults that the kernel takes on the program's behalf (a
 * read(2) into a page that is out). userfaultfd(2) gives that to CAP_SYS_PTRACE or when the sysctl allows it;
 * /dev/userfaultfd gives it to whoever may open the device. Both are tried, the device second. One without these faults
 * is everybody's.
 */
#include "host/uffd.h"
#include "host/text.h"
#include "platform/sys.h"
#include "space/entry.h"

#include <errno.h>
#include <fcntl.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

int spw__uffd_open(uint64_t *features, bool kernel_faults)
{
	int flags = O_CLOEXEC | O_NONBLOCK | (kernel_faults ? 0 : UFFD_USER_MODE_ONLY);
	long fd = spw__sys1(SYS_userfaultfd, flags);

	/* Before Linux 5.11 there is no such flag, and everybody is allowed both, or nobody. */
	if (fd == -EINVAL && !kernel_faults) {
		flags = O_CLOEXEC | O_NONBLOCK;
		fd = spw__sys1(SYS_userfaultfd, flags);
	}
	if (fd < 0) {
		int dev = spw__open("/dev/userfaultfd", O_RDWR);

		if (dev >= 0) {
			fd = spw__sys3(SYS_ioctl, dev, USERFAULTFD_IOC_NEW, flags);
			spw__sys1(SYS_close, dev);
		}
		if (fd < 0)
			return (int)fd;
	}
	struct uffdio_api api = {.api = UFFD_API, .features = *features};
	long ret = spw__sys3(SYS_ioctl, fd, UFFDIO_API, &api);

	if (ret < 0) {
		spw__sys1(SYS_close, fd);
		return (int)ret;
	}
	/* The kernel answers with all that it knows, not with what is on. */
	*features &= api.features;
	return (int)fd;
}

int spw__uffd_register(int fd, const void *p, size_t len, uint64_t mode)
{
	struct uffdio_register r = {.range = {(uintptr_t)p, len}, .mode = mode};

	return (int)spw__sys3(SYS_ioctl, fd, UFFDIO_REGISTER, &r);
}

/* The kernel reports a partial success as -EAGAIN with the bytes done in the argument: the bytes are what counts. */
static long done_or_error(long ret, int64_t done)
{
	return done > 0 ? (long)done : ret;
}

static long move(int fd, void *dst, const void *src, size_t len, uint64_t mode)
{
	struct uffdio_move m = {.dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = len, .mode = mode};
	long ret = spw__sys3(SYS_ioctl, fd, UFFDIO_MOVE, &m);

	return done_or_error(ret, m.move);
}

long spw__uffd_move(int fd, void *dst, const void *src, size_t len)
{
	return move(fd, dst, src, len, UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES | UFFDIO_MOVE_MODE_DONTWAKE);
}

long spw__uffd_move_page(int fd, void *dst, const void *src)
{
	return move(fd, dst, src, SPW_PAGE, UFFDIO_MOVE_MODE_DONTWAKE);
}

static long copy(int fd, void *dst, const void *src, size_t len, uint64_t mode)
{
	struct uffdio_copy c = {.dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = len, .mode = mode};
	long ret = spw__sys3(SYS_ioctl, fd, UFFDIO_COPY, &c);

	return done_or_error(ret, c.copy);
}

long spw__uffd_copy(int fd, void *dst, const void *src, size_t len)
{
	return copy(fd, dst, src, len, 0);
}

long spw__uffd_copy_quiet(int fd, void *dst, const void *src, size_t len)
{
	return copy(fd, dst, src, len, UFFDIO_COPY_MODE_DONTWAKE);
}

long spw__uffd_copy_protected(int fd, void *dst, const void *src, size_t len)
{
	return copy(fd, dst, src, len, UFFDIO_COPY_MODE_WP);
}

long spw__uffd_zero(int fd, void *dst, size_t len)
{
	struct uffdio_zeropage z = {.range = {(uintptr_t)dst, len}, .mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE};
	long ret = spw__sys3(SYS_ioctl, fd, UFFDIO_ZEROPAGE, &z);

	return done_or_error(ret, z.zeropage);
}

int spw__uffd_wake(int fd, void *p, size_t len)
{
	struct uffdio_range r = {(uintptr_t)p, len};

	return (int)spw__sys3(SYS_ioctl, fd, UFFDIO_WAKE, &r);
}

int spw__uffd_protect(int fd, void *p, size_t len, int on)
{
	struct uffdio_writeprotect w = {.range = {(uintptr_t)p, len}};

	w.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
	return (int)spw__sys3(SYS_ioctl, fd, UFFDIO_WRITEPROTECT, &w);
}
