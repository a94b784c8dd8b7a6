#include "faas/store.h"
#include "test.h"

#include "faulty_disk.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a store in a folder of its own -------------------------------------------------------- */

struct fixture {
	char path[64];
	int dir;
	struct kn_loop *loop;
	struct kn_store *store;
};

static int try_open(struct fixture *f, struct kn_err *err)
{
	const struct kn_store_config config = { .dir = f->dir, .dir_name = f->path, .loop = f->loop };

	return kn_store_open(&config, &f->store, err);
}

static void open_store(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;

	assert_ok(try_open(f, &err), &err);
}

static void reopen(struct fixture *f)
{
	kn_store_close(f->store);
	f->store = NULL;
	open_store(f);
}

static int setup(void **state)
{
	static struct fixture f;
	struct kn_err err = KN_ERR_INIT;

	memset(&fault, 0, sizeof(fault));
	f = (struct fixture){ .path = "/tmp/kn-store-XXXXXX" };
	assert_non_null(mkdtemp(f.path));
	f.dir = open(f.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f.dir >= 0);
	assert_ok(kn_loop_new(&f.loop, &err), &err);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	memset(&fault, 0, sizeof(fault));
	kn_store_close(f->store);
	kn_loop_free(f->loop);
	close(f->dir);
	assert_ok(kn_remove_tree(AT_FDCWD, f->path, &err), &err);
	return 0;
}

static void put(struct fixture *f, const char *name, const char *value)
{
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_store_put(f->store, KN_TABLE_FUNCTION, kn_view_of(name), kn_view_of(value), NULL,
	                       NULL, &err),
	          &err);
}

static void assert_stored(struct fixture *f, const char *name, const char *value)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	int r = kn_store_get(f->store, KN_TABLE_FUNCTION, kn_view_of(name), &b, &err);
	if (!value) {
		assert_fails(r, ENOENT, &err, name);
		return;
	}
	assert_ok(r, &err);
	assert_view(kn_buf_view(&b), value);
}

/* ---- what it remembers --------------------------------------------------------------------- */

struct answer {
	int calls, code, order;
};
static int order;

static void answered(const struct kn_err *err, void *arg)
{
	struct answer *a = arg;

	a->calls++;
	a->code = err ? err->code : 0;
	a->order = ++order;
}

static void change_is_answered_by_the_loop_when_durable(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	struct answer a = { 0 };

	open_store(f);
	assert_ok(kn_store_put(f->store, KN_TABLE_CLIENT, KN_VIEW("x"), KN_VIEW("1"), answered, &a,
	                       &err),
	          &err);
	assert_int_equal(a.calls, 0);
	while (!a.calls)
		kn_loop_once(f->loop, -1);
	assert_int_equal(a.code, 0);
	kn_loop_once(f->loop, 0);
	assert_int_equal(a.calls, 1);
}

static void values_survive_a_restart(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	open_store(f);
	put(f, "a", "1");
	put(f, "b", "2");
	put(f, "a", "3");
	assert_ok(kn_store_delete(f->store, KN_TABLE_FUNCTION, KN_VIEW("b"), NULL, NULL, &err), &err);
	assert_ok(kn_store_delete(f->store, KN_TABLE_FUNCTION, KN_VIEW("never"), NULL, NULL, &err),
	          &err);
	reopen(f);
	assert_stored(f, "a", "3");
	assert_stored(f, "b", NULL);
}

static void close_writes_what_was_submitted(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	struct answer a[3] = { { 0 } };

	open_store(f);
	for (int i = 0; i < 3; i++) {
		char name[] = { (char)('a' + i), 0 };
		assert_ok(kn_store_put(f->store, KN_TABLE_FUNCTION, kn_view_of(name), KN_VIEW("v"),
		                       answered, &a[i], &err),
		          &err);
	}
	reopen(f);
	for (int i = 0; i < 3; i++)
		assert_true(a[i].calls == 1 && a[i].code == 0);
	assert_stored(f, "c", "v");
}

