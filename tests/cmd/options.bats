#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Every option, what it takes and what it says when it is given wrongly.
load lib

# stat_of FIELD ARG...: a field of --stats of a run with these options.
stat_of() {
	local field=$1
	shift
	spillway run --stats "$T/stats" "$@" -- true
	jq -c "$field" "$T/stats"
}

@test "no subcommand" { fails 125 "see spillway --help"; }
@test "unknown subcommand" { fails 125 "walk: unknown subcommand" walk; }
@test "unknown option of the command" { fails 125 "--frob: unknown option" --frob; }
@test "unknown option of run" { fails 125 "--frob: unknown option" run --frob -- true; }
@test "no program" { fails 125 "no PROGRAM given" run --ram 64M; }
@test "no program behind --" { fails 125 "no PROGRAM given" run --; }
@test "value missing" { fails 125 "--ram: needs a value" run --ram; }
@test "value where none belongs" { fails 125 "--quiet: takes no value" run --quiet=yes -- true; }

@test "--ram: no size" { fails 125 "--ram lots: not a size" run --ram lots -- true; }
@test "--ram: negative" { fails 125 "--ram -5M: not a size" run --ram -5M -- true; }
@test "--ram: unknown unit" { fails 125 "--ram 5X: not a size" run --ram 5X -- true; }
@test "--ram: overflow" { fails 125 "not a size" run --ram 99999999999T -- true; }
@test "--ram: more than 100 %" { fails 125 "--ram 101%: not a size" run --ram 101% -- true; }
@test "--ram: 0 %" { fails 125 "--ram 0%: not a size" run --ram 0% -- true; }
@test "--ram: too small" { fails 125 "too small to work in" run --ram 1M -- true; }

@test "--swap: unknown kind" { fails 125 "--swap floppy: unknown kind" run --swap floppy -- true; }
@test "--swap: unknown key" { fails 125 "unknown key 'colour=red'" run --swap zswap,colour=red -- true; }
@test "--swap: bad size" { fails 125 "size=big: not a size" run --swap zswap,size=big -- true; }
@test "--swap: size 0" { fails 125 "size=0: not a size" run --swap file,size=0 -- true; }
@test "--swap: file size in percent" { fails 125 "size=50%: not a size" run --swap file,size=50% -- true; }
@test "--swap: bad encrypt" { fails 125 "say encrypt=on or encrypt=off" run --swap file,encrypt=perhaps -- true; }
@test "--swap: encrypt of zswap" { fails 125 "unknown key 'encrypt=on'" run --swap zswap,encrypt=on -- true; }
@test "--swap: path of zswap" { fails 125 "takes no path" run --swap zswap:/x -- true; }
@test "--swap: empty path" { fails 125 "is empty" run --swap file: -- true; }
@test "--swap: force without a path" { fails 125 "force: there is nothing to force without a path" run --swap file,force -- true; }
@test "--swap: force without encryption" { fails 125 "leave encrypt=off out" run --swap file:x,force,encrypt=off -- true; }
@test "--swap: force of zswap" { fails 125 "unknown key 'force'" run --swap zswap,force -- true; }
@test "--swap: a kind twice" { fails 125 "given twice" run --swap zswap --swap zswap -- true; }
@test "--swap: priority of zswap" { fails 125 "unknown key 'priority=1'" run --swap zswap,priority=1 -- true; }
@test "--swap: a priority that is none" { fails 125 "a number from -128 to 127" run --swap file,priority=high -- true; }
@test "--swap: a priority out of range" { fails 125 "a number from -128 to 127" run --swap file,priority=128 -- true; }
@test "--swap: a ghost without a file" { fails 125 "--swap ghost:PATH" run --swap ghost -- true; }
@test "--swap: size of a ghost" { fails 125 "unknown key 'size=1G'" run --swap ghost:/x,size=1G -- true; }
@test "--swap: a file twice" { fails 125 "in use by this run already" run --swap "file:$T/s,size=8M" --swap "file:$T/s,size=8M" -- true; }
@test "--swap: too many files" {
	fails 125 "8 files and ghosts are possible" run --swap file,size=8M --swap file,size=8M --swap file,size=8M \
		--swap file,size=8M --swap file,size=8M --swap file,size=8M --swap file,size=8M --swap file,size=8M \
		--swap file,size=8M -- true
}
@test "--swap: pool over the cap" { fails 125 "do not fit under a cap of 64.0 MiB" run --ram 64M --swap zswap,size=65M -- true; }

