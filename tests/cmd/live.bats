# SPDX-License-Identifier: Apache-2.0
# A running tree, asked and changed from outside.
load lib

# A run that holds pages in the pool and on its file and checks them until it is told to stop. $run is its pid.
begin() {
	mkfifo "$T/stop" "$T/ready"
	exec 8<>"$T/stop"
	cat >"$T/hold.py" <<-'END'
		import random, select, sys
		random.seed(1)
		n = int(sys.argv[3])
		held = [bytes([i % 251]) * 1300 + random.randbytes(700) + bytes(2000) + i.to_bytes(8, "little") for i in range(n)]
		stop = open(sys.argv[1])
		open(sys.argv[2], "w").write("x")
		while not select.select([stop], [], [], 0)[0]:
		    for i in random.sample(range(n), 200):
		        assert held[i][-8:] == i.to_bytes(8, "little") and held[i][5] == i % 251
		print("right")
	END
	"$SPILLWAY" run --ram 28M --swap zswap,size=5M "$@" --stats "$T/stats" -- python3 "$T/hold.py" "$T/stop" "$T/ready" "${held:-10000}" \
		>"$T/out" 2>"$T/err" 8>&- &
	run=$!
	read -r -n 1 <"$T/ready"
}

# It ends, and has read what it wrote.
finish() {
	echo >&8
	exec 8>&-
	wait "$run"
	cat "$T/err"
	[ "$(cat "$T/out")" = right ]
}

tier() { "$SPILLWAY" list --json "$run" | jq -r --arg name "$1" ".tiers[]|select(.name == \$name)|$2"; }
# said STATUS TEXT ARG...: as fails, of a subcommand that $run is asked by.
said() {
	local pid=$run
	run --separate-stderr -"$1" timeout 60 "$SPILLWAY" "${@:3}"
	run=$pid
	echo "stderr: $stderr"
	[[ $stderr == *"$2"* ]]
}

# Poll, for what another process does.
until_is() {
	for _ in $(seq 1000); do
		[ "$(tier "$1" "$2")" = "$3" ] && return
		sleep 0.01
	done
	return 1
}

@test "list shows a run, its cap and its tiers" {
	begin --swap file,size=200M
	local pid=$run
	run -0 "$SPILLWAY" list
	[[ $output == *"$pid"*"28.0 MiB"*python3* ]]
	run=$pid
	[ "$("$SPILLWAY" list --json "$run" | jq -c '[.tiers[].name]')" = '["zswap","file"]' ]
	[ "$(tier file .pages)" -gt 0 ]
	finish
}

@test "a file is added, and taken away again, under a program that checks its memory" {
	begin --swap file,size=200M
	local pid=$run
	for round in 1 2 3; do
		"$SPILLWAY" swapon "$pid" "file:$T/more,size=200M"
		[ "$(tier "$T/more" .priority)" -lt "$(tier zswap .priority)" ]
		"$SPILLWAY" swapoff "$pid" file
		[ -z "$(tier file .pages)" ]
		[ "$(tier "$T/more" .pages)" -gt 0 ]
		"$SPILLWAY" swapon "$pid" file,size=200M
		"$SPILLWAY" swapoff "$pid" "$T/more"
		[ -z "$(tier "$T/more" .pages)" ]
	done
	finish
	[ "$(jq -c '[.tiers[]|select(.errors > 0)]' "$T/stats")" = '[]' ]
	[ "$(jq -c '[.tiers[]|[.name, .state]]' "$T/stats")" = '[["zswap","on"],["file","on"],["'"$T"'/more","off"],["file","off"],["'"$T"'/more","off"],["file","off"],["'"$T"'/more","off"],["file","off"]]' ]
	# All held pages, and a place taken anew does not lose the figures of who had it before.
	[ "$(jq '[.tiers[]|select(.state == "off")|.writes > 0 and .reads > 0 and .pages == 0 and .used_bytes == 0]|all' "$T/stats")" = true ]
}

