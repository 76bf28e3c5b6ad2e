# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Setup: install what is missing, and let one script at a time work in $WORK.

QEMU_SUITE=bookworm-backports

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

	Package: qemu-* seabios ipxe-qemu opensbi qemu-slof
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
	mkdir -p "$LOGS" 2>/dev/null || true
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
