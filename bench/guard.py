# SPDX-License-Identifier: Apache-2.0
"""
Swap, groups and settings are put back even if the benchmark is killed by kill -9.

The contexts of kernel.py put back what they changed on any exit that lets them. So the benchmark runs in a child, whose
parent keeps what there was before, and puts that back if the child could not. If it is the parent that is killed, the
child is told to end, and does it itself.
"""
import contextlib
import ctypes
import os
import pathlib
import signal
import sys

from kernel import V1, ZSWAP, lends_memory, remove_group, zswap_settings
from machine import Missing, command, read, write

PR_SET_PDEATHSIG = 1
ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def swaps():
    """None in a kernel without swap."""
    with contextlib.suppress(OSError):
        return {line.split()[0] for line in read("/proc/swaps").splitlines()[1:]}
    return set()


def zrams():
    return {p.name for p in pathlib.Path("/sys/block").glob("zram*")}


def put_back(child, folder, before):
    for path in (V1, V1.parent):
        group = path / f"spillway-bench-{child}"
        with contextlib.suppress(OSError):
            for pid in read(group / "cgroup.procs").split():
                os.kill(int(pid), signal.SIGKILL)
    for device in swaps() - before["swaps"]:
        if "spillway-bench-" in device or pathlib.Path(device).name in zrams() - before["zrams"]:
            with contextlib.suppress(Missing):
                command("swapoff", device)
    for name in zrams() - before["zrams"]:
        with contextlib.suppress(OSError):
            write(f"/sys/block/{name}/reset", 1)
            write("/sys/class/zram-control/hot_remove", name.removeprefix("zram"))
    for name, value in before["zswap"].items():
        with contextlib.suppress(OSError):
            write(ZSWAP / name, value)
    for path in (V1, V1.parent):
        remove_group(path / f"spillway-bench-{child}")
    if lends_memory(V1.parent) and not before["lends"]:
        with contextlib.suppress(OSError):
            write(V1.parent / "cgroup.subtree_control", "-memory")
    for path in set(pathlib.Path(folder).glob("spillway-bench-swap-*")) - before["files"]:
        path.unlink(missing_ok=True)


def guard(folder):
    """Returns in the child that is to do the work; the parent exits as that did."""
    before = {"swaps": swaps(), "zrams": zrams(), "zswap": zswap_settings(), "lends": lends_memory(V1.parent),
              "files": set(pathlib.Path(folder).glob("spillway-bench-swap-*"))}
    parent, child = os.getpid(), os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        for sig in ENDS:
            signal.signal(sig, lambda *_: sys.exit(1))
        if os.getppid() != parent:
            sys.exit(1)
        return
    for sig in ENDS:
        signal.signal(sig, lambda number, _: os.kill(child, number))
    signal.signal(signal.SIGINT, signal.SIG_IGN) # of a terminal: the child has it too
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        put_back(child, folder, before)
    sys.exit(128 - status if status < 0 else status)
