// SPDX-License-Identifier: GPL-2.0
/*
 * Self-tests of the power-fail model that need a guest: each rule, executed.
 *
 *   guest-test FILE CONFIG
 *   guest-test list		the names of the tests
 *
 * FILE is on a DAX file system of configuration CONFIG, see ../guest/init.  Each test
 * stores to a line of it, does or leaves out what would make it durable, marks a crash
 * point and asks whether the line was lost.  Lines "case model/NAME PASS|FAIL REASON" go to
 * file descriptor 3.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <immintrin.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mark.h"

#define LINE 64

static char *pmem;
static int fd;
static struct mark request;
static uint64_t value;	/* what is stored: new for every try */

/* The line under test.  Its content differs from what was durable before. */
static void store(char *p)
{
	*(volatile uint64_t *)p = ++value;
}

static void clwb(char *p)
{
	__asm__ volatile("clwb %0" : "+m"(*p));
}

static void sfence(void)
{
	__asm__ volatile("sfence" ::: "memory");
}

/* Each action prepares *@p; the comment by its table entry says what must follow */
static void act_store(char *p)
{
	store(p);
}

static void act_clwb(char *p)
{
	store(p);
	clwb(p);
}

static void act_clwb_sfence(char *p)
{
	act_clwb(p);
	sfence();
}

static void act_clwb_mfence(char *p)
{
	act_clwb(p);
	__asm__ volatile("mfence" ::: "memory");
}

static void act_clwb_lock(char *p)
{
	int dummy = 0;

	act_clwb(p);
	__asm__ volatile("lock addl $1, %0" : "+m"(dummy));
}

static void act_clwb_xchg(char *p)
{
	int dummy = 0, reg = 1;

	act_clwb(p);
	__asm__ volatile("xchgl %0, %1" : "+r"(reg), "+m"(dummy));
}

static void act_clwb_lfence(char *p)
{
	act_clwb(p);
	__asm__ volatile("lfence" ::: "memory");
}

static void act_clflushopt_sfence(char *p)
{
	store(p);
	__asm__ volatile("clflushopt %0" : "+m"(*p));
	sfence();
}

static void act_clflush_sfence(char *p)
{
	store(p);
	__asm__ volatile("clflush %0" : "+m"(*p));
	sfence();
}

/* Base, scaled index and displacement: the kernel's clwb() may use any */
static void act_clwb_sib(char *p)
{
	long index = ((long)p - 0x1230) / 8 - 5, base = 40;

	store(p);
	__asm__ volatile("clwb 0x1230(%0, %1, 8)" :: "r"(base), "r"(index) : "memory");
	sfence();
}

static void act_sfence_only(char *p)
{
	store(p);
	sfence();
}

static void act_flush_then_store(char *p)
{
	store(p);
	clwb(p);
	store(p);
	sfence();
}

static void act_flush_next_line(char *p)
{
	store(p);
	clwb(p + LINE);
	sfence();
}

static void act_movnti(char *p)
{
	__asm__ volatile("movnti %1, %0" : "=m"(*(uint64_t *)p) : "r"(++value));
}

static void act_movnti_sfence(char *p)
{
	act_movnti(p);
	sfence();
}

/* Only the bytes of the non-temporal store are on their way */
static void act_movnti_beside_store(char *p)
{
	store(p + 8);
	act_movnti_sfence(p);
}

static void act_movntdq(char *p)
{
	_mm_stream_si128((__m128i *)p, _mm_set1_epi64x(++value));
}

static void act_movntdq_sfence(char *p)
{
	act_movntdq(p);
	sfence();
}

static void act_movntps_sfence(char *p)
{
	_mm_stream_ps((float *)p, _mm_set1_ps(++value));
	sfence();
}

static void act_movntpd_sfence(char *p)
{
	_mm_stream_pd((double *)p, _mm_set1_pd(++value));
	sfence();
}

static void act_movntq_sfence(char *p)
{
	value++;
	__asm__ volatile("movq %1, %%mm0\n\tmovntq %%mm0, %0\n\temms"
			 : "=m"(*(uint64_t *)p) : "m"(value) : "mm0");
	sfence();
}

__attribute__((target("avx")))
static void act_vmovntdq(char *p)
{
	_mm256_stream_si256((__m256i *)p, _mm256_set1_epi64x(++value));
}

__attribute__((target("avx")))
static void act_vmovntdq_sfence(char *p)
{
	act_vmovntdq(p);
	sfence();
}

/* Another CPU */
static char *remote_line;
static void (*remote_action)(char *);

static void *remote(void *arg)
{
	cpu_set_t set;

	(void)arg;
	CPU_ZERO(&set);
	CPU_SET(1, &set);
	sched_setaffinity(0, sizeof(set), &set);
	remote_action(remote_line);
	return NULL;
}

static void on_other_cpu(char *p, void (*action)(char *))
{
	pthread_t t;

	remote_line = p;
	remote_action = action;
	if (pthread_create(&t, NULL, remote, NULL) || pthread_join(t, NULL))
		exit(1);
}

static void clwb_sfence(char *p)
{
	clwb(p);
	sfence();
}

static void act_flushed_by_other_cpu(char *p)
{
	store(p);
	on_other_cpu(p, clwb_sfence);
}

static volatile int ready, go;

static void *fence_when_told(void *arg)
{
	cpu_set_t set;

	(void)arg;
	CPU_ZERO(&set);
	CPU_SET(1, &set);
	sched_setaffinity(0, sizeof(set), &set);
	ready = 1;
	while (!go)
		;
	sfence();
	go = 0;
	for (;;)
		pause();
	return NULL;
}

