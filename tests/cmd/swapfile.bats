#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The swapfile: nobody's file is overwritten, and tools know what it is.
load lib

# swaps AREA: fill 48 MiB with noise under a small cap, so that it goes to AREA, and read it back.
swaps() {
	spillway run --ram 32M --swap zswap,size=2M --swap "file:$1" --stats "$T/stats" -- python3 -c '
import random
r = random.Random(1)
pages = [bytearray(r.randbytes(1 << 20)) for i in range(48)]
r = random.Random(1)
assert all(p == r.randbytes(1 << 20) for p in pages)'
	[ "$(jq '.tiers[] | select(.kind == "file").writes > 1000' "$T/stats")" = true ]
}

# swapfile MIB: a file made by mkswap(8).
swapfile() {
	truncate -s "$1M" "$T/s"
	chmod 600 "$T/s"
	mkswap -q "$T/s"
}

# le32 NUMBER: its bytes for poke.
le32() {
	printf '\\%03o' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255))
}

# bad_pages FILE PAGE...: write the list of bad pages into its header.
bad_pages() {
	local file=$1 list= p
	shift
	for p in "$@"; do list+=$(le32 "$p"); done
	poke "$file" 1032 "$(le32 $#)"
	poke "$file" 1536 "$list"
}

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
	chmod 600 "$T/s"
	fails 125 "it has data in it that are no swap" run --ram 64M --swap "file:$T/s,size=8M" -- true
	[ "$(cat "$T/s")" = precious ]
}

@test "an empty file is used and stays" {
	: >"$T/s"
	chmod 600 "$T/s"
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
	chmod 600 "$T/s"
	"$SPILLWAY" run --ram 64M --swap "file:$T/s,size=8M" -- sh -c "echo >'$T/ready'; read x <'$T/go'" 3>&- &
	pid=$!
	read -r <"$T/ready"
	fails 125 "in use by a spillway run" run --ram 64M --swap "file:$T/s" -- true
	echo >"$T/go"
	wait "$pid"
}

@test "too small" { fails 125 "no room for a swapfile" run --ram 64M --swap "file:$T/s,size=4K" -- true; }
@test "a directory" { fails 125 "a directory; name a file in it" run --ram 64M --swap "file:$T" -- true; }
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

@test "a swap device made by mkswap works, its header untouched" {
	swapfile 96
	loop "$T/s"
	head -c 4096 "$T/s" >"$T/before"
	swaps "$LOOP"
	head -c 4096 "$T/s" | cmp - "$T/before"
}

@test "a swap device made by spillway mkswap works" {
	truncate -s 96M "$T/s"
	loop "$T/s"
	spillway mkswap "$LOOP"
	swaps "$LOOP"
}

@test "a swapfile made by spillway mkswap works" {
	spillway mkswap --size 96M "$T/s"
	swaps "$T/s"
}

@test "bad pages are never written, and their surroundings are no room" {
	bad=(1 64 300 301 1000 5000 24575)
	swapfile 96
	bad_pages "$T/s" "${bad[@]}"
	for page in "${bad[@]}"; do head -c 4096 /dev/zero | tr '\0' B | dd of="$T/s" bs=4096 seek="$page" conv=notrunc status=none; done
	head -c 4096 "$T/s" >"$T/before"
	swaps "$T/s"
	head -c 4096 "$T/s" | cmp - "$T/before"
	for page in "${bad[@]}"; do
		[ "$(dd if="$T/s" bs=4096 skip="$page" count=1 status=none | tr -d B | wc -c)" = 0 ]
	done
	# 383 segments of 256 KiB fit behind the header; 64 shares one with 1 and 301 with 300, 24575 lies behind them
	[ "$(jq '.tiers[] | select(.kind == "file").capacity_bytes' "$T/stats")" = $(((383 - 4) * 262144)) ]
}

@test "bad pages everywhere" {
	swapfile 1
	bad_pages "$T/s" 20 80 140
	fails 125 "nowhere 256 KiB without a bad page; use another device" run --ram 64M --swap "file:$T/s" -- true
}

@test "a bad page that is no page" {
	swapfile 2
	bad_pages "$T/s" 20 512
	fails 125 "its swap header is damaged" run --ram 64M --swap "file:$T/s" -- true
	bad_pages "$T/s" 20 0
	fails 125 "its swap header is damaged" run --ram 64M --swap "file:$T/s" -- true
	poke "$T/s" 1032 "$(le32 638)"
	fails 125 "its swap header is damaged" run --ram 64M --swap "file:$T/s" -- true
}

@test "a version that is not known" {
	swapfile 2
	poke "$T/s" 1024 '\003'
	fails 125 "its swap header is not of version 1; if it is swap, make it anew: spillway mkswap $T/s" \
		run --ram 64M --swap "file:$T/s" -- true
}

@test "a filesystem" {
	truncate -s 4M "$T/s"
	chmod 600 "$T/s"
	mkfs.ext4 -q "$T/s"
	same "$T/s" fails 125 "it holds ext4, which would be overwritten; name another, or, if that may be lost, make it swap: spillway mkswap --force $T/s" \
		run --ram 64M --swap "file:$T/s" -- true
	same "$T/s" fails 125 "it holds ext4" run --ram 64M --swap "file:$T/s,force" -- true
}

@test "a filesystem that has not lost its swap header" {
	truncate -s 4M "$T/s"
	chmod 600 "$T/s"
	mkfs.ext4 -q "$T/s"
	spillway mkswap --size 4M "$T/swap"
	dd if="$T/swap" of="$T/s" bs=1 skip=4086 seek=4086 count=10 conv=notrunc status=none
	fails 125 "it holds ext4" run --ram 64M --swap "file:$T/s" -- true
}

