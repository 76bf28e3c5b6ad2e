# shellcheck shell=bash disable=SC2153
# SPDX-License-Identifier: GPL-2.0
#
# The series: what patches/ and the file series have, branch patched of $TREE, and the way
# between the two.

# The patches in order, as paths
series() {
	sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$1/series" | sed "s|^|$1/|"
}

# The groups of the series of directory $1: "GROUP LETTER FIRST LAST", where LETTER names the
# cover letter, and the patches are counted from 1
series_groups() {
	awk '
		/^# Group / {
			group = $3
			letter = $NF
			gsub(/[:()]/, "", group)
			gsub(/[()]/, "", letter)
		}
		/^patches/ {
			if (!(group in last)) {
				order[++groups] = group
				name[group] = letter
				first[group] = patches + 1
			}
			last[group] = ++patches
		}
		END {
			for (i = 1; i <= groups; i++)
				print order[i], name[order[i]], first[order[i]], last[order[i]]
		}
	' "$1/series"
}

# Apply the series of directory $1 on branch $2 of git tree $3, as branch $4.
# On failure say which patch and hunk, leave the tree as it was and return 1.
apply_series() {
	local dir=$1 from=$2 tree=$3 to=$4 log=$LOGS/apply.log patch
	mkdir -p "$LOGS"
	git -C "$tree" am --abort >/dev/null 2>&1 || true
	git -C "$tree" checkout -q -f "$from"
	git -C "$tree" checkout -q -B applying
	for patch in $(series "$dir"); do
		# The committer's date is the author's, so that ids do not depend on the day
		if ! git -C "$tree" am -q --committer-date-is-author-date "$patch" >"$log" 2>&1; then
			git -C "$tree" am --abort >/dev/null 2>&1 || true
			git -C "$tree" checkout -q -f "$from"
			git -C "$tree" branch -q -D applying
			echo "${patch##*/} does not apply: $(sed -n 's/^error: //p' "$log" |
				head -n 1 || true)"
			return 1
		fi
	done
	git -C "$tree" checkout -q -B "$to"
	git -C "$tree" branch -q -D applying
}

apply() {
	local id why
	id="$(git -C "$TREE" rev-parse base) $(cat "$TOP/series" "$TOP"/patches/*.patch | sha256sum)"
	if [ "$(cat "$WORK/patched.id" 2>/dev/null)" != "$id" ]; then
		rm -f "$WORK/patched.id"
		why=$(apply_series "$TOP" base "$TREE" patched) || die "$why"
		git -C "$TREE" rev-parse patched >"$WORK/patched.head"
		echo "$id" >"$WORK/patched.id"
	fi
	say "apply: $(series "$TOP" | wc -l) patches on $BASE_FULL"
}

# Regenerate the patches from branch patched of $TREE into directory $1
export_patches() {
	git -C "$TREE" format-patch -q -N --zero-commit --no-signature --abbrev=12 \
		--no-base --no-attach --no-cover-letter --no-thread --diff-algorithm=myers \
		-o "$1" base..patched
}
