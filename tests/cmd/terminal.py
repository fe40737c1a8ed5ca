# SPDX-License-Identifier: Apache-2.0
# How often a program below `spillway run` gets a signal that spillway gets too. spillway is stopped until the program
# has had its own, so that a second one cannot melt into the first. SIGRTMIN comes last, by way of spillway, which
# passes on in order of the numbers: nothing is under way then.
import fcntl
import os
import pty
import signal
import struct
import sys
import termios

spillway, ready, how = sys.argv[1:]
program = """
import os, signal, sys
ready, how = os.open(sys.argv[1], os.O_WRONLY), sys.argv[2]
count = {}
def got(number, _):
    count[number] = count.get(number, 0) + 1
    if how == "tree" and number == signal.SIGQUIT:
        os.kill(0, signal.SIGTERM)
    os.write(ready, b"+")
def end(*_):
    os.write(ready, b"".join(b" %s %d" % (signal.Signals(n).name.encode(), c) for n, c in count.items()) + b" end")
    os._exit(0)
if how == "apart":
    os.setpgid(0, 0)
if how == "session":
    os.setsid()
for s in (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH, signal.SIGALRM, signal.SIGTERM):
    signal.signal(s, got)
signal.signal(signal.SIGRTMIN, end)
os.write(ready, b"+")
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
while True:
    signal.pause()
"""

os.mkfifo(ready)
job, terminal = pty.fork()
if not job:
    # The leader of the session, whose end would end all, is in the group that the terminal signals.
    ends = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
    for s in ends:
        signal.signal(s, lambda *_: os.write(1, b"!"))
    child = os.fork()
    if not child:
        for s in ends:
            signal.signal(s, signal.SIG_DFL)
        if how == "alarm":
            # It waits, blocked, until spillway looks, and again until the program does.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            signal.setitimer(signal.ITIMER_REAL, 1e-6)
            while signal.SIGALRM not in signal.sigpending():
                pass
        os.execv(spillway, [spillway, "run", "--ram", "64M", "--", sys.executable, "-c", program, ready, how])
    os.write(1, b"%d\n" % child)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

run = int(os.read(terminal, 100))
said = os.open(ready, os.O_RDONLY)
os.read(said, 1)


def alone(send, times=1):
    """The program gets what is sent while spillway is stopped; what spillway has got, it sees after that."""
    os.kill(run, signal.SIGSTOP)
    while True:
        with open(f"/proc/{run}/stat", encoding="ascii") as f:
            if f.read().rsplit(")", 1)[1].split()[0] == "T":
                break
    send()
    for _ in range(times):
        os.read(said, 1)
    os.kill(run, signal.SIGCONT)


if how == "terminal":
    alone(lambda: os.write(terminal, b"\x03"))
    alone(lambda: os.write(terminal, b"\x1c"))
    alone(lambda: fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0)))
elif how == "tree":
    alone(lambda: os.write(terminal, b"\x1c"), 2)
elif how == "group":
    alone(lambda: os.killpg(job, signal.SIGTERM))
elif how == "process":
    os.kill(run, signal.SIGINT)
    os.read(said, 1)
elif how == "apart":
    os.write(terminal, b"\x03")
    os.read(said, 1)
elif how == "alarm":
    os.read(said, 1)
elif how == "session":
    os.write(terminal, b"\x03")
    while b"!" not in os.read(terminal, 100):
        pass
os.kill(run, signal.SIGRTMIN)
text = b""
while not text.endswith(b"end"):
    text += os.read(said, 1000)
print(*text.decode().strip("+").split()[:-1])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
