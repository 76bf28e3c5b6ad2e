// SPDX-License-Identifier: GPL-2.0
/*
 * The driver of the device is unbound under the file system, or the file system is shut down.  No
 * case can run after that, so their names begin with alone_.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <mntent.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cases.h"

#define SHUTDOWN	_IOR('X', 125, uint32_t)	/* EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN */

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

/*
 * A task that has a page in a pipe waits for one that remounts, that one for one that unbinds, and
 * that for the pipe.  If the file is @closed, only its inode in the cache has the page.
 */
static void unbind_remount(bool closed)
{
	char *p;
	struct file f = dirty_file("f", 8, &p);
	pthread_t unbind, other;
	int fds[2], dir = open(test_dir, O_RDONLY);

	pin_by_pipe(fds, p);
	check(munmap(p, 8 * PAGE), "munmap");
	if (closed)
		close(f.fd);
	unbind = start_thread(unbind_thread, NULL);
	sleep(1);
	other = start_thread(remount_thread, (void *)test_dir);
	sleep(1);
	syncfs(dir);
	close(fds[0]);
	close(fds[1]);
	pthread_join(unbind, NULL);
	pthread_join(other, NULL);
	if (!closed && !fsync(f.fd))
		fail("fsync succeeded");
	close(dir);
}

static void alone_unbind_remount(void)
{
	unbind_remount(false);
}

static void alone_unbind_closed(void)
{
	unbind_remount(true);
}

/* umount(2) waits for a page that a task has in a pipe, but sync(2) of that task does not wait */
static void alone_umount_pinned(void)
{
	FILE *mounts = setmntent("/proc/mounts", "r");
	struct mntent *m;
	int fds[2], status;
	struct file f;
	pid_t child;
	char *p;

	while ((m = getmntent(mounts)) && strcmp(m->mnt_dir, test_dir))
		;
	if (!m)
		fail("nothing is mounted");
	f = dirty_file("f", 8, &p);
	sync_file(&f);
	pin_by_pipe(fds, p);
	check(munmap(p, 8 * PAGE), "munmap");
	close(f.fd);
	child = fork();
	if (!child) {
		close(fds[0]);
		close(fds[1]);
		_exit(umount(test_dir) ? 1 : 0);
	}
	check(child, "fork");
	sleep(1);
	if (waitpid(child, NULL, WNOHANG))
		fail("umount() did not wait");
	sync();
	close(fds[0]);
	close(fds[1]);
	check(waitpid(child, &status, 0), "waitpid");
	if (status)
		fail("umount(): %d", status);
	check(mount(m->mnt_fsname, test_dir, m->mnt_type, 0, "dax=always"), "mount");
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

/* A clean page does not become writable when the file system has been shut down */
static void alone_shutdown(void)
{
	uint32_t flags = 0;	/* the default of XFS and ext4, which writes everything first */
	char *p;
	struct file f = dirty_file("f", 2, &p);

	check(fsync(f.fd), "fsync");
	if (ioctl(f.fd, SHUTDOWN, &flags))
		skip("no shutdown: %m");
	if (!store_fails(p, 1))
		fail("a store was possible");
	if (!fsync(f.fd))
		fail("fsync succeeded");
}

const struct test_case unbind_cases[] = {
	CASE(alone_unbind), CASE(alone_unbind_mapped), CASE(alone_unbind_pmd),
	CASE(alone_unbind_pinned), CASE(alone_unbind_below), CASE(alone_unbind_remount),
	CASE(alone_unbind_closed), CASE(alone_umount_pinned), GUARD(alone_shutdown),
	{}
};
