#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# `spillway run` within a run: it joins that one, and can only narrow what it may use.
load lib

# outer OPTION... -- TEXT: a shell within a run; $S is the command there, $T the scratch directory.
outer() {
	local options=()
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	S="$SPILLWAY" T="$T" timeout --foreground -k 5 60 "$SPILLWAY" run --quiet "${options[@]}" --stats "$T/stats" -- bash -c "$2"
}

# refused STATUS TEXT ARG...: `spillway run ARG...` within a run is refused by one line.
refused() {
	local want=$1 text=$2
	shift 2
	run --separate-stderr -"$want" outer --ram 64M -- "\"\$S\" run $*"
	echo "stderr: $stderr"
	[ -z "$output" ]
	[[ $stderr == "spillway: "*"$text"* ]]
	[[ $stderr != *$'\n'* ]]
}

of() { jq -r --arg name "$1" ".tiers[]|select(.name == \$name)|$2" "$T/stats"; }

# fill HOW MIB: fills so much and reads it back, itself or by what it starts.
build_fill() {
	cat >"$T/fill.c" <<-'END'
		#define _GNU_SOURCE
		#include <spawn.h>
		#include <stdio.h>
		#include <stdlib.h>
		#include <string.h>
		#include <sys/wait.h>
		#include <unistd.h>
		extern char **environ;
		static void say_peak(void)
		{
			char line[256];
			FILE *f = fopen("/proc/self/status", "r");
			while (fgets(line, sizeof(line), f))
				if (!strncmp(line, "VmHWM:", 6))
					printf("%d\n", atoi(line + 6));
		}
		static int fill(size_t pages)
		{
			unsigned *p = malloc(pages * 4096), x = 1;
			for (size_t i = 0; i < pages; i++) {
				memset(p + i * 1024, 0, 4096);
				for (int k = 0; k < 330; k++)
					p[i * 1024 + k] = x = x * 1664525 + 1013904223;
				p[i * 1024 + 1023] = (unsigned)i;
			}
			for (size_t i = 0; i < pages; i++)
				if (p[i * 1024 + 1023] != i)
					return 3;
			return 0;
		}
		static int wait_for(pid_t pid)
		{
			int status;
			return waitpid(pid, &status, 0) == pid ? status : 4;
		}
		static int spawn(char **argv)
		{
			pid_t pid;
			return posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) ? 5 : wait_for(pid);
		}
		int main(int argc, char **argv)
		{
			const char *how = argv[1];
			size_t pages = (size_t)atoi(argv[2]) << 8;
			argv[1] = "alone";
			if (!strcmp(how, "alone"))
				return fill(pages);
			if (!strcmp(how, "peak")) { /* KiB that it took at the most */
				int failed = fill(pages);
				say_peak();
				return failed;
			}
			if (!strcmp(how, "exec"))
				return execv(argv[0], argv);
			if (!strcmp(how, "spawn"))
				return spawn(argv);
			if (!strcmp(how, "vfork")) {
				pid_t pid = vfork();
				if (!pid)
					execv(argv[0], argv);
				return wait_for(pid);
			}
			pid_t pid = fork();
			if (!strcmp(how, "fork"))
				return pid ? wait_for(pid) : fill(pages);
			if (pid)
				return 0; /* it is an orphan, and says when it is done */
			setsid();
			printf("%d\n", spawn(argv));
			return 0;
		}
	END
	$CC -O1 -w "$T/fill.c" -o "$T/fill"
}

@test "exit status and signals are the program's" {
	run -42 outer --ram 64M -- '"$S" run -- sh -c "exit 42"'
	run -0 outer --ram 64M -- '"$S" run -- sh -c "kill -TERM \$\$"; [ $? = 143 ]'
	# It has become the program: a signal for the one reaches the other.
	run -0 outer --ram 64M -- '"$S" run --swap zswap -- sh -c "trap \"exit 9\" TERM; echo \$\$ >\"\$T/pid\"; while :; do :; done" & 
		until [ -s "$T/pid" ]; do :; done; [ "$(cat "$T/pid")" = $! ]; kill $!; wait $!; [ $? = 9 ]'
}

