# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Building: kernels, the file system of tools/testing/minidax, kselftests, and the programs
# of the guest.

OBJ=$WORK/obj		# objects of both, so that the second build is incremental

# For which machine kernels are built
export ARCH=x86 CROSS_COMPILE=

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
		# Not what our configuration says that this architecture has not
		sed 's/=m$/=y/' "$TREE/tools/testing/selftests/dax/config" |
			grep -vxFf <(fragments | sed -n 's/^# \(CONFIG_[A-Z_]*\) is not set/\1=y/p')
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
	grep -q '^CONFIG_HMM_MIRROR=y' "$1/.config" || without+=(':!mm/hmm.c')
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

# no_new_warnings COMMIT...: with W=1, after each of them; nothing that the compiler did not say
# about the base.  Done in the object tree of the base, on the way to the patched kernel.
no_new_warnings() (
	local commit new bad=0
	git -C "$TREE" checkout -q -f base || return 1
	warnings "$OBJ" W=1 >"$WORK/base.warnings"
	for commit; do
		git -C "$TREE" checkout -q -f "$commit" || return 1
		warnings "$OBJ" W=1 >"$WORK/new.warnings"
		new=$(comm -13 "$WORK/base.warnings" "$WORK/new.warnings")
		if [ -n "$new" ]; then
			git -C "$TREE" log -1 --format='after "%s":' "$commit"
			echo "$new"
			bad=1
		fi
	done
	return $bad
)

# The plugin, the host tests of the model and the programs of the guest
build_tools() {
	local t=$TOP/tools/testing out=$WORK/tools
	mkdir -p "$out"
	logged tools.log make -C "$t/powerfail" O="$out"
	logged tools.log make -C "$t/cases" O="$out" HEADERS="$OBJ/usr/include"
	logged tools.log make -C "$t/bench" O="$out" HEADERS="$OBJ/usr/include"
}
