# SPDX-License-Identifier: Apache-2.0
"""Dictionaries, arrays and strings, read back in another order than written."""
import array
import random

r = random.Random(1)
table = {f"word-{i}": [i, r.randbytes(6000).hex()] for i in range(8000)}
numbers = array.array("d", (r.random() for _ in range(3000000)))
order = sorted(table, key=lambda w: table[w][1][:8])
total = 0
for i, w in enumerate(order):
    total = (total * 31 + table[w][0] + int(table[w][1][-6:], 16)) % (1 << 61)
    numbers[i * 32 % len(numbers)] += i
doubles = array.array("d", (2 * x for x in numbers))
print(total, sum(numbers), max(doubles), doubles[12345])
for w in list(table)[::5]:
    del table[w]
print(len(table), sum(v[0] for v in table.values()))
