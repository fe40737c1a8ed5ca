# SPDX-License-Identifier: Apache-2.0
"""A large table in the parent that forked workers read, and change for themselves, while the parent goes on."""
import multiprocessing
import random

r = random.Random(2)
table = [r.randbytes(400).hex().encode() for _ in range(36000)]


def digest(part):
    total = 0
    for i in range(part, len(table), 4):
        total = (total * 33 + int.from_bytes(table[i][:8], "little")) % (1 << 61)
    for i in range(part, len(table), 40):
        table[i] = table[i][::-1]
    return part, total, sum(t[0] for t in table[part::40])


if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.map_async(digest, range(4), chunksize=1)
        for i in range(0, len(table), 16):
            table[i] = table[i].swapcase()
        results = parts.get()
    print(sorted(results))
    print(sum(t[5] for t in table), len(table))
