// SPDX-License-Identifier: GPL-2.0
/*
 * States and settings of the file system and of the device: frozen, read-only, dax/write_cache,
 * mtime.
 */
#define _GNU_SOURCE
#include <linux/fs.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

/* No store gets through while the file system is frozen, also to pages mapped before */
static void freeze_blocks_stores(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);
	pid_t child, thawer;

	check(ioctl(f.fd, FIFREEZE, 0), "FIFREEZE");
	/* If this case fails nobody else thaws */
	thawer = fork();
	if (!thawer) {
		sleep(30);
		ioctl(f.fd, FITHAW, 0);
		_exit(0);
	}
	child = fork();
	if (!child) {
		pattern(p + 4 * PAGE, 4 * PAGE, PAGE, OLD);
		_exit(0);
	}
	usleep(300000);
	if (waitpid(child, NULL, WNOHANG) == child)
		fail("a store was possible");
	point();
	promise(&f, 0, 8 * PAGE, NEW);
	check(ioctl(f.fd, FITHAW, 0), "FITHAW");
	kill(thawer, SIGKILL);
	wait_for(child);
}

/* A store after a sync call is a modification of its own */
static void mmap_mtime(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);
	struct stat before, after;

	for (int i = 0; i < 2; i++) {
		check(i ? msync(p, 8 * PAGE, MS_SYNC) : fsync(f.fd), "sync");
		check(fstat(f.fd, &before), "fstat");
		usleep(50000);
		pattern(p, 0, PAGE, 3 + i);
		sync_to_point(&f);
		check(fstat(f.fd, &after), "fstat");
		if (after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
		    after.st_mtim.tv_nsec == before.st_mtim.tv_nsec)
			fail("a store after %s has not changed mtime",
			     i ? "msync" : "fsync");
	}
	promise(&f, 0, PAGE, 4);
	promise(&f, PAGE, 7 * PAGE, NEW);
}

/* 0 or 1: the pmem devices are said to have no cache, or to have one */
static void set_write_cache(const char *value)
{
	if (strstr(config_name, "-nocache"))
		skip("dax/write_cache is always 0");
	if (!write_setting("/sys/block/pmem0/dax/write_cache", value))
		skip("no dax/write_cache");
	write_setting("/sys/block/pmem1/dax/write_cache", value);
	write_setting("/sys/block/pmem2/dax/write_cache", value);
}

/* What was synced while there was no cache to speak of must be there when there is */
static void write_cache_off_on(void)
{
	struct file f;
	char *p;

	set_write_cache("0");
	f = dirty_file("f", 8, &p);
	sync_file(&f);
	set_write_cache("1");
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static void write_cache_on_off_on(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	set_write_cache("0");
	set_write_cache("1");
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

/* Switching on what is on, and being killed meanwhile, must not switch it off */
static void write_cache_killed(void)
{
	struct file f;
	char *p;

	set_write_cache("1");
	for (int i = 0; i < 10; i++) {
		pid_t pid = fork();

		while (!pid)
			set_write_cache("1");
		check(pid, "fork");
		usleep(50000);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	f = dirty_file("f", 8, &p);
	sync_to_point(&f);
	set_write_cache("1");
	promise(&f, 0, 8 * PAGE, NEW);
}

/*
 * sysrq-u makes the file system read-only although a file is open and mapped.  A store
 * to it may fail after that; if it does not, fsync() must work.
 */
static void forced_readonly(void)
{
	char *p, byte = pattern_byte(3, 0);
	struct file f = dirty_file("f", 1, &p);
	struct statvfs st;
	volatile bool stored = false;
	int tries = 0;

	/* What is stored to the page cache stays there, and fsync() is silent about it */
	if (strstr(config_name, "-nodax"))
		skip("about DAX files");
	sync_file(&f);
	if (!write_setting("/proc/sysrq-trigger", "u"))
		skip("no sysrq");
	do {
		usleep(10000);
		check(statvfs(test_dir, &st), "statvfs");
	} while (!(st.f_flag & ST_RDONLY) && ++tries < 1000);
	if (!(st.f_flag & ST_RDONLY))
		fail("still writable after 10 s");

	/* Not by a child, which would have to map the page first */
	signal(SIGBUS, bus_error);
	if (!sigsetjmp(before_access, 1)) {
		*(volatile char *)p = byte;
		stored = true;
	}
	if (stored)
		sync_to_point(&f);
	check(mount(NULL, test_dir, NULL, MS_REMOUNT, NULL), "remount,rw");
	if (stored)
		promise(&f, 0, 1, 3);
}

const struct test_case setting_cases[] = {
	CASE(freeze_blocks_stores), CASE(mmap_mtime), CASE(write_cache_off_on),
	CASE(write_cache_on_off_on), CASE(write_cache_killed), CASE(forced_readonly),
	{}
};
