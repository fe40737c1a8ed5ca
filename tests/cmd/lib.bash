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
