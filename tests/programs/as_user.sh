#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# as_user.sh SPILLWAY ARG...: `spillway` without CAP_SYS_PTRACE, as an ordinary user has it: it is told of no fork. Exit
# status 77 where that cannot be tested: capabilities cannot be dropped, or without that one userfaultfd is refused.
set -u
without="setpriv --bounding-set=-sys_ptrace --"
if ! $without "$1" run --ram 16M -- true; then
	echo "not measured here: see above"
	exit 77
fi
exec $without "$@"
