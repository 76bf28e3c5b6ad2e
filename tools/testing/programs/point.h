/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Crash points for programs that ci/programs runs: C and C++.
 */
#ifndef POINT_H
#define POINT_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "../powerfail/mark.h"

static struct mark mark_request;

/* For who looks up the addresses that the model tells: what this process runs, and where */
static inline void note_maps(void)
{
	static bool done;
	FILE *from = done ? NULL : fopen("/proc/self/maps", "r"), *to;
	char line[512];

	done = true;
	if (!from)
		return;
	to = fopen("/tmp/maps", "a");
	while (to && fgets(line, sizeof(line), from))
		fputs(line, to);
	if (to)
		fclose(to);
	fclose(from);
}

/**
 * power_may_fail - mark a crash point
 * @promise: what must be there from now on, in words or numbers of the program's own; the
 *	verify command gets it as $POINT.  At most 400 bytes.
 *
 * Return: whether the power-fail model is there.  Without it nothing happens.
 */
static inline bool power_may_fail(const char *promise)
{
	const char *program = getenv("POWERFAIL_PROGRAM");

	note_maps();
	mark_request.op = MARK_POINT;
	mark_request.status = MARK_NO_MODEL;
	snprintf(mark_request.text, sizeof(mark_request.text), "%s %s",
		 program ? program : "none none", promise);
	mark(&mark_request);
	return mark_request.status == MARK_OK;
}

#endif
