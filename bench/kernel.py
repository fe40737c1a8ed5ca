# SPDX-License-Identifier: Apache-2.0
"""What the kernel offers instead: a memory cgroup, and swap in a file, in zswap, in zram. All of it is put back.

under_...() run something once: once(enter) gives a result, enter() takes the calling process into the limited group.
They add "pool", the most that held compressed pages, "peak", the most that was taken with that (if the two were at the
same time; where the kernel says what a group had at most), and "rescues", how often the program was saved from the
kernel (Patience).
"""
import contextlib
import functools
import os
import pathlib
import select
import tempfile
import threading
import time

from machine import Missing, Peak, TooLong, command, meminfo, read, write

V1 = pathlib.Path("/sys/fs/cgroup/memory")
ZSWAP = pathlib.Path("/sys/module/zswap/parameters")
COMPRESSORS = ("lz4", "lzo-rle", "lzo", "zstd", "lz4hc", "deflate", "842")  # the best for swap first


def lends_memory(root):
    """Whether groups below this one have the memory controller of version 2."""
    control = root / "cgroup.subtree_control"
    return control.exists() and "memory" in read(control).split()


def remove_group(path):
    for _ in range(100): # a process that has been waited for may still be leaving
        try:
            path.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)


class Group:
    """A memory cgroup, v1 or v2."""

    def __init__(self, version=None):
        """No group is made before limited(). Without a version it is the one that has the memory controller."""
        v2 = pathlib.Path("/sys/fs/cgroup/cgroup.controllers")
        if (V1 / "memory.limit_in_bytes").exists():
            if version == 2:
                raise Missing("cgroup v1 has the memory controller, and two hierarchies cannot have it")
            self.path, self.limit_name, self.counts_zswap = V1, "memory.limit_in_bytes", False
            self.peak_name = "memory.max_usage_in_bytes"
        elif v2.exists() and "memory" in read(v2).split():
            self.path, self.limit_name, self.counts_zswap = v2.parent, "memory.max", True
            self.peak_name = "memory.peak"
        else:
            raise Missing("no memory cgroup")
        self.path = self.path / f"spillway-bench-{os.getpid()}"

    @contextlib.contextmanager
    def controlled(self):
        """Version 2: groups below the root have the memory controller meanwhile."""
        control = self.path.parent / "cgroup.subtree_control"
        lend = control.exists() and not lends_memory(self.path.parent)
        try:
            if lend:
                write(control, "+memory")
            yield
        finally:
            if lend:
                with contextlib.suppress(OSError):
                    write(control, "-memory")

    @contextlib.contextmanager
    def made(self):
        try:
            self.path.mkdir()
            yield
        finally:
            remove_group(self.path)

    @contextlib.contextmanager
    def limited(self, limit):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.controlled())
                stack.enter_context(self.made())
                self.limit(limit)
            except OSError as e:
                raise Missing(f"memory cgroup: {e.strerror}") from e
            yield lambda: write(self.path / "cgroup.procs", os.getpid())

    def limit(self, limit):
        write(self.path / self.limit_name, limit)

    def run(self, limit, once):
        with self.limited(limit) as enter, Patience(self.path, limit) as patience:
            try:
                result = once(enter)
            except Missing as e:
                if patience.rescues and not isinstance(e, TooLong):
                    raise Missing(f"{e}, saved from the OOM killer {patience.rescues} times before") from e
                raise
            result["rescues"] = patience.rescues
            with contextlib.suppress(OSError): # memory.peak is younger than memory.max
                result["peak"] = int(read(self.path / self.peak_name))
        return result


class Patience(threading.Thread):
    """
    Reclaim in a v1 group gives up when all pages were used while it looked, and the kernel kills a program that has
    swap left; in small groups that is most programs. So there the killer is turned off, and who waits for it is let try
    again at once, by a limit that is one page higher for a moment. How often, the row says. A system call that finds no
    room does not wait: it fails with ENOMEM, and mostly the program with it. What the kernel itself writes to the
    program's memory on the way back to it (rseq) does not wait either: SIGSEGV.
    """

    def __init__(self, group, limit):
        super().__init__(daemon=True)
        self.control, self.limit_file, self.limit = group / "memory.oom_control", group / "memory.limit_in_bytes", limit
        self.over, self.rescues, self.event = threading.Event(), 0, None

    def run(self):
        while not self.over.is_set():
            select.select([self.event], [], [], 0.02)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.event)
            if "under_oom 1" in read(self.control):
                self.rescues += 1
                for limit in (self.limit + 4096, self.limit):
                    with contextlib.suppress(OSError): # busy: it is tried again at the next time
                        write(self.limit_file, limit)

    def __enter__(self):
        if self.control.exists():
            write(self.control, 1)
            self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            with open(self.control, encoding="utf-8") as control:
                write(self.control.parent / "cgroup.event_control", f"{self.event} {control.fileno()}")
            self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        if self.event is not None:
            self.join()
            os.close(self.event)


