# SPDX-License-Identifier: Apache-2.0
"""The layer by itself: bench/layer.c linked with src/space ("space") and with bench/direct.c ("direct"), alternated.

CPU time of the thread, nanoseconds an operation: the median of the rounds and the least. What others do on the machine
adds to both, to the least the least, so what the layer adds is the difference of the leasts; where that drowns, the
instructions say it. "plain" is the memory access of a lookup with nothing around it, the same in both.
"""
import re
import shutil
import statistics
import subprocess
import tempfile

PROGRAMS = {"space": "layer", "direct": "layer-direct"}
PAGES, GIB = "32768", str((1 << 30) // 4096)
USES = {"100 %": ["1", "1"], "50 %": ["50", "100"], "1 %": ["1", "100"], "1 in a cluster": ["1", "512"]}
PLACES = {"alone": "nothing else", "nothing-beside": "16 x the clusters, the others free",
          "others-beside": "16 x the clusters, the others full", "thinly": "1 in 16 entries, the others free",
          "among-others": "1 in 16 entries, the others out"}
FAULT_NS = 9000

CASES = {
    "lookup": [(f"{use} of 16 Mi entries", ["lookup", *spread, str(1 << 24)]) for use, spread in USES.items()],
    "pages": [(f"{kind}, {use}, 1 thread", ["pages", kind, *spread, "1", PAGES])
              for kind in ("third", "same") for use, spread in USES.items()] +
             [("noise, 100 %, 1 thread", ["pages", "noise", "1", "1", "1", PAGES])] +
             [(f"{kind}, 100 %, 2 threads", ["pages", kind, "1", "1", "2", PAGES]) for kind in ("third", "same", "noise")],
    "free of 1 GiB": [(f"third, stored {order}", ["range", "third", "1", "1", GIB, order])
                      for order in ("in-order", "scattered")] +
                     [("same", ["range", "same", "1", "1", GIB, "in-order"])],
    "drain of a file tier (in memory)": [(name, ["drain", place, "16384"]) for place, name in PLACES.items()],
}

# What is counted: a function, in a run that calls it so many times.
COUNTED = [("lookup", "spw_kind", ["lookup", "1", "2", str(1 << 16)], 2 * ((1 << 16) + (1 << 12)))] + \
          [(f"{op}, {kind}", f"spw_{op}", ["pages", kind, "1", "1", "1", "2000"], 2000)
           for kind in ("third", "same", "noise") for op in ("store", "load", "free")] + \
          [(f"drain, {name}", "spw_drain", ["drain", place, "1024"], 1024) for place, name in PLACES.items()]


def figures(out):
    """Lines "name figure..." as {name: [figure]}."""
    return {l.split()[0]: [float(f) for f in l.split()[1:]] for l in out.splitlines()}


def valgrind(program, function, words, *options):
    """What callgrind counts within a function: {event: count}."""
    if not shutil.which("valgrind"):
        return None
    with tempfile.NamedTemporaryFile(prefix="spillway-bench-callgrind-") as out:
        done = subprocess.run(["valgrind", "--tool=callgrind", f"--toggle-collect={function}",
                               f"--callgrind-out-file={out.name}", *options, program, *words],
                              capture_output=True, text=True, check=True)
    events = re.search(r"Events +: (.*)", done.stderr).group(1).split()
    counts = re.search(r"Collected : (.*)", done.stderr).group(1).split()
    return dict(zip(events, map(int, counts)))


class Layer:
    def __init__(self, folder, rounds, run, missing, progress):
        """run(words) gives what a program prints, or raises one of `missing`."""
        self.program = {name: str(folder / file) for name, file in PROGRAMS.items()}
        self.rounds, self.run, self.missing, self.progress = rounds, run, missing, progress

    def measure(self, kernel):
        """kernel: (name, context manager) of each way of the kernel to swap. Prints; returns what is for the JSON."""
        print(f"\nThe layer by itself: ns of CPU time an operation, median of {self.rounds} rounds (least)")
        rows = [row for part, cases in CASES.items() for row in self.part(part, cases)]
        rows += self.munmap(kernel)
        return {"title": "layer", "rows": rows, "memory": self.memory(), "instructions": self.instructions(),
                "cache_misses": self.cache_misses(), "budget": self.budget(rows)}

    def part(self, part, cases):
        print(f" {part}")
        for name, words in cases:
            runs = {p: [] for p in self.program}
            for i in range(self.rounds):
                self.progress(f"{part}: {name}: round {i + 1} of {self.rounds}")
                for p, path in self.program.items():
                    runs[p].append(figures(self.run([path, *words])))
            self.progress("")
            for op in runs["space"][0]:
                yield self.row(part, name, op, {p: [r[op] for r in rs] for p, rs in runs.items()})

    @staticmethod
    def row(part, name, op, times):
        row = {"part": part, "case": name, "op": op}
        cells = ""
        for p, runs in times.items():
            cpu = [r[0] for r in runs]
            row[p] = {"median": statistics.median(cpu), "least": min(cpu),
                      "wall_median": statistics.median(r[1] for r in runs)}
            cells += f"  {p} {row[p]['median']:9.1f} ({row[p]['least']:8.1f})"
        if len(times) == 2:
            row["layer"] = row["space"]["least"] - row["direct"]["least"]
            cells += f"  layer {row['layer']:8.1f}"
        print(f"  {name:<36}{op:<15}{cells}", flush=True)
        return row

    def munmap(self, kernel):
        print(" munmap of 1 GiB that the kernel has swapped out")
        for name, on in kernel:
            runs = []
            try:
                with on():
                    for i in range(self.rounds):
                        self.progress(f"munmap: {name}: round {i + 1} of {self.rounds}")
                        runs.append(figures(self.run([self.program["space"], "munmap", GIB]))["munmap"])
            except self.missing as e:
                self.progress("")
                print(f"  {name:<36}not measured here: {e}")
                yield {"part": "munmap of 1 GiB", "case": name, "missing": str(e)}
                continue
            self.progress("")
            yield self.row("munmap of 1 GiB", name, "munmap", {"kernel": runs})

    def memory(self):
        """Descriptors, by what the space counts and by what the process has resident."""
        print(" descriptors, bytes an entry that is out: counted, resident; with nothing out, and after all is freed")
        rows = []
        for use, spread in USES.items():
            f = {k: v[0] for k, v in figures(self.run([self.program["space"], "memory", *spread])).items()}
            row = {"use": use, "figures": f}
            for how in ("counted", "resident"):
                row[how] = (f[f"out-{how}"] - f[f"nothing-{how}"]) / f["pages"]
            rows.append(row)
            print(f"  {use:<36}{row['counted']:9.3f} {row['resident']:9.3f}   counted {f['nothing-counted']:.0f} "
                  f"{f['freed-counted']:.0f}   resident {f['freed-resident'] - f['nothing-resident']:+.0f}   page tables "
                  f"of the kernel {(f['out-tables'] - f['nothing-tables']) / f['pages']:.3f}", flush=True)
        return rows

    def instructions(self):
        print(" instructions an operation (callgrind)")
        rows = []
        for name, function, words, calls in COUNTED:
            self.progress(f"instructions: {name}")
            counts = {p: valgrind(path, function, words) for p, path in self.program.items()}
            self.progress("")
            if not counts["space"]:
                print("  not measured here: no valgrind")
                return None
            row = {"op": name, **{p: c["Ir"] / calls for p, c in counts.items()}}
            rows.append(row)
            print(f"  {name:<51}  space {row['space']:9.1f}  direct {row['direct']:9.1f}  "
                  f"layer {row['space'] - row['direct']:8.1f}", flush=True)
        return rows

    def cache_misses(self):
        """Of a cold lookup, simulated: 8 MiB of descriptors behind 32 KiB and 1 MiB of cache."""
        entries = 1 << 20
        counts = valgrind(self.program["space"], "spw_kind", ["lookup", "1", "1", str(entries)], "--cache-sim=yes",
                          "--D1=32768,8,64", "--LL=1048576,16,64")
        if not counts:
            return None
        misses = {"first_level": counts["D1mr"] / (entries // 16), "last_level": counts["DLmr"] / (entries // 16)}
        print(f" cache misses of a cold lookup (simulated): first level {misses['first_level']:.2f}, "
              f"last level {misses['last_level']:.2f}")
        return misses

    @staticmethod
    def budget(rows):
        """What the layer adds to a page that goes out, comes in and is freed, over a fault."""
        added = sum(r["layer"] for r in rows if r.get("case") == "same, 100 %, 1 thread" and
                    r["op"] in ("store", "load", "free"))
        print(f" store, load and free of a same-filled page: the layer is {added:.0f} ns of them, "
              f"{100 * added / FAULT_NS:.2f} % of a fault of {FAULT_NS / 1000:.0f} us")
        return {"layer_ns": added, "fault_ns": FAULT_NS}
