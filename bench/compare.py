# SPDX-License-Identifier: Apache-2.0
"""Rivals that do the same, alternated: their medians, and the ratios within each round."""
import random
import statistics

from machine import MIB, Missing, TooLong, progress

PHASES = ["fill", "sequential", "random"]
FIGURES = {"us": "us per page (throughput of the first row over the row's)",
           "seconds": "seconds (the row's over the first row's)"}


def compare(title, rivals, rounds, phases=None, shuffled=False, figures="us"):
    """
    rivals: (name, function of no arguments that gives {figures: {phase: figure}}); the first is Spillway. Prints it
    all. A row whose run was ended since it took too long has "over", the seconds.
    """
    rows = [{"name": name, "runs": [], "missing": None} for name, _ in rivals]
    order = random.Random(1)
    for i in range(rounds):
        turn = list(zip(rows, rivals))
        for row, (name, once) in order.sample(turn, len(turn)) if shuffled else turn:
            if row["missing"]:
                continue
            progress(f"{title}: round {i + 1} of {rounds}: {name}")
            try:
                row["runs"].append(once())
            except (Missing, OSError) as e:
                row["missing"] = str(e)
                if isinstance(e, TooLong):
                    row["over"] = e.seconds
    progress("")
    show(title, rows, rounds, phases or PHASES, figures)
    return {"title": title, "rows": rows}


def show(title, rows, rounds, phases, figures):
    print(f"\n{title}; {rounds} rounds, {FIGURES[figures]}")
    print(f"  {'':<44}" + "".join(f"{p:>18}" for p in phases))
    for row in rows:
        if row["missing"]:
            print(f"  {row['name']:<44} {'' if 'over' in row else 'not measured here: '}{row['missing']}")
            continue
        cells = ""
        for p in phases:
            row[p] = statistics.median(r[figures][p] for r in row["runs"])
            cells += f"{row[p]:>10.2f}"
            ratios = [r[figures][p] / s[figures][p] for r, s in zip(row["runs"], rows[0]["runs"])]
            if not rows[0]["missing"]:
                row[p + "_ratio"] = statistics.median(ratios)
            cells += f" ({row[p + '_ratio']:.2f})" if p + "_ratio" in row else " " * 7
        print(f"  {row['name']:<44}{cells}{memory(row)}", flush=True)


def memory(row):
    """What held compressed pages, and the most memory that was taken in all, where a run can tell."""
    rescues = statistics.median(r.get("rescues", 0) for r in row["runs"])
    return "".join(f"  {what} {statistics.median(r[what] for r in row['runs']) / MIB:.0f} MiB"
                   for what in ("pool", "peak") if what in row["runs"][0]) + \
        (f"  saved from the OOM killer {rescues:.0f} times" if rescues else "")
