#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# configure.sh DIR [-Dname=value]...: make DIR a Meson build directory, or bring an existing one to these options.
set -eu
cd "$(dirname "$0")/.."
dir=$1
shift
if [ -f "$dir/build.ninja" ]; then
	meson configure "$dir" "$@"
else
	meson setup "$dir" "$@"
fi
