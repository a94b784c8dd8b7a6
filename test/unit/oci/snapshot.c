/* A store in a temporary folder; small files stand for guests. */
#include "oci/snapshot.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "test.h"

enum { SECONDS = 20, BYTES = 1 << 20 };

static struct {
	struct kn_loop *loop;
	struct kn_snapshots *store;
	char dir[64];
	bool opened, kept;
	struct kn_err err;
	int memory_fd, state_fd;
	char key[KN_SNAPSHOT_KEY + 1];
} t;

static struct kn_snapshot_fact facts[] = { { "kernel", "1" }, { "QEMU", "7.2" } };

static void open_store(uint64_t max_bytes)
{
	struct kn_snapshots_config c = { .loop = t.loop, .dir = t.dir, .max_bytes = max_bytes,
		                         .facts = facts, .n_facts = KN_ARRAY_LEN(facts) };
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_snapshots_open(&c, &t.store, &err), &err);
}

static int setup(void **state)
{
	struct kn_log_config quiet = { .level = KN_ERROR, .fd = 2 };

	(void)state;
	kn_log_setup(&quiet);
	memset(&t, 0, sizeof(t));
	snprintf(t.dir, sizeof(t.dir), "/tmp/kn-snapshot-XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	assert_int_equal(kn_loop_new(&t.loop, NULL), 0);
	snprintf(facts[0].value, sizeof(facts[0].value), "1");
	open_store(UINT64_C(1) << 30);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kn_snapshots_close(t.store);
	kn_loop_free(t.loop);
	return kn_remove_tree(AT_FDCWD, t.dir, NULL);
}

static void wait_for(const bool *flag)
{
	uint64_t end = kn_now_ns() + SECONDS * KN_NS_PER_S;

	while (!*flag && kn_now_ns() < end)
		assert_true(kn_loop_once(t.loop, 100) >= 0);
	assert_true(*flag);
}

static void on_opened(struct kn_draft *d, int memory_fd, int state_fd, const struct kn_err *err,
                      void *arg)
{
	(void)d;
	(void)arg;
	t.opened = true;
	t.memory_fd = memory_fd;
	t.state_fd = state_fd;
	if (err)
		t.err = *err;
}

static void on_kept(const struct kn_err *err, void *arg)
{
	(void)arg;
	t.kept = true;
	if (err)
		t.err = *err;
}

static struct kn_draft *begin(const char *name, uint64_t bytes, const struct kn_snapshot *base)
{
	struct kn_draft_config c = { .key = t.key, .about = name, .memory_bytes = bytes,
		                     .base = base, .opened = on_opened };
	struct kn_err err = KN_ERR_INIT;
	struct kn_draft *d;

	t.opened = t.kept = false;
	t.err = (struct kn_err)KN_ERR_INIT;
	assert_ok(kn_snapshot_key_of(kn_view_of(name), t.key, &err), &err);
	assert_ok(kn_draft_new(t.store, &c, &d, &err), &err);
	wait_for(&t.opened);
	return d;
}

static void make(const char *name)
{
	struct kn_draft *d = begin(name, BYTES, NULL);

	assert_int_equal(t.err.code, 0);
	assert_int_equal(pwrite(t.memory_fd, name, strlen(name), BYTES / 2),
	                 (ssize_t)strlen(name));
	assert_int_equal(write(t.state_fd, "state", 5), 5);
	kn_draft_keep(d, on_kept, NULL);
	wait_for(&t.kept);
	assert_int_equal(t.err.code, 0);
}

/* Opens the snapshot whose key is t.key, waiting for its check. 0 or -errno. */
static int get(struct kn_snapshot *ret, struct kn_err *err)
{
	uint64_t end = kn_now_ns() + SECONDS * KN_NS_PER_S;
	int r;

	while ((r = kn_snapshots_get(t.store, t.key, ret, err)) == -EAGAIN && kn_now_ns() < end) {
		assert_true(kn_loop_once(t.loop, 100) >= 0);
		*err = (struct kn_err)KN_ERR_INIT;
	}
	return r;
}

static void path_of(const char *name, char out[256])
{
	snprintf(out, 256, "%s/%s/%s", t.dir, t.key, name);
}

static size_t files_in_store(void)
{
	DIR *d = opendir(t.dir);
	size_t n = 0;

	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void what_was_made_is_started_from(void **state)
{
	struct kn_snapshot snap, other;
	struct kn_err err = KN_ERR_INIT;
	struct stat st;
	char text[8] = "";

	(void)state;
	assert_int_equal(get(&snap, &err), -ENOENT);
	make("hello");
	assert_true(kn_snapshots_has(t.store, t.key));
	for (int i = 0; i < 2; i++) {
		assert_ok(get(&snap, &err), &err);
		assert_int_equal(snap.memory_bytes, BYTES);
		assert_int_equal(pread(snap.memory_fd, text, 5, BYTES / 2), 5);
		assert_string_equal(text, "hello");
		assert_int_equal(pwrite(snap.memory_fd, "x", 1, 0), -1);
		/* zeros take no room */
		assert_int_equal(fstat(snap.memory_fd, &st), 0);
		assert_true(st.st_blocks * 512 < BYTES / 2);
		assert_int_equal(st.st_mode & 0777, 0600);
		kn_snapshot_fini(&snap);
		/* once more after a restart: checked by a worker first */
		kn_snapshots_close(t.store);
		open_store(UINT64_C(1) << 30);
	}
	assert_ok(get(&snap, &err), &err);
	struct kn_draft *d = begin("child", BYTES, &snap);
	assert_int_equal(pread(t.memory_fd, text, 5, BYTES / 2), 5);
	assert_string_equal(text, "hello");
	assert_int_equal(pwrite(t.memory_fd, "other", 5, BYTES / 2), 5);
	assert_int_equal(pread(snap.memory_fd, text, 5, BYTES / 2), 5);
	assert_string_equal(text, "hello");
	kn_draft_drop(d);
	kn_snapshot_fini(&snap);
	assert_int_equal(kn_snapshots_get(t.store, t.key, &other, &err), -ENOENT);
	assert_int_equal(files_in_store(), 1);
}

static void stale_ones_are_removed_at_open(void **state)
{
	(void)state;
	make("hello");
	kn_snapshots_close(t.store);
	snprintf(facts[0].value, sizeof(facts[0].value), "2");
	open_store(UINT64_C(1) << 30);
	assert_false(kn_snapshots_has(t.store, t.key));
	assert_int_equal(files_in_store(), 0);
	assert_int_equal(kn_snapshots_bytes(t.store), 0);
}

static void expect_gone(int code, const char *says)
{
	struct kn_snapshot snap;
	struct kn_err err = KN_ERR_INIT;

	assert_fails(get(&snap, &err), code, &err, says);
	assert_false(kn_snapshots_has(t.store, t.key));
	assert_int_equal(files_in_store(), 0);
}

static void changed_files_are_never_started_from(void **state)
{
	static const char *const names[] = { "memory", "state" };
	char path[256];

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(names); i++) {
		make("hello");
		path_of(names[i], path);
		int fd = open(path, O_WRONLY);
		assert_int_equal(pwrite(fd, "spoil", 5, 0), 5);
		close(fd);
		expect_gone(EBADMSG, "was changed");
		make("hello");
		assert_int_equal(truncate(path, 3), 0);
		expect_gone(EBADMSG, "has 3 bytes");
		make("hello");
		assert_int_equal(unlink(path), 0);
		expect_gone(EBADMSG, "No such file");
	}
}

/* A disk that forgets: the file's times are right, its bytes are not those of the digest. */
static void wrong_digests_are_found_at_open(void **state)
{
	struct kn_snapshot_manifest m;
	struct kn_buf text = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;
	char path[256];

	(void)state;
	make("hello");
	kn_snapshots_close(t.store);
	path_of("manifest.json", path);
	assert_ok(kn_read_file(AT_FDCWD, path, 1 << 16, &text, &err), &err);
	assert_ok(kn_snapshot_manifest_parse(kn_buf_view(&text), &m, &err), &err);
	m.memory.sha256[7] = m.memory.sha256[7] == '0' ? '1' : '0';
	kn_buf_clear(&text);
	kn_snapshot_manifest_print(&m, &text);
	assert_ok(kn_write_file(AT_FDCWD, path, text.ptr, text.len, 0600, &err), &err);
	kn_buf_fini(&text);
	open_store(UINT64_C(1) << 30);
	expect_gone(ENOENT, "no snapshot");

	make("hello");
	kn_snapshots_close(t.store);
	assert_ok(kn_write_file(AT_FDCWD, path, "{", 1, 0600, &err), &err);
	open_store(UINT64_C(1) << 30);
	expect_gone(ENOENT, "no snapshot");
}

static void the_least_recently_used_go_first(void **state)
{
	struct kn_snapshot snap;
	struct kn_err err = KN_ERR_INIT;
	char first[KN_SNAPSHOT_KEY + 1];

	(void)state;
	make("one");
	memcpy(first, t.key, sizeof(first));
	uint64_t each = kn_snapshots_bytes(t.store);
	make("two");
	kn_snapshots_close(t.store);
	open_store(2 * each + each / 2);
	memcpy(t.key, first, sizeof(first));
	assert_ok(get(&snap, &err), &err);
	kn_snapshot_fini(&snap);
	make("three");
	assert_true(kn_snapshots_has(t.store, first));
	assert_true(kn_snapshots_has(t.store, t.key));
	assert_int_equal(files_in_store(), 2);
	assert_true(kn_snapshots_bytes(t.store) <= 2 * each + each / 2);
}

static void no_space_is_told_and_leaves_nothing(void **state)
{
	(void)state;
	(void)begin("huge", UINT64_C(1) << 50, NULL);
	assert_true(t.err.code == ENOSPC || t.err.code == EFBIG);
	assert_non_null(strstr(t.err.text, "save a snapshot"));
	assert_int_equal(files_in_store(), 0);
	/* QEMU that wrote nothing */
	struct kn_draft *d = begin("empty", BYTES, NULL);
	kn_draft_keep(d, on_kept, NULL);
	wait_for(&t.kept);
	assert_non_null(strstr(t.err.text, "wrote no state"));
	assert_int_equal(files_in_store(), 0);
}

static void drafts_of_a_killed_daemon_are_removed(void **state)
{
	char path[256];

	(void)state;
	make("hello");
	kn_snapshots_close(t.store);
	snprintf(path, sizeof(path), "%s/new-7", t.dir);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(kn_write_file(AT_FDCWD, path, "x", 1, 0600, NULL), -EISDIR);
	open_store(UINT64_C(1) << 30);
	assert_int_equal(files_in_store(), 1);
}

static void manifests_are_parsed_strictly(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "" },
		{ "[]", "object" },
		{ "{}", "version" },
		{ "{\"version\":2}", "version 2" },
		{ "{\"version\":1}", "about" },
		{ "{\"version\":1,\"about\":\"x\"}", "memory" },
		{ "{\"version\":1,\"about\":\"x\",\"facts\":{\"a\":1}}", "'a'" },
		{ "{\"version\":1,\"about\":\"x\",\"memory\":{\"bytes\":-1}}", "bytes" },
		{ "{\"version\":1,\"about\":\"x\",\"memory\":{\"bytes\":1,\"inode\":1,\"mtime_ns\":1,"
		  "\"ctime_ns\":1,\"sha256\":\"zz\"}}", "memory" },
	};
	struct kn_snapshot_manifest m;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		int r = kn_snapshot_manifest_parse(kn_view_of(cases[i].text), &m, &err);
		if (r >= 0 || !strstr(err.text, cases[i].why))
			fail_msg("%s: '%s'", cases[i].text, err.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		TEST(what_was_made_is_started_from),
		TEST(stale_ones_are_removed_at_open),
		TEST(changed_files_are_never_started_from),
		TEST(wrong_digests_are_found_at_open),
		TEST(the_least_recently_used_go_first),
		TEST(no_space_is_told_and_leaves_nothing),
		TEST(drafts_of_a_killed_daemon_are_removed),
		cmocka_unit_test(manifests_are_parsed_strictly),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
