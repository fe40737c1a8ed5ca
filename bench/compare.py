# SPDX-License-Identifier: Apache-2.0
"""Rivals that do the same, alternated: their medians, and the ratios within each round."""
import random
import statistics

from machine import MIB, Missing, TooLong, progress

PHASES = ["fill", "sequential", "random"]
FIGURES = {"us": "us per page (throughput of the first row over the row's)",
           "seconds": "seconds (the row's over the first row's)",
           "cost": "us a page (the row's over the first row's)"}
BESIDE = {"cpu": (1, "CPU {:.1f} s"), "pool": (MIB, "pool {:.0f} MiB"), "peak": (MIB, "peak {:.0f} MiB"),
          "rescues": (1, "saved from the OOM killer {:.0f} times")}


def compare(title, rivals, rounds, phases=None, shuffled=False, figures="us"):
    """
    rivals: (name, function of no arguments that gives {figures: {phase: figure}}); the first is Spillway. Prints those
    of `phases`; the rows have all. A row whose run was ended since it took too long has "over", the seconds.
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
        for name in row["runs"][0][figures]:
            sum_up(row, rows[0], figures, name)
        cells = "".join(f"{row[p]:>10.2f}" + (f"({row[p + '_ratio']:.2f})" if p + "_ratio" in row else "").rjust(8)
                        for p in phases)
        print(f"  {row['name']:<44}{cells}{beside(row)}{spread(row, phases)}", flush=True)


def sum_up(row, first, figures, name):
    """Of a figure: the median, the least and most, and the median ratio to the first row's of the same round."""
    values = [r[figures][name] for r in row["runs"]]
    row[name], row[name + "_spread"] = statistics.median(values), [min(values), max(values)]
    firsts = [r[figures].get(name) for r in first["runs"]]
    if all(firsts) and not first["missing"]:
        row[name + "_ratio"] = statistics.median(v / f for v, f in zip(values, firsts))


def beside(row):
    """What else the runs can tell."""
    said = ""
    for what, (unit, text) in BESIDE.items():
        if what in row["runs"][0]:
            row[what] = statistics.median(r[what] for r in row["runs"])
            said += "  " + text.format(row[what] / unit) if row[what] else ""
    return said


def spread(row, phases):
    """Half of the way from the least to the most, of the phase that differs most from round to round."""
    most = max((row[p + "_spread"][1] - row[p + "_spread"][0]) / 2 / row[p] for p in phases)
    return f"  ±{100 * most:.0f} %" if len(row["runs"]) > 1 else ""
