# SPDX-License-Identifier: Apache-2.0
"""
What the benchmark sets up of the kernel's swap is put back, however it ends (bench/guard.py, bench/kernel.py).

A child sets up all that the rivals need, says so and waits; it or the one that guards it is killed; then all is as it
was. Where that may not be set up the cases are skipped, and say why.
"""
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent / "bench"), str(HERE.parent / "programs")]
# pylint: disable=wrong-import-position
from common import MIB, Skip, expect, main
from guard import guard, swaps, zrams
from kernel import V1, Group, swapfile, zram_on, zswap_on, zswap_settings
from machine import Missing


def hold(folder):
    """Set everything up, and wait to be killed."""
    guard(folder)
    try:
        with contextlib.ExitStack() as stack:
            for context in (zswap_on(20), swapfile(folder, 16 * MIB), zram_on(16 * MIB)):
                stack.enter_context(context)
            enter = stack.enter_context(Group().limited(64 * MIB))
            asleep = stack.enter_context(subprocess.Popen(["sleep", "60"], preexec_fn=enter, stdout=subprocess.DEVNULL))
            print(f"ready {os.getpid()}", flush=True)
            try:
                time.sleep(60)
            finally:
                asleep.kill()
    except (Missing, OSError) as e:
        print(f"missing {e}", flush=True)


def state(folder):
    groups = {str(p) for path in (V1, V1.parent) for p in path.glob("spillway-bench-*")}
    return swaps(), zrams(), zswap_settings(), groups, set(os.listdir(folder))


def is_put_back(folder, which, number):
    before = state(folder)
    with subprocess.Popen([sys.executable, __file__, "--hold", folder], stdout=subprocess.PIPE, text=True) as p:
        said = p.stdout.readline().split(maxsplit=1)
        if said[:1] != ["ready"]:
            raise Skip(said[1].strip() if said else "it ended at once")
        expect(state(folder) != before, "nothing was set up")
        os.kill(p.pid if which == "guard" else int(said[1]), number)
        p.stdout.read() # until the last that has it is gone
    after = state(folder)
    expect(after == before, f"before: {before}\nafter: {after}")


CASES = [(f"{name} to the one that {does}", lambda folder, which=which, number=number:
          is_put_back(folder, which, number))
         for name, number in (("SIGKILL", signal.SIGKILL), ("SIGTERM", signal.SIGTERM), ("SIGQUIT", signal.SIGQUIT))
         for which, does in (("child", "measures"), ("guard", "guards it"))]

if __name__ == "__main__":
    if sys.argv[1:2] == ["--hold"]:
        hold(sys.argv[2])
    else:
        sys.exit(main(CASES))
