// SPDX-License-Identifier: GPL-2.0
/*
 * Page tables that change while a sync call goes through them.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

enum { REMAP_PAGES = 1024, REMAP_SYNCS = 2 };	/* two PMDs */

/* A thread stores to one page after the other, and does something to the mapping */
struct remap {
	char *p;
	char *(*change)(char *p, size_t page);
	size_t stored;		/* pages */
	bool stop;
};

static void *store_and_remap(void *arg)
{
	struct remap *r = arg;

	for (size_t i = 0; i < REMAP_PAGES && !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); i++) {
		pattern(r->p + i * PAGE, i * PAGE, PAGE, NEW);
		__atomic_store_n(&r->stored, i + 1, __ATOMIC_RELEASE);
		r->p = r->change(r->p, i);
	}
	return NULL;
}

/*
 * What was stored when a sync call begins is durable when it returns, whatever happens to
 * the page tables in between.
 */
static void remap(char *(*change)(char *p, size_t page))
{
	struct file f = create_file("f", REMAP_PAGES * PAGE, OLD);
	struct remap r = { .change = change };
	pthread_t thread;
	size_t stored = 0;

	r.p = map_file(&f, 0, REMAP_PAGES * PAGE);
	thread = start_thread(store_and_remap, &r);
	for (int i = 0; i < REMAP_SYNCS; i++) {
		size_t before = stored;

		while (stored < before + 10 && stored < REMAP_PAGES)
			stored = __atomic_load_n(&r.stored, __ATOMIC_ACQUIRE);
		sync_to_point(&f);
		promise(&f, 0, stored * PAGE, NEW);
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

static char *move_mapping(char *p, size_t page)
{
	size_t len = REMAP_PAGES * PAGE, room = len + PMD + PAGE;
	char *hint = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *to;

	/* Whole page tables now and then, else their entries */
	to = (char *)(((uintptr_t)hint + PMD - 1) & -PMD) + page % 2 * PAGE;
	if (mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
		fail("mremap: %m");
	/* What was reserved and is not needed */
	if (to > hint)
		munmap(hint, to - hint);
	munmap(to + len, hint + room - (to + len));
	return to;
}

static char *protect_mapping(char *p, size_t page)
{
	check(mprotect(p, (page + 1) * PAGE, PROT_READ), "mprotect");
	check(mprotect(p, (page + 1) * PAGE, PROT_READ | PROT_WRITE), "mprotect");
	return p;
}

static char *zap_mapping(char *p, size_t page)
{
	check(madvise(p, (page + 1) * PAGE, MADV_DONTNEED), "madvise");
	return p;
}

static char *unmap_part(char *p, size_t page)
{
	/* Not what is gone already: somebody else may have that address now */
	check(munmap(p + page * PAGE, PAGE), "munmap");
	return p;
}

static char *fork_mapping(char *p, size_t page)
{
	pid_t pid = fork();

	(void)page;
	check(pid, "fork");
	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
	return p;
}

static void remap_mremap(void)
{
	remap(move_mapping);
}

static void remap_mprotect(void)
{
	remap(protect_mapping);
}

static void remap_dontneed(void)
{
	remap(zap_mapping);
}

static void remap_munmap(void)
{
	remap(unmap_part);
}

static void remap_fork(void)
{
	remap(fork_mapping);
}

const struct test_case remap_cases[] = {
	CASE(remap_mremap), CASE(remap_mprotect), CASE(remap_dontneed), CASE(remap_munmap),
	CASE(remap_fork),
	{}
};
