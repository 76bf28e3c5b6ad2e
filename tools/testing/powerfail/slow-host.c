// SPDX-License-Identifier: GPL-2.0
/*
 * For LD_PRELOAD of QEMU: fsync() of the host takes a tenth of a second.  A guest that does
 * not wait until virtio-pmem has answered then reaches the crash point before the answer,
 * and not by chance after it.
 */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((visibility("default"))) int fsync(int fd)
{
	usleep(100000);
	return syscall(SYS_fsync, fd);
}
