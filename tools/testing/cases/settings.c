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

/* As sysrq-u does it, which does not ask whether a file is open for writing */
static void make_readonly(void)
{
	struct statvfs st;
	int tries = 0;

	if (!write_setting("/proc/sysrq-trigger", "u"))
		skip("no sysrq");
	do {
		usleep(10000);
		check(statvfs(test_dir, &st), "statvfs");
	} while (!(st.f_flag & ST_RDONLY) && ++tries < 1000);
	if (!(st.f_flag & ST_RDONLY))
		fail("still writable after 10 s");
}

/*
 * sysrq-u makes the file system read-only although a file is open and mapped.  A store
 * to it may fail after that; if it does not, fsync() must work.
 */
static void forced_readonly(void)
{
	char *p, byte = pattern_byte(3, 0);
	struct file f = dirty_file("f", 1, &p);
	volatile bool stored = false;

	/* What is stored to the page cache stays there, and fsync() is silent about it */
	if (strstr(config_name, "-nodax"))
		skip("about DAX files");
	sync_file(&f);
	make_readonly();

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

/*
 * An emergency remount does not wait for those that store to mappings.  It first writes back all
 * files, so that a page that is stored to all the time is writable again when the file system
 * becomes read-only.  A sync call must not return success without a flush after that.
 */
static void forced_readonly_beside_stores(void)
{
	char *p, *other;
	struct file before = dirty_file("before", 1000, &other);
	struct file f = dirty_file("f", 1, &p);
	struct file after = dirty_file("after", 1000, &other);
	volatile bool *stop;
	int status;
	pid_t pid;

	if (strstr(config_name, "-nodax"))
		skip("about DAX files");
	pid = start_storing(p, &stop);
	usleep(10000);
	make_readonly();
	*stop = true;
	check(waitpid(pid, &status, 0), "waitpid");
	if (!status)
		sync_to_point(&f);
	check(mount(NULL, test_dir, NULL, MS_REMOUNT, NULL), "remount,rw");
	if (status)
		skip("the page was not writable when the file system became read-only");
	promise(&f, 0, PAGE, NEW);
	close(before.fd);
	close(after.fd);
}

/* A file does not change any more when it is immutable, though a child stores all the time */
static void immutable_beside_stores(void)
{
	if (strncmp(config_name, "ext4-", 5) || strstr(config_name, "-nodax"))
		skip("not a promise of this file system");
	for (int round = 0; round < 5; round++) {
		int immutable = FS_IMMUTABLE_FL, none = 0, status;
		volatile bool *stop;
		char *p;
		struct file f = dirty_file("f", 1, &p);
		pid_t pid = start_storing(p, &stop);
		char before;

		usleep(10000);
		check(ioctl(f.fd, FS_IOC_SETFLAGS, &immutable), "FS_IOC_SETFLAGS");
		before = *(volatile char *)p;
		usleep(10000);
		if (*(volatile char *)p != before)
			fail("the file changes");
		check(ioctl(f.fd, FS_IOC_SETFLAGS, &none), "FS_IOC_SETFLAGS");
		*stop = true;
		check(waitpid(pid, &status, 0), "waitpid");
		close(f.fd);
	}
}

const struct test_case setting_cases[] = {
	CASE(freeze_blocks_stores), CASE(mmap_mtime), CASE(write_cache_off_on),
	CASE(write_cache_on_off_on), CASE(write_cache_killed), CASE(forced_readonly),
	CASE(forced_readonly_beside_stores), CASE(immutable_beside_stores),
	{}
};
