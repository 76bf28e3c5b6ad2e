// SPDX-License-Identifier: GPL-2.0
/*
 * Do stores to a shared mapping reach the disk that come after the page has been written
 * back?  They do only if writeback makes the page table entries read-only and flushes the
 * TLBs before it starts, on each architecture in its own way.  Nothing here needs DAX.
 *
 *   wp DIR ROUNDS [PREFIX [PATTERN]]	run all checks in directory DIR, or those whose
 *				names match PATTERN; PREFIX is printed before each
 *   wp list [PATTERN]		print the names of the checks
 *
 * Prints a line for each check, "ok NAME ROUNDS" or "FAIL NAME: lost N of M", where N is
 * the number of rounds after which the file had not what was stored.  The exit status is 0
 * if no check has failed.
 *
 * As the first process of a guest, do that on /dev/vda and /dev/vdb, one of which has ext4
 * and the other one XFS, and on copies of them on RAM disks: there, writeback does not
 * sleep, and what a task switch would flush stays in the TLBs.  Prints to a virtio port, and
 * the lines "start wp" and "end wp" around all.  The environment has ROUNDS as rounds=N,
 * and may have devices=ram or devices=disk, and checks=PATTERN.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <glob.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_SIZE	(2UL << 20)	/* of files that have large folios */
#define SMALL_PAGES	16UL		/* of the others */
#define ALIGN		(32UL << 20)	/* at least the memory that a PMD maps */
#define RACE_SYNCS	3
#define PROBES		16UL		/* of the size of folios */
#define KPF_COMPOUND	(3ULL << 15)	/* head or tail, see /proc/kpageflags */
#define PM_PFN		((1ULL << 55) - 1)

struct layout {
	const char *name;
	size_t stride;		/* distance of stores; 0: one to each page */
	bool large;		/* large folios */
	bool pmd;		/* ... and the mapping is aligned, so that PMDs can map them */
};

static const struct layout layouts[] = {
	{ "small", 0, false, false },
	{ "large-page", 0, true, false },
	{ "large-64k", 64 << 10, true, false },
	{ "large-1m", 1 << 20, true, false },
	{ "pmd-64k", 64 << 10, true, true },
};

/* How what has been stored is written */
enum method { SYNC_FILE_RANGE, MSYNC, FSYNC, NR_METHODS };

/*
 * What else is done between two stores.  The second one of two mappings, threads or
 * processes stores to every other place.
 */
enum mode { PLAIN, MAPS, MREMAP, MPROTECT, THREAD, FORK, RACE_THREAD, RACE_FORK, NR_MODES };

static const char * const method_names[] = { "sync_file_range", "msync", "fsync" };
static const char * const mode_names[] = {
	"plain", "maps", "mremap", "mprotect", "thread", "fork", "race-thread", "race-fork"
};

struct check {
	enum mode mode;
	enum method method;	/* of the first time */
	const struct layout *layout;
	char name[64];
};

/* What a second thread or process is asked to do; it is in shared memory */
enum request { IDLE, STORE, STORE_ON, QUIT };

struct helper {
	volatile enum request request;
	volatile bool stop;	/* STORE_ON is to end */
	char *map;
	size_t size, stride;
	uint64_t value;
};

static const char *prefix = "";
static const char *pattern = "*";
static char path[4096];
static size_t page;
static size_t pmd_size;
static char *area;		/* Where files are mapped */
static char *expected;		/* What the file should have */
static char *buf;
static struct helper *helper;
static pthread_t helper_thread;
static pid_t helper_pid;	/* 0: it is a thread */
static uint64_t last_value;

