// SPDX-License-Identifier: GPL-2.0
/*
 * What a user of DAX does before a sync call, and what the call then promises.
 *
 * One function per case.  A case makes its files, stores, syncs, marks the crash
 * point and states what must survive; guest.c does the rest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define OLD 1	/* seed of the content that files start with */
#define NEW 2	/* seed of the content under test */

/* A raw disk, readable with O_DIRECT; every byte is DISK_BYTE */
#define DISK "/dev/vda"
#define DISK_BYTE 0xd5

static void sync_file(const struct file *f)
{
	check(fsync(f->fd), "fsync");
}

/* What was stored to @f before may be promised after this */
static void sync_to_point(const struct file *f)
{
	sync_file(f);
	point();
}

/* The sequence most cases share: store to @pages pages, leave them dirty */
static struct file dirty_file(const char *name, size_t pages, char **map)
{
	struct file f = create_file(name, pages * PAGE, OLD);

	*map = map_file(&f, 0, pages * PAGE);
	pattern(*map, 0, pages * PAGE, NEW);
	return f;
}

static struct file clone_of(const struct file *src, const char *name)
{
	struct file f = create_file(name, 0, 0);

	if (ioctl(f.fd, FICLONE, src->fd)) {
		if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EINVAL)
			skip("no reflink");
		fail("FICLONE: %m");
	}
	return f;
}

/* A durable file of @pages pages whose blocks another file shares */
static struct file shared_file(const char *name, size_t pages)
{
	struct file f = create_file(name, pages * PAGE, OLD), clone;
	char clone_name[80];

	snprintf(clone_name, sizeof(clone_name), "%.40s.clone", name);
	clone = clone_of(&f, clone_name);
	sync_file(&clone);
	sync_file(&f);
	return f;
}

static void fallocate_or_skip(const struct file *f, int mode, off_t off, off_t len)
{
	if (!fallocate(f->fd, mode, off, len))
		return;
	if (errno == EOPNOTSUPP)
		skip("fallocate mode 0x%x is not supported", mode);
	fail("fallocate mode 0x%x: %m", mode);
}

static void wait_for(pid_t pid)
{
	int status;

	check(pid, "fork");
	if (waitpid(pid, &status, 0) < 0 || status)
		fail("child ended with status 0x%x", status);
}

/* ---- mmap stores and each sync call ---- */

