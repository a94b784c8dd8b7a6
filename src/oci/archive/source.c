#include "oci/archive/source.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

enum { CHUNK = 256 * 1024, MAX_FILES = 20000, MAX_NAME = 1024, MAX_LINKS = 8 };

bool kn_progress_step(const struct kn_progress *p, const char *phase, uint64_t bytes,
                      uint64_t total)
{
	return !p || !p->step || p->step(phase, bytes, total, p->arg);
}

static int step(struct source *src, uint64_t bytes, uint64_t total, struct kn_err *err)
{
	if (!kn_progress_step(src->config->progress, "import", bytes, total))
		return kn_fail(err, ECANCELED, "import was cancelled");
	return 0;
}

/* Every byte that leaves the archive counts, whatever it is for: a limit on the whole. */
static int count_bytes(struct source *src, size_t n, struct kn_err *err)
{
	if (n > src->config->max_bytes - src->bytes)
		return kn_fail(err, EFBIG, "the archive unpacks to more than %llu bytes",
		               (unsigned long long)src->config->max_bytes);
	src->bytes += n;
	return 0;
}

/* ---- archives ------------------------------------------------------------------------------ */

static void free_archive(struct archive *a)
{
	if (a)
		archive_read_free(a);
}
KN_AUTO(free_archive, struct archive *);

static int archive_fail(struct archive *a, struct kn_err *err)
{
	const char *why = archive_error_string(a);

	return kn_fail(err, EBADMSG, "the archive is damaged or cut short: %s",
	               why ? why : "unknown reason");
}

/* One entry's bytes, handed to put() in chunks. */
static int copy_entry(struct source *src, struct archive *a, uint64_t total,
                      int (*put)(void *to, const void *ptr, size_t len, struct kn_err *err),
                      void *to, struct kn_err *err)
{
	kn_auto(kn_free) char *chunk = malloc(CHUNK);
	if (!chunk)
		return kn_fail(err, ENOMEM, "import: out of memory");

	for (;;) {
		ssize_t n = archive_read_data(a, chunk, CHUNK);
		if (n < 0)
			return archive_fail(a, err);
		if (n == 0)
			return 0;
		int r = count_bytes(src, (size_t)n, err);
		if (r == 0)
			r = put(to, chunk, (size_t)n, err);
		if (r == 0)
			r = step(src, (uint64_t)archive_filter_bytes(a, -1), total, err);
		if (r < 0)
			return r;
	}
}

static int put_blob(void *to, const void *ptr, size_t len, struct kn_err *err)
{
	return kn_blob_write(to, ptr, len, err);
}

static int put_document(void *to, const void *ptr, size_t len, struct kn_err *err)
{
	struct kn_buf *b = to;

	if (len > KN_SPEC_MAX_BYTES - b->len)
		return kn_fail(err, EFBIG, "larger than the %d bytes that are read",
		               KN_SPEC_MAX_BYTES);
	kn_buf_add(b, ptr, len);
	return b->failed ? kn_fail(err, ENOMEM, "out of memory") : 0;
}

static int store_entry(struct source *src, struct archive *a, uint64_t total,
                       const struct kn_digest *expect, struct kn_digest *ret,
                       uint64_t *ret_bytes, struct kn_err *err)
{
	kn_auto(kn_blob_writer_free) struct kn_blob_writer *w = NULL;

	int r = kn_blob_writer_new(src->blobs, expect, KN_SPEC_MAX_BLOB, &w, err);
	if (r == 0)
		r = copy_entry(src, a, total, put_blob, w, err);
	if (r == 0)
		r = kn_blob_commit(w, ret, ret_bytes, err);
	return r;
}

/* "blobs/sha256/<hex>" to the digest; false for any other name. */
static bool blob_digest(struct kn_view name, struct kn_digest *ret)
{
	char text[KN_DIGEST_TEXT];
	struct kn_view part;

	if (!kn_view_starts(name, KN_VIEW("blobs/")))
		return false;
	struct kn_view rest = { name.ptr + 6, name.len - 6 };
	if (!kn_view_split(&rest, '/', &part) || !rest.ptr ||
	    part.len + 1 + rest.len >= sizeof(text))
		return false;
	snprintf(text, sizeof(text), "%.*s:%.*s", (int)part.len, part.ptr, (int)rest.len, rest.ptr);
	return kn_digest_parse(kn_view_of(text), ret, NULL) == 0;
}

