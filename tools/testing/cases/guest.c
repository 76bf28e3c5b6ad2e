// SPDX-License-Identifier: GPL-2.0
/*
 * Run the cases that cases.c lists, or check after a power failure what they promised.
 *
 *   cases run CONFIG DIR [CASE...]	on a DAX file system mounted at DIR
 *   cases fuzz CONFIG DIR SEED COUNT		COUNT random sequences, see fuzz.c
 *   cases race CONFIG DIR SEED COUNT		the same, several operations at a time, see race.c
 *   cases stress CONFIG DIR SEED SECONDS	threads on the same files, see stress.c
 *   cases verify CONFIG DIR PROMISES POINT SEED
 *   cases list
 *   cases restore POINT SEED		print the name of the restored point, and how many
 *						lines were volatile there
 *
 * Results go to file descriptor 3 as lines:
 *   point N CONFIG/CASE
 *   promise N FILE OFF LEN CONTENT BASE
 *   case CONFIG/CASE PASS|FAIL|SKIP REASON
 *   replay CONFIG/CASE PASS|FAIL point N seed S: REASON
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <signal.h>
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
#include "../powerfail/mark.h"

#define RESULTS 3
#define CASE_SECONDS 120

#ifndef PAGEMAP_SCAN
#error "HEADERS are too old"
#endif

const char *test_dir, *config_name;
static const char *case_name;
static bool quiet;	/* while a failing sequence is being made shorter */
static struct mark request;

enum { EXIT_PASS, EXIT_FAIL, EXIT_SKIP };

static void print_line(const char *fmt, va_list ap)
{
	char line[1024];
	int n = vsnprintf(line, sizeof(line) - 1, fmt, ap);

	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(RESULTS, line, n) != n)
		_exit(100);
}

static __attribute__((format(printf, 1, 2))) void result(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!quiet)
		print_line(fmt, ap);
	va_end(ap);
}

/* What the second boot has to know: always for cases, if asked for also for fuzz.c */
static __attribute__((format(printf, 1, 2))) void note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!quiet || getenv("promises"))
		print_line(fmt, ap);
	va_end(ap);
}

static __attribute__((noreturn)) void end_case(int code, const char *verdict,
					       const char *fmt, va_list ap)
{
	char why[800];

	vsnprintf(why, sizeof(why), fmt, ap);
	result("case %s/%s %s %s", config_name, case_name, verdict, why);
	_exit(code);
}

void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	end_case(EXIT_FAIL, "FAIL", fmt, ap);
}

void skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	end_case(EXIT_SKIP, "SKIP", fmt, ap);
}

void check(int ret, const char *what)
{
	if (ret < 0)
		fail("%s: %m", what);
}

/* Ask the model; false if there is none */
static bool ask(uint32_t op)
{
	request.op = op;
	request.status = MARK_NO_MODEL;
	mark(&request);
	return request.status != MARK_NO_MODEL;
}

/* What an earlier case left volatile is its own matter */
static void settle(void)
{
	request.len = !strstr(config_name, "-nocache");
	ask(MARK_CACHE);
	ask(MARK_SETTLE);
}

bool have_model(void)
{
	return ask(MARK_HELLO);
}

/* The byte at @pos of the content that the number @content stands for */
static uint8_t content_byte(uint64_t content, uint64_t pos)
{
	uint64_t x = content * 0x9e3779b97f4a7c15 + pos / 8;

	if (!content)
		return 0;
	/* splitmix64: no two words of a run are alike */
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	x ^= x >> 31;
	return x >> (pos % 8 * 8);
}

/*
 * Each case of each configuration has content of its own, so that a block which was
 * not written cannot hold the right data by accident, from an earlier case.
 */
