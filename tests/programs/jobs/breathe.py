# SPDX-License-Identifier: Apache-2.0
"""Memory that grows and shrinks on demand, some of it checked each time. One word a line, each answered by "done"."""
import mmap
import random
import sys

PAGE = 4096


def fill(seed):
    """Bytes that compress to a third or so, told apart by their seed."""
    r = random.Random(seed)
    return r.randbytes(1100) + bytes([seed % 251]) * (PAGE - 1100)


held = []  # mappings, and the seed of the first page of each
for line in sys.stdin:
    word, _, count = line.strip().partition(" ")
    if word == "grow":
        first, pages = sum(len(m) for m, _ in held) // PAGE, int(count)
        m = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for i in range(pages):
            m[i * PAGE:(i + 1) * PAGE] = fill(first + i)
        held.append((m, first))
    elif word == "shrink":
        held.pop()[0].close()
    for m, first in held:
        pages = range(len(m) // PAGE)
        for i in pages if word == "check" else random.sample(pages, len(pages) // 4):
            if m[i * PAGE:(i + 1) * PAGE] != fill(first + i):
                sys.exit(f"page {first + i} is wrong")
    print("done", flush=True)
