# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: GPL-2.0
#
# What the scripts in ci/ share: the facts that must be in one place, and one
# function per step.  Each step is idempotent: it does nothing if what it makes is
# there and what it depends on has not changed.
#
# Everything is made below $WORK (build/ by default), which git ignores.

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=$(realpath -m "${WORK:-$TOP/build}")
LOGS=$WORK/logs
TREE=$WORK/linux	# git tree: branches base and patched
OBJ=$WORK/obj		# objects of both, so that the second build is incremental
JOBS=${JOBS:-$(nproc)}
ACCEL=${ACCEL:-tcg}	# kvm: faster, see need_tcg()

BASE_VERSION=7.3	# the series is written for this
BASE_SUITE=trixie-backports
FOREIGN=		# architecture of which packages can be downloaded, too
RC_SUITE=experimental	# has an -rc of it, to check that the series applies there too
QEMU_SUITE=bookworm-backports

# The guest: 1 GiB, of which two pmem devices of PMEM_SIZE each, and a virtio-pmem device
# with memory of its own, see guest/init
QEMU=qemu-system-x86_64
MACHINE=pc
IMAGE=bzImage
CONSOLE=ttyS0
RAM_SIZE=$((1 << 30))
PMEM_SIZE=$((128 << 20))
PMEM_START=($((512 << 20)) $((640 << 20)))
VIRTIO_START=$((4 << 30))	# empty: no such device
QEMU_ARGS=()		# more arguments of QEMU; ci/bench sets this and the memory above
BOOT_SECONDS=60		# limit of a guest that only runs a few tests
RUN_SECONDS=2400	# limit of one that runs all cases, or mounts all their crash states

CONFIGS=ext4-pmem,ext4-linear,ext4-stripe,xfs-pmem,xfs-linear,xfs-stripe,xfs-rt,ext4-nodax
CONFIGS=$CONFIGS,ext4-nocache,xfs-nocache,ext4-virtio,xfs-virtio,mini-pmem,mini-linear,mini-stripe
POISON_CONFIGS=ext4-pmem,xfs-pmem,mini-pmem
FUZZ_CONFIGS=ext4-pmem,xfs-pmem,xfs-stripe,mini-pmem
RACE_CONFIGS=ext4-pmem,xfs-pmem,xfs-rmap,xfs-nocache
STRESS_SECONDS=60	# for each configuration
KSELFTEST_CONFIGS=dev,xfs-stripe	# dev: they make ext4 and XFS themselves

REPLAY=1	# mount the crash states that cases leave behind; empty: do not
passed=0 failed=0 skipped=0	# what check() counts
SKIP=77		# exit status of a test that cannot be run, with its reason as output

# Debian packages, each with the file that shows it is there
PACKAGES='
gcc:/usr/bin/gcc make:/usr/bin/make git:/usr/bin/git flex:/usr/bin/flex
bison:/usr/bin/bison bc:/usr/bin/bc cpio:/usr/bin/cpio xz-utils:/usr/bin/xz
perl:/usr/bin/perl python3:/usr/bin/python3 pkg-config:/usr/bin/pkg-config
libc6-dev:/usr/include/stdio.h patch:/usr/bin/patch rsync:/usr/bin/rsync
libelf-dev:/usr/include/libelf.h libssl-dev:/usr/include/openssl/ssl.h
libglib2.0-dev:/usr/include/glib-2.0/glib.h
busybox-static:/bin/busybox dmsetup:/sbin/dmsetup
e2fsprogs:/sbin/mke2fs xfsprogs:/sbin/mkfs.xfs
quilt:/usr/bin/quilt ccache:/usr/bin/ccache codespell:/usr/bin/codespell
shellcheck:/usr/bin/shellcheck ca-certificates:/etc/ssl/certs/ca-certificates.crt
gnuplot-nox:/usr/bin/gnuplot spin:/usr/bin/spin procps:/usr/bin/pgrep
'

# For which machine kernels are built
export ARCH=x86 CROSS_COMPILE=

