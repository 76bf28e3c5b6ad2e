# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: GPL-2.0
#
# Reporting: what has passed, what has not, and of what that is.

passed=0 failed=0 skipped=0	# what check() counts
SKIP=77		# exit status of a test that cannot be run, with its reason as output

# check NAME COMMAND...: one test; what the command prints is shown if it fails
check() {
	local name=$1 out
	shift
	local status=0
	out=$("$@" 2>&1) || status=$?
	if [ $status = 0 ]; then
		say "ok: $name"
		passed=$((passed + 1))
	elif [ $status = $SKIP ]; then
		say "skipped: $name: $out"
		skipped=$((skipped + 1))
	else
		say "FAILED: $name"
		printf '%s\n' "$out" | tail -n 20 | sed 's/^/    /'
		failed=$((failed + 1))
	fi
}

# What a recorded result is of
of_what() {
	printf 'Of ci/%s, series %s on %s (%s)\n' "${0##*/}" \
		"$(git -C "$TOP" describe --always --dirty 2>/dev/null || echo unknown)" \
		"$BASE_FULL" "$(cat "$WORK/base.id")"
}

# Print the table of the verdicts in files "$@", each KERNEL=FILE, see table.awk, and
# count them; $TABLE says how many.  A file that is not there is that of a guest that has
# failed.  The same is left in $LOGS/table.ktap, as KTAP.
table() {
	local arg p f s
	for arg; do
		touch "${arg#*=}"
	done
	awk -v ktap="$LOGS/table.ktap" -f "$TOP/tools/testing/cases/table.awk" \
		"$TOP/tools/testing/cases/expected" "$@" >"$LOGS/table"
	grep -v '^result ' "$LOGS/table"
	read -r _ p f s < <(grep '^result ' "$LOGS/table")
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	TABLE="$p passed, $f failed, $s skipped"
}

# The last line of a script that tests
count() {
	echo "$passed passed, $failed failed, $skipped skipped"
}

# in_background NAME COMMAND...: start a test next to others
in_background() {
	local name=$1
	shift
	rm -f "$LOGS/$name.status"
	("$@" >"$LOGS/$name.out" 2>&1 && echo ok >"$LOGS/$name.status" ||
		echo failed >"$LOGS/$name.status") &
}

# check_background NAME TITLE: wait for it and count it
check_background() {
	wait
	check "$2" ended_well "$1"
}

ended_well() {
	cat "$LOGS/$1.out"
	[ "$(cat "$LOGS/$1.status")" = ok ]
}