static void die(const char *what)
{
	printf("error %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(2);
}

/* Store @value to places @first, @first + @step, ... and note that it should be there */
static void store(char *map, size_t size, size_t stride, size_t first, size_t step,
		  uint64_t value, bool note)
{
	size_t offset;

	for (offset = first * stride; offset < size; offset += step * stride) {
		*(volatile uint64_t *)(map + offset) = value;
		if (note)
			*(uint64_t *)(expected + offset) = value;
	}
}

static void *help(void *arg)
{
	struct helper *h = arg;
	size_t offset;

	while (h->request != QUIT) {
		switch (h->request) {
		case STORE:
			store(h->map, h->size, h->stride, 1, 2, h->value, false);
			__atomic_store_n(&h->request, IDLE, __ATOMIC_SEQ_CST);
			break;
		case STORE_ON:
			for (offset = 0; !h->stop; offset += h->stride) {
				if (offset >= h->size)
					offset = 0;
				*(volatile uint64_t *)(h->map + offset) = ++h->value;
			}
			__atomic_store_n(&h->request, IDLE, __ATOMIC_SEQ_CST);
			break;
		default:
			sched_yield();
		}
	}
	return NULL;
}

static void ask(enum request request)
{
	helper->stop = false;
	__atomic_store_n(&helper->request, request, __ATOMIC_SEQ_CST);
}

static void wait_for_helper(void)
{
	while (__atomic_load_n(&helper->request, __ATOMIC_SEQ_CST) != IDLE)
		sched_yield();
}

static void start_helper(char *map, size_t size, size_t stride, bool thread)
{
	helper->request = IDLE;
	helper->map = map;
	helper->size = size;
	helper->stride = stride;
	helper->value = last_value + (1ULL << 32);
	helper_pid = 0;
	if (thread) {
		errno = pthread_create(&helper_thread, NULL, help, helper);
		if (errno)
			die("pthread_create");
		return;
	}
	helper_pid = fork();
	if (helper_pid < 0)
		die("fork");
	if (!helper_pid) {
		help(helper);
		_exit(0);
	}
}

static void stop_helper(void)
{
	int status;

	ask(QUIT);
	if (!helper_pid)
		pthread_join(helper_thread, NULL);
	else if (waitpid(helper_pid, &status, 0) != helper_pid || status)
		die("process");
}

static void write_back(int fd, char *map, size_t size, enum method method)
{
	int err = 0;

	switch (method) {
	case SYNC_FILE_RANGE:
		err = sync_file_range(fd, 0, size, SYNC_FILE_RANGE_WAIT_BEFORE |
				      SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
		break;
	case MSYNC:
		err = msync(map, size, MS_SYNC);
		break;
	default:
		err = fsync(fd);
	}
	if (err)
		die(method_names[method]);
}

static void drop_caches(const char *how)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	if (fd < 0 || write(fd, how, 1) != 1)
		die("drop_caches");
	close(fd);
}

static void drop_file(int fd)
{
	if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		die("fadvise");
	drop_caches("1");
}

static void *map_at(char *addr, size_t size, int fd)
{
	if (mmap(addr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != addr)
		die("mmap");
	return addr;
}

/* Give the address space back to @area */
static void unmap(char *addr, size_t size)
{
	if (mmap(addr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
		 -1, 0) != addr)
		die("munmap");
}

static char *move(char *from, char *to, size_t size)
{
	if (mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		die("mremap");
	unmap(from, size);
	return to;
}

static void protect(char *map, size_t size)
{
	if (mprotect(map, size, PROT_READ) || mprotect(map, size, PROT_READ | PROT_WRITE))
		die("mprotect");
}

static uint64_t read_u64(const char *file, off_t index)
{
	int fd = open(file, O_RDONLY);
	uint64_t value;

	if (fd < 0 || pread(fd, &value, sizeof(value), index * sizeof(value)) != sizeof(value))
		die(file);
	close(fd);
	return value;
}

/* Are pages that have been stored to in large folios?  They must all be, or none. */
static bool folios_are(char *map, size_t size, size_t stride, bool large)
{
	size_t offset;

	if (stride < size / PROBES)
		stride = size / PROBES;
	for (offset = 0; offset < size; offset += stride) {
		uint64_t pfn = read_u64("/proc/self/pagemap", (uintptr_t)(map + offset) / page);

		if (!!(read_u64("/proc/kpageflags", pfn & PM_PFN) & KPF_COMPOUND) != large)
			return false;
	}
	return true;
}

/* kB of the mapping that includes @map which PMDs map */
static unsigned long pmd_mapped(const char *map)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	unsigned long start, end, kb, found = 0;
	bool inside = false;
	char line[512];

	if (!smaps)
		die("smaps");
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= (uintptr_t)map && (uintptr_t)map < end;
		else if (inside && sscanf(line, "FilePmdMapped: %lu", &kb) == 1)
			found = kb;
	}
	fclose(smaps);
	return found;
}

/* A file whose pages are clean, and in large folios or not */
static int make_file(const struct layout *layout, size_t size)
{
	size_t chunk = layout->pmd ? pmd_size : layout->large ? size : page, offset;
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	if (fd < 0)
		die(path);
	drop_file(fd);
	memset(expected, 0, size);
	for (offset = 0; offset < size; offset += chunk)
		if (pwrite(fd, expected + offset, chunk, offset) != (ssize_t)chunk)
			die("write");
	if (fsync(fd))
		die("fsync");
	return fd;
}

/* memcmp() is slow where instructions that do it at once are emulated */
static bool same(const char *a, const char *b, size_t size)
{
	const uint64_t *p = (const uint64_t *)a, *q = (const uint64_t *)b;
	uint64_t different = 0;
	size_t i;

	for (i = 0; i < size / sizeof(*p); i++)
		different |= p[i] ^ q[i];
	return !different;
}

static bool file_is_expected(size_t size, int flags)
{
	int fd = open(path, O_RDONLY | flags);

	if (fd < 0)
		die(path);
	if (!flags)
		drop_file(fd);
	memset(buf, 0xff, size);
	if (pread(fd, buf, size, 0) != (ssize_t)size)
		die("read");
	close(fd);
	return same(buf, expected, size);
}

/* Returns whether the file has at the end what was stored to it */
static bool one_round(const struct check *check, unsigned int round)
{
	const struct layout *layout = check->layout;
	size_t size = layout->large ? FILE_SIZE : SMALL_PAGES * page;
	size_t stride = layout->stride ? : page;
	char *first = area + (layout->pmd ? 0 : page), *second = first + ALIGN;
	enum mode mode = check->mode;
	bool thread = mode == THREAD || mode == RACE_THREAD;
	bool race = mode == RACE_THREAD || mode == RACE_FORK;
	bool helps = thread || race || mode == FORK;
	int i, fd = make_file(layout, size);
	char *map = map_at(first, size, fd), *other = NULL;
	bool good = true, direct;

	if (mode == MAPS)
		other = map_at(second, size, fd);
	if (helps)
		start_helper(map, size, stride, thread);

	store(map, size, stride, 0, 1, ++last_value, true);
	if (!round) {
		if (!folios_are(map, size, stride, layout->large)) {
			printf("FAIL %s%s: folios are %s\n", prefix, check->name,
			       layout->large ? "small" : "large");
			good = false;
		}
		if (layout->pmd)
			printf("pmd %s%s: %lu kB\n", prefix, check->name, pmd_mapped(map));
	}
	if (race) {
		ask(STORE_ON);
		for (i = 0; i < RACE_SYNCS; i++) {
			sched_yield();
			write_back(fd, map, size, (round + i) % NR_METHODS);
		}
		sched_yield();
		helper->stop = true;
		wait_for_helper();
		memcpy(expected, map, size);
	} else {
		/* All mappings, threads and processes have the pages in their TLBs */
		if (mode == MREMAP)
			map = move(first, second, size);
		if (mode == MPROTECT)
			protect(map, size);
		store(map, size, stride, 0, 1, ++last_value, true);
		if (other)
			store(other, size, stride, 0, 1, ++last_value, true);
		if (helps) {
			helper->value = ++last_value;
			ask(STORE);
			wait_for_helper();
			store(expected, size, stride, 1, 2, last_value, false);
		}

		write_back(fd, map, size, check->method);

		last_value++;
		if (other)
			store(other, size, stride, 1, 2, last_value, true);
		if (helps) {
			helper->value = last_value;
			ask(STORE);
			wait_for_helper();
			store(expected, size, stride, 1, 2, last_value, false);
		}
		store(map, size, stride, 0, other || helps ? 2 : 1, last_value, true);
		if (mode == MREMAP)
			map = move(second, first, size);
		if (mode == MPROTECT)
			protect(map, size);
	}

	write_back(fd, map, size, round % 2 ? MSYNC : FSYNC);
	direct = file_is_expected(size, O_DIRECT);
	if (helps)
		stop_helper();
	unmap(map, size);
	if (other)
		unmap(other, size);
	close(fd);
	return file_is_expected(size, 0) && direct && good;
}

static bool run_check(const struct check *check, unsigned int rounds)
{
	unsigned int round, lost = 0;

	for (round = 0; round < rounds; round++)
		lost += !one_round(check, round);
	unlink(path);
	if (lost)
		printf("FAIL %s%s: lost %u of %u\n", prefix, check->name, lost, rounds);
	else
		printf("ok %s%s %u\n", prefix, check->name, rounds);
	fflush(stdout);
	return !lost;
}

static void call_for_checks(void (*func)(const struct check *check, void *arg), void *arg)
{
	struct check check;
	size_t i;

	for (check.mode = 0; check.mode < NR_MODES; check.mode++) {
		for (check.method = 0; check.method < NR_METHODS; check.method++) {
			/* The one that never sleeps, or all in turn */
			if (check.mode != PLAIN && check.method != SYNC_FILE_RANGE)
				continue;
			for (i = 0; i < sizeof(layouts) / sizeof(*layouts); i++) {
				check.layout = &layouts[i];
				snprintf(check.name, sizeof(check.name), "%s%s%s-%s",
					 mode_names[check.mode], check.mode ? "" : "-",
					 check.mode ? "" : method_names[check.method],
					 layouts[i].name);
				if (!fnmatch(pattern, check.name, 0))
					func(&check, arg);
			}
		}
	}
}

struct run {
	unsigned int rounds;
	unsigned int failed;
};

static void run_one(const struct check *check, void *arg)
{
	struct run *run = arg;

	run->failed += !run_check(check, run->rounds);
}

static void print_name(const struct check *check, void *arg)
{
	(void)arg;
	puts(check->name);
}

static unsigned int run_checks(const char *dir, unsigned int rounds)
{
	struct run run = { .rounds = rounds };
	char size[32] = "";
	int fd;

	/* It is not there if PMDs cannot map memory */
	fd = open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", O_RDONLY);
	if (fd >= 0 && read(fd, size, sizeof(size) - 1) > 0)
		pmd_size = strtoul(size, NULL, 0);
	if (fd >= 0)
		close(fd);
	if (!pmd_size || pmd_size > FILE_SIZE)
		pmd_size = FILE_SIZE;
	drop_caches("4");	/* and do not tell the kernel log from now on */
	snprintf(path, sizeof(path), "%s/wp.file", dir);
	call_for_checks(run_one, &run);
	return run.failed;
}

static void *get_memory(size_t size, int prot, int flags)
{
	void *p = mmap(NULL, size, prot, flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		die("memory");
	return p;
}

static void setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	area = get_memory(3 * ALIGN, PROT_NONE, MAP_PRIVATE);
	area = (char *)(((uintptr_t)area + ALIGN - 1) & ~(ALIGN - 1));
	expected = get_memory(FILE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	buf = get_memory(FILE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	helper = get_memory(sizeof(*helper), PROT_READ | PROT_WRITE, MAP_SHARED);
}

/* ---- as the first process of a guest ---- */

static void copy_device(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_DIRECT), out = open(to, O_WRONLY);
	off_t offset = 0;
	ssize_t n;

	if (in < 0 || out < 0)
		die(to);
	memset(expected, 0, FILE_SIZE);
	while ((n = read(in, buf, 1 << 20)) > 0) {
		if (!same(buf, expected, n) && pwrite(out, buf, n, offset) != n)
			die(to);
		offset += n;
	}
	if (n < 0 || fsync(out))
		die(from);
	close(in);
	close(out);
}

static void run_on(const char *fs, const char *device, const char *kind, unsigned int rounds)
{
	char name[64];

	snprintf(name, sizeof(name), "%s-%s/", fs, kind);
	prefix = name;
	if (mount(device, "/mnt", fs, 0, NULL))
		die(device);
	run_checks("/mnt", rounds);
	if (umount("/mnt"))
		die("umount");
}

/* The port's number depends on the order in which devices are found */
static int open_port(void)
{
	int tries, fd = -1;
	glob_t found;

	for (tries = 0; fd < 0 && tries < 100; tries++) {
		if (!glob("/dev/vport*", 0, NULL, &found)) {
			fd = open(found.gl_pathv[0], O_WRONLY);
			globfree(&found);
		}
		if (fd < 0)
			usleep(100000);
	}
	return fd;
}

static bool has_xfs(const char *device)
{
	char magic[4];
	int fd = open(device, O_RDONLY);

	if (fd < 0 || read(fd, magic, sizeof(magic)) != sizeof(magic))
		die(device);
	close(fd);
	return !memcmp(magic, "XFSB", sizeof(magic));
}

static void run_guest(void)
{
	const char *value = getenv("rounds");
	const char *devices = getenv("devices") ? : "";
	const char *ext4 = "/dev/vda", *xfs = "/dev/vdb";
	unsigned int rounds = value ? atoi(value) : 10;
	int port;

	pattern = getenv("checks") ? : pattern;
	/* On an initramfs, the kernel does not mount it */
	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/mnt", 0755);
	if ((mount("dev", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY) ||
	    mount("proc", "/proc", "proc", 0, NULL) || mount("sys", "/sys", "sysfs", 0, NULL))
		die("mount");
	port = open_port();
	if (port < 0 || dup2(port, STDOUT_FILENO) < 0)
		die("port");
	printf("start wp, page size %zu, CPUs: %ld\n", page, sysconf(_SC_NPROCESSORS_ONLN));
	fflush(stdout);
	if (has_xfs(ext4)) {
		ext4 = "/dev/vdb";
		xfs = "/dev/vda";
	}
	if (strcmp(devices, "disk")) {
		copy_device(ext4, "/dev/ram0");
		copy_device(xfs, "/dev/ram1");
		run_on("ext4", "/dev/ram0", "ram", rounds);
		run_on("xfs", "/dev/ram1", "ram", rounds);
	}
	if (strcmp(devices, "ram")) {
		run_on("ext4", ext4, "disk", rounds);
		run_on("xfs", xfs, "disk", rounds);
	}
	printf("end wp\n");
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT);
}

int main(int argc, char *argv[])
{
	setup();
	if (getpid() == 1) {
		run_guest();
		return 1;
	}
	if (argc > 1 && !strcmp(argv[1], "list")) {
		if (argc > 2)
			pattern = argv[2];
		call_for_checks(print_name, NULL);
		return 0;
	}
	if (argc < 3) {
		fprintf(stderr, "usage: wp DIR ROUNDS [PREFIX [PATTERN]]\n");
		return 2;
	}
	if (argc > 3)
		prefix = argv[3];
	if (argc > 4)
		pattern = argv[4];
	return run_checks(argv[1], atoi(argv[2])) ? 1 : 0;
}
