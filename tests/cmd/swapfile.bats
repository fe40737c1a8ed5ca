#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The swapfile: nobody's file is overwritten, and tools know what it is.
load lib

@test "one that is made where it is told to is its owner's alone, says that it is swap, and has no name" {
	cat >"$T/look" <<-'END'
		ls -A "$1"
		for fd in /proc/$PPID/fd/*; do
			case $(readlink "$fd") in "$1"/*) stat -L -c %a "$fd"; blkid -p "$fd" ;; esac
		done
	END
	mkdir "$T/d"
	run -0 spillway run --ram 64M --swap "file:$T/d/s,size=8M" -- sh "$T/look" "$T/d"
	[[ ${lines[0]} == 600 ]]
	[[ $output == *'LABEL="spillway"'*'TYPE="swap"'* ]]
	[ -z "$(ls -A "$T/d")" ]
}

@test "a file that is no swap is refused and stays as it is" {
	echo precious >"$T/s"
	fails 125 "it has data in it that are no swap" run --ram 64M --swap "file:$T/s,size=8M" -- true
	[ "$(cat "$T/s")" = precious ]
}

@test "an empty file is used and stays" {
	: >"$T/s"
	spillway run --ram 64M --swap "file:$T/s,size=8M" -- true
	blkid -p "$T/s" | grep -q 'TYPE="swap"'
}

@test "a file made by mkswap is used and stays, its header untouched" {
	head -c 8M /dev/zero >"$T/s"
	chmod 600 "$T/s"
	mkswap -q -L mine "$T/s"
	head -c 4096 "$T/s" >"$T/before"
	spillway run --ram 64M --swap "file:$T/s" --stats "$T/stats" -- true
	head -c 4096 "$T/s" | cmp - "$T/before"
	[ "$(jq '.tiers[] | select(.kind == "file").capacity_bytes <= 8388608' "$T/stats")" = true ]
}

@test "two runs do not share one" {
	mkfifo "$T/ready" "$T/go"
	: >"$T/s"
	"$SPILLWAY" run --ram 64M --swap "file:$T/s,size=8M" -- sh -c "echo >'$T/ready'; read x <'$T/go'" 3>&- &
	pid=$!
	read -r <"$T/ready"
	fails 125 "in use by another spillway run" run --ram 64M --swap "file:$T/s" -- true
	echo >"$T/go"
	wait "$pid"
}

@test "too small" { fails 125 "no room for a swapfile" run --ram 64M --swap "file:$T/s,size=4K" -- true; }
@test "a directory" { fails 125 "Is a directory" run --ram 64M --swap "file:$T" -- true; }
@test "no such directory" { fails 125 "No such file or directory" run --ram 64M --swap "file:$T/no/s" -- true; }
@test "a device that is none" { fails 125 "neither a file nor a block device" run --ram 64M --swap file:/dev/null -- true; }

@test "a refused run leaves no file behind" {
	fails 125 "no room" run --ram 64M --swap "file:$T/s,size=4K" -- true
	[ ! -e "$T/s" ]
}

@test "the unlinked one is in TMPDIR" {
	mkdir "$T/tmp"
	[ "$(stat -f -c %T "$T/tmp")" != tmpfs ] || skip "a file in RAM is no swap"
	run -0 env TMPDIR="$T/tmp" "$SPILLWAY" run --ram 64M -- sh -c 'ls -l /proc/$PPID/fd'
	[[ $output == *"$T/tmp/"*"(deleted)"* ]]
	[ -z "$(ls "$T/tmp")" ]
}

@test "a file size limit is kept" {
	run -0 bash -c "ulimit -f 16384; '$SPILLWAY' run --ram 64M --stats '$T/stats' -- true"
	[ "$(jq '.tiers[] | select(.kind == "file").capacity_bytes <= 16777216' "$T/stats")" = true ]
}
