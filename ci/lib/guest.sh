# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: GPL-2.0
#
# The guest: what it consists of, and how it is run.
#
# It has 1 GiB, of which two pmem devices of PMEM_SIZE each, and a virtio-pmem device with
# memory of its own, see guest/init.

QEMU=qemu-system-x86_64
MACHINE=pc
IMAGE=bzImage
CONSOLE=ttyS0
RAM_SIZE=$((1 << 30))
PMEM_SIZE=$((128 << 20))
PMEM_START=($((512 << 20)) $((640 << 20)))
VIRTIO_START=$((4 << 30))	# empty: no such device
QEMU_ARGS=()		# more arguments of QEMU; ci/bench sets this and the memory above
PRELOAD=		# library for QEMU
BOOT_SECONDS=60		# limit of a guest that only runs a few tests
RUN_SECONDS=2400	# limit of one that runs all cases, or mounts all their crash states

# What the guest has in /bin
BUSYBOX=/bin/busybox
PROGRAMS=(/sbin/{mke2fs,e2fsck,mkfs.xfs,xfs_repair,dmsetup}
	  "$WORK"/tools/{cases,guest-test,bench})

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
	cp "$TOP/tools/testing/guest/configs" "$dir/"
	[ ! -f "$WORK/$1/minidax.ko" ] || cp "$WORK/$1/minidax.ko" "$dir/"
	(cd "$dir" && find . | cpio -o -H newc --quiet | gzip -1) >"$out"
	rm -rf "$dir"
}

# boot NAME KERNEL APPEND [MODEL [SECONDS]]: run one guest.  KERNEL is a directory of $WORK
# that build() has made, MODEL the arguments of the power-fail model, SECONDS the limit.
# NAME.initrd is appended to the initramfs if it exists, and NAME.pmem is what the first pmem
# device has at the beginning.  Leaves NAME.results and NAME.console in $LOGS.  Fails, with
# the reason on standard output, if the guest does not start or end its job, or if the kernel
# log has a splat that tools/testing/cases/splats does not list for that kernel.
boot() {
	local name=$1 kernel=$2 seconds=${5:-$RUN_SECONDS} status=0 try start=$SECONDS
	for try in 1 2 3; do
		progress "guest: $name"
		status=0
		run_guest "$name" "$kernel" "$3" "${4:-}" "$seconds" || status=$?
		# QEMU 10.0.2 does not survive all that a guest with two CPUs may do when it
		# looks for PCI devices
		grep -qs 'iotlb_to_section: Assertion' "$LOGS/$name.qemu" || break
	done
	[ $((SECONDS - start)) -lt 60 ] || progress "guest: $name took $((SECONDS - start)) s"
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
	LD_PRELOAD=$PRELOAD timeout --foreground -k 5 "$seconds" "$QEMU" -accel "$ACCEL" -cpu max -smp 2 \
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

# A pattern of the splats that kernel $1 is known to have
known_splats() {
	awk -v k="$1" '$1 == k || $1 == "any" { sub(/^[^ ]+ +/, ""); printf "%s|", $0 } END { print "^$" }' \
		"$TOP/tools/testing/cases/splats"
}
