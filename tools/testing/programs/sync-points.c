// SPDX-License-Identifier: GPL-2.0
/*
 * LD_PRELOAD: a crash point before and after each call that syncs, for programs that say
 * nothing themselves.  Before: $POINT of the verify command is "before fsync 3" then, and
 * the program's own rules for a crash in the middle apply; after: "after fsync 3".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>

#include "point.h"

static void around(const char *when, const char *call, unsigned int n)
{
	char text[64];

	snprintf(text, sizeof(text), "%s %s %u", when, call, n);
	power_may_fail(text);
}

#define SYNCS(name, arguments, ...)						\
int name arguments								\
{										\
	static int (*real) arguments;						\
	static unsigned int calls;						\
	unsigned int n = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);	\
	int ret;								\
										\
	if (!real)								\
		real = (int (*) arguments)dlsym(RTLD_NEXT, #name);		\
	around("before", #name, n);						\
	ret = real(__VA_ARGS__);						\
	if (!ret)								\
		around("after", #name, n);					\
	return ret;								\
}

SYNCS(fsync, (int fd), fd)
SYNCS(fdatasync, (int fd), fd)
SYNCS(syncfs, (int fd), fd)
SYNCS(msync, (void *addr, size_t len, int flags), addr, len, flags)
