# SPDX-License-Identifier: Apache-2.0
"""
Real programs under a cap of a half and of a quarter of their peak: how long does the work take, and how much CPU?

A loop over pages (bench/touch.c) says what a fault costs, not how many a program has: that is for programs to say that
keep some of their memory hot. Each does a fixed work whose output is compared with that of a run without limit. Their
peak is the resident memory of the whole tree (tests/programs/sampler.c), once, before.

A v1 group charges neither a pool nor zram's memory, so what these take is taken off the group's limit, found by runs
that show how the program's pages pack. The pool is as large as all that is out: zswap's own limit comes in hundredths
of the machine's memory, mostly more than the cap. Where it does not fit there is no row of zswap, and zram gets half
of the cap and a swapfile behind it.

File cache counts in a group and not in Spillway's cap. So inputs are in tmpfs, written from outside of the group, and
output goes through pipes to the outside or is an object file of some KiB; redis-server saves to a pipe too (`redis-cli
--rdb -`: it forks as it does for BGSAVE). A program's text counts in both; but a group pays only for what it was the
first to read. So each run, of whatever row, begins with no file in memory that nobody has mapped.

A run that takes more than 20 times as long as without limit is ended. CPU seconds are user and system time of the
program and all it has started, `spillway run` and its agents included; not the kernel's own threads.
"""
import concurrent.futures
import contextlib
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from compare import compare
from kernel import Group, beside_pool, under_swapfile, under_zram, under_zswap, zswap_name
from machine import MIB, Missing, TooLong, progress, read, write

JOBS = pathlib.Path(__file__).resolve().parent / "jobs"
SHARES = {2: "a half", 4: "a quarter"}
LEAST_CAP = 16 * MIB  # `spillway run` takes no less
MOST_TIMES, LEAST_SECONDS, FREE_SECONDS = 20, 10, 600
KERNEL = ("zswap", "zram", "swapfile")
WORDS = ["the order of", "was paid by card", "on the same day", "and delivered to", "a new address", "no answer from",
         "the second reminder", "was returned", "with an invoice", "in the evening"]
HOT = 20  # one of so many keys
CHANGED = "changed " + " ".join(WORDS * 5)


def last_line(said):
    return said.decode(errors="replace").strip().rpartition("\n")[2][-200:]


def forget_files():
    """Those in memory that nobody has mapped. Who may not do that has no rows of the kernel's to compare with."""
    os.sync()
    with contextlib.suppress(OSError):
        write("/proc/sys/vm/drop_caches", 1)


class Timed:
    """A program in a session of its own, killed with all of it after `most` seconds."""

    def __init__(self, words, most, home, env, enter=None):
        self.most, self.late = most, False
        self.said = tempfile.TemporaryFile()
        self.begin = time.monotonic()
        self.p = subprocess.Popen(words, cwd=home, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=self.said, preexec_fn=enter, start_new_session=True)
        self.timer = threading.Timer(most, self.stop)

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, *_):
        self.timer.cancel()
        if self.p.returncode is None:
            self.kill()
            self.p.wait()
        self.p.stdout.close()
        self.said.close()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.p.pid, signal.SIGKILL)

    def stop(self):
        self.late = True
        self.kill()

    def left(self):
        return max(0, self.begin + self.most - time.monotonic())

    def end(self, digest):
        """Wait for it; a result for compare()."""
        _, status, usage = os.wait4(self.p.pid, 0)
        self.p.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - self.begin
        self.check()
        return {"seconds": {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime}, "digest": digest()}

    def check(self):
        """It has been waited for: is all well?"""
        if self.late:
            raise TooLong(self.most)
        if self.p.returncode == -signal.SIGKILL:
            raise Missing("killed from outside")
        if self.p.returncode:
            self.said.seek(0)
            raise Missing(f"exit status {self.p.returncode}: {last_line(self.said.read())}")


class Job:
    """Does its work and ends. Output is what it prints, and the files `written` in its working directory."""

    def __init__(self, name, home, words, written=(), make=None):
        self.name, self.home, self.words, self.written = name, home, words, written
        if make and shutil.which(words[0]):
            make()

    def needs(self):
        return self.words[:1]

    def run(self, prefix, most, env, enter=None):
        for name in self.written:  # of a run that was ended, in the middle of a file
            (self.home / name).unlink(missing_ok=True)
        with Timed(prefix + self.words, most, self.home, env, enter) as timed:
            output = timed.p.stdout.read()
            return timed.end(lambda: hashlib.sha256(b"".join(
                [output, *[(self.home / name).read_bytes() for name in self.written]])).hexdigest())


