// SPDX-License-Identifier: GPL-2.0
/*
 * Random sequences of operations on two files that may share blocks, several at a time,
 * whose buffers may be mappings of the same files.  No power fails here: what is wrong is
 * what a user sees at once.
 *
 * Each step is one operation, or up to three at the same time.  One may be held up by
 * userfaultfd in the middle of its copy, while up to three others are done at once or one
 * after the other.  After the step
 *  - each byte of both files is what some order of the operations gives;
 *  - what the mappings show without a fault is what read(2) returns;
 *  - a third file, which is given the blocks that the others free, is what was written
 *    to it, and its content shows nowhere else;
 *  - no store to a page that the file has got SIGBUS;
 *  - each operation has ended, at the latest when it got a signal: who waits for a page
 *    that a pipe holds may have to wait for somebody who waits for him.
 * A sequence that fails is made shorter as long as it still fails.  It uses a few kinds of
 * operations only, drawn anew for each: what fails often does not hide the rest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define SMALL_PAGES 16		/* of a file at the beginning */
#define SMALL_SIZE (24 * PAGE)	/* the most that it may grow to */
#define HUGE_SIZE (PMD + 8 * PAGE)
#define MAX_LEN (32 * PAGE)
#define MAX_STEPS 8
#define MAX_GROUP 4
/*
 * Orders of three operations, or of four of which three are in order; each may have read
 * its source early
 */
#define MAX_ORDERS (6 * 8)
#define SPARE_SMALL 320		/* free blocks */
#define SPARE_HUGE 3000
#define HANG_MS 10000
#define OTHER_SEED 0xffffffu	/* of the third file */
#define DISK_BYTE 0xd5		/* see run_guest() of ci/lib/guest.sh */

enum kind {
	/* New content */
	STORE, WRITE, WRITE_PAGES, STORE_PAGES, PVM_STORE, ODIRECT,
	/* Content of a mapping or of a file */
	COPY_WRITE, COPY_READ, COPY_STORE, COPY_SPLICE, COPY_PVM, COPY_URING, COPY_RANGE,
	/* Content or blocks change in another way */
	PUNCH, ZERO, ALLOCATE, CLONE, DEDUPE, UNSHARE, TRUNCATE, COLLAPSE, INSERT,
	/* No change */
	LOAD, READ, DONTNEED, REMAP, HOLD, REUSE, FSYNC, SYNC, NR_KINDS
};

static const char *const kind_name[] = {
	"store", "write", "write-pages", "store-pages", "pvm-store", "odirect-read",
	"write-from-map", "read-into-map", "copy-by-store", "splice-from-map",
	"pvm-from-map", "uring-write-from-map", "copy_file_range",
	"punch", "zero", "fallocate", "clone", "dedupe", "unshare", "truncate",
	"collapse", "insert",
	"load", "read", "dontneed", "remap", "hold-in-pipe", "reuse-blocks", "fsync", "sync",
};

/*
 * Bytes [off, off + len) of file @f get what file @g has at @src, or content of @seed.
 * @result: how many bytes were copied, or below 0 if nothing was done.
 */
struct op {
	enum kind kind;
	int f, g;
	size_t off, src, len;
	uint32_t seed;
	ssize_t result;
	atomic_bool done;
};

/* The first of a step's operations may be held up in its copy; the others are in order? */
struct step {
	int nr;
	bool stall, in_order;
	struct op ops[MAX_GROUP];
};

/* How the files are at the beginning */
enum start { CLONED, WRITTEN, HOLE, UNWRITTEN, NR_STARTS };

struct sequence {
	bool huge;
	enum start start;
	int nr;
	struct step steps[MAX_STEPS];
};

/* What two files contain: zeroes beyond the size */
struct content {
	uint8_t *data[2];
	size_t size[2];
};

static size_t max_size;
static struct file file[2], other;
static uint8_t *map[2], *read_map[2];
static struct content now, outcome[MAX_ORDERS];
static atomic_int arrivals;
static int nr_outcomes;
static size_t other_size;
static int pipe_fd[2], pagemap, disk;
static uint32_t seed_of_run = 1;
static bool interrupted;	/* operations have got a signal */
static bool clones;		/* files can share blocks */
static __thread sigjmp_buf bus_error;

/* Words that are all different, and tell where they come from */
static void fill(uint8_t *p, size_t off, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len;) {
		uint64_t word = (uint64_t)seed << 40 | (off + i) / 8 << 8 | 0xa5;
		size_t in = (off + i) % 8, n = 8 - in < len - i ? 8 - in : len - i;

		memcpy(p + i, (uint8_t *)&word + in, n);
		i += n;
	}
}

static bool is_of_other_file(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i + 8 <= len; i += 8) {
		uint64_t word;

		memcpy(&word, p + i, 8);
		if (word >> 40 == OTHER_SEED)
			return true;
	}
	return false;
}

static bool copies(enum kind kind)
{
	return kind >= COPY_WRITE && kind <= COPY_RANGE;
}