static struct source_file *add_file(struct source *src, struct kn_view name, struct kn_err *err)
{
	if (src->n_files == src->cap_files) {
		size_t cap = src->cap_files ? src->cap_files * 2 : 32;
		struct source_file *files = reallocarray(src->files, cap, sizeof(*files));
		if (!files) {
			kn_fail(err, ENOMEM, "import: out of memory");
			return NULL;
		}
		src->files = files;
		src->cap_files = cap;
	}
	const char *copy = kn_arena_copy(src->arena, name.ptr, name.len);
	if (!copy) {
		kn_fail(err, ENOMEM, "import: out of memory");
		return NULL;
	}
	struct source_file *f = &src->files[src->n_files++];
	*f = (struct source_file){ .name = copy };
	return f;
}

/* "abc/layer.tar" -> "../def.tar": a link that leads beside its own folder, as docker writes it. */
static int add_link(struct source *src, struct kn_view name, const char *target,
                    struct kn_err *err)
{
	struct source_file *f;

	if (strncmp(target, "../", 3) != 0 || strlen(target) > MAX_NAME)
		return 0;
	f = add_file(src, name, err);
	if (!f)
		return -ENOMEM;
	f->link = kn_arena_copy(src->arena, target + 3, strlen(target + 3));
	return f->link ? 0 : kn_fail(err, ENOMEM, "import: out of memory");
}

static struct kn_buf *document_of(struct source *src, struct kn_view name)
{
	if (kn_view_is(name, KN_VIEW("oci-layout")))
		return &src->layout;
	if (kn_view_is(name, KN_VIEW("index.json")))
		return &src->index;
	if (kn_view_is(name, KN_VIEW("manifest.json")))
		return &src->docker;
	return NULL;
}

static int take_file(struct source *src, struct archive *a, uint64_t total, struct kn_view name,
                     struct kn_err *err)
{
	struct kn_buf *document = document_of(src, name);
	struct kn_digest expect, is;
	uint64_t bytes;

	if (document) {
		kn_buf_clear(document);
		return copy_entry(src, a, total, put_document, document, err);
	}
	if (blob_digest(name, &expect))
		return store_entry(src, a, total, &expect, &is, &bytes, err);
	if (!kn_view_ends(name, KN_VIEW(".json")) && !kn_view_ends(name, KN_VIEW(".tar")))
		return 0;
	int r = store_entry(src, a, total, NULL, &is, &bytes, err);
	if (r < 0)
		return r;
	struct source_file *f = add_file(src, name, err);
	if (!f)
		return -ENOMEM;
	f->digest = is;
	f->bytes = bytes;
	return 0;
}

static struct kn_view plain_name(const char *name)
{
	struct kn_view v = kn_view_of(name);

	while (kn_view_starts(v, KN_VIEW("./")) || kn_view_starts(v, KN_VIEW("/"))) {
		size_t skip = v.ptr[0] == '.' ? 2 : 1;
		v = (struct kn_view){ v.ptr + skip, v.len - skip };
	}
	return v;
}

static int take_entry(struct source *src, struct archive *a, struct archive_entry *e,
                      uint64_t total, struct kn_err *err)
{
	struct kn_view name = plain_name(archive_entry_pathname(e));
	int r = 0;

	if (name.len == 0 || name.len > MAX_NAME)
		return 0;
	if (archive_entry_filetype(e) == AE_IFREG && !archive_entry_hardlink(e))
		r = take_file(src, a, total, name, err);
	else if (archive_entry_filetype(e) == AE_IFLNK && archive_entry_symlink(e))
		r = add_link(src, name, archive_entry_symlink(e), err);
	return r < 0 ? kn_while(err, "'%.*s'", (int)kn_min(name.len, (size_t)150), name.ptr) : 0;
}

static int scan(struct source *src, struct archive *a, uint64_t total, struct kn_err *err)
{
	struct archive_entry *e;

	for (size_t n = 0;; n++) {
		int r = archive_read_next_header(a, &e);
		if (r == ARCHIVE_EOF)
			return 0;
		if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
			return n == 0 ? kn_fail(err, EINVAL,
			                        "not an image: neither an OCI layout nor a tar "
			                        "archive (plain, gzip or zstd)")
			              : archive_fail(a, err);
		if (n == MAX_FILES)
			return kn_fail(err, EFBIG, "the archive has more than %d files", MAX_FILES);
		r = take_entry(src, a, e, total, err);
		if (r < 0)
			return r;
	}
}

