/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether userfaultfd works depends on the kernel, a sysctl, a capability, the mode of a device and a container's
 * seccomp filter, and each refuses with the same EPERM. So it is tried, both ways, and what could have refused is
 * looked at afterwards to name the fix.
 */
#include "cmd/caps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16) /* Linux 6.8 */
#endif

#define EVENTS (UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

static int open_userfaultfd(bool *device)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int err = errno;

	*device = false;
	if (fd >= 0)
		return fd;
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -err;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	err = errno;
	close(dev);
	*device = true;
	return fd < 0 ? -err : fd;
}

static bool allows(uint64_t features)
{
	bool device;
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = open_userfaultfd(&device);

	if (fd < 0)
		return false;
	bool ok = !ioctl(fd, UFFDIO_API, &api);
	close(fd);
	return ok;
}

static bool have_io_uring(void)
{
	char params[120] = {0}; /* struct io_uring_params */
	int fd = (int)syscall(SYS_io_uring_setup, 1, params);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static int read_sysctl(const char *path)
{
	int value = -1;
	FILE *f = fopen(path, "re");

	if (!f)
		return -1;
	if (fscanf(f, "%d", &value) != 1)
		value = -1;
	fclose(f);
	return value;
}

static void name_fix(struct spw_caps *c)
{
	if (c->error == -ENOSYS)
		snprintf(c->fix, sizeof(c->fix), "boot a kernel built with CONFIG_USERFAULTFD=y");
	else if (c->error != -EPERM && c->error != -EACCES)
		snprintf(c->fix, sizeof(c->fix), "see userfaultfd(2) for %s", strerror(-c->error));
	else if (geteuid() && !read_sysctl("/proc/sys/vm/unprivileged_userfaultfd"))
		snprintf(c->fix, sizeof(c->fix),
			 "as root: sysctl vm.unprivileged_userfaultfd=1, or for this user alone: chown %u "
			 "/dev/userfaultfd",
			 geteuid());
	else
		snprintf(c->fix, sizeof(c->fix),
			 "a seccomp filter forbids it: start the container with --device "
			 "/dev/userfaultfd or --security-opt seccomp=unconfined");
}

void spw__caps(struct spw_caps *out)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd;

	*out = (struct spw_caps){.io_uring = have_io_uring()};
	fd = open_userfaultfd(&out->device);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api)) {
		out->error = fd < 0 ? fd : -errno;
		name_fix(out);
	} else {
		out->events = (api.features & EVENTS) == EVENTS;
		out->wp = api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP;
		out->move = api.features & UFFD_FEATURE_MOVE;
		out->fork = allows(UFFD_FEATURE_EVENT_FORK);
	}
	if (fd >= 0)
		close(fd);
}

const char *spw__caps_refusal(const struct spw_caps *c, enum spw_evict evict, char *why, unsigned size)
{
	if (c->error)
		snprintf(why, size, "userfaultfd is not permitted here (%s); %s", strerror(-c->error), c->fix);
	else if (!c->events)
		snprintf(why, size, "this kernel's userfaultfd reports no memory events; Linux 5.7 or later is needed");
	else if (evict == SPW_EVICT_MOVE && !c->move)
		snprintf(why, size, "--evict move needs Linux 6.8 or later; say --evict wp");
	else if (evict == SPW_EVICT_WP && !c->wp)
		snprintf(why, size, "--evict wp needs Linux 5.7 or later%s", c->move ? "; say --evict move" : "");
	else if (!c->move && !c->wp)
		snprintf(why, size,
			 "this kernel can neither move nor write-protect pages; Linux 5.7 or later is needed");
	else
		return NULL;
	return why;
}
