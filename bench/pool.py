# SPDX-License-Identifier: Apache-2.0
"""How much memory 1 GiB of pages takes that is out, compressed: the pool, and what is kept to find them there."""
import statistics

GIB_PAGES = (1 << 30) // 4096


def pools(result):
    """
    The result of compare() with a figure for each row, and those of its first two, which are Spillway's, over the best
    rival's. Prints them.
    """
    print("  MiB of pool for 1 GiB of pages that are out")
    for row in result["rows"]:
        mib = [] if row["missing"] else [pool_of(run) for run in row["runs"]]
        if mib and None not in mib:
            row["pool_of_gib"] = statistics.median(mib)
            print(f"    {row['name']:<44}{row['pool_of_gib']:>8.1f}", flush=True)
    best = min((row["pool_of_gib"] for row in result["rows"][2:] if "pool_of_gib" in row), default=None)
    for row in result["rows"][:2]:
        if best and "pool_of_gib" in row:
            row["pool_ratio"] = row["pool_of_gib"] / best
            print(f"    {row['name']} over that of the best rival: {row['pool_ratio']:.3f}", flush=True)
    return result


def pool_of(run):
    """
    MiB; None where the run cannot tell. Spillway's with all of its bookkeeping (in which the objects' headers, 6 bytes
    each, count a second time); the library's with buffers and work areas of threads, too. The kernel tells less of its
    own: of zswap the pages of the pool alone, and of zram, whose mem_used is that of the pool too, not its table of
    slots.
    """
    tiers = run["stats"].get("tiers") if "stats" in run else None
    if tiers:
        pool = next(t for t in tiers if t["kind"] == "zswap")
        return (pool["used_bytes"] / pool["pages"] + run["stats"]["metadata_bytes_per_page"]) * GIB_PAGES / (1 << 20) \
            if pool["pages"] else None
    if "used_bytes" in run.get("stats", {}):
        return (run["stats"]["used_bytes"] - run["stats"]["resident_bytes"]) / run["out"] * 1024
    return run["pool"] / run["out"] * 1024 if run.get("out") else None