static int read_archive(struct source *src, int fd, uint64_t total, struct kn_err *err)
{
	kn_auto(free_archive) struct archive *a = archive_read_new();

	if (!a || archive_read_support_format_tar(a) != ARCHIVE_OK ||
	    archive_read_support_filter_gzip(a) != ARCHIVE_OK ||
	    archive_read_support_filter_zstd(a) != ARCHIVE_OK)
		return kn_fail(err, ENOMEM, "libarchive cannot be set up for tar, gzip and zstd");
	if (lseek(fd, 0, SEEK_SET) < 0)
		return kn_fail(err, errno, "read the archive: %s", strerror(errno));
	if (archive_read_open_fd(a, fd, CHUNK) != ARCHIVE_OK)
		return kn_fail(err, EINVAL, "not an image: %s", archive_error_string(a));
	return scan(src, a, total, err);
}

/* ---- folders ------------------------------------------------------------------------------- */

static int read_optional(int dirfd, const char *name, struct kn_buf *ret, struct kn_err *err)
{
	kn_auto(kn_close) int fd = kn_open_in(dirfd, name, O_RDONLY | O_NONBLOCK, 0, NULL);
	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return kn_fail(err, -fd, "open '%s': %s", name, strerror(-fd));
	if (!kn_buf_reserve(ret, KN_SPEC_MAX_BYTES + 1))
		return kn_fail(err, ENOMEM, "read '%s': out of memory", name);
	ssize_t n = kn_read_all(fd, ret->ptr, KN_SPEC_MAX_BYTES + 1);
	if (n < 0)
		return kn_fail(err, (int)-n, "read '%s': %s", name, strerror((int)-n));
	if (n > KN_SPEC_MAX_BYTES)
		return kn_fail(err, EFBIG, "'%s' is larger than %d bytes", name, KN_SPEC_MAX_BYTES);
	ret->len = (size_t)n;
	return 0;
}

static int copy_file(struct source *src, int fd, const struct kn_descriptor *d,
                     struct kn_blob_writer *w, struct kn_err *err)
{
	kn_auto(kn_free) char *chunk = malloc(CHUNK);
	if (!chunk)
		return kn_fail(err, ENOMEM, "import: out of memory");

	for (uint64_t done = 0;;) {
		ssize_t n = kn_read_all(fd, chunk, CHUNK);
		if (n < 0)
			return kn_fail(err, (int)-n, "read: %s", strerror((int)-n));
		if (n == 0)
			return 0;
		done += (uint64_t)n;
		int r = count_bytes(src, (size_t)n, err);
		if (r == 0)
			r = kn_blob_write(w, chunk, (size_t)n, err);
		if (r == 0)
			r = step(src, done, d->bytes, err);
		if (r < 0)
			return r;
	}
}

static int copy_blob(struct source *src, const struct kn_descriptor *d, struct kn_err *err)
{
	kn_auto(kn_blob_writer_free) struct kn_blob_writer *w = NULL;
	char name[sizeof("blobs/sha512/") + KN_DIGEST_TEXT];
	struct kn_digest is;
	struct stat st;

	snprintf(name, sizeof(name), "blobs/%s/%s", kn_digest_algorithm(&d->digest),
	         kn_digest_hex(&d->digest));
	kn_auto(kn_close) int fd = kn_open_in(src->dirfd, name, O_RDONLY | O_NONBLOCK, 0, err);
	if (fd < 0)
		return kn_while(err, "blob %s", d->digest.text);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return kn_fail(err, EBADMSG, "'%s' is not a file", name);
	int r = kn_blob_writer_new(src->blobs, &d->digest, d->bytes, &w, err);
	if (r == 0)
		r = copy_file(src, fd, d, w, err);
	if (r == 0)
		r = kn_blob_commit(w, &is, NULL, err);
	return r < 0 ? kn_while(err, "blob %s", d->digest.text) : 0;
}

static int read_folder(struct source *src, struct kn_err *err)
{
	int r = read_optional(src->dirfd, "oci-layout", &src->layout, err);

	if (r == 0)
		r = read_optional(src->dirfd, "index.json", &src->index, err);
	if (r == 0 && src->index.len == 0)
		r = kn_fail(err, EINVAL, "not an image: the folder has no index.json");
	return r;
}

