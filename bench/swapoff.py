# SPDX-License-Identifier: Apache-2.0
"""swapoff of a file that holds 1 GiB of a program's pages: `spillway swapoff` and swapoff(8), alternated.

The program is bench/hold.c. It fills its set under a cap of 128 MiB; then either the cap is raised so that all of it
fits, or a second file is given and the cap stays. Each also with 16 GiB of other address space, of which one page in
each page table was read. The program goes on reading one page at random each millisecond, and times that: in the two
seconds before, and during swapoff.
"""
import contextlib
import json
import os
import statistics
import subprocess
import time

MIB = 1 << 20
SET, CAP, RAISED, FILE, BESIDE = 1200, 128 * MIB, 2048 * MIB, 1536 * MIB, 16384
BEFORE = 2 # seconds
CASES = [(f"{where}{', 16 GiB beside' if beside else ''}", raised, beside)
         for where, raised in (("cap raised", True), ("to a second file", False)) for beside in (0, BESIDE)]


class Hold:
    """The program, filled."""

    def __init__(self, words, env=None, enter=None):
        self.p = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
                                  preexec_fn=enter)

    def __enter__(self):
        if self.p.stdout.readline() != "ready\n":
            raise OSError("the program did not get ready")
        return self

    def __exit__(self, *_):
        if self.p.poll() is None:
            self.p.kill()
        self.p.communicate()

    def reads(self, during):
        """What `during` gives, and how long reads took meanwhile."""
        print("begin", file=self.p.stdin, flush=True)
        result = during()
        print("end", file=self.p.stdin, flush=True)
        return result, {name: float(figure) for name, figure in (self.p.stdout.readline().split() for _ in range(3))}

    def right(self):
        out, _ = self.p.communicate()
        if out != "right\n":
            raise OSError("the program's memory is wrong")


def timed(*words):
    begin = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())
    return time.monotonic() - begin


class Swapoff:
    def __init__(self, build, folder, rounds, swapfile, group, missing, progress, alone):
        """swapfile(bytes, priority): context manager of a kernel's, gives its path; group: makes a memory cgroup.
        alone: without the kernel's rows."""
        self.spillway, self.hold = str(build / "spillway"), str(build / "bench" / "hold")
        self.folder, self.rounds, self.missing, self.progress = folder, rounds, missing, progress
        self.swapfile, self.group, self.alone = swapfile, group, alone

    def words(self, beside):
        return [self.hold, str(SET), *([f"beside={beside}"] if beside else [])]

    @staticmethod
    def take(hold, pages, swapoff):
        """Measure while swapoff() runs; pages(): those on the file."""
        _, before = hold.reads(lambda: time.sleep(BEFORE))
        held = pages()
        seconds, during = hold.reads(swapoff)
        return {"pages": held, "seconds": seconds, "us": seconds * 1e6 / held, "before": before, "during": during}

    def under_spillway(self, raised, beside):
        with contextlib.ExitStack() as stack:
            first, second = (os.path.join(self.folder, f"spillway-bench-{os.getpid()}-{n}") for n in (1, 2))
            for path in (first, second):
                stack.callback(lambda p=path: os.path.exists(p) and os.unlink(p))
            hold = stack.enter_context(Hold(
                [self.spillway, "run", "--ram", str(CAP), "--swap", "zswap,size=25%", "--swap",
                 f"file:{first},size={FILE}", "--", *self.words(beside)]))
            run = str(hold.p.pid)

            def pages():
                tiers = json.loads(subprocess.run([self.spillway, "list", "--json", run], capture_output=True,
                                                  text=True, check=True).stdout)["tiers"]
                return next(t["pages"] for t in tiers if t["name"] == first)

            if raised:
                timed(self.spillway, "set", run, "--ram", str(RAISED))
            else:
                timed(self.spillway, "swapon", run, f"file:{second},size={FILE}")
            result = self.take(hold, pages, lambda: timed(self.spillway, "swapoff", run, first))
            hold.right()
            return result

    def under_kernel(self, raised, beside):
        with self.swapfile(FILE, 32767) as first, contextlib.ExitStack() as stack:
            group = self.group()
            enter = stack.enter_context(group.limited(CAP))
            hold = stack.enter_context(Hold(self.words(beside), enter=enter))

            def pages():
                with open(f"/proc/{hold.p.pid}/status", encoding="utf-8") as f:
                    return next(int(l.split()[1]) for l in f if l.startswith("VmSwap")) // 4

            if raised:
                group.limit(RAISED)
            else:
                stack.enter_context(self.swapfile(FILE, 32766))
            result = self.take(hold, pages, lambda: timed("swapoff", first))
            hold.right()
            return result

    def once(self, row, who, progress):
        """One run of a row; the kernel's that is missing here is not tried again."""
        if who == "kernel" and row["missing"]:
            return
        self.progress(f"swapoff: {row['case']}: {progress}: {who}")
        try:
            row[who].append((self.under_spillway if who == "spillway" else self.under_kernel)(row["raised"],
                                                                                               row["beside"]))
        except self.missing as e:
            if who == "spillway":
                raise
            row["missing"] = str(e)

    def measure(self):
        print(f"\nswapoff of a file that holds 1 GiB; {self.rounds} rounds, medians. Reads of the program meanwhile, "
              f"and in {BEFORE} s before it, us: p99 (longest of all rounds)")
        rows = [{"case": name, "raised": raised, "beside": beside, "spillway": [], "kernel": [],
                 "missing": "left out" if self.alone else None} for name, raised, beside in CASES]
        # All cases in each round: what the address space costs is the ratio of two runs that follow each other.
        for i in range(self.rounds):
            for row in rows:
                for who in ("spillway", "kernel"):
                    self.once(row, who, f"round {i + 1} of {self.rounds}")
        self.progress("")
        for row in rows:
            self.tell(row)
        for plain, beside in zip(rows[::2], rows[1::2]):
            beside["growth"] = [b["us"] / p["us"] for p, b in zip(plain["spillway"], beside["spillway"])]
            print(f" {plain['case']}: with 16 GiB beside a page takes {statistics.median(beside['growth']):.2f} times as "
                  f"long ({min(beside['growth']):.2f} to {max(beside['growth']):.2f})", flush=True)
        return {"title": "swapoff", "rows": rows}

    @staticmethod
    def tell(row):
        print(f" {row['case']}")
        for who in ("spillway", "kernel"):
            runs = row[who]
            if not runs or (who == "kernel" and row["missing"]):
                print(f"  {who:<10}not measured here: {row['missing']}")
                continue
            cells = "  ".join(f"{when} {statistics.median(r[when]['p99'] for r in runs):.0f} "
                              f"({max(r[when]['max'] for r in runs):.0f})" for when in ("before", "during"))
            print(f"  {who:<10}{statistics.median(r['pages'] for r in runs):9.0f} pages "
                  f"{statistics.median(r['seconds'] for r in runs):7.2f} s "
                  f"{statistics.median(r['us'] for r in runs):7.2f} us a page   reads {cells}", flush=True)
        if row["kernel"] and not row["missing"]:
            row["ratio"] = statistics.median(k["us"] / s["us"] for k, s in zip(row["kernel"], row["spillway"]))
            print(f"  Spillway's throughput over the kernel's: {row['ratio']:.2f}", flush=True)
