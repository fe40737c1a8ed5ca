#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The program is found, started and ended as env(1) would; what it reads and writes is its own.
load lib

@test "exit status is the program's" {
	run -0 spillway run --ram 64M -- true
	run -1 spillway run --ram 64M -- false
	run -42 spillway run --ram 64M -- sh -c 'exit 42'
}

@test "exit status is 128 + N when signal N ended it" {
	run -143 spillway run --ram 64M -- sh -c 'kill -TERM $$'
	run -137 spillway run --ram 64M -- sh -c 'kill -KILL $$'
}

@test "127: not in PATH" { fails 127 "nosuchprogram: not found" run --ram 64M -- nosuchprogram; }
@test "127: no such path" { fails 127 "/no/such: not found" run --ram 64M -- /no/such; }
@test "127: empty name" { fails 127 "not found" run --ram 64M -- ""; }
@test "126: not executable" {
	echo x >"$T/file"
	fails 126 "Permission denied" run --ram 64M -- "$T/file"
}
@test "126: a directory" { fails 126 "Permission denied" run --ram 64M -- /tmp; }
@test "127: a script whose interpreter is missing" {
	printf '#!/no/such/interpreter\n' >"$T/script"
	chmod +x "$T/script"
	fails 127 "/no/such/interpreter" run --ram 64M -- "$T/script"
}

@test "a script runs, with its interpreter's argument" {
	printf '#!/bin/sh -e\nfalse\necho not here\n' >"$T/script"
	chmod +x "$T/script"
	run -1 spillway run --ram 64M -- "$T/script"
	[ -z "$output" ]
}

@test "a script without #! runs by the shell" {
	printf 'echo "$0" "$@"\n' >"$T/script"
	chmod +x "$T/script"
	[ "$(spillway run --ram 64M -- "$T/script" a 'b c')" = "$T/script a b c" ]
}

@test "the program is looked for in PATH, past what cannot be executed" {
	mkdir "$T/a" "$T/b"
	echo x >"$T/a/tool"
	printf '#!/bin/sh\necho found\n' >"$T/b/tool"
	chmod +x "$T/b/tool"
	[ "$(PATH=$T/a:$T/b:$PATH spillway run --ram 64M -- tool)" = found ]
}

@test "stdin and stdout go through untouched" {
	head -c 3000000 /dev/urandom >"$T/in"
	spillway run --ram 64M -- cat <"$T/in" >"$T/out" 2>"$T/err"
	cmp "$T/in" "$T/out"
	[ ! -s "$T/err" ]
}

@test "stdout ends when the program closes it, not when it ends" {
	mkfifo "$T/go"
	"$SPILLWAY" run --ram 64M -- sh -c "exec >&-; read line <'$T/go'" | { cat; echo now >"$T/go"; }
}

@test "other descriptors end with the program's hold on them" {
	mkfifo "$T/go"
	"$SPILLWAY" run --ram 64M -- sh -c "exec 7>&-; read line <'$T/go'" 7>&1 >/dev/null | { cat; echo now >"$T/go"; }
}

@test "a closed stdin stays closed" {
	bash -c "exec '$SPILLWAY' run --ram 64M -- sh -c 'test ! -e /proc/self/fd/0' <&-"
}

@test "no descriptor of spillway reaches the program" {
	spillway run --ram 64M -- sh -c 'ls /proc/$$/fd' >"$T/with" 3>&-
	sh -c 'ls /proc/$$/fd' >"$T/without" 3>&-
	cmp "$T/with" "$T/without"
}

@test "LD_PRELOAD keeps what it had" {
	run -0 --separate-stderr env LD_PRELOAD=libm.so.6 "$SPILLWAY" run --ram 64M -- sh -c 'echo $LD_PRELOAD'
	[[ $output == *"/libspillway-agent.so:libm.so.6" ]]
}

@test "argv[0] is as given" {
	[ "$(spillway run --ram 64M -- sh -c 'tr "\0" " " </proc/$$/cmdline' | cut -d' ' -f1)" = sh ]
}

@test "a signal that is ignored stays ignored, SIGCHLD too" {
	run -0 bash -c "trap '' HUP CHLD; \"$SPILLWAY\" run --ram 64M -- grep SigIgn /proc/self/status"
	mask=$((16#${output##*[[:space:]]}))
	[ $((mask & 1)) -ne 0 ]
	[ $((mask & 1 << 16)) -ne 0 ]
}
