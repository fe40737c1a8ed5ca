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
    own = [r.getrandbits(60) for _ in range(170000)]
    handed[(number + 1) % 3].put(sorted(own))
    text = " ".join(map(str, own)).encode()
    other = handed[number].get()
    results[number] = (zlib.crc32(zlib.compress(text, 1)), zlib.crc32(text), sum(other[::7]), other[0])


threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(sorted(results.items()))
