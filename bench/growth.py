# SPDX-License-Identifier: Apache-2.0
"""
Does a page cost more when more is out? bench/touch.c with 1 to 16 GiB of pages that compress 3:1 in the pool, and as
much resident beside it each time. The bar: 10 % more at 16 GiB than at 1.

A page out is one of the last 512 MiB that are filled, for by then as much is out as the row says. A page in is the time
of the reads at random over the pages that came in, which Spillway counts: of a small set more reads hit what is
resident. There are no others that come in, since a fill reads nothing; and for each that comes in another goes out.
"""
from compare import compare
from machine import MIB, Missing, meminfo
from touch import Touch

GIBS = [1, 2, 4, 8, 16]
RESIDENT = 512 * MIB
PACKED = 0.355  # bytes that a byte takes which is out: LZ4, the pool's holes, bookkeeping
READS = 200000
OPTIONS = [f"tail={RESIDENT // MIB}", "repeat=0", f"random={READS}"]


def growth(build, folder, rounds):
    touch = Touch(build, folder, RESIDENT, OPTIONS, checked=False)

    def under_spillway(size, cap, pool):
        ran = touch.under_spillway(size, cap, [f"zswap,size={pool}"])
        return cost(ran, ran["stats"]["swap_in_pages"], ran["stats"]["swapped_pages_peak"] * 4096)

    def in_library(size, cap, pool):
        ran = touch.in_library(size, cap, [f"zswap={pool}", "file=none"])
        return cost(ran, ran["stats"]["in_pages"], size - ran["stats"]["resident_bytes"])

    return {"title": "growth", "parts": [
        dict(compare(f"Growth, {name}: {RESIDENT // MIB} MiB resident, and more and more out",
                     [(f"{gib} GiB out", lambda gib=gib, run=run: sized(gib << 30, run)) for gib in GIBS], rounds,
                     ["out", "in"], shuffled=True, figures="cost"), name=name)
        for name, run in (("library", in_library), ("spillway run", under_spillway))]}


def sized(out, run):
    """run(size, cap, pool), so that `out` of the size is out."""
    cap = RESIDENT + int(out * PACKED)
    need, free = cap + RESIDENT, meminfo("MemAvailable")  # the machine has other uses of memory
    if free < need:
        raise Missing(f"it needs {need // MIB} MiB, and {free // MIB} MiB are free")
    return run(RESIDENT + out, cap, cap - RESIDENT // 2)


def cost(ran, pages_in, out):
    return dict(ran, out=out, cost={"out": ran["us"]["tail"], "in": ran["us"]["random"] * READS / pages_in})
