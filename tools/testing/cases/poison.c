// SPDX-License-Identifier: GPL-2.0
/*
 * Memory goes bad, and the device has bad blocks.  These cases leave that behind, so their
 * names begin with alone_.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

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

static void *close_file(void *arg)
{
	close(*(int *)arg);	/* v7.3 waits for the pipe */
	return NULL;
}

/* One of two files that have the bad block is just being freed: that is no reason to shut down */
static void alone_hwpoison_of_unlinked(void)
{
	struct file f = create_file("f", PAGE, OLD), g = clone_of(&f, "g"), h;
	char *p = map_file(&f, 0, PAGE), *q = map_file(&g, 0, PAGE), path[128];
	pthread_t thread;
	int fds[2];

	pin_by_pipe(fds, q);
	check(munmap(q, PAGE), "munmap");
	snprintf(path, sizeof(path), "%s/%s", test_dir, g.name);
	check(unlink(path), "unlink");
	thread = start_thread(close_file, &g.fd);
	usleep(300000);
	*(volatile char *)p;
	signal(SIGBUS, bus_error);
	if (!sigsetjmp(before_access, 1) &&
	    madvise(p, PAGE, MADV_HWPOISON) && errno != EBUSY)
		skip("no MADV_HWPOISON: %m");
	close(fds[0]);
	close(fds[1]);
	pthread_join(thread, NULL);
	h = create_file("h", PAGE, OLD);
	check(fsync(h.fd), "fsync of another file");
}

/* A block that is not shared any more goes bad */
static void alone_hwpoison_after_sharing(void)
{
	struct file f = create_file("f", PAGE, OLD), g = clone_of(&f, "g");
	char *p = map_file(&f, 0, PAGE), *q = map_file(&g, 0, PAGE), buf[PAGE] = "";
	volatile bool told = false;

	*(volatile char *)p;
	*(volatile char *)q;
	if (pwrite(g.fd, buf, PAGE, 0) != PAGE)
		fail("write: %m");
	*p = 1;
	signal(SIGBUS, bus_error);
	if (!sigsetjmp(before_access, 1)) {
		if (madvise(p, PAGE, MADV_HWPOISON) && errno == EBUSY)
			fail("nobody is told of bad memory");
		*(volatile char *)p;
	} else {
		told = true;
	}
	if (!told)
		fail("no SIGBUS for bad memory");
	if (!fsync(f.fd))
		fail("fsync of bad memory succeeded");
}

/* ---- the device says that a block is bad ---- */

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

const struct test_case poison_cases[] = {
	CASE(alone_poison), CASE(alone_hwpoison_of_clone), CASE(alone_hwpoison_of_copy),
	CASE(alone_hwpoison_of_unlinked), CASE(alone_hwpoison_after_sharing),
	{}
};

const struct test_case bad_block_cases[] = {
	GUARD(alone_poison_cow_write), GUARD(alone_poison_cow_write_short),
	CASE(alone_poison_cow_overwrite), CASE(alone_poison_cow_fault),
	CASE(alone_poison_cow_pmd), GUARD(alone_poison_cow_zero), GUARD(alone_poison_unshare),
	{}
};
