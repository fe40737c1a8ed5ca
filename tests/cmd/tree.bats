#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The processes below the program.
load lib

@test "spillway leaves with the program, not with its descendants" {
	mkfifo "$T/go" "$T/done"
	spillway run --ram 64M -- bash -c "(read x <'$T/go'; echo still there >'$T/done') >/dev/null 2>&1 & exit 9" || status=$?
	[ "$status" = 9 ]
	echo >"$T/go"
	[ "$(timeout 30 cat "$T/done")" = "still there" ]
}

@test "orphans are reaped" {
	# a zombie left unreaped would be a child of spillway
	run -0 spillway run --ram 64M -- bash -c '
		for i in 1 2 3 4 5; do (sleep 0 & echo $! >&2); done
		read -r orphan < <(bash -c "sleep 0 & echo \$!")
		while [ -e /proc/$orphan ]; do :; done
		echo reaped'
	[[ $output == *reaped* ]]
}

@test "a static tool down the tree runs, is counted and named once" {
	echo 'char b[32 << 20]; int main(void) { for (unsigned i = 0; i < sizeof(b); i += 4096) b[i] = 1;
		return read(0, b, 1) < 0; }' | $CC -w -x c - -O1 -static -o "$T/statictool"
	# it waits for its stdin until the supervisor has seen it: the statistics of the loop are what ends it
	run --separate-stderr -0 spillway run --ram 256M --stats "$T/stats" -- bash -c "
		mkfifo '$T/in'
		'$T/statictool' <'$T/in' & pid=\$!
		exec 5>'$T/in'
		until [ \"\$(awk '\$1 == \"VmRSS:\" {print (\$2 > 32000)}' /proc/\$pid/status)\" = 1 ]; do :; done
		for i in {1..400}; do sh -c 'exit 0'; done
		echo >&5
		wait \$pid"
	echo "$stderr"
	[[ $stderr == *"1 process ran without the cap: statictool x1, peak 3"*" MiB"* ]]
	[ "$(jq .processes_uncapped "$T/stats")" = 1 ]
	[ "$(jq '.resident_peak_bytes > 33554432' "$T/stats")" = true ]
}

@test "--quiet says nothing of it" {
	build static -static
	run --separate-stderr -0 spillway run --ram 64M --best-effort --quiet -- "$T/static"
	[ -z "$stderr" ]
}

# Each process takes what the others leave of the pool, and those that come late nothing.
@test "the pools of a tree keep their limit together, without a file too" {
	mkfifo "$T/ready" "$T/stop"
	exec 7<>"$T/ready" 8<>"$T/stop"
	cat >"$T/hold.py" <<-'END'
		import os, random, sys
		r, w = os.pipe()
		for i in range(3):
		    if not os.fork():
		        held = [random.Random(i).randbytes(1300) + bytes(2788) for _ in range(4000)]
		        os.write(w, b"x")
		        os.read(os.open(sys.argv[1] + "/stop", os.O_RDONLY), 1)
		        os._exit(len(held) != 4000)
		    os.read(r, 1)
		open(sys.argv[1] + "/ready", "w").write("x")
		sys.exit(sum(os.wait()[1] for _ in range(3)))
	END
	"$SPILLWAY" run --quiet --ram 24M --swap zswap,size=4M -- python3 "$T/hold.py" "$T" 7>&- 8>&- &
	local run=$! used
	read -r -n 1 <&7
	used=$("$SPILLWAY" list --json "$run" | jq '.tiers[0].used_bytes')
	echo -n xxx >&8
	wait "$run"
	exec 7>&- 8>&-
	echo "used: $used"
	# What several of them put there at the same moment is over it.
	[ "$used" -ge $((2 << 20)) ] && [ "$used" -lt $((8 << 20)) ]
}

# Nine tenths of so small a cap, and what Spillway takes beside the pool, are all of it.
@test "a pool that would leave the program nothing goes to the file" {
	cat >"$T/fill.c" <<-'END'
		#include <stdlib.h>
		#include <unistd.h>
		#define PAGES 32768u
		int main(void)
		{
			static unsigned long page[PAGES][512], x = 1;
			for (unsigned i = 0; i < PAGES; i++) {
				for (unsigned at = 0; at < 180; at++)
					page[i][at] = x = x * 6364136223846793005 + 1442695040888963407;
				page[i][511] = i;
				/* Until it is held: how fast that is, is another question. */
				if (i < PAGES / 2 && i % 256 == 0)
					usleep(2000);
			}
			for (unsigned i = 0; i < 8 * PAGES; i++)
				if (page[i % PAGES][511] != i % PAGES)
					return 1;
			return 0;
		}
	END
	$CC -O1 "$T/fill.c" -o "$T/fill"
	"$SPILLWAY" run --ram 24M --stats "$T/stats" -- "$T/fill"
	jq -c '[.resident_peak_bytes, .tiers[].pages]' "$T/stats"
	[ "$(jq .resident_peak_bytes "$T/stats")" -lt $((32 << 20)) ]
}

# Each has all of it resident, and the three of them together more than the cap.
@test "a file that several processes have mapped counts once" {
	mkfifo "$T/ready" "$T/stop"
	exec 7<>"$T/ready" 8<>"$T/stop"
	cat >"$T/map.py" <<-'END'
		import mmap, os, subprocess, sys
		folder = sys.argv[1]
		if len(sys.argv) < 3:
		    open(folder + "/file", "wb").write(os.urandom(40 << 20))
		    children = [subprocess.Popen([sys.executable, __file__, folder, "child"]) for _ in range(3)]
		    sys.exit(any([c.wait() for c in children]))
		with open(folder + "/file", "rb") as f:
		    m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
		    sum(m[::4096])
		    open(folder + "/ready", "w").write("x")
		    os.read(os.open(folder + "/stop", os.O_RDONLY), 1)
	END
	"$SPILLWAY" run --quiet --ram 96M -- python3 "$T/map.py" "$T" 7>&- 8>&- &
	local run=$! resident=0 i
	read -r -n 3 <&7
	for ((i = 0; i < 100; i++)); do
		resident=$("$SPILLWAY" list --json "$run" | jq .resident_bytes)
		[ "$resident" -gt $((96 << 20)) ] || break
		sleep 0.1
	done
	echo -n xxx >&8
	wait "$run"
	exec 7>&- 8>&-
	echo "resident: $resident"
	[ "$resident" -ge $((40 << 20)) ] && [ "$resident" -le $((96 << 20)) ]
}
