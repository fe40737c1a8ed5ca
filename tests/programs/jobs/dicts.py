# SPDX-License-Identifier: Apache-2.0
"""Dictionaries, arrays and strings, read back in another order than written."""
import array
import random

r = random.Random(1)
words = {f"word-{i}": [i, r.randbytes(450).hex()] for i in range(30000)}
numbers = array.array("d", (r.random() for _ in range(1200000)))
order = sorted(words, key=lambda w: words[w][1][:8])
total = 0
for i, w in enumerate(order):
    total = (total * 31 + words[w][0] + int(words[w][1][-6:], 16)) % (1 << 61)
    numbers[i * 32 % len(numbers)] += i
doubles = array.array("d", (2 * x for x in numbers))
print(total, sum(numbers), max(doubles), doubles[12345])
for w in list(words)[::5]:
    del words[w]
print(len(words), sum(v[0] for v in words.values()))
