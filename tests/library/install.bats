#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# libspillway as a program that was written elsewhere meets it: installed, found by pkg-config, compiled and linked.
# BUILD is the build directory, VERSION what it builds; CC and CXX are the compilers.
bats_require_minimum_version 1.5.0

SOURCES="$BATS_TEST_DIRNAME"
ROOT="$BATS_TEST_DIRNAME/../.."
STRICT="-Wall -Wextra -Werror -pedantic"

setup_file() {
	unset LD_LIBRARY_PATH # meson test sets it: the library that was installed is meant
	export DESTDIR="$BATS_FILE_TMPDIR/root"
	meson install -C "$BUILD" --no-rebuild --quiet
	export PC=$(find "$DESTDIR" -name libspillway.pc)
	export PKG_CONFIG_PATH=${PC%/*}
	export LIBS=${PKG_CONFIG_PATH%/pkgconfig}
	export INCLUDE=$(find "$DESTDIR" -name spillway.h -printf '%h')
}

# flags OPTION...: what pkg-config says, of where the library was installed.
flags() {
	pkg-config --define-variable=libdir="$LIBS" --define-variable=includedir="$INCLUDE" "$@" libspillway
}

# The functions that the header declares, one a line, without its comments.
declared() {
	$CC -E -P "$INCLUDE/spillway.h" | grep -oE '\bspw_[a-z_]+\(' | tr -d '(' | sort
}

# exported FILE: what a program can link of it, one a line.
exported() {
	nm -D --defined-only "$1" | awk '$2 != "A" { print $3 }' | sort
}

# runs NAME: the program that was built says that all was well.
runs() {
	run -0 timeout -k 5 60 "$BATS_TEST_TMPDIR/$1"
	echo "$output"
	[ "$output" = "$VERSION: 0 wrong, pages went out, destroyed: 0" ]
}

@test "what the header declares is what the shared library exports" {
	[ "$(declared | wc -l)" -ge 18 ]
	diff <(declared) <(exported "$LIBS/libspillway.so" | sed 's/@@SPILLWAY_0\.1$//')
}

@test "its name is libspillway.so.0, and it needs libc alone" {
	run -0 readelf -d "$LIBS/libspillway.so"
	[[ $output == *"Library soname: [libspillway.so.0]"* ]]
	[ "$(grep NEEDED <<<"$output" | sed 's/.*\[//; s/\..*//' | grep -vx 'ld-linux-x86-64')" = libc ]
	[ -e "$LIBS/libspillway.so.0" ]
}

@test "pkg-config knows its version" {
	[ "$(flags --modversion)" = "$VERSION" ]
}

@test "the header alone is C11" {
	$CC -std=c11 $STRICT -fsyntax-only -x c "$INCLUDE/spillway.h"
}

@test "the header alone is C++17" {
	$CXX -std=c++17 $STRICT -fsyntax-only -x c++ "$INCLUDE/spillway.h"
}

@test "a C program with the shared library" {
	$CC -std=c11 $STRICT "$SOURCES/use.c" -o "$BATS_TEST_TMPDIR/use" $(flags --cflags --libs) -Wl,-rpath,"$LIBS"
	[[ $(readelf -d "$BATS_TEST_TMPDIR/use") == *"[libspillway.so.0]"* ]]
	runs use
}

@test "a C++ program with the shared library" {
	$CXX -std=c++17 $STRICT -x c++ "$SOURCES/use.c" -x none -o "$BATS_TEST_TMPDIR/use" \
		$(flags --cflags --libs) -Wl,-rpath,"$LIBS"
	[[ $(readelf -d "$BATS_TEST_TMPDIR/use") == *"[libspillway.so.0]"* ]]
	runs use
}

@test "a static C program" {
	$CC -std=c11 $STRICT -static "$SOURCES/use.c" -o "$BATS_TEST_TMPDIR/use" $(flags --static --cflags --libs)
	[[ $(readelf -d "$BATS_TEST_TMPDIR/use") == *"no dynamic section"* ]]
	runs use
}

@test "a static C++ program" {
	$CXX -std=c++17 $STRICT -static -x c++ "$SOURCES/use.c" -x none -o "$BATS_TEST_TMPDIR/use" \
		$(flags --static --cflags --libs)
	[[ $(readelf -d "$BATS_TEST_TMPDIR/use") == *"no dynamic section"* ]]
	runs use
}

@test "the archive in a program that is not static otherwise" {
	$CC -std=c11 $STRICT "$SOURCES/use.c" -o "$BATS_TEST_TMPDIR/use" $(flags --cflags) "$LIBS/libspillway.a" \
		$(pkg-config --libs liblz4 libzstd libsodium libxxhash) -pthread
	[[ $(readelf -d "$BATS_TEST_TMPDIR/use") != *libspillway* ]]
	runs use
}

@test "the command that README.md shows" {
	command=$(grep -o 'cc -Iinclude .*' "$ROOT/README.md")
	ln -s "$ROOT/include" "$ROOT/examples" "$BATS_TEST_TMPDIR"
	ln -s "$BUILD" "$BATS_TEST_TMPDIR/build"
	cd "$BATS_TEST_TMPDIR"
	[ -n "$command" ]
	bash -c "$command"
}

@test "the program that libspillway(7) shows" {
	awk '/^```/ { on = !on; next } on && /^#include/ { shown = 1 } on && shown' "$ROOT/docs/man/libspillway.7.scd" \
		>"$BATS_TEST_TMPDIR/shown.c"
	grep -q main "$BATS_TEST_TMPDIR/shown.c"
	$CC -std=c11 $STRICT "$BATS_TEST_TMPDIR/shown.c" -o "$BATS_TEST_TMPDIR/shown" $(flags --cflags --libs)
}

@test "every function has a manual page, and every page one of its own name" {
	man=$(find "$DESTDIR" -name man3)
	[ -n "$man" ] || skip "no scdoc here"
	diff <(declared) <(ls "$man" | sed 's/\.3$//' | sort)
	[ -e "$man/../man7/libspillway.7" ]
	for page in "$man"/*; do
		if grep -q '^\.so ' "$page"; then
			[ -e "$man/../$(sed 's/^\.so //' "$page")" ]
		fi
	done
}
