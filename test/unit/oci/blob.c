#include "oci/blob.h"

#include <sys/wait.h>

#include "oci/fixture.h"

#define ABC   "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define WRONG "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static struct kn_blobs *open_store(void)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_blobs *b = NULL;

	assert_ok(kn_blobs_open(fixture_path("store"), &b, &err), &err);
	return b;
}

static void blob_comes_back_by_digest(void **state)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_digest d;

	(void)state;
	assert_ok(kn_blob_put(b, "abc", 3, &d, &err), &err);
	assert_string_equal(d.text, ABC);
	assert_true(kn_blob_has(b, &d));
	assert_ok(kn_blob_read(b, &d, 3, &text, &err), &err);
	assert_view(kn_buf_view(&text), "abc");
	kn_auto(kn_free) char *path = kn_blob_path(b, &d);
	assert_int_equal(access(path, R_OK), 0);
	assert_int_equal(fixture_count(fixture_path("store/tmp")), 0);
}

static void wrong_content_is_refused_and_not_kept(void **state)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest expect, ret = { .text = "kept" };
	kn_auto(kn_blob_writer_free) struct kn_blob_writer *w = NULL;

	(void)state;
	assert_ok(kn_digest_parse(KN_VIEW(WRONG), &expect, &err), &err);
	assert_ok(kn_blob_writer_new(b, &expect, 100, &w, &err), &err);
	assert_ok(kn_blob_write(w, "abc", 3, &err), &err);
	assert_fails(kn_blob_commit(w, &ret, NULL, &err), EBADMSG, &err, ABC);
	assert_string_equal(ret.text, "kept");
	kn_blob_writer_free(kn_take_ptr(w));
	assert_false(kn_blob_has(b, &expect));
	assert_int_equal(fixture_count(fixture_path("store/tmp")), 0);
	assert_int_equal(fixture_count(fixture_path("store/blobs/sha256")), 0);
}

static void sha512_blobs_have_their_own_folder(void **state)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest expect, is;
	kn_auto(kn_blob_writer_free) struct kn_blob_writer *w = NULL;

	(void)state;
	assert_ok(kn_digest_of(KN_SHA512, "abc", 3, &expect, &err), &err);
	assert_ok(kn_blob_writer_new(b, &expect, 3, &w, &err), &err);
	assert_ok(kn_blob_write(w, "abc", 3, &err), &err);
	assert_ok(kn_blob_commit(w, &is, NULL, &err), &err);
	assert_true(kn_digest_is(&is, &expect));
	assert_int_equal(fixture_count(fixture_path("store/blobs/sha512")), 1);
}

/* An upload learns its digest at its end. */
static void digest_may_be_told_late(void **state)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest want, got;

	(void)state;
	for (enum kn_digest_kind kind = KN_SHA256; kind <= KN_SHA512; kind++) {
		for (int wrong = 0; wrong < 2; wrong++) {
			kn_auto(kn_blob_writer_free) struct kn_blob_writer *w = NULL;
			assert_ok(kn_digest_of(kind, wrong ? "abd" : "abc", 3, &want, &err), &err);
			assert_ok(kn_blob_writer_new(b, NULL, 100, &w, &err), &err);
			assert_ok(kn_blob_write(w, "abc", 3, &err), &err);
			assert_int_equal(kn_blob_written(w), 3);
			kn_blob_expect(w, &want);
			if (wrong)
				assert_fails(kn_blob_commit(w, &got, NULL, &err), EBADMSG, &err, "digest");
			else
				assert_ok(kn_blob_commit(w, &got, NULL, &err), &err);
			assert_int_equal(kn_blob_has(b, &want), !wrong);
		}
	}
}

static void limit_is_held(void **state)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_blob_writer_free) struct kn_blob_writer *w = NULL;

	(void)state;
	assert_ok(kn_blob_writer_new(b, NULL, 4, &w, &err), &err);
	assert_ok(kn_blob_write(w, "abc", 3, &err), &err);
	assert_fails(kn_blob_write(w, "de", 2, &err), EFBIG, &err, "larger than the 4 bytes");
}

