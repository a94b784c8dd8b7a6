#include "faas/store/database.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static const char FILE_NAME[] = "kiln.db";

enum { APPLICATION_ID = 0x4b696c6e };   /* "Kiln": tells our files from others' (file(1), too) */

/*
 * Schema version N is what the first N rows have done. A row never changes after a release: what
 * comes later is a new row.
 */
static const char *const MIGRATIONS[] = {
	"CREATE TABLE function (name TEXT PRIMARY KEY, value TEXT NOT NULL, changed INTEGER NOT NULL)"
	" STRICT;"
	"CREATE TABLE client (name TEXT PRIMARY KEY, value TEXT NOT NULL, changed INTEGER NOT NULL)"
	" STRICT;"
	"CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL, changed INTEGER NOT NULL)"
	" STRICT;",
	"ALTER TABLE function ADD COLUMN sum INTEGER; UPDATE function SET sum = kn_sum(name, value);"
	"ALTER TABLE client ADD COLUMN sum INTEGER; UPDATE client SET sum = kn_sum(name, value);"
	"ALTER TABLE setting ADD COLUMN sum INTEGER; UPDATE setting SET sum = kn_sum(name, value);",
	"CREATE TABLE secret (name TEXT PRIMARY KEY, value TEXT NOT NULL, changed INTEGER NOT NULL,"
	" sum INTEGER) STRICT;",
	"CREATE TABLE call (name TEXT PRIMARY KEY, value TEXT NOT NULL, changed INTEGER NOT NULL,"
	" sum INTEGER) STRICT;",
};

/* enum kn_table, enum db_query */
static const char *const QUERIES[DB_TABLES][DB_QUERIES] = {
#define QUERIES_OF(table)                                                                          \
	{ "INSERT INTO " table " (name, value, changed, sum)"                                      \
	  " VALUES (?1, ?2, unixepoch(), kn_sum(?1, ?2))"                                          \
	  " ON CONFLICT (name) DO UPDATE SET value = ?2, changed = unixepoch(),"                   \
	  " sum = kn_sum(?1, ?2)",                                                                 \
	  "DELETE FROM " table " WHERE name = ?1", "SELECT value FROM " table " WHERE name = ?1",  \
	  "SELECT name, value FROM " table " ORDER BY name",                                       \
	  "SELECT name FROM " table " WHERE sum IS NOT kn_sum(name, value) LIMIT 1" }
	QUERIES_OF("function"),
	QUERIES_OF("client"),
	QUERIES_OF("setting"),
	QUERIES_OF("secret"),
	QUERIES_OF("call"),
};

static const char *const TABLES[DB_TABLES] = { "function", "client", "setting", "secret", "call" };

static int errno_of(int code)
{
	switch (code & 0xff) {
	case SQLITE_FULL:
		return ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return EBUSY;
	case SQLITE_NOTADB:
	case SQLITE_CORRUPT:
	case SQLITE_SCHEMA:
		return EUCLEAN;
	case SQLITE_NOMEM:
		return ENOMEM;
	case SQLITE_READONLY:
		return EROFS;
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return EACCES;
	default:
		return EIO;
	}
}

static const char *advice_for(int code)
{
	switch (errno_of(code)) {
	case ENOSPC:
		return ": make room and try again";
	case EBUSY:
		return ": another kilnd uses this state folder";
	case EUCLEAN:
		return ": the file is damaged or is no Kiln database; restore a copy, or move it away "
		       "to start empty";
	case EROFS:
	case EACCES:
		return ": kilnd must own the state folder and be able to write there";
	default:
		return "";
	}
}

static int (failed)(struct kn_database *db, int code, const char *what, struct kn_err *err)
{
	/* The extended code tells a failed sync from a failed read. */
	int extended = db->handle ? sqlite3_extended_errcode(db->handle) : code;

	return kn_fail(err, errno_of(code), "%s: %s (SQLite %d)%s", what, sqlite3_errstr(code),
	               extended, advice_for(code));
}
#define failed(...) kn_negative((failed)(__VA_ARGS__))

static int run(struct kn_database *db, const char *sql, const char *what, struct kn_err *err)
{
	int code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);

	return code == SQLITE_OK ? 0 : failed(db, code, what, err);
}

