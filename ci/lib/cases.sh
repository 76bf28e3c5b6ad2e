# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: GPL-2.0
#
# The cases: in which guests and configurations they, and the kselftests, run on a kernel.

# CONFIGS and the other lists of configurations
# shellcheck source=tools/testing/guest/configs
. "$TOP/tools/testing/guest/configs"
[ -z "${LONG:-}" ] || CONFIGS=$CONFIGS,$MORE_CONFIGS

STRESS_SECONDS=60	# for each configuration
REPLAY=1	# mount the crash states that cases leave behind; empty: do not
# The crash states that are mounted: so many of each case, and none of some cases and
# configurations.  The model has looked at all of them already.  On the base kernel there are more,
# as some holes show only then.
POINTS=3 NOT_MOUNTED='/again_|^xfs-(stripe|rt|virtio)/'
BASE_POINTS=8 BASE_NOT_MOUNTED='/again_'
[ -z "${LONG:-}" ] || POINTS=1000 NOT_MOUNTED='^$' BASE_POINTS=1000 BASE_NOT_MOUNTED='^$'

# Turn the TAP output of the kselftests in $LOGS/$1.results into lines as the cases
# have them, in $LOGS/$1.cases.  A program must report as many tests as it planned.
kselftest_cases() {
	awk '
		$1 == "case"
		$1 == "kselftest" { programs++; config = $2; program = $3; plan = seen = 0 }
		$1 == "tap" && $2 ~ /^1\.\./ { plan = substr($2, 4) + 0 }
		$1 == "tap" && ($2 == "ok" || ($2 == "not" && $3 == "ok")) {
			seen++
			# fsdax.VARIANT.TEST: VARIANT is a file system that it makes on
			# the device, or dir
			split($2 == "ok" ? $4 : $5, name, ".")
			if ((config == "dev") == (name[2] == "dir"))
				next
			verdict = $2 != "ok" ? "FAIL" : / # SKIP/ ? "SKIP" : "PASS"
			why = $0
			sub(/.*# SKIP */, "", why)
			print "case kselftest-" (config == "dev" ? name[2] "-dev" : config) \
				"/" name[3], verdict, verdict == "SKIP" ? why : ""
		}
		$1 == "status" && (!plan || seen != plan) {
			print "case kselftest-" config "/" program, "FAIL",
				seen " of " plan " tests reported, exit status " $2
		}
		END {
			if (!programs)
				print "case kselftest/programs FAIL none was run"
		}
	' "$LOGS/$1.results" >"$LOGS/$1.cases"
}

# replay NAME KERNEL LOG: the second boot for what guest NAME has promised
replay() {
	: >"$LOGS/replay-$1.results"
	[ -n "$REPLAY" ] || return 0
	local name=$1 kernel=$2 log=$3 dir=$WORK/promises.$1
	local points=$POINTS not=$NOT_MOUNTED
	mkdir -p "$dir"
	[ "$kernel" != base ] || points=$BASE_POINTS not=$BASE_NOT_MOUNTED
	# Of a case that has failed already there is nothing more to be learnt
	awk -v max="$points" -v not="$not" 'FNR == NR { failed[$2] = failed[$2] || ($1 == "case" && $3 == "FAIL"); next }
		$1 == "point" {
			skip = failed[$3] || $3 ~ not || ++points[$3] > max
		}
		/^(point|promise|promise-hash) / && !skip' \
		"$LOGS/$name.results" "$LOGS/$name.results" >"$dir/promises"
	(cd "$dir" && echo promises | cpio -o -H newc --quiet | gzip -1) >"$WORK/replay-$name.initrd"
	boot "replay-$name" "$kernel" "job=replay seeds=0,1" "replay=$log" || return 1
	rm -f "$log" "$WORK/replay-$name.initrd"
}

# case_passes NAME KERNEL CONFIG/CASE: one case in guest NAME; what it says is printed
case_passes() {
	boot "$1" "$2" "job=record configs=${3%/*} cases=${3#*/}" \
		"vmlinux=$WORK/$2/vmlinux" "$BOOT_SECONDS" || return 1
	grep '^case ' "$LOGS/$1.results"
	! grep -q '^case .* FAIL' "$LOGS/$1.results" && grep -q "^case $3 PASS" "$LOGS/$1.results"
}

# What is run on blocks that are bad, with a comma after each
bad_block_cases() {
	"$WORK/tools/cases" list | grep '^alone_poison_' | tr '\n' ,
}

# Cases, then their crash states, of one kernel; results in $LOGS/KERNEL.cases
run_cases() {
	local kernel=$1 log=$WORK/log.$1
	rm -f "$LOGS/$kernel.cases"
	boot "record-$kernel" "$kernel" "job=record configs=$CONFIGS" \
		"vmlinux=$WORK/$kernel/vmlinux,report=$LOGS/$kernel.report${REPLAY:+,record=$log}" ||
		return 1
	replay "record-$kernel" "$kernel" "$log" || return 1
	boot "kselftest-$kernel" "$kernel" "job=kselftest configs=$KSELFTEST_CONFIGS" || return 1
	kselftest_cases "kselftest-$kernel"
	boot "poison-$kernel" "$kernel" "job=record configs=$POISON_CONFIGS cases=alone_poison" \
		"vmlinux=$WORK/$kernel/vmlinux" || return 1
	# Not mounted again: the bad page is only bad for as long as that guest runs
	grep '^case ' "$LOGS/poison-$kernel.results" >"$LOGS/poison-$kernel.cases"
	# These are: the blocks are good then
	boot "bad-$kernel" "$kernel" "job=record configs=xfs-pmem cases=$(bad_block_cases)" \
		"vmlinux=$WORK/$kernel/vmlinux${REPLAY:+,record=$log}" || return 1
	replay "bad-$kernel" "$kernel" "$log" || return 1
	{
		# Of the points, those that must have been mounted
		[ -z "$REPLAY" ] ||
			grep -h '^point ' "$WORK"/promises.{record,bad}-"$kernel"/promises
		grep -hv '^point ' "$LOGS"/{record,replay-record,bad,replay-bad}-"$kernel".results
		cat "$LOGS"/{kselftest,poison}-"$kernel".cases
	} >"$LOGS/$kernel.cases"
}

# The tests that the kselftests of kernel $1 have, for each of $KSELFTEST_CONFIGS
list_kselftests() {
	local dir=$WORK/$1/kselftest/dax config
	# The base has none of its own, and those of arm64 do not run here
	[[ $1 != base && $1 != arm64 ]] || dir=$WORK/patched/kselftest/dax
	echo "${KSELFTEST_CONFIGS/dev/ext4-dev,xfs-dev}" | tr , '\n' | while read -r config; do
		# The last column, below two lines of a header
		{ "$dir/fsdax" -l 2>&1 || true; } | awk -v config="$config" \
			'/^---/ { list = 1; next } list && NF { print "kselftest-" config "/" $NF }'
	done
}

# Every case that run_cases() must have a verdict of, for kernels "$@"
list_cases() {
	local kernel config name
	for kernel; do
		{
			for config in ${POISON_CONFIGS//,/ }; do
				echo "$config/alone_poison"
			done
			bad_block_cases | sed 's|[^,]*,|xfs-pmem/&\n|g' | tr -d ,
			list_kselftests "$kernel"
			for config in ${CONFIGS//,/ }; do
				for name in $("$WORK/tools/cases" list | grep -v '^alone_'); do
					echo "$config/$name"
				done
			done
		} | sed "s|^|$kernel |"
	done
}