@test "of many tiers that came and went the oldest are summed up" {
	"$SPILLWAY" mkswap --ghost --size 1G "$T/ghost"
	begin --swap file,size=100M --swap "file:$T/first,size=100M"
	"$SPILLWAY" swapoff "$run" file
	for round in $(seq 16); do
		"$SPILLWAY" swapon "$run" "ghost:$T/ghost"
		"$SPILLWAY" swapoff "$run" "$T/ghost"
	done
	finish
	[ "$(jq '[.tiers[]|select(.state == "off")|.name == "'"$T"'/ghost"]|length == 16 and all' "$T/stats")" = true ]
	[ "$(jq '.tiers_before|.tiers == 1 and .writes > 0 and .reads > 0 and .errors == 0' "$T/stats")" = true ]
}

@test "swapoff is refused, with figures, where nothing else has room" {
	held=16000 # twice what the pool has room for is out
	begin --swap file,size=200M
	local pid=$run
	said 125 "MiB are on it, and the pool and the other files have room for" swapoff "$pid" file
	run=$pid
	[ "$(tier file .state)" = on ]
	finish
}

@test "swapoff that is interrupted leaves the tier in use" {
	begin --swap file,size=200M --swap file,size=200M
	local program asking
	program=$("$SPILLWAY" list --json "$run" | jq .program_pid)
	# Nobody empties it meanwhile.
	kill -STOP "$program"
	"$SPILLWAY" swapoff "$run" file 8>&- &
	asking=$!
	until_is file .state draining
	kill "$asking"
	until_is file .state on
	kill -CONT "$program"
	finish
}

@test "a ghost comes and goes" {
	"$SPILLWAY" mkswap --ghost --size 1G "$T/ghost"
	begin --swap file,size=200M
	local pid=$run
	"$SPILLWAY" swapon "$pid" "ghost:$T/ghost"
	[ "$(tier "$T/ghost" .kind)" = ghost ]
	"$SPILLWAY" swapoff "$pid" "$T/ghost"
	[ -z "$(tier "$T/ghost" .kind)" ]
	finish
}

@test "set changes the cap" {
	begin --swap file,size=200M
	local pid=$run
	"$SPILLWAY" set "$pid" --ram 100M
	[ "$("$SPILLWAY" list --json "$pid" | jq .ram_limit_bytes)" -eq $((100 << 20)) ]
	"$SPILLWAY" set "$pid" --ram=28M
	[ "$("$SPILLWAY" list --json "$pid" | jq .ram_limit_bytes)" -eq $((28 << 20)) ]
	said 125 "the least is 16M" set "$pid" --ram 8M
	run=$pid
	finish
}

@test "refusals of what is asked" {
	begin --swap file,size=200M
	local pid=$run
	said 125 "no tier of that name" swapoff "$pid" nothing
	said 125 "a pool is there from the start" swapon "$pid" zswap
	said 125 "unknown kind" swapon "$pid" floppy
	said 125 "No such file or directory" swapon "$pid" "file:$T/none/file"
	said 125 "not a size" set "$pid" --ram much
	said 125 "say spillway set PID --ram SIZE" set "$pid"
	said 125 "say spillway swapoff PID TIER" swapoff "$pid"
	run=$pid
	finish
}

# shut FILE: nobody else can have what the run has, though the one that opened it has ended.
shut() { said 125 "$1: in use by a spillway run" mkswap --force "$1"; }

@test "what was added stays claimed, and is free when it is taken away" {
	"$SPILLWAY" mkswap --size 8M "$T/s"
	truncate -s 8M "$T/d"
	loop "$T/d"
	"$SPILLWAY" mkswap "$LOOP"
	begin --swap file,size=200M
	for area in "$T/s" "$LOOP"; do
		"$SPILLWAY" swapon "$run" "file:$area"
		shut "$area"
		said 125 "in use by this run already" swapon "$run" "file:$area"
		"$SPILLWAY" swapoff "$run" "$area"
		"$SPILLWAY" mkswap --force "$area"
	done
	finish
}