static void mmap_fsync(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mmap_fdatasync(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(fdatasync(f.fd), "fdatasync");
	point();
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mmap_msync(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(msync(p, 8 * PAGE, MS_SYNC), "msync");
	point();
	promise(&f, 0, 8 * PAGE, NEW);
}

/* Only the pages that msync() was asked for are promised */
static void mmap_msync_part(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(msync(p + 2 * PAGE, 3 * PAGE, MS_SYNC), "msync");
	point();
	promise(&f, 2 * PAGE, 3 * PAGE, NEW);
}

static void mmap_sync(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	sync();
	point();
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mmap_syncfs(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(syncfs(f.fd), "syncfs");
	point();
	promise(&f, 0, 8 * PAGE, NEW);
}

/* Promises nothing by itself, and must not eat the promise of a later fsync */
static void mmap_sync_file_range(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(sync_file_range(f.fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE |
			      SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER),
	      "sync_file_range");
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mmap_fsync_readonly_fd(void)
{
	char *p, path[128];
	struct file f = dirty_file("f", 8, &p);
	int fd;

	snprintf(path, sizeof(path), "%s/%s", test_dir, f.name);
	fd = open(path, O_RDONLY);
	check(fd, "open");
	check(fsync(fd), "fsync");
	point();
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mmap_sparse_pages(void)
{
	struct file f = create_file("f", 256 * PAGE, OLD);
	char *p = map_file(&f, 0, 256 * PAGE);

	for (int i = 0; i < 256; i += 2)
		pattern(p + i * PAGE, i * PAGE, PAGE, NEW);
	sync_to_point(&f);
	for (int i = 0; i < 256; i += 2)
		promise(&f, i * PAGE, PAGE, NEW);
}

static void mmap_store_again(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	sync_file(&f);
	pattern(p, 0, 8 * PAGE, 3);
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, 3);
}

static void mmap_two_mappings(void)
{
	char *p, *q;
	struct file f = dirty_file("f", 8, &p);

	q = map_file(&f, 0, 8 * PAGE);
	pattern(q, 0, 8 * PAGE, 3);
	sync_file(&f);
	pattern(p, 0, 4 * PAGE, 4);
	pattern(q + 4 * PAGE, 4 * PAGE, 4 * PAGE, 4);
	check(fdatasync(f.fd), "fdatasync");
	point();
	promise(&f, 0, 8 * PAGE, 4);
}

static void mmap_hole(void)
{
	struct file f = create_file("f", 0, 0);
	volatile char *p;

	check(ftruncate(f.fd, 16 * PAGE), "ftruncate");
	p = map_file(&f, 0, 16 * PAGE);
	(void)p[0];	/* map the zero page first */
	(void)p[PAGE];
	pattern((char *)p, 0, 8 * PAGE, NEW);
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mmap_preallocated(void)
{
	struct file f = create_file("f", 0, 0);
	char *p;

	check(fallocate(f.fd, 0, 0, 16 * PAGE), "fallocate");
	p = map_file(&f, 0, 16 * PAGE);
	pattern(p, 0, 8 * PAGE, NEW);
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

/* ---- what may happen to the mapping between the store and the sync ---- */

static void mmap_munmap_first(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(munmap(p, 8 * PAGE), "munmap");
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mmap_dontneed_first(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(madvise(p, 8 * PAGE, MADV_DONTNEED), "madvise");
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mmap_mprotect_first(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(mprotect(p, 8 * PAGE, PROT_READ), "mprotect");
	sync_file(&f);
	check(mprotect(p, 8 * PAGE, PROT_READ | PROT_WRITE), "mprotect");
	pattern(p, 0, 4 * PAGE, 3);
	sync_to_point(&f);
	promise(&f, 0, 4 * PAGE, 3);
	promise(&f, 4 * PAGE, 4 * PAGE, NEW);
}

static void mmap_mremap_first(void)
{
	char *p, *q;
	struct file f = dirty_file("f", 8, &p);

	q = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	p = mremap(p, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q);
	if (p == MAP_FAILED)
		fail("mremap: %m");
	pattern(p, 0, 4 * PAGE, 3);
	sync_file(&f);
	pattern(p, 0, 2 * PAGE, 4);
	sync_to_point(&f);
	promise(&f, 0, 2 * PAGE, 4);
	promise(&f, 2 * PAGE, 2 * PAGE, 3);
	promise(&f, 4 * PAGE, 4 * PAGE, NEW);
}

static void mmap_fork(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);
	pid_t pid = fork();

	if (!pid) {
		pattern(p, 0, 4 * PAGE, 3);
		_exit(0);
	}
	wait_for(pid);
	sync_file(&f);
	pid = fork();
	if (!pid) {
		pattern(p, 0, 2 * PAGE, 4);
		_exit(0);
	}
	wait_for(pid);
	sync_to_point(&f);
	promise(&f, 0, 2 * PAGE, 4);
	promise(&f, 2 * PAGE, 2 * PAGE, 3);
	promise(&f, 4 * PAGE, 4 * PAGE, NEW);
}

/* Two processes with mappings of their own, both alive when one syncs */
static void mmap_two_processes(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);
	char *p = map_file(&f, 0, 8 * PAGE);
	int to[2], from[2];
	char c = 0;
	pid_t pid;

	check(pipe(to) | pipe(from), "pipe");
	pid = fork();
	if (!pid) {
		char *q = map_file(&f, 0, 8 * PAGE);

		close(to[1]);	/* or the end of a parent that fails goes unnoticed */
		for (int round = 2; round < 4; round++) {
			pattern(q, 0, 8 * PAGE, round);
			if (write(from[1], &c, 1) != 1 || read(to[0], &c, 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	for (int round = 2; round < 4; round++) {
		if (read(from[0], &c, 1) != 1)
			fail("child is gone");
		(void)*(volatile char *)p;
		sync_to_point(&f);
		promise(&f, 0, 8 * PAGE, round);
		if (write(to[1], &c, 1) != 1)
			fail("child is gone");
	}
	wait_for(pid);
}

static void mmap_unlinked(void)
{
	char *p, path[128];
	struct file f = dirty_file("f", 8, &p);

	snprintf(path, sizeof(path), "%s/%s", test_dir, f.name);
	check(unlink(path), "unlink");
	f.name[0] = 0;
	pattern(p, 0, 8 * PAGE, 3);
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, 3);
}

static void mmap_freeze(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(ioctl(f.fd, FIFREEZE, 0), "FIFREEZE");
	point();
	check(ioctl(f.fd, FITHAW, 0), "FITHAW");
	promise(&f, 0, 8 * PAGE, NEW);
}

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

/* ---- settings ---- */

static bool write_setting(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);

	if (fd >= 0)
		close(fd);
	return ok;
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

static sigjmp_buf before_access;

static void bus_error(int signal)
{
	(void)signal;
	siglongjmp(before_access, 1);
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

/* ---- write(2) ---- */

static void write_aligned(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);

	write_at(&f, PAGE, 4 * PAGE, NEW);
	sync_to_point(&f);
	promise(&f, 0, PAGE, OLD);
	promise(&f, PAGE, 4 * PAGE, NEW);
}

static void write_unaligned(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);

	write_at(&f, 3, 5, NEW);
	write_at(&f, PAGE - 7, 15, NEW);
	write_at(&f, 3 * PAGE + 100, 2 * PAGE + 1, NEW);
	check(fdatasync(f.fd), "fdatasync");
	point();
	promise(&f, 0, 3, OLD);
	promise(&f, 3, 5, NEW);
	promise(&f, PAGE - 7, 15, NEW);
	promise(&f, 3 * PAGE + 100, 2 * PAGE + 1, NEW);
}

static void write_append(void)
{
	struct file f = create_file("f", PAGE + 10, OLD);

	write_at(&f, PAGE + 10, 5000, NEW);
	sync_to_point(&f);
	promise(&f, 0, PAGE + 10, OLD);
	promise(&f, PAGE + 10, 5000, NEW);
}

/* No sync call: write() with RWF_DSYNC or O_SYNC is one */
static void write_dsync(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);
	static char buf[2 * PAGE];
	struct iovec iov = { buf, sizeof(buf) };

	pattern(buf, PAGE, sizeof(buf), NEW);
	if (pwritev2(f.fd, &iov, 1, PAGE, RWF_DSYNC) != sizeof(buf))
		fail("pwritev2: %m");
	point();
	promise(&f, PAGE, 2 * PAGE, NEW);
}

static void write_and_mmap(void)
{
	char *p;
	struct file f = dirty_file("f", 2, &p);

	write_at(&f, 100, 1000, 3);
	pattern(p + 2000, 2000, 50, 4);
	sync_to_point(&f);
	promise(&f, 0, 100, NEW);
	promise(&f, 100, 1000, 3);
	promise(&f, 1100, 900, NEW);
	promise(&f, 2000, 50, 4);
	promise(&f, 2050, 2 * PAGE - 2050, NEW);
}

/*
 * A buffer of which only the first @good bytes can be read: the kernel's copy from
 * it ends there.  Its content is for offset @off.
 */
static char *short_buffer(off_t off, size_t good, uint64_t seed)
{
	size_t pages = (good + PAGE - 1) / PAGE * PAGE;
	char *p = mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || mprotect(p + pages, PAGE, PROT_NONE))
		fail("mmap: %m");
	p += pages - good;
	pattern(p, off, good, seed);
	return p;
}

static void write_short(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);
	size_t good = PAGE + 1003;
	ssize_t n = pwrite(f.fd, short_buffer(PAGE + 5, good, NEW), 3 * PAGE, PAGE + 5);

	if (n <= 0 || n > (ssize_t)good)
		fail("pwrite of a short buffer: %zd", n);
	sync_to_point(&f);
	promise(&f, 0, PAGE + 5, OLD);
	promise(&f, PAGE + 5, n, NEW);
	promise(&f, PAGE + 5 + n, 6 * PAGE - 5 - n, OLD);
}

static void write_copy_file_range(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p), g = create_file("g", 0, 0);
	loff_t in = 0, out = 0;

	while (in < (loff_t)(8 * PAGE))
		check(copy_file_range(f.fd, &in, g.fd, &out, 8 * PAGE - in, 0),
		      "copy_file_range");
	sync_to_point(&g);
	promise(&g, 0, 8 * PAGE, NEW);
}

/* ---- MAP_SYNC ---- */

static void mapsync_user_flush(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);
	char *p = map_sync(&f, 0, 8 * PAGE);

	pattern(p, 0, 8 * PAGE, NEW);
	flush_lines(p, 8 * PAGE);
	point();
	promise(&f, 0, 8 * PAGE, NEW);
}

/* Metadata of fresh blocks is durable once the store has returned */
static void mapsync_user_flush_fresh(void)
{
	struct file f = create_file("f", 0, 0);
	char *p;

	check(ftruncate(f.fd, 8 * PAGE), "ftruncate");
	p = map_sync(&f, 0, 8 * PAGE);
	pattern(p, 0, 8 * PAGE, NEW);
	flush_lines(p, 8 * PAGE);
	point();
	promise(&f, 0, 8 * PAGE, NEW);
}

static struct file mapsync_dirty_fresh(char **p)
{
	struct file f = create_file("f", 0, 0);

	check(ftruncate(f.fd, 8 * PAGE), "ftruncate");
	*p = map_sync(&f, 0, 8 * PAGE);
	pattern(*p, 0, 8 * PAGE, NEW);
	return f;
}

static void mapsync_fsync(void)
{
	char *p;
	struct file f = mapsync_dirty_fresh(&p);

	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mapsync_sync(void)
{
	char *p;
	struct file f = mapsync_dirty_fresh(&p);

	sync();
	point();
	promise(&f, 0, 8 * PAGE, NEW);
}

/* The second store needs no fault, and nothing is logged since the fsync of another file */
static void syncfs_clean_log(void)
{
	char *p, *q;
	struct file f = dirty_file("f", 8, &p), g = dirty_file("g", 1, &q);

	sync_file(&g);
	pattern(p, 0, 8 * PAGE, 3);
	check(syncfs(f.fd), "syncfs");
	point();
	promise(&f, 0, 8 * PAGE, 3);
}

static void mapsync_syncfs(void)
{
	char *p;
	struct file f = mapsync_dirty_fresh(&p);

	check(syncfs(f.fd), "syncfs");
	point();
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mapsync_freeze(void)
{
	char *p;
	struct file f = mapsync_dirty_fresh(&p);

	check(ioctl(f.fd, FIFREEZE, 0), "FIFREEZE");
	point();
	check(ioctl(f.fd, FITHAW, 0), "FITHAW");
	promise(&f, 0, 8 * PAGE, NEW);
}

static void reopen(struct file *f)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", test_dir, f->name);
	f->fd = open(path, O_RDWR);
	check(f->fd, "open");
}

static void mapsync_remount_ro(void)
{
	char *p;
	struct file f = mapsync_dirty_fresh(&p);

	munmap(p, 8 * PAGE);
	close(f.fd);
	check(mount(NULL, test_dir, NULL, MS_REMOUNT | MS_RDONLY, NULL), "remount,ro");
	point();
	check(mount(NULL, test_dir, NULL, MS_REMOUNT, NULL), "remount,rw");
	reopen(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

/* The inode is dropped from memory between the store and the sync */
static void evict(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	check(fd, "open drop_caches");
	check(write(fd, "3", 1), "drop_caches");
	close(fd);
}

static void mmap_evict(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	munmap(p, 8 * PAGE);
	close(f.fd);
	evict();
	reopen(&f);
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mapsync_evict(void)
{
	char *p;
	struct file f = mapsync_dirty_fresh(&p);

	munmap(p, 8 * PAGE);
	close(f.fd);
	evict();
	reopen(&f);
	sync_file(&f);
	sync();
	point();
	promise(&f, 0, 8 * PAGE, NEW);
}

static void mapsync_cow(void)
{
	struct file f = shared_file("f", 4);
	char *p = map_sync(&f, 0, 4 * PAGE);

	for (int i = 0; i < 4; i++) {
		pattern(p + i * PAGE, i * PAGE, 64, NEW);
		flush_lines(p + i * PAGE, 64);
	}
	point();
	for (int i = 0; i < 4; i++) {
		promise(&f, i * PAGE, 64, NEW);
		promise(&f, i * PAGE + 64, PAGE - 64, OLD);
	}
}

static void mapsync_cow_fsync(void)
{
	struct file f = shared_file("f", 4);
	char *p = map_sync(&f, 0, 4 * PAGE);

	for (int i = 0; i < 4; i++)
		pattern(p + i * PAGE, i * PAGE, 64, NEW);
	sync_to_point(&f);
	for (int i = 0; i < 4; i++) {
		promise(&f, i * PAGE, 64, NEW);
		promise(&f, i * PAGE + 64, PAGE - 64, OLD);
	}
}

/* ---- a change elsewhere in the file between the store and the sync ---- */

#define FAR (64 * PAGE)

/* Pages 0-7 dirty, the file has 128 pages; @change works from FAR on */
static struct file dirty_head(char **p)
{
	struct file f = create_file("f", 2 * FAR, OLD);

	*p = map_file(&f, 0, 8 * PAGE);
	pattern(*p, 0, 8 * PAGE, NEW);
	return f;
}

static void promise_head(const struct file *f)
{
	sync_file(f);
	point();
	promise(f, 0, 8 * PAGE, NEW);
}

static void elsewhere_truncate(void)
{
	char *p;
	struct file f = dirty_head(&p);

	check(ftruncate(f.fd, FAR), "ftruncate");
	promise_head(&f);
}

static void elsewhere_truncate_unaligned(void)
{
	char *p;
	struct file f = dirty_head(&p);

	check(ftruncate(f.fd, FAR + 100), "ftruncate");
	promise_head(&f);
	promise(&f, FAR, 100, OLD);
}

/* The new end of file is in a dirty page: its head must survive */
static void elsewhere_truncate_into(void)
{
	char *p;
	struct file f = dirty_head(&p);

	check(ftruncate(f.fd, 7 * PAGE + 100), "ftruncate");
	sync_to_point(&f);
	promise(&f, 0, 7 * PAGE + 100, NEW);
}

static void elsewhere_extend(void)
{
	char *p;
	struct file f = dirty_head(&p);

	check(ftruncate(f.fd, 3 * FAR), "ftruncate");
	promise_head(&f);
}

static void elsewhere_fallocate(void)
{
	char *p;
	struct file f = dirty_head(&p);

	check(fallocate(f.fd, 0, 2 * FAR, FAR), "fallocate");
	promise_head(&f);
}

static void elsewhere_punch(void)
{
	char *p;
	struct file f = dirty_head(&p);

	fallocate_or_skip(&f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FAR, 8 * PAGE);
	promise_head(&f);
}

/* Both ends of the hole are inside dirty pages */
static void elsewhere_punch_next_to(void)
{
	char *p;
	struct file f = dirty_head(&p);

	fallocate_or_skip(&f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  2 * PAGE + 100, 3 * PAGE);
	sync_to_point(&f);
	promise(&f, 0, 2 * PAGE + 100, NEW);
	promise(&f, 2 * PAGE + 100, PAGE - 100, 0);
	promise(&f, 5 * PAGE, 100, 0);
	promise(&f, 5 * PAGE + 100, 3 * PAGE - 100, NEW);
}

static void elsewhere_zero_range(void)
{
	char *p;
	struct file f = dirty_head(&p);

	fallocate_or_skip(&f, FALLOC_FL_ZERO_RANGE, FAR + 10, 8 * PAGE);
	promise_head(&f);
	promise(&f, FAR + 10, PAGE - 10, 0);
}

static void elsewhere_collapse(void)
{
	char *p;
	struct file f = dirty_head(&p);

	fallocate_or_skip(&f, FALLOC_FL_COLLAPSE_RANGE, FAR, 8 * PAGE);
	promise_head(&f);
}

static void elsewhere_insert(void)
{
	char *p;
	struct file f = dirty_head(&p);

	fallocate_or_skip(&f, FALLOC_FL_INSERT_RANGE, FAR, 8 * PAGE);
	promise_head(&f);
}

/* The dirty pages themselves move */
static void moved_collapse(void)
{
	char *p;
	struct file f = dirty_head(&p);

	fallocate_or_skip(&f, FALLOC_FL_COLLAPSE_RANGE, 0, 4 * PAGE);
	sync_to_point(&f);
	promise_moved(&f, 0, 4 * PAGE, NEW, -4 * (off_t)PAGE);
}

static void moved_insert(void)
{
	char *p;
	struct file f = dirty_head(&p);

	fallocate_or_skip(&f, FALLOC_FL_INSERT_RANGE, 0, 4 * PAGE);
	sync_to_point(&f);
	promise_moved(&f, 4 * PAGE, 8 * PAGE, NEW, 4 * PAGE);
}

static void clone_range_or_skip(const struct file *src, off_t from, size_t len,
				const struct file *dst, off_t to)
{
	struct file_clone_range arg = {
		.src_fd = src->fd, .src_offset = from,
		.src_length = len, .dest_offset = to,
	};

	if (!ioctl(dst->fd, FICLONERANGE, &arg))
		return;
	if (errno == EOPNOTSUPP || errno == ENOTTY)
		skip("no reflink");
	fail("FICLONERANGE: %m");
}

/* The dirty file is the source, far away from what is cloned */
static void elsewhere_clone_from(void)
{
	char *p;
	struct file f = dirty_head(&p), g = create_file("g", 8 * PAGE, OLD);

	clone_range_or_skip(&f, FAR, 8 * PAGE, &g, 0);
	promise_head(&f);
}

static void elsewhere_clone_to(void)
{
	char *p;
	struct file f = dirty_head(&p), g = create_file("g", 8 * PAGE, OLD);

	clone_range_or_skip(&g, 0, 8 * PAGE, &f, FAR);
	promise_head(&f);
}

static void elsewhere_unshare(void)
{
	struct file f = shared_file("f", 128);
	char *p = map_file(&f, 0, 8 * PAGE);

	pattern(p, 0, 8 * PAGE, NEW);
	fallocate_or_skip(&f, FALLOC_FL_UNSHARE_RANGE, FAR, 8 * PAGE);
	promise_head(&f);
}

static void dedupe_or_fail(const struct file *src, const struct file *dst,
			   off_t off, size_t len)
{
	struct {
		struct file_dedupe_range r;
		struct file_dedupe_range_info i;
	} arg = {
		.r = { .src_offset = off, .src_length = len, .dest_count = 1 },
		.i = { .dest_fd = dst->fd, .dest_offset = off },
	};

	if (ioctl(src->fd, FIDEDUPERANGE, &arg)) {
		if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EINVAL)
			skip("no dedupe");
		fail("FIDEDUPERANGE: %m");
	}
	if (arg.i.status == -EOPNOTSUPP || arg.i.status == -EINVAL)
		skip("no dedupe");
	if (arg.i.status != FILE_DEDUPE_RANGE_SAME)
		fail("dedupe says the files differ (%d)", arg.i.status);
}

static void elsewhere_dedupe(void)
{
	char *p;
	struct file f = dirty_head(&p), g = create_file("g", 2 * FAR, OLD);

	dedupe_or_fail(&g, &f, FAR, 8 * PAGE);
	promise_head(&f);
}

/* ---- reflink: the kernel's own copies ---- */

static void clone_of_dirty(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p), g = clone_of(&f, "g");

	sync_to_point(&g);
	promise(&g, 0, 8 * PAGE, NEW);
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static void dedupe_of_dirty(void)
{
	char *p, *q;
	struct file f = dirty_file("f", 8, &p), g = dirty_file("g", 8, &q);

	dedupe_or_fail(&f, &g, 0, 8 * PAGE);
	sync_to_point(&g);
	promise(&g, 0, 8 * PAGE, NEW);
	pattern(q, 0, 4 * PAGE, 3);
	sync_to_point(&g);
	promise(&g, 0, 4 * PAGE, 3);
	promise(&g, 4 * PAGE, 4 * PAGE, NEW);
}

static void cow_mmap(void)
{
	struct file f = shared_file("f", 8);
	char *p = map_file(&f, 0, 8 * PAGE);

	for (int i = 0; i < 8; i++)
		pattern(p + i * PAGE + 512, i * PAGE + 512, 64, NEW);
	sync_to_point(&f);
	for (int i = 0; i < 8; i++) {
		promise(&f, i * PAGE, 512, OLD);
		promise(&f, i * PAGE + 512, 64, NEW);
		promise(&f, i * PAGE + 576, PAGE - 576, OLD);
	}
}

static void cow_write_aligned(void)
{
	struct file f = shared_file("f", 8);

	write_at(&f, PAGE, 4 * PAGE, NEW);
	sync_to_point(&f);
	promise(&f, 0, PAGE, OLD);
	promise(&f, PAGE, 4 * PAGE, NEW);
	promise(&f, 5 * PAGE, 3 * PAGE, OLD);
}

static void cow_write_partial(void)
{
	struct file f = shared_file("f", 8);

	write_at(&f, PAGE + 1000, 100, NEW);
	sync_to_point(&f);
	promise(&f, PAGE + 1000, 100, NEW);
	promise(&f, PAGE, 1000, OLD);
	promise(&f, PAGE + 1100, PAGE - 1100, OLD);
}

/* What the short write leaves of the last block must be the old content */
static void cow_write_short(void)
{
	struct file f = shared_file("f", 8);
	size_t good = PAGE + 1003, pos = PAGE + 5;
	ssize_t n = pwrite(f.fd, short_buffer(pos, good, NEW), 3 * PAGE, pos);

	if (n <= 0 || n > (ssize_t)good)
		fail("pwrite of a short buffer: %zd", n);
	sync_to_point(&f);
	promise(&f, PAGE, 5, OLD);
	promise(&f, pos, n, NEW);
	promise(&f, pos + n, 7 * PAGE - pos - n, OLD);
}

/* A dirty second block that is not shared, but has a new one in the CoW fork */
static struct file cow_prealloc(char **p)
{
	struct file f = create_file("f", 8 * PAGE, OLD), g = create_file("g", PAGE, 3);

	clone_range_or_skip(&f, 0, PAGE, &g, 0);
	sync_file(&g);
	sync_file(&f);
	*p = map_file(&f, 0, 8 * PAGE);
	pattern(*p + PAGE, PAGE, PAGE, NEW);
	write_at(&f, 0, PAGE, NEW);
	return f;
}

/*
 * The second block is not shared and dirty, but the first write gives it a block
 * in the CoW fork.  The second write fails before it has changed anything.
 */
static void cow_write_fails(void)
{
	char *p;
	struct file f = cow_prealloc(&p);

	if (pwrite(f.fd, short_buffer(PAGE, 0, NEW), PAGE, PAGE) >= 0 ||
	    errno != EFAULT)
		fail("pwrite from nowhere: %m");
	sync_to_point(&f);
	promise(&f, 0, 2 * PAGE, NEW);
	promise(&f, 2 * PAGE, 6 * PAGE, OLD);
}

static void cow_prealloc_unshare(void)
{
	char *p;
	struct file f = cow_prealloc(&p);

	fallocate_or_skip(&f, FALLOC_FL_UNSHARE_RANGE, PAGE, 2 * PAGE);
	pattern(p + PAGE + 200, PAGE + 200, 100, 4);
	sync_to_point(&f);
	promise(&f, 0, PAGE + 200, NEW);
	promise(&f, PAGE + 200, 100, 4);
	promise(&f, PAGE + 300, PAGE - 300, NEW);
	promise(&f, 2 * PAGE, 6 * PAGE, OLD);
}

static void cow_prealloc_truncate(void)
{
	char *p;
	struct file f = cow_prealloc(&p);

	check(ftruncate(f.fd, PAGE + 1000), "ftruncate");
	pattern(p + PAGE + 200, PAGE + 200, 100, 4);
	sync_to_point(&f);
	promise(&f, 0, PAGE + 200, NEW);
	promise(&f, PAGE + 200, 100, 4);
	promise(&f, PAGE + 300, 700, NEW);
}

static void cow_prealloc_zero(void)
{
	char *p;
	struct file f = cow_prealloc(&p);

	fallocate_or_skip(&f, FALLOC_FL_ZERO_RANGE, PAGE + 1000, 100);
	pattern(p + PAGE + 200, PAGE + 200, 100, 4);
	sync_to_point(&f);
	promise(&f, 0, PAGE + 200, NEW);
	promise(&f, PAGE + 200, 100, 4);
	promise(&f, PAGE + 300, 700, NEW);
	promise(&f, PAGE + 1000, 100, 0);
	promise(&f, PAGE + 1100, PAGE - 1100, NEW);
}

static void cow_write_partial_mapped(void)
{
	struct file f = shared_file("f", 8);
	volatile char *p = map_file(&f, 0, 8 * PAGE);

	(void)p[PAGE];
	write_at(&f, PAGE + 1000, 100, NEW);
	if (memcmp((char *)p + PAGE + 1000, "", 1) == 0 &&
	    pattern_byte(NEW, PAGE + 1000))
		fail("the mapping shows the block before the write");
	sync_to_point(&f);
	promise(&f, PAGE + 1000, 100, NEW);
	promise(&f, PAGE, 1000, OLD);
	promise(&f, PAGE + 1100, PAGE - 1100, OLD);
}

static void cow_zero_partial(void)
{
	struct file f = shared_file("f", 8);

	fallocate_or_skip(&f, FALLOC_FL_ZERO_RANGE, PAGE + 100, 50);
	sync_to_point(&f);
	promise(&f, PAGE, 100, OLD);
	promise(&f, PAGE + 100, 50, 0);
	promise(&f, PAGE + 150, PAGE - 150, OLD);
}

static void cow_punch_partial(void)
{
	struct file f = shared_file("f", 8);

	fallocate_or_skip(&f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  PAGE + 100, 50);
	sync_to_point(&f);
	promise(&f, PAGE, 100, OLD);
	promise(&f, PAGE + 100, 50, 0);
	promise(&f, PAGE + 150, PAGE - 150, OLD);
}

static void cow_truncate_partial(void)
{
	struct file f = shared_file("f", 8);

	check(ftruncate(f.fd, PAGE + 100), "ftruncate");
	check(ftruncate(f.fd, 8 * PAGE), "ftruncate");
	sync_to_point(&f);
	promise(&f, PAGE, 100, OLD);
	promise(&f, PAGE + 100, PAGE - 100, 0);
}

static void cow_unshare(void)
{
	struct file f = shared_file("f", 8);

	fallocate_or_skip(&f, FALLOC_FL_UNSHARE_RANGE, 0, 8 * PAGE);
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, OLD);
}

static void cow_unshare_dirty(void)
{
	struct file f = shared_file("f", 8);
	char *p = map_file(&f, 0, 8 * PAGE);

	pattern(p, 0, 4 * PAGE, NEW);
	fallocate_or_skip(&f, FALLOC_FL_UNSHARE_RANGE, 0, 8 * PAGE);
	sync_to_point(&f);
	promise(&f, 0, 4 * PAGE, NEW);
	promise(&f, 4 * PAGE, 4 * PAGE, OLD);
}

/* ---- zeroing parts of pages ---- */

static void zero_partial(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	fallocate_or_skip(&f, FALLOC_FL_ZERO_RANGE, PAGE + 100, 2 * PAGE);
	sync_to_point(&f);
	promise(&f, 0, PAGE + 100, NEW);
	promise(&f, PAGE + 100, PAGE - 100, 0);
	promise(&f, 3 * PAGE, 100, 0);
	promise(&f, 3 * PAGE + 100, 5 * PAGE - 100, NEW);
}

static void truncate_and_extend(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(ftruncate(f.fd, 5 * PAGE + 100), "ftruncate");
	check(ftruncate(f.fd, 8 * PAGE), "ftruncate");
	sync_to_point(&f);
	promise(&f, 0, 5 * PAGE + 100, NEW);
	promise(&f, 5 * PAGE + 100, PAGE - 100, 0);
}

/* ---- stores by the kernel and by devices on the program's behalf ---- */

static int open_disk(void)
{
	int fd = open(DISK, O_RDONLY | O_DIRECT);

	if (fd < 0)
		skip("no " DISK);
	return fd;
}

/* One page at @p comes from the disk: not a pattern, so compare here */
static void expect_disk_page(const struct file *f, const char *p, off_t off)
{
	struct file lines = *f;

	for (size_t i = 0; i < PAGE; i++)
		if ((uint8_t)p[i] != DISK_BYTE)
			fail("O_DIRECT read left 0x%02x at %zu", (uint8_t)p[i], i);
	lines.name[0] = 0;
	promise(&lines, off, PAGE, 0);
}

static void odirect_read_into(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);
	char *p = map_file(&f, 0, 8 * PAGE);
	int disk = open_disk();

	for (int i = 0; i < 8; i++)
		if (pread(disk, p + i * PAGE, PAGE, 0) != PAGE)
			fail("pread: %m");
	sync_to_point(&f);
	for (int i = 0; i < 8; i++)
		expect_disk_page(&f, p + i * PAGE, i * PAGE);
}

/*
 * A read of one page at @p that takes half a second: the harness limits the disk to
 * 64 KiB/s, and there is another read in front of it.
 */
struct slow_read {
	aio_context_t ctx;
	struct iocb before, iocb;
	int over;
};

static void slow_read_start(struct slow_read *r, char *p)
{
	static char other[8 * PAGE] __attribute__((aligned(4096)));
	struct iocb *cbs[] = { &r->before, &r->iocb };
	int disk = open_disk();

	*r = (struct slow_read) {
		.before = {
			.aio_fildes = disk, .aio_lio_opcode = IOCB_CMD_PREAD,
			.aio_buf = (uintptr_t)other, .aio_nbytes = sizeof(other),
		},
		.iocb = {
			.aio_fildes = disk, .aio_lio_opcode = IOCB_CMD_PREAD,
			.aio_buf = (uintptr_t)p, .aio_nbytes = PAGE,
		},
	};
	check(syscall(SYS_io_setup, 2, &r->ctx), "io_setup");
	if (syscall(SYS_io_submit, r->ctx, 2, cbs) != 2)
		fail("io_submit: %m");
}

/* Is it over, after at most @ms milliseconds? */
static bool slow_read_over(struct slow_read *r, int ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	struct io_event event[2];
	int left = 2 - r->over, n;

	n = syscall(SYS_io_getevents, r->ctx, left, left, event, &time);
	check(n, "io_getevents");
	r->over += n;
	return r->over == 2;
}

/* fsync while the read is in flight, and again when it is over */
static void odirect_read_into_fsync_twice(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);
	char *p = map_file(&f, 0, 8 * PAGE);
	struct slow_read r;

	slow_read_start(&r, p);
	sync_file(&f);
	if (slow_read_over(&r, 0))
		skip("the read was over before the fsync");
	/* The event may be delivered before the page is released, see bio_dirty_fn() */
	while (((volatile char *)p)[PAGE - 1] != (char)DISK_BYTE)
		usleep(10000);
	syscall(SYS_io_destroy, r.ctx);
	sync_to_point(&f);
	expect_disk_page(&f, p, 0);
}

/* A hole far away from a page that is being read into does not wait for the read */
static void pin_far_away(void)
{
	struct file f = create_file("f", 64 * PAGE, OLD);
	char *p = map_file(&f, 0, 64 * PAGE);
	struct slow_read r;

	if (strstr(config_name, "-nodax"))
		skip("about layouts of DAX files");
	slow_read_start(&r, p);
	fallocate_or_skip(&f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  32 * PAGE, 8 * PAGE);
	if (slow_read_over(&r, 0))
		fail("the hole was punched when the read was over");
	if (!slow_read_over(&r, 10000))
		fail("the read does not end");
	sync_to_point(&f);
	expect_disk_page(&f, p, 0);
	promise(&f, PAGE, 31 * PAGE, OLD);
	promise(&f, 32 * PAGE, 8 * PAGE, 0);
}

/* Punch a hole at the beginning of the file in a child, which may have to wait */
static pid_t start_punch(const struct file *f)
{
	pid_t child = fork();

	if (!child)
		_exit(fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				PAGE) ? errno : 0);
	usleep(100000);
	return child;
}

/* What it waits for is over */
static void end_punch(pid_t child)
{
	int status;

	for (int i = 0; waitpid(child, &status, WNOHANG) != child; i++) {
		if (i == 500) {
			kill(child, SIGKILL);
			waitpid(child, &status, 0);
			fail("the hole is not punched 5 s after the pin is gone");
		}
		usleep(10000);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == EOPNOTSUPP)
		skip("fallocate mode 0x%x is not supported",
		     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	if (status)
		fail("fallocate: status 0x%x", status);
}

/*
 * A hole where a page is being read into, which is mapped again while the one waits
 * for the other
 */
static void pin_and_remap(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);
	char *p = map_file(&f, 0, 8 * PAGE);
	struct slow_read r;
	pid_t child;

	if (strstr(config_name, "-nodax"))
		skip("about layouts of DAX files");
	slow_read_start(&r, p);
	child = start_punch(&f);
	(void)((volatile char *)p)[0];
	if (!slow_read_over(&r, 10000))
		fail("the read does not end");
	end_punch(child);
	sync_to_point(&f);
	promise(&f, 0, PAGE, 0);
	promise(&f, PAGE, 7 * PAGE, OLD);
}

/* A pipe that holds a reference to the page at @p */
static void pin_by_pipe(int fds[2], char *p)
{
	struct iovec iov = { p, 1 };

	check(pipe(fds), "pipe");
	if (vmsplice(fds[1], &iov, 1, 0) != 1)
		fail("vmsplice: %m");
}

/* Drop it, and see what was in the page */
static void unpin_by_pipe(int fds[2], off_t off)
{
	char byte;

	if (read(fds[0], &byte, 1) != 1 || (uint8_t)byte != pattern_byte(OLD, off))
		fail("wrong data in the pipe");
	close(fds[0]);
	close(fds[1]);
}

/* A hole where a page is pinned that another file shares, and has mapped all the time */
static void pin_shared(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD), g = clone_of(&f, "g");
	char *p = map_file(&f, 0, 8 * PAGE), *q = map_file(&g, 0, 8 * PAGE);
	pid_t child;
	int fds[2];

	if (strstr(config_name, "-nodax"))
		skip("about layouts of DAX files");
	(void)((volatile char *)q)[0];
	pin_by_pipe(fds, p);
	child = start_punch(&f);
	unpin_by_pipe(fds, 0);
	end_punch(child);
	sync_to_point(&f);
	promise(&f, 0, PAGE, 0);
	promise(&f, PAGE, 7 * PAGE, OLD);
	promise(&g, 0, 8 * PAGE, OLD);
}

/*
 * A file gets longer, so the block at its end, which it shares, is replaced by one whose rest
 * is zeroes.  A page of it that is being read from has to be waited for.
 */
static void pin_extend_shared(void)
{
	size_t size = 8 * PAGE + 100;
	struct file f = create_file("f", size, OLD), g = clone_of(&f, "g");
	char *p = map_file(&f, 0, 9 * PAGE);
	int fds[2], status;
	pid_t child;

	if (strstr(config_name, "-nodax"))
		skip("about layouts of DAX files");
	sync_file(&g);
	sync_file(&f);
	pin_by_pipe(fds, p + 8 * PAGE);
	child = fork();
	if (!child)
		_exit(fallocate(f.fd, 0, 16 * PAGE, PAGE) ? errno : 0);
	usleep(300000);
	if (waitpid(child, &status, WNOHANG) == child)
		fail("the page is in use, and the block was replaced");
	unpin_by_pipe(fds, 8 * PAGE);
	waitpid(child, &status, 0);
	if (status)
		fail("fallocate: status 0x%x", status);
	sync_to_point(&f);
	promise(&f, 0, size, OLD);
	promise(&f, size, 17 * PAGE - size, 0);
	promise(&g, 0, size, OLD);
}

static void process_vm_write(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);
	char *p = map_file(&f, 0, 8 * PAGE);
	static char buf[8 * PAGE];
	struct iovec local = { buf, sizeof(buf) }, remote = { p, sizeof(buf) };

	pattern(buf, 0, sizeof(buf), NEW);
	sync_file(&f);
	if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) != sizeof(buf))
		fail("process_vm_writev: %m");
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static void read_into_mapping(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD), g = create_file("g", 8 * PAGE, NEW);
	char *p = map_file(&f, 0, 8 * PAGE);

	if (pread(g.fd, p, 8 * PAGE, 0) != 8 * PAGE)
		fail("pread: %m");
	sync_to_point(&f);
	promise(&f, 0, 8 * PAGE, NEW);
}

