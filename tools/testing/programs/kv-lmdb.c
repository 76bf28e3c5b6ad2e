// SPDX-License-Identifier: GPL-2.0
/*
 * LMDB.  MODE default; writemap: MDB_WRITEMAP; async: that with MDB_MAPASYNC and
 * mdb_env_sync(); grow: the same, and the map is made larger before mdb_env_sync().
 */
#include <lmdb.h>

#include "kv.h"

const char *const store_file = "data.mdb";
static MDB_env *env;
static MDB_txn *txn;
static MDB_dbi dbi;
static size_t map_size = 2 << 20;

static void store_open(bool recover)
{
	bool async = mode_has("async") || mode_has("grow");
	unsigned int flags = 0;

	if (mode_has("writemap"))
		flags = MDB_WRITEMAP;
	if (async)
		flags = MDB_WRITEMAP | MDB_MAPASYNC;
	if (recover) {
		flags = 0;
		map_size = 64 << 20;
	}
	CALL(mdb_env_create(&env));
	CALL(mdb_env_set_mapsize(env, map_size));
	CALL(mdb_env_open(env, ".", flags, 0600));
	CALL(mdb_txn_begin(env, NULL, 0, &txn));
	CALL(mdb_dbi_open(txn, NULL, 0, &dbi));
	if (recover)
		return;
	CALL(mdb_txn_commit(txn));
	CALL(mdb_env_sync(env, 1));
}

static void store_begin(void)
{
	CALL(mdb_txn_begin(env, NULL, 0, &txn));
}

static void store_put(const char *key, const void *value, size_t len)
{
	MDB_val k = { strlen(key), (void *)key }, v = { len, (void *)value };

	CALL(mdb_put(txn, dbi, &k, &v, 0));
}

static void store_commit(void)
{
	CALL(mdb_txn_commit(txn));
	if (mode_has("grow")) {
		map_size += 1 << 20;
		CALL(mdb_env_set_mapsize(env, map_size));
	}
	if (mode_has("grow") || mode_has("async"))
		CALL(mdb_env_sync(env, 1));
}

static long store_get(const char *key, void *value, size_t size)
{
	MDB_val k = { strlen(key), (void *)key }, v;

	if (mdb_get(txn, dbi, &k, &v) || v.mv_size > size)
		return -1;
	memcpy(value, v.mv_data, v.mv_size);
	return v.mv_size;
}

static void store_check(void)
{
	MDB_cursor *cursor;
	MDB_val k, v;
	MDB_stat st;
	size_t n = 0;

	CALL(mdb_stat(txn, dbi, &st));
	CALL(mdb_cursor_open(txn, dbi, &cursor));
	while (!mdb_cursor_get(cursor, &k, &v, MDB_NEXT))
		n++;
	if (n != st.ms_entries)
		die("the tree has %zu entries, its root says %zu", n, st.ms_entries);
}