@test "what cannot be executed" {
	refused 127 "nosuchprogram: not found" -- nosuchprogram
	refused 126 "Permission denied" -- /tmp
	build static -static
	refused 125 "is statically linked" -- "$T/static"
	[ "$(outer --ram 64M -- '"$S" run --best-effort --quiet -- "$T/static"')" = ran ]
	printf 'echo "$@"\n' >"$T/script"
	chmod +x "$T/script"
	[ "$(outer --ram 64M -- '"$S" run -- "$T/script" a "b c"')" = "a b c" ]
}

@test "options that are the outer run's" {
	for option in --codec=zstd --fault=auto --evict=auto --on-full=kill --stats=x; do
		refused 125 "${option%=*}: a run within another has it from that one; leave it out" "$option" -- true
	done
	run -0 outer --ram 64M -- '"$S" run --help'
	[[ $output == *"within a run"* ]]
}

@test "a tier can only be named" {
	refused 125 "by name or kind; say for instance --swap zswap" --swap zswap,size=1M -- true
	refused 125 "by name or kind" --swap file:/x -- true
	refused 125 "by name or kind" --swap ghost:/x -- true
	refused 125 "--swap floppy: the run around this one has no such tier, or denies it here; there are: zswap, file" \
		--swap floppy -- true
	refused 125 "there are: zswap, file" --swap ghost -- true
}

@test "what one within has denied is denied to all within it" {
	run --separate-stderr -125 outer --ram 64M --swap zswap --swap "file:$T/s,size=8M" --swap file,size=8M -- \
		'"$S" run --swap zswap --swap "$T/s" -- "$S" run --swap zswap -- "$S" run --swap "$T/s" -- true'
	[[ $stderr == "spillway: --swap $T/s: the run around this one has no such tier, or denies it here; there are: zswap" ]]
	run --separate-stderr -125 outer --ram 64M --swap zswap --swap "file:$T/s,size=8M" --swap file,size=8M -- \
		'"$S" run --swap zswap --swap "$T/s" -- "$S" run --swap file -- "$S" run --swap zswap -- true'
	[[ $stderr == *"there are: $T/s" ]]
}

@test "a ghost alone brings the pool, where there is one" {
	"$SPILLWAY" mkswap --ghost --size 1G "$T/ghost"
	outer --ram 64M --swap "ghost:$T/ghost" -- '"$S" run --swap ghost -- "$S" run --swap zswap -- true'
	run --separate-stderr -125 outer --ram 64M --swap "ghost:$T/ghost" --swap file,size=8M -- '"$S" run --swap ghost -- true'
	[[ $stderr == *"it holds nothing; name a tier that does as well, of: "* ]]
}

@test "the way to the outer run is lost" {
	SPILLWAY_CONTROL=/proc/1/fd/3 LD_PRELOAD="${SPILLWAY%/*}/libspillway-agent.so" \
		fails 125 "names process 1, which is no spillway run" run -- true
	SPILLWAY_CONTROL=here fails 125 "SPILLWAY_CONTROL=here: not the way to a spillway run" run -- true
	run --separate-stderr -125 outer --ram 64M -- 'LD_PRELOAD= "$S" run -- true'
	[[ $stderr == *"the agent is not in LD_PRELOAD any more"* ]]
	run --separate-stderr -125 outer --ram 64M -- 'SPILLWAY_CONTROL=$SPILLWAY_CONTROL:77 "$S" run -- true'
	[[ $stderr == *"is not known any more"* ]]
}

@test "another user may not narrow" {
	[ "$(id -u)" -eq 0 ] || skip "only root can be two users"
	cp "$SPILLWAY" "${SPILLWAY%/*}/libspillway-agent.so" "$T"
	run --separate-stderr -125 outer --ram 64M -- 'setpriv --reuid 4321 --regid 4321 --clear-groups "$T/spillway" run -- true'
	[[ $stderr == *"is another user's; only its user and root may run something within it"* ]]
}

@test "it joins: one run, one agent, one cap" {
	# Of the runs that are listed, whoever started them, those that this process is in.
	cat >"$T/runs" <<-'END'
		"$S" list >"$T/list"
		p=$$
		while [ "$p" -gt 1 ]; do
			grep "^$p " "$T/list"
			p=$(awk "/^PPid/ {print \$2}" "/proc/$p/status")
		done
	END
	run -0 outer --ram 64M -- '"$S" run --swap zswap -- sh -c "echo \$LD_PRELOAD; . \$T/runs"'
	[ "$(grep -o agent <<<"${lines[0]}" | wc -l)" = 1 ]
	[ "${#lines[@]}" = 2 ]
}

