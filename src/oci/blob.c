#include "oci/blob.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#define TMP "tmp"

struct kn_blobs {
	char *path;
	int rootfd;               /* holds the lock that keeps other processes out */
	atomic_uint next_tmp;
};

/* "blobs/sha256/<hex>" */
enum { BLOB_NAME = sizeof("blobs/sha512/") + KN_DIGEST_TEXT };

static void blob_name(const struct kn_digest *d, char ret[BLOB_NAME])
{
	snprintf(ret, BLOB_NAME, "blobs/%s/%s", kn_digest_algorithm(d), kn_digest_hex(d));
}

/* ---- the store ----------------------------------------------------------------------------- */

static int lock_root(const char *root, struct kn_err *err)
{
	kn_auto(kn_close) int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "open '%s': %s", root, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return kn_fail(err, EBUSY, "image store '%s' is open in another process", root);
	return kn_take_fd(fd);
}

/* What stands in tmp belongs to writers that are gone: the lock says that we are alone. */
static int make_folders(int rootfd, struct kn_err *err)
{
	int r = kn_remove_tree(rootfd, TMP, err);

	if (r == 0)
		r = kn_mkdirs(rootfd, TMP, 0700, err);
	if (r == 0)
		r = kn_mkdirs(rootfd, "blobs/sha256", 0700, err);
	if (r == 0)
		r = kn_mkdirs(rootfd, "blobs/sha512", 0700, err);
	return r;
}

int kn_blobs_open(const char *root, struct kn_blobs **ret, struct kn_err *err)
{
	kn_auto(kn_blobs_close) struct kn_blobs *b = calloc(1, sizeof(*b));

	if (!b)
		return kn_fail(err, ENOMEM, "image store: out of memory");
	b->rootfd = -1;
	int r = kn_mkdirs(AT_FDCWD, root, 0700, err);
	if (r < 0)
		return kn_while(err, "image store '%s'", root);
	b->path = realpath(root, NULL);
	if (!b->path)
		return kn_fail(err, errno, "image store '%s': %s", root, strerror(errno));
	b->rootfd = lock_root(b->path, err);
	if (b->rootfd < 0)
		return -err->code;
	r = make_folders(b->rootfd, err);
	if (r < 0)
		return kn_while(err, "image store '%s'", root);
	*ret = kn_take_ptr(b);
	return 0;
}

void kn_blobs_close(struct kn_blobs *b)
{
	if (!b)
		return;
	kn_close(b->rootfd);
	free(b->path);
	free(b);
}

int kn_blobs_root(const struct kn_blobs *b)
{
	return b->rootfd;
}

const char *kn_blobs_path(const struct kn_blobs *b)
{
	return b->path;
}

/* ---- writing ------------------------------------------------------------------------------- */

struct kn_blob_writer {
	struct kn_blobs *blobs;
	struct kn_digest expect;       /* none: take what comes */
	enum kn_digest_kind kind;      /* of the hasher */
	struct kn_hasher *hasher;
	uint64_t bytes, max;
	int fd;
	char tmp[sizeof(TMP "/blob-") + 10];   /* "" once it is renamed or was never made */
};

static int disk_fail(const struct kn_blobs *b, int code, const char *what, struct kn_err *err)
{
	if (code == ENOSPC || code == EDQUOT)
		return kn_fail(err, code,
		               "%s: no space left for images in '%s'; remove images or make room",
		               what, b->path);
	return kn_fail(err, code, "%s in '%s': %s", what, b->path, strerror(code));
}

