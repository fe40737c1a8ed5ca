/* SPDX-License-Identifier: Apache-2.0 */
/* Help is read by somebody who does not know the words yet: what it is for first, an example of each thing after. */
#include "cmd/help.h"

#include <stdio.h>
#include <string.h>

bool spw__help_wanted(char **argv)
{
	return *argv && (!strcmp(*argv, "--help") || !strcmp(*argv, "-h"));
}

int spw__help(void)
{
	puts("spillway: swap for programs, without root and without kernel swap\n"
	     "\n"
	     "usage:\n"
	     "  spillway run [OPTION...] [--] PROGRAM [ARG...]   run a program in less memory than it needs\n"
	     "  spillway mkswap [OPTION...] PATH                 make a swapfile, a swap device or a ghost\n"
	     "  spillway list [PID]                              the runs there are, and their swap\n"
	     "  spillway swapon PID KIND[:PATH][,key=value...]   give a run more swap\n"
	     "  spillway swapoff PID TIER                        take some away, while it runs\n"
	     "  spillway set PID --ram SIZE                      change its cap\n"
	     "  spillway doctor                                  check that this machine allows it\n"
	     "  spillway --help | --version\n"
	     "\n"
	     "first use:\n"
	     "  spillway doctor\n"
	     "  spillway run --ram 512M -- sort -S 2G big.txt > sorted.txt\n"
	     "\n"
	     "spillway run --help says more.");
	return 0;
}

int spw__help_run(void)
{
	puts("usage: spillway run [OPTION...] [--] PROGRAM [ARG...]\n"
	     "\n"
	     "Runs PROGRAM, and every process it starts, in no more memory than --ram says. What does not fit is\n"
	     "compressed in RAM, and when that is full written to a file. PROGRAM need not be changed.\n"
	     "\n"
	     "  --ram SIZE|N%           the most memory the whole process tree takes, compressed memory included.\n"
	     "                          512M, 2G, 1.5GiB are powers of 1024; N% is of the memory there is, the "
	     "smaller\n"
	     "                          of the machine's and the container's. Default 80%.\n"
	     "  --swap zswap[,size=SIZE|N%]\n"
	     "                          compress in RAM; at most SIZE, or N% of --ram (default 90%), and above a\n"
	     "                          file only as much as pays.\n"
	     "  --swap file[:PATH][,size=SIZE][,encrypt=on|off][,priority=N][,force]\n"
	     "                          a swapfile or block device. Without PATH an unlinked file in $TMPDIR or "
	     "/var/tmp.\n"
	     "                          PATH may be empty, made by mkswap, or not there yet; force takes it even if\n"
	     "                          others own or may read it.\n"
	     "                          Without size it may grow to the free space less 10 %. Encrypted by default.\n"
	     "  --swap ghost:PATH[,priority=N]\n"
	     "                          a swapfile that is only its header: as much swap as that says, all of it in\n"
	     "                          the pool.\n"
	     "                          --swap may be given up to nine times. The highest priority (-128 to 127) is\n"
	     "                          used first, equal ones in turn; without one, the first named.\n"
	     "                          Default: --swap zswap --swap file.\n"
	     "  --codec lz4|zstd|zstd:LEVEL\n"
	     "                          fast, or small. Default lz4.\n"
	     "  --fault auto|thread     who serves page faults. Default auto.\n"
	     "  --evict auto|move|wp    how pages are taken out: moved (Linux 6.8), or write-protected and copied.\n"
	     "  --dedup                 keep pages of equal bytes once, also those that are not all of one word.\n"
	     "  --on-full grow|kill     when all swap is full: go over the cap and warn (default), or end the "
	     "program.\n"
	     "  --stats FILE            write what was measured as JSON at the end; - is stderr.\n"
	     "  --best-effort           run also what cannot be capped (static or setuid programs).\n"
	     "  -q, --quiet             say nothing but errors.\n"
	     "  -h, --help\n"
	     "\n"
	     "within a run it joins that one, under its cap, and takes no options but these:\n"
	     "  --ram SIZE|N%           less than the run around it has; N% is of that.\n"
	     "  --swap NAME             use only this tier of the run around it: a name as spillway list shows it, or\n"
	     "                          zswap, file or ghost for all of that kind. May be given several times.\n"
	     "  --best-effort, --quiet, --help\n"
	     "\n"
	     "examples:\n"
	     "  spillway run --ram 512M -- python3 train.py\n"
	     "  spillway run --ram 25% --swap zswap,size=50% --codec zstd -- make -j8\n"
	     "  spillway run --ram 2G --swap file:/scratch/swap,size=20G --stats run.json -- ./simulate\n"
	     "\n"
	     "exit status: PROGRAM's; 128+N when signal N ended it; 125 spillway failed; 126 PROGRAM cannot be\n"
	     "executed; 127 PROGRAM was not found.");
	return 0;
}

