/*
 * The SQLite side of the store: one connection, its schema, its prepared statements. Blocking;
 * knows nothing of loops and threads.
 *
 * Thread  one at a time: the store holds its database lock around every call
 */
#pragma once

#include "faas/store.h"

struct sqlite3;
struct sqlite3_stmt;

enum db_query { DB_PUT, DB_DELETE, DB_GET, DB_EACH, DB_SPOILED, DB_QUERIES };
enum { DB_TABLES = 5 };

struct kn_database {
	struct sqlite3 *handle;
	struct sqlite3_stmt *query[DB_TABLES][DB_QUERIES];   /* prepared at first use */
};

/** Open and check, bring the schema up to date. Errors as kn_store_open(). */
kn_must_use int db_open(struct kn_database *db, int dir, const char *dir_name, struct kn_err *err);

/** Everything zero, or half open, is fine. */
void db_close(struct kn_database *db);

kn_must_use int db_begin(struct kn_database *db, struct kn_err *err);
/** Durable when it returns 0; else the transaction is undone. */
kn_must_use int db_commit(struct kn_database *db, struct kn_err *err);
void db_rollback(struct kn_database *db);

kn_must_use int db_put(struct kn_database *db, enum kn_table table, struct kn_view name,
                       struct kn_view value, struct kn_err *err);
kn_must_use int db_delete(struct kn_database *db, enum kn_table table, struct kn_view name,
                          struct kn_err *err);
kn_must_use int db_get(struct kn_database *db, enum kn_table table, struct kn_view name,
                       struct kn_buf *ret, struct kn_err *err);
kn_must_use int db_each(struct kn_database *db, enum kn_table table, kn_store_row row, void *arg,
                        struct kn_err *err);