@test "nothing goes to a file that is denied, through fork, spawn, exec and orphans" {
	build_fill
	local tiers=(--swap zswap,size=4M --swap "file:$T/fast,size=100M,priority=5" --swap file,size=100M)
	# So much that it has a while to be seen in. Not narrowed, the fast file is the one that is used.
	outer --ram 24M "${tiers[@]}" -- '"$S" run -- "$T/fill" alone 96'
	[ "$(of "$T/fast" .writes)" -gt 0 ]
	for how in alone fork spawn vfork exec orphan; do
		mkfifo "$T/$how"
		# The shell is narrowed too: it may have to give of its own.
		outer --ram 24M "${tiers[@]}" -- "
			exec \"\$S\" run --swap file --swap zswap -- bash -c '
				exec 3<>\"\$T/$how\"
				\"\$T/fill\" $how 96 >&3 || exit 1
				[ $how != orphan ] || { read -r status <&3; exit \$status; }'"
		echo "$how: $(of "$T/fast" .writes) $(of file .writes)"
		[ "$(of "$T/fast" .writes)" = 0 ]
		[ "$(of file .writes)" -gt 0 ]
	done
}

@test "what is beside it in the outer run goes on as before" {
	build_fill
	outer --ram 24M --swap zswap,size=4M --swap "file:$T/fast,size=100M,priority=5" --swap file,size=100M -- \
		'"$S" run --swap zswap --swap file -- true; "$T/fill" alone 40'
	[ "$(of "$T/fast" .writes)" -gt 0 ]
}

@test "the pool alone" {
	build_fill
	outer --ram 40M --swap zswap,size=30M --swap file,size=100M -- '"$S" run --swap zswap -- "$T/fill" alone 48'
	[ "$(of file .writes)" = 0 ]
	[ "$(of zswap .writes)" -gt 0 ]
}

# A program within a run within one that holds pages until it is told to stop. $run is the pid of the outer one.
hold() {
	mkfifo "$T/stop" "$T/ready" "$T/more"
	# Both ends of each are held here, so that nobody waits for an end, or finds one.
	exec 7<>"$T/ready" 8<>"$T/stop" 9<>"$T/more"
	cat >"$T/hold.py" <<-'END'
		import random, sys
		r = random.Random(1)
		def fill():
		    return [r.randbytes(1300) + bytes(2788) + i.to_bytes(8, "little") for i in range(8000)]
		def check(held):
		    for i, page in enumerate(held):
		        assert page[-8:] == i.to_bytes(8, "little")
		T = sys.argv[1]
		def ready():
		    with open(T + "/ready", "w") as f:
		        f.write("x")
		held = fill()
		ready()
		open(T + "/more").read(1)
		more = fill()
		check(held)
		ready()
		open(T + "/stop").read(1)
		check(held)
		check(more)
		print("right")
	END
	local narrowed=$1
	shift
	# shellcheck disable=SC2086 # options
	"$SPILLWAY" run --quiet --ram 28M "$@" --stats "$T/stats" -- "$SPILLWAY" run $narrowed -- python3 "$T/hold.py" "$T" \
		>"$T/out" 2>"$T/err" 7>&- 8>&- 9>&- &
	run=$!
	read -r -n 1 <&7
}

more() {
	echo >&9
	read -r -n 1 <&7
}

finish() {
	echo >&8
	wait "$run"
	exec 7>&- 8>&- 9>&- # not before: it may still have to open them
	cat "$T/err"
	[ "$(cat "$T/out")" = right ]
}

tier() { "$SPILLWAY" list --json "$run" | jq -r --arg name "$1" ".tiers[]|select(.name == \$name)|$2"; }

@test "a file alone: the pool is no more than the way there" {
	hold "--swap file" --swap zswap,size=16M --swap file,size=100M
	more
	[ "$(tier zswap .used_bytes)" -le $((5 << 20)) ]
	[ "$(tier file .pages)" -gt 0 ]
	finish
}

@test "what is swapped on later is not for those that were told by name" {
	hold "--swap zswap --swap file" --swap zswap,size=2M --swap file,size=100M
	"$SPILLWAY" swapon "$run" "file:$T/later,size=100M,priority=100"
	more
	[ "$(tier "$T/later" .writes)" = 0 ]
	finish
}

