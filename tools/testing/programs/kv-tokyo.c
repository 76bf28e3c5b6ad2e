// SPDX-License-Identifier: GPL-2.0
/* Tokyo Cabinet's hash database.  MODE sync: tchdbsync() is the commit. */
#include <tcutil.h>
#include <tchdb.h>

#include "kv.h"

const char *const store_file = "data.tch";
static TCHDB *db;

static void ok(bool ret, const char *what)
{
	if (!ret)
		die("%s: %s", what, tchdberrmsg(tchdbecode(db)));
}

static void store_open(bool recover)
{
	db = tchdbnew();
	ok(tchdbopen(db, store_file, HDBOWRITER | (recover ? 0 : HDBOCREAT | HDBOTRUNC)), "open");
	if (!recover)
		ok(tchdbsync(db), "sync");
}

static void store_begin(void)
{
}

static void store_put(const char *key, const void *value, size_t len)
{
	ok(tchdbput(db, key, (int)strlen(key), value, (int)len), "put");
}

static void store_commit(void)
{
	ok(tchdbsync(db), "sync");
}

static long store_get(const char *key, void *value, size_t size)
{
	return tchdbget3(db, key, (int)strlen(key), value, (int)size);
}

static void store_check(void)
{
	int size;
	void *key;

	ok(tchdbiterinit(db), "iterinit");
	while ((key = tchdbiternext(db, &size)))
		free(key);
	if (tchdbecode(db) != TCENOREC && tchdbecode(db) != TCESUCCESS)
		die("iternext: %s", tchdberrmsg(tchdbecode(db)));
}