/* Can it be held up in its copy from or to ordinary memory? */
static bool can_stall(enum kind kind)
{
	return kind == WRITE || kind == PVM_STORE || kind == READ;
}

static bool changes_size(enum kind kind)
{
	return kind == TRUNCATE || kind == COLLAPSE || kind == INSERT;
}

/* Operations */

static void on_sigbus(int sig)
{
	siglongjmp(bus_error, sig);
}

static void on_sigusr1(int sig)
{
	(void)sig;
}

/* Did a page fault fail? */
static bool copy_faults(uint8_t *to, const uint8_t *from, size_t len)
{
	if (sigsetjmp(bus_error, 1))
		return true;
	memmove(to, from, len);
	return false;
}

/* A page at a time, so that the end of a file stops a store where the end is */
static ssize_t store(uint8_t *to, const uint8_t *from, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t n = PAGE - (uintptr_t)(to + i) % PAGE;

		if (n > len - i)
			n = len - i;
		if (copy_faults(to + i, from + i, n)) {
			errno = EFAULT;
			return i ? (ssize_t)i : -1;
		}
		i += n;
	}
	return len;
}

static ssize_t pvm_write(uint8_t *to, const uint8_t *from, size_t len)
{
	struct iovec local = { (void *)from, len }, remote = { to, len };

	return process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
}

static ssize_t splice_write(int fd, const uint8_t *from, size_t len, off_t off)
{
	struct iovec iov = { (void *)from, len };
	size_t total = 0;
	int p[2];

	check(pipe(p), "pipe");
	fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
	while (total < len) {
		ssize_t n = vmsplice(p[1], &iov, 1, 0), m;

		if (n <= 0)
			break;
		for (m = 0; m < n;) {
			ssize_t k = splice(p[0], NULL, fd, &off, n - m, 0);

			if (k <= 0)
				goto out;
			m += k;
			total += k;
		}
		iov.iov_base += n;
		iov.iov_len -= n;
	}
out:
	close(p[0]);
	close(p[1]);
	return total ? (ssize_t)total : -1;
}

