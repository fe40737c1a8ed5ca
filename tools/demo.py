#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""demo.py SPILLWAY: two real programs on the text of this machine, first without a cap, then in a quarter of the
memory that they used; says whether the outputs are the same and what it took."""
import hashlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time

ROOTS = ["/usr/share", "/usr/include", "/usr/lib/python3"]
CORPUS_BYTES = 32 << 20
LEAST_CAP = 24 << 20
MIB = 1 << 20

# Every word with the lines it is on: the words of each line, sorted, one line a word.
INDEX = r"""tr -cs 'A-Za-z0-9\n' ' ' <"$1" | awk '{for (i = 1; i <= NF; i++) print $i, NR}' |
sort -S 2G --parallel=2 -k1,1 -k2,2n |
awk '$1 != word {if (NR > 1) print ""; word = $1; printf "%s", word} {printf " %s", $2} END {print ""}'"""


def gather(path, most):
    """Text files under ROOTS, one behind the other, up to that many bytes."""
    taken = 0
    with open(path, "wb") as out:
        for root in ROOTS:
            for folder, folders, names in os.walk(root):
                folders.sort()
                for name in sorted(names):
                    full = os.path.join(folder, name)
                    try:
                        if os.path.islink(full) or not os.path.isfile(full) or os.path.getsize(full) > 4 * MIB:
                            continue
                        with open(full, "rb") as f:
                            data = f.read()
                    except OSError:
                        continue
                    if b"\0" in data or not data:
                        continue
                    taken += out.write(data)
                    if taken >= most:
                        return taken
    return taken


def measure(title, command):
    """Run it, its output into a hash; (digest, seconds, peak bytes of its largest process)."""
    begin = time.monotonic()
    tty = sys.stdout.isatty()
    digest = hashlib.sha256()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    last = begin
    os.set_blocking(process.stdout.fileno(), False)
    print(f"  {title:<12}", end="" if not tty else "\r", flush=True)
    while True:
        ready, _, _ = select.select([process.stdout], [], [], 1)
        if ready:
            data = process.stdout.read(MIB)
            if data == b"":
                break
            digest.update(data or b"")
        if time.monotonic() - last >= 1:
            last = time.monotonic()
            print(f"\r  {title:<12} {last - begin:5.0f} s" if tty else ".", end="", flush=True)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begin
    if process.returncode:
        sys.exit(f"\ndemo: {' '.join(command)}: exit status {process.returncode}")
    print(f"\r  {title:<12} {seconds:5.1f} s" if tty else f" {seconds:.1f} s")
    return digest.hexdigest(), seconds, usage.ru_maxrss * 1024


def part(spillway, scratch, name, command):
    print(name)
    plain, seconds, peak = measure("no cap", command)
    cap = max(peak // 4, LEAST_CAP)
    stats = os.path.join(scratch, "stats.json")
    capped, capped_seconds, _ = measure(
        "capped", [spillway, "run", "--ram", str(cap), "--stats", stats, "--"] + command)
    with open(stats, encoding="utf-8") as f:
        s = json.load(f)

    stored = sum(t["stored_bytes"] for t in s["tiers"])
    pages = sum(t["pages"] for t in s["tiers"])
    print(f"  output identical   {'yes' if plain == capped else 'NO'}")
    print(f"  peak memory        {peak / MIB:.0f} MiB -> {s['resident_peak_bytes'] / MIB:.0f} MiB (cap {cap / MIB:.0f} MiB)")
    print(f"  time               {seconds:.1f} s -> {capped_seconds:.1f} s")
    print(f"  pages out / in     {s['swap_out_pages']} / {s['swap_in_pages']} ({s['same_filled_pages']} same-filled)")
    print(f"  compression        {pages * 4096 / stored:.1f} : 1" if stored else "  compression        nothing stored at the end")
    for t in s["tiers"]:
        print(f"  tier {t['name']:<13} {t['used_bytes'] / MIB:.1f} MiB used at the end, {t['writes']} pages written, "
              f"{t['reads']} read, {t['errors']} errors")
    print()
    return plain == capped


def main():
    spillway = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="spillway-demo-") as scratch:
        corpus = os.path.join(scratch, "corpus")
        print(f"gathering text under {' '.join(ROOTS)} ...", flush=True)
        small = os.path.join(scratch, "small")
        print(f"  {gather(corpus, CORPUS_BYTES) / MIB:.0f} MiB, half of it for the index\n")
        gather(small, CORPUS_BYTES // 2)
        os.environ["LC_ALL"] = "C"
        parts = [
            ("an index (tr | awk | sort | awk)", ["sh", "-c", INDEX, "index", small]),
            ("a sort", ["sort", "-S", "2G", "--parallel=2", corpus]),
        ]
        same = [part(spillway, scratch, name, command) for name, command in parts]
    print("identical output: yes" if all(same) else "identical output: NO")
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
