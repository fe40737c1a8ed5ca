# SPDX-License-Identifier: Apache-2.0
"""Swap that comes and goes under a program that checks its memory, and swap that is only counted."""
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

from common import HERE, MIB, SPILLWAY, TIMEOUT, expect, main, read_stats, run
from files import failing_file

ROUNDS = 50
PAGE = 4096
SEGMENT = 256 << 10


class Breathing:
    """A program under a cap that grows and shrinks on demand."""

    def __init__(self, scratch, *options):
        self.stats = os.path.join(scratch, "stats")
        command = [SPILLWAY, "run", *options, "--stats", self.stats, "--", sys.executable,
                   os.path.join(HERE, "jobs", "breathe.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = str(self.process.pid)

    def say(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        expect(answer == "done\n", f"the program did not answer to {word}: exit status {self.process.poll()}")

    def tiers(self):
        out, _ = run([SPILLWAY, "list", "--json", self.pid])
        return {t["name"]: t for t in json.loads(out)["tiers"]}

    def end(self):
        self.process.stdin.close()
        status = self.process.wait(timeout=TIMEOUT)
        expect(status == 0, f"the program ended with {status}")
        return {t["kind"]: t for t in read_stats(self.stats)["tiers"]}


def comes_and_goes(scratch):
    """A file is attached, the pool overflows onto it, and it is taken away; what was on it is in the pool then."""
    path, most = os.path.join(scratch, "swap"), 0
    p = Breathing(scratch, "--ram", "40M", "--swap", "zswap,size=12M")
    p.say("grow 7000")
    for _ in range(ROUNDS):
        run([SPILLWAY, "swapon", p.pid, f"file:{path},size=256M"])
        p.say("grow 9000")
        most = max(most, p.tiers()[path]["pages"])
        p.say("shrink")
        run([SPILLWAY, "swapoff", p.pid, path])
        expect(path not in p.tiers(), "the file is still there")
    p.say("check")
    p.end()
    expect(most > 1000, f"no more than {most} pages were ever on the file")
    return f"{ROUNDS} rounds, up to {most} pages on the file"


def ghost(scratch):
    """1 GiB in 256 MiB with nothing but a ghost of 8 GiB, which stays as it was."""
    path, stats = os.path.join(scratch, "ghost"), os.path.join(scratch, "stats")
    run([SPILLWAY, "mkswap", "--ghost", "--size", "8G", path])
    before = os.stat(path)
    job = ("import sys\n"
           "held = [bytes([i % 251]) * 4000 + i.to_bytes(40, 'little') for i in range(1 << 18)]\n"
           "sys.exit(any(held[i][-40:] != i.to_bytes(40, 'little') or held[i][0] != i % 251 for i in range(1 << 18)))\n")
    run([SPILLWAY, "run", "--ram", "256M", "--swap", f"ghost:{path}", "--stats", stats, "--", sys.executable, "-c", job])
    after, s = os.stat(path), read_stats(stats)
    for field in ("st_size", "st_blocks", "st_mtime_ns", "st_ctime_ns", "st_ino"):
        expect(getattr(before, field) == getattr(after, field), f"{field} of the ghost has changed")
    tiers = {t["kind"]: t for t in s["tiers"]}
    # The header's own page is no swap.
    expect(tiers["ghost"]["capacity_bytes"] == (8 << 30) - PAGE, f"capacity {tiers['ghost']['capacity_bytes']}")
    expect(tiers["ghost"]["used_bytes"] == 0 and tiers["ghost"]["errors"] == 0, f"{tiers['ghost']}")
    expect(s["swapped_pages_peak"] * PAGE > 640 * MIB, f"only {s['swapped_pages_peak']} pages were out")
    return f"{s['swapped_pages_peak']} pages out, {s['cap_exceeded_bytes'] / MIB:.1f} MiB over the cap"


def counted(scratch):
    """A ghost's header is the most that may be in the pool."""
    path, pages = os.path.join(scratch, "ghost"), 4096
    run([SPILLWAY, "mkswap", "--ghost", "--size", str((pages + 1) * PAGE), path])
    p = Breathing(scratch, "--ram", "48M", "--on-full", "grow", "--quiet", "--swap", f"ghost:{path}", "--swap",
                  "zswap,size=24M")
    p.say("grow 20000")
    p.say("check")
    in_pool = p.tiers()["zswap"]["pages"]
    p.end()
    expect(0 < in_pool <= pages, f"{in_pool} pages in the pool, counted on {pages}")
    return f"{in_pool} of {pages} pages"


def no_slot(scratch):
    """What is in the pool takes nothing of a file; what the pool cannot hold does, and both together hold all."""
    p = Breathing(scratch, "--ram", "64M", "--swap", "zswap,size=24M", "--swap", "file,size=64M")
    p.say("grow 16000")
    tiers = p.tiers()
    expect(tiers["zswap"]["pages"] > 1000, f"only {tiers['zswap']['pages']} pages in the pool")
    # But for pages that do not compress, which the pool does not keep: they share a segment.
    expect(tiers["file"]["used_bytes"] <= SEGMENT, f"{tiers['file']['used_bytes']} bytes of the file are taken")
    p.say("grow 40000")
    p.say("check")
    tiers = p.tiers()
    stored = tiers["zswap"]["stored_bytes"] + tiers["file"]["stored_bytes"]
    p.end()
    expect(stored > 48 * MIB, f"only {stored} bytes in pool and file")
    return f"{stored / MIB:.1f} MiB in a pool of 24 and a file of 64"


def descriptors(pid):
    """What a run has open, but for what it reads of processes."""
    fds, found = f"/proc/{pid}/fd", []
    for n in os.listdir(fds):
        with contextlib.suppress(FileNotFoundError):
            found.append((n, os.readlink(f"{fds}/{n}")))
    return sorted(f for f in found if not f[1].startswith("/proc"))


def request(pid, message, *fds):
    """What a run answers to a message of bytes, or of JSON, with descriptors beside it. b"": it hangs up."""
    name = next(n for n, target in descriptors(pid) if "/spillway-control-" in target)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(TIMEOUT)
        s.connect(f"/proc/{pid}/fd/{name}")
        socket.send_fds(s, [message if isinstance(message, bytes) else json.dumps(message).encode()], fds)
        answer = s.recv(65536)
        expect(not answer or not s.recv(1), "it does not hang up")
    return json.loads(answer) if answer else answer


def does_not_answer(scratch):
    """The tree goes on while `spillway swapon` waits for a file system; what waits can be interrupted, and repeated."""
    other = os.path.join(scratch, "swap")
    p = Breathing(scratch, "--ram", "40M", "--swap", "zswap,size=12M")
    p.say("grow 7000")
    with failing_file(scratch) as (path, control):
        command = [SPILLWAY, "swapon", p.pid, f"file:{path}"]
        for what in ("getattr", "open"):
            control(what + " held")
            try:
                asking = subprocess.Popen(command, process_group=0)
                deadline = time.monotonic() + TIMEOUT
                while "waiting 1" not in run(["cat", os.path.join(os.path.dirname(path), "control")])[0].decode():
                    expect(time.monotonic() < deadline, f"nobody asks for {what}")
                expect(path not in p.tiers(), "it is there before it was opened")
                run([SPILLWAY, "swapon", p.pid, f"file:{other},size=256M"])
                p.say("grow 9000")
                p.say("check")
                p.say("shrink")
                run([SPILLWAY, "swapoff", p.pid, other])
                expect(asking.poll() is None, f"it did not wait for {what}")
                os.killpg(asking.pid, signal.SIGINT)
                status = asking.wait(timeout=TIMEOUT)
                expect(status == -signal.SIGINT, f"interrupted, it ended with {status}")
            finally:
                control(what + " none")
            expect(path not in p.tiers(), "what was interrupted is there all the same")
            run(command)
            expect(path in p.tiers(), "it is not there")
            run([SPILLWAY, "swapoff", p.pid, path])
        # It has ceased to answer when the run gets the descriptor: nothing is asked of it.
        file = os.open(path, os.O_RDWR)
        control("getattr held")
        try:
            answer = request(p.pid, {"do": "swapon", "swap": "file:" + path, "file": {"bytes": 64 * MIB}}, file)
            expect(answer == {"ok": True}, f"{answer}")
            expect(path in p.tiers(), "it is not there")
        finally:
            control("getattr none")
            os.close(file)
        run([SPILLWAY, "swapoff", p.pid, path])
    p.say("check")
    p.end()


def keeps_no_descriptor(scratch):
    """Whatever a client sends: the run has as many descriptors afterwards as before."""
    path = os.path.join(scratch, "swap")
    run([SPILLWAY, "mkswap", "--size", "8M", path])
    size = 8 * MIB
    p = Breathing(scratch, "--ram", "40M", "--swap", "zswap,size=12M", "--swap", f"file:{path}")
    p.say("grow 100")
    before = descriptors(p.pid)

    def swapon(file="file:/new", **facts):
        return {"do": "swapon", "swap": file, "file": {"bytes": size, **facts}}

    other = os.path.join(scratch, "other")
    run([SPILLWAY, "mkswap", "--size", "8M", other])
    opened = [os.open(path, os.O_RDWR), os.open(other, os.O_RDWR), os.open(other, os.O_RDONLY), os.open(other, os.O_PATH),
              os.open("/dev/null", os.O_RDWR), *os.pipe()]
    mine, good, reads, names, null, pipe, _ = opened
    refused = [
        (b"no json", good), ({"do": "dance"}, good), (b"", good), ({"do": "list"}, good), ({"do": "swapon"}, good),
        (swapon("floppy"), good), (swapon("zswap"), good), (swapon("file:" + path), good), (swapon(), mine),
        (swapon(), reads), (swapon(), names), (swapon(), null), (swapon(), pipe), (swapon(), good, null), (swapon(), ),
        (swapon(bytes=size + PAGE), good), (swapon(bytes=0), good), (swapon(bytes=-PAGE), good), (swapon(bytes=size - 1), good),
        (swapon(bad=[0]), good), (swapon(bad=["1"]), good), (swapon(bad=list(range(1, 639))), good),
        (swapon(pages=1), good), (swapon("ghost:/new", pages=1), good), (swapon("ghost:/new"), ),
        (swapon("ghost:/new", pages=1 << 32), ), ({"do": "offer", "swap": "file:/new"}, good),
    ]
    for message, *given in refused:
        answer = request(p.pid, message, *given)
        expected = message in (b"", {"do": "list"}, {"do": "offer", "swap": "file:/new"})
        expect(expected or (answer and "error" in answer), f"{message}: {answer}")
        expect(descriptors(p.pid) == before, f"{message}: a descriptor is left")
    os.chmod(other, 0o644)
    expect("mode 0644" in request(p.pid, swapon(), good)["error"], "what others may read is taken")
    os.chmod(other, 0o600)
    expect(sorted(p.tiers()) == sorted(["zswap", path]), f"{p.tiers()}")
    expect(request(p.pid, swapon("file:" + other, bad=[1, 5]), good) == {"ok": True}, "a good one is refused")
    # The header is in no segment, and the first one has both bad pages in it.
    expect(p.tiers()[other]["capacity_bytes"] == (size // SEGMENT - 2) * SEGMENT, f"{p.tiers()[other]}")
    run([SPILLWAY, "swapoff", p.pid, other])
    expect(descriptors(p.pid) == before, "a tier that left is open")
    for fd in opened:
        os.close(fd)
    p.end()
    return f"{len(refused)} requests"


CASES = [("a file comes and goes", comes_and_goes), ("a ghost of 8 GiB", ghost), ("a ghost is counted", counted),
         ("compressed pages take no slot", no_slot), ("a file system that does not answer", does_not_answer),
         ("descriptors that are not taken", keeps_no_descriptor)]

if __name__ == "__main__":
    sys.exit(main(CASES))
