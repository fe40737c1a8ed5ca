#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The file tier when things go wrong outside: full, failing, damaged, cut short; and how much it holds.

What cannot be written stays in memory, counted, and the program goes on with the right bytes. What cannot be read back
ends the program that needs it with SIGBUS and one message naming entry and slot: never with wrong bytes.
"""
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

from common import MIB, SPILLWAY, Skip, capped, expect, main, read_stats, run, tool

SIGBUS_STATUS = 128 + signal.SIGBUS
LOST = re.compile(r"^spillway: .*entry \d+, slot 0x[0-9a-f]+", re.MULTILINE)


class Pages:
    """tests/programs/pages.c under a cap, spoken to line by line."""

    def __init__(self, scratch, mib, cap, *swaps, env=None):
        self.stats = os.path.join(scratch, "stats")
        options = [word for swap in swaps for word in ("--swap", swap)]
        self.run = subprocess.Popen(
            capped(cap, [tool("pages"), str(mib), "1"], *options, stats=self.stats),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env={**os.environ, **(env or {})})

    def ask(self, command, answer):
        self.run.stdin.write(command + b"\n")
        said = self.run.stdout.readline().strip()
        expect(said == answer, f"{command.decode()}: {said!r} {self.run.stderr.read().decode() if not said else ''}")

    def end(self, status=0):
        """(statistics, what was said on standard error)."""
        _, complaints = self.run.communicate(timeout=60)
        complaints = complaints.decode()
        expect(self.run.returncode == status, f"exit status {self.run.returncode}, not {status}: {complaints}")
        return (read_stats(self.stats) if status == 0 else None), complaints

    def dies(self, command):
        """The command needs bytes that are lost."""
        self.run.stdin.write(command + b"\n")
        said, complaints = self.run.communicate(timeout=60)
        complaints = complaints.decode()
        expect(self.run.returncode == SIGBUS_STATUS, f"exit status {self.run.returncode}, said {said!r}: {complaints}")
        expect(b"right" not in said, "it went on")
        expect(len(LOST.findall(complaints)) == 1, f"not one message with entry and slot: {complaints}")


def file_tier(stats):
    return next(t for t in stats["tiers"] if t["kind"] == "file")


@contextlib.contextmanager
def mounted(scratch, make, *mount):
    """A small filesystem of its own; what refuses it is a reason to skip."""
    where = os.path.join(scratch, "mount")
    os.mkdir(where)
    for command in [*make, ["mount", *mount, where]]:
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise Skip(f"{command[0]}: {done.stderr.decode().strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def fill_up(where):
    """Take all the space that is left."""
    with open(os.path.join(where, "ballast"), "wb", buffering=0) as f:
        with contextlib.suppress(OSError):
            while True:
                f.write(bytes(1 * MIB))
        with contextlib.suppress(OSError):
            while True:
                f.write(bytes(4096))


def goes_on(p):
    p.ask(b"fill", b"filled")
    p.ask(b"check", b"right")
    s, _ = p.end()
    expect(file_tier(s)["errors"] > 0, f"no error was counted: {s['tiers']}")
    return f"{file_tier(s)['errors']} errors, {s['cap_exceeded_bytes'] / MIB:.1f} MiB over the cap"


def full(scratch):
    image = os.path.join(scratch, "image")
    make = [["truncate", "-s", "48M", image], ["mkfs.ext4", "-q", "-F", image]]
    with mounted(scratch, make, "-o", "loop", image) as where:
        p = Pages(scratch, 64, 24 * MIB, "zswap,size=6M", "file", env={"TMPDIR": where})
        fill_up(where)
        return goes_on(p)


@contextlib.contextmanager
def failing_file(scratch):
    """The file of faultio, and a function that tells it what fails."""
    where = os.path.join(scratch, "mount")
    os.mkdir(where)
    server = subprocess.Popen([tool("faultio"), where, str(64 * MIB)], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10
        while not os.path.exists(os.path.join(where, "data")):
            if server.poll() is not None:
                raise Skip("faultio: " + server.stderr.read().decode().strip())
            expect(time.monotonic() < deadline, "faultio does not mount")
            time.sleep(0.01)

        def control(text):
            with open(os.path.join(where, "control"), "w", encoding="ascii") as f:
                f.write(text + "\n")

        data = os.path.join(where, "data")
        run(["mkswap", data])
        yield data, control
    finally:
        server.terminate()
        server.wait()


def write_fails(fault):
    def case(scratch):
        with failing_file(scratch) as (path, control):
            p = Pages(scratch, 48, 24 * MIB, "zswap,size=6M", f"file:{path},size=64M")
            control(f"write {fault}")
            return goes_on(p)

    return f"{fault} on write", case


def read_fails(fault):
    def case(scratch):
        with failing_file(scratch) as (path, control):
            p = Pages(scratch, 48, 24 * MIB, "zswap,size=2M", f"file:{path},size=64M")
            p.ask(b"fill", b"filled")
            control(f"read {fault}")
            p.dies(b"check")

    return f"{fault} on read", case


def tier_now(p, path):
    """What the run says of the tier, None when it has left."""
    out, _ = run([SPILLWAY, "list", "--json", str(p.run.pid)])
    return next((t for t in json.loads(out)["tiers"] if t["name"] == path), None)


def wait_until(p, path, holds):
    """Until that is so of the tier; returns it."""
    deadline = time.monotonic() + 120
    while not holds(tier := tier_now(p, path)):
        expect(p.run.poll() is None, f"it has ended: {p.run.poll()}")
        expect(time.monotonic() < deadline, f"still {tier}")
        time.sleep(0.01)
    return tier


def left_dead(p, path, why):
    """The run ends well, and says once of what the tier has died."""
    s, complaints = p.end()
    line = f"spillway: {path}: dead ({why}): nothing more is written to it, and what can be read is moved elsewhere\n"
    expect(complaints.count(": dead (") == 1 and line in complaints, complaints)
    tier = next(t for t in s["tiers"] if t["name"] == path)
    expect(tier["state"] == "dead" and tier["error"] == why and tier["errors"] > 0, f"{tier}")
    return tier


def dies_for_good(fault, why, *others):
    """No write succeeds any more, all reads do: all that is there goes elsewhere, over the cap if it must."""
    def case(scratch):
        with failing_file(scratch) as (path, control):
            p = Pages(scratch, 96, 24 * MIB, "zswap,size=4M", f"file:{path},size=64M,priority=9", *others)
            p.ask(b"lower", b"lower")
            p.ask(b"fill", b"filled")
            before = wait_until(p, path, lambda t: t["pages"] > 1000)["pages"]
            control(f"write {fault}")
            p.ask(b"upper", b"upper")
            p.ask(b"fill", b"filled")
            wait_until(p, path, lambda tier: tier is None)
            control("read eio")
            if not others:
                # The pool had to grow, and does not stay so when there is room.
                expect((pool := tier_now(p, "zswap"))["used_bytes"] > pool["capacity_bytes"], f"{pool}")
                run([SPILLWAY, "swapon", str(p.run.pid), f"file:{scratch}/more,size=64M"])
                wait_until(p, "zswap", lambda pool: pool["used_bytes"] <= pool["capacity_bytes"])
            p.ask(b"check", b"right")
            p.ask(b"lower", b"lower")
            p.ask(b"check", b"right")
            tier = left_dead(p, path, why)
            expect(tier["unreadable_pages"] == 0 and tier["reads"] >= before, f"{tier}, {before} pages were there")
            return f"{before} pages moved, {tier['errors']} errors"

    return f"a file that dies, {fault}" + (", beside another" if others else ""), case


def dies_unreadable(needed):
    """Nothing can be read either. Who needs what is lost ends, who does not goes on."""
    def case(scratch):
        with failing_file(scratch) as (path, control):
            p = Pages(scratch, 96, 24 * MIB, "zswap,size=4M", f"file:{path},size=64M")
            p.ask(b"lower", b"lower")
            p.ask(b"fill", b"filled")
            wait_until(p, path, lambda t: t["pages"] > 1000)
            control("read eio")
            control("write erofs")
            p.ask(b"upper", b"upper")
            p.ask(b"fill", b"filled")
            tier = wait_until(p, path, lambda t: t["state"] == "dead" and t["unreadable_pages"] > 0)
            expect(tier["unreadable_pages"] == tier["pages"], f"{tier}")
            run([SPILLWAY, "swapoff", str(p.run.pid), path], status=125)
            expect("Read-only file system), " in run([SPILLWAY, "list", str(p.run.pid)])[0].decode(), "list does not say why")
            p.ask(b"check", b"right")
            if needed:
                p.ask(b"lower", b"lower")
                p.dies(b"check")
                return None
            expect(tier_now(p, path)["unreadable_pages"] == tier["pages"], "pages have gone that nobody freed")
            tier = left_dead(p, path, "Read-only file system")
            return f"{tier['unreadable_pages']} pages lost"

    return f"a file that dies and cannot be read, {'needed' if needed else 'not needed'}", case


def made(scratch, size):
    """A swapfile that is there before the run, so that it has a name to reach it by."""
    path = os.path.join(scratch, "swap")
    with open(path, "wb") as f:
        os.chmod(path, 0o600)
        f.truncate(size)
    run(["mkswap", path])
    return path


def wait_for(path, size):
    """Until so much of the file is taken: what goes there goes behind the program's back."""
    deadline = time.monotonic() + 20
    while os.stat(path).st_blocks * 512 < size:
        expect(time.monotonic() < deadline, f"only {os.stat(path).st_blocks * 512} bytes were written to the file")
        time.sleep(0.01)