static pthread_t start_thread(void *(*run)(void *arg), void *arg)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, run, arg);
	check(-errno, "pthread_create");
	return thread;
}

/* A thread that faults pages in, and so locks their entry in i_pages, again and again */
struct faults {
	volatile char *p;
	size_t len;
	bool stop;
};

static void *fault_again(void *arg)
{
	struct faults *f = arg;

	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED)) {
		madvise((char *)f->p, f->len, MADV_DONTNEED);
		(void)*f->p;
	}
	return NULL;
}

static void store_beside_faults(const struct file *f, char *p, char *other, size_t len)
{
	struct faults faults = { .p = other, .len = len };
	/* v7.3 misses one in four to ten, where a miss shows */
	bool shows = !strstr(config_name, "-nodax") && !strstr(config_name, "-nocache") &&
		!strstr(config_name, "-virtio");
	int syncs = shows ? 50 : 3;
	pthread_t thread;

	thread = start_thread(fault_again, &faults);
	for (int i = 0; i < syncs; i++) {
		pattern(p, 0, PAGE, i % 2 ? OLD : NEW);
		sync_to_point(f);
		promise(f, 0, PAGE, i % 2 ? OLD : NEW);
	}
	__atomic_store_n(&faults.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

static void mmap_beside_faults(void)
{
	struct file f = create_file("f", PAGE, OLD);

	store_beside_faults(&f, map_file(&f, 0, PAGE), map_file(&f, 0, PAGE), PAGE);
}

/* ---- page tables that change meanwhile ---- */

enum { REMAP_PAGES = 1024, REMAP_SYNCS = 2 };	/* two PMDs */

/* A thread stores to one page after the other, and does something to the mapping */
struct remap {
	char *p;
	char *(*change)(char *p, size_t page);
	size_t stored;		/* pages */
	bool stop;
};

static void *store_and_remap(void *arg)
{
	struct remap *r = arg;

	for (size_t i = 0; i < REMAP_PAGES && !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); i++) {
		pattern(r->p + i * PAGE, i * PAGE, PAGE, NEW);
		__atomic_store_n(&r->stored, i + 1, __ATOMIC_RELEASE);
		r->p = r->change(r->p, i);
	}
	return NULL;
}

/*
 * What was stored when a sync call begins is durable when it returns, whatever happens to
 * the page tables in between.
 */
static void remap(char *(*change)(char *p, size_t page))
{
	struct file f = create_file("f", REMAP_PAGES * PAGE, OLD);
	struct remap r = { .change = change };
	pthread_t thread;
	size_t stored = 0;

	r.p = map_file(&f, 0, REMAP_PAGES * PAGE);
	thread = start_thread(store_and_remap, &r);
	for (int i = 0; i < REMAP_SYNCS; i++) {
		size_t before = stored;

		while (stored < before + 10 && stored < REMAP_PAGES)
			stored = __atomic_load_n(&r.stored, __ATOMIC_ACQUIRE);
		sync_to_point(&f);
		promise(&f, 0, stored * PAGE, NEW);
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

static char *move_mapping(char *p, size_t page)
{
	size_t len = REMAP_PAGES * PAGE, room = len + PMD + PAGE;
	char *hint = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *to;

	/* Whole page tables now and then, else their entries */
	to = (char *)(((uintptr_t)hint + PMD - 1) & -PMD) + page % 2 * PAGE;
	if (mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
		fail("mremap: %m");
	/* What was reserved and is not needed */
	if (to > hint)
		munmap(hint, to - hint);
	munmap(to + len, hint + room - (to + len));
	return to;
}

static char *protect_mapping(char *p, size_t page)
{
	check(mprotect(p, (page + 1) * PAGE, PROT_READ), "mprotect");
	check(mprotect(p, (page + 1) * PAGE, PROT_READ | PROT_WRITE), "mprotect");
	return p;
}

static char *zap_mapping(char *p, size_t page)
{
	check(madvise(p, (page + 1) * PAGE, MADV_DONTNEED), "madvise");
	return p;
}

static char *unmap_part(char *p, size_t page)
{
	/* Not what is gone already: somebody else may have that address now */
	check(munmap(p + page * PAGE, PAGE), "munmap");
	return p;
}

static char *fork_mapping(char *p, size_t page)
{
	pid_t pid = fork();

	(void)page;
	check(pid, "fork");
	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
	return p;
}

static void remap_mremap(void)
{
	remap(move_mapping);
}

static void remap_mprotect(void)
{
	remap(protect_mapping);
}

static void remap_dontneed(void)
{
	remap(zap_mapping);
}

static void remap_munmap(void)
{
	remap(unmap_part);
}

static void remap_fork(void)
{
	remap(fork_mapping);
}

/* ---- errors ---- */

static void sync_fails(int fd, int error, const char *what)
{
	int ret = fsync(fd);

	if (ret != (error ? -1 : 0) || (error && errno != error))
		fail("fsync %s: returns %d, %m, instead of %s", what, ret, strerror(error));
}

/* Who wants to know of errors of the file system; -1 if it has no file handles */
static int watch_errors(void)
{
	int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK, O_RDONLY);

	check(fd, "fanotify_init");
	if (fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_FS_ERROR, AT_FDCWD, test_dir)) {
		if (errno != EOPNOTSUPP && errno != ENODEV)
			fail("fanotify_mark: %m");
		close(fd);
		return -1;
	}
	return fd;
}

static void error_is_reported(int fd, int error)
{
	char buf[4096] __attribute__((aligned(8)));
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	struct fanotify_event_metadata *event = (void *)buf;
	struct fanotify_event_info_error *info;
	ssize_t len;

	if (poll(&poll_fd, 1, 10000) <= 0)
		fail("FAN_FS_ERROR did not arrive");
	len = read(fd, buf, sizeof(buf));
	check(len, "read of an event");
	for (char *p = buf + event->metadata_len; p < buf + len; p += info->hdr.len) {
		info = (void *)p;
		if (info->hdr.info_type == FAN_EVENT_INFO_TYPE_ERROR && info->error == error)
			return;
	}
	fail("the event does not say %s", strerror(error));
}

static struct file pmd_file(char **p);

/* Unmap @len bytes at @p, and have the page at @off of that go bad */
static void page_goes_bad(char *p, size_t len, off_t off)
{
	pid_t child = fork();
	int status;

	if (!child) {
		if (madvise(p + off, PAGE, MADV_HWPOISON))
			_exit(errno);
		/* The signal arrives on the way back */
		usleep(100000);
		_exit(0);
	}
	munmap(p, len);
	check(child, "fork");
	waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status))
		skip("no MADV_HWPOISON: %s", strerror(WEXITSTATUS(status)));
}

