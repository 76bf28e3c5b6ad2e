// SPDX-License-Identifier: GPL-2.0
/*
 * What cases of more than one family need, see cases.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

void sync_file(const struct file *f)
{
	check(fsync(f->fd), "fsync");
}

/* What was stored to @f before may be promised after this */
void sync_to_point(const struct file *f)
{
	sync_file(f);
	point();
}

/* The sequence most cases share: store to @pages pages, leave them dirty */
struct file dirty_file(const char *name, size_t pages, char **map)
{
	struct file f = create_file(name, pages * PAGE, OLD);

	*map = map_file(&f, 0, pages * PAGE);
	pattern(*map, 0, pages * PAGE, NEW);
	return f;
}

struct file clone_of(const struct file *src, const char *name)
{
	struct file f = create_file(name, 0, 0);

	if (ioctl(f.fd, FICLONE, src->fd)) {
		if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EINVAL)
			skip("no reflink");
		fail("FICLONE: %m");
	}
	return f;
}

/* A durable file of @pages pages whose blocks another file shares */
struct file shared_file(const char *name, size_t pages)
{
	struct file f = create_file(name, pages * PAGE, OLD), clone;
	char clone_name[80];

	snprintf(clone_name, sizeof(clone_name), "%.40s.clone", name);
	clone = clone_of(&f, clone_name);
	sync_file(&clone);
	sync_file(&f);
	return f;
}

void fallocate_or_skip(const struct file *f, int mode, off_t off, off_t len)
{
	if (!fallocate(f->fd, mode, off, len))
		return;
	if (errno == EOPNOTSUPP)
		skip("fallocate mode 0x%x is not supported", mode);
	fail("fallocate mode 0x%x: %m", mode);
}

void punch_or_skip(const struct file *f, off_t off, off_t len)
{
	fallocate_or_skip(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
}

void wait_for(pid_t pid)
{
	int status;

	check(pid, "fork");
	if (waitpid(pid, &status, 0) < 0 || status)
		fail("child ended with status 0x%x", status);
}

bool write_setting(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);

	if (fd >= 0)
		close(fd);
	return ok;
}

sigjmp_buf before_access;

void bus_error(int signal)
{
	(void)signal;
	siglongjmp(before_access, 1);
}

/*
 * A buffer of which only the first @good bytes can be read: the kernel's copy from
 * it ends there.  Its content is for offset @off.
 */
char *short_buffer(off_t off, size_t good, uint64_t seed)
{
	size_t pages = (good + PAGE - 1) / PAGE * PAGE;
	char *p = mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || mprotect(p + pages, PAGE, PROT_NONE))
		fail("mmap: %m");
	p += pages - good;
	pattern(p, off, good, seed);
	return p;
}

void reopen(struct file *f)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", test_dir, f->name);
	f->fd = open(path, O_RDWR);
	check(f->fd, "open");
}

/* The inode is dropped from memory between the store and the sync */
void evict(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	check(fd, "open drop_caches");
	check(write(fd, "3", 1), "drop_caches");
	close(fd);
}

void clone_range_or_skip(const struct file *src, off_t from, size_t len,
			 const struct file *dst, off_t to)
{
	struct file_clone_range arg = {
		.src_fd = src->fd, .src_offset = from,
		.src_length = len, .dest_offset = to,
	};

	if (!ioctl(dst->fd, FICLONERANGE, &arg))
		return;
	if (errno == EOPNOTSUPP || errno == ENOTTY)
		skip("no reflink");
	fail("FICLONERANGE: %m");
}

void dedupe_or_fail(const struct file *src, const struct file *dst, off_t off, size_t len)
{
	struct {
		struct file_dedupe_range r;
		struct file_dedupe_range_info i;
	} arg = {
		.r = { .src_offset = off, .src_length = len, .dest_count = 1 },
		.i = { .dest_fd = dst->fd, .dest_offset = off },
	};

	if (ioctl(src->fd, FIDEDUPERANGE, &arg)) {
		if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EINVAL)
			skip("no dedupe");
		fail("FIDEDUPERANGE: %m");
	}
	if (arg.i.status == -EOPNOTSUPP || arg.i.status == -EINVAL)
		skip("no dedupe");
	if (arg.i.status != FILE_DEDUPE_RANGE_SAME)
		fail("dedupe says the files differ (%d)", arg.i.status);
}

