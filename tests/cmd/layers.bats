#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What the folders promise each other, read off the sources.
load lib

ROOT="$BATS_TEST_DIRNAME/../.."

@test "every source names its license first" {
	run -0 find "$ROOT/src" "$ROOT/tests" -name '*.[ch]' -exec awk 'FNR == 1 && !/SPDX-License-Identifier: / {print FILENAME}' {} +
	echo "$output"
	[ -z "$output" ]
}

@test "kernel-bound folders are dual-licensed" {
	run -0 find "$ROOT"/src/{space,tier,codec} -name '*.[ch]' -exec awk \
		'FNR == 1 && !/SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 / {print FILENAME}' {} +
	echo "$output"
	[ -z "$output" ]
}

@test "space includes nothing but string.h, types, error numbers and what is below it" {
	run bash -c "grep -hE '^#include' '$ROOT'/src/space/*.[ch] |
		grep -vE '<(string|stdint|stddef|stdbool|errno)\.h>|\"(space|tier|codec|platform)/[a-z_]+\.h\"'"
	echo "$output"
	[ -z "$output" ]
}

@test "calls go down only" {
	run bash -c "cd '$ROOT/src' &&
		grep -nE '#include \"(host|cmd)/' space/*.[ch] tier/*.[ch] codec/*.[ch] platform/*.[ch];
		grep -nE '#include \"space/' tier/*.[ch] codec/*.[ch] | grep -v space/entry.h;
		grep -nE '#include \"tier/' codec/*.[ch] platform/*.[ch]"
	echo "$output"
	[ -z "$output" ]
}