/* ---- both ---------------------------------------------------------------------------------- */

/* image-layout.md: the version is 1.0.0 for all of 1.x; another major number is another format. */
static int layout_check(struct source *src, struct kn_err *err)
{
	kn_auto(json_decref) json_t *doc = NULL;
	const char *version = NULL;

	if (src->layout.len == 0)
		return 0;
	int r = kn_json_parse(kn_buf_view(&src->layout), &doc, err);
	if (r == 0)
		r = kn_json_str(doc, "imageLayoutVersion", &version, err);
	if (r < 0)
		return kn_while(err, "'oci-layout'");
	if (!version || strncmp(version, "1.", 2) != 0)
		return kn_fail(err, EINVAL, "image layout version '%.20s' is not known: 1.0.0 is",
		               version ? version : "");
	return 0;
}

int source_init(struct source *src, struct kn_blobs *blobs, struct kn_arena *arena,
                const struct kn_archive_config *config, struct kn_err *err)
{
	struct stat st;
	int r;

	*src = (struct source){ .blobs = blobs, .arena = arena, .config = config, .dirfd = -1 };
	kn_auto(kn_close) int opened = -1;
	if (config->path) {
		opened = open(config->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (opened < 0)
			return kn_fail(err, errno, "open '%s': %s", config->path, strerror(errno));
	}
	int fd = config->path ? opened : config->fd;
	if (fstat(fd, &st) < 0)
		return kn_fail(err, errno, "read the archive: %s", strerror(errno));
	if (S_ISDIR(st.st_mode)) {
		src->dirfd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		r = src->dirfd < 0 ? kn_fail(err, errno, "open: %s", strerror(errno))
		                   : read_folder(src, err);
	} else if (S_ISREG(st.st_mode)) {
		r = read_archive(src, fd, (uint64_t)st.st_size, err);
	} else {
		r = kn_fail(err, EINVAL, "not an image: neither a file nor a folder");
	}
	return r < 0 ? r : layout_check(src, err);
}

void source_fini(struct source *src)
{
	kn_close(src->dirfd);
	kn_buf_fini(&src->layout);
	kn_buf_fini(&src->index);
	kn_buf_fini(&src->docker);
	free(src->files);
}

static int size_check(struct source *src, const struct kn_descriptor *d, struct kn_err *err)
{
	uint64_t bytes;

	kn_auto(kn_close) int fd = kn_blob_open(src->blobs, &d->digest, &bytes, err);
	if (fd == -ENOENT)
		return kn_fail(err, EBADMSG, "blob %s is missing: the image is not complete",
		               d->digest.text);
	if (fd < 0)
		return fd;
	if (bytes != d->bytes)
		return kn_fail(err, EBADMSG, "blob %s has %llu bytes, its descriptor says %llu",
		               d->digest.text, (unsigned long long)bytes,
		               (unsigned long long)d->bytes);
	return 0;
}

int source_fetch(struct source *src, const struct kn_descriptor *d, struct kn_err *err)
{
	if (src->dirfd >= 0) {
		int r = copy_blob(src, d, err);
		if (r == -ENOENT)
			return kn_fail(err, EBADMSG,
			               "blob %s is missing: the image is not complete",
			               d->digest.text);
		if (r < 0)
			return r;
	}
	return size_check(src, d, err);
}

int source_document(struct source *src, const struct kn_descriptor *d, struct kn_buf *ret,
                    struct kn_err *err)
{
	if (d->bytes > KN_SPEC_MAX_BYTES)
		return kn_fail(err, EFBIG, "document %s has %llu bytes; at most %d are read",
		               d->digest.text, (unsigned long long)d->bytes, KN_SPEC_MAX_BYTES);
	int r = source_fetch(src, d, err);
	if (r < 0)
		return r;
	return kn_blob_read(src->blobs, &d->digest, KN_SPEC_MAX_BYTES, ret, err);
}

const struct source_file *source_file(const struct source *src, const char *name)
{
	for (int hops = 0; hops < MAX_LINKS; hops++) {
		const struct source_file *found = NULL;
		for (size_t i = 0; i < src->n_files && !found; i++)
			if (strcmp(src->files[i].name, name) == 0)
				found = &src->files[i];
		if (!found || !found->link)
			return found;
		name = found->link;
	}
	return NULL;
}