class Redis:
    """
    redis-server, filled in random order, then asked by three redis-benchmark at once: reads and writes of hot keys, one
    of twenty, and reads of any. With saves, it is saved in the background twice meanwhile.
    """

    def __init__(self, name, home, keys, saves):
        self.name, self.home, self.keys, self.saves = name, home, keys, saves
        self.socket, self.fill = str(home / "redis.socket"), home / "redis.fill"
        if not self.fill.exists():
            self.write_fill()

    def needs(self):
        return ["redis-server", "redis-benchmark", "redis-cli"]

    @staticmethod
    def value(i):
        r = random.Random(i)
        return f"{i} {' '.join(r.choices(WORDS, k=60))} {r.randbytes(100).hex()}"

    def write_fill(self):
        with open(self.fill, "w", encoding="ascii") as f:
            for i in random.Random(1).sample(range(self.keys), self.keys):
                value = self.value(i)
                f.write(f"*3\r\n$3\r\nSET\r\n$16\r\nkey:{i:012}\r\n${len(value)}\r\n{value}\r\n")

    def client(self, server, *words, **kwargs):
        try:
            return subprocess.run([words[0], "-s", self.socket, *words[1:]], capture_output=True, check=True,
                                  timeout=server.left(), **kwargs).stdout
        except subprocess.TimeoutExpired as e:
            raise TooLong(server.most) from e
        except subprocess.CalledProcessError as e:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.p.wait(1)
                server.check()
            raise Missing(f"{words[0]}: {last_line(e.stderr or e.stdout)}") from e

    def run(self, prefix, most, env, enter=None):
        words = ["redis-server", "--port", "0", "--unixsocket", self.socket, "--dir", str(self.home), "--save", "",
                 "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--logfile", "/dev/null"]
        with Timed(prefix + words, most, self.home, env, enter) as server:
            while b"PONG" not in self.greeting(server):
                time.sleep(0.005)
            with open(self.fill, "rb") as f:
                self.client(server, "redis-cli", "--pipe", stdin=f)
            self.load(server)
            digest = self.digest(server)
            self.client(server, "redis-cli", "shutdown", "nosave")
            return server.end(lambda: digest)

    def digest(self, server):
        """How many keys there are, and of a sample those that are wrong: which hot ones were written is chance."""
        sample = range(0, self.keys, max(1, self.keys // 1000))
        values = self.client(server, "redis-cli", "mget", *[f"key:{i:012}" for i in sample]).decode().splitlines()
        wrong = [i for i, value in zip(sample, values) if value != self.value(i) and
                 (value != CHANGED or i >= self.keys // HOT)]
        return self.client(server, "redis-cli", "dbsize").decode(), len(values) - len(sample), wrong

    def greeting(self, server):
        """What it says to a ping: nothing as long as there is no socket."""
        if server.p.poll() is not None:
            server.check()
            raise Missing("redis-server does not stay")
        return subprocess.run(["redis-cli", "-s", self.socket, "ping"], capture_output=True, check=False).stdout

    def load(self, server):
        def asked(times, keys, *words):
            self.client(server, "redis-benchmark", "-q", "-c", "8", "-n", str(times), "-r", str(keys), *words)

        def saved():
            for _ in range(self.saves):
                self.client(server, "redis-cli", "--rdb", "-")

        hot, key = self.keys // HOT, "key:__rand_int__"
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for done in [pool.submit(asked, self.keys * 2 // 5, hot, "get", key),
                         pool.submit(asked, self.keys // 10, hot, "set", key, CHANGED),
                         pool.submit(asked, self.keys // 20, self.keys, "get", key), pool.submit(saved)]:
                done.result()


def jobs(home, size):
    """The programs, in a folder for inputs, with a peak of about `size`."""
    def text():
        r = random.Random(1)
        noise = r.randbytes(1 << 20).hex()
        with open(home / "text", "w", encoding="ascii") as f:
            for i in range(size // 100):
                at = r.randrange(len(noise) - 12)
                f.write(f"{noise[at:at + 12]} {r.choice(WORDS)} {r.choice(WORDS)} {i}\n")

    python = "/usr/bin/python3" if shutil.which("/usr/bin/python3") else sys.executable
    return [
        Redis("redis-server", home, size // 1550, 0),
        Redis("redis-server that saves", home, size // 1550, 2),
        Job("sqlite3", home, ["sqlite3", ":memory:", f"CREATE TABLE size AS SELECT {size // 340} AS rows",
                              f".read {JOBS}/index.sql"]),
        Job("python3", home, [python, f"{JOBS}/events.py", str(size // 1250)]),
        Job("sort", home, ["sort", "-S", "1G", "--parallel=2", "text"], make=text),
        Job("g++, two at once", home, ["make", "-s", "-j2", "-f", f"{JOBS}/Makefile", "UNITS=1 2"],
            ["unit1.o", "unit2.o"]),
    ]


class Programs:
    def __init__(self, build, folder, rounds, cap, only):
        """only: a part of the names of those to run."""
        self.only = only
        self.spillway, self.sampler = str(build / "spillway"), str(build / "tests" / "programs" / "sampler")
        self.dir, self.rounds, self.size = folder, rounds, min(cap, 512 * MIB) // 2
        self.env = dict(os.environ, TMPDIR=folder, LC_ALL="C", PYTHONHASHSEED="0")
        self.plain, self.limits = {}, {}

    def measure(self, earlier):
        """Those that are wanted, beside the parts that others have had earlier."""
        tmpfs = "/dev/shm" if os.access("/dev/shm", os.W_OK) else self.dir
        with tempfile.TemporaryDirectory(dir=tmpfs, prefix="spillway-bench-") as home:
            progress("programs: their inputs")
            parts = [part for job in jobs(pathlib.Path(home), self.size) for part in
                     (self.at_all_caps(job) if self.only in job.name else
                      [part for part in earlier if part["program"] == job.name])]
        return {"title": "programs", "parts": parts, **tell(parts)}

    def at_all_caps(self, job):
        missing = [w for w in job.needs() if not shutil.which(w)]
        if missing:
            print(f"\n{job.name}: not measured here: there is no {missing[0]}")
            return
        progress(f"{job.name}: its peak")
        try:
            need = self.know(job)
        except Missing as e:
            print(f"\n{job.name}: not measured here: {e}")
            return
        for share, name in SHARES.items():
            cap = max(need // share, LEAST_CAP) // 4096 * 4096
            if cap >= need:
                print(f"\n{job.name}: needs {need / MIB:.0f} MiB, no more than the least cap")
                return
            title = f"{job.name}: {need / MIB:.0f} MiB under {cap / MIB:.0f} MiB, {name}"
            yield dict(compare(title, self.rivals(job, need, cap), self.rounds, ["wall", "cpu"], shuffled=True,
                               figures="seconds"),
                       program=job.name, share=share, need_bytes=need, cap_bytes=cap)

    def know(self, job):
        """Its peak; keeps what it prints and how long it may take."""
        forget_files()
        with tempfile.NamedTemporaryFile(dir=self.dir, prefix="spillway-bench-samples-") as samples:
            sampled = job.run([self.sampler, samples.name, "1"], FREE_SECONDS, self.env)
            peak = int(read(samples.name).splitlines()[1].split()[1])
        self.plain[job.name] = sampled["digest"], max(LEAST_SECONDS, MOST_TIMES * sampled["seconds"]["wall"])
        return peak

    def run(self, job, prefix=(), enter=None):
        digest, most = self.plain[job.name]
        forget_files()
        result = job.run(list(prefix), most, self.env, enter)
        if result.pop("digest") != digest:
            if enter: # the kernel's: a system call that a group has no room for may fail
                raise Missing("its output is not that of the run without limit")
            sys.exit(f"bench/run: {job.name}: the output is not that of the run without limit")
        return result

    def rivals(self, job, need, cap):
        zswap, mib = zswap_name(), f"{cap / MIB:.0f}M"
        return [
            (f"spillway --ram {mib}", lambda: self.under_spillway(job, cap)),
            (f"{zswap}, all under the cap", lambda: self.all_under_zswap(job, need, cap)),
            (f"{zswap}, cgroup v2", lambda: under_zswap(self.dir, 2 * need, cap, self.once(job), version=2)),
            ("zram lz4 (+ swapfile), all under the cap", lambda: self.all_under_zram(job, need, cap)),
            ("swapfile", lambda: under_swapfile(self.dir, 2 * need, cap, self.once(job))),
            ("no limit", lambda: self.run(job)),
        ]

    def under_spillway(self, job, cap):
        with tempfile.NamedTemporaryFile(dir=self.dir, prefix="spillway-bench-stats-") as stats:
            result = self.run(job, [self.spillway, "run", "--ram", str(cap), "--stats", stats.name, "--"])
            s = json.loads(read(stats.name))
        if s["processes_uncapped"]:
            raise Missing(f"{s['processes_uncapped']} processes ran without the cap")
        return dict(result, stats=s, peak=s["resident_peak_bytes"])

    def once(self, job):
        return lambda enter: self.run(job, enter=enter)

    def all_under_zswap(self, job, need, cap):
        if Group().counts_zswap:
            raise Missing("the group counts the pool here: see the row of cgroup v2")

        def once(limit):
            return under_zswap(self.dir, 2 * need, limit, self.once(job))

        limit, _ = self.limit(("zswap", job.name, cap), once, need, cap)
        if not limit:
            raise Missing("what is out does not fit under the cap, compressed")
        return once(limit)

    def all_under_zram(self, job, need, cap):
        def once(limit, size=2 * need, behind=0):
            return under_zram(self.dir, size, limit, self.once(job), behind=behind)

        limit, share = self.limit(("zram", job.name, cap), once, need, cap)
        if limit:
            return once(limit)
        half = cap // 2

        def with_swapfile(size):
            return once(half, size, 2 * need)

        return with_swapfile(self.device(("half", job.name, cap), with_swapfile, half, half / share))

    def device(self, which, once, pool, size):
        """How large a zram is that takes `pool` when it is full; size: a first guess, too large as a rule."""
        if which not in self.limits:
            for _ in range(2):
                took = once(int(size) // 4096 * 4096)["pool"]
                if abs(took - pool) <= pool // 10:
                    break
                size *= pool / took
            self.limits[which] = int(size) // 4096 * 4096
        return self.limits[which]

    def limit(self, which, once, need, cap):
        """
        The limit with which a rival's group and pool make the cap together, 0 if there is none; and how its pages pack.
        The first guess is too large: a run that takes too long with it does so with the right one too.
        """
        if which not in self.limits:
            limit, pool = cap, once(cap)["pool"]
            for _ in range(2):
                share = pool / (need - limit)
                limit = beside_pool(need, cap, share)
                if not limit:
                    break
                pool = once(limit)["pool"]
                if abs(limit + pool - cap) <= cap // 20:
                    break
            self.limits[which] = limit, share
        return self.limits[which]


def walls(row, rounds):
    """Of each round; of a row whose runs were ended as long as they were let."""
    return [r["seconds"]["wall"] for r in row["runs"]] if "over" not in row else [row["over"]] * rounds


def ratio(part):
    """Spillway's wall time over that of the kernel's best, median of the rounds; "" or which bound it is; the best."""
    rows = [r for r in part["rows"] if not r["missing"] or "over" in r]
    ours, kernel = part["rows"][0], [r for r in rows if r["name"].startswith(KERNEL)]
    if ours not in rows or not kernel:
        return None
    rounds = max(len(r["runs"]) for r in rows)
    best = min(kernel, key=lambda r: statistics.median(walls(r, rounds)))
    if "over" in ours and "over" in best:
        return None
    bound = "at least " if "over" in ours else "at most " if "over" in best else ""
    return statistics.median(s / k for s, k in zip(walls(ours, rounds), walls(best, rounds))), bound, best["name"]


def tell(parts):
    """Each part's ratio, their geometric mean and the worst."""
    print("\nSpillway's wall time over that of the kernel's best, median of the rounds; a run that was ended counts as "
          "long as it was let")
    ratios = []
    for part in parts:
        found = ratio(part)
        if not found:
            print(f"  {part['title']:<62} one of the two was not measured, or both were ended")
            continue
        part["ratio"], part["bound"], part["best"] = found
        ratios.append((part["ratio"], part["title"]))
        print(f"  {part['title']:<62} {part['bound']}{part['ratio']:.2f}  {part['best']}")
    if not ratios:
        return {}
    mean, worst = math.exp(statistics.fmean(math.log(r) for r, _ in ratios)), max(ratios)
    print(f"  geometric mean of {len(ratios)}: {mean:.2f}; the worst: {worst[0]:.2f}, {worst[1]}", flush=True)
    return {"geometric_mean": mean, "worst": {"ratio": worst[0], "title": worst[1]}}
