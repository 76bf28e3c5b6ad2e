// SPDX-License-Identifier: GPL-2.0
/* Kyoto Cabinet's TreeDB.  MODE sync: synchronize(hard) is the commit. */
#include <kcpolydb.h>

#include "kv.h"

extern const char *const store_file;
const char *const store_file = "data.kct";
static kyotocabinet::TreeDB db;

static void ok(bool ret, const char *what)
{
	if (!ret)
		die("%s: %s", what, db.error().message());
}

static void store_open(bool recover)
{
	uint32_t flags = kyotocabinet::TreeDB::OWRITER;

	if (!recover)
		flags |= kyotocabinet::TreeDB::OCREATE | kyotocabinet::TreeDB::OTRUNCATE;
	ok(db.open(store_file, flags), "open");
	if (!recover)
		ok(db.synchronize(true), "synchronize");
}

static void store_begin()
{
}

static void store_put(const char *key, const void *value, size_t len)
{
	ok(db.set(key, strlen(key), static_cast<const char *>(value), len), "set");
}

static void store_commit()
{
	ok(db.synchronize(true), "synchronize");
}

static long store_get(const char *key, void *value, size_t size)
{
	return db.get(key, strlen(key), static_cast<char *>(value), size);
}

static void store_check()
{
	if (db.count() < 1)
		die("no records");
}