/*
 * A dirty page goes bad: each descriptor is told, again and again as long as the page
 * is dirty, and once after it is gone, and so is who watches the file system.  Then one of 2 MiB
 * that were mapped as one.  Leaves bad memory behind, so in a guest of its own.
 */
static void alone_poison(void)
{
	char *p, *q;
	struct file pmd = pmd_file(&q), f = dirty_file("small", 8, &p), g = f, h = f;
	int errors = watch_errors();

	reopen(&g);
	reopen(&h);
	page_goes_bad(p, 8 * PAGE, 2 * PAGE);
	if (errors >= 0)
		error_is_reported(errors, EIO);
	sync_fails(f.fd, EIO, "of the first descriptor");
	sync_fails(g.fd, EIO, "of the second descriptor");
	sync_fails(f.fd, EIO, "again");
	if (fallocate(f.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE, PAGE))
		check(ftruncate(f.fd, 2 * PAGE), "ftruncate");
	/* XFS writes back what it drops, that may be reported once more */
	fsync(f.fd);
	sync_fails(f.fd, 0, "when the page is gone");
	sync_fails(h.fd, EIO, "of the third descriptor");
	sync_fails(h.fd, 0, "of the third descriptor again");

	pattern(q, 0, 2 * PMD, NEW);
	page_goes_bad(q, 2 * PMD, 100 * PAGE);
	sync_fails(pmd.fd, EIO, "of a page of a PMD");
	sync_fails(pmd.fd, EIO, "of a page of a PMD again");
	if (fallocate(pmd.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PMD))
		check(ftruncate(pmd.fd, 0), "ftruncate");
	else
		promise_later(&pmd, PMD, PMD, NEW);
	fsync(pmd.fd);
	sync_fails(pmd.fd, 0, "when the PMD is gone");
	sync_to_point(&f);
	promise(&f, 0, 2 * PAGE, NEW);
}

