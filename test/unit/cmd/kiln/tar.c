#include "test.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "cmd/kiln/tar.h"

static char folder[] = "/tmp/kn-tar-XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	static char big[700000];
	memset(big, 'b', sizeof(big));

	if (!mkdtemp(folder) || kn_mkdirs(AT_FDCWD, folder, 0700, NULL) < 0)
		return -1;
	int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = kn_mkdirs(dir, "blobs/sha256", 0700, NULL);
	if (r == 0)
		r = kn_write_file(dir, "index.json", "{}", 2, 0600, NULL);
	if (r == 0)
		r = kn_write_file(dir, "blobs/sha256/big", big, sizeof(big), 0600, NULL);
	if (r == 0)
		r = kn_write_file(dir, "blobs/sha256/empty", "", 0, 0600, NULL);
	close(dir);
	return r;
}

static int remove_folder(void **state)
{
	(void)state;
	return kn_remove_tree(AT_FDCWD, folder, NULL);
}

static void read_whole(size_t step, struct kn_buf *ret)
{
	kn_auto(kn_tar_close) struct kn_tar *t = NULL;
	struct kn_err err = KN_ERR_INIT;
	char *piece = malloc(step);
	ssize_t n;

	assert_non_null(piece);
	assert_ok(kn_tar_open(folder, &t, &err), &err);
	while ((n = kn_tar_read(t, piece, step, &err)) > 0)
		kn_buf_add(ret, piece, (size_t)n);
	assert_ok(n, &err);
	assert_int_equal(kn_tar_read(t, piece, step, &err), 0);   /* the end stays the end */
	free(piece);
}

static size_t count_files(const struct kn_buf *tar, size_t *ret_bytes)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	size_t files = 0;

	archive_read_support_format_tar(a);
	assert_int_equal(archive_read_open_memory(a, tar->ptr, tar->len), ARCHIVE_OK);
	*ret_bytes = 0;
	while (archive_read_next_header(a, &e) == ARCHIVE_OK) {
		if (archive_entry_filetype(e) != AE_IFREG)
			continue;
		assert_true(archive_entry_pathname(e)[0] != '/');
		*ret_bytes += (size_t)archive_entry_size(e);
		files++;
	}
	archive_read_free(a);
	return files;
}

static void archive_is_the_same_in_pieces_of_any_size(void **state)
{
	(void)state;
	static const size_t steps[] = { 1000, 65536, 1 << 20 };
	size_t bytes = 0;

	for (size_t i = 0; i < KN_ARRAY_LEN(steps); i++) {
		kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
		read_whole(steps[i], &tar);
		assert_false(tar.failed);
		assert_int_equal(count_files(&tar, &bytes), 3);
		assert_int_equal(bytes, 700002);
	}
	assert_int_equal(kn_tar_bytes(folder), 700002);
}

static void closing_in_the_middle_is_fine(void **state)
{
	(void)state;
	kn_auto(kn_tar_close) struct kn_tar *t = NULL;
	struct kn_err err = KN_ERR_INIT;
	char piece[512];

	assert_ok(kn_tar_open(folder, &t, &err), &err);
	assert_true(kn_tar_read(t, piece, sizeof(piece), &err) > 0);
}

static void what_is_no_file_is_refused(void **state)
{
	(void)state;
	kn_auto(kn_tar_close) struct kn_tar *t = NULL;
	struct kn_err err = KN_ERR_INIT;
	char path[64], piece[4096];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/pipe", folder);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_ok(kn_tar_open(folder, &t, &err), &err);
	while ((n = kn_tar_read(t, piece, sizeof(piece), &err)) > 0)
		;
	unlink(path);
	assert_fails(n, EINVAL, &err, "neither file nor folder");
	assert_fails(kn_tar_open("/etc/passwd", &t, &err), ENOTDIR, &err, "no folder");
	assert_fails(kn_tar_open("/nonexistent", &t, &err), ENOENT, &err, "/nonexistent");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(archive_is_the_same_in_pieces_of_any_size),
		cmocka_unit_test(closing_in_the_middle_is_fine),
		cmocka_unit_test(what_is_no_file_is_refused),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