@test "bad pages that the header names are no room" {
	"$SPILLWAY" mkswap --size 8M "$T/s"
	poke "$T/s" 1032 '\002'
	poke "$T/s" 1536 '\001\0\0\0\005'
	begin --swap file,size=200M
	"$SPILLWAY" swapon "$run" "file:$T/s"
	# 31 segments of 256 KiB fit behind the header; the first has both bad pages in it.
	[ "$(tier "$T/s" .capacity_bytes)" = $((30 * 262144)) ]
	finish
}

@test "root adds what the run's user may open, no more" {
	[ "$(id -u)" -eq 0 ] || skip "only root can be two users"
	"$SPILLWAY" mkswap --size 8M "$T/s"
	mkfifo -m 666 "$T/ready" "$T/go"
	cp "$SPILLWAY" "${SPILLWAY%/*}/libspillway-agent.so" "$T"
	setpriv --reuid 4321 --regid 4321 --clear-groups "$T/spillway" run --best-effort --ram 64M --swap zswap -- \
		sh -c "echo >'$T/ready'; read x <'$T/go'" 3>&- &
	run=$!
	read -r <"$T/ready"
	said 125 "Permission denied" swapon "$run" "file:$T/s"
	[ -z "$(tier "$T/s" .kind)" ]
	chown 4321 "$T/s"
	"$SPILLWAY" swapon "$run" "file:$T/s"
	[ "$(tier "$T/s" .kind)" = file ]
	echo >"$T/go"
	wait "$run"
}

@test "a file that is behind a loop device is not added" {
	"$SPILLWAY" mkswap --size 2M "$T/s"
	loop "$T/s"
	begin --swap file,size=200M
	said 125 "in use as $LOOP; losetup -d $LOOP first" swapon "$run" "file:$T/s"
	finish
}

@test "a file is let go by a process that has executed a program without an agent" {
	cat >"$T/exec.py" <<-'END'
		import os, mmap, random, sys
		m = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
		for i in range(0, 32 << 20, 4096):
		    m[i:i + 1500] = random.randbytes(1500)
		os.execve("/bin/sleep", ["sleep", "60"], {})
	END
	"$SPILLWAY" run --quiet --ram 24M --swap zswap,size=2M --swap file,size=100M -- python3 "$T/exec.py" &
	run=$!
	until_is file .state on
	until_is file '(.pages > 0)' true
	until_is file .pages 0
	timeout 30 "$SPILLWAY" swapoff "$run" file
	kill "$run"
	wait "$run" || true
}

@test "a name of here does not hide a name of the run's" {
	begin --swap file,size=100M --swap file,size=100M
	cd "$T"
	touch file.2
	"$SPILLWAY" swapoff "$run" file.2
	(umask 077 && : >real && ln -s real link)
	"$SPILLWAY" swapon "$run" file:link,size=8M
	"$SPILLWAY" swapoff "$run" link
	[ "$("$SPILLWAY" list --json "$run" | jq -c '[.tiers[].name]')" = '["zswap","file"]' ]
	finish
}

@test "a file that a process cannot open is tried again, and told of until it works" {
	begin --swap file,size=100M
	local program
	program=$("$SPILLWAY" list --json "$run" | jq .program_pid)
	# The agent's descriptors count among the program's.
	prlimit --pid "$program" --nofile=1:
	"$SPILLWAY" swapon "$run" "file:$T/more,size=100M,priority=9"
	until_is "$T/more" '.unopened[0].error' "Too many open files"
	[ "$(tier "$T/more" '"\(.unopened_processes) \(.unopened[0].pid) \(.unopened[0].name) \(.pages)"')" = "1 $program python3 0" ]
	[[ $("$SPILLWAY" list "$run") == *"$T/more: python3 (pid $program) cannot open it: Too many open files"* ]]
	prlimit --pid "$program" --nofile=1024:
	until_is "$T/more" .unopened null
	until_is "$T/more" '(.pages > 0)' true
	finish
	[ "$(grep -c "cannot open it" "$T/err")" = 1 ]
	grep -q "^spillway: $T/more: python3 (pid $program) cannot open it: Too many open files; it does without, and tries again$" "$T/err"
}