int spw__help_swapon(void)
{
	puts("usage: spillway list [--json] [PID]\n"
	     "       spillway swapon PID KIND[:PATH][,key=value...]\n"
	     "       spillway swapoff PID TIER\n"
	     "       spillway set PID --ram SIZE\n"
	     "\n"
	     "For a spillway run that is under way: PID is that of spillway itself, as `spillway list` shows it. Only\n"
	     "its user and root may ask.\n"
	     "\n"
	     "  list     every run, or with PID one run, its tiers, and what is wrong with them: one whose writes\n"
	     "           fail for good is dead and emptied; one that a process cannot open is tried again\n"
	     "  swapon   use another file or ghost; KIND, PATH and keys as for spillway run --swap. PATH is opened\n"
	     "           here, as the run's user; interrupt it (Ctrl-C) when its file system does not answer.\n"
	     "  swapoff  empty TIER, a name that list shows, into the others, and close it. The program goes on\n"
	     "           meanwhile. Interrupt it (Ctrl-C) to use the tier on. Refused when the others have no room.\n"
	     "  set      another cap; the pool's share of it stays the same\n"
	     "\n"
	     "examples:\n"
	     "  spillway list\n"
	     "  spillway swapon 4711 file:/scratch/more,size=20G\n"
	     "  spillway swapoff 4711 /scratch/more\n"
	     "  spillway set 4711 --ram 1G\n"
	     "\n"
	     "exit status: 0; 125 when it was refused or failed, with the reason.");
	return 0;
}

int spw__help_mkswap(void)
{
	puts("usage: spillway mkswap [--ghost] [--size SIZE] [--label LABEL] [--uuid UUID] [--force] PATH\n"
	     "\n"
	     "Makes PATH a swap area that the kernel, blkid and spillway run --swap file:PATH take. A file that does\n"
	     "not exist is made, without holes and for its owner alone.\n"
	     "\n"
	     "  -s, --size SIZE         how large, 512M or 2G. Default: as large as PATH is; a new file needs it.\n"
	     "      --ghost             a file that is only its header, 4096 bytes, and says that it has SIZE of "
	     "swap.\n"
	     "  -L, --label LABEL       a name, up to 15 bytes.\n"
	     "  -U, --uuid UUID         default: a random one.\n"
	     "  -f, --force             overwrite a filesystem or a partition table; with --ghost, any data. Other\n"
	     "                          data in PATH is overwritten without asking.\n"
	     "  -h, --help\n"
	     "\n"
	     "examples:\n"
	     "  spillway mkswap --size 2G /var/swap\n"
	     "  spillway mkswap --label scratch /dev/sdb2\n"
	     "  spillway mkswap --ghost --size 8G ghost");
	return 0;
}

int spw__help_doctor(void)
{
	puts("usage: spillway doctor\n"
	     "\n"
	     "Checks what spillway run needs of this machine: one line each, ok or missing with the command that fixes "
	     "it.\n"
	     "Exit status 0 when spillway run will work, 1 when not.");
	return 0;
}