/* The fence runs on a CPU that waits in a loop: no system call on this one */
static void act_fenced_by_other_cpu(char *p)
{
	static pthread_t t;

	ready = 0;
	if (pthread_create(&t, NULL, fence_when_told, NULL))
		exit(1);
	while (!ready)
		;
	act_clwb(p);
	go = 1;
	while (go)
		;
}

static void act_fsync(char *p)
{
	store(p);
	if (fsync(fd))
		exit(1);
}

static void act_fsync_store(char *p)
{
	act_fsync(p);
	store(p);
}

/* What must follow, and in which configuration if it is not *-pmem */
enum { LOST, DURABLE, NOCACHE, VIRTIO = 2 * NOCACHE };

static const struct test {
	const char *name;
	void (*action)(char *);
	int expect;
} tests[] = {
	{ "store", act_store, LOST },
	{ "store_sfence", act_sfence_only, LOST },
	{ "store_clwb", act_clwb, LOST },
	{ "store_clwb_lfence", act_clwb_lfence, LOST },
	{ "store_clwb_sfence", act_clwb_sfence, DURABLE },
	{ "store_clwb_mfence", act_clwb_mfence, DURABLE },
	{ "store_clwb_lock", act_clwb_lock, DURABLE },
	{ "store_clwb_xchg", act_clwb_xchg, DURABLE },
	{ "store_clflushopt_sfence", act_clflushopt_sfence, DURABLE },
	{ "store_clflush_sfence", act_clflush_sfence, DURABLE },
	{ "clwb_scaled_index", act_clwb_sib, DURABLE },
	{ "store_clwb_store_sfence", act_flush_then_store, LOST },
	{ "clwb_of_next_line", act_flush_next_line, LOST },
	{ "movnti", act_movnti, LOST },
	{ "movnti_sfence", act_movnti_sfence, DURABLE },
	{ "movnti_sfence_beside_store", act_movnti_beside_store, LOST },
	{ "movntdq", act_movntdq, LOST },
	{ "movntdq_sfence", act_movntdq_sfence, DURABLE },
	{ "movntps_sfence", act_movntps_sfence, DURABLE },
	{ "movntpd_sfence", act_movntpd_sfence, DURABLE },
	{ "movntq_sfence", act_movntq_sfence, DURABLE },
	{ "vmovntdq", act_vmovntdq, LOST },
	{ "vmovntdq_sfence", act_vmovntdq_sfence, DURABLE },
	{ "flush_and_fence_on_other_cpu", act_flushed_by_other_cpu, DURABLE },
	{ "fence_on_other_cpu", act_fenced_by_other_cpu, LOST },
	/* CPU caches survive */
	{ "nocache_store", act_store, NOCACHE | DURABLE },
	/* The host has to be asked, and nothing else helps */
	{ "virtio_store", act_store, VIRTIO | LOST },
	{ "virtio_store_clwb_sfence", act_clwb_sfence, VIRTIO | LOST },
	{ "virtio_movnti_sfence", act_movnti_sfence, VIRTIO | LOST },
	{ "virtio_store_fsync", act_fsync, VIRTIO | DURABLE },
	{ "virtio_store_fsync_store", act_fsync_store, VIRTIO | LOST },
};

static bool ask(uint32_t op)
{
	request.op = op;
	request.status = MARK_NO_MODEL;
	mark(&request);
	return request.status == MARK_OK;
}

/*
 * An interrupt between the flush and the point executes fences of its own, on
 * real hardware as here.  What must be lost is therefore tried until it is.
 */
static void run(const struct test *t)
{
	uint64_t lost = !(t->expect & DURABLE);
	int tries = lost ? 50 : 1;
	char *line = pmem + 8 * LINE, msg[600];
	int n;

	while (tries--) {
		ask(MARK_SETTLE);
		strcpy(request.text, t->name);
		request.addr = (uintptr_t)line;
		request.len = LINE;
		t->action(line);
		if (!ask(MARK_POINT) || !ask(MARK_CHECK)) {
			request.lines = 999;
			break;
		}
		if (request.lines == lost)
			break;
	}
	if (request.lines == lost)
		n = snprintf(msg, sizeof(msg), "case model/%s PASS\n", t->name);
	else
		n = snprintf(msg, sizeof(msg),
			     "case model/%s FAIL %" PRIu64 " lines lost, status %u\n",
			     t->name, request.lines, request.status);
	if (write(3, msg, n) != n)
		exit(1);
}

int main(int argc, char **argv)
{
	cpu_set_t set;
	int config;

	if (argc == 2 && !strcmp(argv[1], "list")) {
		for (unsigned int i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
			puts(tests[i].name);
		return 0;
	}
	if (argc != 3 || !ask(MARK_HELLO)) {
		fputs("usage: guest-test FILE CONFIG, under the model\n", stderr);
		return 2;
	}
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	sched_setaffinity(0, sizeof(set), &set);
	fd = open(argv[1], O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, 4096)) {
		perror(argv[1]);
		return 1;
	}
	config = strstr(argv[2], "-nocache") ? NOCACHE : strstr(argv[2], "-virtio") ? VIRTIO : 0;
	pmem = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		    MAP_SHARED_VALIDATE | (config == VIRTIO ? 0 : MAP_SYNC), fd, 0);
	if (pmem == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	request.len = config != NOCACHE;
	ask(MARK_CACHE);
	for (unsigned int i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		if ((tests[i].expect & ~DURABLE) == config)
			run(&tests[i]);
	_exit(0);
}
