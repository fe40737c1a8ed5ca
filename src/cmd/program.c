/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that ignores LD_PRELOAD runs without the cap and says nothing about it. So the file is read before it
 * is started: what the dynamic linker will not or must not do there is known from its ELF header, its mode and its
 * capabilities, and for a script from those of its interpreter.
 */
#include "cmd/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define INTERPRETERS 4 /* how deep the kernel follows scripts of scripts */

/* Executable as execve(2) sees it: a file, and not a directory, which access(2) would let through. */
static int executable(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return errno == ENOTDIR ? -ENOENT : -errno;
	if (!S_ISREG(st.st_mode) || access(path, X_OK))
		return -EACCES;
	return 0;
}

int spw__program_find(const char *name, char path[PATH_MAX])
{
	int worst = -ENOENT;

	if (!*name)
		return -ENOENT;
	if (strchr(name, '/')) {
		snprintf(path, PATH_MAX, "%s", name);
		return executable(path);
	}
	const char *dir = getenv("PATH");
	if (!dir)
		dir = "/bin:/usr/bin";
	for (;; dir++) {
		size_t len = strcspn(dir, ":");

		if (snprintf(path, PATH_MAX, "%.*s%s%s", (int)len, dir, len ? "/" : "", name) < PATH_MAX) {
			int err = executable(path);
			if (!err)
				return 0;
			if (err != -ENOENT)
				worst = -EACCES;
		}
		dir += len;
		if (!*dir)
			return worst;
	}
}

static int __attribute__((format(printf, 3, 4))) refuse(char *why, unsigned size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, size, fmt, args);
	va_end(args);
	return 1;
}

/* Would executing it raise privileges? The dynamic linker then takes no library from the environment. */
static int check_privilege(const char *path, int fd, char *why, unsigned size)
{
	struct stat st;
	struct statvfs fs;

	if (fstat(fd, &st) || fstatvfs(fd, &fs))
		return -errno;
	if (fs.f_flag & ST_NOSUID)
		return 0;
	if ((st.st_mode & S_ISUID) && st.st_uid != getuid())
		return refuse(
			why, size,
			"%s is setuid and takes no agent; run it as user %u, or a copy of it without the setuid bit",
			path, st.st_uid);
	if ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != getgid())
		return refuse(
			why, size,
			"%s is setgid and takes no agent; run it as group %u, or a copy of it without the setgid bit",
			path, st.st_gid);
	if (getuid() && fgetxattr(fd, "security.capability", NULL, 0) > 0)
		return refuse(
			why, size,
			"%s has file capabilities and takes no agent; run it as root, or a copy of it without them",
			path);
	return 0;
}

/* The dynamic linker that the program asks for; an empty string when it asks for none. */
static int read_interpreter(int fd, const Elf64_Ehdr *eh, char interp[PATH_MAX])
{
	interp[0] = '\0';
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		Elf64_Phdr ph;

		if (pread(fd, &ph, sizeof(ph), (off_t)(eh->e_phoff + (uint64_t)i * eh->e_phentsize)) != sizeof(ph))
			return -ENOEXEC;
		if (ph.p_type != PT_INTERP)
			continue;
		if (!ph.p_filesz || ph.p_filesz >= PATH_MAX ||
		    pread(fd, interp, ph.p_filesz, (off_t)ph.p_offset) != (ssize_t)ph.p_filesz)
			return -ENOEXEC;
		interp[ph.p_filesz] = '\0';
		return 0;
	}
	return 0;
}

static int check_elf(const char *path, int fd, char *why, unsigned size)
{
	Elf64_Ehdr eh;
	char interp[PATH_MAX];

	if (pread(fd, &eh, sizeof(eh), 0) != sizeof(eh))
		return refuse(why, size, "%s: truncated ELF file", path);
	if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_machine != EM_X86_64)
		return refuse(why, size, "%s is no 64-bit x86 program (ELF machine %u); use an x86-64 build of it",
			      path, eh.e_machine);
	if (read_interpreter(fd, &eh, interp))
		return refuse(why, size, "%s: damaged ELF file", path);
	if (!interp[0])
		return refuse(why, size,
			      "%s is statically linked and takes no agent; use a dynamically linked build of it", path);

	const char *base = strrchr(interp, '/');
	if (strcmp(base ? base + 1 : interp, "ld-linux-x86-64.so.2"))
		return refuse(why, size,
			      "%s is linked against another libc (%s) than the agent; use a glibc build of it", path,
			      interp);
	return check_privilege(path, fd, why, size);
}

/* The interpreter of "#! INTERPRETER [ARG]"; /bin/sh for text without one, as execvp(3) has it. */
static void script_interpreter(char *line, char path[PATH_MAX])
{
	char *name = "/bin/sh";

	if (line[0] == '#' && line[1] == '!') {
		name = line + 2 + strspn(line + 2, " \t");
		name[strcspn(name, " \t\n")] = '\0';
	}
	snprintf(path, PATH_MAX, "%s", name);
}

int spw__program_check(const char *path, char *why, unsigned size)
{
	char at[PATH_MAX], head[256];

	snprintf(at, sizeof(at), "%s", path);
	for (unsigned depth = 0; depth <= INTERPRETERS; depth++) {
		int fd = open(at, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0) {
			int err = -errno;
			refuse(why, size, "%s: %s", at, strerror(errno));
			return err;
		}
		ssize_t got = pread(fd, head, sizeof(head) - 1, 0);
		bool elf = got >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG);
		int verdict = elf ? check_elf(at, fd, why, size) : 0;
		close(fd);
		if (elf)
			return verdict;
		head[got > 0 ? got : 0] = '\0';
		script_interpreter(head, at);
	}
	refuse(why, size, "%s: scripts of scripts, too deep", path);
	return -ELOOP;
}

int spw__agent_find(char path[PATH_MAX])
{
	static const char *const places[] = {SPW_AGENT_NAME, "../lib/spillway/" SPW_AGENT_NAME};
	char dir[PATH_MAX - 64], at[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", dir, sizeof(dir) - 1);

	if (len < 0)
		return -errno;
	dir[len] = '\0';
	*strrchr(dir, '/') = '\0';
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(at, sizeof(at), "%s/%s", dir, places[i]);
		if (realpath(at, path))
			return 0;
		snprintf(path, PATH_MAX, "%s", at);
	}
	return -ENOENT;
}
