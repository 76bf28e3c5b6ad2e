// SPDX-License-Identifier: GPL-2.0
/*
 * Stores to a mapping, then each of the sync calls; and what may happen to the mapping in between.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cases.h"

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

static void mmap_beside_faults(void)
{
	struct file f = create_file("f", PAGE, OLD);

	store_beside_faults(&f, map_file(&f, 0, PAGE), map_file(&f, 0, PAGE), PAGE);
}

/*
 * A commit makes blocks part of a file that a write fault has zeroed.  Needs a guest of its own:
 * ext4 with its journal on another device.
 */
static void alone_zeroed_blocks(void)
{
	struct file f = create_file("f", 0, 0);
	char *p;

	check(ftruncate(f.fd, 8 * PAGE), "ftruncate");
	sync();
	p = map_file(&f, 0, 8 * PAGE);
	for (int i = 0; i < 8; i++)
		p[i * PAGE] = 1;
	/* No sync call: there is a commit every 5 seconds */
	sleep(7);
	point();
	for (int i = 0; i < 8; i++)
		promise(&f, i * PAGE + 64, PAGE - 64, 0);
}

const struct test_case mmap_cases[] = {
	CASE(mmap_fsync), CASE(mmap_fdatasync), CASE(mmap_msync), CASE(mmap_msync_part),
	CASE(mmap_sync), CASE(mmap_syncfs), CASE(syncfs_clean_log), CASE(mmap_sync_file_range),
	CASE(mmap_fsync_readonly_fd), CASE(mmap_sparse_pages), CASE(mmap_store_again),
	CASE(mmap_two_mappings), CASE(mmap_hole), CASE(mmap_preallocated),
	CASE(mmap_munmap_first), CASE(mmap_dontneed_first), CASE(mmap_mprotect_first),
	CASE(mmap_mremap_first), CASE(mmap_fork), CASE(mmap_two_processes),
	CASE(mmap_beside_faults), CASE(mmap_unlinked), CASE(mmap_freeze), CASE(mmap_evict),
	CASE(alone_zeroed_blocks),
	{}
};