/* Does a store of @byte end in SIGBUS? */
static bool store_fails(char *p, char byte)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		*(volatile char *)p = byte;
		_exit(0);
	}
	check(pid, "fork");
	waitpid(pid, &status, 0);
	if (status && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS))
		fail("a store ended with status 0x%x", status);
	return status;
}

static void expect_error(ssize_t ret, int error, const char *what)
{
	if (ret != -1 || errno != error)
		fail("%s: returns %zd, %m, instead of %s", what, ret, strerror(error));
}

/* The place on the device of the block at @off */
static uint64_t block_at(const struct file *f, off_t off)
{
	struct {
		struct fiemap map;
		struct fiemap_extent extent;
	} arg = { .map = { .fm_start = off, .fm_length = PAGE, .fm_extent_count = 1 } };

	check(ioctl(f->fd, FS_IOC_FIEMAP, &arg), "FIEMAP");
	if (arg.map.fm_mapped_extents != 1)
		fail("no block at %lld", (long long)off);
	return arg.extent.fe_physical + off - arg.extent.fe_logical;
}

/*
 * From now on the device says that the block at @off is bad.  It cannot be mended, so
 * nobody else must get it: @f has a link that is not removed.
 */
static void block_goes_bad(const struct file *f, off_t off)
{
	char line[64], path[128], kept[128];

	snprintf(path, sizeof(path), "%s/%s", test_dir, f->name);
	snprintf(kept, sizeof(kept), "%s/kept", test_dir);
	if (mkdir(kept, 0700) && errno != EEXIST)
		fail("mkdir: %m");
	snprintf(kept, sizeof(kept), "%s/kept/%s", test_dir, f->name);
	check(link(path, kept), "link");
	snprintf(line, sizeof(line), "%llu %llu", (unsigned long long)block_at(f, off) / 512,
		 (unsigned long long)PAGE / 512);
	if (!write_setting("/sys/block/pmem0/badblocks", line))
		skip("no badblocks");
}

