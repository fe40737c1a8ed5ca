# SPDX-License-Identifier: Apache-2.0
"""The real programs of tests/programs, on inputs small enough for a run of some ten million instructions.

What a page costs to fill decides the size: long lines and repeated strings are written by few instructions each.
"""
import contextlib
import os
import random
import socket
import subprocess
import sys
import time

ENV = dict(os.environ, LC_ALL="C", PYTHONHASHSEED="0")

DICTS = """
import array, random
r = random.Random(1)
table = {f"word-{i}": [i, r.randbytes(16).hex() * 190] for i in range(2200)}
numbers = array.array("d", bytes(8)) * 400000
order = sorted(table, key=lambda w: table[w][1][:8])
total = 0
for i, w in enumerate(order):
    total = (total * 31 + table[w][0] + int(table[w][1][-6:], 16)) % (1 << 61)
    numbers[i * 149 % len(numbers)] += i
hot = [order[int(len(order) * r.random() ** 3)] for _ in range(5000)]
for w in hot:
    total += len(table[w][1].encode()) + table[w][0]
for w in list(table)[::5]:
    del table[w]
print(total, sum(numbers[::512]), len(table), sum(v[0] for v in table.values()))
"""

JOIN = """
PRAGMA page_size = 4096;
PRAGMA cache_size = -400000;
PRAGMA temp_store = MEMORY;
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, class INTEGER);
CREATE TABLE sale(item INTEGER, amount INTEGER, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO item SELECT i, 'item ' || (i * 7919 % 300) || ' of the catalogue', i * 31 % 97 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2400)
INSERT INTO sale SELECT 1 + i % 300, i * 37 % 1000, zeroblob(3500) FROM n;
CREATE INDEX sale_item ON sale(item, amount);
SELECT class, count(*), sum(amount), max(name), max(length(note)) FROM sale JOIN item ON item.id = sale.item
GROUP BY class ORDER BY class;
SELECT name, sum(amount) AS s FROM item JOIN sale ON item = id WHERE class < 10 GROUP BY name ORDER BY s DESC LIMIT 50;
"""


def write(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="ascii") as f:
        f.write(text)


def words(folder, lines=1600):
    """Long lines, a third of them noise; a quarter of the lines is there twice."""
    r = random.Random(1)
    made = [f"{r.getrandbits(50):013x} {i} {r.randbytes(1500).hex()} {'-' * 6000}\n" for i in range(lines)]
    write(folder, "words", "".join(made + made[::4]))


def source(folder):
    r = random.Random(1)
    write(folder, "small.c", "".join(
        f'static const char text{t}[] = "{r.randbytes(10000).hex()}";\n'
        f"int f{t}(int *p, int n) {{ int s = {t}; for (int k = 0; k < n; k++) {{ s += p[k] * {t * 7 % 101} ^ "
        f"text{t}[k % 20000]; if (s & {1 << t % 20}) s ^= p[(s & 15)]; }} return s; }}\n" for t in range(4)))


class Program:
    """make: writes the input; words: the command, run in the folder of the input; drive: talks to it meanwhile."""

    def __init__(self, command, make=lambda folder: None, drive=None):
        self.command, self.make, self.drive = command, make, drive

    def run(self, folder, wrapper=(), **popen):
        """To its end, which must be a good one. What it says is dropped."""
        with open(os.path.join(folder, "messages"), "w+", encoding="utf-8", errors="replace") as err:
            p = subprocess.Popen([*wrapper, *self.command()], cwd=folder, env=ENV, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=err, **popen)
            try:
                if self.drive:
                    self.drive(folder, p)
                status = p.wait()
            finally:
                if p.poll() is None:
                    p.kill()
                    p.wait()
            if status:
                err.seek(0)
                raise RuntimeError(f"{' '.join(self.command())}: exit status {status}: {err.read()[-300:].strip()}")


def ask(server, answers, command):
    """One command, a list of bytes."""
    server.sendall(b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in command))
    line = answers.readline()
    if line[:1] not in (b"+", b"$"):
        raise RuntimeError(f"redis-server answers {line}")
    if line[:1] == b"$":
        answers.read(int(line[1:]) + 2)


def talk(folder, process):
    """Fill it, then read and write by Zipf's law."""
    r = random.Random(1)
    keys, skew = 1500, [1 / (i + 1) for i in range(1500)]
    order = r.sample(range(keys), keys)
    with socket.socket(socket.AF_UNIX) as server:
        while server.connect_ex(os.path.join(folder, "socket")):
            if process.poll() is not None:
                raise RuntimeError("redis-server does not start")
            time.sleep(0.05)
        with server.makefile("rb") as answers:
            for i in range(keys):
                ask(server, answers, [b"SET", b"key:%d" % i, b"%d" % i * 2000])
            for n, i in enumerate(r.choices(order, skew, k=4000)):
                ask(server, answers, [b"GET", b"key:%d" % i] if n % 8 else [b"SET", b"key:%d" % i, b"%d" % n * 2000])
        with contextlib.suppress(ConnectionError):
            server.sendall(b"SHUTDOWN NOSAVE\r\n")
            process.wait(120)


def compiler():
    found = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True)
    return [found.stdout.strip(), "-quiet", "-O2", "small.c", "-o", "small.s"]


PROGRAMS = {
    "sort": Program(lambda: ["sort", "-S", "64M", "--parallel=1", "words"], words),
    "sqlite3": Program(lambda: ["sqlite3", ":memory:", "-init", "join.sql", ".quit"],
                       lambda folder: write(folder, "join.sql", JOIN)),
    "python3": Program(lambda: [sys.executable, "-S", "-E", "dicts.py"],
                       lambda folder: write(folder, "dicts.py", DICTS)),
    "redis": Program(lambda: ["redis-server", "--port", "0", "--unixsocket", "socket", "--save", "", "--hz", "1",
                              "--dynamic-hz", "no", "--daemonize", "no"], drive=talk),
    "xz": Program(lambda: ["xz", "-T1", "-0", "-kc", "words"], lambda folder: words(folder, 60)),
    "gcc": Program(compiler, source),
}
