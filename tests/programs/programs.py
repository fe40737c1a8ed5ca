#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real programs under a cap of a quarter of the memory that they use without one.

Each runs twice: alone, measured; then capped. Its output must be the same byte for byte, pages must really have gone
out (the statistics say so), and the memory of the whole tree, sampled from outside, must have kept to the cap.
"""
import hashlib
import os
import random
import socket
import subprocess
import sys
import time

from common import HERE, MIB, SPILLWAY, TIMEOUT, capped, expect, main, read_samples, read_stats, run, tool

PYTHON = sys.executable
SLACK = 16 * MIB  # the cap, plus this or 5 %, in 99 of 100 samples
LEAST_CAP = 16 * MIB  # `spillway run` takes no less
NEVER = 64 * MIB  # the cap, plus this, in none
SHARED_SECONDS = 4  # for both sides of a fork to write to what they share
PLAIN, UNDER = "1", "2"  # processes until the program has a child: itself; with `spillway run`


def job(name):
    return os.path.join(HERE, "jobs", name)


# Inputs: each writes the files that its programs read. They are large in few pieces: what is to go out decides the
# size, and what a run takes is decided by how often the program comes back to it.

def words(scratch):
    """128 MiB in long lines, a third of them noise; a quarter of the lines is there twice."""
    r = random.Random(1)
    lines = []
    for i in range(3200):
        noise = r.randbytes(5400).hex()
        lines.append(f"{r.getrandbits(50):013x} {r.choice(('red', 'green', 'blue'))} {i} {noise} {noise[:5400]} {'-' * 16000}\n")
    with open(os.path.join(scratch, "words"), "w", encoding="ascii") as f:
        f.writelines(lines)
        f.writelines(lines[::4])


def source(scratch):
    """Long strings, for the compiler to carry from front to end, some tables, and functions of its daily work."""
    r = random.Random(1)
    texts = range(36)
    with open(os.path.join(scratch, "large.c"), "w", encoding="ascii") as f:
        for t in texts:
            f.write(f'static const char text{t}[] = "{r.randbytes(1000000).hex()}";\n'
                    f"static const short table{t}[] = {{{','.join(str(r.randrange(1000)) for _ in range(5000))}}};\n")
        for t in texts:
            f.write(f"int f{t}(int *p, int n) {{ int s = {t}; for (int k = 0; k < n; k++) {{ "
                    f"s += p[k] * {t * 7 % 101} ^ text{t}[k % 2000000] + table{t}[k % 5000]; "
                    f"if (s & {1 << t % 20}) s ^= p[(s & 15)]; }} return s; }}\n")
        f.write("int all(int *p, int n) { int s = 0;\n" + "".join(f"s ^= f{t}(p, n);\n" for t in texts) + "return s; }\n")


def nothing(_):
    pass


# name: input, command (in the scratch directory), file that it writes beside its standard output.
PROGRAMS = {
    "sort": (words, ["sort", "-S", "1G", "--parallel=2", "words"], None),
    "sqlite3 join in memory": (nothing, ["sqlite3", "-init", job("join.sql"), ":memory:", ".quit"], None),
    "python3 dictionaries": (nothing, [PYTHON, job("dicts.py")], None),
    "python3 multiprocessing": (nothing, [PYTHON, job("forks.py")], None),
    "python3 threads": (nothing, [PYTHON, job("threads.py")], None),
    "xz -T2": (words, ["xz", "-T2", "-0", "--block-size=48MiB", "-kc", "words"], None),
    "zstd -T2 --long": (words, ["zstd", "-q", "-T2", "--long=27", "-3", "-c", "words"], None),
    "gcc -O2": (source, ["gcc", "-O2", "-c", "large.c", "-o", "large.o"], "large.o"),
    "pipeline of five": (words, ["sh", "-c", "cat words | tr a-f A-F | sort -S 1G | awk '!seen[$1]++ {n[$2]++; print} "
                                 "END {for (c in n) print c, n[c] | \"sort\"}' | cksum"], None),
}
NESTED = "in a run within a run"
NESTED_ONES = ["python3 dictionaries", "pipeline of five"]
WITHOUT_MOVE = ["sort", "python3 dictionaries", "python3 threads", "zstd -T2 --long"]


def digest(output, path):
    h = hashlib.sha256(output)
    if path:
        with open(path, "rb") as f:
            h.update(f.read())
        os.unlink(path)
    return h.hexdigest()


def sampled(samples, alone, command, **kwargs):
    return run([tool("sampler"), samples, alone, *command], **kwargs)[0]


def check_memory(samples, cap):
    peak, all_of_them = read_samples(samples)
    bar = cap + max(cap // 20, SLACK)
    over = sum(1 for s in all_of_them if s > bar)
    expect(over * 100 <= len(all_of_them),
           f"{over} of {len(all_of_them)} samples over {bar / MIB:.1f} MiB (cap {cap / MIB:.1f} MiB, peak {peak / MIB:.1f} MiB)")
    expect(peak <= cap + NEVER, f"peak of {peak / MIB:.1f} MiB at a cap of {cap / MIB:.1f} MiB")
    return peak


def check_stats(stats):
    s = read_stats(stats)
    expect(s["swap_out_pages"] > 0, "nothing was swapped out")
    expect(sum(t["errors"] for t in s["tiers"]) == 0, f"tier errors: {s['tiers']}")
    expect(s["processes_uncapped"] == 0, f"{s['processes_uncapped']} processes without a cap")
    return s


def within(cap, command, stats):
    """A run within one that has room for all."""
    return capped(8 * cap, [SPILLWAY, "run", "--ram", str(cap), "--", *command], stats=stats)


def program(name, evict):
    make, command, written = PROGRAMS[name]

    def case(scratch):
        make(scratch)
        samples, stats = (os.path.join(scratch, n) for n in ("samples", "stats"))
        written_to = written and os.path.join(scratch, written)
        plain = digest(sampled(samples, PLAIN, command, cwd=scratch), written_to)
        need, _ = read_samples(samples)
        cap = max(need // 4, LEAST_CAP)
        begin = time.monotonic()
        wrapped = within(cap, command, stats) if evict == NESTED else capped(cap, command, "--evict", evict, stats=stats)
        under = digest(sampled(samples, UNDER, wrapped, cwd=scratch), written_to)
        seconds = time.monotonic() - begin
        s = check_stats(stats)
        expect(plain == under, "the output is not the same")
        peak = check_memory(samples, cap)
        return (f"{need / MIB:.0f} MiB in {cap / MIB:.0f}, peak {peak / MIB:.0f}, {seconds:.1f} s, "
                f"{s['swap_out_pages']} out, {s['swap_in_pages']} in")

    return (f"{name}, {NESTED}" if evict == NESTED else f"{name}, by {evict}"), case


class Redis:
    """A server of its own in a directory of its own, spoken to through a socket file."""

    def __init__(self, folder, wrapper):
        path = os.path.join(folder, "socket")
        self.server = subprocess.Popen(
            wrapper + ["redis-server", "--port", "0", "--unixsocket", path, "--dir", folder, "--save", "",
                       "--daemonize", "no", "--logfile", os.path.join(folder, "log")])
        self.socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 30
        while self.socket.connect_ex(path):
            expect(self.server.poll() is None and time.monotonic() < deadline, "the server does not start")
            time.sleep(0.01)
        self.answers = self.socket.makefile("rb")
        while isinstance(self.ask([b"PING"])[0], Exception):
            expect(time.monotonic() < deadline, "the server does not load")

    def answer(self):
        line = self.answers.readline()
        expect(line, "the server is gone")
        if line[:1] == b"-":
            return RuntimeError(line)
        if line[:1] == b"$":
            return self.answers.read(int(line[1:]) + 2)[:-2] if line != b"$-1\r\n" else None
        return line[1:-2]

    def ask(self, *commands):
        """Commands (lists of bytes), all sent before the first answer is read: batches are to be small."""
        self.socket.sendall(b"".join(
            b"*%d\r\n" % len(c) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in c) for c in commands))
        return [self.answer() for _ in commands]

    def ask_all(self, commands):
        answers = []
        for i in range(0, len(commands), 64):
            answers += self.ask(*commands[i:i + 64])
        return answers

    def saved(self):
        info = dict(line.split(b":", 1) for line in self.ask([b"INFO", b"persistence"])[0].split(b"\r\n") if b":" in line)
        return info[b"rdb_bgsave_in_progress"] == b"0" and info[b"rdb_last_bgsave_status"] == b"ok"

    def stop(self):
        self.socket.sendall(b"SHUTDOWN NOSAVE\r\n")
        return self.server.wait(30)


KEYS = [b"key:%d" % i for i in range(7000)]


def value(i, version):
    return b"value %d of %d " % (version, i) + random.Random(i * 10 + version).randbytes(3000).hex().encode() * 2


def redis_round(folder, wrapper):
    """Fill, save in the background, write meanwhile: the values that live, and those that the saved file holds."""
    os.mkdir(folder)
    server = Redis(folder, wrapper)
    server.ask_all([[b"SET", k, value(i, 1)] for i, k in enumerate(KEYS)])
    expect(not isinstance(server.ask([b"BGSAVE"])[0], Exception), "BGSAVE is refused")
    server.ask_all([[b"SET", k, value(i, 2)] for i, k in enumerate(KEYS) if i % 3 == 0])
    while not server.saved():
        server.ask_all([[b"GET", k] for k in random.Random(1).sample(KEYS, 100)])
    live = server.ask_all([[b"GET", k] for k in KEYS])
    expect(server.stop() == 0, "the server failed")
    server = Redis(folder, [])
    saved = server.ask_all([[b"GET", k] for k in KEYS])
    server.stop()
    return live, saved


def redis(scratch):
    samples, stats = (os.path.join(scratch, n) for n in ("samples", "stats"))
    wants = [value(i, 1 + (i % 3 == 0)) for i in range(len(KEYS))], [value(i, 1) for i in range(len(KEYS))]
    expect(redis_round(os.path.join(scratch, "plain"), [tool("sampler"), samples, PLAIN]) == wants, "wrong without a cap")
    need, _ = read_samples(samples)
    cap = max(need // 4, LEAST_CAP)
    live, saved = redis_round(os.path.join(scratch, "capped"), [tool("sampler"), samples, UNDER] + capped(cap, [], "--evict", "move", stats=stats))
    s = check_stats(stats)
    expect(live == wants[0], f"{sum(a != b for a, b in zip(live, wants[0]))} live values are wrong")
    expect(saved == wants[1], f"{sum(a != b for a, b in zip(saved, wants[1]))} saved values are wrong")
    peak = check_memory(samples, cap)
    return f"{need / MIB:.0f} MiB in {cap / MIB:.0f}, peak {peak / MIB:.0f}, {s['swap_out_pages']} out, {s['swap_in_pages']} in"


def sharers(scratch):
    """All that a process has at a fork fits, just; then both sides write to what they share."""
    samples, stats = (os.path.join(scratch, n) for n in ("samples", "stats"))
    cap = 192 * MIB
    command = [tool("sampler"), samples, UNDER] + capped(cap, [tool("pages"), "180", "1"], "--evict", "move", stats=stats)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as both:
        both.stdin.write(b"fill\nchurn\n")
        expect(both.stdout.readline() == b"filled\n", "it does not fill its memory")
        expect(both.stdout.readline().startswith(b"churning"), "it does not fork")
        time.sleep(SHARED_SECONDS)
        said, _ = both.communicate(timeout=TIMEOUT)
    expect(both.returncode == 0 and sorted(said.split(b"\n")) == [b"", b"right child", b"right parent"],
           f"exit status {both.returncode}, said {said}")
    s = check_stats(stats)
    peak = check_memory(samples, cap)
    return f"2 times 180 MiB in {cap / MIB:.0f}, peak {peak / MIB:.0f}, {s['swap_out_pages']} out, {s['swap_in_pages']} in"


CASES = [program(name, "move") for name in PROGRAMS]
CASES.append(("redis-server with writes while it saves, by move", redis))
CASES.append(("both sides of a fork near the cap, by move", sharers))
CASES += [program(name, NESTED) for name in NESTED_ONES]
CASES += [program(name, "wp") for name in WITHOUT_MOVE]

if __name__ == "__main__":
    sys.exit(main(CASES))
