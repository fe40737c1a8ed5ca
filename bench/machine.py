# SPDX-License-Identifier: Apache-2.0
"""What all parts of the benchmark use: the machine's own figures, and programs that are run and watched."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import typing

MIB = 1 << 20


class Missing(Exception):
    """This machine, or this user, cannot run a rival; the text says why."""


class TooLong(Missing):
    """A run was ended since it took longer than it may."""

    def __init__(self, seconds):
        super().__init__(f"over {seconds:.0f} s")
        self.seconds = seconds


def read(path):
    return pathlib.Path(path).read_text(encoding="utf-8").strip()


def write(path, text):
    pathlib.Path(path).write_text(str(text), encoding="utf-8")


def command(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{words[0]}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
    return done.stdout.strip()


def meminfo(name):
    for line in read("/proc/meminfo").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


class Peak(threading.Thread):
    """The most that `value` says while a program runs."""

    def __init__(self, value):
        super().__init__(daemon=True)
        self.value, self.most, self.over = value, 0, threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, self.value())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


class Ran(typing.NamedTuple):
    """What a program printed; its wall and CPU seconds, and the most that was resident of the largest process."""
    out: str
    seconds: float
    cpu: float
    resident: int


def ended(code):
    return f"exit status {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


def run_program(words, env=None, enter=None):
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        p = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True, env=env, preexec_fn=enter)
        try:
            out = p.stdout.read()
            _, status, usage = os.wait4(p.pid, 0)
            p.returncode = os.waitstatus_to_exitcode(status)
        finally:
            p.stdout.close()
            if p.returncode is None:
                p.kill()
                p.wait()
        seconds = time.monotonic() - begin
        if p.returncode:
            said.seek(0)
            raise Missing(": ".join(filter(None, [ended(p.returncode), said.read().strip()[-200:]])))
    return Ran(out, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# What the kernel's swap is set to; none is changed but zswap's compressor and limit, by the rows that name them.
SETTINGS = {
    "vm.swappiness": "/proc/sys/vm/swappiness",
    "vm.page-cluster": "/proc/sys/vm/page-cluster",
    "zswap.accept_threshold_percent": "/sys/module/zswap/parameters/accept_threshold_percent",
    "zswap.shrinker_enabled": "/sys/module/zswap/parameters/shrinker_enabled",
    "lru_gen.enabled": "/sys/kernel/mm/lru_gen/enabled",
    "transparent_hugepage": "/sys/kernel/mm/transparent_hugepage/enabled",
}


def describe(folder):
    cpu = next((l.split(":")[1].strip() for l in read("/proc/cpuinfo").splitlines() if l.startswith("model name")), "?")
    disk = command("df", "--output=source,fstype,avail", "-BG", folder).splitlines()[-1].split()
    settings = {name: read(path) for name, path in SETTINGS.items() if os.path.exists(path)}
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "memory_bytes": meminfo("MemTotal"),
            "kernel": os.uname().release, "disk": " ".join(disk), "settings": settings}
