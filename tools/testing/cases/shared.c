// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks that files share: copy on write by mapping, write(2), zeroing and unsharing, clones and
 * dedupe.  The second table is of content that is wrong without any power failure.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cases.h"

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

static void content_dedupe(void)
{
	struct file f = create_file("f", 64 * PAGE, OLD), g = create_file("g", 64 * PAGE, OLD);

	sync_file(&f);
	sync_file(&g);
	dedupe_or_fail(&f, &g, 0, 64 * PAGE);
	expect_content(&f, 64 * PAGE, OLD);
	expect_content(&g, 64 * PAGE, OLD);
}

const struct test_case shared_cases[] = {
	CASE(clone_of_dirty), CASE(dedupe_of_dirty), GUARD(cow_mmap), GUARD(cow_write_aligned),
	CASE(cow_write_partial), CASE(cow_write_partial_mapped), CASE(cow_write_short),
	CASE(cow_write_fails), CASE(cow_prealloc_unshare), GUARD(cow_prealloc_truncate),
	GUARD(cow_prealloc_zero), CASE(cow_zero_partial), CASE(cow_punch_partial),
	CASE(cow_truncate_partial), CASE(cow_unshare), CASE(cow_unshare_dirty),
	{}
};

const struct test_case content_cases[] = {
	CASE(content_cow_write), CASE(content_dedupe), CASE(content_dedupe_unwritten),
	CASE(content_unshare),
	{}
};
