// SPDX-License-Identifier: GPL-2.0
/*
 * MAP_SYNC: what the program flushes itself, and sync calls about metadata that a store needs.
 */
#define _GNU_SOURCE
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cases.h"

/* Store to all of @f, and make that durable without a sync call */
static void store_and_flush(const struct file *f)
{
	char *p = map_sync(f, 0, 8 * PAGE);

	pattern(p, 0, 8 * PAGE, NEW);
	flush_lines(p, 8 * PAGE);
	point();
	promise(f, 0, 8 * PAGE, NEW);
}

static void mapsync_user_flush(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);

	store_and_flush(&f);
}

/* Metadata of fresh blocks is durable once the store has returned */
static void mapsync_user_flush_fresh(void)
{
	struct file f = create_file("f", 0, 0);

	check(ftruncate(f.fd, 8 * PAGE), "ftruncate");
	store_and_flush(&f);
}

/* The same on ext4 with fast commits, when one is not possible after a change of attributes */
static void alone_mapsync_fast_commit(void)
{
	struct file f = create_file("f", 0, 0), g = create_file("g", PAGE, OLD);

	check(ftruncate(f.fd, 8 * PAGE), "ftruncate");
	sync();
	if (fsetxattr(g.fd, "user.name", "value", 5, 0))
		skip("no extended attributes: %m");
	store_and_flush(&f);
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

/* Another mapping of the same pages is not MAP_SYNC, and is stored to again and again */
static void mapsync_again(void)
{
	struct file f = create_file("f", 8 * PAGE, OLD);
	char *p = map_file(&f, 0, 8 * PAGE), *q = map_sync(&f, 0, 8 * PAGE);

	for (int i = 0; i < 5; i++) {
		pattern(p, 0, 2 * PAGE, 3 + i);
		pattern(q + PAGE, PAGE, PAGE, 4 + i);
		sync_to_point(&f);
		promise(&f, 0, PAGE, 3 + i);
		promise(&f, PAGE, PAGE, 4 + i);
	}
	pattern(q, 0, 4 * PAGE, NEW);
	flush_lines(q, 4 * PAGE);
	point();
	promise(&f, 0, 4 * PAGE, NEW);
	pattern(p, 0, PAGE, 3);
	pattern(q + PAGE, PAGE, PAGE, 3);
	sync_to_point(&f);
	promise(&f, 0, 2 * PAGE, 3);
	promise(&f, 2 * PAGE, 2 * PAGE, NEW);
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

const struct test_case mapsync_cases[] = {
	GUARD(mapsync_user_flush), GUARD(mapsync_user_flush_fresh),
	CASE(alone_mapsync_fast_commit), CASE(mapsync_fsync), CASE(mapsync_sync),
	CASE(mapsync_syncfs), CASE(mapsync_freeze), CASE(mapsync_remount_ro),
	CASE(mapsync_evict), CASE(mapsync_again), CASE(mapsync_cow), GUARD(mapsync_cow_fsync),
	{}
};