@contextlib.contextmanager
def swapped_on(device, priority=32767):
    try:
        command("mkswap", device)
        command("swapon", "-p", str(priority), device)
        yield
    finally:
        if any(l.split()[0] == device for l in read("/proc/swaps").splitlines()):
            command("swapoff", device)


@contextlib.contextmanager
def swapfile(folder, size, priority=32767):
    with tempfile.NamedTemporaryFile(dir=folder, prefix="spillway-bench-swap-") as f:
        os.fchmod(f.fileno(), 0o600)
        os.posix_fallocate(f.fileno(), 0, size)
        with swapped_on(f.name, priority):
            yield f.name


def zswap_settings():
    names = ["compressor", "max_pool_percent", "accept_threshold_percent", "shrinker_enabled", "enabled"]
    return {n: read(ZSWAP / n) for n in names if (ZSWAP / n).exists()}


@contextlib.contextmanager
def zswap_kept():
    """What is changed of zswap meanwhile is put back."""
    if not ZSWAP.exists():
        raise Missing("no zswap in this kernel")
    before = zswap_settings()
    try:
        yield
    except PermissionError as e:
        raise Missing(f"zswap: {e.strerror}") from e
    finally:
        # A compressor that was only ever a name, and is not in this kernel, cannot be had back.
        for name, value in before.items():
            with contextlib.suppress(PermissionError, FileNotFoundError):
                write(ZSWAP / name, value)


@contextlib.contextmanager
def zswap_on(percent, compressor=None):
    """zswap with that compressor, or the best there is; max_pool_percent as given, or as large as it goes."""
    with zswap_kept():
        for name, value in (("enabled", "Y"), ("compressor", compressor or zswap_compressors()[0]),
                            ("max_pool_percent", percent or 50)):
            write(ZSWAP / name, value)
        yield


@functools.cache
def zswap_compressors():
    """
    Those that this kernel has, the best first: it takes the name of no other, and loads some only when they are named.
    (Until zswap is switched on for the first time, it takes any.) Where nobody may ask, one, for the name of the row
    that will say so.
    """
    def taken(name):
        try:
            write(ZSWAP / "compressor", name)
        except FileNotFoundError:
            return False
        return True

    have = []
    with contextlib.suppress(Missing), zswap_kept():
        write(ZSWAP / "enabled", "Y")
        have = [c for c in COMPRESSORS if taken(c)]
    return have or ["lzo"]


def zswap_name(compressor=None):
    return f"zswap {compressor or zswap_compressors()[0]} + swapfile"


@contextlib.contextmanager
def zram_device():
    """One more, not set up; yields its name and its sysfs folder."""
    try:
        number = read("/sys/class/zram-control/hot_add")
    except OSError as e:
        raise Missing(f"no zram: {e.strerror}") from e
    home = pathlib.Path(f"/sys/block/zram{number}")
    try:
        yield f"/dev/zram{number}", home
    finally:
        write(home / "reset", 1)
        write("/sys/class/zram-control/hot_remove", number)


@contextlib.contextmanager
def zram_on(size, algorithm="lz4"):
    """Yields the sysfs folder of the device."""
    with zram_device() as (device, home):
        try:
            write(home / "comp_algorithm", algorithm)
        except OSError as e:
            raise Missing(f"this kernel's zram has no {algorithm}") from e
        write(home / "disksize", size)
        with swapped_on(device):
            yield home


@functools.cache
def zram_algorithms():
    """Those that this kernel has; where nobody may ask, one, for the name of the row that will say so."""
    with contextlib.suppress(Missing), zram_device() as (_, home):
        return read(home / "comp_algorithm").replace("[", "").replace("]", "").split()
    return ["lz4"]


def with_pool(result, pool, counted=False):
    """The result of a run in a group, with what held compressed pages beside it; counted: the group counts that too."""
    return dict(result, pool=pool, **({"peak": result["peak"] + pool} if "peak" in result and not counted else {}))


def under_swapfile(folder, size, limit, once):
    with swapfile(folder, size):
        return Group().run(limit, once)


def under_zswap(folder, size, limit, once, percent=0, compressor=None, version=None):
    group = Group(version)
    with zswap_on(percent, compressor), swapfile(folder, size), Peak(lambda: meminfo("Zswap")) as pool:
        result = group.run(limit, once)
    return with_pool(result, pool.most, group.counts_zswap)


def under_zram(folder, size, limit, once, algorithm="lz4", behind=0):
    """behind: bytes of a swapfile for what zram has no room for."""
    with zram_on(size, algorithm) as home, contextlib.ExitStack() as stack:
        if behind:
            stack.enter_context(swapfile(folder, behind, 32766))
        result = Group().run(limit, once)
        return with_pool(result, int(read(home / "mm_stat").split()[4]))


def beside_pool(need, cap, share):
    """
    The limit that makes the cap together with the pool of what then is out, if a byte that is out takes `share` bytes
    there; 0: there is none worth a try.
    """
    limit = int((cap - need * share) / (1 - share)) // 4096 * 4096 if share < 1 else 0
    return limit if limit >= cap // 10 else 0
