// SPDX-License-Identifier: GPL-2.0
/*
 * Random sequences of operations, checked after each sync call.
 *
 * A shadow of each file in ordinary memory says what the file must contain.  After
 * an operation that promises durability the program marks a crash point, compares
 * the file with its shadow, and asks the model whether a cache line behind it was
 * volatile.  A sequence that fails is made shorter as long as it still fails; what is
 * left, and its seed, is printed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define NR_FILES 2
#define MAX_PAGES 24
#define MAX_SIZE (MAX_PAGES * PAGE)
#define START_PAGES 16
#define MAX_OPS 14

enum kind {
	STORE, STORE_SYNC, LOAD, WRITE, REMAP, TRUNCATE, PUNCH, ZERO, COLLAPSE, INSERT,
	ALLOCATE, CLONE, UNSHARE, DEDUPE,
	FSYNC, FDATASYNC, MSYNC, SYNC, SYNCFS, FREEZE, NR_KINDS
};

static const char *const kind_name[] = {
	"store", "mapsync-store", "load", "write", "remap", "truncate", "punch", "zero",
	"collapse", "insert", "fallocate", "clone", "unshare", "dedupe",
	"fsync", "fdatasync", "msync", "sync", "syncfs", "freeze",
};

/* Operation on file @f; offset and length in bytes, @seed is that of the content */
struct op {
	enum kind kind;
	int f;
	size_t off, len;
	uint32_t seed;
};

/* A file, and what it must contain: zeroes beyond @size; is all of it durable? */
struct state {
	struct file file;
	size_t size;
	bool durable;
	uint8_t *data, *map, *map_sync;
};

static struct state files[NR_FILES];

/*
 * Added to the seed of all content, and changed for each run: a free block may hold
 * what an earlier run wrote, which must not be mistaken for what this one lost.
 */
static uint64_t run_seed;

static struct op random_op(void)
{
	struct op op = { .kind = random_number(NR_KINDS), .f = random_number(NR_FILES) };

	/* Often near a page boundary, often small, sometimes many pages */
	op.off = random_number(START_PAGES + 2) * PAGE;
	if (random_number(2))
		op.off += random_number(PAGE);
	op.len = random_length(100);
	op.seed = 10 + random_number(1000000);
	return op;
}

/* Cut the operation to what makes sense for the file as it is; false if nothing */
static bool fit(struct op *op, const struct state *s)
{
	size_t end = s->size;

	switch (op->kind) {
	case WRITE:
	case ALLOCATE:
	case ZERO:
	case TRUNCATE:
		end = MAX_SIZE;
		break;
	case COLLAPSE:
	case INSERT:
	case CLONE:
	case DEDUPE:
		op->off -= op->off % PAGE;
		op->len = (op->len + PAGE - 1) / PAGE * PAGE;
		end = s->size / PAGE * PAGE;
		break;
	default:
		break;
	}
	if (op->off >= end)
		return false;
	if (op->len > end - op->off)
		op->len = end - op->off;
	if (op->kind == COLLAPSE && op->off + op->len >= s->size)
		return false;
	if (op->kind == INSERT && s->size + op->len > MAX_SIZE)
		return false;
	return true;
}

/* Has the operation been done?  Not if the file system does not have it, or no space. */
static bool done(int ret, const struct op *op)
{
	if (ret < 0 && errno != EOPNOTSUPP && errno != ENOTTY && errno != ENOSPC)
		fail("%s of file %d at %zu+%zu: %m", kind_name[op->kind], op->f, op->off,
		     op->len);
	return ret >= 0;
}

/* Was [off, off + len) of a file as it must be at the last point? */
static void check_file(const struct state *s, size_t off, size_t len)
{
	struct stat st;

	check(fstat(s->file.fd, &st), "fstat");
	if ((size_t)st.st_size != s->size)
		fail("size is %zu, not %zu", (size_t)st.st_size, s->size);
	promise_data(&s->file, off, len, s->data + off);
}

/* All files, or the one of @op, are durable as of the last point */
static void check_synced(bool everything, const struct op *op)
{
	for (int i = 0; i < NR_FILES; i++) {
		if (!everything && i != op->f)
			continue;
		if (files[i].size)
			check_file(&files[i], 0, files[i].size);
		files[i].durable = true;
	}
}

static void synced(bool everything, const struct op *op)
{
	point();
	check_synced(everything, op);
}

