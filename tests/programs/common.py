# SPDX-License-Identifier: Apache-2.0
"""What the tests of whole programs share: the tools, a scratch directory, running under a cap, TAP."""
import json
import os
import subprocess
import sys
import tempfile
import traceback

MIB = 1 << 20
SPILLWAY = os.environ["SPILLWAY"]
TOOLS = os.environ["TOOLS"]  # directory of sampler, torture, pages, faultio
HERE = os.path.dirname(os.path.abspath(__file__))
TIMEOUT = 300  # for a machine that is slow and shared


class Skip(Exception):
    """Cannot be measured here; says why."""


def tool(name):
    return os.path.join(TOOLS, name)


def expect(condition, message):
    if not condition:
        raise AssertionError(message)


def capped(cap, command, *options, stats=None):
    """The command line that runs `command` under a cap of `cap` bytes."""
    extra = ["--stats", stats] if stats else []
    return [SPILLWAY, "run", "--ram", str(cap), *options, *extra, "--", *command]


def run(command, status=0, **kwargs):
    """Run to the end; (stdout, stderr). Anything but the expected exit status fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False, **kwargs)
    expect(done.returncode == status,
           f"{' '.join(command)}: exit status {done.returncode}, not {status}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout, done.stderr.decode(errors="replace")


def read_stats(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def read_samples(path):
    """(peak, all samples) of the sampler."""
    with open(path, encoding="utf-8") as f:
        head = [f.readline().split() for _ in range(2)]
        return int(head[1][1]), [int(line) for line in f]


def main(cases):
    """Run (name, function(scratch directory)) one by one. Arguments: parts of the names of those to run; none: all."""
    os.environ.update(LC_ALL="C", PYTHONHASHSEED="0")
    cases = [c for c in cases if len(sys.argv) < 2 or any(word in c[0] for word in sys.argv[1:])]
    expect(cases, f"no case is called {' or '.join(sys.argv[1:])}")
    print(f"1..{len(cases)}")
    failed = 0
    for number, (name, function) in enumerate(cases, 1):
        with tempfile.TemporaryDirectory(prefix="spillway-test-") as scratch:
            try:
                note = function(scratch)
                print(f"ok {number} - {name}" + (f" # {note}" if note else ""), flush=True)
            except Skip as why:
                print(f"ok {number} - {name} # SKIP not measured here: {why}", flush=True)
            except Exception as why:  # pylint: disable=broad-except
                failed += 1
                print(f"not ok {number} - {name}", flush=True)
                for line in (str(why) or traceback.format_exc()).splitlines():
                    print(f"# {line}", flush=True)
    return 1 if failed else 0