# Nobody's git settings decide about the bytes of patches, nor who owns a tree
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_COUNT=3
export GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
export GIT_CONFIG_KEY_1=user.name GIT_CONFIG_VALUE_1=series
export GIT_CONFIG_KEY_2=user.email GIT_CONFIG_VALUE_2=series@localhost

# What the guest has in /bin
BUSYBOX=/bin/busybox
PROGRAMS=(/sbin/{mke2fs,e2fsck,mkfs.xfs,xfs_repair,dmsetup}
	  "$WORK"/tools/{cases,guest-test,bench})

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

# The archive that apt gets Debian from
debian_site() {
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' \
		2>/dev/null | awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}

# Options that make apt use lists and settings of its own below $WORK, with the
# suites that are needed added to those of the machine.  Nothing in /etc changes,
# and of the added suites only what the pins below name can be installed.
private_apt() {
	local dir=$WORK/apt$FOREIGN site key parts
	parts=$dir/sources.list.d
	mkdir -p "$parts" "$dir/none" "$dir/lists/partial" "$dir/cache/archives/partial"
	cp /etc/apt/sources.list.d/*.{list,sources} "$parts" 2>/dev/null || true
	key=/usr/share/keyrings/debian-archive-keyring.gpg
	site=$(debian_site)
	[ -n "$site" ] || die "no Debian archive among apt's sources; is there none, or was" \
		"'apt-get update' never run?"
	for suite in $QEMU_SUITE $BASE_SUITE $RC_SUITE; do
		echo "deb [signed-by=$key] $site $suite main"
	done >"$parts/dax-series.list"
	cat >"$dir/preferences" <<-EOF
	Package: *
	Pin: release n=$QEMU_SUITE
	Pin-Priority: -1

	Package: *
	Pin: release n=$BASE_SUITE
	Pin-Priority: -1

	Package: *
	Pin: release n=rc-buggy
	Pin-Priority: -1

	Package: qemu-* seabios ipxe-qemu
	Pin: release n=$QEMU_SUITE
	Pin-Priority: 500
	EOF
	cat >"$dir/apt.conf" <<-EOF
	Dir::Etc::sourceparts "$parts";
	Dir::Etc::preferencesparts "$dir/none";
	Dir::Etc::preferences "$dir/preferences";
	Dir::State::lists "$dir/lists";
	Dir::Cache "$dir/cache";
	APT::Sandbox::User "$(id -un)";
	APT::Architectures "$(dpkg --print-architecture)${FOREIGN:+,$FOREIGN}";
	EOF
	export APT_CONFIG=$dir/apt.conf DEBIAN_FRONTEND=noninteractive
	[ -n "$(find "$dir/updated" -mmin -600 2>/dev/null)" ] && return
	logged apt-update.log apt-get update
	touch "$dir/updated"
}

missing_packages() {
	local entry
	for entry in $PACKAGES; do
		[ -e "${entry#*:}" ] || echo "${entry%%:*}"
	done
}

qemu_too_old() {
	local version
	version=$(qemu-system-x86_64 --version 2>/dev/null | sed -n 's/.*version \([0-9]*\).*/\1/p')
	[ "${version:-0}" -lt 10 ]
}

# The power-fail model is a plugin of TCG
need_tcg() {
	[ "$ACCEL" = tcg ] || die "the power-fail model needs ACCEL=tcg"
}

# Install what is missing
setup() {
	local missing
	mkdir -p "$WORK" 2>/dev/null || true
	[ -w "$WORK" ] || die "$WORK is not yours; set WORK to a directory that is"
	# A script that another one has called works under the lock of that
	if [ "${LOCKED:-}" != "$WORK" ]; then
		exec {lock}>"$WORK/lock"
		flock -n "$lock" || {
			say "waiting for another script that works in $WORK"
			flock "$lock"
		}
		export LOCKED=$WORK
		trap clean_up EXIT
		trap 'exit 130' INT TERM
	fi
	# Images of Debian come without the lists
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null &&
	   ! apt-get indextargets 'Created-By: Packages' 2>/dev/null | grep -q .; then
		logged apt-update-system.log apt-get update
	fi
	missing=$(missing_packages | tr '\n' ' ')
	qemu_too_old && missing="$missing qemu-system-x86"
	[ -n "${missing// /}" ] || return 0
	if ! command -v apt-get >/dev/null; then
		die "missing, and there is no apt to install it: $missing(QEMU: 10.0 or newer)"
	elif [ "$(id -u)" != 0 ]; then
		die "missing, and only root can install it: $missing(QEMU from $QEMU_SUITE)"
	fi
	say "setup: installing $missing"
	(
		private_apt
		# shellcheck disable=SC2086
		logged apt-install.log apt-get install -y --no-install-recommends $missing
	) || exit 1
	missing=$(missing_packages | tr '\n' ' ')
	[ -z "$missing" ] || die "still missing after installation: $missing"
	if qemu_too_old; then
		die "QEMU is older than 10.0 even after installation"
	fi
}

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

# kernel_make TARGET...: in the tree as it is checked out
kernel_make() {
	local ccache=
	command -v ccache >/dev/null && ccache='ccache '
	make -C "$TREE" O="$OBJ" CC="$ccache${CROSS_COMPILE}gcc" HOSTCC="${ccache}gcc" -j"$JOBS" \
		KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=ci KBUILD_BUILD_HOST=ci "$@"
}

# Our configuration, to be merged over allnoconfig
fragments() {
	cat "$TOP/tools/testing/config"/{base,"$ARCH"}.config "${EXTRA_CONFIG:-/dev/null}"
}

# Configure $OBJ as the lines of its wanted.config say; complain about options that did not
# make it
configure_as_wanted() {
	local want=$OBJ/wanted.config line missing=
	! cmp -s "$want" "$OBJ/configured" || return 0
	logged config.log kernel_make KCONFIG_ALLCONFIG="$want" allnoconfig
	while read -r line; do
		grep -qx "$line" "$OBJ/.config" || missing="$missing $line"
	done < <(grep '^CONFIG_' "$want")
	[ -z "$missing" ] || die "the kernel's Kconfig refuses:$missing"
	cp "$want" "$OBJ/configured"
}

# Merge our fragments and the selftests' into a configuration
configure() {
	mkdir -p "$OBJ"
	# The selftests' own needs; hot-plug tests of other subjects want modules
	{
		fragments
		sed 's/=m$/=y/' "$TREE/tools/testing/selftests/dax/config"
	} >"$OBJ/wanted.config"
	configure_as_wanted
}

# Build commit $1: $IMAGE and vmlinux in $WORK/$2
build_kernel() {
	git -C "$TREE" checkout -q -f "$1"
	configure
	logged "build-$2.log" kernel_make "$IMAGE" modules headers
	if grep -q 'warning:' "$LOGS/build-$2.log"; then
		grep -m 5 'warning:' "$LOGS/build-$2.log" >&2
		rm -rf "$OBJ"	# or the next build would not show them
		die "kernel $2 builds with warnings, see $LOGS/build-$2.log"
	fi
	mkdir -p "$WORK/$2"
	cp "$OBJ/arch/$ARCH/boot/$IMAGE" "$OBJ/vmlinux" "$WORK/$2/"
}

# Build branch or tag $1: $IMAGE, vmlinux, minidax.ko and kselftests in $WORK/$1, or
# $WORK/$2 if given
build() {
	local name=${2:-$1} out=$WORK/${2:-$1} id
	id=$(git -C "$TREE" rev-parse "$1")
	if [ "$(cat "$out/id" 2>/dev/null)" = "$id $(config_id)" ]; then
		return
	fi
	rm -f "$out/id"
	say "build: kernel $name (the first one takes minutes)"
	build_kernel "$1" "$name"
	build_minidax "$1" "$out"
	rm -rf "$out/kselftest"
	logged "build-kselftest-$name.log" kernel_make -C "$TREE/tools/testing/selftests" \
		TARGETS=dax INSTALL_PATH="$out/kselftest" \
		KHDR_INCLUDES="-isystem $OBJ/usr/include" USERLDFLAGS=-static install
	echo "$id $(config_id)" >"$out/id"
}

# The file system of tools/testing/minidax for the kernel of branch $1 that has just
# been built, into directory $2
build_minidax() {
	local dir=$2/minidax base=
	grep -q dax_dirty_folio "$TREE/mm/page-writeback.c" || base=1
	rm -rf "$dir"
	mkdir -p "$dir"
	logged "minidax-$1.log" kernel_make M="$TOP/tools/testing/minidax" MO="$dir" \
		W=1 BASE=$base modules
	if grep -qi 'warning' "$LOGS/minidax-$1.log"; then
		die "minidax builds with warnings, see $LOGS/minidax-$1.log"
	fi
	cp "$dir/minidax.ko" "$2/"
}

# What else than the kernel's source decides about what build() makes
config_id() {
	cat <(fragments) "$TOP"/tools/testing/minidax/{minidax.c,Makefile} |
		sha256sum | cut -c1-16
}

# The touched objects that configuration $1/.config has
objects() {
	local without=()
	grep -q '^CONFIG_FS_DAX=y' "$1/.config" || without+=(':!*/dax.c' ':!*/fsdev.c')
	grep -q '^CONFIG_MEMORY_FAILURE=y' "$1/.config" || without+=(':!*/memory-failure.c')
	grep -q '^CONFIG_DCSSBLK=' "$1/.config" || without+=(':!drivers/s390')
	grep -q '^CONFIG_X86_64=y' "$1/.config" || without+=(':!arch/x86')
	git -C "$TREE" diff --name-only base patched -- '*.c' ':!tools' "${without[@]}" |
		sed 's/c$/o/'
}

# make_objects DIR ARGUMENTS...: make all of these.  Told of one in arch/x86/lib, kbuild goes there
# twice, so it must not do that at the same time.
make_objects() {
	local dir=$1 list status=0
	shift
	mapfile -t list < <(objects "$dir" | grep -v '^arch/x86/lib/')
	kernel_make O="$dir" "$@" "${list[@]}" || status=1
	mapfile -t list < <(objects "$dir" | grep '^arch/x86/lib/')
	[ ${#list[@]} = 0 ] || JOBS=1 kernel_make O="$dir" "$@" "${list[@]}" || status=1
	return $status
}

# warnings DIR ARGUMENTS...: what make ARGUMENTS... says about them, without line numbers
warnings() {
	local dir=$1
	shift
	{
		make_objects "$dir" "$@" -k >"$LOGS/w1.log" 2>&1 ||
			tail -n 3 "$LOGS/w1.log"
		grep -E '(warning|error):' "$LOGS/w1.log" | sed 's/:[0-9]*:[0-9]*:/:/'
	} | sort -u
}

# The plugin, the host tests of the model and the programs of the guest
build_tools() {
	local t=$TOP/tools/testing out=$WORK/tools
	mkdir -p "$out"
	logged tools.log make -C "$t/powerfail" O="$out"
	logged tools.log make -C "$t/cases" O="$out" HEADERS="$OBJ/usr/include"
	logged tools.log make -C "$t/bench" O="$out" HEADERS="$OBJ/usr/include"
}

# Add program $2 and the libraries it needs to the file tree $1
add_program() {
	local lib
	cp -L "$2" "$1/bin/"
	for lib in $(ldd "$2" 2>/dev/null | grep -o '/[^ )]*'); do
		mkdir -p "$1${lib%/*}"
		cp -Ln "$lib" "$1$lib"
	done
}

# Make the initramfs of kernel $1; the base has no kselftests, it gets those of the series
make_initramfs() {
	local out=$WORK/$1/initramfs dir=$WORK/$1/initramfs.d program kselftests=$1
	[ "$1" != base ] || kselftests=patched
	rm -rf "$dir"
	mkdir -p "$dir"/{bin,dev,mnt,proc,sys,tmp,kselftest}
	cp "$BUSYBOX" "$dir/bin/"
	ln -s busybox "$dir/bin/sh"
	ln -s mke2fs "$dir/bin/mkfs.ext4"
	for program in "${PROGRAMS[@]}"; do
		add_program "$dir" "$program"
	done
	for program in "$WORK/$kselftests"/kselftest/dax/*; do
		if [ -x "$program" ] && [[ $program != *.sh ]]; then
			add_program "$dir" "$program"
			mv "$dir/bin/${program##*/}" "$dir/kselftest/"
		fi
	done
	install -m 755 "$TOP/tools/testing/guest/init" "$dir/init"
	[ ! -f "$WORK/$1/minidax.ko" ] || cp "$WORK/$1/minidax.ko" "$dir/"
	(cd "$dir" && find . | cpio -o -H newc --quiet | gzip -1) >"$out"
	rm -rf "$dir"
}

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

# What a recorded result is of
of_what() {
	printf 'Of ci/%s, series %s on %s (%s)\n' "${0##*/}" \
		"$(git -C "$TOP" describe --always --dirty 2>/dev/null || echo unknown)" \
		"$BASE_FULL" "$(cat "$WORK/base.id")"
}

# Print the table of the verdicts in files "$@", each KERNEL=FILE, see table.awk, and
# count them; $TABLE says how many.  A file that is not there is that of a guest that has
# failed.
table() {
	local arg p f s
	for arg; do
		touch "${arg#*=}"
	done
	awk -f "$TOP/tools/testing/cases/table.awk" "$TOP/tools/testing/cases/expected" "$@" \
		>"$LOGS/table"
	grep -v '^result ' "$LOGS/table"
	read -r _ p f s < <(grep '^result ' "$LOGS/table")
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	TABLE="$p passed, $f failed, $s skipped"
}

# The last line of a script that tests
count() {
	echo "$passed passed, $failed failed, $skipped skipped"
}

# boot NAME KERNEL APPEND [MODEL [SECONDS]]: run one guest.  KERNEL is a directory of $WORK
# that build() has made, MODEL the arguments of the power-fail model, SECONDS the limit.
# NAME.initrd is appended to the initramfs if it exists, and NAME.pmem is what the first pmem
# device has at the beginning.  Leaves NAME.results and NAME.console in $LOGS.  Fails, with
# the reason on standard output, if the guest does not start or end its job, or if the kernel
# log has a splat that tools/testing/cases/splats does not list for that kernel.
boot() {
	local name=$1 kernel=$2 seconds=${5:-$RUN_SECONDS} status=0 try
	for try in 1 2 3; do
		progress "guest: $name"
		status=0
		run_guest "$name" "$kernel" "$3" "${4:-}" "$seconds" || status=$?
		# QEMU 10.0.2 does not survive all that a guest with two CPUs may do when it
		# looks for PCI devices
		grep -qs 'iotlb_to_section: Assertion' "$LOGS/$name.qemu" || break
	done
	check_boot "$name" "$kernel" $status "$seconds"
}

# One try of boot(); returns what timeout(1) does
run_guest() {
	local name=$1 kernel=$2 append=$3 model=$4 seconds=$5
	local ram=$WORK/ram.$name disk=$WORK/disk.$name initrd=$WORK/initrd.$name
	local virtio=$WORK/virtio.$name
	local console=$LOGS/$name.console results=$LOGS/$name.results
	local start memmap='' args=() status=0
	mkdir -p "$LOGS"
	rm -f "$results" "$console" "$ram" "$disk" "$virtio"
	truncate -s $RAM_SIZE "$ram"
	truncate -s $PMEM_SIZE "$virtio"
	[ ! -f "$WORK/$name.pmem" ] || dd if="$WORK/$name.pmem" of="$ram" bs=1M status=none \
		seek=$((PMEM_START[0] >> 20)) conv=notrunc,sparse
	# What an O_DIRECT read gets, slowly: see odirect_read_into_fsync_twice
	head -c 1M /dev/zero | tr '\0' '\325' >"$disk"
	cat "$WORK/$kernel/initramfs" >"$initrd"
	[ ! -f "$WORK/$name.initrd" ] || cat "$WORK/$name.initrd" >>"$initrd"
	for start in "${PMEM_START[@]}"; do
		memmap="$memmap memmap=$PMEM_SIZE!$start"
	done
	if [ -n "$model" ]; then
		model="$WORK/tools/powerfail.so,ram=$ram,$model"
		for start in "${PMEM_START[@]}"; do
			model="$model,pmem=$start:$PMEM_SIZE"
		done
		args=(-plugin "$model,virtio-pmem=$VIRTIO_START:$PMEM_SIZE:$virtio")
	fi
	if [ -n "$VIRTIO_START" ]; then
		args+=(-object "memory-backend-file,id=virtio,size=$PMEM_SIZE,share=on,mem-path=$virtio"
			-device "virtio-pmem-pci,memdev=virtio,memaddr=$VIRTIO_START")
	fi
	timeout --foreground -k 5 "$seconds" "$QEMU" -accel "$ACCEL" -cpu max -smp 2 \
		-object "memory-backend-file,id=ram,size=$RAM_SIZE,share=on,mem-path=$ram" \
		-machine "$MACHINE,memory-backend=ram" -m "$((RAM_SIZE >> 20)),slots=1,maxmem=8G" \
		-nodefaults -no-reboot -display none -serial "file:$console" \
		-kernel "$WORK/$kernel/$IMAGE" -initrd "$initrd" \
		-append "console=$CONSOLE nokaslr no_timer_check panic=-1 $memmap $append" \
		-device virtio-serial -chardev "file,id=results,path=$results" \
		-device virtserialport,chardev=results \
		-drive "file=$disk,if=none,id=disk,format=raw,throttling.bps-total=65536" \
		-device virtio-blk-pci,drive=disk \
		"${args[@]}" "${QEMU_ARGS[@]}" </dev/null >"$LOGS/$name.qemu" 2>&1 || status=$?
	rm -f "$ram" "$disk" "$initrd" "$virtio"
	return $status
}

check_boot() {
	local name=$1 kernel=$2 status=$3 seconds=$4 why='' splat
	local console=$LOGS/$name.console results=$LOGS/$name.results
	touch "$console" "$results"
	splat=$(grep -aE 'WARNING: |BUG: |KASAN: |UBSAN: |INFO: (rcu|trying to register)|blocked for more than|Kernel panic|Oops|EXT4-fs error|XFS.*(Corruption|Assertion)' "$console" |
		grep -avE "$(known_splats "$kernel")" | head -n 1 | tr -d '\r') || true
	if [ "$status" = 124 ] || [ "$status" = 137 ]; then
		why="guest $name still ran after $seconds s and was killed"
	elif [ "$status" != 0 ]; then
		why="QEMU failed: $(tail -n 1 "$LOGS/$name.qemu")"
	elif [ -n "$splat" ]; then
		why="guest $name: $splat"
	elif ! grep -q '^start ' "$results"; then
		why="guest $name did not start its job"
	elif ! grep -q '^end ' "$results"; then
		why="guest $name did not end its job"
	fi
	[ -n "$why" ] || return 0
	echo "$why"
	tail -n 12 "$console" | tr -d '\r' | sed "s/^/  $name: /"
	return 1
}

# replay NAME KERNEL LOG: the second boot for what guest NAME has promised
replay() {
	: >"$LOGS/replay-$1.results"
	[ -n "$REPLAY" ] || return 0
	local name=$1 kernel=$2 log=$3 dir=$WORK/promises.$1
	mkdir -p "$dir"
	# Of a case that has failed already there is nothing more to be learnt
	awk 'FNR == NR { failed[$2] = failed[$2] || ($1 == "case" && $3 == "FAIL"); next }
		$1 == "point" { skip = failed[$3] }
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
	cat "$LOGS"/{record,replay-record,bad,replay-bad}-"$kernel".results \
		"$LOGS"/{kselftest,poison}-"$kernel".cases >"$LOGS/$kernel.cases"
	[ -n "$REPLAY" ] || sed -i '/^point /d' "$LOGS/$kernel.cases"
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

# A pattern of the splats that kernel $1 is known to have
known_splats() {
	awk -v k="$1" '$1 == k || $1 == "any" { sub(/^[^ ]+ +/, ""); printf "%s|", $0 } END { print "^$" }' \
		"$TOP/tools/testing/cases/splats"
}

# Regenerate the patches from branch patched of $TREE into directory $1
export_patches() {
	git -C "$TREE" format-patch -q -N --zero-commit --no-signature --abbrev=12 \
		--no-base --no-attach --no-cover-letter --no-thread --diff-algorithm=myers \
		-o "$1" base..patched
}
