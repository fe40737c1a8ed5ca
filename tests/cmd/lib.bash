# SPDX-License-Identifier: Apache-2.0
# What the .bats files share. SPILLWAY is the command under test, CC a C compiler.
bats_require_minimum_version 1.5.0

# The command, ended when it hangs.
spillway() {
	timeout --foreground -k 5 30 "$SPILLWAY" "$@"
}

# A directory that other users can enter.
setup() {
	T=$(mktemp -d)
	chmod 755 "$T"
}

teardown() {
	if [ -n "${SWAP_ON:-}" ]; then swapoff "$SWAP_ON"; fi
	if [ -n "${MOUNTED:-}" ]; then umount "$MOUNTED"; fi
	if [ -n "${LOOP:-}" ]; then losetup -d "$LOOP"; fi
	rm -rf "$T"
}

# fails STATUS TEXT ARG...: the command says one line with TEXT in it, nothing on stdout, and exits with STATUS.
fails() {
	local want=$1 text=$2
	shift 2
	run --separate-stderr -"$want" spillway "$@"
	echo "stderr: $stderr"
	[ -z "$output" ]
	[[ $stderr == "spillway: "*"$text"* ]]
	[[ $stderr != *$'\n'* ]]
}

# build NAME FLAG...: compile a program that prints "ran".
build() {
	local name=$1
	shift
	echo 'int puts(const char *); int main(void) { puts("ran"); return 0; }' | $CC -x c - -o "$T/$name" "$@"
}

# loop FILE: a loop device on FILE, named $LOOP, until the test ends.
loop() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	LOOP=$(losetup -f --show "$1" 2>"$T/err") || skip "no loop device here: $(cat "$T/err")"
}

# mount_loop: $LOOP mounted on $MOUNTED until the test ends.
mount_loop() {
	mkdir "$T/mnt"
	mount "$LOOP" "$T/mnt" 2>"$T/err" || skip "mounting is refused here: $(cat "$T/err")"
	MOUNTED=$T/mnt
}

# may_swap DIR: skip where the kernel takes no swap in DIR, or on loop devices over it, at all.
may_swap() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	fallocate -l 1M "$1/reference"
	chmod 600 "$1/reference"
	mkswap -q "$1/reference"
	swapon "$1/reference" 2>"$T/err" || skip "swapon is refused here: $(cat "$T/err")"
	swapoff "$1/reference"
}

# swap_on AREA: the kernel's swap until the test ends, or swap_off.
swap_on() {
	swapon "$1"
	SWAP_ON=$1
}

swap_off() {
	swapoff "$SWAP_ON"
	SWAP_ON=
}

# same FILE COMMAND...: COMMAND changes no byte of FILE.
same() {
	local before
	before=$(sha256sum "$1")
	"${@:2}"
	[ "$(sha256sum "$1")" = "$before" ]
}

# poke FILE OFFSET FORMAT: bytes, as printf(1) makes them, into FILE.
poke() {
	# shellcheck disable=SC2059 # it is a format
	printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
