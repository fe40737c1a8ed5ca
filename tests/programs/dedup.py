# SPDX-License-Identifier: Apache-2.0
"""--dedup: pages of equal bytes share an entry, and nobody is given another's bytes by that."""
import json
import os
import re
import subprocess
import sys

from common import MIB, SPILLWAY, TIMEOUT, expect, main, read_stats, run, tool

PAGE = 4096
FRAMES = 8192  # the most that may wait to be stored


class Pages:
    """Memory of `kinds` different pages over and over, under a cap of 64 MiB."""

    def __init__(self, scratch, mib, kinds, *options):
        self.stats = os.path.join(scratch, "stats")
        command = [SPILLWAY, "run", "--ram", "64M", *options, "--stats", self.stats, "--", tool("pages"), str(mib), "11",
                   str(kinds)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, word, answer):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        got = self.process.stdout.readline()
        expect(re.match(answer, got), f"{word} was answered by {got!r}: exit status {self.process.poll()}")

    def now(self):
        """(pages out, objects in the pool) at this moment."""
        out, _ = run([SPILLWAY, "list", "--json", str(self.process.pid)])
        s = json.loads(out)
        return s["swapped_pages"], sum(t["pages"] for t in s["tiers"])

    def end(self):
        out, _ = self.process.communicate(timeout=TIMEOUT)
        expect(self.process.returncode == 0, f"the program ended with {self.process.returncode}")
        return out, read_stats(self.stats)


def stored(s):
    return sum(t["stored_bytes"] for t in s["tiers"])


def kept_once(scratch, evict):
    """256 MiB of 1000 different pages, with nowhere to go but a pool of 32 MiB; without --dedup, a file too."""
    p = Pages(scratch, 256, 1000, "--evict", evict, "--dedup", "--swap", "zswap")
    p.say("fill", "filled")
    p.say("check", "right")
    # Most of what is out was merged with what others still hold: written to, it is a page of its own again.
    for nth in (7, 3, 5):
        p.say(f"change {nth}", "changed")
        p.say("check", "right")
    _, once = p.end()
    p = Pages(scratch, 256, 1000, "--evict", evict, "--swap", "zswap", "--swap", "file")
    p.say("fill", "filled")
    p.say("check", "right")
    _, plain = p.end()
    expect(once["merged_pages"] > 40000, f"only {once['merged_pages']} pages were merged")
    expect(once["merged_pages_peak"] > 40000, f"only {once['merged_pages_peak']} at a time")
    expect(stored(once) * 8 < stored(plain), f"{stored(once)} bytes stored, {stored(plain)} without --dedup")
    expect(plain["merged_pages"] == 0 and plain["merged_pages_peak"] == 0, "merged without --dedup")
    return f"{once['merged_pages']} pages merged, {stored(once) / MIB:.1f} MiB stored instead of {stored(plain) / MIB:.1f}"


def held_often(scratch, evict):
    """One page, 512 MiB of it: its entry's count outgrows the descriptor, by far."""
    p = Pages(scratch, 512, 1, "--evict", evict, "--dedup", "--swap", "zswap")
    p.say("fill", "filled")
    out, objects = p.now()
    p.say("check", "right")
    p.say("change 3", "changed")
    p.say("check", "right")
    _, s = p.end()
    expect(objects == 1, f"{objects} objects for one page")
    expect(out - FRAMES > 100000, f"only {out} pages were out")
    return f"{out} pages out, {objects} object"


def fork(scratch, evict):
    """Both sides of a fork write to pages that were merged before it, and find their own bytes."""
    p = Pages(scratch, 192, 300, "--evict", evict, "--dedup")
    p.say("fill", "filled")
    p.say("churn 40000", r"churning \d+ \d+")
    out, s = p.end()
    expect(sorted(out.split("\n")) == ["", "right child", "right parent"], f"it said {out!r}")
    expect(s["merged_pages"] > 40000, f"only {s['merged_pages']} pages were merged")
    return f"{s['merged_pages']} pages merged"


WHAT = [("equal pages are kept once", kept_once), ("a page held a hundred thousand times", held_often),
        ("equal pages and a fork", fork)]
CASES = [(f"{name}, by {evict}", lambda scratch, f=function, e=evict: f(scratch, e))
         for evict in ("move", "wp") for name, function in WHAT]

if __name__ == "__main__":
    sys.exit(main(CASES))