static void answers_come_in_the_order_of_submission(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	enum { N = 2000 };   /* more than one batch */
	static struct answer a[N];

	memset(a, 0, sizeof(a));
	order = 0;
	open_store(f);
	for (int i = 0; i < N; i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%d", i % 7);
		assert_ok(kn_store_put(f->store, KN_TABLE_SETTING, kn_view_of(name), KN_VIEW("v"),
		                       answered, &a[i], &err),
		          &err);
	}
	assert_ok(kn_store_sync(f->store, &err), &err);
	for (int i = 0; i < N; i++)
		assert_true(a[i].calls == 1 && a[i].order == i + 1);
}

static void many_changes_share_syncs(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	open_store(f);
	fault.kind = FAULT_SYNC;
	fault.after = 1000000;
	for (int i = 0; i < 1000; i++)
		put(f, "name", "value");
	assert_ok(kn_store_sync(f->store, &err), &err);
	assert_in_range(fault.calls, 1, 200);
}

static int collect(struct kn_view name, struct kn_view value, void *arg, struct kn_err *err)
{
	struct kn_buf *b = arg;

	(void)err;
	kn_buf_printf(b, "%.*s=%.*s;", (int)name.len, name.ptr, (int)value.len, value.ptr);
	return 0;
}

static int stop_at_first(struct kn_view name, struct kn_view value, void *arg, struct kn_err *err)
{
	(void)value, (void)arg;
	return kn_fail(err, EUCLEAN, "row '%.*s'", (int)name.len, name.ptr);
}

static void rows_come_by_name_and_per_table(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	open_store(f);
	put(f, "b", "2");
	put(f, "a", "1");
	assert_ok(kn_store_put(f->store, KN_TABLE_CLIENT, KN_VIEW("c"), KN_VIEW("3"), NULL, NULL,
	                       &err),
	          &err);
	assert_ok(kn_store_sync(f->store, &err), &err);
	assert_ok(kn_store_each(f->store, KN_TABLE_FUNCTION, collect, &b, &err), &err);
	assert_view(kn_buf_view(&b), "a=1;b=2;");
	assert_fails(kn_store_each(f->store, KN_TABLE_FUNCTION, stop_at_first, NULL, &err), EUCLEAN,
	             &err, "row 'a'");
}

static void names_and_values_have_limits(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	static char big[KN_STORE_MAX_VALUE + 1];
	const struct kn_view bad[] = { KN_VIEW(""), { big, KN_STORE_MAX_NAME + 1 }, { "a\0b", 3 } };

	memset(big, 'x', sizeof(big));
	open_store(f);
	for (size_t i = 0; i < KN_ARRAY_LEN(bad); i++)
		assert_fails(kn_store_put(f->store, KN_TABLE_FUNCTION, bad[i], KN_VIEW("v"), NULL,
		                          NULL, &err),
		             EINVAL, &err, "1 to 255");
	assert_fails(kn_store_put(f->store, KN_TABLE_FUNCTION, KN_VIEW("n"),
	                          (struct kn_view){ big, sizeof(big) }, NULL, NULL, &err),
	             EINVAL, &err, "at most");
	assert_ok(kn_store_put(f->store, KN_TABLE_FUNCTION, KN_VIEW("n"),
	                       (struct kn_view){ big, KN_STORE_MAX_VALUE }, NULL, NULL, &err),
	          &err);
	assert_ok(kn_store_sync(f->store, &err), &err);
}

/* ---- files that are not what they should be ------------------------------------------------ */

static void database(struct fixture *f, char *out, size_t len)
{
	snprintf(out, len, "%s/kiln.db", f->path);
}