/* The first column of the first row as a number. */
static int ask_number(struct kn_database *db, const char *sql, sqlite3_int64 *ret,
                      struct kn_err *err)
{
	sqlite3_stmt *st = NULL;
	int code = sqlite3_prepare_v2(db->handle, sql, -1, &st, NULL);

	if (code == SQLITE_OK)
		code = sqlite3_step(st);
	if (code == SQLITE_ROW)
		*ret = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return code == SQLITE_ROW ? 0 : failed(db, code, "read the database", err);
}

static int check_pages(struct kn_database *db, struct kn_err *err)
{
	sqlite3_stmt *st = NULL;
	int code = sqlite3_prepare_v2(db->handle, "PRAGMA quick_check(1)", -1, &st, NULL);
	bool good = false;

	if (code == SQLITE_OK)
		code = sqlite3_step(st);
	if (code == SQLITE_ROW) {
		const unsigned char *text = sqlite3_column_text(st, 0);
		good = text && kn_view_is(kn_view_of((const char *)text), KN_VIEW("ok"));
	}
	sqlite3_finalize(st);
	if (good)
		return 0;
	return failed(db, code == SQLITE_ROW ? SQLITE_CORRUPT : code, "check the database", err);
}

/*
 * SQLite finds pages whose structure is broken, not a byte that changed in a value: each row carries
 * a sum of itself, 63 bits of its SHA-256.
 */
static void sum_of_row(sqlite3_context *context, int n, sqlite3_value **values)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	uint64_t sum;
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	bool good = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;

	for (int i = 0; i < n && good; i++) {
		const void *text = sqlite3_value_blob(values[i]);
		uint32_t len = (uint32_t)sqlite3_value_bytes(values[i]);
		good = EVP_DigestUpdate(md, &len, sizeof(len)) == 1 &&
		       EVP_DigestUpdate(md, text, len) == 1;
	}
	good = good && EVP_DigestFinal_ex(md, digest, NULL) == 1;
	EVP_MD_CTX_free(md);
	if (!good) {
		sqlite3_result_error_nomem(context);
		return;
	}
	memcpy(&sum, digest, sizeof(sum));
	sqlite3_result_int64(context, (sqlite3_int64)(le64toh(sum) >> 1));
}

static int add_functions(struct kn_database *db, struct kn_err *err)
{
	int code = sqlite3_create_function(db->handle, "kn_sum", 2,
	                                   SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY,
	                                   NULL, sum_of_row, NULL, NULL);

	return code == SQLITE_OK ? 0 : failed(db, code, "open the database", err);
}

static int migrate_one(struct kn_database *db, size_t version, struct kn_err *err)
{
	char pragma[96];

	int r = db_begin(db, err);
	if (r < 0)
		return r;
	snprintf(pragma, sizeof(pragma), "PRAGMA application_id = %d; PRAGMA user_version = %zu",
	         APPLICATION_ID, version + 1);
	r = run(db, MIGRATIONS[version], "bring the database up to date", err);
	if (r == 0)
		r = run(db, pragma, "bring the database up to date", err);
	if (r < 0) {
		db_rollback(db);
		return r;
	}
	return db_commit(db, err);
}

/* Whose file is it? Asked before anything is written: another program's is left as it is. */
static int check_identity(struct kn_database *db, sqlite3_int64 *ret_version, struct kn_err *err)
{
	sqlite3_int64 application, tables;

	if (ask_number(db, "PRAGMA application_id", &application, err) < 0 ||
	    ask_number(db, "PRAGMA user_version", ret_version, err) < 0 ||
	    ask_number(db, "SELECT count(*) FROM sqlite_schema", &tables, err) < 0)
		return -err->code;
	if (application != APPLICATION_ID && (tables > 0 || application != 0))
		return kn_fail(err, EUCLEAN, "the file is another program's database: move it away "
		                             "to start empty");
	if (*ret_version < 0 || *ret_version > (sqlite3_int64)KN_ARRAY_LEN(MIGRATIONS))
		return kn_fail(err, EPROTO, "the database has version %lld, this Kiln knows %zu: use "
		                            "the newer Kiln that wrote it",
		               (long long)*ret_version, KN_ARRAY_LEN(MIGRATIONS));
	return 0;
}