@test "a mounted device" {
	truncate -s 4M "$T/s"
	mkfs.ext4 -q "$T/s"
	loop "$T/s"
	mount_loop
	fails 125 "$LOOP: mounted on $T/mnt; umount it first" run --ram 64M --swap "file:$LOOP" -- true
}

@test "a file that is the kernel's swap" {
	may_swap "$T"
	spillway mkswap --size 2M "$T/s"
	swap_on "$T/s"
	fails 125 "in use as kernel swap; swapoff $T/s first" run --ram 64M --swap "file:$T/s" -- true
}

@test "a device that is the kernel's swap" {
	may_swap "$T"
	swapfile 2
	loop "$T/s"
	swap_on "$LOOP"
	fails 125 "in use as kernel swap; swapoff $LOOP first" run --ram 64M --swap "file:$LOOP" -- true
}

@test "a file that is behind a loop device" {
	swapfile 2
	loop "$T/s"
	same "$T/s" fails 125 "--swap file:$T/s: in use as $LOOP; losetup -d $LOOP first, or name another" \
		run --ram 64M --swap "file:$T/s" -- true
}

@test "a device that another run has" {
	swapfile 2
	loop "$T/s"
	run --separate-stderr -125 spillway run --ram 64M --swap "file:$LOOP" -- \
		env -u SPILLWAY_CONTROL "$SPILLWAY" run --best-effort --swap "file:$LOOP" -- true
	[[ $stderr == "spillway: --swap file:$LOOP: in use by a spillway run; name another"* ]]
}

@test "another user's, unless forced" {
	[ "$(id -u)" = 0 ] || skip "needs root"
	swapfile 2
	chown 65534 "$T/s"
	fails 125 "user 65534 owns it, who can read and change it; chown it to root, or add ,force" \
		run --ram 64M --swap "file:$T/s" -- true
	spillway run --ram 64M --swap "file:$T/s,force" -- true
	run --separate-stderr -125 spillway run --ram 64M --swap "file:$T/s,encrypt=off" -- true
	[[ $stderr != *force* ]]
}

@test "a mode that is open to others, unless forced" {
	swapfile 2
	for mode in 0640 0604 0610; do
		chmod "$mode" "$T/s"
		fails 125 "mode $mode is open to others; chmod 600 $T/s, or add ,force" run --ram 64M --swap "file:$T/s" -- true
	done
	spillway run --ram 64M --swap "file:$T/s,force" -- true
}

@test "an empty file that is open to others stays empty" {
	: >"$T/s"
	chmod 644 "$T/s"
	fails 125 "mode 0644 is open to others; chmod 600 $T/s" run --ram 64M --swap "file:$T/s,size=8M" -- true
	[ ! -s "$T/s" ]
	spillway run --ram 64M --swap "file:$T/s,size=8M,force" -- true
	blkid -p "$T/s" | grep -q 'TYPE="swap"'
}

@test "a device may be its group's, but nobody else's" {
	swapfile 2
	loop "$T/s"
	before=$(stat -c %a "$LOOP")
	chmod 666 "$LOOP"
	run --separate-stderr spillway run --ram 64M --swap "file:$LOOP" -- true
	open=$stderr
	chmod 660 "$LOOP"
	run -0 spillway run --ram 64M --swap "file:$LOOP" -- true
	chmod "$before" "$LOOP"
	[[ $open == "spillway: --swap file:$LOOP: mode 0666 is open to others; chmod 660 $LOOP"* ]]
}

@test "a ghost is no room to write to" {
	spillway mkswap --ghost --size 1G "$T/g"
	same "$T/g" fails 125 "its header names 1.0 GiB, but it has 4.0 KiB; a ghost is used by --swap ghost:$T/g" \
		run --ram 64M --swap "file:$T/g" -- true
}

@test "a device that is smaller than its header says" {
	swapfile 4
	truncate -s 2M "$T/s"
	loop "$T/s"
	fails 125 "its header names 4.0 MiB, but it has 2.0 MiB; make it anew: spillway mkswap $LOOP" \
		run --ram 64M --swap "file:$LOOP" -- true
}

@test "an area of less than 1 MiB" {
	spillway mkswap --size 64K "$T/s"
	fails 125 "too small; a swapfile has 1 MiB or more" run --ram 64M --swap "file:$T/s" -- true
}

@test "a file that children of an ended run have pages on is not free" {
	"$SPILLWAY" mkswap --size 100M "$T/s"
	mkfifo "$T/go"
	cat >"$T/left.py" <<-'END'
		import mmap, os, random, sys
		if os.fork():
		    os._exit(0 if os.read(os.open(sys.argv[1] + "/ready", os.O_RDONLY), 1) else 1)
		os.setsid()
		m = mmap.mmap(-1, 48 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
		page = lambda i: random.Random(i).randbytes(1500)
		for i in range(0, len(m), 4096):
		    m[i:i + 1500] = page(i)
		open(sys.argv[1] + "/ready", "w").write("x")
		open(sys.argv[1] + "/go").read()
		print(all(m[i:i + 1500] == page(i) for i in range(0, len(m), 4096)), flush=True)
	END
	mkfifo "$T/ready"
	"$SPILLWAY" run --quiet --ram 24M --swap zswap,size=2M --swap "file:$T/s" -- python3 "$T/left.py" "$T" >"$T/out"
	fails 125 "in use by a spillway run" run --ram 24M --swap "file:$T/s" -- true
	fails 125 "in use by a spillway run" mkswap --force "$T/s"
	echo >"$T/go"
	for _ in $(seq 3000); do
		[ -s "$T/out" ] && break
		sleep 0.01
	done
	[ "$(cat "$T/out")" = True ]
}
