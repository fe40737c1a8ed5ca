#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# spillway mkswap: what it makes is swap to every tool, and nothing is overwritten that somebody may want.
load lib

UUID=11111111-2222-4333-8444-555555555555

# pages FILE: usable pages, as file(1) reads them in the header.
pages() {
	file -b "$1" | sed -n 's/.*version 1, size \([0-9]*\) pages.*/\1/p'
}

@test "a new file: its owner's alone, without holes, and swap to blkid, file and swaplabel" {
	run -0 spillway mkswap --size 2M "$T/s"
	[ "${#lines[@]}" = 2 ]
	[ "${lines[0]}" = "Setting up swapspace version 1, size = 2.0 MiB (2093056 bytes)" ]
	[[ ${lines[1]} =~ ^"no label, UUID="[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$ ]]
	[ "$(stat -c '%a %s' "$T/s")" = "600 2097152" ]
	[ "$(($(stat -c '%b * %B' "$T/s")))" -ge 2097152 ]
	[ "$(pages "$T/s")" = 511 ]
	[ "$(blkid -p -s TYPE -o value "$T/s")" = swap ]
	[ "$(blkid -p -s UUID -o value "$T/s")" = "${lines[1]#*UUID=}" ]
	[ "$(swaplabel "$T/s")" = "UUID:  ${lines[1]#*UUID=}" ]
}

@test "the UUID is another each time" {
	spillway mkswap --size 1M "$T/a"
	spillway mkswap --size 1M "$T/b"
	[ "$(blkid -p -s UUID -o value "$T/a")" != "$(blkid -p -s UUID -o value "$T/b")" ]
}

@test "label and UUID" {
	run -0 spillway mkswap "$T/s" --size=1M --label "fifteen letters" --uuid "$UUID"
	[ "${lines[1]}" = "LABEL=fifteen letters, UUID=$UUID" ]
	[ "$(blkid -p -s LABEL -o value "$T/s")" = "fifteen letters" ]
	[ "$(swaplabel "$T/s")" = $'LABEL: fifteen letters\nUUID:  '"$UUID" ]
	run -0 spillway mkswap -s 1M -L x -U "$UUID" "$T/s"
	[ "${lines[1]}" = "LABEL=x, UUID=$UUID" ]
}

@test "a file that exists keeps its size and loses its holes" {
	truncate -s 1M "$T/s"
	chmod 600 "$T/s"
	run -0 --separate-stderr spillway mkswap "$T/s"
	[ -z "$stderr" ]
	[ "$(pages "$T/s")" = 255 ]
	[ "$(($(stat -c '%b * %B' "$T/s")))" -ge 1048576 ]
}

@test "a size that is not the file's" {
	truncate -s 1M "$T/s"
	spillway mkswap --size 512K "$T/s"
	[ "$(pages "$T/s") $(stat -c %s "$T/s")" = "127 1048576" ]
	spillway mkswap --size 2M "$T/s"
	[ "$(pages "$T/s") $(stat -c %s "$T/s")" = "511 2097152" ]
	spillway mkswap --size 50000 "$T/s"
	[ "$(pages "$T/s")" = 11 ]
}

@test "a mode that others can use is pointed out" {
	truncate -s 1M "$T/s"
	chmod 640 "$T/s"
	run -0 --separate-stderr spillway mkswap "$T/s"
	[[ $stderr == "spillway: mkswap: $T/s: mode 0640 is open to others"*"chmod 600 $T/s" ]]
}

@test "the kernel takes a file" {
	may_swap "$T"
	spillway mkswap --size 4M "$T/s"
	swap_on "$T/s"
	grep "^$T/s " /proc/swaps
}

@test "the kernel takes a file that had holes" {
	may_swap "$T"
	truncate -s 4M "$T/s"
	chmod 600 "$T/s"
	spillway mkswap "$T/s"
	swap_on "$T/s"
}

@test "the kernel takes a device" {
	may_swap "$T"
	truncate -s 4M "$T/s"
	loop "$T/s"
	run -0 spillway mkswap "$LOOP"
	[[ $output == *"size = 4.0 MiB (4190208 bytes)"* ]]
	swap_on "$LOOP"
	swap_off
	spillway mkswap --size 1M "$LOOP"
	swap_on "$LOOP"
}

@test "what was there is gone everywhere" {
	truncate -s 1M "$T/s"
	poke "$T/s" 1024 '\001\0\0\0\017'
	poke "$T/s" 65526 SWAPSPACE2 # where a machine with pages of 64 KiB looks
	poke "$T/s" 0 'old boot block'
	[ "$(blkid -p -s TYPE -o value "$T/s")" = swap ]
	spillway mkswap "$T/s"
	[ "$(dd if="$T/s" bs=1 skip=65526 count=10 status=none | tr -d '\0')" = "" ]
	[ "$(head -c 1024 "$T/s" | tr -d '\0')" = "" ]
	[ "$(blkid -p -s TYPE -o value "$T/s")" = swap ]
}

@test "a ghost is a header and no more" {
	run -0 spillway mkswap --ghost --size 8G --label spirit --uuid "$UUID" "$T/g"
	[ "${lines[0]}" = "Setting up swapspace version 1, size = 8.0 GiB (8589930496 bytes), a ghost: the file is its header alone" ]
	[ "${lines[1]}" = "LABEL=spirit, UUID=$UUID" ]
	[ "$(stat -c '%a %s' "$T/g")" = "600 4096" ]
	[ "$(($(stat -c '%b * %B' "$T/g")))" -le 4096 ]
	[ "$(pages "$T/g")" = 2097151 ]
}

@test "a ghost of a swapfile, and a swapfile of a ghost" {
	spillway mkswap --size 1M "$T/s"
	spillway mkswap --ghost --size 16T "$T/s"
	[ "$(pages "$T/s") $(stat -c %s "$T/s")" = "4294967295 4096" ]
	spillway mkswap --size 1M "$T/s"
	[ "$(pages "$T/s") $(stat -c %s "$T/s")" = "255 1048576" ]
}

# ---- refusals ----

@test "no path" { fails 125 "no PATH given; say for instance: spillway mkswap --size 2G PATH" mkswap; }
@test "two paths" { fails 125 "mkswap: 2G: one PATH at a time" mkswap "$T/s" 2G; }
@test "unknown option" { fails 125 "mkswap: --frob: unknown option" mkswap --frob "$T/s"; }
@test "value missing" { fails 125 "mkswap: --size: needs a value" mkswap "$T/s" --size; }
@test "value where none belongs" { fails 125 "mkswap: --force=yes: unknown option, or one that takes no value" mkswap --force=yes "$T/s"; }
@test "no size" { fails 125 "--size lots: not a size; say for instance --size 512M" mkswap --size lots "$T/s"; }
@test "size 0" { fails 125 "--size 0: not a size" mkswap --size 0 "$T/s"; }
@test "a label that is too long" { fails 125 "16 bytes are too long; a label has at most 15" mkswap --size 1M --label 1234567890123456 "$T/s"; }
@test "a bad UUID" { fails 125 "--uuid 1-2: not a UUID; leave it out for a random one" mkswap --size 1M --uuid 1-2 "$T/s"; }
@test "a new file without a size" { fails 125 "does not exist yet; say how large it is to be, for instance --size 2G" mkswap "$T/s"; }
@test "a ghost without a size" { fails 125 "--ghost: needs --size" mkswap --ghost "$T/g"; }
@test "a directory" { fails 125 "a directory; name a file in it, for instance $T/swap" mkswap --size 1M --force "$T"; }
@test "no such directory" { fails 125 "$T/no/s: No such file or directory" mkswap --size 1M "$T/no/s"; }
@test "a device that is none" { fails 125 "neither a file nor a block device" mkswap --size 1M --force /dev/null; }
@test "too small" { fails 125 "36.0 KiB is too small for swap; the least is 40K" mkswap --size 40959 "$T/s"; }
@test "the smallest" { spillway mkswap --size 40K "$T/s"; }
@test "too large" { fails 125 "too large; a swap header can say 16T at most, so say --size 16T" mkswap --ghost --size 17T "$T/g"; }

@test "an empty file without a size" {
	: >"$T/s"
	fails 125 "it is empty; say how large it is to be" mkswap "$T/s"
}

@test "a refused one leaves no new file behind" {
	fails 125 "too small" mkswap --size 4K "$T/s"
	[ ! -e "$T/s" ]
	fails 125 "free some, or say a smaller --size" mkswap --size 10T "$T/s"
	[ ! -e "$T/s" ]
}

@test "a filesystem, unless forced" {
	truncate -s 4M "$T/s"
	mkfs.ext4 -q "$T/s"
	same "$T/s" fails 125 "it holds ext4, which would be lost; name another, or say --force" mkswap "$T/s"
	same "$T/s" fails 125 "it holds ext4" mkswap --ghost --size 1G "$T/s"
	spillway mkswap --force "$T/s"
	[ "$(blkid -p -s TYPE -o value "$T/s")" = swap ]
}

@test "a partition table, unless forced" {
	truncate -s 4M "$T/s"
	poke "$T/s" 446 '\0\0\2\0\203\0\40\0\1\0\0\0\377\37\0\0'
	poke "$T/s" 510 '\125\252'
	same "$T/s" fails 125 "it holds dos partition table, which would be lost; name another, or say --force" mkswap "$T/s"
	spillway mkswap --force "$T/s"
	run -0 blkid -p "$T/s"
	[[ $output == *'TYPE="swap"'* && $output != *PTTYPE* ]]
}

@test "a ghost in place of data, unless forced" {
	echo precious >"$T/g"
	same "$T/g" fails 125 "it has data, which would be lost" mkswap --ghost --size 1G "$T/g"
	spillway mkswap --force --ghost --size 1G "$T/g"
	[ "$(pages "$T/g")" = 262143 ]
}

@test "a ghost on a device" {
	truncate -s 1M "$T/s"
	loop "$T/s"
	same "$T/s" fails 125 "a ghost is a file; name one that does not exist yet" mkswap --force --ghost --size 512K "$LOOP"
}

@test "more than the device has" {
	truncate -s 1M "$T/s"
	loop "$T/s"
	fails 125 "--size 2.0 MiB is more than the device has, 1.0 MiB; leave --size out" mkswap --size 2M "$LOOP"
}

@test "a device without a medium" {
	: >"$T/s"
	loop "$T/s"
	fails 125 "$LOOP: a device with nothing behind it, 0 bytes; name another" mkswap --force "$LOOP"
}

@test "a mounted device, even forced" {
	truncate -s 4M "$T/s"
	mkfs.ext4 -q "$T/s"
	loop "$T/s"
	mount_loop
	fails 125 "$LOOP: mounted on $T/mnt; umount it first" mkswap --force "$LOOP"
}

@test "a file that is the kernel's swap, even forced" {
	may_swap "$T"
	spillway mkswap --size 1M "$T/s"
	swap_on "$T/s"
	same "$T/s" fails 125 "in use as kernel swap; swapoff $T/s first" mkswap --force "$T/s"
}

@test "a device that is the kernel's swap, even forced" {
	may_swap "$T"
	truncate -s 1M "$T/s"
	loop "$T/s"
	spillway mkswap "$LOOP"
	swap_on "$LOOP"
	fails 125 "in use as kernel swap; swapoff $LOOP first" mkswap --force "$LOOP"
}

@test "a file or device behind a loop device, even forced" {
	truncate -s 2M "$T/s"
	chmod 600 "$T/s"
	loop "$T/s"
	same "$T/s" fails 125 "mkswap: $T/s: in use as $LOOP; losetup -d $LOOP first, or name another" mkswap --force "$T/s"
	# Who may not open the loop device is told as well.
	chown 65534 "$T/s"
	cp "$SPILLWAY" "$T"
	run --separate-stderr -125 setpriv --reuid 65534 --regid 65534 --clear-groups "$T/spillway" mkswap --force "$T/s"
	[[ $stderr == *"in use as $LOOP"* ]]
	ln "$T/s" "$T/other"
	fails 125 "in use as $LOOP" mkswap --force "$T/other"
	rm "$T/s"
	same "$T/other" fails 125 "in use as $LOOP" mkswap --force "$T/other"
	upper=$(losetup -f --show "$LOOP")
	run --separate-stderr spillway mkswap --force "$LOOP"
	losetup -d "$upper"
	[[ $stderr == "spillway: mkswap: $LOOP: in use as $upper; losetup -d $upper first"* ]]
	spillway mkswap "$LOOP"
}

@test "what a run has, even forced" {
	spillway mkswap --size 2M "$T/s"
	run --separate-stderr -125 spillway run --ram 64M --swap "file:$T/s" -- "$SPILLWAY" mkswap --force "$T/s"
	[[ $stderr == "spillway: mkswap: $T/s: in use by a spillway run; name another"* ]]
	loop "$T/s"
	run --separate-stderr -125 spillway run --ram 64M --swap "file:$LOOP" -- "$SPILLWAY" mkswap --force "$LOOP"
	[[ $stderr == "spillway: mkswap: $LOOP: in use by a spillway run; name another"* ]]
}

@test "what the user may not write" {
	[ "$(id -u)" = 0 ] || skip "needs root"
	cp "$SPILLWAY" "$T"
	truncate -s 1M "$T/s"
	chmod 644 "$T/s"
	other() { run --separate-stderr -125 setpriv --reuid 65534 --regid 65534 --clear-groups "$T/spillway" mkswap "$@"; }
	same "$T/s" other --force "$T/s"
	[[ $stderr == "spillway: mkswap: $T/s: Permission denied; it takes its owner or root"* ]]
	other --size 1M "$T/new"
	[[ $stderr == "spillway: mkswap: $T/new: Permission denied"* ]]
}

@test "mkswap --help" { [[ $(spillway mkswap --help) == "usage: spillway mkswap "*--ghost*--size*--label*--uuid*--force*examples* ]]; }
