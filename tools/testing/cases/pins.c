// SPDX-License-Identifier: GPL-2.0
/*
 * Stores by the kernel and by devices on the program's behalf, and pages that are pinned by these
 * or by a pipe while blocks change.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cases.h"

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

/* fsync while a read into @p is in flight, and again when it is over */
static void fsync_twice(const struct file *f, char *p)
{
	struct slow_read r;

	slow_read_start(&r, p);
	sync_file(f);
	if (slow_read_over(&r, 0))
		skip("the read was over before the fsync");
	/* The event may be delivered before the page is released, see bio_dirty_fn() */
	while (((volatile char *)p)[PAGE - 1] != (char)DISK_BYTE)
		usleep(10000);
	syscall(SYS_io_destroy, r.ctx);
	sync_to_point(f);
	expect_disk_page(f, p, 0);
}

static void odirect_read_into_fsync_twice(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);

	fsync_twice(&f, map_file(&f, 0, 8 * PAGE));
}

/* The page has been stored to and synced before, again and again */
static void odirect_read_into_again(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);
	char *p = map_file(&f, 0, 8 * PAGE);

	for (int i = 0; i < 5; i++) {
		p[0]++;
		sync_file(&f);
	}
	fsync_twice(&f, p);
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
	punch_or_skip(&f, 32 * PAGE, 8 * PAGE);
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

/* ---- stores on behalf of a program that need no pin ---- */

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

const struct test_case pin_cases[] = {
	CASE(odirect_read_into), CASE(odirect_read_into_fsync_twice),
	CASE(odirect_read_into_again), CASE(pin_far_away), CASE(pin_and_remap),
	CASE(pin_shared), CASE(pin_extend_shared),
	{}
};

const struct test_case kernel_store_cases[] = {
	CASE(process_vm_write), CASE(read_into_mapping),
	{}
};
