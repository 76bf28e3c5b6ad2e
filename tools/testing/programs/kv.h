/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the clients of the key-value stores share.  Each is a program
 *
 *	kv-NAME write MODE	commit COMMITS times in the current directory, a crash point
 *				after each that names the number of commits so far
 *	kv-NAME verify MODE	after a crash: exit status 0 if all that $POINT promises is there
 *
 * A commit stores BATCH records and their number.  What is found must be what a number of
 * whole commits has left, not less than have been promised.  MODE is of the store, see there;
 * with "+cp" at its end the file is copied after each commit, by cp --reflink=auto, with "+hot"
 * before each.
 */
#ifndef KV_H
#define KV_H

#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "point.h"

/* What a client defines.  They end the program if something is wrong. */
extern const char *const store_file;
static void store_open(bool recover);
static void store_begin(void);
static void store_put(const char *key, const void *value, size_t len);
static void store_commit(void);
static long store_get(const char *key, void *value, size_t size);	/* length, or -1 */
static void store_check(void);		/* by the store's own means */

static const char *mode;

enum { COMMITS = 8, BATCH = 10, LONGEST = 6000 };

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

#define CALL(expr) do {							\
	long ret_ = (long)(expr);					\
	if (ret_)							\
		die("%s: error %ld", #expr, ret_);			\
} while (0)

static bool mode_has(const char *word)
{
	return strstr(mode, word);
}

/* Most values are short, one in eleven is longer than a page */
static size_t make_value(unsigned int record, char *value)
{
	size_t len = 50 + record * 37 % 900;
	uint32_t x = record * 2654435761u + 1;

	if (record % 11 == 5)
		len = LONGEST;
	for (size_t i = 0; i < len; i++) {
		x = x * 1664525 + 1013904223;
		value[i] = 'a' + (x >> 24) % 26;
	}
	return len;
}

static void copy_file(void)
{
	char command[200];

	/* Not busybox's, which cannot share blocks */
	snprintf(command, sizeof(command), "/bin/cp --reflink=auto %s copy", store_file);
	if (system(command))
		die("%s", command);
}

static void put_record(unsigned int record)
{
	char key[32], value[LONGEST];
	size_t len = make_value(record, value);

	snprintf(key, sizeof(key), "record %06u", record);
	store_put(key, value, len);
}

static int write_store(void)
{
	char text[16];

	store_open(false);
	for (unsigned int commit = 0; commit < COMMITS; commit++) {
		store_begin();
		for (unsigned int i = 0; i < BATCH; i++)
			put_record(commit * BATCH + i);
		snprintf(text, sizeof(text), "%u", commit + 1);
		store_put("commits", text, strlen(text));
		if (mode_has("+hot"))
			copy_file();
		store_commit();
		power_may_fail(text);
		if (mode_has("+cp"))
			copy_file();
	}
	printf("%u commits\n", COMMITS);
	return 0;
}

static int verify_store(unsigned int promised)
{
	char text[16] = "", value[LONGEST], got[LONGEST + 1], key[32];
	unsigned int commits = 0;

	store_open(true);
	if (store_get("commits", text, sizeof(text) - 1) > 0)
		commits = atoi(text);
	if (commits < promised)
		die("%u of %u commits are there", commits, promised);
	for (unsigned int record = 0; record < commits * BATCH; record++) {
		size_t len = make_value(record, value);
		long n;

		snprintf(key, sizeof(key), "record %06u", record);
		n = store_get(key, got, sizeof(got));
		if (n < 0)
			die("%s of %u commits is not there", key, commits);
		if (n != (long)len || memcmp(got, value, len))
			die("%s is wrong", key);
	}
	store_check();
	printf("%u commits of %u\n", commits, promised);
	return 0;
}

int main(int argc, char **argv)
{
	const char *point = getenv("POINT");
	int status;

	if (argc != 3)
		die("usage: %s write|verify MODE", argv[0]);
	mode = argv[2];
	status = !strcmp(argv[1], "verify") ? verify_store(point ? atoi(point) : 0) : write_store();
	fflush(stdout);
	_exit(status);		/* nothing is closed: power fails */
}

#endif