/* A file of 8 pages that shares them with @clone, and the third is bad */
static struct file bad_file(struct file *clone)
{
	struct file f = create_file("f", 8 * PAGE, OLD);

	*clone = clone_of(&f, "g");
	sync_file(clone);
	sync_file(&f);
	block_goes_bad(clone, 2 * PAGE);
	return f;
}

/* @f still has the bad block, not a new one, and all its content.  So has @clone. */
static void expect_unchanged(const struct file *f, const struct file *clone)
{
	if (block_at(f, 2 * PAGE) != block_at(clone, 2 * PAGE))
		fail("the bad block has been replaced");
	sync_to_point(f);
	promise(f, 0, 2 * PAGE, OLD);
	promise_later(f, 2 * PAGE, PAGE, OLD);
	promise(f, 3 * PAGE, 5 * PAGE, OLD);
	promise_later(clone, 0, 8 * PAGE, OLD);
}

/* The rest of the block cannot be copied */
static void alone_poison_cow_write(void)
{
	static char buf[PAGE];
	struct file g, f = bad_file(&g);

	expect_error(pwrite(f.fd, buf, 50, 2 * PAGE + 100), EIO, "pwrite inside");
	expect_error(pwrite(f.fd, buf, PAGE, 2 * PAGE + 100), EIO, "pwrite from inside");
	expect_unchanged(&f, &g);
}

/* That turns out when a part has been written */
static void alone_poison_cow_write_short(void)
{
	struct file g, f = bad_file(&g);
	ssize_t n = pwrite(f.fd, short_buffer(PAGE, PAGE + 1003, NEW), 2 * PAGE, PAGE);

	if (n != PAGE)
		expect_error(n, EIO, "pwrite of a short buffer");
	else
		write_at(&f, PAGE, PAGE, OLD);
	expect_unchanged(&f, &g);
}

/* All of the block is written, so nothing has to be copied */
static void alone_poison_cow_overwrite(void)
{
	struct file g, f = bad_file(&g);

	write_at(&f, 2 * PAGE, PAGE, NEW);
	sync_to_point(&f);
	promise(&f, 0, 2 * PAGE, OLD);
	promise(&f, 2 * PAGE, PAGE, NEW);
	promise(&f, 3 * PAGE, 5 * PAGE, OLD);
	promise_later(&g, 0, 8 * PAGE, OLD);
}

static bool kernel_warned(void)
{
	FILE *f = fopen("/proc/sys/kernel/tainted", "r");
	int taint;

	if (!f || fscanf(f, "%d", &taint) != 1)
		fail("cannot read tainted");
	fclose(f);
	return taint & 1 << 9;
}

static void alone_poison_cow_fault(void)
{
	struct file g, f = bad_file(&g), h;
	char *p = map_file(&f, 0, 8 * PAGE);

	if (!store_fails(p + 2 * PAGE + 100, 1))
		fail("a store to a copy of the bad block was possible");
	expect_unchanged(&f, &g);
	/* The block that was to be the copy is free, and nobody refers to it */
	h = create_file("h", 0, 0);
	for (int i = 0; i < 64; i++)
		check(fallocate(h.fd, 0, i * PAGE, PAGE), "fallocate");
	pattern(map_file(&h, 0, 64 * PAGE), 0, 64 * PAGE, NEW);
	sync_to_point(&h);
	promise(&h, 0, 64 * PAGE, NEW);
	if (kernel_warned())
		fail("the kernel warned");
}

static void alone_poison_cow_zero(void)
{
	struct file g, f = bad_file(&g);

	expect_error(fallocate(f.fd, FALLOC_FL_ZERO_RANGE, 2 * PAGE + 100, 50), EIO, "zero");
	expect_error(fallocate(f.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       2 * PAGE + 100, 50), EIO, "punch");
	expect_error(ftruncate(f.fd, 2 * PAGE + 100), EIO, "truncate");
	expect_unchanged(&f, &g);
}

static void alone_poison_unshare(void)
{
	struct file g, f = bad_file(&g);

	expect_error(fallocate(f.fd, FALLOC_FL_UNSHARE_RANGE, 0, 8 * PAGE), EIO, "unshare");
	expect_unchanged(&f, &g);
}

/*
 * Pages of @f go bad, one after the other, while another process uses @q, the same pages
 * of a clone: @store to them or load.  Nobody may crash or wait for ever.
 */
static void bad_pages_of_clone(struct file *f, struct file *g, bool store)
{
	enum { NR = 256, MAPPINGS = 200 };
	volatile int *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *p = map_file(f, 0, NR * PAGE), *q = map_file(g, 0, NR * PAGE);
	pid_t child;

	/* So that it takes longer to find out who has the page */
	for (int i = 0; i < MAPPINGS; i++)
		map_file(f, 0, NR * PAGE);
	child = fork();
	if (!child) {
		signal(SIGBUS, bus_error);
		for (volatile int i = 0; i < NR; i++) {
			while (*page < i)
				;
			/* Some time while the other one is at it */
			for (volatile int n = 0; n < i % 16 * 1000; n++)
				;
			if (sigsetjmp(before_access, 1))
				continue;
			if (store)
				q[i * PAGE] = 1;
			else
				*(volatile char *)(q + i * PAGE);
		}
		_exit(0);
	}
	check(child, "fork");
	signal(SIGBUS, bus_error);
	for (volatile int i = 0; i < NR; i++) {
		if (sigsetjmp(before_access, 1))
			continue;
		*(volatile char *)(p + i * PAGE);
		*page = i;
		/* EBUSY: it was shared before, and nobody knows by whom */
		if (madvise(p + i * PAGE, PAGE, MADV_HWPOISON) && errno != EBUSY) {
			kill(child, SIGKILL);
			skip("no MADV_HWPOISON: %m");
		}
	}
	*page = NR;
	check(waitpid(child, NULL, 0), "waitpid");
}

static void alone_hwpoison_of_clone(void)
{
	struct file f = create_file("f", 256 * PAGE, OLD), g = clone_of(&f, "g");

	bad_pages_of_clone(&f, &g, false);
}

/* The fault holds the page and wants the lock of the block, the other way round here */
static void alone_hwpoison_of_copy(void)
{
	struct file f = create_file("f", 256 * PAGE, OLD), g = clone_of(&f, "g");

	bad_pages_of_clone(&f, &g, true);
}

static void unbind_device(void)
{
	char path[128];
	ssize_t n = readlink("/sys/block/pmem0/device", path, sizeof(path) - 1);

	check(n, "readlink");
	path[n] = 0;
	if (!write_setting("/sys/bus/nd/drivers/nd_pmem/unbind", strrchr(path, '/') + 1))
		fail("cannot unbind %s: %m", path);
}

/* The device of @f, which has dirty pages, is gone: @p is a mapping without pages */
static void expect_no_device(const struct file *f, char *p)
{
	struct file g = *f;
	char buf[64] = "";

	reopen(&g);
	unbind_device();
	for (int i = 0; i < 2; i++)
		if (!fsync(f->fd) || !fdatasync(g.fd) || !msync(p, PAGE, MS_SYNC))
			fail("a sync call succeeded");
	if (!store_fails(p, 1))
		fail("a store was possible");
	if (pwrite(f->fd, buf, sizeof(buf), 0) >= 0 || pread(f->fd, buf, sizeof(buf), 0) >= 0)
		fail("read or write was possible");
	if (!fsync(f->fd))
		fail("fsync succeeded");
}

/* The device is unbound under the file system, while no page is mapped */
static void alone_unbind(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	check(munmap(p, 8 * PAGE), "munmap");
	expect_no_device(&f, map_file(&f, 0, 8 * PAGE));
}

