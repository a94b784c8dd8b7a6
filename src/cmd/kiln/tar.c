/*
 * libarchive walks the folder and writes the archive into a buffer; kn_tar_read() drives it one
 * step (a header, or a piece of a file) whenever the buffer is empty.
 */
#include "cmd/kiln/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

enum { PIECE = 256 * 1024 };

struct kn_tar {
	char *folder;
	struct archive *disk, *out;
	struct archive_entry *entry;
	struct kn_buf buf; /* written, not yet read */
	int fd;		   /* file under way; -1: none */
	int64_t left;	   /* of it */
	char *piece;
	bool done;
};

static la_ssize_t keep(struct archive *a, void *arg, const void *ptr, size_t len)
{
	struct kn_tar *t = arg;

	(void)a;
	kn_buf_add(&t->buf, ptr, len);
	return t->buf.failed ? -1 : (la_ssize_t)len;
}

static int tell(struct archive *a, const char *what, struct kn_err *err)
{
	int code = archive_errno(a);
	const char *why = archive_error_string(a);

	return kn_fail(err, code > 0 ? code : EIO, "%s: %s", what, why ? why : "out of memory");
}

static int start(struct kn_tar *t, struct kn_err *err)
{
	archive_read_disk_set_symlink_physical(t->disk);
	archive_write_set_format_pax_restricted(t->out);
	archive_write_set_bytes_per_block(t->out, 0);
	if (archive_write_open(t->out, t, NULL, keep, NULL) != ARCHIVE_OK)
		return tell(t->out, "make an archive", err);
	if (archive_read_disk_open(t->disk, t->folder) != ARCHIVE_OK)
		return tell(t->disk, t->folder, err);
	return 0;
}

int kn_tar_open(const char *folder, struct kn_tar **ret, struct kn_err *err)
{
	kn_auto(kn_tar_close) struct kn_tar *t = calloc(1, sizeof(*t));
	struct stat st;

	if (!t)
		return kn_fail(err, ENOMEM, "out of memory");
	t->fd = -1;
	if (stat(folder, &st) < 0)
		return kn_fail(err, errno, "'%s': %s", folder, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return kn_fail(err, ENOTDIR, "'%s' is no folder", folder);
	t->folder = strdup(folder);
	t->piece = malloc(PIECE);
	t->disk = archive_read_disk_new();
	t->out = archive_write_new();
	t->entry = archive_entry_new();
	if (!t->folder || !t->piece || !t->disk || !t->out || !t->entry)
		return kn_fail(err, ENOMEM, "out of memory");
	int r = start(t, err);
	if (r < 0)
		return r;
	*ret = kn_take_ptr(t);
	return 0;
}

void kn_tar_close(struct kn_tar *t)
{
	if (!t)
		return;
	kn_close(t->fd);
	archive_entry_free(t->entry);
	archive_read_free(t->disk);
	archive_write_free(t->out);
	kn_buf_fini(&t->buf);
	kn_free(t->piece);
	kn_free(t->folder);
	kn_free(t);
}

/* The name inside the archive; NULL for the folder itself. */
static const char *inner_name(const struct kn_tar *t, const char *path)
{
	size_t n = strlen(t->folder);

	if (strlen(path) <= n)
		return NULL;
	while (path[n] == '/')
		n++;
	return path[n] ? path + n : NULL;
}

static int open_file(struct kn_tar *t, const char *path, struct kn_err *err)
{
	struct stat st;

	t->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (t->fd < 0 || fstat(t->fd, &st) < 0)
		return kn_fail(err, errno, "open '%s': %s", path, strerror(errno));
	t->left = st.st_size;
	archive_entry_set_size(t->entry, t->left);
	return 0;
}

static int next_entry(struct kn_tar *t, struct kn_err *err)
{
	int r = archive_read_next_header2(t->disk, t->entry);

	if (r == ARCHIVE_EOF) {
		t->done = true;
		return archive_write_close(t->out) == ARCHIVE_OK ? 0 : tell(t->out, "archive", err);
	}
	if (r != ARCHIVE_OK)
		return tell(t->disk, t->folder, err);

	const char *path = archive_entry_sourcepath(t->entry);
	const char *name = inner_name(t, path);
	mode_t type = archive_entry_filetype(t->entry);
	if (type == AE_IFDIR)
		archive_read_disk_descend(t->disk);
	else if (type != AE_IFREG)
		return kn_fail(err, EINVAL,
			       "'%s' is neither file nor folder: an OCI layout has "
			       "only these",
			       path);
	if (!name)
		return 0;
	if (type == AE_IFREG && open_file(t, path, err) < 0)
		return -err->code;
	archive_entry_copy_pathname(t->entry, name);
	if (archive_write_header(t->out, t->entry) != ARCHIVE_OK)
		return tell(t->out, name, err);
	return 0;
}

static int next_piece(struct kn_tar *t, struct kn_err *err)
{
	if (t->left == 0) {
		kn_close(kn_take_fd(t->fd));
		return archive_write_finish_entry(t->out) == ARCHIVE_OK
			       ? 0
			       : tell(t->out, "archive", err);
	}
	size_t want = (size_t)kn_min(t->left, (int64_t)PIECE);
	ssize_t n = kn_read_all(t->fd, t->piece, want);
	if (n < 0)
		return kn_fail(err, (int)-n, "read '%s': %s", t->folder, strerror((int)-n));
	if (n == 0)
		return kn_fail(err, ESTALE, "a file in '%s' became shorter meanwhile", t->folder);
	t->left -= n;
	return archive_write_data(t->out, t->piece, (size_t)n) == n ? 0
								    : tell(t->out, "archive", err);
}

ssize_t kn_tar_read(struct kn_tar *t, void *ptr, size_t len, struct kn_err *err)
{
	struct kn_err local = KN_ERR_INIT;
	struct kn_err *e = err ? err : &local;

	while (t->buf.len == 0 && !t->done) {
		int r = t->fd >= 0 ? next_piece(t, e) : next_entry(t, e);
		if (r < 0)
			return r;
	}
	size_t n = kn_min(len, t->buf.len);
	if (n > 0)
		memcpy(ptr, t->buf.ptr, n);
	kn_buf_drop(&t->buf, n);
	return (ssize_t)n;
}

static uint64_t counted; /* nftw() hands over no argument; one thread */

static int count(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)path;
	(void)ftw;
	if (type == FTW_F)
		counted += (uint64_t)st->st_size;
	return 0;
}

uint64_t kn_tar_bytes(const char *folder)
{
	counted = 0;
	return nftw(folder, count, 16, FTW_PHYS) == 0 ? counted : 0;
}