static void run_op(struct op op)
{
	struct state *s = &files[op.f], *other = &files[!op.f];
	struct file_clone_range clone;
	struct {
		struct file_dedupe_range r;
		struct file_dedupe_range_info i;
	} dedupe;
	static uint8_t buf[MAX_SIZE];
	size_t old = s->size;

	if (op.kind < FSYNC && op.kind != REMAP && !fit(&op, s))
		return;
	if (op.kind < FSYNC && op.kind != STORE_SYNC && op.kind != LOAD) {
		s->durable = false;
		if (op.kind == CLONE)
			other->durable = false;
	}

	switch (op.kind) {
	case STORE:
		pattern(s->map + op.off, op.off, op.len, run_seed + op.seed);
		memcpy(s->data + op.off, s->map + op.off, op.len);
		break;
	case STORE_SYNC:
		if (!s->map_sync)
			break;
		pattern(s->map_sync + op.off, op.off, op.len, run_seed + op.seed);
		memcpy(s->data + op.off, s->map_sync + op.off, op.len);
		/* Half of the programs flush, the others call sync later */
		if (op.seed % 2) {
			flush_lines(s->map_sync + op.off, op.len);
			point();
			/* What was durable must be so in a new block, too */
			if (s->durable)
				check_file(s, 0, s->size);
			else
				check_file(s, op.off, op.len);
		} else {
			s->durable = false;
		}
		break;
	case LOAD:
		for (size_t i = 0; i < op.len; i += PAGE)
			(void)*(volatile uint8_t *)(s->map + op.off + i);
		break;
	case WRITE:
		pattern(buf, op.off, op.len, run_seed + op.seed);
		if (pwrite(s->file.fd, buf, op.len, op.off) != (ssize_t)op.len)
			fail("pwrite: %m");
		memcpy(s->data + op.off, buf, op.len);
		if (op.off + op.len > s->size)
			s->size = op.off + op.len;
		break;
	case REMAP:
		munmap(s->map, MAX_SIZE);
		s->map = map_file(&s->file, 0, MAX_SIZE);
		break;
	case TRUNCATE:
		if (!done(ftruncate(s->file.fd, op.off), &op))
			break;
		s->size = op.off;
		if (s->size < old)
			memset(s->data + s->size, 0, old - s->size);
		break;
	case PUNCH:
		if (!done(fallocate(s->file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    op.off, op.len), &op))
			break;
		memset(s->data + op.off, 0, op.len);
		break;
	case ZERO:
		if (!done(fallocate(s->file.fd, FALLOC_FL_ZERO_RANGE, op.off, op.len), &op))
			break;
		memset(s->data + op.off, 0, op.len);
		if (op.off + op.len > s->size)
			s->size = op.off + op.len;
		break;
	case COLLAPSE:
		if (!done(fallocate(s->file.fd, FALLOC_FL_COLLAPSE_RANGE, op.off, op.len), &op))
			break;
		memmove(s->data + op.off, s->data + op.off + op.len,
			MAX_SIZE - op.off - op.len);
		memset(s->data + MAX_SIZE - op.len, 0, op.len);
		s->size -= op.len;
		break;
	case INSERT:
		if (!done(fallocate(s->file.fd, FALLOC_FL_INSERT_RANGE, op.off, op.len), &op))
			break;
		memmove(s->data + op.off + op.len, s->data + op.off,
			MAX_SIZE - op.off - op.len);
		memset(s->data + op.off, 0, op.len);
		s->size += op.len;
		break;
	case ALLOCATE:
		if (!done(fallocate(s->file.fd, 0, op.off, op.len), &op))
			break;
		if (op.off + op.len > s->size)
			s->size = op.off + op.len;
		break;
	case CLONE:
		clone = (struct file_clone_range) {
			.src_fd = s->file.fd, .src_offset = op.off,
			.src_length = op.len, .dest_offset = op.off,
		};
		if (!done(ioctl(other->file.fd, FICLONERANGE, &clone), &op))
			break;
		memcpy(other->data + op.off, s->data + op.off, op.len);
		if (op.off + op.len > other->size)
			other->size = op.off + op.len;
		break;
	case UNSHARE:
		done(fallocate(s->file.fd, FALLOC_FL_UNSHARE_RANGE, op.off, op.len), &op);
		break;
	case DEDUPE:
		if (op.off + op.len > other->size)
			break;
		memset(&dedupe, 0, sizeof(dedupe));
		dedupe.r.src_offset = op.off;
		dedupe.r.src_length = op.len;
		dedupe.r.dest_count = 1;
		dedupe.i.dest_fd = other->file.fd;
		dedupe.i.dest_offset = op.off;
		if (ioctl(s->file.fd, FIDEDUPERANGE, &dedupe) ||
		    dedupe.i.status != FILE_DEDUPE_RANGE_SAME)
			break;
		if (memcmp(s->data + op.off, other->data + op.off, op.len))
			fail("dedupe of files that differ");
		break;
	case FSYNC:
		check(fsync(s->file.fd), "fsync");
		synced(false, &op);
		break;
	case FDATASYNC:
		check(fdatasync(s->file.fd), "fdatasync");
		synced(false, &op);
		break;
	case MSYNC:
		check(msync(s->map, MAX_SIZE, MS_SYNC), "msync");
		synced(false, &op);
		break;
	case SYNC:
		sync();
		synced(true, &op);
		break;
	case SYNCFS:
		check(syncfs(s->file.fd), "syncfs");
		synced(true, &op);
		break;
	case FREEZE:
		check(ioctl(s->file.fd, FIFREEZE, 0), "FIFREEZE");
		point();
		check(ioctl(s->file.fd, FITHAW, 0), "FITHAW");
		check_synced(true, &op);
		break;
	case NR_KINDS:
		break;
	}
}