/* A pipe that holds a reference to the page at @p */
void pin_by_pipe(int fds[2], char *p)
{
	struct iovec iov = { p, 1 };

	check(pipe(fds), "pipe");
	if (vmsplice(fds[1], &iov, 1, 0) != 1)
		fail("vmsplice: %m");
}

pthread_t start_thread(void *(*run)(void *arg), void *arg)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, run, arg);
	check(-errno, "pthread_create");
	return thread;
}

/* A thread that faults pages in, and so locks their entry in i_pages, again and again */
struct faults {
	volatile char *p;
	size_t len;
	bool stop;
};

static void *fault_again(void *arg)
{
	struct faults *f = arg;

	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED)) {
		madvise((char *)f->p, f->len, MADV_DONTNEED);
		(void)*f->p;
	}
	return NULL;
}

void store_beside_faults(const struct file *f, char *p, char *other, size_t len)
{
	struct faults faults = { .p = other, .len = len };
	/* v7.3 misses one in four to ten, where a miss shows */
	bool shows = !strstr(config_name, "-nodax") && !strstr(config_name, "-nocache") &&
		!strstr(config_name, "-virtio");
	int syncs = shows ? 50 : 3;
	pthread_t thread;

	thread = start_thread(fault_again, &faults);
	for (int i = 0; i < syncs; i++) {
		pattern(p, 0, PAGE, i % 2 ? OLD : NEW);
		sync_to_point(f);
		promise(f, 0, PAGE, i % 2 ? OLD : NEW);
	}
	__atomic_store_n(&faults.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

/* Does a store of @byte end in SIGBUS? */
bool store_fails(char *p, char byte)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		*(volatile char *)p = byte;
		_exit(0);
	}
	check(pid, "fork");
	waitpid(pid, &status, 0);
	if (status && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS))
		fail("a store ended with status 0x%x", status);
	return status;
}

pid_t start_storing(char *p, volatile bool **stop)
{
	pid_t pid;

	*stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (*stop == MAP_FAILED)
		fail("mmap: %m");
	pid = fork();
	check(pid, "fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);	/* if the case fails */
	while (!**stop)
		++*(volatile char *)p;
	pattern(p, 0, PAGE, NEW);
	_exit(0);
}

/*
 * A file of 4 MiB whose mapping at @p uses PMDs, or skip.  Not every extent is
 * aligned; files that are in the way are left there until one is.
 */
struct file pmd_file(char **p)
{
	for (int try = 0; try < 5; try++) {
		char name[] = { 'f', try ? '0' + try : 0, 0 };
		struct file f = create_file(name, 0, 0);

		check(fallocate(f.fd, 0, 0, 2 * PMD), "fallocate");
		*p = map_aligned(&f, 2 * PMD);
		(*p)[0] = 1;
		(*p)[PMD] = 1;
		if (is_pmd_mapped(*p) && is_pmd_mapped(*p + PMD))
			return f;
	}
	skip("no PMD mapping: extents are not aligned to 2 MiB");
}

/* All of its blocks are those of @clone, too, and durable */
struct file shared_pmd_file(char **map, struct file *clone)
{
	struct file f = pmd_file(map);

	pattern(*map, 0, 2 * PMD, OLD);
	*clone = clone_of(&f, "g");
	sync_file(clone);
	sync_file(&f);
	return f;
}

#define DISK "/dev/vda"

int open_disk(void)
{
	int fd = open(DISK, O_RDONLY | O_DIRECT);

	if (fd < 0)
		skip("no " DISK);
	return fd;
}

/* One page at @p comes from the disk: not a pattern, so compare here */
void expect_disk_page(const struct file *f, const char *p, off_t off)
{
	struct file lines = *f;

	for (size_t i = 0; i < PAGE; i++)
		if ((uint8_t)p[i] != DISK_BYTE)
			fail("O_DIRECT read left 0x%02x at %zu", (uint8_t)p[i], i);
	lines.name[0] = 0;
	promise(&lines, off, PAGE, 0);
}
