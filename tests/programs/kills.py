#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random times: of the program, of its forked child, of `spillway run` itself.

Afterwards there is no process of the tree, no file and no shared memory left, and who survived had the right bytes. No
process left is no mapping left. The time of the kill is drawn from a seed, and so is whether the swapfile is given a
name; the time is what is tested, nothing waits for it.
"""
import os
import random
import signal
import subprocess
import sys
import time

from common import MIB, capped, expect, main, tool

MARK = "SPILLWAY_TEST_ROUND"
DATA_MIB = 24
CAP = 16 * MIB
LONGEST = 0.2  # seconds until the kill
GONE = 10      # seconds until everything must be


def processes_of(mark):
    """Every process that has this round's mark in its environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if f"{MARK}={mark}".encode() in f.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:
            continue
    return found


def one_round(scratch, mark, victim, pause, named):
    temporary = os.path.join(scratch, "tmp")
    os.makedirs(temporary, exist_ok=True)
    shared = set(os.listdir("/dev/shm"))
    command = capped(CAP, [tool("pages"), str(DATA_MIB), mark], "--swap", "zswap,size=4M",
                     "--swap", f"file:{temporary}/swap,size=64M" if named else "file")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env={**os.environ, MARK: mark, "TMPDIR": temporary}, bufsize=0) as run:
        try:
            run.stdin.write(b"fill\nchurn\n")
            words = (run.stdout.readline() + run.stdout.readline()).split()
            if len(words) != 4:
                raise AssertionError(f"it does not fork: said {words}: {run.stderr.read().decode()}")
            pid = {"program": int(words[2]), "child": int(words[3]), "supervisor": run.pid}[victim]
            time.sleep(pause)
            os.kill(pid, signal.SIGKILL)
            said, complaints = run.communicate(timeout=60)  # ends when nobody holds the pipes any more
        except BaseException:
            for left in processes_of(mark):
                os.kill(left, signal.SIGKILL)
            raise
    survivors = {"program": b"right child\n", "child": b"right parent\n", "supervisor": b""}[victim]
    status = {"program": 128 + signal.SIGKILL, "child": 0, "supervisor": -signal.SIGKILL}[victim]
    expect(survivors in said, f"the survivor said {said!r}: {complaints.decode()}")
    expect(run.returncode == status, f"exit status {run.returncode}, not {status}: {complaints.decode()}")
    deadline = time.monotonic() + GONE
    while left := processes_of(mark):
        expect(time.monotonic() < deadline, f"processes left: {left}")
        time.sleep(0.005)
    expect(not os.listdir(temporary), f"files left: {os.listdir(temporary)}")
    left = [name for name in set(os.listdir("/dev/shm")) - shared if "spillway" in name]
    expect(not left, f"shared memory left: {left}")


def rounds(victim, number):
    def case(scratch):
        r = random.Random(victim)
        for i in range(number):
            pause, named = r.uniform(0, LONGEST), r.getrandbits(1)
            try:
                one_round(scratch, str(r.getrandbits(48)), victim, pause, named)
            except (AssertionError, subprocess.TimeoutExpired) as why:
                raise AssertionError(f"round {i}, {pause:.3f} s, {'named' if named else 'unnamed'}: {why}") from None
        return f"{number} rounds"

    return f"kill -9 of the {victim}", case


CASES = [rounds("program", 67), rounds("child", 67), rounds("supervisor", 66)]

if __name__ == "__main__":
    sys.exit(main(CASES))
