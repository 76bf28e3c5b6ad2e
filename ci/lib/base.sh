# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: GPL-2.0
#
# The base tree: get the kernel source that the series is for, as branch base of $TREE.

BASE_VERSION=7.3	# the series is written for this
BASE_SUITE=trixie-backports
FOREIGN=		# architecture of which packages can be downloaded, too
RC_SUITE=experimental	# has an -rc of it, to check that the series applies there too

# A commit that is the same on every machine
commit_all() {
	git -C "$1" add -f -A
	GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL=base@localhost \
	GIT_COMMITTER_NAME=base GIT_COMMITTER_EMAIL=base@localhost \
	GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z' \
		git -C "$1" commit -q -m "$2"
}

# Is branch $1 of $TREE where it was when it was noted in file $2?
is_at() {
	[ "$(git -C "$TREE" rev-parse -q --verify "$1")" = "$(cat "$2" 2>/dev/null)" ]
}

# Commits and edits in $TREE that patches/ does not have must not get lost
refuse_to_lose_work() {
	[ -d "$TREE/.git" ] || return 0
	if [ -n "$(git -C "$TREE" status --porcelain -uno)" ]; then
		die "$TREE has uncommitted changes; commit them and run ci/export, or drop them"
	fi
	# Not there if a run was stopped before the base was complete
	[ ! -f "$WORK/base.head" ] || is_at base "$WORK/base.head" ||
		die "branch base of $TREE has moved; commit on patched"
	is_at patched "$WORK/patched.head" ||
		die "branch patched of $TREE has commits that patches/ has not; run ci/export"
}

new_tree() {
	local branch
	for branch in $(git -C "$TREE" for-each-ref --format='%(refname:short)' refs/heads 2>/dev/null); do
		case $branch in
		base | patched | post/old) continue ;;
		esac
		is_at "$branch" "$WORK/$branch.head" || die "there is a new base, but branch $branch" \
			"of $TREE would be lost; delete it, or set WORK to another directory"
	done
	rm -rf "$TREE" "$WORK"/obj* "$WORK"/{base,patched}.{id,head} "$WORK"/{base,patched}/id
	mkdir -p "$TREE"
	git -C "$TREE" init -q -b base
	git -C "$TREE" config gc.auto 0
	git -C "$TREE" config core.untrackedCache true
}

# Unpack a source package or tarball $1 into directory $2, only paths "${@:3}" if given
unpack() {
	local file=$1 dir=$2 member
	shift 2
	case $file in
	*.deb)
		member=$(dpkg-deb --fsys-tarfile "$file" | tar t |
			grep '/linux-source-.*\.tar\.xz$')
		dpkg-deb --fsys-tarfile "$file" | tar xO "$member" | xz -dc -T0
		;;
	*.xz) xz -dc -T0 "$file" ;;
	*) gzip -dcf "$file" ;;
	esac | if [ $# -gt 0 ]; then
		# tar complains about files that the series creates
		tar x -C "$dir" --strip-components=1 --wildcards "${@/#/*/}" 2>/dev/null || true
	else
		tar x -C "$dir" --strip-components=1
	fi
}

