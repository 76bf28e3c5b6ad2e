// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that are stored to and synced again and again.  A sync call may remember something of the
 * one before, and must still see each store, however it is made.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "cases.h"

enum { AGAIN_PAGES = 16, AGAIN_ROUNDS = 6 };
#define AGAIN_SIZE (AGAIN_PAGES * PAGE)

/* A store to each page, which is faster than pattern() */
static void touch(char *p)
{
	for (size_t off = 0; off < AGAIN_SIZE; off += PAGE)
		p[off]++;
}

static void sync_again_and_again(const struct file *f, char *p)
{
	for (int i = 0; i < AGAIN_ROUNDS; i++) {
		touch(p);
		sync_file(f);
	}
}

/* A mapped file after some rounds; its content has seed OLD */
static struct file again_file(char **map)
{
	struct file f = create_file("f", AGAIN_SIZE, OLD);

	*map = map_file(&f, 0, AGAIN_SIZE);
	sync_again_and_again(&f, *map);
	pattern(*map, 0, AGAIN_SIZE, OLD);
	sync_file(&f);
	return f;
}

/* The same with stores of NEW to all of it */
static struct file dirty_again_file(char **map)
{
	struct file f = again_file(map);

	pattern(*map, 0, AGAIN_SIZE, NEW);
	return f;
}

/* All of the file was stored to */
static void sync_and_promise(const struct file *f)
{
	sync_to_point(f);
	promise(f, 0, AGAIN_SIZE, NEW);
}

/* ---- sync calls ---- */

static void again_fsync(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	sync_and_promise(&f);
}

/* Not each page in each round */
static void again_some_pages(void)
{
	char *p;
	struct file f = again_file(&p);

	for (int i = 0; i < 4 * AGAIN_ROUNDS; i++) {
		size_t off = i % AGAIN_PAGES * PAGE;
		int seed = NEW + i % 5;

		pattern(p + off, off, PAGE, seed);
		pattern(p + 5 * PAGE, 5 * PAGE, PAGE, seed);
		if (i % AGAIN_ROUNDS) {
			sync_file(&f);
			continue;
		}
		sync_to_point(&f);
		promise(&f, off, PAGE, seed);
		promise(&f, 5 * PAGE, PAGE, seed);
	}
}

static void again_fdatasync(void)
{
	char *p;
	struct file f = again_file(&p);

	for (int i = 1; i < 4; i++) {
		touch(p);
		check(fdatasync(f.fd), "fdatasync");
	}
	pattern(p, 0, AGAIN_SIZE, NEW);
	check(fdatasync(f.fd), "fdatasync");
	point();
	promise(&f, 0, AGAIN_SIZE, NEW);
}

/* Only the pages that msync() was asked for are promised by it, and by fsync() all others */
static void again_msync_part(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	check(msync(p + 2 * PAGE, 3 * PAGE, MS_SYNC), "msync");
	point();
	promise(&f, 2 * PAGE, 3 * PAGE, NEW);
	pattern(p + 3 * PAGE, 3 * PAGE, PAGE, 3);
	check(msync(p + 3 * PAGE, PAGE, MS_SYNC), "msync");
	point();
	promise(&f, 3 * PAGE, PAGE, 3);
	pattern(p + 3 * PAGE, 3 * PAGE, PAGE, NEW);
	sync_and_promise(&f);
}

static void again_sync(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	sync();
	point();
	promise(&f, 0, AGAIN_SIZE, NEW);
}

static void again_syncfs(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	check(syncfs(f.fd), "syncfs");
	point();
	promise(&f, 0, AGAIN_SIZE, NEW);
}

/* Other calls are between the rounds and the store */
static void again_after_sync(void)
{
	char *p;
	struct file f = again_file(&p);

	sync();
	pattern(p, 0, AGAIN_SIZE / 2, NEW);
	sync_file(&f);
	check(syncfs(f.fd), "syncfs");
	pattern(p + AGAIN_SIZE / 2, AGAIN_SIZE / 2, AGAIN_SIZE / 2, NEW);
	sync();
	point();
	promise(&f, 0, AGAIN_SIZE, NEW);
}

/* Promises nothing by itself, and must not eat the promise of a later fsync */
static void again_sync_file_range(void)
{
	char *p;
	struct file f = again_file(&p);

	pattern(p, 0, PAGE, 3);
	pattern(p + PAGE, PAGE, AGAIN_SIZE - PAGE, NEW);
	check(sync_file_range(f.fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE |
			      SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER),
	      "sync_file_range");
	pattern(p, 0, PAGE, NEW);
	sync_and_promise(&f);
}

