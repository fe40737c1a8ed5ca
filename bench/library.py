# SPDX-License-Identifier: Apache-2.0
"""
libspillway beside its rivals: the same program with memory of the library, under `spillway run`, and under what the
kernel offers, with all that is compressed under the cap too. In random order within each round.

Spillway chooses the size of its pools. The kernel's comes in hundredths of the machine's memory. zram has no way to the
disk: where the set does not fit, compressed, there is no row of it.
"""
from compare import compare
from kernel import zswap_name
from machine import MIB
from touch import Touch

RANDOM = ["random", "random p50", "random p99"]


def library(build, folder, cap, rounds):
    def touch(*options):
        return Touch(build, folder, cap, ["latency", *options], checked=False)

    def four(what, program, phases):
        return compare(f"Library, {what}: {4 * cap // MIB} MiB under {cap // MIB} MiB", rivals_of_four(program),
                       rounds, phases, shuffled=True)

    return {"title": "library", "parts": [
        four("1 thread", touch("random=50000"), ["fill", "sequential", *RANDOM, "unmap"]),
        four("2 threads", touch("random=50000", "repeat=0", "threads=2"), ["fill", *RANDOM, "unmap"]),
        compare(f"Library, Zipf's law, half of it writes: {2 * cap // MIB} MiB under {cap // MIB} MiB",
                rivals_of_two(touch("zipf=200000", "write=50", "repeat=0")), rounds,
                ["fill", "zipf", "zipf p50", "zipf p99", "unmap"], shuffled=True),
    ]}


def rivals_of_four(touch):
    """Of which some is on disk."""
    return rivals(touch, 4 * touch.cap, [(zswap_name(), touch.all_under_zswap)])


def rivals_of_two(touch):
    """All of which fits, compressed."""
    return rivals(touch, 2 * touch.cap, [(zswap_name(), touch.all_under_zswap), ("zram lz4", touch.all_under_zram)])


def rivals(touch, size, kernel):
    """kernel: (name, what runs it) of those that hold compressed pages."""
    return [
        ("library, signal", lambda: touch.by_faults(size, "signal")),
        ("library, thread", lambda: touch.by_faults(size, "thread")),
        (f"spillway --ram {touch.cap // MIB}M", lambda: touch.under_spillway(size, touch.cap)),
        *[(f"{name}, all under the cap", lambda under=under: under(size)) for name, under in kernel],
        ("swapfile", lambda: touch.under_swapfile(size, touch.cap)),
    ]