# Print the path of package $1 of suite $2, downloaded if need be; return 1 if there is none
download() {
	local dir=$WORK/download version deb
	mkdir -p "$dir"
	version=$(apt-cache madison "$1" | awk -F' *[|] *' -v s="$2/" \
		'index($3, s) { print $2; exit }')
	[ -n "$version" ] || return 1
	deb=$dir/${1}_${version//:/%3a}_all.deb
	if [ ! -f "$deb" ]; then
		say "base: downloading $1 $version" >&2
		(cd "$dir" && logged download.log apt-get download "$1=$version") || return 2
	fi
	echo "$deb"
}

# What the Makefile on standard input says
tree_version() {
	awk '$2 == "=" && /^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)/ { v[$1] = $3 }
	     END { printf "%s.%s.%s%s", v["VERSION"], v["PATCHLEVEL"], v["SUBLEVEL"], v["EXTRAVERSION"] }'
}

# Print the path of Debian's source package: of $BASE_VERSION, or of a later one
debian_source() {
	local package=linux-source-$BASE_VERSION status=0
	download "$package" "$BASE_SUITE" || status=$?
	[ $status = 1 ] || return $status
	package=$(apt-cache search --names-only "^linux-source-${BASE_VERSION%%.*}\." |
		awk '{ print $1 }' | sort -V | tail -n 1)
	if [ -z "$package" ] || ! download "$package" "$BASE_SUITE"; then
		die "no linux-source-${BASE_VERSION%%.*}.* package; set KERNEL, see README"
	fi
	say "base: WARNING: linux-source-$BASE_VERSION is no longer offered, taking $package" >&2
}

# Make branch base of $TREE: of KERNEL if the user has set it (a directory, a
# tarball or the URL of a git repository), else of Debian's source package
get_base() {
	local source id deb
	source=${KERNEL:-debian}
	refuse_to_lose_work
	id=$(cat "$WORK/base.id" 2>/dev/null || true)
	if [ -z "${KERNEL:-}" ]; then
		# Once there it stays, whatever Debian has now; remove base.id for another one
		if [[ $id != linux-source-* ]]; then
			private_apt
			deb=$(debian_source) || exit 1
			id=$(basename "$deb")
		fi
	elif [ -d "$KERNEL/.git" ] || [ -f "$KERNEL/.git" ]; then
		id="$KERNEL $(git -C "$KERNEL" rev-parse HEAD)"
		if [ -n "$(git -C "$KERNEL" status --porcelain -uno)" ]; then
			say "base: WARNING: uncommitted changes in $KERNEL are not used"
		fi
	elif [ -d "$KERNEL" ]; then
		id="$KERNEL $(find "$KERNEL" -type f -printf '%T@ %p\n' | sort | sha256sum)"
	elif [ -f "$KERNEL" ]; then
		id="$KERNEL $(stat -c %Y "$KERNEL")"
	elif [[ $KERNEL == *://* ]]; then
		id=$KERNEL
	else
		die "KERNEL=$KERNEL: neither a directory, a tarball nor the URL of a git repository"
	fi

	if [ "$(cat "$WORK/base.id" 2>/dev/null)" != "$id" ]; then
		say "base: unpacking $source"
		new_tree
		if [ -z "${KERNEL:-}" ]; then
			unpack "$deb" "$TREE"
			commit_all "$TREE" "${id%%_*}"
		elif [[ $KERNEL == *://* ]]; then
			rm -rf "$TREE"
			logged clone.log git clone -q --depth 1 -b "v$BASE_VERSION" "$KERNEL" "$TREE"
			git -C "$TREE" checkout -q -b base
		elif [ -e "$KERNEL/.git" ]; then
			# A clone that borrows the objects: the user's tree is only read
			rm -rf "$TREE"
			logged clone.log git clone -q --shared "$KERNEL" "$TREE"
			git -C "$TREE" checkout -q -B base "${id##* }"
		elif [ -d "$KERNEL" ]; then
			tar c -C "$KERNEL" . | tar x -C "$TREE"
			commit_all "$TREE" "copy of a directory"
		else
			unpack "$KERNEL" "$TREE"
			commit_all "$TREE" "tarball"
		fi
		[ -f "$TREE/fs/dax.c" ] || die "$source holds no kernel source"
		git -C "$TREE" rev-parse base >"$WORK/base.head"
		echo "$id" >"$WORK/base.id"
	fi
	BASE_FULL=$(git -C "$TREE" show base:Makefile | tree_version)
	case $BASE_FULL in
	$BASE_VERSION.*) say "base: $BASE_FULL" ;;
	*) say "base: WARNING: $BASE_FULL, the series is for $BASE_VERSION" ;;
	esac
}