static int migrate(struct kn_database *db, sqlite3_int64 version, struct kn_err *err)
{
	for (size_t v = (size_t)version; v < KN_ARRAY_LEN(MIGRATIONS); v++) {
		int r = migrate_one(db, v, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * SQLite would make the file with the umask's mode. Only a missing file is touched: opening and
 * closing a database that is in use would drop its POSIX locks.
 */
static int create_private(int dir, struct kn_err *err)
{
	int fd = openat(dir, FILE_NAME, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno == EEXIST ? 0 : kn_fail(err, errno, "create: %m%s",
		                                     advice_for(SQLITE_CANTOPEN));
	kn_close(fd);
	return fsync(dir) < 0 ? kn_fail(err, errno, "sync the state folder: %m") : 0;
}

/* DEFENSIVE and an untrusted schema: a planted file must not run functions of ours. */
static int limit_connection(struct kn_database *db, struct kn_err *err)
{
	sqlite3_extended_result_codes(db->handle, 1);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_limit(db->handle, SQLITE_LIMIT_LENGTH, 4 * KN_STORE_MAX_VALUE);
	return run(db, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA cell_size_check = ON",
	           "open the database", err);
}

/*
 * EXCLUSIVE (above) before WAL: a second kilnd is refused, and no shared-memory file is needed. FULL
 * makes every commit wait for the disk.
 */
static int set_journal(struct kn_database *db, struct kn_err *err)
{
	return run(db,
	           "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN IMMEDIATE; COMMIT",
	           "open the database", err);
}

static int query(struct kn_database *db, enum kn_table table, enum db_query q, struct kn_view name,
                 sqlite3_stmt **ret, struct kn_err *err)
{
	sqlite3_stmt **st = &db->query[table][q];

	if (!*st) {
		int code = sqlite3_prepare_v3(db->handle, QUERIES[table][q], -1,
		                              SQLITE_PREPARE_PERSISTENT, st, NULL);
		if (code != SQLITE_OK)
			return failed(db, code, "prepare a query", err);
	}
	/* The caller's bytes outlive the step: finish() unbinds them. */
	if (q != DB_EACH && q != DB_SPOILED && sqlite3_bind_text(*st, 1, name.ptr ? name.ptr : "", (int)name.len,
	                                      SQLITE_STATIC) != SQLITE_OK)
		return failed(db, sqlite3_errcode(db->handle), "bind a name", err);
	*ret = *st;
	return 0;
}

static void finish(sqlite3_stmt *st)
{
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
}

static struct kn_view column(sqlite3_stmt *st, int i)
{
	const void *ptr = sqlite3_column_blob(st, i);

	return (struct kn_view){ ptr, (size_t)sqlite3_column_bytes(st, i) };
}

static int check_rows(struct kn_database *db, enum kn_table table, struct kn_err *err)
{
	sqlite3_stmt *st;

	int r = query(db, table, DB_SPOILED, KN_VIEW_NULL, &st, err);
	if (r < 0)
		return r;
	int code = sqlite3_step(st);
	if (code == SQLITE_ROW) {
		struct kn_view name = column(st, 0);
		r = kn_fail(err, EUCLEAN, "the stored %s '%.*s' is damaged%s", TABLES[table],
		            (int)kn_min(name.len, (size_t)KN_STORE_MAX_NAME), name.ptr,
		            advice_for(SQLITE_CORRUPT));
	} else if (code != SQLITE_DONE) {
		r = failed(db, code, "check the database", err);
	}
	finish(st);
	return r;
}

static int prepare(struct kn_database *db, struct kn_err *err)
{
	sqlite3_int64 version;

	int r = limit_connection(db, err);
	if (r == 0)
		r = check_identity(db, &version, err);
	if (r == 0)
		r = set_journal(db, err);
	if (r == 0)
		r = check_pages(db, err);
	if (r == 0)
		r = add_functions(db, err);
	if (r == 0)
		r = migrate(db, version, err);
	for (size_t t = 0; r == 0 && t < DB_TABLES; t++)
		r = check_rows(db, (enum kn_table)t, err);
	return r;
}

int db_open(struct kn_database *db, int dir, const char *dir_name, struct kn_err *err)
{
	char path[PATH_MAX];
	struct kn_err unheard = KN_ERR_INIT;

	if (!err)
		err = &unheard;
	*db = (struct kn_database){ .handle = NULL };
	int n = snprintf(path, sizeof(path), "%s/%s", dir_name, FILE_NAME);
	if (n < 0 || (size_t)n >= sizeof(path))
		return kn_fail(err, ENAMETOOLONG, "state folder '%s'", dir_name);

	int r = create_private(dir, err);
	if (r == 0) {
		int code = sqlite3_open_v2(path, &db->handle,
		                           SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
		                                   SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE,
		                           NULL);
		r = code == SQLITE_OK ? 0 : failed(db, code, "open", err);
	}
	if (r == 0)
		r = prepare(db, err);
	if (r < 0) {
		db_close(db);
		return kn_while(err, "database '%s'", path);
	}
	return 0;
}

void db_close(struct kn_database *db)
{
	for (size_t t = 0; t < DB_TABLES; t++) {
		for (size_t q = 0; q < DB_QUERIES; q++)
			sqlite3_finalize(db->query[t][q]);
	}
	sqlite3_close(db->handle);
	*db = (struct kn_database){ .handle = NULL };
}

int db_begin(struct kn_database *db, struct kn_err *err)
{
	return run(db, "BEGIN IMMEDIATE", "begin a change", err);
}

int db_commit(struct kn_database *db, struct kn_err *err)
{
	int r = run(db, "COMMIT", "write to the database", err);

	if (r < 0)
		db_rollback(db);
	return r;
}

void db_rollback(struct kn_database *db)
{
	/* A full disk may have ended the transaction already. */
	if (!sqlite3_get_autocommit(db->handle))
		sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
}

int db_put(struct kn_database *db, enum kn_table table, struct kn_view name, struct kn_view value,
           struct kn_err *err)
{
	sqlite3_stmt *st;

	int r = query(db, table, DB_PUT, name, &st, err);
	if (r < 0)
		return r;
	int code = sqlite3_bind_text(st, 2, value.ptr ? value.ptr : "", (int)value.len,
	                             SQLITE_STATIC);
	if (code == SQLITE_OK)
		code = sqlite3_step(st);
	r = code == SQLITE_DONE ? 0 : failed(db, code, "write to the database", err);
	finish(st);
	return r;
}

int db_delete(struct kn_database *db, enum kn_table table, struct kn_view name, struct kn_err *err)
{
	sqlite3_stmt *st;

	int r = query(db, table, DB_DELETE, name, &st, err);
	if (r < 0)
		return r;
	int code = sqlite3_step(st);
	r = code == SQLITE_DONE ? 0 : failed(db, code, "write to the database", err);
	finish(st);
	return r;
}

int db_get(struct kn_database *db, enum kn_table table, struct kn_view name, struct kn_buf *ret,
           struct kn_err *err)
{
	sqlite3_stmt *st;

	int r = query(db, table, DB_GET, name, &st, err);
	if (r < 0)
		return r;
	int code = sqlite3_step(st);
	if (code == SQLITE_ROW)
		kn_buf_add_view(ret, column(st, 0));
	else if (code == SQLITE_DONE)
		r = kn_fail(err, ENOENT, "'%.*s' is not stored", (int)name.len, name.ptr);
	else
		r = failed(db, code, "read the database", err);
	finish(st);
	return ret->failed ? kn_fail(err, ENOMEM, "no memory for a stored value") : r;
}

int db_each(struct kn_database *db, enum kn_table table, kn_store_row row, void *arg,
            struct kn_err *err)
{
	sqlite3_stmt *st;

	int r = query(db, table, DB_EACH, KN_VIEW_NULL, &st, err);
	if (r < 0)
		return r;
	int code = SQLITE_ROW;
	while (r >= 0 && (code = sqlite3_step(st)) == SQLITE_ROW)
		r = row(column(st, 0), column(st, 1), arg, err);
	if (r >= 0)
		r = code == SQLITE_DONE ? 0 : failed(db, code, "read the database", err);
	finish(st);
	return r;
}