static uint64_t content_of(uint64_t seed)
{
	uint64_t hash = 0xcbf29ce484222325;	/* FNV-1a of both names */

	for (const char *p = config_name; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x100000001b3;
	for (const char *p = case_name; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x100000001b3;
	return seed ? hash * 16 + seed : 0;
}

uint8_t pattern_byte(uint64_t seed, uint64_t pos)
{
	return content_byte(content_of(seed), pos);
}

void pattern(void *p, uint64_t pos, size_t len, uint64_t seed)
{
	uint64_t content = content_of(seed);

	for (size_t i = 0; i < len; i++)
		((uint8_t *)p)[i] = content_byte(content, pos + i);
}

void write_at(const struct file *f, off_t off, size_t len, uint64_t seed)
{
	uint8_t *buf = malloc(len);

	pattern(buf, off, len, seed);
	if (pwrite(f->fd, buf, len, off) != (ssize_t)len)
		fail("pwrite: %m");
	free(buf);
}

struct file create_file(const char *name, size_t size, uint64_t seed)
{
	struct file f;
	char path[256];

	snprintf(f.name, sizeof(f.name), "%s.%s", case_name, name);
	snprintf(path, sizeof(path), "%s/%s", test_dir, f.name);
	f.fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	check(f.fd, "open");
	if (size)
		write_at(&f, 0, size, seed);
	check(fsync(f.fd), "fsync");
	return f;
}

static void *map_flags(const struct file *f, off_t off, size_t len, int prot, int flags)
{
	void *p = mmap(NULL, len, prot, flags, f->fd, off);

	if (p == MAP_FAILED)
		fail("mmap: %m");
	return p;
}

void *map_file(const struct file *f, off_t off, size_t len)
{
	return map_flags(f, off, len, PROT_READ | PROT_WRITE, MAP_SHARED);
}

void *map_sync(const struct file *f, off_t off, size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_SHARED_VALIDATE | MAP_SYNC, f->fd, off);

	if (p == MAP_FAILED && errno == EOPNOTSUPP)
		skip("no MAP_SYNC");
	if (p == MAP_FAILED)
		fail("mmap: %m");
	return p;
}

/* At an address that is a multiple of PMD */
void *map_aligned(const struct file *f, size_t len)
{
	uintptr_t p = (uintptr_t)mmap(NULL, len + PMD, PROT_NONE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *q = mmap((void *)((p + PMD - 1) & -PMD), len, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_FIXED, f->fd, 0);

	if (q == MAP_FAILED)
		fail("mmap: %m");
	return q;
}

bool is_pmd_mapped(const void *p)
{
	struct page_region region;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)p, .end = (uintptr_t)p + PMD,
		.vec = (uintptr_t)&region, .vec_len = 1,
		.category_mask = PAGE_IS_HUGE, .return_mask = PAGE_IS_HUGE,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY), n;

	check(fd, "open pagemap");
	n = ioctl(fd, PAGEMAP_SCAN, &arg);
	check(n, "PAGEMAP_SCAN");
	close(fd);
	return n == 1;
}

/* What an application with a MAP_SYNC mapping does instead of fsync() */
void flush_lines(const void *p, size_t len)
{
	uintptr_t a = (uintptr_t)p & -64ul, end = (uintptr_t)p + len;

#ifdef __aarch64__
	for (; a < end; a += 64)
		__asm__ volatile("dc cvac, %0" : : "r"(a) : "memory");
	__asm__ volatile("dsb sy" : : : "memory");
#else
	for (; a < end; a += 64)
		__asm__ volatile("clwb %0" : "+m"(*(volatile char *)a));
	__asm__ volatile("sfence" : : : "memory");
#endif
}

void point(void)
{
	snprintf(request.text, sizeof(request.text), "%s/%s", config_name, case_name);
	if (!ask(MARK_POINT))
		return;
	note("point %" PRIu64 " %s/%s", request.point, config_name, case_name);
}

/*
 * Did the bytes at @p get lost at the last point?  Zeroes may come from a hole; of
 * the page cache only the second boot can say what was on the device.
 */
static void check_lines(const uint8_t *p, off_t off, size_t len, bool zero)
{
	bool page_cache = strstr(config_name, "-nodax");

	request.addr = (uintptr_t)p;
	request.len = len;
	if (!ask(MARK_CHECK))
		return;
	if (request.status != MARK_OK &&
	    !(request.status == MARK_NOT_PMEM && (zero || page_cache)))
		fail("the model cannot check offset %lld: status %u",
		     (long long)off, request.status);
	if (request.lines)
		fail("%" PRIu64 " of %zu lines at offset %lld were not durable, the first at %lld: %s",
		     request.lines, (len + 63) / 64, (long long)off,
		     (long long)(off + request.first), request.text);
}

static void note_promise(const struct file *f, off_t off, size_t len, uint64_t seed,
			 off_t base)
{
	if (have_model())
		note("promise %" PRIu64 " %s %lld %zu %" PRIu64 " %lld", request.point,
		     f->name, (long long)off, len, content_of(seed), (long long)base);
}

void promise_later(const struct file *f, off_t off, size_t len, uint64_t seed)
{
	note_promise(f, off, len, seed, 0);
}

