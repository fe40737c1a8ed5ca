#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What cannot be capped does not run, says why, and runs with --best-effort.
load lib

@test "a static program" {
	build static -static
	fails 125 "is statically linked" run --ram 64M -- "$T/static"
	[ "$(spillway run --ram 64M --best-effort --quiet -- "$T/static")" = ran ]
}

@test "a static-pie program" {
	build static -static-pie
	fails 125 "is statically linked" run --ram 64M -- "$T/static"
}

@test "a script whose interpreter is static" {
	build static -static
	printf '#!%s\n' "$T/static" >"$T/script"
	chmod +x "$T/script"
	fails 125 "$T/static is statically linked" run --ram 64M -- "$T/script"
}

@test "a program of another libc" {
	build musl -Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1
	fails 125 "another libc (/lib/ld-musl-x86_64.so.1)" run --ram 64M -- "$T/musl"
}

@test "a 32-bit program" {
	build small
	printf '\x01' | dd of="$T/small" bs=1 seek=4 conv=notrunc status=none
	fails 125 "no 64-bit x86 program" run --ram 64M -- "$T/small"
}

@test "a program of another machine" {
	build other
	printf '\xb7' | dd of="$T/other" bs=1 seek=18 conv=notrunc status=none
	fails 125 "ELF machine 183" run --ram 64M -- "$T/other"
}

@test "a setuid program" {
	[ "$(id -u)" = 0 ] || skip "needs root"
	build suid
	chown 65534 "$T/suid"
	chmod u+s "$T/suid"
	fails 125 "is setuid" run --ram 64M -- "$T/suid"
	[ "$(spillway run --ram 64M --best-effort --quiet -- "$T/suid")" = ran ]
}

@test "a setgid program" {
	[ "$(id -u)" = 0 ] || skip "needs root"
	build sgid
	chgrp 65534 "$T/sgid"
	chmod g+s "$T/sgid"
	fails 125 "is setgid" run --ram 64M -- "$T/sgid"
}

@test "no right to userfaultfd" {
	[ "$(id -u)" = 0 ] || skip "needs root"
	[ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 0 ] || skip "everybody has it here"
	cp "$SPILLWAY" "${SPILLWAY%/*}/libspillway-agent.so" "$T"
	run --separate-stderr -125 setpriv --reuid 65534 --regid 65534 --clear-groups "$T/spillway" run --ram 64M -- echo ran
	[ -z "$output" ]
	[[ $stderr == "spillway: userfaultfd is not permitted here"*"sysctl vm.unprivileged_userfaultfd=1"* ]]
	run --separate-stderr -1 setpriv --reuid 65534 --regid 65534 --clear-groups "$T/spillway" doctor
	[[ $output == *"missing  userfaultfd"*"sysctl vm.unprivileged_userfaultfd=1"* ]]
}

@test "no agent library" {
	cp "$SPILLWAY" "$T"
	run --separate-stderr -125 "$T/spillway" run --ram 64M -- true
	[[ $stderr == *"agent library is missing"*"make install"* ]]
}

@test "an agent library in a directory that LD_PRELOAD cannot name" {
	mkdir "$T/a b"
	cp "$SPILLWAY" "${SPILLWAY%/*}/libspillway-agent.so" "$T/a b"
	run --separate-stderr -125 "$T/a b/spillway" run --ram 64M -- true
	[[ $stderr == *"without spaces and colons"* ]]
}

@test "the installed place of the agent library" {
	mkdir -p "$T/bin" "$T/lib/spillway"
	cp "$SPILLWAY" "$T/bin"
	cp "${SPILLWAY%/*}/libspillway-agent.so" "$T/lib/spillway"
	[ "$("$T/bin/spillway" run --ram 64M -- echo ran)" = ran ]
}

@test "an unwritable directory for the swapfile" {
	TMPDIR=/nonexistent fails 125 "no swapfile in /nonexistent" run --ram 64M -- true
	TMPDIR=/nonexistent spillway run --ram 64M --swap zswap -- true
}
