#include "faas/secret.h"
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/log.h"

struct fixture {
	char path[64];
	int dir;
	struct kn_loop *loop;
	struct kn_store *store;
	struct kn_secrets *secrets;
	int done, failed;
};

static struct fixture f;

static void open_store(void)
{
	const struct kn_store_config config = { .dir = f.dir, .dir_name = f.path, .loop = f.loop };
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_store_open(&config, &f.store, &err), &err);
}

static void reopen(void)
{
	struct kn_err err = KN_ERR_INIT;

	kn_store_close(f.store);
	kn_secrets_free(f.secrets);
	open_store();
	assert_ok(kn_secrets_open(f.store, f.dir, &f.secrets, &err), &err);
}

static int setup(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	f = (struct fixture){ .path = "/tmp/kn-secret-XXXXXX" };
	assert_non_null(mkdtemp(f.path));
	f.dir = open(f.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	kn_log_setup(
		&(struct kn_log_config){ .level = KN_ERROR, .fd = open("/dev/null", O_WRONLY) });
	assert_ok(kn_loop_new(&f.loop, &err), &err);
	open_store();
	assert_ok(kn_secrets_open(f.store, f.dir, &f.secrets, &err), &err);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kn_store_close(f.store);
	kn_secrets_free(f.secrets);
	kn_loop_free(f.loop);
	close(f.dir);
	assert_ok(kn_remove_tree(AT_FDCWD, f.path, NULL), NULL);
	return 0;
}

static void on_done(const struct kn_err *err, void *arg)
{
	(void)arg;
	f.done++;
	f.failed += err != NULL;
}

static int try_put(const char *name, const char *value, bool fresh, struct kn_err *err)
{
	return kn_secrets_put(f.secrets, kn_view_of(name), kn_view_of(value), fresh, on_done, NULL,
	                      err);
}

static void put(const char *name, const char *value, bool fresh)
{
	struct kn_err err = KN_ERR_INIT;

	assert_ok(try_put(name, value, fresh, &err), &err);
	assert_ok(kn_store_sync(f.store, &err), &err);
}

static void assert_secret(const char *name, const char *value)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_secrets_read(f.secrets, kn_view_of(name), &b, &err), &err);
	assert_int_equal(b.len, strlen(value));
	assert_memory_equal(b.ptr ? b.ptr : "", value, b.len);
}

static void assert_lost(const char *name)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	assert_fails(kn_secrets_read(f.secrets, kn_view_of(name), &b, &err), EUCLEAN, &err,
	             "kiln secret update");
	assert_int_equal(b.len, 0);
}

static void value_comes_back_after_a_restart(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	(void)state;
	put("token", "hunter2", true);
	put("empty", "", true);
	put("a.b_c-d", "line\nline\n", true);
	reopen();
	assert_int_equal(kn_secrets_count(f.secrets), 3);
	assert_string_equal(kn_secrets_name(f.secrets, 0), "a.b_c-d");
	assert_string_equal(kn_secrets_name(f.secrets, 2), "token");
	assert_secret("token", "hunter2");
	assert_secret("empty", "");
	assert_secret("a.b_c-d", "line\nline\n");
	assert_fails(kn_secrets_read(f.secrets, KN_VIEW("none"), &b, &err), ENOENT, &err,
	             "kiln secret create none");
}

static void counts_when_it_is_durable(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(try_put("token", "one", true, &err), &err);
	assert_false(kn_secrets_has(f.secrets, KN_VIEW("token")));
	assert_fails(try_put("token", "two", true, &err), EBUSY, &err, "being changed");
	assert_ok(kn_store_sync(f.store, &err), &err);
	assert_int_equal(f.done, 1);
	assert_int_equal(f.failed, 0);
	assert_secret("token", "one");
	assert_fails(try_put("token", "two", true, &err), EEXIST, &err, "token");
	assert_fails(try_put("other", "two", false, &err), ENOENT, &err, "other");
	put("token", "two", false);
	assert_secret("token", "two");
	assert_ok(kn_secrets_remove(f.secrets, KN_VIEW("token"), on_done, NULL, &err), &err);
	assert_true(kn_secrets_has(f.secrets, KN_VIEW("token")));
	assert_ok(kn_store_sync(f.store, &err), &err);
	assert_false(kn_secrets_has(f.secrets, KN_VIEW("token")));
	assert_fails(kn_secrets_remove(f.secrets, KN_VIEW("token"), NULL, NULL, &err), ENOENT, &err,
	             "token");
	reopen();
	assert_int_equal(kn_secrets_count(f.secrets), 0);
}

