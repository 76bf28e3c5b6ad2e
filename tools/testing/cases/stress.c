// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that do everything to the same few DAX files at once, for a kernel that
 * looks for its own errors (lockdep, KASAN).  Nothing is promised here; what counts is
 * that the kernel has no complaint and that the program ends.
 */
#define _GNU_SOURCE
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
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define NR_THREADS 6
#define NR_FILES 3
#define FILE_SIZE (2 * PMD)

static int fds[NR_FILES];
static time_t end_time;
static volatile unsigned long nr_ops;

/* Stores beyond the end of a file that another thread has just truncated */
static __thread sigjmp_buf bus_error;

static void on_sigbus(int sig)
{
	siglongjmp(bus_error, sig);
}

static void store(char *p, size_t off, size_t len)
{
	if (sigsetjmp(bus_error, 1))
		return;
	memset(p + off, 's', len);
}

static void load(char *p, size_t off)
{
	if (sigsetjmp(bus_error, 1))
		return;
	(void)*(volatile char *)(p + off);
}

/* An aligned address that no other thread gets */
static char *reserve(void)
{
	char *hint = mmap(NULL, FILE_SIZE + PMD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *p = (char *)(((uintptr_t)hint + PMD - 1) & -PMD);

	if (p > hint)
		munmap(hint, p - hint);
	if (p < hint + PMD)
		munmap(p + FILE_SIZE, hint + PMD - p);
	return p;
}

static char *move(char *p)
{
	p = mremap(p, FILE_SIZE, FILE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, reserve());
	return p == MAP_FAILED ? NULL : p;
}

static char *map(int fd, int sync)
{
	char *p = mmap(reserve(), FILE_SIZE, PROT_READ | PROT_WRITE, MAP_FIXED |
		       (sync ? MAP_SHARED_VALIDATE | MAP_SYNC : MAP_SHARED), fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static void fork_and_store(char *p, size_t off)
{
	pid_t pid = fork();

	if (!pid) {
		store(p, off, 100);
		_exit(0);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static void *worker(void *arg)
{
	uint64_t rng = (uintptr_t)arg * 0x9e3779b97f4a7c15 + 1;
	char *maps[NR_FILES] = {}, buf[8192];
	int disk = open("/dev/vda", O_RDONLY | O_DIRECT);

	memset(buf, 'w', sizeof(buf));
	while (time(NULL) < end_time) {
		int f = random_from(&rng, NR_FILES), fd = fds[f], other = fds[random_from(&rng, NR_FILES)];
		size_t off = random_from(&rng, FILE_SIZE / PAGE - 4) * PAGE;
		size_t len = (1 + random_from(&rng, 4)) * PAGE;
		struct file_clone_range clone = {
			.src_fd = fd, .src_offset = off, .src_length = len,
			.dest_offset = off,
		};
		struct iovec local = { buf, sizeof(buf) }, remote;

		if (!maps[f])
			maps[f] = map(fd, random_from(&rng, 2));
		if (!maps[f])
			maps[f] = map(fd, 0);
		nr_ops++;
		/* Errors are expected: no space, no reflink, a file cut short */
		switch (random_from(&rng, 23)) {
		case 0 ... 3:
			store(maps[f], off + random_from(&rng, 4000), random_from(&rng, 2 * PAGE));
			break;
		case 4:
			load(maps[f], off);
			break;
		case 5:
			fsync(fd);
			break;
		case 6:
			fdatasync(fd);
			break;
		case 7:
			msync(maps[f] + off, len, MS_SYNC);
			break;
		case 8:
			if (pwrite(fd, buf, random_from(&rng, sizeof(buf)), off + random_from(&rng, 4096)))
				break;
			break;
		case 9:
			if (ftruncate(fd, off))
				break;
			break;
		case 10:
			if (ftruncate(fd, FILE_SIZE))
				break;
			break;
		case 11:
			fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off + 5, len);
			break;
		case 12:
			fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len);
			break;
		case 13:
			fallocate(fd, 0, 0, FILE_SIZE);
			break;
		case 14:
			ioctl(other, FICLONERANGE, &clone);
			break;
		case 15:
			fallocate(fd, FALLOC_FL_UNSHARE_RANGE, off, len);
			break;
		case 16:
			munmap(maps[f], FILE_SIZE);
			maps[f] = NULL;
			break;
		case 17:
			if (!random_from(&rng, 8) && disk >= 0 && pread(disk, maps[f] + off, 4096, 0))
				break;
			break;
		case 18:
			remote = (struct iovec) { maps[f] + off, sizeof(buf) };
			process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
			break;
		case 19:
			if (!random_from(&rng, 4))
				fork_and_store(maps[f], off);
			else if (!random_from(&rng, 20))
				sync();
			break;
		case 20:
			/* Splits a PMD, too */
			mprotect(maps[f] + off, len, PROT_READ);
			mprotect(maps[f] + off, len, PROT_READ | PROT_WRITE);
			break;
		case 21:
			madvise(maps[f] + off, len, MADV_DONTNEED);
			break;
		case 22:
			maps[f] = move(maps[f]);
			break;
		}
	}
	return NULL;
}

/* Run for @seconds; the number of operations */
unsigned long stress(uint64_t seed, int seconds)
{
	struct sigaction sa = { .sa_handler = on_sigbus };
	pthread_t threads[NR_THREADS];

	sigaction(SIGBUS, &sa, NULL);
	for (int i = 0; i < NR_FILES; i++) {
		char name[] = { 's', '0' + i, 0 };
		struct file f = create_file(name, 0, 0);

		fds[i] = f.fd;
		fallocate(f.fd, 0, 0, FILE_SIZE);
	}
	end_time = time(NULL) + seconds;
	for (int i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, worker,
			       (void *)(uintptr_t)(seed * NR_THREADS + i + 1));
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	return nr_ops;
}
