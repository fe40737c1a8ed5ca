#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench/plot.py BENCH_JSON FOLDER: pictures of the last results, one SVG for each question.

A table says all, and nothing at a glance. Each picture is horizontal bars in groups, every bar with its name and its
value; Spillway is blue, what the kernel offers grey. What was not measured is left out, and a question that no result
answers has no picture. Drawn by gnuplot.
"""
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

WIDTH, LINE, HEAD, FOOT, CHARACTER = 960, 21, 70, 60, 7.2  # pixels
COLOURS = {"library": "#0b4f8a", "spillway": "#3f8fd2", "zswap": "#7d7d7d", "zram": "#9c9c9c", "swapfile": "#bababa",
           "no limit": "#dadada"}
SHARES = {2: ("half", "half of the memory it wants"), 4: ("quarter", "a quarter of the memory it wants")}


def colour(name):
    return next(c for kind, c in COLOURS.items() if name.startswith(kind))


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def bold(text):
    return quoted("{/:Bold " + "".join("\\" + c if c in "{}_^@&~\\" else c for c in text) + "}")


def source(result, what):
    """Where the figures come from, below the title; a program may have been measured at another time than the rest."""
    machine = result["machine"]
    rounds = [max(len(row["runs"]) for row in part["rows"]) for part in result.get("parts", [result])]
    times = " to ".join(str(n) for n in sorted({min(rounds), max(rounds)}))
    return (f"{what}. Median of {times} rounds, {machine['cpu']}, {machine['cores']} CPUs, Linux "
            f"{machine['kernel'].split('-')[0]}, {result['date']}")


def script(title, below, unit, groups):
    """groups: (name, [(name, value, text)]); what draws them, from the top."""
    lines = sum(1 + len(bars) for _, bars in groups) + len(groups) - 1
    bars_of_all = [bar for _, bars in groups for bar in bars]
    left = max(len(name) for name, _, _ in bars_of_all) * CHARACTER + 24
    right = max(len(text) for _, _, text in bars_of_all) * CHARACTER + 16
    height = HEAD + FOOT + lines * LINE
    out = [f"set terminal svg size {WIDTH},{height} font 'sans-serif,13' background 'white' enhanced",
           f"set lmargin at screen {left / WIDTH:.4f}", f"set rmargin at screen {1 - right / WIDTH:.4f}",
           f"set tmargin at screen {1 - HEAD / height:.4f}", f"set bmargin at screen {FOOT / height:.4f}",
           f"set label {bold(title)} at screen 0.012,{1 - 24 / height:.4f} font ',17' enhanced",
           f"set label {quoted(below)} at screen 0.012,{1 - 47 / height:.4f} font ',12' textcolor '#555555' noenhanced",
           "set border 1", "set xtics nomirror scale 0.5", "unset ytics", "unset key", "set style fill solid noborder",
           "set grid xtics linetype 1 linecolor '#e4e4e4'", f"set xlabel {quoted(unit)}",
           f"set xrange [0:{max(value for _, value, _ in bars_of_all):.6g}]", f"set yrange [{lines}:0]"]
    boxes, y = [], 0
    for group, bars in groups:
        out.append(f"set label {bold(group)} at screen 0.012, first {y + 0.4} enhanced")
        for name, value, text in bars:
            y += 1
            out += [f"set label {quoted(name)} at graph 0, first {y + 0.5} right offset char -1,0 noenhanced",
                    f"set label {quoted(text)} at {value:.6g},{y + 0.5} left offset char 0.6,0 front noenhanced"]
            boxes.append(f"0 {y + 0.5} 0 {value:.6g} {y + 0.12} {y + 0.88} {int(colour(name)[1:], 16)}")
        y += 2
    return "\n".join([*out, "plot '-' using 1:2:3:4:5:6:7 with boxxyerror linecolor rgb variable", *boxes, "e"]) + "\n"


def figure(value):
    return f"{value:.{0 if value >= 100 else 1 if value >= 1 else 2}f}"


def groups_of(rows, phases):
    """Of compare(): a group for each phase, a bar for each row that was measured."""
    return [(title, [(row["name"], row[phase], figure(row[phase])) for row in rows if not row["missing"]])
            for phase, title in phases.items()]


def page(results):
    result = results.get("library") or results.get("four")
    if result:
        part = result["parts"][0] if "parts" in result else result
        return {"page": script("How long does one page take, with four times as much as fits?",
                               source(result, part["title"]), "microseconds a page: less is better", groups_of(
                                   part["rows"], {"fill": "filled", "sequential": "read in order",
                                                  "random": "read at random"}))}
    return {}


def latency(results):
    result = results.get("library")
    if result:
        part = result["parts"][0]
        return {"latency": script("How long does one read at random wait, with four times as much as fits?",
                                  source(result, part["title"]), "microseconds a read: less is better", groups_of(
                                      part["rows"], {"random p50": "the median: half of the reads wait no longer",
                                                     "random p99": "p99: one of a hundred waits longer"}))}
    return {}


def unmap(results):
    """Freeing what is out, and what little is not."""
    cases = {"Library, 1 thread": "read at random, 4 times the cap",
             "Library, Zipf": "half of it written to again, 2 times the cap"}
    result = results.get("library")
    # Under `spillway run` the call returns before what was out is freed.
    groups = [group for part in (result["parts"] if result else []) for title, case in cases.items()
              if part["title"].startswith(title) for group in
              groups_of([row for row in part["rows"] if not row["name"].startswith("spillway")], {"unmap": case})]
    if groups:
        return {"unmap": script("How long does it take to free memory that is out?",
                                source(result, "Of all pages of the set"), "microseconds a page: less is better",
                                groups)}
    return {}


def zipf(results):
    result = results.get("library")
    parts = [p for p in result["parts"] if "zipf" in p["rows"][0]] if result else []
    if parts:
        return {"zipf": script("How long does one access take, where a few pages are wanted most of the time?",
                               source(result, parts[0]["title"]), "microseconds: less is better", groups_of(
                                   parts[0]["rows"], {"zipf": "the mean",
                                                      "zipf p99": "p99: one of a hundred takes longer"}))}
    return {}


def seconds(row):
    return statistics.median(run["seconds"] for run in row["runs"])


def work_bars(part):
    """Of those that differ in nothing but how they compress, the fastest."""
    *rows, free = [row for row in part["rows"] if not row["missing"]]
    over = {row["name"]: seconds(row) / seconds(free) for row in rows}
    fastest = {}
    for name in sorted(over, key=over.get):
        fastest.setdefault(name.split()[0], name)
    return [(name, times, figure(times)) for name, times in over.items() if name in fastest.values()]


def work(results):
    result = results.get("work")
    parts = [p for p in result["parts"] if not p["rows"][-1]["missing"]] if result else []
    if parts:
        return {"work": script("How much longer does the same work take under a cap?",
                               source(result, "Wall time over that without limit"),
                               "times as long as without limit: less is better",
                               [(part["case"], work_bars(part)) for part in parts])}
    return {}


def growth(results):
    result = results.get("growth")
    parts = [p for p in result["parts"] if not p["rows"][0]["missing"]] if result else []
    if parts:
        return {"growth": script("Does a page cost more when more is out?",
                                 source(result, "Pages of 3:1; in brackets over that of the first"),
                                 "microseconds a page: less is better",
                                 [(what, [(f"{part['name']}, {row['name']}", row[way],
                                           f"{figure(row[way])}  ({row[way + '_ratio']:.2f})")
                                          for part in parts for row in part["rows"] if not row["missing"]])
                                  for way, what in (("out", "goes out"), ("in", "comes in"))])}
    return {}


def program_bars(part):
    """Wall times over that without limit; of runs that were ended, how long they were let."""
    free = next(row for row in part["rows"] if row["name"] == "no limit")["wall"]
    bars = []
    for row in part["rows"][:-1]:
        if "over" in row:
            bars.append((row["name"], row["over"] / free, f"over {row['over'] / free:.0f}, ended"))
        elif not row["missing"]:
            bars.append((row["name"], row["wall"] / free, figure(row["wall"] / free)))
    return bars


def programs(results):
    pictures = {}
    for share, (name, words) in SHARES.items():
        parts = [p for p in results.get("programs", {"parts": []})["parts"]
                 if p["share"] == share and not p["rows"][-1]["missing"]]
        if parts:
            pictures[f"programs-{name}"] = script(
                f"How much longer does a program take in {words}?",
                source(results["programs"], "Wall time over that without limit"),
                "times as long as without limit: less is better",
                [(p["title"].rpartition(",")[0], program_bars(p)) for p in parts])
    return pictures


def pool(results):
    result = results.get("two")
    bars = [(row["name"], row["pool_of_gib"], figure(row["pool_of_gib"])) for row in result["rows"]
            if "pool_of_gib" in row] if result else []
    if bars:
        return {"pool": script("How much memory does 1 GiB take that is out, compressed?",
                               source(result, "Pages that compress to a third; Spillway's with all of its bookkeeping"),
                               "MiB of pool: less is better",
                               [("in the pool", bars)])}
    return {}


def draw(path, folder):
    """Pictures of the results in path; says which."""
    if not shutil.which("gnuplot"):
        print("\nNo pictures: there is no gnuplot (on Debian: apt-get install gnuplot-nox)")
        return
    results = {r["part"]: r for r in json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["results"]}
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for question in (page, latency, zipf, unmap, work, growth, programs, pool):
        for name, text in question(results).items():
            to = folder / f"{name}.svg"
            subprocess.run(["gnuplot"], input=f"set output {quoted(str(to))}\n{text}", text=True, check=True)
            print(f"picture: {to}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[0])
    draw(*sys.argv[1:])