@test "a file called file is not the unnamed one" {
	cd "$T"
	(umask 077 && : >file && : >file.2)
	begin --swap file,size=100M --swap file:file,size=8M --swap file,size=8M --swap file:file.2,size=8M
	[ "$("$SPILLWAY" list --json "$run" | jq -c '[.tiers[].name]')" = "[\"zswap\",\"file\",\"$T/file\",\"file.2\",\"$T/file.2\"]" ]
	said 125 "in use by this run already" swapon "$run" "file:file"
	"$SPILLWAY" swapoff "$run" "$T/file"
	"$SPILLWAY" swapoff "$run" file.2
	[ "$("$SPILLWAY" list --json "$run" | jq -c '[.tiers[].name]')" = "[\"zswap\",\"file\",\"$T/file.2\"]" ]
	finish
}

@test "paths that are no UTF-8 have names of their own" {
	cd "$T"
	begin --swap file,size=100M --swap "file:$T/"$'\xfe'",size=8M" --swap "file:$T/"$'\xff'",size=8M"
	[ "$("$SPILLWAY" list --json "$run" | jq -c '[.tiers[].name]')" = "[\"zswap\",\"file\",\"$T/?\",\"$T/?.2\"]" ]
	finish
}

@test "a run that is stopped does not hold up list" {
	begin --swap file,size=100M
	kill -STOP "$run"
	said 125 "does not answer" list "$run"
	kill -CONT "$run"
	finish
}

@test "a run that ends while list waits for it is not listed, and nothing is said" {
	sleep 60 &
	local program=$!
	"$SPILLWAY" run --quiet --ram 28M -- bash -c "echo >'$T/up'; exec tail --pid=$program -f /dev/null" &
	run=$!
	until [ -s "$T/up" ]; do sleep 0.01; done
	kill -STOP "$run"
	"$SPILLWAY" list >"$T/all" 2>"$T/said" &
	local list=$!
	# It has asked: the connection is in the backlog of the run that is stopped.
	until ls -l "/proc/$list/fd" | grep -q socket && grep -q ' (spillway) S ' "/proc/$list/stat"; do sleep 0.01; done
	kill -KILL "$run"
	wait "$list"
	kill "$program"
	cat "$T/all" "$T/said"
	[ ! -s "$T/said" ]
	run ! grep "^$run " "$T/all"
}

@test "set down and up again gives the pool its size back" {
	begin --swap file,size=100M
	"$SPILLWAY" set "$run" --ram 16M
	"$SPILLWAY" set "$run" --ram 64M
	[ "$(tier zswap .capacity_bytes)" -eq $((5 << 20)) ]
	said 125 "is more than there is" set "$run" --ram 1E
	finish
}

@test "what is no run, or none of this user's" {
	fails 125 "not a pid" list x
	fails 125 "not a spillway run" list $$
	fails 125 "no such process" list 2147483647
}

@test "another user may not ask" {
	[ "$(id -u)" -eq 0 ] || skip "only root can be two users"
	begin --swap file,size=200M
	local pid=$run
	run --separate-stderr -125 setpriv --reuid 4321 --regid 4321 --clear-groups "$SPILLWAY" set "$pid" --ram 64M
	[[ $stderr == *"another user's process"* ]]
	run=$pid
	[ "$("$SPILLWAY" list --json "$pid" | jq .ram_limit_bytes)" -eq $((28 << 20)) ]
	finish
}

@test "a run that is killed leaves no socket behind" {
	begin --swap file,size=200M
	kill -9 "$run"
	wait "$run" || true
	exec 8>&-
	! ls "${XDG_RUNTIME_DIR:-/tmp}"/spillway-control-"$run" /tmp/spillway-control-"$run"
}