def flip(path):
    """One bit of every stored block, from outside."""
    with open(path, "r+b") as f:
        for at in range(4096, os.path.getsize(path), 4096):
            f.seek(at + 77)
            byte = f.read(1)
            if byte != b"\0":
                f.seek(at + 77)
                f.write(bytes([byte[0] ^ 4]))
        f.flush()
        os.fsync(f.fileno())


def cut(path):
    os.truncate(path, 4096)


def damaged(what, damage):
    def case(scratch):
        path = made(scratch, 64 * MIB)
        p = Pages(scratch, 48, 24 * MIB, "zswap,size=2M", f"file:{path}")
        p.ask(b"fill", b"filled")
        wait_for(path, 6 * MIB)
        damage(path)
        p.dies(b"check")

    return f"a swap file that is {what}", case


def holds_more_than_its_size(scratch):
    """1 GiB of 3:1 pages on 512 MiB with a pool of 32 MiB."""
    p = Pages(scratch, 1024, 96 * MIB, "zswap,size=32M", f"file:{scratch}/swap,size=512M")
    p.ask(b"fill", b"filled")
    p.ask(b"check", b"right")
    s, complaints = p.end()
    expect("full" not in complaints, complaints)
    expect(file_tier(s)["errors"] == 0, f"{s['tiers']}")
    expect(s["swapped_pages_peak"] * 4096 > 896 * MIB, f"only {s['swapped_pages_peak']} pages were out")
    return f"{s['swapped_pages_peak']} pages out, {s['cap_exceeded_bytes'] / MIB:.1f} MiB over the cap"


