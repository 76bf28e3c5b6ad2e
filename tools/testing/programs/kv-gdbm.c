// SPDX-License-Identifier: GPL-2.0
/* GDBM.  MODE sync: gdbm_sync() is the commit. */
#include <gdbm.h>

#include "kv.h"

const char *const store_file = "data.gdbm";
static GDBM_FILE db;

static void store_open(bool recover)
{
	db = gdbm_open(store_file, 0, recover ? GDBM_WRITER : GDBM_NEWDB, 0600, NULL);
	if (!db)
		die("gdbm_open: %s", gdbm_strerror(gdbm_errno));
	if (!recover)
		CALL(gdbm_sync(db));
}

static void store_begin(void)
{
}

static void store_put(const char *key, const void *value, size_t len)
{
	datum k = { (char *)key, (int)strlen(key) }, v = { (char *)value, (int)len };

	CALL(gdbm_store(db, k, v, GDBM_REPLACE));
}

static void store_commit(void)
{
	CALL(gdbm_sync(db));
}

static long store_get(const char *key, void *value, size_t size)
{
	datum k = { (char *)key, (int)strlen(key) }, v = gdbm_fetch(db, k);

	if (!v.dptr || (size_t)v.dsize > size)
		return -1;
	memcpy(value, v.dptr, v.dsize);
	free(v.dptr);
	return v.dsize;
}

static void store_check(void)
{
	datum k = gdbm_firstkey(db);

	while (k.dptr)
		k = gdbm_nextkey(db, k);
	if (gdbm_errno != GDBM_ITEM_NOT_FOUND && gdbm_errno != GDBM_NO_ERROR)
		die("gdbm_nextkey: %s", gdbm_strerror(gdbm_errno));
}