void promise_moved(const struct file *f, off_t off, size_t len, uint64_t seed,
		   off_t base)
{
	off_t start = off & -PAGE;
	uint8_t *p = map_flags(f, start, len + (off - start), PROT_READ, MAP_SHARED);
	const uint8_t *data = p + (off - start);
	bool lines_only = !f->name[0];
	uint64_t content = content_of(seed);

	if (!lines_only)
		note_promise(f, off, len, seed, base);
	for (size_t i = 0; i < len; i++) {
		uint8_t byte = ((volatile const uint8_t *)data)[i];

		if (!lines_only && byte != content_byte(content, off + i - base))
			fail("wrong data at offset %lld, without any power failure",
			     (long long)(off + i));
	}
	check_lines(data, off, len, !seed);
	munmap(p, len + (off - start));
}

void promise(const struct file *f, off_t off, size_t len, uint64_t seed)
{
	promise_moved(f, off, len, seed, 0);
}

/* FNV-1a: content that is no pattern is known by this in the second boot */
static uint64_t hash(const uint8_t *data, size_t len)
{
	uint64_t h = 0xcbf29ce484222325;

	while (len--)
		h = (h ^ *data++) * 0x100000001b3;
	return h;
}

void promise_data(const struct file *f, off_t off, size_t len, const uint8_t *data)
{
	off_t start = off & -PAGE;
	uint8_t *p = map_flags(f, start, len + (off - start), PROT_READ, MAP_SHARED);

	note("promise-hash %" PRIu64 " %s %lld %zu %" PRIu64, request.point, f->name,
	     (long long)off, len, hash(data, len));
	for (size_t i = 0; i < len; i++)
		if (((volatile const uint8_t *)p)[off - start + i] != data[i])
			fail("%s: wrong data at offset %lld, without any power failure",
			     f->name, (long long)(off + i));
	/* Holes are not pmem: ask for each page, and let those be that are zero */
	for (off_t pos = off; pos < (off_t)(off + len);) {
		off_t end = (pos & -PAGE) + PAGE;
		bool zero = true;

		if (end > (off_t)(off + len))
			end = off + len;
		for (off_t i = pos; i < end; i++)
			zero &= !data[i - off];
		check_lines(p + (pos - start), pos, end - pos, zero);
		pos = end;
	}
	munmap(p, len + (off - start));
}

static void remove_files(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_type == DT_REG)
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

static void run_case(const struct test_case *c)
{
	int status, seconds = 0;
	pid_t pid;

	case_name = c->name;
	remove_files(test_dir);
	settle();
	pid = fork();
	if (!pid) {
		c->fn();
		result("case %s/%s PASS", config_name, case_name);
		_exit(EXIT_PASS);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (seconds++ == CASE_SECONDS * 100) {
			kill(pid, SIGKILL);
			result("case %s/%s FAIL no end after %d s", config_name,
			       case_name, CASE_SECONDS);
			return;
		}
		usleep(10000);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) > EXIT_SKIP)
		result("case %s/%s FAIL exit status %d", config_name, case_name,
		       WEXITSTATUS(status));
	if (WIFSIGNALED(status))
		result("case %s/%s FAIL killed by signal %d", config_name, case_name,
		       WTERMSIG(status));
}

void new_case(bool verbose)
{
	quiet = !verbose;
	remove_files(test_dir);
	settle();
}

/* Below @limit, from @rng, which is not 0: xorshift */
uint32_t random_from(uint64_t *rng, uint32_t limit)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return (*rng >> 20) % limit;
}

static uint64_t sequence_rng;

/* What the next two return after this depends on @seed only */
void random_start(uint64_t seed)
{
	sequence_rng = seed * 0x9e3779b97f4a7c15 + 1;
}

uint32_t random_number(uint32_t limit)
{
	return random_from(&sequence_rng, limit);
}

/* Up to @few bytes, one page, or some */
size_t random_length(uint32_t few)
{
	switch (random_number(4)) {
	case 0:
		return 1 + random_number(few);
	case 1:
		return PAGE;
	case 2:
		return 1 + random_number(3 * PAGE);
	default:
		return (1 + random_number(8)) * PAGE;
	}
}

void fuzz_result(uint64_t seed, const char *ops)
{
	quiet = false;
	result("fuzz %s seed %" PRIu64 ":%s", config_name, seed, ops);
}

/* fuzz.c needs the model, race.c does not */
static int run_fuzz(const char *name, int (*fn)(uint64_t seed, int count), char **argv)
{
	int count = atoi(argv[3]), failures;

	config_name = argv[0];
	test_dir = argv[1];
	case_name = name;
	if (fn == fuzz && !have_model())
		return 3;
	failures = fn(strtoull(argv[2], NULL, 0), count);
	remove_files(test_dir);
	quiet = false;
	result("case %s/%s %s %d of %d sequences failed", config_name, name,
	       failures ? "FAIL" : "PASS", failures, count);
	return 0;
}