struct late_store {
	char *p;
	bool done;
};

static void *store_late(void *arg)
{
	struct late_store *store = arg;

	store->p[0]++;
	__atomic_store_n(&store->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* No store gets through while the file system is frozen, whether the page was clean or not */
static void again_freeze(void)
{
	char *p;
	struct file f = again_file(&p);
	/* By threads: what fork() makes has no page table entries of the file */
	struct late_store store[] = { { .p = p }, { .p = p + AGAIN_SIZE - PAGE } };
	pthread_t thread[2];
	bool done = false;

	pattern(p + PAGE, PAGE, AGAIN_SIZE - PAGE, NEW);
	check(ioctl(f.fd, FIFREEZE, 0), "FIFREEZE");
	point();
	for (int i = 0; i < 2; i++)
		thread[i] = start_thread(store_late, &store[i]);
	for (int i = 0; i < 10; i++) {
		usleep(10000);
		for (int n = 0; n < 2; n++)
			done |= __atomic_load_n(&store[n].done, __ATOMIC_ACQUIRE);
	}
	check(ioctl(f.fd, FITHAW, 0), "FITHAW");
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	if (done)
		fail("a store was possible");
	promise(&f, PAGE, AGAIN_SIZE - 2 * PAGE, NEW);
	pattern(p, 0, AGAIN_SIZE, NEW);
	sync_and_promise(&f);
}

static void again_remount_ro(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	check(munmap(p, AGAIN_SIZE), "munmap");
	close(f.fd);
	check(mount(NULL, test_dir, NULL, MS_REMOUNT | MS_RDONLY, NULL), "remount,ro");
	point();
	check(mount(NULL, test_dir, NULL, MS_REMOUNT, NULL), "remount,rw");
	reopen(&f);
	promise(&f, 0, AGAIN_SIZE, NEW);
}

/* ---- what happens to the mapping between the store and the sync call ---- */

/* The store is to a mapping that is gone when the sync call comes */
static void again_munmap(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	check(munmap(p, AGAIN_SIZE), "munmap");
	sync_and_promise(&f);
}

static void again_dontneed(void)
{
	char *p;
	struct file f = again_file(&p);

	for (int i = 1; i < 4; i++) {
		touch(p);
		check(madvise(p, AGAIN_SIZE, MADV_DONTNEED), "madvise");
		sync_file(&f);
	}
	pattern(p, 0, AGAIN_SIZE, NEW);
	check(madvise(p, AGAIN_SIZE, MADV_DONTNEED), "madvise");
	sync_and_promise(&f);
}

/* Nobody has the file open, but it is mapped */
static void again_closed(void)
{
	char *p;
	struct file f = again_file(&p);

	close(f.fd);
	pattern(p, 0, AGAIN_SIZE, NEW);
	sync();
	point();
	reopen(&f);
	promise(&f, 0, AGAIN_SIZE, NEW);
}

static void again_evict(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	check(munmap(p, AGAIN_SIZE), "munmap");
	close(f.fd);
	evict();
	reopen(&f);
	sync_and_promise(&f);
}

static void again_mremap(void)
{
	char *p;
	struct file f = again_file(&p);

	pattern(p, 0, AGAIN_SIZE / 2, NEW);
	p = mremap(p, AGAIN_SIZE, 2 * AGAIN_SIZE, MREMAP_MAYMOVE);
	if (p == MAP_FAILED)
		fail("mremap: %m");
	pattern(p + AGAIN_SIZE / 2, AGAIN_SIZE / 2, AGAIN_SIZE / 2, NEW);
	sync_and_promise(&f);
}

static void again_mprotect(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	check(mprotect(p, AGAIN_SIZE, PROT_READ), "mprotect");
	sync_and_promise(&f);
	check(mprotect(p, AGAIN_SIZE, PROT_READ | PROT_WRITE), "mprotect");
	pattern(p, 0, PAGE, OLD);
	sync_to_point(&f);
	promise(&f, 0, PAGE, OLD);
	promise(&f, PAGE, AGAIN_SIZE - PAGE, NEW);
}

/* Read-only and back, without a fault in between */
static void again_mprotect_twice(void)
{
	char *p;
	struct file f = again_file(&p);

	pattern(p, 0, AGAIN_SIZE / 2, NEW);
	check(mprotect(p, AGAIN_SIZE, PROT_READ), "mprotect");
	check(mprotect(p, AGAIN_SIZE, PROT_READ | PROT_WRITE), "mprotect");
	pattern(p + AGAIN_SIZE / 2, AGAIN_SIZE / 2, AGAIN_SIZE / 2, NEW);
	sync_and_promise(&f);
}

/* Others that want to know of stores write-protect the pages for that */
static void again_soft_dirty(void)
{
	char *p;
	struct file f = again_file(&p);

	for (int i = 0; i < 3; i++) {
		pattern(p, 0, 2 * PAGE, NEW + i);
		if (!write_setting("/proc/self/clear_refs", "4"))
			skip("no /proc/self/clear_refs");
		pattern(p + PAGE, PAGE, PAGE, 3 + i);
		sync_to_point(&f);
		promise(&f, 0, PAGE, NEW + i);
		promise(&f, PAGE, PAGE, 3 + i);
	}
	pattern(p, 0, AGAIN_SIZE, NEW);
	write_setting("/proc/self/clear_refs", "4");
	sync_and_promise(&f);
}

/* Stores to @p are noted from now on: the first one after write_protect() takes a fault */
static void note_stores(char *p, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC };
	struct uffdio_register reg = {
		.range = { (uintptr_t)p, len },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		skip("no asynchronous write protection by userfaultfd");
}

static void write_protect(char *p, size_t len)
{
	struct pm_scan_arg arg = {
		.size = sizeof(arg), .flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (uintptr_t)p, .end = (uintptr_t)p + len,
		.category_mask = PAGE_IS_WRITTEN, .return_mask = PAGE_IS_WRITTEN,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY);

	check(fd, "open pagemap");
	check(ioctl(fd, PAGEMAP_SCAN, &arg), "PAGEMAP_SCAN");
	close(fd);
}

static void again_userfaultfd(void)
{
	char *p;
	struct file f = again_file(&p);

	note_stores(p, AGAIN_SIZE);
	for (int i = 0; i < 3; i++) {
		pattern(p, 0, 2 * PAGE, NEW + i);
		write_protect(p, AGAIN_SIZE);
		pattern(p + PAGE, PAGE, PAGE, 3 + i);
		sync_to_point(&f);
		promise(&f, 0, PAGE, NEW + i);
		promise(&f, PAGE, PAGE, 3 + i);
	}
	pattern(p, 0, AGAIN_SIZE, NEW);
	write_protect(p, AGAIN_SIZE);
	sync_and_promise(&f);
}

/* ---- who else stores and syncs ---- */

static void again_other_mapping(void)
{
	char *p, *q;
	struct file f = again_file(&p);

	q = map_file(&f, 0, AGAIN_SIZE);
	for (int i = 0; i < AGAIN_ROUNDS; i++) {
		touch(i % 2 ? p : q);
		sync_file(&f);
	}
	pattern(p, 0, AGAIN_SIZE / 2, NEW);
	pattern(q + AGAIN_SIZE / 2, AGAIN_SIZE / 2, AGAIN_SIZE / 2, NEW);
	sync_and_promise(&f);
}

static void again_child(void)
{
	char *p;
	struct file f = again_file(&p);
	pid_t pid = fork();

	check(pid, "fork");
	if (!pid) {
		/* It has page tables of its own, which are empty at first */
		sync_again_and_again(&f, p);
		pattern(p, 0, AGAIN_SIZE, NEW);
		_exit(0);
	}
	wait_for(pid);
	sync_and_promise(&f);
}

/* Two processes with page tables of their own, both alive when one syncs */
static void again_processes(void)
{
	char *p, c = 0;
	struct file f = again_file(&p);
	int to[2], from[2];
	pid_t pid;

	check(pipe(to) | pipe(from), "pipe");
	pid = fork();
	if (!pid) {
		close(to[1]);	/* or the end of a parent that fails goes unnoticed */
		for (int round = NEW; round < NEW + AGAIN_ROUNDS; round++) {
			pattern(p, 0, 2 * PAGE, round);
			if (write(from[1], &c, 1) != 1 || read(to[0], &c, 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	close(from[1]);
	for (int round = NEW; round < NEW + AGAIN_ROUNDS; round++) {
		if (read(from[0], &c, 1) != 1)
			fail("child is gone");
		pattern(p + PAGE, PAGE, PAGE, round + 1);
		sync_to_point(&f);
		promise(&f, 0, PAGE, round);
		promise(&f, PAGE, PAGE, round + 1);
		if (write(to[1], &c, 1) != 1)
			fail("child is gone");
	}
	wait_for(pid);
}

static void *sync_again(void *arg)
{
	for (int i = 0; i < 20; i++)
		sync_file(arg);
	return NULL;
}

/* Another thread syncs the file all the time */
static void again_two_syncs(void)
{
	char *p;
	struct file f = again_file(&p);
	pthread_t thread = start_thread(sync_again, &f);

	for (int i = 0; i < 20; i++) {
		touch(p);
		sync_file(&f);
	}
	pattern(p, 0, AGAIN_SIZE, NEW);
	sync_and_promise(&f);
	pthread_join(thread, NULL);
}

struct stores {
	char *p;
	size_t stored;	/* pages */
};

static void *store_pages(void *arg)
{
	struct stores *s = arg;

	for (size_t i = 0; i < AGAIN_PAGES; i++) {
		pattern(s->p + i * PAGE, i * PAGE, PAGE, NEW);
		__atomic_store_n(&s->stored, i + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* What was stored when a sync call begins is durable when it returns */
static void again_store_beside_sync(void)
{
	struct stores s = {};
	struct file f = again_file(&s.p);
	pthread_t thread = start_thread(store_pages, &s);
	size_t stored;

	do {
		stored = __atomic_load_n(&s.stored, __ATOMIC_ACQUIRE);
		sync_to_point(&f);
		if (stored)
			promise(&f, 0, stored * PAGE, NEW);
	} while (stored < AGAIN_PAGES);
	pthread_join(thread, NULL);
}

/* ---- stores on behalf of the program ---- */

static void again_readv(void)
{
	char *p;
	struct file f = again_file(&p), g = create_file("g", AGAIN_SIZE, NEW);
	struct iovec iov[] = { { p, 5 * PAGE + 100 },
			       { p + 5 * PAGE + 100, AGAIN_SIZE - 5 * PAGE - 100 } };

	if (preadv(g.fd, iov, 2, 0) != AGAIN_SIZE)
		fail("preadv: %m");
	sync_and_promise(&f);
}

static char buf[AGAIN_SIZE];

static void again_process_vm_write(void)
{
	char *p;
	struct file f = again_file(&p);
	struct iovec local = { buf, AGAIN_SIZE }, remote = { p, AGAIN_SIZE };

	pattern(buf, 0, AGAIN_SIZE, NEW);
	if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) != AGAIN_SIZE)
		fail("process_vm_writev: %m");
	sync_and_promise(&f);
}

/* As a debugger does it */
static void again_proc_mem(void)
{
	char *p;
	struct file f = again_file(&p);
	int fd = open("/proc/self/mem", O_RDWR);

	if (fd < 0)
		skip("no /proc/self/mem");
	pattern(buf, 0, AGAIN_SIZE, NEW);
	if (pwrite(fd, buf, AGAIN_SIZE, (uintptr_t)p) != AGAIN_SIZE)
		fail("write to /proc/self/mem: %m");
	sync_and_promise(&f);
}

/* What is in a pipe is copied to the pages */
static void again_from_pipe(void)
{
	char *p;
	struct file f = again_file(&p);
	struct iovec iov = { p, 4 * PAGE };
	int fds[2];

	pattern(buf, 0, 4 * PAGE, NEW);
	check(pipe(fds), "pipe");
	if (write(fds[1], buf, 4 * PAGE) != 4 * PAGE)
		fail("write to a pipe: %m");
	if (vmsplice(fds[0], &iov, 1, 0) != 4 * PAGE)
		fail("vmsplice: %m");
	sync_to_point(&f);
	promise(&f, 0, 4 * PAGE, NEW);
	promise(&f, 4 * PAGE, AGAIN_SIZE - 4 * PAGE, OLD);
}

/* A pipe has one of the pages all the time */
static void again_pipe(void)
{
	char *p, byte;
	struct file f = again_file(&p);
	int fds[2];

	pin_by_pipe(fds, p);
	for (int i = 0; i < 4; i++) {
		pattern(p, 0, 2 * PAGE, NEW + i);
		sync_to_point(&f);
		promise(&f, 0, 2 * PAGE, NEW + i);
	}
	if (read(fds[0], &byte, 1) != 1)
		fail("read from a pipe: %m");
	pattern(p, 0, AGAIN_SIZE, NEW);
	sync_and_promise(&f);
}

/* One page only, as the disk is slow */
static void again_odirect(void)
{
	char *p;
	struct file f = again_file(&p);
	int disk = open_disk();

	pattern(p + PAGE, PAGE, PAGE, NEW);
	if (pread(disk, p, PAGE, 0) != PAGE)
		fail("pread: %m");
	sync_to_point(&f);
	expect_disk_page(&f, p, 0);
	promise(&f, PAGE, PAGE, NEW);
	pattern(p, 0, AGAIN_SIZE, NEW);
	sync_and_promise(&f);
}

/* ---- blocks that change ---- */

static void again_after_truncate(void)
{
	char *p;
	struct file f = again_file(&p);

	pattern(p, 0, AGAIN_SIZE / 2, NEW);
	check(ftruncate(f.fd, AGAIN_SIZE / 2), "ftruncate");
	sync_to_point(&f);
	promise(&f, 0, AGAIN_SIZE / 2, NEW);
}

/* The second half is new, and stored to after that */
static void again_truncate_and_extend(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	check(ftruncate(f.fd, AGAIN_SIZE / 2), "ftruncate");
	check(ftruncate(f.fd, AGAIN_SIZE), "ftruncate");
	pattern(p + AGAIN_SIZE / 2, AGAIN_SIZE / 2, AGAIN_SIZE / 4, 3);
	sync_to_point(&f);
	promise(&f, 0, AGAIN_SIZE / 2, NEW);
	promise(&f, AGAIN_SIZE / 2, AGAIN_SIZE / 4, 3);
	promise(&f, AGAIN_SIZE * 3 / 4, AGAIN_SIZE / 4, 0);
}

static void again_after_punch(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	punch_or_skip(&f, 4 * PAGE, 4 * PAGE);
	pattern(p + 4 * PAGE, 4 * PAGE, 2 * PAGE, 3);
	sync_to_point(&f);
	promise(&f, 0, 4 * PAGE, NEW);
	promise(&f, 4 * PAGE, 2 * PAGE, 3);
	promise(&f, 6 * PAGE, 2 * PAGE, 0);
	promise(&f, 8 * PAGE, AGAIN_SIZE - 8 * PAGE, NEW);
}

/* All pages are clean when the hole is made */
static void again_clean_punch(void)
{
	char *p;
	struct file f = again_file(&p);

	punch_or_skip(&f, 4 * PAGE, 4 * PAGE);
	pattern(p, 0, AGAIN_SIZE, NEW);
	sync_and_promise(&f);
	pattern(p + 4 * PAGE, 4 * PAGE, 4 * PAGE, 3);
	sync_to_point(&f);
	promise(&f, 4 * PAGE, 4 * PAGE, 3);
}

/* The pages move to other offsets, and are stored to there */
static void again_collapse(void)
{
	char *p;
	struct file f = again_file(&p);
	size_t size = AGAIN_SIZE - 4 * PAGE;

	pattern(p, 0, AGAIN_SIZE, NEW);
	fallocate_or_skip(&f, FALLOC_FL_COLLAPSE_RANGE, 0, 4 * PAGE);
	sync_to_point(&f);
	promise_moved(&f, 0, size, NEW, -4 * (off_t)PAGE);
	pattern(p, 0, size, 3);
	sync_to_point(&f);
	promise(&f, 0, size, 3);
}

static void again_after_pwrite(void)
{
	char *p;
	struct file f = dirty_again_file(&p);

	write_at(&f, 0, PAGE, OLD);
	sync_to_point(&f);
	promise(&f, 0, PAGE, OLD);
	promise(&f, PAGE, AGAIN_SIZE - PAGE, NEW);
	write_at(&f, 0, PAGE, 3);
	pattern(p, 0, PAGE, NEW);
	sync_and_promise(&f);
}

/* The other file keeps what it had */
static void again_after_clone(void)
{
	char *p;
	struct file f = again_file(&p), g = clone_of(&f, "g");

	pattern(p, 0, AGAIN_SIZE, NEW);
	sync_to_point(&f);
	promise(&f, 0, AGAIN_SIZE, NEW);
	promise(&g, 0, AGAIN_SIZE, OLD);
}

/* What was stored before is in both files, and what is stored after that in one */
static void again_clone_of_dirty(void)
{
	char *p;
	struct file f = again_file(&p), g;

	pattern(p, 0, AGAIN_SIZE, NEW);
	g = clone_of(&f, "g");
	pattern(p, 0, AGAIN_SIZE / 2, 3);
	sync_file(&g);
	sync_to_point(&f);
	promise(&f, 0, AGAIN_SIZE / 2, 3);
	promise(&f, AGAIN_SIZE / 2, AGAIN_SIZE / 2, NEW);
	promise(&g, 0, AGAIN_SIZE, NEW);
}

/* Both are mapped, and stored to in turns */
static void again_two_clones(void)
{
	char *p, *q;
	struct file f = again_file(&p), g = clone_of(&f, "g");

	q = map_file(&g, 0, AGAIN_SIZE);
	(void)*(volatile char *)p;
	(void)*(volatile char *)q;
	for (int i = 0; i < 4; i++) {
		pattern(p, 0, 2 * PAGE, NEW + i);
		sync_file(&f);
		pattern(q + PAGE, PAGE, 2 * PAGE, 10 - i);
		sync_to_point(&g);
		promise(&f, 0, 2 * PAGE, NEW + i);
		promise(&f, 2 * PAGE, AGAIN_SIZE - 2 * PAGE, OLD);
		promise(&g, 0, PAGE, OLD);
		promise(&g, PAGE, 2 * PAGE, 10 - i);
		promise(&g, 3 * PAGE, AGAIN_SIZE - 3 * PAGE, OLD);
	}
}

/* The page has another block after a write(2) */
static void again_write_to_shared(void)
{
	char *p;
	struct file f = again_file(&p), g = clone_of(&f, "g");

	(void)*(volatile char *)p;
	write_at(&f, 0, 2 * PAGE, 3);
	pattern(p, 0, PAGE, NEW);
	sync_to_point(&f);
	promise(&f, 0, PAGE, NEW);
	promise(&f, PAGE, PAGE, 3);
	promise(&f, 2 * PAGE, AGAIN_SIZE - 2 * PAGE, OLD);
	promise(&g, 0, AGAIN_SIZE, OLD);
}

/* The blocks get shared again while the pages are mapped */
static void again_dedupe(void)
{
	char *p;
	struct file f = again_file(&p), g = create_file("g", AGAIN_SIZE, OLD);

	dedupe_or_fail(&g, &f, 0, AGAIN_SIZE);
	pattern(p, 0, AGAIN_SIZE / 2, NEW);
	sync_to_point(&f);
	promise(&f, 0, AGAIN_SIZE / 2, NEW);
	promise(&f, AGAIN_SIZE / 2, AGAIN_SIZE / 2, OLD);
	promise(&g, 0, AGAIN_SIZE, OLD);
}

/* ---- mtime and ctime ---- */

/* By name: some cases have closed the file */
static struct stat times(const struct file *f)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", test_dir, f->name);
	check(stat(path, &st), "stat");
	return st;
}

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

/* A store at a later time: the clock ticks each 4 ms */
static void store_later(char *p)
{
	usleep(10000);
	p[0]++;
}

/* There was a store since @before, so both times are newer.  They are the next @before. */
static void expect_newer(const struct file *f, struct stat *before, const char *when)
{
	struct stat now = times(f);

	if (!later(now.st_mtim, before->st_mtim))
		fail("mtime is not newer after %s", when);
	if (!later(now.st_ctim, before->st_ctim))
		fail("ctime is not newer after %s", when);
	*before = now;
}

static void expect_unchanged(const struct file *f, const struct stat *before, const char *when)
{
	struct stat now = times(f);

	if (later(now.st_mtim, before->st_mtim) || later(before->st_mtim, now.st_mtim))
		fail("mtime has changed by %s", when);
	if (later(now.st_ctim, before->st_ctim) || later(before->st_ctim, now.st_ctim))
		fail("ctime has changed by %s", when);
}

/* Each store is in mtime after the next sync call */
static void again_mtime(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before = times(&f);

	for (int i = 0; i < 3; i++) {
		store_later(p);
		check(fsync(f.fd), "fsync");
		expect_newer(&f, &before, "fsync");
	}
	store_later(p);
	check(fdatasync(f.fd), "fdatasync");
	expect_newer(&f, &before, "fdatasync");
	store_later(p);
	check(msync(p, PAGE, MS_SYNC), "msync");
	expect_newer(&f, &before, "msync");
	store_later(p);
	check(syncfs(f.fd), "syncfs");
	expect_newer(&f, &before, "syncfs");
	store_later(p);
	sync_file(&f);
	expect_newer(&f, &before, "fsync after syncfs");
	sync_again_and_again(&f, p);
	before = times(&f);
	store_later(p);
	sync();
	expect_newer(&f, &before, "sync");
}

static void again_mtime_freeze(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before = times(&f);

	store_later(p);
	check(ioctl(f.fd, FIFREEZE, 0), "FIFREEZE");
	check(ioctl(f.fd, FITHAW, 0), "FITHAW");
	expect_newer(&f, &before, "a freeze");
}

/* Or when the mapping is gone, without a sync call, which then has nothing to add */
static void again_mtime_munmap(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before = times(&f);

	store_later(p);
	check(munmap(p, AGAIN_SIZE), "munmap");
	expect_newer(&f, &before, "munmap");
	sync_file(&f);
	expect_unchanged(&f, &before, "fsync after munmap");
}

/* Another mapping, after some rounds */
static char *map_again(const struct file *f)
{
	char *p = map_file(f, 0, AGAIN_SIZE);

	sync_again_and_again(f, p);
	return p;
}

static void again_mtime_close(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before = times(&f);

	store_later(p);
	close(f.fd);
	check(munmap(p, AGAIN_SIZE), "munmap");
	expect_newer(&f, &before, "close and munmap");

	reopen(&f);
	p = map_again(&f);
	before = times(&f);
	store_later(p);
	check(munmap(p, AGAIN_SIZE), "munmap");
	close(f.fd);
	expect_newer(&f, &before, "munmap and close");
}

static void again_mtime_dontneed(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before = times(&f);

	store_later(p);
	check(madvise(p, AGAIN_SIZE, MADV_DONTNEED), "madvise");
	sync_file(&f);
	expect_newer(&f, &before, "MADV_DONTNEED and fsync");
	sync_again_and_again(&f, p);
	before = times(&f);
	store_later(p);
	check(mprotect(p, AGAIN_SIZE, PROT_READ), "mprotect");
	sync_file(&f);
	expect_newer(&f, &before, "mprotect and fsync");
}

/* The child stores to the file and exits, without a sync call */
static void again_mtime_exit(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat *before = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = fork();

	if (!pid) {
		p = map_again(&f);
		*before = times(&f);
		store_later(p);
		_exit(0);
	}
	wait_for(pid);
	expect_newer(&f, before, "exit");
}

/* Stores by the kernel are some, too */
static void again_mtime_kernel(void)
{
	char *p;
	struct file f = again_file(&p);
	struct iovec local = { buf, PAGE }, remote = { p, PAGE };
	struct stat before = times(&f);

	for (int i = 0; i < 3; i++) {
		usleep(10000);
		if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) != PAGE)
			fail("process_vm_writev: %m");
		sync_file(&f);
		expect_newer(&f, &before, "process_vm_writev and fsync");
	}
}

static void again_mtime_odirect(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before = times(&f);
	int disk = open_disk();

	usleep(10000);
	if (pread(disk, p, PAGE, 0) != PAGE)
		fail("pread: %m");
	sync_file(&f);
	expect_newer(&f, &before, "O_DIRECT read and fsync");
}

static void again_mtime_lazy(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before, now;

	if (mount(NULL, test_dir, NULL, MS_REMOUNT | MS_LAZYTIME, NULL))
		skip("no lazytime: %m");
	sync_again_and_again(&f, p);
	before = times(&f);
	store_later(p);
	sync_file(&f);
	now = times(&f);
	check(mount(NULL, test_dir, NULL, MS_REMOUNT, NULL), "remount");
	if (!later(now.st_mtim, before.st_mtim))
		fail("mtime is not newer with lazytime");
}

/* Without a store the times stay */
static void again_quiet(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before = times(&f);
	int fds[2];

	usleep(10000);
	for (int i = 0; i < 3; i++) {
		(void)*(volatile char *)p;
		sync_file(&f);
	}
	expect_unchanged(&f, &before, "fsync without a store");
	/* Nobody knows whether this page is stored to, but it is not */
	pin_by_pipe(fds, p);
	sync_file(&f);
	sync_file(&f);
	expect_unchanged(&f, &before, "fsync of a page in a pipe");
	check(syncfs(f.fd), "syncfs");
	expect_unchanged(&f, &before, "syncfs without a store");
	check(munmap(p, AGAIN_SIZE), "munmap");
	expect_unchanged(&f, &before, "munmap without a store");
}

/* mtime is set by a program, and @f has it */
static struct stat set_past(const struct file *f)
{
	struct timespec past[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	struct stat st;

	check(futimens(f->fd, past), "futimens");
	st = times(f);
	if (st.st_mtim.tv_sec != 1 || st.st_mtim.tv_nsec)
		fail("mtime is not what it was set to");
	usleep(10000);
	return st;
}

/* That stays until the next store, whatever finds out about the one before */
static void again_utimens(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before;

	store_later(p);
	before = set_past(&f);
	sync_file(&f);
	expect_unchanged(&f, &before, "fsync after futimens");
	sync();
	expect_unchanged(&f, &before, "sync after futimens");
	check(munmap(p, AGAIN_SIZE), "munmap");
	expect_unchanged(&f, &before, "munmap after futimens");
}

static void again_utimens_munmap(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before;

	store_later(p);
	before = set_past(&f);
	check(munmap(p, AGAIN_SIZE), "munmap");
	expect_unchanged(&f, &before, "munmap after futimens");
	sync_file(&f);
	expect_unchanged(&f, &before, "fsync after futimens");

	p = map_again(&f);
	store_later(p);
	check(munmap(p, AGAIN_SIZE), "munmap");
	before = set_past(&f);
	sync_file(&f);
	expect_unchanged(&f, &before, "fsync after munmap and futimens");
}

/* And not longer */
static void again_utimens_store(void)
{
	char *p;
	struct file f = again_file(&p);
	struct stat before;

	store_later(p);
	before = set_past(&f);
	sync_file(&f);
	store_later(p);
	sync_file(&f);
	expect_newer(&f, &before, "futimens, a store and fsync");
}

/* atime only: the store is not forgotten */
static void again_utimens_atime(void)
{
	struct timespec atime[2] = { { .tv_sec = 1000 }, { .tv_nsec = UTIME_OMIT } };
	char *p;
	struct file f = again_file(&p);
	struct stat before = times(&f);

	store_later(p);
	check(futimens(f.fd, atime), "futimens");
	sync_file(&f);
	expect_newer(&f, &before, "futimens of atime and fsync");
}

const struct test_case again_cases[] = {
	CASE(again_fsync), CASE(again_some_pages), CASE(again_fdatasync), CASE(again_msync_part),
	CASE(again_sync), CASE(again_syncfs), CASE(again_after_sync), CASE(again_sync_file_range),
	CASE(again_freeze), CASE(again_remount_ro),
	CASE(again_munmap), CASE(again_dontneed), CASE(again_closed), CASE(again_evict),
	CASE(again_mremap), CASE(again_mprotect), CASE(again_mprotect_twice),
	CASE(again_soft_dirty), CASE(again_userfaultfd),
	CASE(again_other_mapping), CASE(again_child), CASE(again_processes),
	CASE(again_two_syncs), CASE(again_store_beside_sync),
	CASE(again_readv), CASE(again_process_vm_write), CASE(again_proc_mem),
	CASE(again_from_pipe), CASE(again_pipe), CASE(again_odirect),
	CASE(again_after_truncate), CASE(again_truncate_and_extend), CASE(again_after_punch),
	GUARD(again_clean_punch), CASE(again_collapse), CASE(again_after_pwrite),
	GUARD(again_after_clone), CASE(again_clone_of_dirty), GUARD(again_two_clones),
	GUARD(again_write_to_shared), CASE(again_dedupe),
	CASE(again_mtime), CASE(again_mtime_freeze),
	CASE(again_mtime_munmap), CASE(again_mtime_close), CASE(again_mtime_dontneed),
	CASE(again_mtime_exit), CASE(again_mtime_kernel), CASE(again_mtime_odirect),
	CASE(again_mtime_lazy), GUARD(again_quiet),
	GUARD(again_utimens), GUARD(again_utimens_munmap), CASE(again_utimens_store),
	CASE(again_utimens_atime),
	{}
};
