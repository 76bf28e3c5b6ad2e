// SPDX-License-Identifier: GPL-2.0
/*
 * The file is changed between the store and the sync call: elsewhere, the dirty pages move, or a
 * part of one is zeroed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "cases.h"

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

	punch_or_skip(&f, FAR, 8 * PAGE);
	promise_head(&f);
}

/* Both ends of the hole are inside dirty pages */
static void elsewhere_punch_next_to(void)
{
	char *p;
	struct file f = dirty_head(&p);

	punch_or_skip(&f, 2 * PAGE + 100, 3 * PAGE);
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

static void elsewhere_dedupe(void)
{
	char *p;
	struct file f = dirty_head(&p), g = create_file("g", 2 * FAR, OLD);

	dedupe_or_fail(&g, &f, FAR, 8 * PAGE);
	promise_head(&f);
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

const struct test_case elsewhere_cases[] = {
	CASE(elsewhere_truncate), CASE(elsewhere_truncate_unaligned),
	CASE(elsewhere_truncate_into), CASE(elsewhere_extend), CASE(elsewhere_fallocate),
	CASE(elsewhere_punch), CASE(elsewhere_punch_next_to), CASE(elsewhere_zero_range),
	CASE(elsewhere_collapse), CASE(elsewhere_insert), CASE(elsewhere_clone_from),
	CASE(elsewhere_clone_to), CASE(elsewhere_unshare), CASE(elsewhere_dedupe),
	CASE(moved_collapse), CASE(moved_insert),
	{}
};

const struct test_case zero_cases[] = {
	CASE(zero_partial), CASE(truncate_and_extend),
	{}
};