/* By a worker thread of the kernel; IOSQE_ASYNC */
static ssize_t uring_write(int fd, const uint8_t *from, size_t len, off_t off)
{
	struct io_uring_params params = {};
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	uint8_t *sq, *cq;
	ssize_t ret = -1;
	int ring;

	ring = syscall(__NR_io_uring_setup, 1, &params);
	if (ring < 0)
		return -1;
	sq = mmap(NULL, params.sq_off.array + sizeof(uint32_t), PROT_READ | PROT_WRITE,
		  MAP_SHARED, ring, IORING_OFF_SQ_RING);
	cq = mmap(NULL, params.cq_off.cqes + 2 * sizeof(*cqe), PROT_READ | PROT_WRITE,
		  MAP_SHARED, ring, IORING_OFF_CQ_RING);
	sqe = mmap(NULL, sizeof(*sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		   IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || sqe == MAP_FAILED)
		fail("mmap of an io_uring: %m");
	*sqe = (struct io_uring_sqe) {
		.opcode = IORING_OP_WRITE, .flags = IOSQE_ASYNC, .fd = fd, .off = off,
		.addr = (uintptr_t)from, .len = len,
	};
	*(uint32_t *)(sq + params.sq_off.array) = 0;
	__atomic_store_n((uint32_t *)(sq + params.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1) {
		cqe = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
		ret = cqe->res;
		if (ret < 0) {
			errno = -ret;
			ret = -1;
		}
	}
	munmap(sq, params.sq_off.array + sizeof(uint32_t));
	munmap(cq, params.cq_off.cqes + 2 * sizeof(*cqe));
	munmap(sqe, sizeof(*sqe));
	close(ring);
	return ret;
}

/* Of each page 64 bytes are written, these */
static size_t in_page(const struct op *op)
{
	return op->seed / 2 % 4 * 64;
}

/* Who does this at the same time waits here for the other, but not for long */
static void meet(void)
{
	int last = atomic_fetch_add(&arrivals, 1) | 1;

	for (int i = 0; i < 20000 && atomic_load(&arrivals) <= last; i++)
		;
}

/* One page after the other, upwards or downwards; every second, so that extents are split */
static ssize_t pages(const struct op *op, const uint8_t *data)
{
	ssize_t ret = op->len;

	for (size_t i = 0; i < op->len / PAGE; i++) {
		size_t page = op->seed % 2 ? i : op->len / PAGE - 1 - i;
		size_t at = page * PAGE + in_page(op);

		if ((op->off / PAGE + page) % 2)
			continue;
		meet();
		if (op->kind == STORE_PAGES) {
			if (store(map[op->f] + op->off + at, data + at, 64) != 64)
				ret = -1;
		} else if (pwrite(file[op->f].fd, data + at, 64, op->off + at) != 64) {
			ret = -1;
		}
	}
	return ret;
}

/* Let the pages go that are held in the pipe; what do they contain? */
static void drain_pipe(void)
{
	static uint8_t buf[1 << 16];
	ssize_t n;

	while ((n = read(pipe_fd[0], buf, sizeof(buf))) > 0)
		if (is_of_other_file(buf, n))
			fail("a page that was held in a pipe shows data of another file");
}

static size_t free_blocks(void)
{
	struct statvfs st;

	check(statvfs(test_dir, &st), "statvfs");
	return st.f_bavail;
}

/* A third file takes what is free, and is written as long as others leave it something */
static void reuse_blocks(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static uint8_t buf[128 * PAGE];
	ssize_t written;
	size_t nr;

	pthread_mutex_lock(&lock);
	check(ftruncate(other.fd, 0), "ftruncate");
	check(fsync(other.fd), "fsync");
	nr = free_blocks();
	nr = nr > 160 ? nr - 160 : 0;
	nr = nr > 128 ? 128 : nr;
	fill(buf, 0, nr * PAGE, OTHER_SEED);
	written = pwrite(other.fd, buf, nr * PAGE, 0);
	other_size = written > 0 ? written : 0;
	pthread_mutex_unlock(&lock);
}

/* What is read while others change it is not known, but for whose it is */
static ssize_t read_data(int fd, uint8_t *to, size_t len, off_t off)
{
	ssize_t n = pread(fd, to, len, off);

	if (n > 0 && is_of_other_file(to, n))
		fail("read shows data of another file");
	return n;
}

/* Do it, with @data as the new content; the return value is that of the system call */
static ssize_t perform(const struct op *op, uint8_t *data)
{
	int fd = file[op->f].fd;
	uint8_t *to = map[op->f] + op->off;
	const uint8_t *from = map[op->g] + op->src;
	struct file_clone_range clone = {
		.src_fd = file[op->g].fd, .src_offset = op->src,
		.src_length = op->len, .dest_offset = op->off,
	};
	struct {
		struct file_dedupe_range r;
		struct file_dedupe_range_info i;
	} dedupe = {
		.r = { .src_offset = op->src, .src_length = op->len, .dest_count = 1 },
		.i = { .dest_fd = fd, .dest_offset = op->off },
	};
	struct iovec iov = { to, op->len };
	off_t in = op->src, out = op->off;

	switch (op->kind) {
	case STORE:
		return store(to, data, op->len);
	case WRITE:
		return pwrite(fd, data, op->len, op->off);
	case WRITE_PAGES:
	case STORE_PAGES:
		return pages(op, data);
	case PVM_STORE:
		return pvm_write(to, data, op->len);
	case ODIRECT:
		return pread(disk, to, op->len, 0);
	case COPY_WRITE:
		return pwrite(fd, from, op->len, op->off);
	case COPY_READ:
		return pread(file[op->g].fd, to, op->len, op->src);
	case COPY_STORE:
		return store(to, from, op->len);
	case COPY_SPLICE:
		return splice_write(fd, from, op->len, op->off);
	case COPY_PVM:
		return pvm_write(to, from, op->len);
	case COPY_URING:
		return uring_write(fd, from, op->len, op->off);
	case COPY_RANGE:
		return copy_file_range(file[op->g].fd, &in, fd, &out, op->len, 0);
	case PUNCH:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, op->off,
				 op->len);
	case ZERO:
		return fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, op->off,
				 op->len);
	case ALLOCATE:
		return fallocate(fd, FALLOC_FL_KEEP_SIZE, op->off, op->len);
	case UNSHARE:
		return fallocate(fd, FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE, op->off,
				 op->len);
	case COLLAPSE:
		return fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, op->off, op->len);
	case INSERT:
		return fallocate(fd, FALLOC_FL_INSERT_RANGE, op->off, op->len);
	case TRUNCATE:
		return ftruncate(fd, op->off);
	case CLONE:
		return ioctl(fd, FICLONERANGE, &clone);
	case DEDUPE:
		return ioctl(file[op->g].fd, FIDEDUPERANGE, &dedupe);
	case LOAD:
		for (size_t i = 0; i < op->len; i += PAGE) {
			uint8_t byte;

			if (copy_faults(&byte, to + i, 1)) {
				errno = EFAULT;
				return -1;
			}
		}
		return 0;
	case READ:
		return read_data(fd, data, op->len, op->off);
	case DONTNEED:
		return madvise(map[op->f], max_size, MADV_DONTNEED);
	case REMAP:
		if (mmap(map[op->f], max_size, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
			return -1;
		return 0;
	case HOLD:
		return vmsplice(pipe_fd[1], &iov, 1, SPLICE_F_NONBLOCK);
	case REUSE:
		reuse_blocks();
		return 0;
	case FSYNC:
		return fsync(fd);
	case SYNC:
		sync();
		return 0;
	default:
		return -1;
	}
}

/* What it makes of the files, if it has been done and has copied what was in @from */
static void apply(const struct op *op, struct content *c, const struct content *from)
{
	uint8_t *data = c->data[op->f];
	size_t *size = &c->size[op->f], n = op->result;
	bool by_store = op->kind == STORE || op->kind == STORE_PAGES || op->kind == PVM_STORE ||
		op->kind == ODIRECT || op->kind == COPY_READ || op->kind == COPY_STORE ||
		op->kind == COPY_PVM;

	if (op->result < 0)
		return;
	if (by_store && op->off + n > *size)
		n = *size > op->off ? *size - op->off : 0;
	switch (op->kind) {
	case STORE:
	case WRITE:
	case PVM_STORE:
		fill(data + op->off, op->off, n, op->seed);
		break;
	case WRITE_PAGES:
	case STORE_PAGES:
		for (size_t i = in_page(op); i < op->len; i += PAGE)
			if ((op->off + i) / PAGE % 2 == 0 &&
			    (!by_store || op->off + i + 64 <= *size))
				fill(data + op->off + i, op->off + i, 64, op->seed);
		n -= PAGE - in_page(op) - 64;
		break;
	case ODIRECT:
		memset(data + op->off, DISK_BYTE, n);
		break;
	case COPY_WRITE:
	case COPY_READ:
	case COPY_STORE:
	case COPY_SPLICE:
	case COPY_PVM:
	case COPY_URING:
	case COPY_RANGE:
		memmove(data + op->off, from->data[op->g] + op->src, n);
		break;
	case CLONE:
		n = op->len;
		memmove(data + op->off, c->data[op->g] + op->src, n);
		break;
	case PUNCH:
	case ZERO:
		memset(data + op->off, 0, op->len);
		return;
	case TRUNCATE:
		if (op->off < *size)
			memset(data + op->off, 0, *size - op->off);
		*size = op->off;
		return;
	case COLLAPSE:
		memmove(data + op->off, data + op->off + op->len, max_size - op->off - op->len);
		memset(data + max_size - op->len, 0, op->len);
		*size -= op->len;
		return;
	case INSERT:
		memmove(data + op->off + op->len, data + op->off, max_size - op->off - op->len);
		memset(data + op->off, 0, op->len);
		*size += op->len;
		return;
	default:
		return;
	}
	if (!by_store && op->off + n > *size)
		*size = op->off + n;
}

static void copy_content(struct content *to, const struct content *from)
{
	for (int f = 0; f < 2; f++) {
		memcpy(to->data[f], from->data[f], max_size);
		to->size[f] = from->size[f];
	}
}

/*
 * Each order of the operations of @s, as a path down to one of outcome[].  A copy is not
 * done in an instant: it may have read its source before others have changed it.
 */
static void find_outcomes(const struct step *s, int done_mask, const struct content *before)
{
	static struct content depth[MAX_GROUP + 1];
	int level = __builtin_popcount(done_mask);

	if (level == s->nr) {
		copy_content(&outcome[nr_outcomes++], before);
		return;
	}
	if (!depth[level].data[0])
		for (int f = 0; f < 2; f++)
			depth[level].data[f] = malloc(HUGE_SIZE);
	for (int i = 0; i < s->nr; i++) {
		const struct op *op = &s->ops[i];

		if (done_mask & 1 << i)
			continue;
		if (s->in_order && i > 1 && !(done_mask & 1 << (i - 1)))
			continue;
		copy_content(&depth[level], before);
		apply(op, &depth[level], &depth[level]);
		find_outcomes(s, done_mask | 1 << i, &depth[level]);
		if (!copies(op->kind) || op->result <= 0 ||
		    !memcmp(before->data[op->g] + op->src, now.data[op->g] + op->src, op->result))
			continue;
		copy_content(&depth[level], before);
		apply(op, &depth[level], &now);
		find_outcomes(s, done_mask | 1 << i, &depth[level]);
	}
}

/* Checks after each step */

static void check_content(int f, const uint8_t *actual, size_t size)
{
	bool known = false;

	for (int k = 0; k < nr_outcomes; k++)
		known |= outcome[k].size[f] == size;
	if (!known)
		fail("file %d has %zu bytes, not %zu", f, size, outcome[0].size[f]);
	for (int k = 0; k < nr_outcomes; k++)
		if (!memcmp(actual, outcome[k].data[f], max_size))
			return;
	for (size_t i = 0; i < max_size; i++) {
		known = false;
		for (int k = 0; k < nr_outcomes; k++)
			known |= outcome[k].data[f][i] == actual[i];
		if (!known)
			fail("file %d, offset %zu: wrong data%s", f, i,
			     is_of_other_file(actual + i / 8 * 8, 8) ? ", of another file" :
			     actual[i] == now.data[f][i] ? ", as before" :
			     actual[i] ? "" : ", zero");
	}
}

/* What can be seen without a page fault */
static void check_mapping(int f, const uint8_t *m, const char *name, const uint8_t *actual,
			  size_t size)
{
	static uint64_t entries[HUGE_SIZE / PAGE];
	size_t nr = (size + PAGE - 1) / PAGE;

	if (pread(pagemap, entries, nr * 8, (uintptr_t)m / PAGE * 8) != (ssize_t)nr * 8)
		fail("pagemap: %m");
	for (size_t i = 0; i < nr; i++) {
		size_t len = size - i * PAGE < PAGE ? size - i * PAGE : PAGE;

		if (!(entries[i] >> 63) || !memcmp(m + i * PAGE, actual + i * PAGE, len))
			continue;
		for (size_t k = i * PAGE; k < i * PAGE + len; k++)
			if (m[k] != actual[k])
				fail("file %d, offset %zu: %s shows %#x, read(2) returns %#x%s",
				     f, k, name, m[k], actual[k],
				     is_of_other_file(m + k / 8 * 8, 8) ?
				     ": data of another file" : "");
	}
}

static void check_files(void)
{
	static uint8_t buf[2][HUGE_SIZE];
	struct stat st;

	for (int f = 0; f < 2; f++) {
		check(fstat(file[f].fd, &st), "fstat");
		if ((size_t)st.st_size > max_size)
			fail("file %d has %zu bytes", f, (size_t)st.st_size);
		memset(buf[f], 0, max_size);
		if (pread(file[f].fd, buf[f], st.st_size, 0) != st.st_size)
			fail("pread: %m");
		check_content(f, buf[f], st.st_size);
		check_mapping(f, map[f], "the mapping", buf[f], st.st_size);
		check_mapping(f, read_map[f], "the read-only mapping", buf[f], st.st_size);
		memcpy(now.data[f], buf[f], max_size);
		now.size[f] = st.st_size;
	}
	if (pread(other.fd, buf[0], other_size, 0) != (ssize_t)other_size)
		fail("pread of another file: %m");
	fill(buf[1], 0, other_size, OTHER_SEED);
	if (memcmp(buf[0], buf[1], other_size))
		fail("another file has changed");
}

/* One step */

struct thread {
	pthread_t id;
	const struct step *step;
	struct op *op;
	int nr;			/* operations, one after the other */
	uint8_t *data;		/* MAX_LEN bytes for each; some are missing if it stalls */
	pthread_barrier_t *barrier;
};

static bool step_changes_size(const struct step *s)
{
	for (int i = 0; i < s->nr; i++)
		if (changes_size(s->ops[i].kind))
			return true;
	return false;
}

/* May it fail, or do less than it was asked for, for a good reason? */
static bool may_fail(const struct step *s, const struct op *op, int error)
{
	switch (error) {
	case EOPNOTSUPP:
	case ENOTTY:
	case ENOSPC:
	case EXDEV:
	case ENOSYS:
		return true;
	case EAGAIN:
		return op->kind == HOLD;
	case EDEADLK:		/* the pipe holds a block that the write replaces */
		return op->kind == COPY_SPLICE;
	}
	return interrupted || step_changes_size(s) || op->kind == CLONE ||
		op->kind == DEDUPE || op->kind == INSERT || op->kind == COLLAPSE ||
		op->kind == COPY_RANGE;
}

static void do_op(const struct step *s, struct op *op, uint8_t *data)
{
	op->result = perform(op, data);
	if ((op->result < 0 || (op->kind <= COPY_RANGE && op->kind != COPY_SPLICE &&
				op->result != (ssize_t)op->len)) &&
	    !may_fail(s, op, op->result < 0 ? errno : 0))
		fail("%s of file %d at %zu+%zu returns %zd: %s", kind_name[op->kind], op->f,
		     op->off, op->len, op->result, op->result < 0 ? strerror(errno) : "short");
	/* All of it that is below the end of the file */
	if (op->kind == WRITE_PAGES || op->kind == STORE_PAGES)
		op->result = op->len;
	atomic_store(&op->done, true);
}

static void *worker(void *arg)
{
	struct thread *t = arg;

	if (t->barrier)
		pthread_barrier_wait(t->barrier);
	for (int i = 0; i < t->nr; i++)
		do_op(t->step, t->op + i, t->data + i * MAX_LEN);
	return NULL;
}

static bool all_done(const struct step *s, int first, int ms)
{
	for (int i = 0; i <= ms * 5; i++) {
		bool done = true;

		for (int k = first; k < s->nr; k++)
			done &= atomic_load(&s->ops[k].done);
		if (done)
			return true;
		usleep(200);
	}
	return false;
}

/* The content of @op, but from its second page on it is missing until resolve() */
static uint8_t *missing_data(const struct op *op, int uffd, struct uffdio_copy *copy)
{
	size_t len = (op->len + PAGE - 1) / PAGE * PAGE + PAGE;
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *whole = aligned_alloc(PAGE, len);
	size_t lead = op->len > PAGE ? PAGE : op->len / 2;	/* bytes that are there */
	struct uffdio_register reg = {
		.range = { (uintptr_t)p + PAGE, len - PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (p == MAP_FAILED || !whole)
		fail("no memory");
	memset(whole, 0, len);
	fill(whole + PAGE - lead, op->off, op->len, op->seed);
	memcpy(p, whole, PAGE);
	check(ioctl(uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	*copy = (struct uffdio_copy) {
		.dst = (uintptr_t)p + PAGE, .src = (uintptr_t)whole + PAGE, .len = len - PAGE,
	};
	return p + PAGE - lead;
}

static void run_step(struct step *s)
{
	struct thread threads[MAX_GROUP];
	static uint8_t data[MAX_GROUP][MAX_LEN];
	int first = s->stall, nr = s->in_order ? 2 : s->nr, uffd = -1;
	struct uffdio_copy copy;
	pthread_barrier_t barrier;

	atomic_store(&arrivals, 0);
	for (int i = 0; i < s->nr; i++) {
		struct op *op = &s->ops[i];

		atomic_store(&op->done, false);
		fill(data[i], op->off, op->len, op->seed);
		threads[i] = (struct thread) {
			.step = s, .op = op, .data = data[i],
			.nr = s->in_order && i ? s->nr - 1 : 1,
		};
	}
	if (s->stall) {
		struct uffdio_api api = { .api = UFFD_API };

		uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
		check(uffd, "userfaultfd");
		check(ioctl(uffd, UFFDIO_API, &api), "UFFDIO_API");
		threads[0].data = missing_data(&s->ops[0], uffd, &copy);
		pthread_create(&threads[0].id, NULL, worker, &threads[0]);
		/* It may also wait for a page that the pipe holds */
		for (int ms = 0; ms < 200 && !atomic_load(&s->ops[0].done); ms++) {
			struct pollfd p = { .fd = uffd, .events = POLLIN };

			if (poll(&p, 1, 1) > 0)
				break;
		}
	}
	pthread_barrier_init(&barrier, NULL, nr > first ? nr - first : 1);
	for (int i = first; i < nr; i++) {
		threads[i].barrier = &barrier;
		pthread_create(&threads[i].id, NULL, worker, &threads[i]);
	}
	if (s->stall) {
		all_done(s, 1, 20);
		check(ioctl(uffd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
	}
	/* Who waits for a page that the pipe holds can go on when it is read */
	if (!all_done(s, 0, 200))
		drain_pipe();
	interrupted = !all_done(s, 0, 1000);
	for (int ms = 0; !all_done(s, 0, 100); ms += 100) {
		for (int i = 0; i < s->nr; i++)
			if (ms == HANG_MS && !atomic_load(&s->ops[i].done))
				fail("%s of file %d at %zu+%zu does not end",
				     kind_name[s->ops[i].kind], s->ops[i].f, s->ops[i].off,
				     s->ops[i].len);
		for (int i = 0; i < nr; i++)
			pthread_kill(threads[i].id, SIGUSR1);
	}
	for (int i = 0; i < nr; i++)
		pthread_join(threads[i].id, NULL);
	if (s->stall)
		close(uffd);
	nr_outcomes = 0;
	find_outcomes(s, 0, &now);
	check_files();
}

/* Cut an operation to what makes sense for the files as they are; false if nothing */
static bool fit(struct op *op, bool alone)
{
	size_t size = now.size[op->f], end = size;
	bool blocks = op->kind == CLONE || op->kind == DEDUPE || op->kind == COLLAPSE ||
		op->kind == INSERT || op->kind == ODIRECT || op->kind == WRITE_PAGES ||
		op->kind == STORE_PAGES;

	if (op->kind >= DONTNEED && op->kind != HOLD)
		return true;
	if (blocks) {
		op->off -= op->off % PAGE;
		op->src -= op->src % PAGE;
		op->len = (op->len + PAGE - 1) / PAGE * PAGE;
		end -= end % PAGE;
	}
	/* In a group only one that says so changes the size */
	if (op->kind == TRUNCATE || (alone && (op->kind == WRITE || op->kind == COPY_WRITE)))
		end = max_size;
	if (op->off >= end)
		return false;
	if (op->len > end - op->off)
		op->len = end - op->off;
	if (copies(op->kind) || op->kind == CLONE || op->kind == DEDUPE) {
		end = now.size[op->g];
		if (blocks)
			end -= end % PAGE;
		if (op->src >= end)
			return false;
		if (op->len > end - op->src)
			op->len = end - op->src;
		/* Upwards, a copy to behind its source may copy what it has written */
		if (op->f == op->g && op->off > op->src && op->off < op->src + op->len) {
			size_t off = op->off;

			op->off = op->src;
			op->src = off;
			if (op->len > size - off)
				op->len = size - off;
			if (blocks)
				op->len -= op->len % PAGE;
		}
	}
	switch (op->kind) {
	case COLLAPSE:
		return alone && op->off + op->len < size;
	case INSERT:
		return alone && size + op->len <= max_size;
	case ODIRECT:
		op->len = PAGE;
		return op->off + PAGE <= size;
	default:
		return op->len > 0;
	}
}

static void prepare(const struct sequence *seq)
{
	size_t size = seq->huge ? PMD + 2 * PAGE : SMALL_PAGES * PAGE;
	size_t spare = seq->huge ? SPARE_HUGE : SPARE_SMALL, avail;
	struct file ballast;

	max_size = seq->huge ? HUGE_SIZE : SMALL_SIZE;
	for (int f = 0; f < 2; f++) {
		file[f] = create_file(f ? "b" : "a", 0, 0);
		now.data[f] = calloc(1, HUGE_SIZE);
		for (int k = 0; k < MAX_ORDERS; k++)
			outcome[k].data[f] = malloc(HUGE_SIZE);
		now.size[f] = size;
		switch (seq->start) {
		case CLONED:
		case WRITTEN:
			fill(now.data[f], 0, size, seq->start == CLONED ? seed_of_run :
			     seed_of_run + f);
			if (f && seq->start == CLONED) {
				check(ioctl(file[1].fd, FICLONE, file[0].fd), "FICLONE");
				break;
			}
			if (pwrite(file[f].fd, now.data[f], size, 0) != (ssize_t)size)
				fail("pwrite: %m");
			break;
		case UNWRITTEN:
			check(fallocate(file[f].fd, 0, 0, size), "fallocate");
			break;
		default:
			check(ftruncate(file[f].fd, size), "ftruncate");
		}
		map[f] = map_aligned(&file[f], max_size);
		read_map[f] = mmap(NULL, max_size, PROT_READ, MAP_SHARED, file[f].fd, 0);
		if (read_map[f] == MAP_FAILED)
			fail("mmap: %m");
	}
	seed_of_run += 2;
	other = create_file("other", 0, 0);
	other_size = 0;
	/* Little is free, so that a block which is freed finds a new owner at once */
	ballast = create_file("ballast", 0, 0);
	avail = free_blocks();
	if (avail > spare)
		check(fallocate(ballast.fd, 0, 0, (avail - spare) * PAGE), "fallocate");
	close(ballast.fd);
	check(pipe2(pipe_fd, O_NONBLOCK), "pipe");
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	check(pagemap, "open pagemap");
	disk = open("/dev/vda", O_RDONLY | O_DIRECT);
}

static void run_sequence(struct sequence *seq)
{
	struct sigaction sa = { .sa_handler = on_sigbus };

	sigaction(SIGBUS, &sa, NULL);
	sa.sa_handler = on_sigusr1;
	sigaction(SIGUSR1, &sa, NULL);
	prepare(seq);
	for (int i = 0; i < seq->nr; i++) {
		struct step step = {
			.stall = seq->steps[i].stall, .in_order = seq->steps[i].in_order,
		};

		for (int k = 0; k < seq->steps[i].nr; k++) {
			struct op *op = &step.ops[step.nr];

			*op = seq->steps[i].ops[k];
			op->seed += seed_of_run;
			if (fit(op, seq->steps[i].nr == 1))
				step.nr++;
			else if (!k)
				step.stall = false;
		}
		step.stall = step.stall && can_stall(step.ops[0].kind);
		step.in_order = step.stall && step.in_order && step.nr > 1;
		if (!step.stall && step.nr == MAX_GROUP)
			step.nr--;
		if (step.nr)
			run_step(&step);
	}
	drain_pipe();
}

/* Run it in a child; @verbose lets its failure reach the results */
static bool sequence_fails(struct sequence *seq, bool verbose)
{
	int status;
	pid_t pid;

	new_case(verbose);
	seed_of_run = (seed_of_run + 1000) % (OTHER_SEED / 2);
	pid = fork();
	if (!pid) {
		alarm(120);
		run_sequence(seq);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return true;
	return status != 0;
}

/* A race may need some tries */
static bool fails_still(struct sequence *seq)
{
	for (int i = 0; i < 4; i++)
		if (sequence_fails(seq, false))
			return true;
	return false;
}

static bool try_less(struct sequence *seq, const struct sequence *less)
{
	struct sequence s = *less;

	if (!fails_still(&s))
		return false;
	*seq = *less;
	return true;
}

/* Leave out steps, then operations, then what holds them up */
static void shrink(struct sequence *seq)
{
	for (int i = seq->nr - 1; i >= 0; i--) {
		struct sequence less = *seq;

		less.nr--;
		memmove(&less.steps[i], &less.steps[i + 1], (less.nr - i) * sizeof(less.steps[0]));
		try_less(seq, &less);
	}
	for (int i = 0; i < seq->nr; i++) {
		for (int k = seq->steps[i].nr - 1; k >= 0 && seq->steps[i].nr > 1; k--) {
			struct sequence less = *seq;
			struct step *s = &less.steps[i];

			s->nr--;
			memmove(&s->ops[k], &s->ops[k + 1], (s->nr - k) * sizeof(s->ops[0]));
			s->stall &= k > 0;
			try_less(seq, &less);
		}
		if (seq->steps[i].stall) {
			struct sequence less = *seq;

			less.steps[i].stall = false;
			try_less(seq, &less);
		}
	}
}

/* Few places, so that they meet: often the same page, often a boundary */
static size_t random_place(bool huge)
{
	size_t place = random_number(random_number(4) ? 3 : SMALL_PAGES) * PAGE;

	if (!random_number(3))
		place += random_number(PAGE);
	if (huge && !random_number(3))
		place += PMD - 2 * PAGE;
	return place;
}

static struct op random_op(const enum kind *kinds, int nr_kinds, bool huge)
{
	struct op op = {
		.kind = kinds[random_number(nr_kinds)],
		.f = random_number(2), .g = random_number(2),
		.seed = 10 + random_number(900),
	};
	bool pages = op.kind == WRITE_PAGES || op.kind == STORE_PAGES;

	op.off = random_place(huge);
	op.src = random_number(4) ? random_place(huge) : op.off;
	op.len = random_length(200);
	if (pages)
		op.len = (8 + random_number(24)) * PAGE;
	return op;
}

static bool can_clone(void)
{
	struct file a, b;
	bool can;

	new_case(false);
	a = create_file("a", 0, 0);
	b = create_file("b", 0, 0);
	can = !ioctl(b.fd, FICLONE, a.fd);
	close(a.fd);
	close(b.fd);
	return can;
}

static void random_sequence(struct sequence *seq, uint64_t seed)
{
	static const enum kind writes[] = { WRITE, WRITE_PAGES };
	static const enum kind stores[] = { STORE, STORE_PAGES };
	enum kind kinds[8];
	int nr_kinds, groups, stalls;

	memset(seq, 0, sizeof(*seq));
	random_start(seed);
	for (int i = 0; i < 8; i++)
		random_number(2);
	seq->huge = !random_number(clones ? 4 : 2);
	seq->start = random_number(NR_STARTS);
	if (random_number(2))
		seq->start = CLONED;
	if (!clones && seq->start == CLONED)
		seq->start = random_number(2) ? HOLE : UNWRITTEN;
	nr_kinds = 2 + random_number(6);
	/* Copies, and stores, are what this is about */
	for (int i = 0; i < nr_kinds; i++)
		kinds[i] = random_number(2) ? random_number(COPY_RANGE + 1) :
			random_number(NR_KINDS);
	groups = random_number(4);	/* of four steps so many do several things */
	stalls = random_number(4);
	seq->nr = 1 + random_number(MAX_STEPS);
	for (int i = 0; i < seq->nr; i++) {
		struct step *s = &seq->steps[i];

		s->nr = (int)random_number(4) < groups ? 2 + random_number(2) : 1;
		s->stall = (int)random_number(4) < stalls;
		s->in_order = s->stall && random_number(2);
		if (s->in_order)
			s->nr = 2 + random_number(MAX_GROUP - 1);
		for (int k = 0; k < s->nr; k++)
			s->ops[k] = random_op(kinds, nr_kinds, seq->huge);
		/* What meets most often is a write and a store to the same file */
		if (s->nr > 1 && random_number(2)) {
			s->ops[0] = random_op(writes, 2, seq->huge);
			s->ops[1] = random_op(stores, 2, seq->huge);
			s->ops[1].f = s->ops[0].f;
		}
		if (s->stall && !can_stall(s->ops[0].kind))
			s->ops[0].kind = random_number(3) ? WRITE : READ;
		/* Not one operation: the size of the file may change in between */
		for (int k = 0; k < s->nr; k++)
			if (step_changes_size(s) && s->ops[k].kind == WRITE_PAGES)
				s->ops[k].kind = WRITE;
	}
}

static void print_sequence(uint64_t seed, const struct sequence *seq)
{
	static const char *const start[] = { "cloned", "written", "hole", "unwritten" };
	char text[900];
	size_t len;

	len = snprintf(text, sizeof(text), " %s%s", seq->huge ? "huge " : "", start[seq->start]);
	for (int i = 0; i < seq->nr; i++) {
		const struct step *s = &seq->steps[i];

		for (int k = 0; k < s->nr && len < sizeof(text); k++) {
			const struct op *op = &s->ops[k];

			len += snprintf(text + len, sizeof(text) - len, "%s%s%s(%d,%zu+%zu",
					!k ? "; " : s->in_order && k > 1 ? ", " : " | ",
					s->stall && !k ? "stalled " : "",
					kind_name[op->kind], op->f, op->off, op->len);
			if (len < sizeof(text) && (copies(op->kind) || op->kind == CLONE ||
						   op->kind == DEDUPE))
				len += snprintf(text + len, sizeof(text) - len, " <- %d,%zu",
						op->g, op->src);
			if (len < sizeof(text))
				len += snprintf(text + len, sizeof(text) - len, ")");
		}
	}
	fuzz_result(seed, text);
}

/* Run @count sequences of seeds from @seed on; the number that failed */
int race(uint64_t seed, int count)
{
	int failures = 0;

	clones = can_clone();
	for (; count--; seed++) {
		struct sequence seq;

		random_sequence(&seq, seed);
		if (!sequence_fails(&seq, false))
			continue;
		failures++;
		shrink(&seq);
		print_sequence(seed, &seq);
		for (int i = 0; i < 4 && !sequence_fails(&seq, true); i++)
			;
	}
	return failures;
}