@test "--codec: unknown" { fails 125 "--codec gzip: unknown codec" run --codec gzip -- true; }
@test "--codec: level out of range" { fails 125 "--codec zstd:99: unknown codec" run --codec zstd:99 -- true; }
@test "--fault: unknown" { fails 125 "--fault magic: unknown mode" run --fault magic -- true; }
@test "--dedup: a value" { fails 125 "--dedup: takes no value" run --dedup=yes -- true; }
@test "--evict: unknown" { fails 125 "--evict magic: unknown way" run --evict magic -- true; }
@test "--on-full: unknown" { fails 125 "--on-full panic" run --on-full panic -- true; }
@test "--stats: unwritable" { fails 125 "--stats /nonexistent/s: No such file" run --stats /nonexistent/s -- true; }

@test "every good option at once" {
	spillway run --ram=256M --swap=zswap,size=25% --swap "file:$T/s,size=8M,encrypt=off" --codec zstd:3 --fault thread \
		--evict auto --dedup --on-full kill --stats "$T/stats" --quiet --best-effort -- true
}

@test "sizes are powers of 1024" {
	[ "$(stat_of .ram_limit_bytes --ram 67108864)" = 67108864 ]
	[ "$(stat_of .ram_limit_bytes --ram 65536K)" = 67108864 ]
	[ "$(stat_of .ram_limit_bytes --ram 64M)" = 67108864 ]
	[ "$(stat_of .ram_limit_bytes --ram 64MB)" = 67108864 ]
	[ "$(stat_of .ram_limit_bytes --ram 64MiB)" = 67108864 ]
	[ "$(stat_of .ram_limit_bytes --ram 0.5g)" = 536870912 ]
	[ "$(stat_of .ram_limit_bytes --ram 1G)" = 1073741824 ]
}

@test "percentages are of the memory there is, 80 % the default" {
	hundred=$(stat_of .ram_limit_bytes --ram 100%)
	default=$(stat_of .ram_limit_bytes)
	half=$(stat_of .ram_limit_bytes --ram 50%)
	[ "$default" -le $((hundred * 80 / 100)) ] && [ "$default" -gt $((hundred * 80 / 100 - 4096)) ]
	[ "$half" -le $((hundred / 2)) ] && [ "$half" -gt $((hundred / 2 - 4096)) ]
}

@test "tiers: zswap of up to nine tenths of the cap above a file by default" {
	[ "$(stat_of '[.tiers[].kind]' --ram 64M)" = '["zswap","file"]' ]
	[ "$(stat_of '.tiers[0].capacity_bytes' --ram 64M)" = 60395520 ]
}

@test "tiers: the first named is the highest, one alone is alone" {
	[ "$(stat_of '[.tiers[].kind]' --ram 64M --swap file,size=8M --swap zswap)" = '["file","zswap"]' ]
	[ "$(stat_of '[.tiers[].kind]' --ram 64M --swap zswap)" = '["zswap"]' ]
	[ "$(stat_of '[.tiers[].kind]' --ram 64M --swap file,size=8M)" = '["file"]' ]
	[ "$(stat_of '[.tiers[].name]' --ram 64M --swap file,size=8M --swap file,size=9M,priority=3 --swap zswap)" = '["file.2","file","zswap"]' ]
}

@test "statistics have exactly their fields" {
	[ "$(stat_of 'keys_unsorted' --ram 64M)" = '["version","wall_seconds","ram_limit_bytes","resident_peak_bytes","swapped_pages","swapped_pages_peak","swap_out_pages","swap_in_pages","same_filled_pages","merged_pages","merged_pages_peak","writeback_pages","metadata_bytes","metadata_bytes_per_page","cap_exceeded_bytes","processes","processes_uncapped","faults","tiers"]' ]
	[ "$(jq -c '.faults|keys_unsorted' "$T/stats")" = '["count","p50_ns","p99_ns","max_ns"]' ]
	[ "$(jq -c '.tiers[0]|keys_unsorted' "$T/stats")" = '["name","kind","capacity_bytes","used_bytes","pages","stored_bytes","reads","writes","errors","priority","state"]' ]
}

@test "statistics on stderr" {
	run --separate-stderr -0 spillway run --ram 64M --quiet --stats - -- echo out
	[ "$output" = out ]
	jq -e '.resident_peak_bytes > 0' <<<"$stderr"
}

@test "options end at PROGRAM" {
	[ "$(spillway run --ram 64M echo --ram -- --help)" = "--ram -- --help" ]
	[ "$(spillway run --ram 64M -- echo -n x)" = x ]
}

@test "--version" { [[ $(spillway --version) == "spillway "[0-9]* ]]; }

@test "help names every option and an example" {
	run -0 spillway run --help
	for word in --ram --swap --codec --fault --evict --dedup --on-full --stats --best-effort --quiet examples 125 126 127; do
		[[ $output == *"$word"* ]]
	done
	run -0 spillway --help
	[[ $output == *"spillway run --ram 512M -- "* ]]
}
