#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
load lib

@test "doctor agrees with run" {
	if spillway run --ram 64M -- true; then
		run -0 spillway doctor
		[[ $output == *"spillway run works here."* ]]
		[[ $output != *missing* ]]
	else
		run -1 spillway doctor
		[[ $output == *missing* ]]
	fi
}

@test "doctor names every check" {
	run spillway doctor
	for word in kernel userfaultfd agent memory swapfile; do
		[[ $output == *" $word "* ]]
	done
}

@test "doctor sees a missing agent library" {
	cp "$SPILLWAY" "$T"
	run -1 "$T/spillway" doctor
	[[ $output == *"missing  agent "*"make install"* ]]
}

@test "doctor sees an unwritable directory" {
	TMPDIR=/nonexistent run -1 --separate-stderr spillway doctor
	[[ $output == *"missing  swapfile "*"set TMPDIR"* ]]
}

@test "doctor takes no arguments" { fails 125 "takes no arguments" doctor now; }
@test "doctor --help" { [[ $(spillway doctor --help) == "usage: spillway doctor"* ]]; }