static void write_raw(struct fixture *f, const char *sql)
{
	char path[128];
	sqlite3 *db;

	database(f, path, sizeof(path));
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	/* The faulty VFS has no shared memory: a WAL file can be opened exclusively only. */
	assert_int_equal(sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL),
	                 SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void file_is_private(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	open_store(f);
	put(f, "a", "1");
	assert_int_equal(fstatat(f->dir, "kiln.db", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(fstatat(f->dir, "kiln.db-wal", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(fstatat(f->dir, "kiln.db-shm", &st, 0), -1);
}

/* POSIX locks do not hold inside a process: the second one is a child. */
static void second_process_is_refused(void **state)
{
	struct fixture *f = *state;

	open_store(f);
	pid_t child = fork();
	if (child == 0) {
		struct kn_err err = KN_ERR_INIT;
		struct fixture other = *f;
		int r = try_open(&other, &err);
		_exit(r == -EBUSY && strstr(err.text, "another kilnd") ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void noise_is_no_database(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	char noise[8192];

	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (char)(i * 37 + 11);
	assert_ok(kn_write_file(f->dir, "kiln.db", noise, sizeof(noise), 0600, &err), &err);
	assert_fails(try_open(f, &err), EUCLEAN, &err, "damaged or is no Kiln database");
	assert_non_null(strstr(err.text, "kiln.db"));
}

static void damaged_page_is_found_at_open(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	char value[3000];

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = 0;
	open_store(f);
	for (int i = 0; i < 40; i++) {
		char name[8];
		snprintf(name, sizeof(name), "n%d", i);
		put(f, name, value);
	}
	kn_store_close(f->store);
	f->store = NULL;
	int fd = openat(f->dir, "kiln.db", O_RDWR | O_CLOEXEC);
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	memset(value, 0xff, 512);
	for (off_t at = 4096; at < st.st_size; at += 4096)
		assert_int_equal(pwrite(fd, value, 512, at), 512);
	close(fd);
	assert_fails(try_open(f, &err), EUCLEAN, &err, "damaged");
}

static void spoiled_value_is_found_at_open_and_named(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	open_store(f);
	put(f, "good", "value");
	put(f, "bad", "needle in the page");
	kn_store_close(f->store);
	f->store = NULL;
	write_raw(f, "UPDATE function SET value = 'noodle in the page' WHERE name = 'bad'");
	assert_fails(try_open(f, &err), EUCLEAN, &err, "function 'bad' is damaged");
	write_raw(f, "DELETE FROM function WHERE name = 'bad'");
	open_store(f);
	kn_store_close(f->store);
	f->store = NULL;
}

static void other_programs_database_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	write_raw(f, "CREATE TABLE bookmarks (url TEXT)");
	assert_fails(try_open(f, &err), EUCLEAN, &err, "another program's");
	write_raw(f, "INSERT INTO bookmarks VALUES ('still there')");
	assert_int_equal(faccessat(f->dir, "kiln.db-wal", F_OK, 0), -1);
}

static void newer_schema_is_refused(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	open_store(f);
	kn_store_close(f->store);
	f->store = NULL;
	write_raw(f, "PRAGMA user_version = 99");
	assert_fails(try_open(f, &err), EPROTO, &err, "version 99");
}

static void first_schema_is_brought_up_to_date(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf value = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	write_raw(f, "CREATE TABLE function (name TEXT PRIMARY KEY, value TEXT NOT NULL,"
	             " changed INTEGER NOT NULL) STRICT;"
	             "CREATE TABLE client (name TEXT PRIMARY KEY, value TEXT NOT NULL,"
	             " changed INTEGER NOT NULL) STRICT;"
	             "CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL,"
	             " changed INTEGER NOT NULL) STRICT;"
	             "INSERT INTO function VALUES ('old', 'kept', 1);"
	             "PRAGMA application_id = 1265200238; PRAGMA user_version = 1");
	open_store(f);
	assert_ok(kn_store_get(f->store, KN_TABLE_FUNCTION, KN_VIEW("old"), &value, &err), &err);
	assert_view(kn_buf_view(&value), "kept");
	kn_store_close(f->store);
	f->store = NULL;
	write_raw(f, "UPDATE function SET value = 'lost'");
	assert_fails(try_open(f, &err), EUCLEAN, &err, "function 'old' is damaged");
}

static void planted_link_is_not_followed(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	assert_int_equal(symlinkat("elsewhere.db", f->dir, "kiln.db"), 0);
	assert_true(try_open(f, &err) < 0);
	assert_int_equal(faccessat(f->dir, "elsewhere.db", F_OK, 0), -1);
}

static void missing_folder_is_told(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	struct fixture other = *f;

	snprintf(other.path, sizeof(other.path), "/nonexistent/kiln");
	other.dir = -1;
	assert_true(try_open(&other, &err) < 0);
	assert_non_null(strstr(err.text, "/nonexistent/kiln"));
}

/* ---- a failing disk ------------------------------------------------------------------------ */

static int put_and_sync(struct fixture *f, const char *name, const char *value, struct kn_err *err)
{
	int r = kn_store_put(f->store, KN_TABLE_FUNCTION, kn_view_of(name), kn_view_of(value), NULL,
	                     NULL, err);

	return r < 0 ? r : kn_store_sync(f->store, err);
}

static void full_disk_is_told_and_survived(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	open_store(f);
	assert_ok(put_and_sync(f, "a", "before", &err), &err);
	fault.kind = FAULT_WRITE;
	fault.code = SQLITE_FULL;
	fault.lasting = true;
	assert_fails(put_and_sync(f, "a", "lost", &err), ENOSPC, &err, "make room");
	fault.kind = FAULT_NONE;
	assert_stored(f, "a", "before");
	assert_ok(put_and_sync(f, "a", "after", &err), &err);
	reopen(f);
	assert_stored(f, "a", "after");
}

static void failed_sync_stops_the_store(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	open_store(f);
	assert_ok(put_and_sync(f, "a", "1", &err), &err);
	fault.kind = FAULT_SYNC;
	fault.code = SQLITE_IOERR_FSYNC;
	assert_fails(put_and_sync(f, "a", "2", &err), EIO, &err, "write to the database");
	fault.kind = FAULT_NONE;
	assert_fails(put_and_sync(f, "a", "3", &err), EIO, &err, "restart kilnd");
	reopen(f);
	assert_ok(put_and_sync(f, "a", "4", &err), &err);
	assert_stored(f, "a", "4");
}

/*
 * Every write and every sync of a short history fails once: what was acknowledged is there after
 * a restart, what was refused either never happened or happened whole.
 */
static void acknowledged_survives_each_failure_in_turn(void **state)
{
	struct fixture *f = *state;
	static const struct {
		enum fault_kind kind;
		int code;
	} kinds[] = {
		{ FAULT_WRITE, SQLITE_FULL },
		{ FAULT_WRITE, SQLITE_IOERR_WRITE },
		{ FAULT_SYNC, SQLITE_IOERR_FSYNC },
	};

	for (size_t k = 0; k < KN_ARRAY_LEN(kinds); k++) {
		for (long at = 0; at < 24; at++) {
			struct kn_err err = KN_ERR_INIT;
			int last_good = 0;

			if (try_open(f, &err) < 0)
				fail_msg("open: %s", err.text);
			assert_ok(put_and_sync(f, "n", "0", &err), &err);
			fault = (typeof(fault)){ .kind = kinds[k].kind,
				                 .code = kinds[k].code,
				                 .after = at };
			for (int i = 1; i <= 6; i++) {
				char value[8];
				snprintf(value, sizeof(value), "%d", i);
				if (put_and_sync(f, "n", value, &err) == 0)
					last_good = i;
			}
			fault.kind = FAULT_NONE;
			kn_store_close(f->store);
			f->store = NULL;
			open_store(f);
			kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
			assert_ok(kn_store_get(f->store, KN_TABLE_FUNCTION, KN_VIEW("n"), &b, &err),
			          &err);
			if (b.len != 1 || b.ptr[0] - '0' < last_good)
				fail_msg("kind %zu, call %ld: acknowledged %d, found '%.*s'", k, at,
				         last_good, (int)b.len, b.ptr);
			kn_store_close(f->store);
			f->store = NULL;
		}
	}
}

/* ---- killed processes ---------------------------------------------------------------------- */

struct writer {
	int out;
	int number;
};

/* Tell the parent which change is durable: after that no kill may undo it. */
static void tell_parent(const struct kn_err *err, void *arg)
{
	struct writer *w = arg;

	if (err || write(w->out, &w->number, sizeof(w->number)) != sizeof(w->number))
		_exit(1);
	w->number++;
}

/* Change after change, several waiting at a time, until somebody kills this process. */
static void write_for_ever(const struct fixture *parent, int out)
{
	struct fixture f = *parent;
	struct kn_err err = KN_ERR_INIT;
	struct writer w = { .out = out };
	int next = 0;

	if (kn_loop_new(&f.loop, &err) < 0 || try_open(&f, &err) < 0)
		_exit(1);
	for (;;) {
		while (next < w.number + 8) {
			char name[16];
			snprintf(name, sizeof(name), "n%d", next++);
			if (kn_store_put(f.store, KN_TABLE_FUNCTION, kn_view_of(name),
			                 kn_view_of(name), tell_parent, &w, &err) < 0)
				_exit(1);
		}
		kn_loop_once(f.loop, -1);
	}
}

static int last_told(int in)
{
	int number, last = -1;

	while (read(in, &number, sizeof(number)) == sizeof(number)) {
		assert_int_equal(number, last + 1);
		last = number;
	}
	return last;
}

static void killed_process_loses_nothing_acknowledged(void **state)
{
	struct fixture *f = *state;
	int total = 0;

	for (int round = 0; round < 15; round++) {
		struct kn_err err = KN_ERR_INIT;
		int pipes[2], status;
		assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
		pid_t child = fork();
		if (child == 0)
			write_for_ever(f, pipes[1]);
		close(pipes[1]);
		/* Any moment is right: begun, in the middle of a batch, between two. */
		usleep((useconds_t)(2000 + round * 1300));
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		int last = last_told(pipes[0]);
		close(pipes[0]);
		open_store(f);
		for (int i = 0; i <= last; i++) {
			char name[16];
			snprintf(name, sizeof(name), "n%d", i);
			assert_stored(f, name, name);
			assert_ok(kn_store_delete(f->store, KN_TABLE_FUNCTION, kn_view_of(name),
			                          NULL, NULL, &err),
			          &err);
		}
		kn_store_close(f->store);
		f->store = NULL;
		total += last + 1;
	}
	assert_true(total > 0);
}

int main(void)
{
	install_faulty_vfs();
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(change_is_answered_by_the_loop_when_durable),
		CASE(values_survive_a_restart),
		CASE(close_writes_what_was_submitted),
		CASE(answers_come_in_the_order_of_submission),
		CASE(many_changes_share_syncs),
		CASE(rows_come_by_name_and_per_table),
		CASE(names_and_values_have_limits),
		CASE(file_is_private),
		CASE(second_process_is_refused),
		CASE(noise_is_no_database),
		CASE(damaged_page_is_found_at_open),
		CASE(spoiled_value_is_found_at_open_and_named),
		CASE(other_programs_database_is_left_alone),
		CASE(newer_schema_is_refused),
		CASE(first_schema_is_brought_up_to_date),
		CASE(planted_link_is_not_followed),
		CASE(missing_folder_is_told),
		CASE(full_disk_is_told_and_survived),
		CASE(failed_sync_stops_the_store),
		CASE(acknowledged_survives_each_failure_in_turn),
		CASE(killed_process_loses_nothing_acknowledged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
