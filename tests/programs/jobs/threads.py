# SPDX-License-Identifier: Apache-2.0
"""Threads that fill, sort and compress their own data, and pass it on."""
import queue
import random
import threading
import zlib

results = {}
handed = [queue.Queue() for _ in range(3)]


def work(number):
    r = random.Random(number)
    own = [r.randbytes(4000).hex().encode() * 2 for _ in range(800)]
    handed[(number + 1) % 3].put(sorted(own))
    text = b"".join(own)
    other = b"".join(handed[number].get())
    results[number] = (zlib.crc32(zlib.compress(text[:2000000], 1)), zlib.crc32(text), zlib.crc32(other))


threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(sorted(results.items()))