static int run_stress(char **argv)
{
	unsigned long ops;

	config_name = argv[0];
	test_dir = argv[1];
	case_name = "stress";
	ops = stress(strtoull(argv[2], NULL, 0), atoi(argv[3]));
	remove_files(test_dir);
	result("case %s/stress %s %lu operations", config_name, ops ? "PASS" : "FAIL", ops);
	return 0;
}

static int run(int argc, char **argv)
{
	bool any = false;

	config_name = argv[0];
	test_dir = argv[1];
	if (!have_model() && !getenv("without_model"))
		return 3;
	for_each_case(c) {
		/* A case that can crash the kernel is run only if it is asked for */
		bool wanted = argc == 2 && strncmp(c->name, "alone_", 6);

		for (int i = 2; i < argc; i++)
			wanted |= !strcmp(argv[i], c->name);
		any |= wanted;
		if (wanted)
			run_case(c);
	}
	remove_files(test_dir);
	return !any;
}

/* @base: how far the pattern of seed @content was moved, or -1: @content is a hash */
static void verify_promise(const char *file, off_t off, size_t len,
			   uint64_t content, off_t base, char *why, size_t size)
{
	uint8_t *buf = malloc(len);
	char path[256];
	int fd;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", test_dir, file);
	fd = open(path, O_RDONLY);
	if (fd < 0) {
		snprintf(why, size, "%s: %s", file, strerror(errno));
		return;
	}
	n = pread(fd, buf, len, off);
	if (n != (ssize_t)len)
		snprintf(why, size, "%s: read %zd of %zu bytes at %lld", file, n, len,
			 (long long)off);
	if (!*why && base == -1 && hash(buf, len) != content)
		snprintf(why, size, "%s: wrong data from %lld on", file, (long long)off);
	for (size_t i = 0; !*why && base != -1 && i < len; i++)
		if (buf[i] != content_byte(content, off + i - base))
			snprintf(why, size, "%s: wrong data at offset %lld", file,
				 (long long)(off + i));
	close(fd);
	free(buf);
}

static int verify(char **argv)
{
	unsigned long want = strtoul(argv[3], NULL, 0), point;
	long long off, base;
	uint64_t content;
	char line[512], file[64], why[256] = "";
	FILE *f = fopen(argv[2], "r");
	size_t len;

	if (!f) {
		perror(argv[2]);
		return 1;
	}
	test_dir = argv[1];
	while (!*why && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "promise-hash %lu %63s %lld %zu %" SCNu64,
			   &point, file, &off, &len, &content) == 5 && point == want)
			verify_promise(file, off, len, content, -1, why, sizeof(why));
		if (sscanf(line, "promise %lu %63s %lld %zu %" SCNu64 " %lld",
			   &point, file, &off, &len, &content, &base) == 6 && point == want)
			verify_promise(file, off, len, content, base, why, sizeof(why));
	}
	fclose(f);
	result("replay %s %s point %lu seed %s: %s", argv[0], *why ? "FAIL" : "PASS",
	       want, argv[4], why);
	return 0;
}

static int restore(char **argv)
{
	request.point = strtoull(argv[0], NULL, 0);
	request.seed = strtoull(argv[1], NULL, 0);
	if (!ask(MARK_RESTORE) || request.status != MARK_OK)
		return 1;
	printf("%s %" PRIu64 "\n", request.text, request.lines);
	return 0;
}

int main(int argc, char **argv)
{
	const char *cmd = argc > 1 ? argv[1] : "";

	if (!strcmp(cmd, "run") && argc >= 4)
		return run(argc - 2, argv + 2);
	if (!strcmp(cmd, "fuzz") && argc == 6)
		return run_fuzz("fuzz", fuzz, argv + 2);
	if (!strcmp(cmd, "race") && argc == 6)
		return run_fuzz("race", race, argv + 2);
	if (!strcmp(cmd, "stress") && argc == 6)
		return run_stress(argv + 2);
	if (!strcmp(cmd, "verify") && argc == 7)
		return verify(argv + 2);
	if (!strcmp(cmd, "restore") && argc == 4)
		return restore(argv + 2);
	if (!strcmp(cmd, "list")) {
		for_each_case(c)
			puts(c->name);
		return 0;
	}
	fputs("usage: cases run|fuzz|race|stress|verify|restore|list ..., see guest.c\n", stderr);
	return 2;
}
