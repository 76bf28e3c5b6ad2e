// SPDX-License-Identifier: GPL-2.0
/*
 * What dirty tracking and fsync of mapped files cost.
 *
 *	bench DIR [CONFIG [PART]]
 *
 * makes files in DIR, a directory on ext4 or XFS with or without DAX, and prints
 * lines "bench CONFIG MEASURE PARAMETERS VALUE".  CONFIG is only printed.  PART is one of
 * those that main() lists; all are run if there is none.
 *
 * Values are nanoseconds of CLOCK_MONOTONIC unless said otherwise below, each the
 * median of up to nine repetitions, as many as fit in LONG_TIME.  Where QEMU counts
 * instructions (-icount shift=0), a nanosecond is one instruction.
 *
 * A page is hot if fsync leaves it writable, because it has been stored to again after it had
 * been cleaned.  What follows is about pages that are not hot unless it says so: each time,
 * they are unmapped before they are stored to.  Kernels without hot pages have nothing that
 * depends on that.
 *
 * With DAX, on files whose blocks are allocated and written:
 *
 *   fsync-page		fdatasync of n pages dirtied through a mapping, per page of
 *	4 KiB.  order=dense: the first n of the file; sparse: every other one;
 *	shuffled: n of the first 2n, and stored to, in random order.  processes=2:
 *	another process has stored to them, too.  entry=pte or pmd: what they are
 *	mapped by.  cpus=2: another thread has just run on another CPU, which is idle
 *	now.  It is fdatasync because fsync also commits the inode if, and only if,
 *	the clock that time stamps use has ticked since the last one.
 *   fsync-call		the whole call, fsync or fdatasync, with n dirty pages
 *   durable		store to "lines" cache lines of each of n pages that have been stored
 *	to before, and make that durable, per page.  how=fdatasync: store through a
 *	mapping, and call it, again and again, so that the pages are hot; clwb: the
 *	lines by CLWB and SFENCE, with MAP_SYNC; clwb-page: all lines of the page;
 *	write: pwrite() of the lines, and fdatasync.  Without DAX, fdatasync and
 *	write only.
 *   hot		store to a cache line of each of n hot pages, and fdatasync, per page, of
 *	a file of which all pages are mapped; "order" is that of fsync-page
 *   decay-total	50 times that with "stored" of n hot pages, and none of the others:
 *	all of it.  decay-longest: the longest of the 50
 *   fsync-one		fdatasync with one dirty page that four mappings have, of a
 *	file of which "mapped" pages are mapped in total
 *   fault-cleaned	store to a page that was cleaned, by sync_file_range, which leaves no
 *	page writable
 *   fault-second	store to a page that fsync has cleaned for the first time: this makes
 *	it hot.  One repetition
 *   fault-first	store to a page that nobody has touched
 *   stall		the longest time a store took while another thread did what
 *	"other" says: fsync of a file with n dirty pages, stored to at random, or,
 *	to compare, nothing but use its CPU.  entry=pmd: fsyncs one after the other
 *	of 2 MiB that are mapped as one.  stall-fsync is the time of such an fsync.
 *	QEMU runs its CPUs in turn when it counts instructions, and counts those of
 *	all: so stall-fsync is not comparable with fsync-page, and a turn of the
 *	other CPU, up to 20 us, may be part of stall.  Those few of n=16384 pages that
 *	are stored to after they have been cleaned get hot.
 *   remove		unlink, or truncate to 0, of a file of n dirty pages, per
 *	page; mapped=1: while it is mapped; mapped=0: unmapped before
 *   write-cow		write of 4 KiB that gives a file blocks of its own instead of
 *	those that it shares with a clone (XFS); at=100: at 100 bytes into one block,
 *	so that it gets two
 *   write, read, store	of 4 KiB by system call, and to a page that was not mapped, per
 *	page, by as many threads as "threads" says, each in a part of its own of the
 *	same file.  file=plain: one that never shared blocks; cloned: one whose clone
 *	is gone again (XFS); shared: one that shares all of them.
 *   load		of each page of a file that is aligned for PMDs, per page
 *   tlb		number of TLB flushes (nr_tlb_* in /proc/vmstat) in an fsync
 *	of n dirty pages while another thread of the process runs on another CPU
 *   calls		number of calls of a kernel function in the same; those that
 *	wanted[] lists, and all that are called for every eighth page or more often.
 *	The kernel cuts names to 30 characters.
 *   hot-threads	as tlb, with pages that are hot
 *
 * Without DAX, on a file that the page cache has in folios of "folio" pages.  reader=1:
 * another process has mapped it with PROT_READ.
 *
 *   cache-fault	store to a page that the last fsync has cleaned
 *   cache-fsync	fsync of n dirty pages, per page
 *   cache-folio	average number of pages in a folio; only root is told
 *   cache-tlb		as tlb, with one thread
 *
 * tlb and hot-threads need CONFIG_DEBUG_TLBFLUSH, calls CONFIG_FUNCTION_PROFILER and root;
 * without, their lines are missing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "profile.h"

#define PAGE 4096ul
#define PMD (512 * PAGE)
#define LINE 64ul
#define MAX_REPS 9
#define LONG_TIME 120000000ull
#define LARGEST 262144ul	/* pages of the largest file */
#define COUNTED 4096ul		/* pages whose fsync is looked at closely */
#define NR_COW 512
#define WARM_UP 3		/* stores and syncs until pages are hot, and one more */
#define NR_DECAY 50
#define DECAY_STORED 16

