// SPDX-License-Identifier: GPL-2.0
/*
 * write(2) and copy_file_range(2), aligned or not, then a sync call.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cases.h"

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

const struct test_case write_cases[] = {
	GUARD(write_aligned), GUARD(write_unaligned), GUARD(write_append), GUARD(write_dsync),
	CASE(write_and_mmap), CASE(write_copy_file_range), GUARD(write_short),
	{}
};
