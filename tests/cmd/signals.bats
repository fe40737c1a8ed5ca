#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Signals sent to spillway reach the program; job control and kill -9 work as if spillway were not there.
load lib

# A program that answers signal $1 with exit status 33 and says through a fifo that it is ready to. bash runs a trap
# when a builtin returns: one that waited for ever would not see a signal that came just before it began to. And it
# traps none that was ignored when it began, as HUP is below nohup(1).
waits_for() {
	mkfifo "$T/ready" "$T/never"
	"$SPILLWAY" run --ram 64M -- env --default-signal bash -c "trap 'exit 33' $1; echo >'$T/ready'; while :; do read -t 1 x <>'$T/never'; done" 3>&- &
	pid=$!
	read -r <"$T/ready"
}

@test "signals reach the program" {
	for signal in HUP TERM USR1 USR2 ALRM RTMIN; do
		waits_for "$signal"
		kill -s "$signal" "$pid"
		status=0
		wait "$pid" || status=$?
		echo "$signal: $status"
		[ "$status" = 33 ]
		rm "$T/ready" "$T/never"
	done
}

@test "one signal arrives once" {
	mkfifo "$T/ready"
	cat >"$T/counts.py" <<-'END'
		import os, signal, sys
		count = 0
		def usr1(*_):
		    global count
		    count += 1
		signal.signal(signal.SIGUSR1, usr1)
		signal.signal(signal.SIGTERM, lambda *_: os._exit(40 + count))
		os.close(os.open(sys.argv[1], os.O_WRONLY))
		while True:
		    signal.pause()
	END
	"$SPILLWAY" run --ram 64M -- python3 "$T/counts.py" "$T/ready" 3>&- &
	pid=$!
	cat "$T/ready"
	kill -USR1 "$pid"
	kill -TERM "$pid"
	status=0
	wait "$pid" || status=$?
	[ "$status" = 41 ]
}

# gets HOW WHAT: the program of terminal.py has got WHAT, and how often.
gets() {
	run -0 timeout -k 1 30 python3 "$BATS_TEST_DIRNAME/terminal.py" "$SPILLWAY" "$T/ready-$1" "$1"
	echo "$1: $output"
	[ "$output" = "$2" ]
}

@test "a terminal's signals arrive once" { gets terminal "SIGINT 1 SIGQUIT 1 SIGWINCH 1"; }
@test "a signal to spillway alone arrives once" { gets process "SIGINT 1"; }
@test "a signal that the program sends to its group arrives once" { gets tree "SIGQUIT 1 SIGTERM 1"; }
@test "a signal to the group from outside arrives, twice as documented" { gets group "SIGTERM 2"; }
@test "a terminal's signals reach a program that has made itself a group, not one with a session of its own" {
	gets apart "SIGINT 1"
	gets session ""
}
@test "an alarm that was set before arrives" { gets alarm "SIGALRM 1"; }

@test "stop and continue, as a shell does it to a job" {
	run -0 timeout -k 1 30 python3 "$BATS_TEST_DIRNAME/job.py" "$SPILLWAY" "$T/ready"
	[ "$output" = "stopped ended 5" ]
}

@test "kill -9 of spillway ends the program" {
	mkfifo "$T/held"
	"$SPILLWAY" run --ram 64M -- bash -c "exec 8>'$T/held'; echo \$\$ >&8; exec sleep 1000" 3>&- &
	pid=$!
	exec 9<"$T/held"
	read -r program <&9
	kill -9 "$pid"
	wait "$pid" || true
	timeout 30 cat <&9 # ends when the last holder of the other side is gone
	[ ! -e "/proc/$program" ] || grep -q '^State:.*Z' "/proc/$program/status"
}

@test "a line that nobody reads ends nobody" {
	(
		spillway run --ram 24M --swap zswap,size=2M -- sh -c 'exec >/dev/null 2>&1; exec python3 -c "
import random
held = [random.randbytes(4096) for i in range(16000)]"'
		echo $? >"$T/status"
	) 2>&1 >/dev/null | true
	for _ in $(seq 3000); do
		[ -s "$T/status" ] && break
		sleep 0.01
	done
	[ "$(cat "$T/status")" -eq 0 ]
}