/* The second file begins as a clone of the first one, where that is possible */
static void prepare_files(void)
{
	for (int i = 0; i < NR_FILES; i++) {
		struct state *s = &files[i];

		/* Written only if needed: freed blocks would hold what copies need */
		s->file = create_file(i ? "b" : "a", 0, 0);
		if (!i || ioctl(s->file.fd, FICLONE, files[0].file.fd))
			write_at(&s->file, 0, START_PAGES * PAGE, run_seed + 1);
		check(fsync(s->file.fd), "fsync");
		s->size = START_PAGES * PAGE;
		s->durable = true;
		s->data = calloc(1, MAX_SIZE);
		pattern(s->data, 0, s->size, run_seed + 1);
		s->map = map_file(&s->file, 0, MAX_SIZE);
		s->map_sync = map_sync(&s->file, 0, MAX_SIZE);
	}
}

/* Run a sequence in a child; @verbose lets its failure reach the results */
static bool sequence_fails(const struct op *ops, int nr, bool verbose)
{
	int status;
	pid_t pid;

	new_case(verbose);
	run_seed += 1 << 24;
	pid = fork();
	if (!pid) {
		alarm(60);
		prepare_files();
		for (int i = 0; i < nr; i++)
			run_op(ops[i]);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return true;
	return status != 0;
}

/* Leave out parts of the sequence, halves first, as long as it still fails */
static int shrink(struct op *ops, int nr)
{
	for (int part = nr / 2; part; part /= 2) {
		for (int i = 0; i + part <= nr;) {
			struct op fewer[MAX_OPS];

			memcpy(fewer, ops, i * sizeof(*ops));
			memcpy(fewer + i, ops + i + part, (nr - i - part) * sizeof(*ops));
			if (sequence_fails(fewer, nr - part, false)) {
				nr -= part;
				memcpy(ops, fewer, nr * sizeof(*ops));
			} else {
				i += part;
			}
		}
	}
	return nr;
}

/* Run @count sequences of seeds from @seed on; the number that failed */
int fuzz(uint64_t seed, int count)
{
	int failures = 0;

	for (; count--; seed++) {
		struct op ops[MAX_OPS];
		char text[600] = "";
		size_t len = 0;
		int nr;

		random_start(seed);
		for (int i = 0; i < 8; i++)
			random_number(2);
		nr = 3 + random_number(MAX_OPS - 2);
		for (int i = 0; i < nr; i++)
			ops[i] = random_op();
		/* Without a sync call at the end nothing is promised */
		if (ops[nr - 1].kind < FSYNC)
			ops[nr - 1].kind = FSYNC + random_number(NR_KINDS - FSYNC);
		if (!sequence_fails(ops, nr, false))
			continue;

		failures++;
		nr = shrink(ops, nr);
		for (int i = 0; i < nr && len < sizeof(text); i++)
			len += snprintf(text + len, sizeof(text) - len, " %s(%d,%zu+%zu)",
					kind_name[ops[i].kind], ops[i].f, ops[i].off,
					ops[i].len);
		fuzz_result(seed, text);
		sequence_fails(ops, nr, true);
	}
	return failures;
}
