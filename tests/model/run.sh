#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh holds|caught -DNAME...: check the model of the descriptor with spin. It must hold; or, broken, be caught.
set -eu
model=$(cd "$(dirname "$0")" && pwd)/descriptor.pml
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
expect=$1
shift
cd "$dir"

spin -a "$@" "$model" > spin.log || { cat spin.log; exit 2; }
# Compiling well takes longer than what it would win.
cc -O0 -w -DSAFETY -o pan pan.c
# pan says what it found in words only.
./pan -m100000 -w22 > pan.log
case $(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.log) in
0) found=holds ;;
[1-9]*) found=caught ;;
*) found=nothing ;;
esac
if [ "$found" != "$expect" ] || grep -q '^error\|max search depth too small\|out of memory' pan.log; then
	cat pan.log
	exit 1
fi
grep 'states, stored\|^pan:1' pan.log
