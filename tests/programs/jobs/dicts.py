# SPDX-License-Identifier: Apache-2.0
"""Dictionaries, arrays and strings, read back in another order than written."""
import array
import random

r = random.Random(1)
words = {f"word-{i}": [i, str(i * 7)] for i in range(75000)}
numbers = array.array("q", (r.getrandbits(40) for _ in range(700000)))
order = sorted(words, key=lambda w: words[w][1])
total = 0
for i, w in enumerate(order):
    total = (total * 31 + words[w][0] + numbers[i * 13 % len(numbers)]) % (1 << 61)
numbers = array.array("q", sorted(numbers))
print(total, sum(numbers[::97]), numbers[0], numbers[-1])
for w in list(words)[::5]:
    del words[w]
print(len(words), sum(v[0] for v in words.values()))
