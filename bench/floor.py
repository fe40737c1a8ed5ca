# SPDX-License-Identifier: Apache-2.0
"""bench/floor.c: what the kernel, the codec and the disk alone take for each step of a fault or an eviction."""
import statistics

from machine import progress, run_program

WAYS = ["alone", "beside"]


def floor(build, folder, rounds):
    runs = []
    for i in range(rounds):
        progress(f"floor: round {i + 1} of {rounds}")
        out = run_program([str(build / "bench" / "floor"), folder]).out
        runs.append([line.split() for line in out.splitlines()])
    progress("")
    print(f"\nEach step by itself, us a call (a page): median of {rounds} rounds, least; alone, and beside a thread\n"
          "of the same process, which every change of page tables interrupts")
    rows = [row([run[i] for run in runs]) for i in range(len(runs[0]))]
    return {"title": "floor", "rows": rows}


def row(lines):
    """lines: (name, pages, alone, beside), of each round."""
    name, pages = lines[0][0], int(lines[0][1])
    lines = [l for l in lines if l[2] != "-"]
    if not lines:
        print(f"  {name:<24}{pages:>3}  not measured here: this kernel does not have it, or has no memory for it")
        return {"name": name, "pages": pages, "missing": True}
    result = {"name": name, "pages": pages}
    cells = ""
    for way, figures in zip(WAYS, zip(*[[float(f) for f in l[2:]] for l in lines])):
        result[way] = {"median": statistics.median(figures), "least": min(figures)}
        cells += f"   {way} {result[way]['median']:8.2f} ({result[way]['median'] / pages:6.2f}), {min(figures):8.2f}"
    print(f"  {name:<24}{pages:>3}{cells}", flush=True)
    return result
