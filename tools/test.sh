#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test.sh BUILD: every test in three builds: as shipped, under ASan+UBSan and under TSan (the core and its tests).
# Ends with `N passed, N failed`, counted case by case from what the test programs reported.
set -u
cd "$(dirname "$0")/.."
build=$1
werror=${WERROR:-false}
failed_builds=0

# TSan's shadow does not fit the wide address randomisation of newer kernels.
norandom=()
setarch -R true 2>/dev/null && norandom=(setarch -R)

run() { # DIR WRAPPER... -- OPTION...
	local dir=$1
	shift
	local wrapper=()
	while [ "$1" != -- ]; do
		wrapper+=("$1")
		shift
	done
	shift
	rm -f "$dir/meson-logs/testlog.junit.xml"
	if ! tools/configure.sh "$dir" -Dwerror="$werror" -Dtests=enabled "$@" || ! ninja -C "$dir"; then
		echo "test: $dir does not build" >&2
		failed_builds=$((failed_builds + 1))
		return
	fi
	"${wrapper[@]}" meson test -C "$dir" --no-rebuild --print-errorlogs
}

run "$build" --
run "$build/asan" -- -Dagent=false -Db_sanitize=address,undefined -Db_lundef=false
run "$build/tsan" "${norandom[@]}" -- -Dagent=false -Db_sanitize=thread -Db_lundef=false

python3 - "$failed_builds" "$build"/meson-logs "$build"/asan/meson-logs "$build"/tsan/meson-logs <<'END'
import sys, os
import xml.etree.ElementTree as ET

passed, failed = 0, int(sys.argv[1])
for logs in sys.argv[2:]:
    report = os.path.join(logs, "testlog.junit.xml")
    if not os.path.exists(report):
        continue
    for suite in ET.parse(report).getroot().iter("testsuite"):
        cases = list(suite.iter("testcase"))
        for case in cases:
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
                print("FAILED", logs, suite.get("name"), case.get("name"))
            elif case.find("skipped") is None:
                passed += 1
        # a program that died without naming a case
        if int(suite.get("errors", 0)) + int(suite.get("failures", 0)) and not any(
                c.find("failure") is not None or c.find("error") is not None for c in cases):
            failed += 1
            print("FAILED", logs, suite.get("name"))
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
END