@test "and is for those that were told nothing" {
	hold "" --swap zswap,size=2M --swap file,size=100M
	"$SPILLWAY" swapon "$run" "file:$T/later,size=100M,priority=100"
	more
	[ "$(tier "$T/later" .writes)" -gt 0 ]
	finish
}

@test "nor what takes the place of a tier that left" {
	hold "--swap zswap --swap file" --swap zswap,size=20M --swap file,size=100M
	"$SPILLWAY" swapoff "$run" file
	"$SPILLWAY" swapon "$run" file,size=100M,priority=100
	more
	[ "$(tier file .writes)" = 0 ]
	finish
}

@test "a file is not taken away from those that have no other" {
	hold "--swap file" --swap zswap,size=16M --swap file,size=100M --swap "file:$T/other,size=100M"
	local pid=$run
	# More than the pool, on the way to the file, has room for.
	until [ "$(tier file .stored_bytes)" -gt $((5 << 20)) ]; do
		kill -0 "$pid"
		sleep 0.1
	done
	run --separate-stderr -125 timeout 60 "$SPILLWAY" swapoff "$pid" file
	run=$pid
	echo "$stderr"
	[[ $stderr == *"of its pages stay there (nothing else has room for them); it is used on"* ]]
	[ "$(tier "$T/other" .pages)" = 0 ]
	more
	finish
}

@test "a cap can only be lowered" {
	refused 125 "the run around this one has 64.0 MiB, and one within can only have less, not 65.0 MiB" --ram 65M -- true
	refused 125 "the least is --ram 16M" --ram 20% -- true
	refused 125 "--ram lots: not a size" --ram lots -- true
	run --separate-stderr -125 outer --ram 128M -- '"$S" run --ram 50% -- "$S" run --ram 65M -- true'
	[[ $stderr == *"the run around this one has 64.0 MiB"* ]]
	outer --ram 128M -- '"$S" run --ram 50% -- "$S" run --ram 100% -- "$S" run --ram 32M --swap zswap -- true'
}

@test "a cap of its own is kept, and read back is what was written" {
	build_fill
	local tiers=(--swap zswap --swap file,size=300M)
	# Without one there is room for all.
	[ "$(outer --ram 400M "${tiers[@]}" -- '"$S" run -- "$T/fill" peak 128')" -ge $((128 << 10)) ]
	peak=$(outer --ram 400M "${tiers[@]}" -- '"$S" run --ram 32M -- "$T/fill" peak 128')
	echo "peak of $peak KiB"
	[ "$peak" -le $(((32 + 64) << 10)) ]
	# The one around it holds for those within that have none or a higher one.
	peak=$(outer --ram 400M "${tiers[@]}" -- '"$S" run --ram 32M -- "$S" run --swap zswap --swap file -- "$T/fill" peak 128')
	echo "peak of $peak KiB"
	[ "$peak" -le $(((32 + 64) << 10)) ]
	# And what is beside it has the rest.
	[ "$(outer --ram 400M "${tiers[@]}" -- '"$S" run --ram 32M -- true; "$T/fill" peak 128')" -ge $((128 << 10)) ]
}

@test "a cap is one of all its processes together" {
	build_fill
	outer --ram 400M --swap zswap --swap file,size=300M -- 'exec "$S" run --ram 48M -- bash -c "
		\"\$T/fill\" alone 64 & one=\$!
		\"\$T/fill\" alone 64 & two=\$!
		wait \$one && wait \$two"'
	jq .resident_peak_bytes "$T/stats"
	# How near it comes is measured by tests/programs/programs.py.
	[ "$(jq .resident_peak_bytes "$T/stats")" -le $(((48 + 64) << 20)) ]
}

@test "many, one after another and at a time" {
	outer --ram 64M -- 'for i in {1..70}; do "$S" run --swap zswap -- true || exit 1; done'
	mkfifo "$T/go"
	: >"$T/begun"
	run --separate-stderr -125 outer --ram 200M -- 'exec 3<>"$T/go"
		for i in {1..64}; do "$S" run --swap zswap -- sh -c "echo >>\"\$T/begun\"; read x" <"$T/go" & done
		until [ "$(wc -l <"$T/begun")" = 64 ]; do :; done
		"$S" run --swap zswap -- true; status=$?
		for i in {1..64}; do echo; done >&3
		wait
		exit $status'
	echo "stderr: $stderr"
	[[ $stderr == "spillway: 64 runs are under way within one, which is as many as there can be" ]]
}
