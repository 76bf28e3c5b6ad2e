// SPDX-License-Identifier: GPL-2.0
/*
 * SQLite with mmap_size and pages of 1 KiB.  MODE wal: write-ahead log, checkpointed often;
 * rollback: journal that is deleted.  synchronous=EXTRA, as FULL does not sync the directory
 * that the journal was deleted from, so that it may come back and roll back the last commit.
 */
#include <sqlite3.h>

#include "kv.h"

const char *const store_file = "data.sqlite";
static sqlite3 *db;

static int one_text(void *result, int columns, char **values, char **names)
{
	(void)columns;
	(void)names;
	snprintf((char *)result, 100, "%s", values[0] ? values[0] : "");
	return 0;
}

static void run(const char *sql, char *result)
{
	char *why = NULL;

	if (sqlite3_exec(db, sql, result ? one_text : NULL, result, &why))
		die("%s: %s", sql, why);
}

static void store_open(bool recover)
{
	char result[100];

	CALL(sqlite3_open(store_file, &db));
	run("pragma page_size=1024", NULL);
	run("pragma mmap_size=67108864", result);
	run(mode_has("wal") ? "pragma journal_mode=wal" : "pragma journal_mode=delete", result);
	run("pragma synchronous=extra", NULL);
	run("pragma wal_autocheckpoint=20", result);
	if (!recover)
		run("create table kv (k text primary key, v blob)", NULL);
}

static void store_begin(void)
{
	run("begin", NULL);
}

static void store_put(const char *key, const void *value, size_t len)
{
	sqlite3_stmt *s;

	CALL(sqlite3_prepare_v2(db, "insert or replace into kv values (?, ?)", -1, &s, NULL));
	CALL(sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC));
	CALL(sqlite3_bind_blob(s, 2, value, (int)len, SQLITE_STATIC));
	if (sqlite3_step(s) != SQLITE_DONE)
		die("insert: %s", sqlite3_errmsg(db));
	sqlite3_finalize(s);
}

static void store_commit(void)
{
	run("commit", NULL);
}

static long store_get(const char *key, void *value, size_t size)
{
	sqlite3_stmt *s;
	long len = -1;
	int ret;

	if (sqlite3_prepare_v2(db, "select v from kv where k = ?", -1, &s, NULL))
		die("select: %s", sqlite3_errmsg(db));
	CALL(sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC));
	ret = sqlite3_step(s);
	if (ret == SQLITE_ROW) {
		len = sqlite3_column_bytes(s, 0);
		if ((size_t)len > size)
			die("%s has %ld bytes", key, len);
		memcpy(value, sqlite3_column_blob(s, 0), len);
	} else if (ret != SQLITE_DONE) {
		die("select: %s", sqlite3_errmsg(db));
	}
	sqlite3_finalize(s);
	return len;
}

static void store_check(void)
{
	char result[100] = "";

	run("pragma integrity_check", result);
	if (strcmp(result, "ok"))
		die("integrity_check: %s", result);
}
