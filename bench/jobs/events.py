# SPDX-License-Identifier: Apache-2.0
"""events.py USERS: what a service does that keeps its users in dictionaries, and prints a checksum.

Most events are of users who came lately; one in fifty is of anybody. In the end comes a report over all.
"""
import random
import sys

WORDS = ["order", "basket", "returned", "address", "delivery", "invoice", "reminder", "paid", "cancelled", "question"]

most = int(sys.argv[1])
r = random.Random(1)
users, total = {}, 0


def new_user():
    i = len(users)
    users[f"user-{i}"] = {"id": i, "session": r.randbytes(120).hex(), "seen": 0,
                          "log": [f"{r.choice(WORDS)} {r.choice(WORDS)} {r.randrange(1000)}" for _ in range(6)]}


while len(users) < most:
    new_user()
    for _ in range(4):
        lately = r.random() < 0.98
        i = r.randrange(max(0, len(users) - most // 40) if lately else 0, len(users))
        user = users[f"user-{i}"]
        user["seen"] += 1
        user["log"][user["seen"] % 6] = f"{r.choice(WORDS)} {user['seen']}"
        total += int(user["session"][:4], 16)
print(total, sum(u["seen"] * u["id"] + sum(map(len, u["log"])) for u in users.values()))
