// SPDX-License-Identifier: GPL-2.0
/* QDBM's Depot.  MODE sync: dpsync() is the commit. */
#include <depot.h>

#include "kv.h"

const char *const store_file = "data.qdbm";
static DEPOT *db;

static void ok(bool ret, const char *what)
{
	if (!ret)
		die("%s: %s", what, dperrmsg(dpecode));
}

static void store_open(bool recover)
{
	db = dpopen(store_file, DP_OWRITER | (recover ? 0 : DP_OCREAT | DP_OTRUNC), -1);
	ok(db, "dpopen");
	if (!recover)
		ok(dpsync(db), "dpsync");
}

static void store_begin(void)
{
}

static void store_put(const char *key, const void *value, size_t len)
{
	ok(dpput(db, key, -1, value, (int)len, DP_DOVER), "dpput");
}

static void store_commit(void)
{
	ok(dpsync(db), "dpsync");
}

static long store_get(const char *key, void *value, size_t size)
{
	return dpgetwb(db, key, -1, 0, (int)size, value);
}

static void store_check(void)
{
	char *key;

	ok(dpiterinit(db), "dpiterinit");
	while ((key = dpiternext(db, NULL)))
		free(key);
	if (dpecode != DP_ENOITEM)
		die("dpiternext: %s", dperrmsg(dpecode));
}
