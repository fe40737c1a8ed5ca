# SPDX-License-Identifier: Apache-2.0
# What a shell with job control does with a job: stop it, wait for that, continue it, wait for its end.
import os
import signal
import sys

spillway, ready = sys.argv[1:]
program = """
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: os._exit(5))
os.close(os.open(sys.argv[1], os.O_WRONLY))
while True:
    signal.pause()
"""

os.mkfifo(ready)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.execv(spillway, [spillway, "run", "--ram", "64M", "--", sys.executable, "-c", program, ready])
os.close(os.open(ready, os.O_RDONLY))
os.kill(job, signal.SIGTSTP)
_, status = os.waitpid(job, os.WUNTRACED)
print("stopped" if os.WIFSTOPPED(status) else status, end=" ")
os.kill(job, signal.SIGCONT)
os.kill(job, signal.SIGUSR1)
_, status = os.waitpid(job, 0)
print("ended", os.waitstatus_to_exitcode(status))