int kn_blob_writer_new(struct kn_blobs *b, const struct kn_digest *expect, uint64_t max,
                       struct kn_blob_writer **ret, struct kn_err *err)
{
	kn_auto(kn_blob_writer_free) struct kn_blob_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return kn_fail(err, ENOMEM, "write blob: out of memory");
	w->kind = KN_SHA256;
	w->blobs = b;
	w->max = max;
	w->fd = -1;
	if (expect) {
		w->expect = *expect;
		w->kind = kn_digest_kind(expect);
	}
	int r = kn_hasher_new(w->kind, &w->hasher, err);
	if (r < 0)
		return r;
	char name[sizeof(w->tmp)];
	snprintf(name, sizeof(name), TMP "/blob-%u", atomic_fetch_add(&b->next_tmp, 1));
	w->fd = openat(b->rootfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (w->fd < 0)
		return disk_fail(b, errno, "make blob", err);
	memcpy(w->tmp, name, sizeof(name));
	*ret = kn_take_ptr(w);
	return 0;
}

int kn_blob_write(struct kn_blob_writer *w, const void *ptr, size_t len, struct kn_err *err)
{
	if (len > w->max - w->bytes)
		return kn_fail(err, EFBIG, "blob is larger than the %llu bytes that are allowed",
		               (unsigned long long)w->max);
	int r = kn_write_all(w->fd, ptr, len);
	if (r < 0)
		return disk_fail(w->blobs, -r, "write blob", err);
	kn_hasher_add(w->hasher, ptr, len);
	w->bytes += len;
	return 0;
}

void kn_blob_expect(struct kn_blob_writer *w, const struct kn_digest *expect)
{
	w->expect = *expect;
}

uint64_t kn_blob_written(const struct kn_blob_writer *w)
{
	return w->bytes;
}

/* The digest was told late, and is of another algorithm than the one that ran along. */
static int hash_again(struct kn_blob_writer *w, struct kn_err *err)
{
	kn_auto(kn_hasher_free) struct kn_hasher *h = NULL;
	char piece[16 * 1024];

	int r = kn_hasher_new(kn_digest_kind(&w->expect), &h, err);
	if (r < 0)
		return r;
	for (uint64_t at = 0; at < w->bytes;) {
		ssize_t n = pread(w->fd, piece, sizeof(piece), (off_t)at);
		if (n <= 0)
			return disk_fail(w->blobs, n < 0 ? errno : EIO, "read blob", err);
		kn_hasher_add(h, piece, (size_t)n);
		at += (uint64_t)n;
	}
	kn_hasher_free(w->hasher);
	w->hasher = kn_take_ptr(h);
	return 0;
}

/* A hasher of the kind that the expected digest asks for; nothing changes when it runs already. */
static int hash_as_expected(struct kn_blob_writer *w, struct kn_err *err)
{
	if (!w->expect.text[0] || kn_digest_kind(&w->expect) == w->kind)
		return 0;
	w->kind = kn_digest_kind(&w->expect);
	return hash_again(w, err);
}

static int sync_folder(const struct kn_blobs *b, const struct kn_digest *d)
{
	char folder[sizeof("blobs/sha512")];

	snprintf(folder, sizeof(folder), "blobs/%s", kn_digest_algorithm(d));
	kn_auto(kn_close) int fd = openat(b->rootfd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int kn_blob_commit(struct kn_blob_writer *w, struct kn_digest *ret, uint64_t *ret_bytes,
                   struct kn_err *err)
{
	struct kn_blobs *b = w->blobs;
	struct kn_digest is;
	char name[BLOB_NAME];

	int r = hash_as_expected(w, err);
	if (r < 0)
		return r;
	kn_hasher_take(w->hasher, &is);
	if (w->expect.text[0] && !kn_digest_is(&is, &w->expect))
		return kn_fail(err, EBADMSG, "blob must have the digest %s, but its content has %s",
		               w->expect.text, is.text);
	/* Renamed over a blob of that name, too: if the disk had spoiled it, this mends it. */
	blob_name(&is, name);
	if (fchmod(w->fd, 0444) < 0 || fsync(w->fd) < 0 || renameat(b->rootfd, w->tmp, b->rootfd, name) < 0)
		return disk_fail(b, errno, "store blob", err);
	w->tmp[0] = '\0';
	r = sync_folder(b, &is);
	if (r < 0)
		return disk_fail(b, -r, "store blob", err);
	*ret = is;
	if (ret_bytes)
		*ret_bytes = w->bytes;
	return 0;
}

void kn_blob_writer_free(struct kn_blob_writer *w)
{
	if (!w)
		return;
	kn_close(w->fd);
	if (w->tmp[0])
		unlinkat(w->blobs->rootfd, w->tmp, 0);
	kn_hasher_free(w->hasher);
	free(w);
}

int kn_blob_put(struct kn_blobs *b, const void *ptr, size_t len, struct kn_digest *ret,
                struct kn_err *err)
{
	kn_auto(kn_blob_writer_free) struct kn_blob_writer *w = NULL;

	int r = kn_blob_writer_new(b, NULL, len, &w, err);
	if (r == 0)
		r = kn_blob_write(w, ptr, len, err);
	if (r == 0)
		r = kn_blob_commit(w, ret, NULL, err);
	return r;
}

/* ---- reading ------------------------------------------------------------------------------- */

int kn_blob_open(struct kn_blobs *b, const struct kn_digest *d, uint64_t *ret_bytes,
                 struct kn_err *err)
{
	char name[BLOB_NAME];
	struct stat st;

	blob_name(d, name);
	kn_auto(kn_close) int fd = openat(b->rootfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return kn_fail(err, ENOENT, "blob %s is not here", d->text);
	if (fd < 0 || fstat(fd, &st) < 0)
		return kn_fail(err, errno, "open blob %s: %s", d->text, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return kn_fail(err, EBADMSG, "blob %s is not a file", d->text);
	if (ret_bytes)
		*ret_bytes = (uint64_t)st.st_size;
	return kn_take_fd(fd);
}

bool kn_blob_has(struct kn_blobs *b, const struct kn_digest *d)
{
	char name[BLOB_NAME];

	blob_name(d, name);
	return faccessat(b->rootfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int kn_blob_read(struct kn_blobs *b, const struct kn_digest *d, size_t max, struct kn_buf *ret,
                 struct kn_err *err)
{
	uint64_t bytes;
	struct kn_digest is;

	kn_auto(kn_close) int fd = kn_blob_open(b, d, &bytes, err);
	if (fd < 0)
		return fd;
	if (bytes > max)
		return kn_fail(err, EFBIG, "blob %s has %llu bytes; at most %zu are read", d->text,
		               (unsigned long long)bytes, max);
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	if (!kn_buf_reserve(&text, bytes))
		return kn_fail(err, ENOMEM, "read blob %s: out of memory", d->text);
	ssize_t n = kn_read_all(fd, text.ptr, bytes);
	if (n < 0)
		return kn_fail(err, (int)-n, "read blob %s: %s", d->text, strerror((int)-n));
	int r = kn_digest_of(kn_digest_kind(d), text.ptr, (size_t)n, &is, err);
	if (r < 0)
		return r;
	if (!kn_digest_is(&is, d))
		return kn_fail(err, EBADMSG,
		               "blob %s was changed on disk; import its image again", d->text);
	kn_buf_add(ret, text.ptr, (size_t)n);
	return ret->failed ? kn_fail(err, ENOMEM, "read blob: out of memory") : 0;
}

char *kn_blob_path(const struct kn_blobs *b, const struct kn_digest *d)
{
	char name[BLOB_NAME];
	char *path;

	blob_name(d, name);
	return asprintf(&path, "%s/%s", b->path, name) < 0 ? NULL : path;
}

/* ---- removing ------------------------------------------------------------------------------ */

static void close_dir(DIR *d)
{
	if (d)
		closedir(d);
}
KN_AUTO(close_dir, DIR *);

static int collect_one(int dirfd, const char *name, struct kn_blobs_freed *freed,
                       struct kn_err *err)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || unlinkat(dirfd, name, 0) < 0)
		return kn_fail(err, errno, "remove blob %s: %s", name, strerror(errno));
	freed->blobs++;
	freed->bytes += (uint64_t)st.st_size;
	return 0;
}

static int collect_folder(struct kn_blobs *b, const char *algorithm,
                          bool (*keep)(const struct kn_digest *d, void *arg), void *arg,
                          struct kn_blobs_freed *freed, struct kn_err *err)
{
	char text[KN_DIGEST_TEXT + 256];

	snprintf(text, sizeof(text), "blobs/%s", algorithm);
	int fd = openat(b->rootfd, text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	kn_auto(close_dir) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		int code = errno;
		kn_close(fd);
		return kn_fail(err, code, "read '%s': %s", text, strerror(code));
	}
	for (const struct dirent *e; (e = readdir(dir));) {
		struct kn_digest d;
		snprintf(text, sizeof(text), "%s:%s", algorithm, e->d_name);
		/* Whatever has no digest's name was not put there by us. */
		if (kn_digest_parse(kn_view_of(text), &d, NULL) < 0 || keep(&d, arg))
			continue;
		int r = collect_one(fd, e->d_name, freed, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int kn_blobs_collect(struct kn_blobs *b, bool (*keep)(const struct kn_digest *d, void *arg),
                     void *arg, struct kn_blobs_freed *ret, struct kn_err *err)
{
	struct kn_blobs_freed freed = { 0 };

	int r = collect_folder(b, "sha256", keep, arg, &freed, err);
	if (r == 0)
		r = collect_folder(b, "sha512", keep, arg, &freed, err);
	if (r == 0 && ret)
		*ret = freed;
	return r;
}