/* The same while a process stores to @p, a page of @f */
static void unbind_mapped(const struct file *f, char *p, size_t len)
{
	pid_t child = fork();
	int status;

	if (!child)
		for (;;) {
			*(volatile char *)p += 1;
			usleep(1000);
		}
	check(child, "fork");
	/* XFS may kill who has the page mapped */
	check(munmap(p, len), "munmap");
	usleep(100000);
	expect_no_device(f, map_file(f, 0, 8 * PAGE));
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGBUS)
		fail("who stored has not got SIGBUS: status 0x%x", status);
}

static void alone_unbind_mapped(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);

	unbind_mapped(&f, p, 8 * PAGE);
}

static void *close_later(void *arg)
{
	sleep(1);
	close(*(int *)arg);
	return NULL;
}

/* Unbinding waits for a page that is in a pipe */
static void alone_unbind_pinned(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);
	struct timespec t[2];
	pthread_t thread;
	int fds[2];

	pin_by_pipe(fds, p);
	close(fds[1]);
	check(munmap(p, 8 * PAGE), "munmap");
	thread = start_thread(close_later, &fds[0]);
	clock_gettime(CLOCK_MONOTONIC, &t[0]);
	expect_no_device(&f, map_file(&f, 0, 8 * PAGE));
	clock_gettime(CLOCK_MONOTONIC, &t[1]);
	pthread_join(thread, NULL);
	if (t[1].tv_sec - t[0].tv_sec + (t[1].tv_nsec - t[0].tv_nsec) / 1e9 < 0.9)
		fail("a pinned page was not waited for");
}

/* ---- PMD entries ---- */

/*
 * A file of 4 MiB whose mapping at @p uses PMDs, or skip.  Not every extent is
 * aligned; files that are in the way are left there until one is.
 */
static struct file pmd_file(char **p)
{
	for (int try = 0; try < 5; try++) {
		char name[] = { 'f', try ? '0' + try : 0, 0 };
		struct file f = create_file(name, 0, 0);

		check(fallocate(f.fd, 0, 0, 2 * PMD), "fallocate");
		*p = map_aligned(&f, 2 * PMD);
		(*p)[0] = 1;
		(*p)[PMD] = 1;
		if (is_pmd_mapped(*p) && is_pmd_mapped(*p + PMD))
			return f;
	}
	skip("no PMD mapping: extents are not aligned to 2 MiB");
}

static void *unbind_thread(void *arg)
{
	(void)arg;
	unbind_device();
	return NULL;
}

static void *remount_thread(void *arg)
{
	/* May fail, but must not wait for the pin */
	mount(NULL, arg, NULL, MS_REMOUNT | MS_RDONLY, NULL);
	return NULL;
}

/* Who has a page in a pipe waits for who remounts, and who unbinds for the pipe */
static void alone_unbind_remount(void)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);
	pthread_t unbind, other;
	int fds[2];

	pin_by_pipe(fds, p);
	check(munmap(p, 8 * PAGE), "munmap");
	unbind = start_thread(unbind_thread, NULL);
	sleep(1);
	other = start_thread(remount_thread, (void *)test_dir);
	sleep(1);
	syncfs(f.fd);
	close(fds[0]);
	close(fds[1]);
	pthread_join(unbind, NULL);
	pthread_join(other, NULL);
	if (!fsync(f.fd))
		fail("fsync succeeded");
}

/* Of a device below a mapped one the file system is not told: wait until it is unmounted */
static void alone_unbind_below(void)
{
	struct file f;
	pid_t child;
	int go[2];
	char *p;

	check(pipe(go), "pipe");
	child = fork();
	if (!child) {
		close(go[1]);
		if (read(go[0], &child, 1) == 1)
			unbind_device();
		_exit(0);
	}
	check(child, "fork");
	f = dirty_file("f", 8, &p);
	if (write(go[1], "", 1) != 1)
		fail("write to a pipe: %m");
	sleep(2);
	if (!store_fails(p, 1) && !fsync(f.fd))
		fail("a store was possible, and fsync succeeded");
	if (waitpid(child, NULL, WNOHANG))
		fail("a mapped page was not waited for");
}

static void alone_unbind_pmd(void)
{
	char *p;
	struct file f = pmd_file(&p);

	unbind_mapped(&f, p, 2 * PMD);
}

static void pmd_fsync(void)
{
	char *p;
	struct file f = pmd_file(&p);

	pattern(p, 0, 2 * PMD, NEW);
	sync_file(&f);
	pattern(p + PMD + 5 * PAGE, PMD + 5 * PAGE, PAGE, 3);
	sync_to_point(&f);
	promise(&f, 0, PMD, NEW);
	promise(&f, PMD + 5 * PAGE, PAGE, 3);
}

static void pmd_beside_faults(void)
{
	char *p;
	struct file f = pmd_file(&p);

	store_beside_faults(&f, p, map_aligned(&f, PMD), PMD);
}

static void pmd_msync_part(void)
{
	char *p;
	struct file f = pmd_file(&p);

	pattern(p, 0, PMD, NEW);
	check(msync(p + 100 * PAGE, PAGE, MS_SYNC), "msync");
	point();
	promise(&f, 100 * PAGE, PAGE, NEW);
	pattern(p, 0, 2 * PAGE, 3);
	check(msync(p, PAGE, MS_SYNC), "msync");
	point();
	promise(&f, 0, PAGE, 3);
}

/* The second mapping has another alignment, so its PTEs point into the PMD entry */
static void pmd_and_pte(void)
{
	char *p, *q;
	struct file f = pmd_file(&p);

	q = map_file(&f, PAGE, PMD);
	pattern(p, 0, PMD, NEW);
	pattern(q, PAGE, 4 * PAGE, 3);
	sync_file(&f);
	pattern(q + PAGE, 2 * PAGE, PAGE, 4);
	sync_to_point(&f);
	promise(&f, PAGE, PAGE, 3);
	promise(&f, 2 * PAGE, PAGE, 4);
	promise(&f, 3 * PAGE, 2 * PAGE, 3);
	promise(&f, 5 * PAGE, PMD - 5 * PAGE, NEW);
}

static void pmd_truncate_elsewhere(void)
{
	char *p;
	struct file f = pmd_file(&p);

	pattern(p, 0, PMD, NEW);
	check(ftruncate(f.fd, PMD), "ftruncate");
	sync_to_point(&f);
	promise(&f, 0, PMD, NEW);
}

/* The hole is inside the dirty PMD entry, the rest of which must survive */
static void pmd_punch_inside(void)
{
	char *p;
	struct file f = pmd_file(&p);

	pattern(p, 0, PMD, NEW);
	fallocate_or_skip(&f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  100 * PAGE, 8 * PAGE);
	sync_to_point(&f);
	promise(&f, 0, 100 * PAGE, NEW);
	promise(&f, 108 * PAGE, PMD - 108 * PAGE, NEW);
}

static void pmd_truncate_inside(void)
{
	char *p;
	struct file f = pmd_file(&p);

	pattern(p, 0, PMD, NEW);
	check(ftruncate(f.fd, 100 * PAGE), "ftruncate");
	sync_to_point(&f);
	promise(&f, 0, 100 * PAGE, NEW);
}

static void pmd_huge_zero(void)
{
	struct file f = create_file("f", 0, 0);
	volatile char *p;

	check(ftruncate(f.fd, 2 * PMD), "ftruncate");
	p = map_aligned(&f, 2 * PMD);
	(void)p[0];	/* the huge zero folio */
	pattern((char *)p, 0, 4 * PAGE, NEW);
	sync_to_point(&f);
	promise(&f, 0, 4 * PAGE, NEW);
}

/* All of its blocks are those of @clone, too, and durable */
static struct file shared_pmd_file(char **map, struct file *clone)
{
	struct file f = pmd_file(map);

	pattern(*map, 0, 2 * PMD, OLD);
	*clone = clone_of(&f, "g");
	sync_file(clone);
	sync_file(&f);
	return f;
}

static void pmd_cow(void)
{
	char *p;
	struct file g, f = shared_pmd_file(&p, &g);

	pattern(p, 0, 64, NEW);
	pattern(p + PMD + 64, PMD + 64, 64, NEW);
	sync_to_point(&f);
	promise(&f, 0, 64, NEW);
	promise(&f, 64, PMD, OLD);
	promise(&f, PMD + 64, 64, NEW);
	promise(&f, PMD + 128, PMD - 128, OLD);
}

/* A PMD cannot be copied because of one page, all others can */
static void alone_poison_cow_pmd(void)
{
	char *p;
	struct file g, f = shared_pmd_file(&p, &g);

	block_goes_bad(&g, 100 * PAGE);
	if (store_fails(p, pattern_byte(NEW, 0)))
		fail("a store to a page that is not bad failed");
	if (!store_fails(p + 100 * PAGE, 1))
		fail("a store to a copy of the bad block was possible");
	sync_to_point(&f);
	promise(&f, 0, 1, NEW);
	promise(&f, 1, 100 * PAGE - 1, OLD);
	promise_later(&f, 100 * PAGE, PAGE, OLD);
	promise(&f, 101 * PAGE, 2 * PMD - 101 * PAGE, OLD);
	promise_later(&g, 0, 2 * PMD, OLD);
}

/* ---- content that is wrong without any power failure; last, since it may be
 * content of another file that is overwritten ---- */

static void expect_content(const struct file *f, size_t len, uint64_t seed)
{
	char *p = map_file(f, 0, len);

	for (size_t i = 0; i < len; i++)
		if ((uint8_t)p[i] != pattern_byte(seed, i))
			fail("%s has wrong data at offset %zu", f->name, i);
}

static void content_unshare(void)
{
	struct file f = shared_file("f", 64), g = create_file("g", 64 * PAGE, 5);

	sync_file(&g);
	fallocate_or_skip(&f, FALLOC_FL_UNSHARE_RANGE, 0, 64 * PAGE);
	expect_content(&f, 64 * PAGE, OLD);
	expect_content(&g, 64 * PAGE, 5);
	sync_to_point(&f);
	promise(&f, 0, 64 * PAGE, OLD);
	promise(&g, 0, 64 * PAGE, 5);
}