static void missing_blob_is_named(void **state)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest d;

	(void)state;
	assert_ok(kn_digest_parse(KN_VIEW(WRONG), &d, &err), &err);
	assert_false(kn_blob_has(b, &d));
	assert_fails(kn_blob_open(b, &d, NULL, &err), ENOENT, &err, WRONG);
}

static void change_on_disk_is_seen_and_mended(void **state)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_digest d;

	(void)state;
	assert_ok(kn_blob_put(b, "abc", 3, &d, &err), &err);
	kn_auto(kn_free) char *path = kn_blob_path(b, &d);
	assert_ok(kn_write_file(AT_FDCWD, path, "abX", 3, 0600, &err), &err);
	assert_fails(kn_blob_read(b, &d, 10, &text, &err), EBADMSG, &err, "changed on disk");
	assert_int_equal(text.len, 0);
	assert_ok(kn_blob_put(b, "abc", 3, &d, &err), &err);
	assert_ok(kn_blob_read(b, &d, 10, &text, &err), &err);
}

static void large_document_is_not_read(void **state)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_digest d;

	(void)state;
	assert_ok(kn_blob_put(b, "abc", 3, &d, &err), &err);
	assert_fails(kn_blob_read(b, &d, 2, &text, &err), EFBIG, &err, "at most 2");
}

static void second_process_is_kept_out(void **state)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	struct kn_err err = KN_ERR_INIT;
	struct kn_blobs *again = NULL;

	(void)state;
	assert_fails(kn_blobs_open(fixture_path("store"), &again, &err), EBUSY, &err,
	             "another process");
	kn_blobs_close(kn_take_ptr(b));
	assert_ok(kn_blobs_open(fixture_path("store"), &b, &err), &err);
}

/* A process that dies between write and commit leaves a temporary file; the next open clears it. */
static void crash_leaves_nothing(void **state)
{
	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct kn_blobs *b = NULL;
		struct kn_blob_writer *w = NULL;
		if (kn_blobs_open(fixture_path("store"), &b, NULL) == 0 &&
		    kn_blob_writer_new(b, NULL, 10, &w, NULL) == 0 &&
		    kn_blob_write(w, "abc", 3, NULL) == 0)
			_exit(0);
		_exit(1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(fixture_count(fixture_path("store/tmp")), 1);
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	assert_int_equal(fixture_count(fixture_path("store/tmp")), 0);
	assert_int_equal(fixture_count(fixture_path("store/blobs/sha256")), 0);
}

static bool keep_one(const struct kn_digest *d, void *arg)
{
	return kn_digest_is(d, arg);
}

static void collection_takes_what_nothing_names(void **state)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = open_store();
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest abc, other;
	struct kn_blobs_freed freed;

	(void)state;
	assert_ok(kn_blob_put(b, "abc", 3, &abc, &err), &err);
	assert_ok(kn_blob_put(b, "other", 5, &other, &err), &err);
	fixture_write("store/blobs/sha256/not-ours", "x", 1);
	assert_ok(kn_blobs_collect(b, keep_one, &abc, &freed, &err), &err);
	assert_int_equal(freed.blobs, 1);
	assert_int_equal(freed.bytes, 5);
	assert_true(kn_blob_has(b, &abc));
	assert_false(kn_blob_has(b, &other));
	assert_int_equal(access(fixture_path("store/blobs/sha256/not-ours"), F_OK), 0);
}

static void folder_that_cannot_be_made_is_told(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_blobs *b = NULL;

	(void)state;
	fixture_write("file", "", 0);
	assert_fails(kn_blobs_open(fixture_path("file/store"), &b, &err), ENOTDIR, &err,
	             "image store");
	assert_null(b);
}

#define test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(blob_comes_back_by_digest),
		test(wrong_content_is_refused_and_not_kept),
		test(sha512_blobs_have_their_own_folder),
		test(digest_may_be_told_late),
		test(limit_is_held),
		test(missing_blob_is_named),
		test(change_on_disk_is_seen_and_mended),
		test(large_document_is_not_read),
		test(second_process_is_kept_out),
		test(crash_leaves_nothing),
		test(collection_takes_what_nothing_names),
		test(folder_that_cannot_be_made_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