/* Every file of the state folder, whatever SQLite calls them. */
static void database_holds_nothing_in_the_clear(void **state)
{
	static const char VALUE[] = "correct horse battery staple";
	DIR *d;
	int files = 0;

	(void)state;
	put("token", VALUE, true);
	reopen();
	assert_non_null(d = opendir(f.path));
	for (struct dirent *e; (e = readdir(d));) {
		kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
		struct kn_err err = KN_ERR_INIT;
		if (e->d_name[0] == '.')
			continue;
		assert_ok(kn_read_file(f.dir, e->d_name, 1 << 24, &b, &err), &err);
		assert_null(memmem(b.ptr, b.len, VALUE, sizeof(VALUE) - 1));
		files++;
	}
	closedir(d);
	assert_true(files >= 2);
	struct stat st;
	assert_int_equal(fstatat(f.dir, "secret-key", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void records_cannot_change_places(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf record = KN_BUF_INIT;

	(void)state;
	put("mine", "one", true);
	put("yours", "two", true);
	assert_ok(kn_store_get(f.store, KN_TABLE_SECRET, KN_VIEW("mine"), &record, &err), &err);
	assert_ok(kn_store_put(f.store, KN_TABLE_SECRET, KN_VIEW("yours"), kn_buf_view(&record),
	                       NULL, NULL, &err),
	          &err);
	assert_ok(kn_store_sync(f.store, &err), &err);
	reopen();
	assert_secret("mine", "one");
	assert_lost("yours");
}

static void spoiled_records_are_lost_and_can_be_set_again(void **state)
{
	static const char *const RECORDS[] = { "", "v1:", "v1:AAAA", "v2:AAAA", "v1:!!!!",
		                               "v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" };
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(RECORDS); i++) {
		assert_ok(kn_store_put(f.store, KN_TABLE_SECRET, KN_VIEW("token"),
		                       kn_view_of(RECORDS[i]), NULL, NULL, &err),
		          &err);
		assert_ok(kn_store_sync(f.store, &err), &err);
		reopen();
		assert_lost("token");
	}
	put("token", "new", false);
	assert_secret("token", "new");
}

static void without_its_key_a_secret_is_lost(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	put("token", "one", true);
	assert_int_equal(unlinkat(f.dir, "secret-key", 0), 0);
	reopen();
	assert_true(kn_secrets_has(f.secrets, KN_VIEW("token")));
	assert_lost("token");
	put("token", "two", false);
	reopen();
	assert_secret("token", "two");

	struct kn_secrets *other = NULL;
	assert_int_equal(fchmodat(f.dir, "secret-key", 0640, 0), 0);
	assert_fails(kn_secrets_open(f.store, f.dir, &other, &err), EPERM, &err, "chmod 600");
	assert_ok(kn_write_file(f.dir, "secret-key", "abc\n", 4, 0600, &err), &err);
	assert_fails(kn_secrets_open(f.store, f.dir, &other, &err), EUCLEAN, &err, "no key");
}

static void names_and_sizes_have_limits(void **state)
{
	static const char *const BAD[] = { "",  "A",   "a/b", "..",  ".a",   "a.", "-a",
		                           "a ", "a\n", "\xc3\xa4", "../../etc/passwd" };
	static char large[KN_SECRET_MAX + 1], name[KN_SECRET_NAME_MAX + 2];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(BAD); i++)
		assert_fails(try_put(BAD[i], "x", true, &err), EINVAL, &err, "lower-case");
	memset(name, 'n', sizeof(name) - 1);
	assert_fails(try_put(name, "x", true, &err), EINVAL, &err, "253");
	name[KN_SECRET_NAME_MAX] = '\0';
	put(name, "x", true);
	memset(large, 'l', sizeof(large));
	assert_fails(kn_secrets_put(f.secrets, KN_VIEW("large"), (struct kn_view){ large, sizeof(large) },
	                            true, NULL, NULL, &err),
	             EINVAL, &err, "65536");
	assert_ok(kn_secrets_put(f.secrets, KN_VIEW("large"),
	                         (struct kn_view){ large, KN_SECRET_MAX }, true, on_done, NULL, &err),
	          &err);
	assert_ok(kn_store_sync(f.store, &err), &err);
	reopen();
	assert_int_equal(kn_secrets_count(f.secrets), 2);
}

#define SECRET(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SECRET(value_comes_back_after_a_restart),
		SECRET(counts_when_it_is_durable),
		SECRET(database_holds_nothing_in_the_clear),
		SECRET(records_cannot_change_places),
		SECRET(spoiled_records_are_lost_and_can_be_set_again),
		SECRET(without_its_key_a_secret_is_lost),
		SECRET(names_and_sizes_have_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
