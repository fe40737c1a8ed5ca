# SPDX-License-Identifier: Apache-2.0
"""A large table in the parent that forked workers read, and change for themselves, while the parent goes on."""
import multiprocessing
import random
import zlib

PARTS = 24

r = random.Random(2)
table = [(r.randbytes(12000).hex() * 3).encode() for _ in range(800)]


def digest(part):
    total = 0
    for i in range(part, len(table), PARTS):
        total = zlib.crc32(table[i][:4096], total)
    for i in range(part, len(table), PARTS * 10):
        table[i] = table[i][::-1]
    for i in range(part, len(table), PARTS):
        total = zlib.crc32(table[i][:4096], total)
    return part, total


if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.map_async(digest, range(PARTS), chunksize=1)
        for i in range(0, len(table), 16):
            table[i] = table[i].swapcase()
        results = parts.get()
    print(sorted(results))
    print(sum(t[5] for t in table), len(table))
