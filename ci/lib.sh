# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: GPL-2.0
#
# What the scripts in ci/ share: where things are, messages, and the files in ci/lib, each of
# which has the facts and functions of one idea.  There is one function per step.  Each step is
# idempotent: it does nothing if what it makes is there and what it depends on has not changed.
#
# Everything is made below $WORK (build/ by default), which git ignores.

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=$(realpath -m "${WORK:-$TOP/build}")
LOGS=$WORK/logs
TREE=$WORK/linux	# git tree: branches base and patched
JOBS=${JOBS:-$(nproc)}
ACCEL=${ACCEL:-tcg}	# kvm: faster, see need_tcg()

# Nobody's git settings decide about the bytes of patches, nor who owns a tree
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_COUNT=3
export GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
export GIT_CONFIG_KEY_1=user.name GIT_CONFIG_VALUE_1=series
export GIT_CONFIG_KEY_2=user.email GIT_CONFIG_VALUE_2=series@localhost

say() {
	printf '%s %s\n' "$(date +%H:%M:%S)" "$*"
}

# What goes on, also where the output is that of a test
exec 3>&1
progress() {
	say "$@" >&3
}

die() {
	printf '%s: error: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# Stop with the comment at the top of the script, which is called with arguments "$@"
usage() {
	[[ ${1:-} = -h || ${1:-} = --help ]] || exec >&2
	sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
	[[ ${1:-} = -h || ${1:-} = --help ]]
	exit
}

# Stop process $1 and all that it has started
kill_tree() {
	local child
	for child in $(pgrep -P "$1"); do
		kill_tree "$child"
	done
	kill "$1" 2>/dev/null || true
}

# Stop what runs in the background, remove what guests have left, and leave the tree as
# the user expects it
clean_up() {
	local pid
	for pid in $(jobs -p); do
		kill_tree "$pid"
	done
	wait
	rm -f "$WORK"/{ram,disk,initrd,virtio,log}.* "$WORK"/*.{initrd,pmem}
	# Not before refuse_to_lose_work() has looked at it
	[ -z "${BASE_FULL:-}" ] || git -C "$TREE" checkout -q -f patched 2>/dev/null || true
}

# Run "$@" with its output in log $1; on failure show the end of it and stop
logged() {
	local log=$LOGS/$1
	shift
	mkdir -p "$LOGS"
	if ! "$@" >"$log" 2>&1; then
		tail -n 15 "$log" >&2
		die "'${1##*/}' failed, see $log"
	fi
}

# shellcheck source=ci/lib/setup.sh
. "$TOP/ci/lib/setup.sh"
# shellcheck source=ci/lib/base.sh
. "$TOP/ci/lib/base.sh"
# shellcheck source=ci/lib/series.sh
. "$TOP/ci/lib/series.sh"
# shellcheck source=ci/lib/build.sh
. "$TOP/ci/lib/build.sh"
# shellcheck source=ci/lib/guest.sh
. "$TOP/ci/lib/guest.sh"
# shellcheck source=ci/lib/cases.sh
. "$TOP/ci/lib/cases.sh"
# shellcheck source=ci/lib/report.sh
. "$TOP/ci/lib/report.sh"
