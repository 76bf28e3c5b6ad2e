// SPDX-License-Identifier: GPL-2.0
/*
 * Huge pages: files that are mapped by PMD entries.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cases.h"

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

/* The same pages again and again, by the PMD entry and by PTEs of another mapping */
static void pmd_again(void)
{
	char *p, *q;
	struct file f = pmd_file(&p);

	q = map_file(&f, PAGE, 16 * PAGE);
	for (int i = 0; i < 5; i++) {
		pattern(p + 4 * PAGE, 4 * PAGE, 2 * PAGE, NEW + i);
		pattern(p + PMD, PMD, PAGE, NEW + i);
		sync_to_point(&f);
		promise(&f, 4 * PAGE, 2 * PAGE, NEW + i);
		promise(&f, PMD, PAGE, NEW + i);
	}
	for (int i = 0; i < 5; i++) {
		pattern(q + 3 * PAGE, 4 * PAGE, PAGE, 3 + i);
		pattern(p + 5 * PAGE, 5 * PAGE, PAGE, 3 + i);
		if (i % 2)
			pattern(p + 4 * PAGE, 4 * PAGE, 100, 3 + i);
		sync_to_point(&f);
		promise(&f, 4 * PAGE, 2 * PAGE, 3 + i);
	}
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
	punch_or_skip(&f, 100 * PAGE, 8 * PAGE);
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

const struct test_case pmd_cases[] = {
	CASE(pmd_fsync), CASE(pmd_again), CASE(pmd_beside_faults), CASE(pmd_msync_part),
	CASE(pmd_and_pte),
	CASE(pmd_truncate_elsewhere), CASE(pmd_punch_inside), CASE(pmd_truncate_inside),
	CASE(pmd_huge_zero), GUARD(pmd_cow), CASE(pmd_clone),
	{}
};

const struct test_case alone_pmd_cases[] = {
	CASE(alone_pmd_clone_read), CASE(alone_pmd_cow_page),
	{}
};