#ifndef STATX_ATTR_DAX
#define STATX_ATTR_DAX 0x00200000
#endif

static const char *dir, *config = "-", *part;

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *fmt, ...)
{
	va_list ap;

	printf("fail %s ", config);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

static void check(long ret, const char *what)
{
	if (ret < 0)
		fail("%s: %s", what, strerror(errno));
}

static void __attribute__((format(printf, 3, 4))) result(const char *measure, double value,
							 const char *fmt, ...)
{
	va_list ap;

	printf("bench %s %s ", config, measure);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(" %.0f\n", value);
	profile_mark(PROFILE_RESULT);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* The same, where what is measured begins */
static uint64_t begin(void)
{
	profile_mark(PROFILE_START);
	return now();
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static uint32_t random_below(uint32_t limit)
{
	static uint64_t state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 20) % limit;
}

/**
 * struct reps - the repetitions of one measurement
 *
 * Used as: for (r.n = 0; again(&r); ) { prepare; t = begin(); ...; add(&r, now() - t); }
 */
struct reps {
	uint64_t value[MAX_REPS];
	uint64_t start;
	int n;
};

static bool again(struct reps *r)
{
	if (!r->n)
		r->start = now();
	return !r->n || (r->n < MAX_REPS && now() - r->start < LONG_TIME);
}

static void add(struct reps *r, uint64_t value)
{
	profile_mark(PROFILE_STOP);
	r->value[r->n++] = value;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static double median(struct reps *r)
{
	qsort(r->value, r->n, sizeof(r->value[0]), compare);
	return (r->value[(r->n - 1) / 2] + r->value[r->n / 2]) / 2.0;
}

static const char *path(const char *name)
{
	static char buf[4096];

	snprintf(buf, sizeof(buf), "%s/bench.%s", dir, name);
	return buf;
}

/*
 * A file of @nr pages, all of them written and durable.  They are written in pieces of @piece
 * pages at most: the page cache makes folios of that size.
 */
static int create_in_pieces(const char *name, size_t nr, size_t piece)
{
	static char buf[PMD];
	int fd = open(path(name), O_RDWR | O_CREAT | O_TRUNC, 0600);

	check(fd, "open");
	check(ftruncate(fd, nr * PAGE), "ftruncate");
	/* Large extents, if the file system can */
	if (fallocate(fd, 0, 0, nr * PAGE) && errno != EOPNOTSUPP)
		fail("fallocate: %s", strerror(errno));
	memset(buf, 'b', sizeof(buf));
	for (size_t done = 0; done < nr * PAGE; ) {
		size_t len = piece * PAGE < nr * PAGE - done ? piece * PAGE : nr * PAGE - done;
		ssize_t n = write(fd, buf, len);

		check(n, "write");
		done += n;
	}
	check(fsync(fd), "fsync");
	return fd;
}

static int create(const char *name, size_t nr)
{
	return create_in_pieces(name, nr, PMD / PAGE);
}

/*
 * What goes on in the background is no part of what comes next.  XFS frees the blocks
 * of an unlinked file a little later.
 */
static void settle(void)
{
	struct timespec t = { .tv_nsec = 20000000 };

	sync();
	nanosleep(&t, NULL);
}

static void drop(const char *name, int fd)
{
	close(fd);
	check(unlink(path(name)), "unlink");
	settle();
}

/*
 * Map @nr pages, at a multiple of PMD or one page beyond that: DAX then has no choice
 * but to map by PTEs.
 */
static char *map(int fd, size_t nr, bool pmd)
{
	char *hint = mmap(NULL, nr * PAGE + 2 * PMD, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *p;

	if (hint == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	munmap(hint, nr * PAGE + 2 * PMD);
	p = (char *)(((uintptr_t)hint + PMD - 1) & -PMD) + (pmd ? 0 : PAGE);
	p = mmap(p, nr * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (p == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	return p;
}

/* Number of 4 KiB pages of a mapping that are mapped by PMDs */
static size_t pmd_mapped(const char *p, size_t nr)
{
	struct page_region region[64];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)p, .end = (uintptr_t)p + nr * PAGE,
		.vec = (uintptr_t)region, .vec_len = 64,
		.category_mask = PAGE_IS_HUGE, .return_mask = PAGE_IS_HUGE,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY), n;
	size_t sum = 0;

	if (fd < 0)
		return 0;
	n = ioctl(fd, PAGEMAP_SCAN, &arg);
	close(fd);
	for (int i = 0; i < n; i++)
		sum += (region[i].end - region[i].start) / PAGE;
	return sum;
}

enum order { DENSE, SPARSE, SHUFFLED };
static const char * const order_names[] = { "dense", "sparse", "shuffled" };

/* Pages in the order they are stored to; room for 2 * LARGEST */
static uint32_t *pages;

static void set_order(enum order order, size_t nr)
{
	for (size_t i = 0; i < (order == SHUFFLED ? 2 * nr : nr); i++)
		pages[i] = order == SPARSE ? 2 * i : i;
	for (size_t i = 0; order == SHUFFLED && i < nr; i++) {
		size_t j = i + random_below(2 * nr - i);
		uint32_t page = pages[i];

		pages[i] = pages[j];
		pages[j] = page;
	}
}

static inline void store(char *p, size_t page)
{
	*(volatile char *)(p + page * PAGE) = 'd';
}

static void dirty(char *p, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		store(p, pages[i]);
}

static void dirty_first(char *p, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		store(p, i);
}

/*
 * Unmap @nr pages, which stay in the file's mapping.  To store to one is no write fault of a clean
 * page then, so that does not make it hot.
 */
static void zap(char *p, size_t nr)
{
	check(madvise(p, nr * PAGE, MADV_DONTNEED), "madvise");
}

/* Dirty the pages, none of which gets hot */
static void dirty_cold(char *p, size_t nr)
{
	uint32_t last = 0;

	for (size_t i = 0; i < nr; i++)
		if (pages[i] > last)
			last = pages[i];
	zap(p, last + 1);
	dirty(p, nr);
}

/* The same with the first @nr pages */
static void dirty_first_cold(char *p, size_t nr)
{
	zap(p, nr);
	dirty_first(p, nr);
}

/* Write back and write-protect all dirty pages, also those that fsync would leave writable */
static void clean(int fd)
{
	check(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
			      SYNC_FILE_RANGE_WAIT_AFTER), "sync_file_range");
}

/* Another process with the same mapping; it dirties the pages when told how many */
struct process {
	pid_t pid;
	int to, from;
};

static struct process fork_process(char *p)
{
	int to[2], from[2];
	struct process child;

	check(pipe(to), "pipe");
	check(pipe(from), "pipe");
	child.pid = fork();
	check(child.pid, "fork");
	if (!child.pid) {
		size_t nr;

		close(to[1]);
		while (read(to[0], &nr, sizeof(nr)) == sizeof(nr)) {
			dirty_cold(p, nr);
			if (write(from[1], &nr, sizeof(nr)) < 0)
				break;
		}
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	child.to = to[1];
	child.from = from[0];
	return child;
}

static void dirty_in(struct process *child, size_t nr)
{
	if (write(child->to, &nr, sizeof(nr)) < 0 ||
	    read(child->from, &nr, sizeof(nr)) != sizeof(nr))
		fail("the second process has died");
}

static void end_process(struct process *child)
{
	close(child->to);
	close(child->from);
	waitpid(child->pid, NULL, 0);
}

/* fsync-page of file @fd, @nr pages of which are mapped at @p, up to @limit dirty ones */
static void bench_fsync_page(int fd, char *p, size_t nr, size_t first, size_t limit,
			     enum order order, int processes, const char *entry)
{
	struct process child;

	if (processes == 2)
		child = fork_process(p);
	for (size_t n = first; n <= limit; n *= 4) {
		struct reps r = {};

		if ((order == DENSE ? n : 2 * n) > nr)
			break;
		set_order(order, n);
		/* Also in the child, which shares the array */
		while (again(&r)) {
			uint64_t t;

			dirty_cold(p, n);
			if (processes == 2)
				dirty_in(&child, n);
			t = begin();
			check(fdatasync(fd), "fdatasync");
			add(&r, now() - t);
		}
		result("fsync-page", median(&r) / n, "n=%zu,order=%s,processes=%d,entry=%s",
		       n, order_names[order], processes, entry);
	}
	if (processes == 2)
		end_process(&child);
}

static void bench_fsync_call(int fd, char *p, size_t n)
{
	for (int data = 0; data < 2; data++) {
		struct reps r = {};

		while (again(&r)) {
			uint64_t t;

			dirty_first_cold(p, n);
			t = begin();
			check(data ? fdatasync(fd) : fsync(fd), "fsync");
			add(&r, now() - t);
		}
		result("fsync-call", median(&r), "n=%zu,call=%s", n,
		       data ? "fdatasync" : "fsync");
	}
}

/* In a file of its own, whose pages get hot */
static void bench_fault_cleaned(size_t n, const char *entry)
{
	int fd = create("cleaned", n);
	char *p = map(fd, n, false);
	struct reps second = {}, r = {};
	uint64_t t;

	dirty_first(p, n);
	check(fsync(fd), "fsync");
	t = begin();
	dirty_first(p, n);
	add(&second, now() - t);
	result("fault-second", median(&second) / n, "n=%zu,entry=%s", n, entry);

	while (again(&r)) {
		clean(fd);
		t = begin();
		dirty_first(p, n);
		add(&r, now() - t);
	}
	result("fault-cleaned", median(&r) / n, "n=%zu,entry=%s", n, entry);
	munmap(p, n * PAGE);
	drop("cleaned", fd);
}

static void bench_small(void)
{
	struct reps first = {};
	size_t n = COUNTED;
	uint64_t t;
	char *p;
	int fd;

	while (again(&first)) {
		fd = create("small", n);
		p = map(fd, n, false);
		t = begin();
		dirty_first(p, n);
		add(&first, now() - t);
		munmap(p, n * PAGE);
		drop("small", fd);
	}
	result("fault-first", median(&first) / n, "n=%zu,entry=pte", n);

	bench_fault_cleaned(n, "pte");

	fd = create("small", n);
	p = map(fd, n, false);
	dirty_first(p, n);
	check(fsync(fd), "fsync");
	bench_fsync_call(fd, p, 0);
	bench_fsync_call(fd, p, 1);
	bench_fsync_call(fd, p, n);
	munmap(p, n * PAGE);
	drop("small", fd);
}

enum how { FDATASYNC, CLWB, CLWB_PAGE, PWRITE };
static const char * const how_names[] = { "fdatasync", "clwb", "clwb-page", "write" };

static void flush_lines(char *p, size_t lines)
{
#ifdef __x86_64__
	for (size_t i = 0; i < lines; i++)
		asm volatile("clwb %0" : "+m" (p[i * LINE]));
#endif
}

/* The n pages at @p, the start of file @fd */
static void make_durable(int fd, char *p, size_t n, size_t lines, enum how how)
{
	static const char buf[PAGE];

	for (size_t i = 0; i < n; i++) {
		char *page = p + i * PAGE;

		if (how == PWRITE) {
			check(pwrite(fd, buf, lines * LINE, i * PAGE), "pwrite");
			continue;
		}
		for (size_t line = 0; line < lines; line++)
			*(volatile char *)(page + line * LINE) = 'd';
		if (how != FDATASYNC)
			flush_lines(page, how == CLWB ? lines : PAGE / LINE);
	}
	if (how == FDATASYNC || how == PWRITE)
		check(fdatasync(fd), "fdatasync");
#ifdef __x86_64__
	else
		asm volatile("sfence" ::: "memory");
#endif
}

static void bench_durable_how(int fd, char *p, enum how how, int warm_up)
{
	static const size_t nrs[] = { 1, 16, COUNTED }, lines[] = { 1, 8, PAGE / LINE };

	for (int i = 0; i < 9; i++) {
		struct reps r = {};
		size_t n = nrs[i / 3];

		for (int j = 0; j < warm_up; j++)
			make_durable(fd, p, n, lines[i % 3], how);
		while (again(&r)) {
			uint64_t t = begin();

			make_durable(fd, p, n, lines[i % 3], how);
			add(&r, now() - t);
		}
		result("durable", median(&r) / n, "n=%zu,lines=%zu,how=%s", n, lines[i % 3],
		       how_names[how]);
	}
}

static void bench_durable(bool dax)
{
	int fd = create("durable", COUNTED);
	char *p = map(fd, COUNTED, false);

	bench_durable_how(fd, p, FDATASYNC, dax ? WARM_UP : 1);
	munmap(p, COUNTED * PAGE);
	bench_durable_how(fd, NULL, PWRITE, 1);
#ifdef __x86_64__
	if (dax) {
		p = mmap(NULL, COUNTED * PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
		if (p == MAP_FAILED)
			fail("mmap with MAP_SYNC: %s", strerror(errno));
		bench_durable_how(fd, p, CLWB, 1);
		bench_durable_how(fd, p, CLWB_PAGE, 1);
		munmap(p, COUNTED * PAGE);
	}
#endif
	drop("durable", fd);
}

static void bench_pmd(size_t nr)
{
	int fd = create("pmd", nr);
	char *p = map(fd, nr, true);

	for (size_t i = 0; i < nr; i += 512)
		store(p, i);
	if (pmd_mapped(p, nr) == nr)
		bench_fsync_page(fd, p, nr, 1024, nr, DENSE, 1, "pmd");
	else
		fprintf(stderr, "bench: %s: the file is not mapped by PMDs\n", config);
	munmap(p, nr * PAGE);
	drop("pmd", fd);
}

static void bench_fsync_one(int fd, char *p[4], size_t mapped)
{
	struct reps r = {};

	while (again(&r)) {
		uint64_t t;

		for (int i = 0; i < 4; i++)
			zap(p[i], 1);
		for (int i = 0; i < 4; i++)
			store(p[i], 0);
		t = begin();
		check(fdatasync(fd), "fdatasync");
		add(&r, now() - t);
	}
	result("fsync-one", median(&r), "mapped=%zu", mapped);
}

static void read_pages(char *p, size_t nr)
{
	if (!madvise(p, nr * PAGE, MADV_POPULATE_READ))
		return;
	for (size_t i = 0; i < nr; i++)
		(void)*(volatile char *)(p + i * PAGE);
}

static void bench_large(size_t nr)
{
	static const size_t limit[2][3] = {
		/* Dirtying them costs much more than what is measured */
		{ LARGEST, LARGEST / 4, LARGEST / 4 },
		{ LARGEST / 16, LARGEST / 16, LARGEST / 16 },
	};
	int fd = create("large", nr);
	char *p[4];

	for (int i = 0; i < 4; i++)
		p[i] = map(fd, nr, false);
	bench_fsync_one(fd, p, 4);
	for (int i = 1; i < 4; i++)
		munmap(p[i], nr * PAGE);

	for (int processes = 1; processes <= 2; processes++)
		for (int order = DENSE; order <= SHUFFLED; order++)
			bench_fsync_page(fd, p[0], nr, 1, limit[processes - 1][order], order,
					 processes, "pte");

	for (int i = 1; i < 4; i++)
		p[i] = map(fd, nr, false);
	for (int i = 0; i < 4; i++)
		read_pages(p[i], nr);
	bench_fsync_one(fd, p, 4 * nr);
	for (int i = 0; i < 4; i++)
		munmap(p[i], nr * PAGE);
	drop("large", fd);
}

/* Store to the pages, and make that durable */
static void sync_dirty(int fd, char *p, size_t n)
{
	dirty(p, n);
	check(fdatasync(fd), "fdatasync");
}

static void make_hot(int fd, char *p, size_t n)
{
	for (int i = 0; i < WARM_UP; i++)
		sync_dirty(fd, p, n);
}

/* Few of the hot pages, far from each other, are still stored to */
static void bench_decay(int fd, char *p, size_t n)
{
	uint64_t total = 0, worst = 0;

	set_order(DENSE, n);
	make_hot(fd, p, n);
	for (size_t i = 0; i < DECAY_STORED; i++)
		pages[i] = i * (n / DECAY_STORED);
	for (int i = 0; i < NR_DECAY; i++) {
		uint64_t t = begin();

		sync_dirty(fd, p, DECAY_STORED);
		t = now() - t;
		profile_mark(PROFILE_STOP);
		total += t;
		if (t > worst)
			worst = t;
	}
	result("decay-total", total, "n=%zu,stored=%d", n, DECAY_STORED);
	result("decay-longest", worst, "n=%zu,stored=%d", n, DECAY_STORED);
}

static void bench_hot(void)
{
	static const size_t nrs[] = { 1, 16, COUNTED };
	size_t nr = 2 * COUNTED;
	int fd = create("hot", nr);
	char *p = map(fd, nr, false);

	read_pages(p, nr);
	for (int i = 0; i < 9; i++) {
		enum order order = i / 3;
		size_t n = nrs[i % 3];
		struct reps r = {};

		set_order(order, n);
		make_hot(fd, p, n);
		while (again(&r)) {
			uint64_t t = begin();

			sync_dirty(fd, p, n);
			add(&r, now() - t);
		}
		result("hot", median(&r) / n, "n=%zu,order=%s", n, order_names[order]);
		/* What is hot now is not looked at before it is stored to */
		clean(fd);
	}
	bench_decay(fd, p, COUNTED);
	munmap(p, nr * PAGE);
	drop("hot", fd);
}

static void bench_remove(size_t n)
{
	for (int i = 0; i < 4; i++) {
		bool unlinked = i & 1, mapped = i & 2;
		struct reps r = {};

		while (again(&r)) {
			int fd = create("remove", n);
			char *p = map(fd, n, false);
			uint64_t t;

			dirty_first(p, n);
			if (!mapped)
				munmap(p, n * PAGE);
			t = begin();
			if (unlinked) {
				unlink(path("remove"));
				if (mapped)
					munmap(p, n * PAGE);
				close(fd);
			} else {
				check(ftruncate(fd, 0), "ftruncate");
			}
			add(&r, now() - t);
			if (!unlinked) {
				if (mapped)
					munmap(p, n * PAGE);
				drop("remove", fd);
			}
			settle();
		}
		result("remove", median(&r) / n, "n=%zu,how=%s,mapped=%d", n,
		       unlinked ? "unlink" : "truncate", mapped);
	}
}

static void bench_write_cow(void)
{
	static char buf[PAGE];
	int source = create("source", 2 * NR_COW + 1);

	for (int at = 0; at <= 100; at += 100) {
		struct reps r = {};

		while (again(&r)) {
			int fd = open(path("clone"), O_RDWR | O_CREAT | O_TRUNC, 0600);
			uint64_t t;

			check(fd, "open");
			if (ioctl(fd, FICLONE, source)) {
				drop("clone", fd);
				goto out;
			}
			check(fsync(fd), "fsync");
			t = begin();
			for (off_t i = 0; i < NR_COW; i++)
				check(pwrite(fd, buf, PAGE, (at ? 2 * i : i) * PAGE + at), "pwrite");
			add(&r, now() - t);
			drop("clone", fd);
		}
		result("write-cow", median(&r) / NR_COW, "at=%d", at);
	}
out:
	drop("source", source);
}

/* Threads on another CPU, until @stop */
enum io { WRITE, READ, STORE };
static const char * const io_names[] = { "write", "read", "store" };

struct io_thread {
	pthread_t thread;
	enum io io;
	int fd;
	char *p;
	size_t first, nr;
};

static void *do_io(void *arg)
{
	struct io_thread *t = arg;
	char buf[PAGE] = "";

	for (size_t i = t->first; i < t->first + t->nr; i++) {
		if (t->io == WRITE)
			check(pwrite(t->fd, buf, PAGE, i * PAGE), "pwrite");
		else if (t->io == READ)
			check(pread(t->fd, buf, PAGE, i * PAGE), "pread");
		else
			store(t->p, i);
	}
	return NULL;
}

/* All pages of @fd by @threads threads; the time that it takes */
static uint64_t io_by_threads(enum io io, int fd, int threads)
{
	struct io_thread t[4];
	size_t nr = NR_COW / threads;
	char *p = map(fd, NR_COW, false);
	uint64_t start = now(), took;

	for (int i = 0; i < threads; i++) {
		t[i] = (struct io_thread) { .io = io, .fd = fd, .p = p, .first = i * nr, .nr = nr };
		if (threads == 1)
			do_io(&t[i]);
		else if (pthread_create(&t[i].thread, NULL, do_io, &t[i]))
			fail("pthread_create");
	}
	for (int i = 0; i < threads && threads > 1; i++)
		pthread_join(t[i].thread, NULL);
	took = now() - start;
	munmap(p, NR_COW * PAGE);
	return took;
}

static void bench_io(int fd, const char *file)
{
	for (enum io io = WRITE; io <= STORE; io++)
		for (int threads = 1; threads <= 4; threads += 3) {
			struct reps r = {};

			while (again(&r)) {
				check(fsync(fd), "fsync");
				add(&r, io_by_threads(io, fd, threads));
			}
			result(io_names[io], median(&r) / NR_COW, "file=%s,threads=%d", file, threads);
		}
}

/* All pages of @fd are loaded from; its entries stay, page tables do not */
static void bench_load(int fd, const char *file)
{
	struct reps r = {};

	while (again(&r)) {
		char *p = map(fd, NR_COW, true);
		uint64_t t = begin();

		for (size_t i = 0; i < NR_COW; i++)
			*(volatile char *)(p + i * PAGE);
		add(&r, now() - t);
		munmap(p, NR_COW * PAGE);
	}
	result("load", median(&r) / NR_COW, "file=%s", file);
}

static void bench_sharing(void)
{
	int fd = create("plain", NR_COW), clone;

	bench_load(fd, "plain");
	bench_io(fd, "plain");
	clone = open(path("clone"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	check(clone, "open");
	if (ioctl(clone, FICLONE, fd)) {
		drop("clone", clone);
		drop("plain", fd);
		return;
	}
	bench_load(fd, "shared");
	for (int threads = 1; threads <= 4; threads += 3) {
		struct reps r = {};

		while (again(&r)) {
			check(ioctl(clone, FICLONE, fd), "FICLONE");
			check(fsync(clone), "fsync");
			add(&r, io_by_threads(STORE, clone, threads));
		}
		result("store", median(&r) / NR_COW, "file=shared,threads=%d", threads);
	}
	drop("clone", clone);
	bench_io(fd, "cloned");
	drop("plain", fd);
}

static volatile bool stop, started;
static uint64_t longest;
static size_t stored_pages;
static pthread_t storer;

static void *keep_cpu_busy(void *arg)
{
	pin(1);
	started = true;
	while (!stop)
		__builtin_ia32_pause();
	return arg;
}

static void pause_us(long us)
{
	struct timespec t = { .tv_nsec = us * 1000 };

	nanosleep(&t, NULL);
}

/* For how many us each time is what @arg points to */
static void *sleep_often(void *arg)
{
	pin(1);
	prctl(PR_SET_TIMERSLACK, 1);
	while (!stop)
		pause_us(*(long *)arg);
	return arg;
}

static void *store_often(void *arg)
{
	char *p = arg;

	pin(1);
	prctl(PR_SET_TIMERSLACK, 1);
	longest = 0;
	while (!stop) {
		size_t page = random_below(stored_pages);
		uint64_t t = now();

		store(p, page);
		t = now() - t;
		if (t > longest)
			longest = t;
		started = true;
		pause_us(10);
	}
	return NULL;
}

static void start_thread(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	stop = started = false;
	errno = pthread_create(thread, NULL, fn, arg);
	if (errno)
		fail("pthread_create: %s", strerror(errno));
}

static void wait_until_started(void)
{
	while (!started)
		pause_us(100);
}

/*
 * Let the CPU of this thread be interrupted every @us, until the file descriptor that
 * this returns is closed: a CPU's turn ends when a timer expires, see stall above.  It
 * does no harm where CPUs take no turns, and to be refused it is none either.
 */
static int interrupt_often(int us)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = us * 1000,
	};

	return syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static void start_storing(char *p)
{
	start_thread(&storer, store_often, p);
	wait_until_started();
}

static uint64_t stop_storing(void)
{
	stop = true;
	pthread_join(storer, NULL);
	return longest;
}

/*
 * The longest store while this thread fsyncs a file, and that while it does not; the
 * former first, as that says how long.
 */
static void bench_stall(const char *entry, size_t n)
{
	int fd = create("stall", n);
	bool pmd = !strcmp(entry, "pmd");
	char *p = map(fd, n, pmd);
	struct reps with = {}, without = {}, syncs = {};
	int clock;

	stored_pages = n;
	dirty_first(p, n);
	if (pmd && pmd_mapped(p, n) != n)
		goto out;
	clock = interrupt_often(20);
	while (again(&with)) {
		uint64_t took = 0, start;
		int calls = 0;

		dirty_first_cold(p, n);
		start_storing(p);
		start = now();
		do {
			uint64_t t = now();

			check(fdatasync(fd), "fdatasync");
			took += now() - t;
			calls++;
			/* Let there be another store */
			pause_us(50);
		} while (now() - start < LONG_TIME / 12);
		add(&with, stop_storing());
		add(&syncs, took / calls);

		check(fsync(fd), "fsync");
		took = now() - start;
		start_storing(p);
		start = now();
		while (now() - start < took)
			__builtin_ia32_pause();
		add(&without, stop_storing());
	}
	result("stall", median(&with), "n=%zu,entry=%s,other=fsync", n, entry);
	result("stall", median(&without), "n=%zu,entry=%s,other=spin", n, entry);
	result("stall-fsync", median(&syncs), "n=%zu,entry=%s", n, entry);
	close(clock);
out:
	munmap(p, n * PAGE);
	drop("stall", fd);
}

/* Counters of TLB flushes; name and value */
static const char * const tlb_names[] = {
	"nr_tlb_remote_flush", "nr_tlb_remote_flush_received",
	"nr_tlb_local_flush_all", "nr_tlb_local_flush_one",
};
#define NR_TLB 4

static bool read_tlb(uint64_t value[NR_TLB])
{
	FILE *f = fopen("/proc/vmstat", "r");
	char name[64];
	uint64_t v;
	int found = 0;

	if (!f)
		return false;
	while (fscanf(f, "%63s %lu", name, &v) == 2)
		for (int i = 0; i < NR_TLB; i++)
			if (!strcmp(name, tlb_names[i])) {
				value[i] = v;
				found++;
			}
	fclose(f);
	return found == NR_TLB;
}

/* How many of them a sync call takes, where the kernel tells */
static void count_tlb(const char *measure, const char *params, int fd, int (*sync_file)(int))
{
	uint64_t before[NR_TLB], after[NR_TLB];

	if (!read_tlb(before))
		return;
	check(sync_file(fd), measure);
	read_tlb(after);
	for (int i = 0; i < NR_TLB; i++)
		result(measure, after[i] - before[i], "%s,event=%s", params, tlb_names[i] + 7);
}

#define TRACING "/sys/kernel/tracing/"

static bool profile(bool on)
{
	int fd = open(TRACING "function_profile_enabled", O_WRONLY);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, on ? "1" : "0", 1) == 1;
	close(fd);
	return ok;
}

/* What is of interest even if it is not called */
static const char * const wanted[] = {
	"_raw_spin_lock", "_raw_spin_lock_irq", "_raw_spin_lock_irqsave", "down_read",
	"flush_tlb_mm_range", "ptep_clear_flush", "pmdp_invalidate", "dax_flush",
	"arch_wb_cache_pmem", "page_vma_mapped_walk", "handle_mm_fault",
};
#define NR_WANTED (sizeof(wanted) / sizeof(wanted[0]))
#define MAX_FUNCTIONS 4096

struct function {
	char name[64];
	uint64_t calls;
};

static struct function functions[MAX_FUNCTIONS];
static size_t nr_functions;

static struct function *function(const char *name)
{
	size_t i;

	for (i = 0; i < nr_functions; i++)
		if (!strcmp(functions[i].name, name))
			return &functions[i];
	if (nr_functions == MAX_FUNCTIONS)
		fail("too many functions");
	snprintf(functions[i].name, sizeof(functions[i].name), "%s", name);
	nr_functions++;
	return &functions[i];
}

/* Add up what each CPU has called */
static void read_profile(void)
{
	char line[256], name[64];
	uint64_t calls;

	for (int cpu = 0; cpu < 2; cpu++) {
		FILE *f;

		snprintf(line, sizeof(line), TRACING "trace_stat/function%d", cpu);
		f = fopen(line, "r");
		if (!f)
			continue;
		while (fgets(line, sizeof(line), f))
			if (sscanf(line, " %63s %lu", name, &calls) == 2)
				function(name)->calls += calls;
		fclose(f);
	}
}

static int more_calls(const void *a, const void *b)
{
	const struct function *x = a, *y = b;

	return x->calls != y->calls ? (x->calls < y->calls ? 1 : -1) : strcmp(x->name, y->name);
}

static void bench_counts(void)
{
	size_t n = COUNTED;
	int fd = create("counts", n);
	char *p = map(fd, n, false);
	pthread_t thread;
	uint64_t sum = 0;
	long us = 1000;
	char params[32];

	start_thread(&thread, sleep_often, &us);
	bench_fault_cleaned(n, "pte,cpus=2");
	bench_fsync_page(fd, p, n, n, n, DENSE, 1, "pte,cpus=2");
	stop = true;
	pthread_join(thread, NULL);

	start_thread(&thread, keep_cpu_busy, NULL);
	wait_until_started();
	dirty_first_cold(p, n);
	snprintf(params, sizeof(params), "n=%zu", n);
	count_tlb("tlb", params, fd, fdatasync);
	dirty_first_cold(p, n);
	if (profile(true)) {
		check(fdatasync(fd), "fdatasync");
		profile(false);
		for (size_t i = 0; i < NR_WANTED; i++)
			function(wanted[i]);
		read_profile();
		qsort(functions, nr_functions, sizeof(functions[0]), more_calls);
		for (size_t i = 0; i < nr_functions; i++) {
			bool list = functions[i].calls >= n / 8;

			for (size_t j = 0; j < NR_WANTED; j++)
				list |= !strcmp(functions[i].name, wanted[j]);
			sum += functions[i].calls;
			if (list)
				result("calls", functions[i].calls, "n=%zu,function=%s", n,
				       functions[i].name);
		}
		result("calls", sum, "n=%zu,function=any", n);
	}
	set_order(DENSE, n);
	make_hot(fd, p, n);
	dirty(p, n);
	snprintf(params, sizeof(params), "n=%zu,pages=hot", n);
	count_tlb("hot-threads", params, fd, fdatasync);
	stop = true;
	pthread_join(thread, NULL);
	munmap(p, n * PAGE);
	drop("counts", fd);
}

/* Pages per folio, 0 if we are not told */
static double folio_size(const char *p, size_t nr)
{
	int map_fd = open("/proc/self/pagemap", O_RDONLY);
	int flags_fd = open("/proc/kpageflags", O_RDONLY);
	size_t folios = 0;
	double size = 0;

	for (size_t i = 0; i < nr; i++) {
		uint64_t entry, flags, pfn;

		if (pread(map_fd, &entry, 8, ((uintptr_t)p / PAGE + i) * 8) != 8)
			goto out;
		pfn = entry & ((1ull << 55) - 1);
		if (!pfn || pread(flags_fd, &flags, 8, pfn * 8) != 8)
			goto out;
		folios += !(flags & (1 << 16));		/* KPF_COMPOUND_TAIL */
	}
	size = (double)nr / folios;
out:
	close(map_fd);
	close(flags_fd);
	return size;
}

/* A process that has the file mapped, and may only read it */
static pid_t start_reader(int fd, size_t n)
{
	int ready[2];
	char *p, byte;
	pid_t pid;

	check(pipe(ready), "pipe");
	pid = fork();
	check(pid, "fork");
	if (!pid) {
		p = mmap(NULL, n * PAGE, PROT_READ, MAP_SHARED, fd, 0);
		for (size_t i = 0; p != MAP_FAILED && i < n; i++)
			(void)*(volatile char *)(p + i * PAGE);
		if (p == MAP_FAILED || write(ready[1], "", 1) != 1)
			_exit(1);
		pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		fail("the reader has not started");
	close(ready[0]);
	return pid;
}

static void bench_page_cache(size_t folio, bool reader)
{
	size_t n = COUNTED;
	int fd = create_in_pieces("cache", n, folio);
	char *p = map(fd, n, false), params[64];
	struct reps faults = {}, syncs = {};
	pid_t pid = 0;
	uint64_t t;

	snprintf(params, sizeof(params), "n=%zu,folio=%zu%s", n, folio, reader ? ",reader=1" : "");
	if (reader)
		pid = start_reader(fd, n);
	dirty_first(p, n);
	check(fsync(fd), "fsync");
	while (again(&faults)) {
		t = begin();
		dirty_first(p, n);
		add(&faults, now() - t);
		t = begin();
		check(fsync(fd), "fsync");
		add(&syncs, now() - t);
	}
	result("cache-fault", median(&faults) / n, "%s", params);
	result("cache-fsync", median(&syncs) / n, "%s", params);
	dirty_first(p, n);
	count_tlb("cache-tlb", params, fd, fsync);
	dirty_first(p, n);
	if (folio_size(p, n))
		result("cache-folio", folio_size(p, n), "%s", params);
	munmap(p, n * PAGE);
	if (reader) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	drop("cache", fd);
}

static bool is_dax(void)
{
	int fd = create("dax", 1);
	struct statx stx;

	check(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx), "statx");
	drop("dax", fd);
	return stx.stx_attributes & STATX_ATTR_DAX;
}

/* The largest power of 2, up to @max, of pages that fits with a fifth to spare */
static size_t fitting(size_t max)
{
	struct statvfs fs;

	check(statvfs(dir, &fs), "statvfs");
	while (max * PAGE > (uint64_t)fs.f_bavail * fs.f_frsize / 5 * 4)
		max /= 2;
	return max;
}

static void bench_stalls(void)
{
	bench_stall("pte", fitting(16384));
	bench_stall("pmd", 512);
}

/* What has run on another CPU may need TLB flushes there ever after, so do that here */
static void in_child(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	check(pid, "fork");
	if (!pid) {
		fn();
		exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		exit(1);
}

static bool selected(const char *name)
{
	return !part || !strcmp(part, name);
}

/* Also the program's address space, which is new after exec */
static void run_on_cpu_0(char **argv)
{
	cpu_set_t set;

	check(sched_getaffinity(0, sizeof(set), &set), "sched_getaffinity");
	if (CPU_COUNT(&set) == 1)
		return;
	pin(0);
	execv("/proc/self/exe", argv);
	fail("exec: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	if (argc < 2 || argc > 4 || argv[1][0] == '-') {
		fprintf(stderr, "usage: bench DIR [CONFIG [PART]], see the start of bench.c\n");
		return 2;
	}
	dir = argv[1];
	if (argc > 2)
		config = argv[2];
	if (argc > 3)
		part = argv[3];
	setvbuf(stdout, NULL, _IOLBF, 0);
	run_on_cpu_0(argv);
	pages = mmap(NULL, 2 * LARGEST * sizeof(*pages), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	if (fitting(LARGEST) < 2 * COUNTED)
		fail("no space in %s", dir);

	if (!is_dax()) {
		static const size_t folios[] = { 1, 16, 64, PMD / PAGE };

		if (selected("durable"))
			bench_durable(false);
		if (!selected("cache"))
			return 0;
		for (size_t i = 0; i < sizeof(folios) / sizeof(folios[0]); i++)
			bench_page_cache(folios[i], false);
		bench_page_cache(PMD / PAGE, true);
		return 0;
	}
	if (selected("small"))
		bench_small();
	if (selected("durable"))
		bench_durable(true);
	if (selected("hot"))
		bench_hot();
	if (selected("sharing")) {
		bench_write_cow();
		bench_sharing();
	}
	if (selected("remove"))
		bench_remove(fitting(16384));
	if (selected("stall"))
		in_child(bench_stalls);
	if (selected("pmd"))
		bench_pmd(fitting(65536));
	if (selected("large"))
		bench_large(fitting(LARGEST));
	if (selected("counts"))
		in_child(bench_counts);
	return 0;
}