def hides_nothing_in_the_page_cache(scratch):
    path = made(scratch, 64 * MIB)
    p = Pages(scratch, 64, 24 * MIB, "zswap,size=2M", f"file:{path}")
    p.ask(b"fill", b"filled")
    cached = int(run(["fincore", "-b", "-n", "-o", "RES", path])[0])
    p.ask(b"check", b"right")
    s, _ = p.end()
    expect(file_tier(s)["writes"] > 1000, f"hardly anything went to the file: {s['tiers']}")
    expect(cached <= MIB, f"{cached / MIB:.1f} MiB of the swap file are in the page cache")
    return f"{file_tier(s)['writes']} pages written, {cached} bytes cached"


CASES = [
    ("a file system that is full", full),
    write_fails("eio"), write_fails("enospc"), read_fails("eio"), read_fails("flip"),
    dies_for_good("eio", "Input/output error"), dies_for_good("erofs", "Read-only file system", "file,size=64M"),
    dies_unreadable(False), dies_unreadable(True),
    damaged("flipped", flip), damaged("cut short", cut),
    ("1 GiB in a pool of 32 MiB and a file of 512 MiB", holds_more_than_its_size),
    ("nothing in the page cache", hides_nothing_in_the_page_cache),
]

if __name__ == "__main__":
    sys.exit(main(CASES))
