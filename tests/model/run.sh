#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Check the model of the descriptor with spin: it must hold, and its broken variant must not.
set -eu
model=$(cd "$(dirname "$0")" && pwd)/descriptor.pml
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

errors() {
	spin -a "$@" "$model" > spin.log
	cc -O2 -w -DSAFETY -o pan pan.c
	./pan -m100000 > pan.log
	! grep -q 'max search depth too small\|out of memory' pan.log
	sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.log
}

[ "$(errors)" = 0 ] || { cat pan.log; echo "the model does not hold"; exit 1; }
[ "$(errors -DBROKEN)" -gt 0 ] || { cat pan.log; echo "the broken model was not caught"; exit 1; }