static void content_cow_write(void)
{
	struct file f = shared_file("f", 64);

	write_at(&f, 100, 60 * PAGE, NEW);
	sync_to_point(&f);
	promise(&f, 0, 100, OLD);
	promise(&f, 100, 60 * PAGE, NEW);
	promise(&f, 60 * PAGE + 100, 4 * PAGE - 100, OLD);
}

/* Unwritten blocks read as zeroes even if the block holds what is compared */
static void content_dedupe_unwritten(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD), g = create_file("g", 8 * PAGE, OLD), h;
	struct {
		struct file_dedupe_range r;
		struct file_dedupe_range_info i;
	} arg = { .r = { .src_length = 8 * PAGE, .dest_count = 1 } };
	char path[128];

	sync();
	snprintf(path, sizeof(path), "%s/%s", test_dir, g.name);
	check(unlink(path), "unlink");
	close(g.fd);
	sync();
	sleep(1);	/* XFS frees the blocks of an unlinked file in the background */
	sync();
	h = create_file("h", 0, 0);
	check(fallocate(h.fd, 0, 0, 8 * PAGE), "fallocate");
	arg.i.dest_fd = h.fd;
	if (ioctl(f.fd, FIDEDUPERANGE, &arg))
		skip("no dedupe");
	if (arg.i.status == -EOPNOTSUPP || arg.i.status == -EINVAL)
		skip("no dedupe");
	sync_to_point(&h);
	promise(&h, 0, 8 * PAGE, 0);
}

/* A PMD entry of one file, blocks of which another one maps by PTEs */
static void pmd_clone(void)
{
	char *p, *q;
	struct file f = pmd_file(&p), g;

	pattern(p, 0, PMD, NEW);
	g = clone_of(&f, "g");
	q = map_file(&g, PAGE, 4 * PAGE);
	for (size_t i = 0; i < 4 * PAGE; i++)
		if ((uint8_t)q[i] != pattern_byte(NEW, PAGE + i))
			fail("the clone has wrong data at %zu", PAGE + i);
	pattern(q, PAGE, 2 * PAGE, 3);
	pattern(p, 0, PAGE, 4);
	sync_file(&g);
	sync_to_point(&f);
	promise(&f, 0, PAGE, 4);
	promise(&f, PAGE, PMD - PAGE, NEW);
	promise(&g, 0, PAGE, NEW);
	promise(&g, PAGE, 2 * PAGE, 3);
	promise(&g, 3 * PAGE, PMD - 3 * PAGE, NEW);
}

/* The same, but the PMD entry is made after the clone, by reading.  Crashes v7.3. */
static void alone_pmd_clone_read(void)
{
	char *p, *q;
	struct file f = pmd_file(&p), g;

	pattern(p, 0, PMD, NEW);
	g = clone_of(&f, "g");
	(void)*(volatile char *)p;
	q = map_file(&g, PAGE, 4 * PAGE);
	pattern(q, PAGE, 2 * PAGE, 3);
	sync_file(&g);
	sync_to_point(&f);
	promise(&f, 0, PMD, NEW);
	promise(&g, 0, PAGE, NEW);
	promise(&g, PAGE, 2 * PAGE, 3);
	promise(&g, 3 * PAGE, PMD - 3 * PAGE, NEW);
}

/*
 * A copy on write of one page where the file has a PMD entry.  XFS allocates more blocks for
 * a copy than are written; those of a write that fails stay, so the fault uses them although
 * nothing is shared any more.  Crashes v7.3.
 */
static void alone_pmd_cow_page(void)
{
	char *p, path[128];
	struct file f = pmd_file(&p), g = create_file("g", PAGE, 3);

	pattern(p, 0, 2 * PMD, OLD);
	sync_file(&f);
	clone_range_or_skip(&f, 0, PAGE, &g, 0);
	if (pwrite(f.fd, short_buffer(0, 0, NEW), PAGE, 0) >= 0 || errno != EFAULT)
		fail("pwrite from nowhere: %m");
	snprintf(path, sizeof(path), "%s/%s", test_dir, g.name);
	check(unlink(path), "unlink");
	close(g.fd);
	sync_file(&f);
	sleep(1);	/* XFS frees the blocks of an unlinked file in the background */
	(void)*(volatile char *)p;
	pattern(p + 100 * PAGE, 100 * PAGE, PAGE, NEW);
	pattern(p + 5 * PAGE, 5 * PAGE, PAGE, NEW);
	sync_to_point(&f);
	promise(&f, PAGE, 4 * PAGE, OLD);
	promise(&f, 5 * PAGE, PAGE, NEW);
	promise(&f, 6 * PAGE, 94 * PAGE, OLD);
	promise(&f, 100 * PAGE, PAGE, NEW);
	promise(&f, 101 * PAGE, 2 * PMD - 101 * PAGE, OLD);
}

static void content_dedupe(void)
{
	struct file f = create_file("f", 64 * PAGE, OLD), g = create_file("g", 64 * PAGE, OLD);

	sync_file(&f);
	sync_file(&g);
	dedupe_or_fail(&f, &g, 0, 64 * PAGE);
	expect_content(&f, 64 * PAGE, OLD);
	expect_content(&g, 64 * PAGE, OLD);
}

#define CASE(fn) { #fn, fn }

const struct test_case test_cases[] = {
	CASE(mmap_fsync), CASE(mmap_fdatasync), CASE(mmap_msync),
	CASE(mmap_msync_part), CASE(mmap_sync), CASE(mmap_syncfs), CASE(syncfs_clean_log),
	CASE(mmap_sync_file_range), CASE(mmap_fsync_readonly_fd),
	CASE(mmap_sparse_pages), CASE(mmap_store_again), CASE(mmap_two_mappings),
	CASE(mmap_hole), CASE(mmap_preallocated), CASE(mmap_munmap_first),
	CASE(mmap_dontneed_first), CASE(mmap_mprotect_first),
	CASE(mmap_mremap_first), CASE(mmap_fork), CASE(mmap_two_processes),
	CASE(mmap_beside_faults),
	CASE(mmap_unlinked), CASE(mmap_freeze), CASE(mmap_evict),
	CASE(write_aligned), CASE(write_unaligned), CASE(write_append),
	CASE(write_dsync), CASE(write_and_mmap), CASE(write_copy_file_range), CASE(write_short),
	CASE(mapsync_user_flush), CASE(mapsync_user_flush_fresh),
	CASE(mapsync_fsync), CASE(mapsync_sync), CASE(mapsync_syncfs),
	CASE(mapsync_freeze), CASE(mapsync_remount_ro), CASE(mapsync_evict),
	CASE(mapsync_cow), CASE(mapsync_cow_fsync),
	CASE(elsewhere_truncate), CASE(elsewhere_truncate_unaligned),
	CASE(elsewhere_truncate_into), CASE(elsewhere_extend),
	CASE(elsewhere_fallocate), CASE(elsewhere_punch),
	CASE(elsewhere_punch_next_to), CASE(elsewhere_zero_range),
	CASE(elsewhere_collapse), CASE(elsewhere_insert), CASE(elsewhere_clone_from),
	CASE(elsewhere_clone_to), CASE(elsewhere_unshare), CASE(elsewhere_dedupe),
	CASE(moved_collapse), CASE(moved_insert),
	CASE(clone_of_dirty), CASE(dedupe_of_dirty), CASE(cow_mmap),
	CASE(cow_write_aligned), CASE(cow_write_partial),
	CASE(cow_write_partial_mapped), CASE(cow_write_short),
	CASE(cow_write_fails), CASE(cow_prealloc_unshare), CASE(cow_prealloc_truncate),
	CASE(cow_prealloc_zero), CASE(cow_zero_partial),
	CASE(cow_punch_partial), CASE(cow_truncate_partial), CASE(cow_unshare),
	CASE(cow_unshare_dirty), CASE(zero_partial), CASE(truncate_and_extend),
	CASE(odirect_read_into), CASE(odirect_read_into_fsync_twice),
	CASE(pin_far_away), CASE(pin_and_remap), CASE(pin_shared),
	CASE(pin_extend_shared),
	CASE(freeze_blocks_stores), CASE(mmap_mtime),
	CASE(write_cache_off_on), CASE(write_cache_on_off_on), CASE(write_cache_killed),
	CASE(forced_readonly),
	CASE(alone_poison), CASE(alone_hwpoison_of_clone),
	CASE(alone_hwpoison_of_copy), CASE(alone_unbind), CASE(alone_unbind_mapped),
	CASE(alone_unbind_pmd), CASE(alone_unbind_pinned), CASE(alone_unbind_below),
	CASE(alone_unbind_remount),
	CASE(alone_poison_cow_write), CASE(alone_poison_cow_write_short),
	CASE(alone_poison_cow_overwrite), CASE(alone_poison_cow_fault),
	CASE(alone_poison_cow_pmd), CASE(alone_poison_cow_zero), CASE(alone_poison_unshare),
	CASE(process_vm_write), CASE(read_into_mapping),
	CASE(remap_mremap), CASE(remap_mprotect), CASE(remap_dontneed),
	CASE(remap_munmap), CASE(remap_fork),
	CASE(pmd_fsync), CASE(pmd_beside_faults), CASE(pmd_msync_part), CASE(pmd_and_pte),
	CASE(pmd_truncate_elsewhere), CASE(pmd_punch_inside),
	CASE(pmd_truncate_inside), CASE(pmd_huge_zero), CASE(pmd_cow), CASE(pmd_clone),
	CASE(content_cow_write), CASE(content_dedupe), CASE(content_dedupe_unwritten), CASE(content_unshare),
	CASE(alone_pmd_clone_read), CASE(alone_pmd_cow_page),
	{}
};
