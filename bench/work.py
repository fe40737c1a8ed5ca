# SPDX-License-Identifier: Apache-2.0
"""
The same work under everything that a program could be given: the library, `spillway run`, zswap with each compressor
and zram with each algorithm that the kernel has, a plain swapfile, memory without limit. All that a rival takes is
under the cap.

One case in the middle, and one thing changed at a time: how much does not fit, how it compresses, threads, writes.
Each run fills the set, reads it in order, by strides, at random and by Zipf's law, and unmaps it. Not all of it is
read: what there is of each is enough for a p99, and with more a round would only wait for deflate and the disk.
"""
from compare import compare
from kernel import zram_algorithms, zswap_compressors, zswap_name
from machine import MIB
from touch import Touch

PHASES = ["fill", "sequential", "stride", "random", "zipf", "unmap"]
OPTIONS = ["latency", "sequential=100000", "strided=20000", "random=20000", "zipf=50000"]
BASE = {"times": 2, "ratio": "3", "options": []}
CASES = {
    "2 times the cap, 3:1, 1 thread, reads": {},
    "1.25 times the cap": {"times": 1.25},
    "4 times the cap": {"times": 4},
    "pages of 1.5:1": {"ratio": "1.5"},
    "same-filled pages": {"ratio": "same"},
    "incompressible pages": {"ratio": "1"},
    "2 threads": {"options": ["threads=2"]},
    "half of it writes": {"options": ["write=50"]},
}


def work(build, folder, cap, rounds):
    parts = []
    for name, change in CASES.items():
        case = {**BASE, **change}
        touch = Touch(build, folder, cap, [*OPTIONS, *case["options"]], case["ratio"], checked=False)
        size = int(case["times"] * cap)
        parts.append(dict(compare(f"Work, {name}: {size // MIB} MiB under {cap // MIB} MiB", rivals(touch, size),
                                  rounds, PHASES, shuffled=True), case=name))
    return {"title": "work", "parts": parts}


def compressors(build, folder, cap, rounds):
    """Which of the kernel's is the fastest, in more rounds than the work has; without deflate, which is far from it."""
    touch = Touch(build, folder, cap, ["latency", "sequential=100000", "random=50000", "zipf=200000"], checked=False)
    parts = []
    for size in 2 * cap, 4 * cap:
        kernels = [rival for rival in rivals(touch, size) if "all under" in rival[0] and "deflate" not in rival[0]]
        parts.append(compare(f"Compressors: {size // MIB} MiB under {cap // MIB} MiB", kernels, rounds,
                             ["fill", "sequential", "random", "zipf", "zipf p99"], shuffled=True))
    return {"title": "compressors", "parts": parts}


def rivals(touch, size):
    return [
        ("library", lambda: touch.by_faults(size, "signal")),
        (f"spillway --ram {touch.cap // MIB}M", lambda: touch.under_spillway(size, touch.cap)),
        *[(f"{zswap_name(c)}, all under the cap", lambda c=c: touch.all_under_zswap(size, c))
          for c in zswap_compressors()],
        (f"{zswap_name()}, cgroup v2", lambda: touch.under_zswap(size, touch.cap, version=2)),
        *[(f"zram {a}, all under the cap", lambda a=a: touch.all_under_zram(size, a)) for a in zram_algorithms()],
        ("swapfile", lambda: touch.under_swapfile(size, touch.cap)),
        ("no limit", lambda: touch.plain(size)),
    ]
