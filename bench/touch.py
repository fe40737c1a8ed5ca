# SPDX-License-Identifier: Apache-2.0
"""bench/touch.c, run once under Spillway or under one of its rivals."""
import json
import os
import tempfile

from kernel import Group, beside_pool, under_swapfile, under_zram, under_zswap
from machine import MIB, Missing, meminfo, read, run_program

LATENCIES = ["p50", "p99", "max"]


class Touch:
    """
    Each run gives {"us": {phase: us a page}, "seconds": all of it}; where it is known "pool", what held compressed
    pages, "out", how much of the set did, and "peak", the most that counted against the cap.
    """

    def __init__(self, build, folder, cap, options):
        """options: of the program. The cap is what all_under_...() hold themselves to."""
        self.program, self.spillway = str(build / "bench" / "touch"), str(build / "spillway")
        self.dir, self.cap, self.options = folder, cap, options
        self.limits = {}

    def words(self, size):
        return [self.program, str(size // MIB), *self.options]

    def plain(self, size):
        return self.parse(run_program(self.words(size)))

    def under_spillway(self, size, cap):
        stats = tempfile.NamedTemporaryFile(dir=self.dir, prefix="spillway-bench-stats-")
        with stats:
            out = run_program([self.spillway, "run", "--ram", str(cap), "--stats", stats.name, "--", *self.words(size),
                               "compare"], env=dict(os.environ, TMPDIR=self.dir))
            s = json.loads(read(stats.name))
        result = self.parse(out)
        result["stats"] = s
        result["peak"] = s["resident_peak_bytes"]
        return result

    def in_library(self, size, fault):
        """The program with memory of libspillway."""
        result = self.parse(run_program([f"{self.program}-library", *self.words(size)[1:], "compare",
                                         f"ram={self.cap}", f"file={self.dir}", f"fault={fault}"]))
        result["pool"], result["peak"] = (result["stats"][name] for name in ("pool_bytes", "peak_bytes"))
        return result

    def once(self, size):
        return lambda enter: self.parse(run_program(self.words(size), enter=enter))

    def under_swapfile(self, size, limit):
        return under_swapfile(self.dir, size * 2, limit, self.once(size))

    def under_zswap(self, size, limit, percent=0):
        return dict(under_zswap(self.dir, size * 2, limit, self.once(size), percent), out=size - limit)

    def under_zram(self, size, limit):
        return dict(under_zram(self.dir, size * 2, limit, self.once(size)), out=size - limit)

    # What does not count against the kernel's limit is taken off it.

    def all_under_zswap_full(self, size):
        """Of a set that does not fit, compressed: the pool is always full."""
        one_percent = meminfo("MemTotal") // 100
        if Group().counts_zswap:
            return self.under_zswap(size, self.cap)
        if one_percent > self.cap * 3 // 4:
            raise Missing("one hundredth of the machine's memory is most of the cap: choose a larger --cap")
        return self.under_zswap(size, self.cap - one_percent, percent=1)

    def all_under_zswap(self, size):
        if Group().counts_zswap:
            return self.under_zswap(size, self.cap)
        return self.under_zswap(size, self.limit(self.under_zswap, size))

    def all_under_zram(self, size):
        return self.under_zram(size, self.limit(self.under_zram, size))

    def limit(self, once, size):
        """The limit with which a rival's limit and pool make the cap together, from a run that shows how it packs."""
        if once not in self.limits:
            limit = self.cap // 2
            self.limits[once], _ = beside_pool(size, self.cap, limit, once(size, limit)["pool"])
        if self.limits[once] < self.cap // 10:
            raise Missing("the set does not fit into the cap, compressed")
        return self.limits[once]

    @staticmethod
    def parse(ran):
        """Lines "stat name bytes", and "phase us [p50 p99 max]"; those become phases of their own, as "phase p50"."""
        out, seconds = ran
        us, stats = {}, {}
        for name, *figures in (line.split() for line in out.splitlines()):
            if name == "stat":
                stats[figures[0]] = int(figures[1])
                continue
            us[name] = float(figures[0])
            us.update({f"{name} {what}": float(f) for what, f in zip(LATENCIES, figures[1:])})
        return {"seconds": seconds, "us": us, "stats": stats}
