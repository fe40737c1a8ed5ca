#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# setup.sh build|test|demo|bench: have the Debian packages that the step needs. As root what is missing is installed;
# as an ordinary user it is named, with the command that installs it. Silent when nothing is missing.
set -eu

build="gcc libc6-dev make meson ninja-build pkg-config liblz4-dev libzstd-dev libsodium-dev libxxhash-dev libjansson-dev libblkid-dev uuid-dev"
test="$build g++ libcmocka-dev bats spin clang binutils jq procps util-linux python3 mount file e2fsprogs fuse3 libfuse3-dev liburing-dev"
test="$test sqlite3 redis-server redis-tools xz-utils zstd scdoc"
demo="$build python3"
bench="$build g++ jq procps util-linux python3 valgrind sqlite3 redis-server redis-tools gnuplot-nox"

packages=${!1:?usage: setup.sh build|test|demo|bench}

if ! command -v dpkg-query >/dev/null; then
	echo "setup: this is no Debian or Ubuntu; make sure that it has the like of: $packages" >&2
	exit 0
fi

# Have these, or say which are missing.
have() {
	local missing=() p
	for p in "$@"; do
		dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$p")
	done
	[ ${#missing[@]} -eq 0 ] && return

	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
		echo "setup: missing packages: ${missing[*]}" >&2
		echo "setup: install them with: sudo apt-get install ${missing[*]}" >&2
		exit 1
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# shellcheck disable=SC2086 # a list of words
have $packages

# Fuzzing needs a runtime that clang only recommends and whose package is named after clang's version (Debian 12).
if [ "$1" = test ] && [ ! -e "$(clang -print-file-name=libclang_rt.fuzzer-x86_64.a)" ]; then
	have "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
fi
