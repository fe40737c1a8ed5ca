# SPDX-License-Identifier: Apache-2.0
"""bench/touch.c, run once under Spillway or under one of its rivals."""
import copy
import json
import os
import tempfile

from kernel import Group, beside_pool, under_swapfile, under_zram, under_zswap
from machine import MIB, Missing, meminfo, read, run_program

LATENCIES = ["p50", "p99", "max"]
PACKS = 256 * MIB  # enough to see how pages pack


class Touch:
    """
    Each run gives {"us": {phase: us a page}, "seconds": all of it, "cpu": user and system time, without that of the
    kernel's own threads, "peak": the most memory that all of it took, compressed pages included}; where it is known
    "pool", what held compressed pages, and "out", how much of the set did.
    """
    shares = {}  # what a byte that is out takes in a pool: {(which, ratio): bytes}

    def __init__(self, build, folder, cap, options, ratio="3", checked=True):
        """
        options: of the program; ratio: how its pages compress. checked: Spillway's runs compare every byte at the end;
        "cpu" then is not of the same work, and is left out. The cap is what all_under_...() hold themselves to.
        """
        self.program, self.spillway = str(build / "bench" / "touch"), str(build / "spillway")
        self.dir, self.cap, self.options, self.ratio, self.checked = folder, cap, options, ratio, checked

    def words(self, size):
        return [self.program, str(size // MIB), f"ratio={self.ratio}", *self.options]

    def ours(self, size):
        return self.words(size) + (["compare"] if self.checked else [])

    def plain(self, size):
        ran = run_program(self.words(size))
        return dict(self.parse(ran), peak=ran.resident)

    def under_spillway(self, size, cap, swap=()):
        with tempfile.NamedTemporaryFile(dir=self.dir, prefix="spillway-bench-stats-") as stats:
            ran = run_program([self.spillway, "run", "--ram", str(cap), *[f"--swap={s}" for s in swap], "--stats",
                               stats.name, "--", *self.ours(size)], env=dict(os.environ, TMPDIR=self.dir))
            s = json.loads(read(stats.name))
        return dict(self.parse(ran), stats=s, peak=s["resident_peak_bytes"])

    def in_library(self, size, cap, swap):
        """The program with memory of libspillway; swap: options of bench/memory_library.c."""
        program, *words = self.ours(size)
        ran = run_program([f"{program}-library", *words, f"ram={cap}", *swap])
        result = self.parse(ran)
        return dict(result, pool=result["stats"]["pool_bytes"], peak=ran.resident,
                    out=size - result["stats"]["resident_bytes"])

    def by_faults(self, size, fault):
        """In the library, which has a file as well; fault: how faults are served."""
        return self.in_library(size, self.cap, [f"file={self.dir}", f"fault={fault}"])

    def once(self, size):
        return lambda enter: self.parse(run_program(self.words(size), enter=enter))

    def under_swapfile(self, size, limit):
        return under_swapfile(self.dir, size * 2, limit, self.once(size))

    def under_zswap(self, size, limit, compressor=None, percent=0, version=None):
        return dict(under_zswap(self.dir, size * 2, limit, self.once(size), percent, compressor, version),
                    out=size - limit)

    def under_zram(self, size, limit, algorithm="lz4"):
        return dict(under_zram(self.dir, size * 2, limit, self.once(size), algorithm), out=size - limit)

    def under_zram_and_swapfile(self, size, limit, device, algorithm):
        """device: bytes of pages that zram takes; the swapfile has the others."""
        return under_zram(self.dir, device, limit, self.once(size), algorithm, behind=size * 2)

    # What does not count against the kernel's limit is taken off it.

    def all_under_zswap(self, size, compressor=None):
        """With the pool as large as what is out; where that does not fit, with one that is always full."""
        if Group().counts_zswap:
            return self.under_zswap(size, self.cap, compressor)
        limit, percent = self.limit(Touch.under_zswap, size, compressor), 0
        if not limit:
            one_percent = meminfo("MemTotal") // 100
            if one_percent > self.cap * 3 // 4:
                raise Missing("one hundredth of the machine's memory is most of the cap: choose a larger --cap")
            limit, percent = self.cap - one_percent, 1
        return self.under_zswap(size, limit, compressor, percent)

    def all_under_zram(self, size, algorithm="lz4"):
        """With one that takes what is out; where that does not fit, one that is half of the cap, and a swapfile."""
        limit = self.limit(Touch.under_zram, size, algorithm)
        if limit:
            return self.under_zram(size, limit, algorithm)
        half = self.cap // 2
        device = int(half / self.share(Touch.under_zram, algorithm)) // 4096 * 4096
        return self.under_zram_and_swapfile(size, half, device, algorithm)

    def limit(self, under, size, how):
        """The limit with which a rival's limit and pool make the cap together; 0: there is none."""
        return beside_pool(size, self.cap, self.share(under, how))

    def share(self, under, how):
        """Of a byte that is out, what it takes in a rival's pool."""
        which = under, how, self.ratio
        if which not in self.shares:
            # A run that shows how it packs. It reads as well: some kernels then have pages in memory and in the pool.
            packs = copy.copy(self)
            packs.options = []
            ran = under(packs, PACKS, PACKS // 4, how)
            self.shares[which] = ran["pool"] / ran["out"]
        return self.shares[which]

    def parse(self, ran):
        """Lines "stat name number", and "phase us [p50 p99 max]"; those become phases of their own, as "phase p50"."""
        us, stats = {}, {}
        for name, *figures in (line.split() for line in ran.out.splitlines()):
            if name == "stat":
                stats[figures[0]] = int(figures[1])
                continue
            us[name] = float(figures[0])
            us.update({f"{name} {what}": float(f) for what, f in zip(LATENCIES, figures[1:])})
        return {"seconds": ran.seconds, "us": us, "stats": stats, **({} if self.checked else {"cpu": ran.cpu})}
