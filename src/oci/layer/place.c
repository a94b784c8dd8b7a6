/* One tar entry put into the tree: what it becomes, and with which attributes. */
#include "oci/layer/place.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fd.h"

/* ext4 with 256-byte inodes ends in 2446; nobody means what lies outside. */
#define LAST_SECOND INT64_C(15032385535)

static struct timespec entry_time(struct archive_entry *e)
{
	time_t s = archive_entry_mtime_is_set(e) ? archive_entry_mtime(e) : 0;

	if (s < 0 || s > LAST_SECOND)
		return (struct timespec){ s < 0 ? 0 : LAST_SECOND, 0 };
	return (struct timespec){ s, archive_entry_mtime_nsec(e) };
}

static int owner_check(struct archive_entry *e, const char *name, struct kn_err *err)
{
	la_int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e);
	char shown[128];

	/* (uid_t)-1 means "leave it" to chown. */
	if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
		return kn_fail(err, EBADMSG, "'%s' belongs to user %lld and group %lld",
		               tree_show(name, shown), (long long)uid, (long long)gid);
	return 0;
}

static bool owner_denied(int code)
{
	return code == EPERM || code == EINVAL;
}

/* Owner of an entry without following links. Only root may give files away: else it is counted. */
static int set_owner(struct place *p, int parent, const char *name, struct archive_entry *e,
                     struct kn_err *err)
{
	uid_t uid = (uid_t)archive_entry_uid(e);
	gid_t gid = (gid_t)archive_entry_gid(e);

	if (fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (!owner_denied(errno))
		return tree_fail(errno, "change the owner of", name, err);
	p->stats->skipped_owners++;
	return 0;
}

static bool xattr_wanted(const char *name)
{
	return strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0;
}

static int set_xattrs(struct place *p, int fd, const char *file, struct archive_entry *e,
                      struct kn_err *err)
{
	uint64_t bytes = 0;
	const char *name;
	const void *value;
	size_t len;

	archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, &value, &len) == ARCHIVE_OK) {
		if (fd < 0 || !name || !xattr_wanted(name)) {
			p->stats->skipped_xattrs++;
			continue;
		}
		bytes += strlen(name) + len;
		if (bytes > p->tree.limits->max_xattrs)
			return kn_fail(err, EFBIG, "extended attributes of more than %u bytes",
			               p->tree.limits->max_xattrs);
		if (fsetxattr(fd, name, value, len, 0) == 0)
			continue;
		if (errno != ENOTSUP && errno != EPERM && errno != E2BIG && errno != ERANGE &&
		    errno != EINVAL)
			return tree_fail(errno, "set an attribute of", file, err);
		p->stats->skipped_xattrs++;
	}
	return 0;
}

/* In this order: chown clears setuid bits and capabilities. */
static int set_attributes(struct place *p, int parent, const char *name, int fd,
                          struct archive_entry *e, mode_t mode, struct kn_err *err)
{
	int r = set_owner(p, parent, name, e, err);

	if (r == 0 && fchmod(fd, mode) < 0)
		r = tree_fail(errno, "change the mode of", name, err);
	if (r == 0)
		r = set_xattrs(p, fd, name, e, err);
	return r;
}

/* ---- kinds of entries ---------------------------------------------------------------------- */

static int data_fail(struct place *p, const char *name, struct kn_err *err)
{
	const char *why = archive_error_string(p->tar);
	char shown[128];

	if (p->stream_err.code) {
		*err = p->stream_err;
		return -err->code;
	}
	return kn_fail(err, EBADMSG, "'%s' is damaged or cut short: %s", tree_show(name, shown),
	               why ? why : "unknown reason");
}

/* Blocks say where they belong: between them are the holes of a sparse file. */
static int write_data(struct place *p, int fd, const char *name, uint64_t size, struct kn_err *err)
{
	const void *block;
	size_t len;
	la_int64_t offset;
	int r;

	while ((r = archive_read_data_block(p->tar, &block, &len, &offset)) == ARCHIVE_OK) {
		if (offset < 0 || (uint64_t)offset > size || len > size - (uint64_t)offset)
			return kn_fail(err, EBADMSG, "a file has more content than it says");
		for (size_t done = 0; done < len;) {
			ssize_t n = pwrite(fd, (const char *)block + done, len - done,
			                   (off_t)offset + (off_t)done);
			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return tree_fail(errno, "write", name, err);
			done += (size_t)n;
		}
	}
	if (r != ARCHIVE_EOF)
		return data_fail(p, name, err);
	return ftruncate(fd, (off_t)size) < 0 ? tree_fail(errno, "write", name, err) : 0;
}

static int place_file(struct place *p, int parent, const char *name, struct archive_entry *e,
                      struct kn_err *err)
{
	struct timespec mtime = entry_time(e), times[2] = { mtime, mtime };
	la_int64_t size = archive_entry_size(e);

	if (size < 0 || (uint64_t)size > p->tree.limits->max_bytes - p->stats->bytes)
		return kn_fail(err, size < 0 ? EBADMSG : EFBIG,
		               "a file of %lld bytes takes the image past %llu", (long long)size,
		               (unsigned long long)p->tree.limits->max_bytes);
	kn_auto(kn_close) int fd = openat(parent, name,
	                                  O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return tree_fail(errno, "make", name, err);
	p->stats->bytes += (uint64_t)size;
	int r = write_data(p, fd, name, (uint64_t)size, err);
	if (r == 0)
		r = set_attributes(p, parent, name, fd, e, archive_entry_perm(e) & 07777, err);
	if (r == 0 && futimens(fd, times) < 0)
		r = tree_fail(errno, "set the time of", name, err);
	return r;
}

static int place_folder(struct place *p, int parent, const char *name, struct archive_entry *e,
                        struct kn_err *err)
{
	struct timespec mtime = entry_time(e);
	mode_t mode = archive_entry_perm(e) & 07777;

	if (mkdirat(parent, name, 0700) < 0 && errno != EEXIST)
		return tree_fail(errno, "make folder", name, err);
	kn_auto(kn_close) int fd = openat(parent, name,
	                                  O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return tree_fail(errno, "open folder", name, err);
	/* Who is not root could not fill a folder without these. */
	if (geteuid() != 0)
		mode |= 0700;
	int r = set_attributes(p, parent, name, fd, e, mode, err);
	return r < 0 ? r : tree_folder_time(&p->tree, fd, &mtime, err);
}

static int place_link(struct place *p, int parent, const char *name, struct archive_entry *e,
                      struct kn_err *err)
{
	struct timespec mtime = entry_time(e), times[2] = { mtime, mtime };
	const char *target = archive_entry_symlink(e);

	if (!target || !target[0])
		return kn_fail(err, EBADMSG, "a link leads nowhere");
	if (symlinkat(target, parent, name) < 0)
		return tree_fail(errno, "make link", name, err);
	int r = set_owner(p, parent, name, e, err);
	if (r == 0)
		r = set_xattrs(p, -1, name, e, err);
	if (r == 0 && utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		r = tree_fail(errno, "set the time of", name, err);
	return r;
}

static int place_fifo(struct place *p, int parent, const char *name, struct archive_entry *e,
                      struct kn_err *err)
{
	struct timespec mtime = entry_time(e), times[2] = { mtime, mtime };

	if (mkfifoat(parent, name, 0600) < 0)
		return tree_fail(errno, "make fifo", name, err);
	int r = set_owner(p, parent, name, e, err);
	if (r == 0 && fchmodat(parent, name, archive_entry_perm(e) & 07777, 0) < 0)
		r = tree_fail(errno, "change the mode of", name, err);
	if (r == 0)
		r = set_xattrs(p, -1, name, e, err);
	if (r == 0 && utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		r = tree_fail(errno, "set the time of", name, err);
	return r;
}

static int place_by_kind(struct place *p, int parent, const char *name, struct archive_entry *e,
                         struct kn_err *err)
{
	switch (archive_entry_filetype(e)) {
	case AE_IFREG:
		return place_file(p, parent, name, e, err);
	case AE_IFDIR:
		return place_folder(p, parent, name, e, err);
	case AE_IFLNK:
		return place_link(p, parent, name, e, err);
	case AE_IFIFO:
		return place_fifo(p, parent, name, e, err);
	default:
		p->stats->skipped_devices++;
		return 0;
	}
}

/* ---- hard links ---------------------------------------------------------------------------- */

static void split_name(struct kn_buf *path, struct kn_view *ret_folder, const char **ret_name)
{
	const char *slash = strrchr(path->ptr, '/');

	*ret_folder = slash ? (struct kn_view){ path->ptr, (size_t)(slash - path->ptr) }
	                    : KN_VIEW("");
	*ret_name = slash ? slash + 1 : path->ptr;
}

/* The target's folder, opened on its own: the cache holds the new name's. */
static int link_target(struct place *p, struct kn_buf *path, const char **ret_name,
                       struct stat *ret_st, struct kn_err *err)
{
	struct kn_view folder;
	char shown[128];

	split_name(path, &folder, ret_name);
	kn_auto(kn_free) char *copy = strndup(folder.ptr, folder.len);
	if (!copy)
		return kn_fail(err, ENOMEM, "unpack layer: out of memory");
	kn_auto(kn_close) int fd = kn_open_in(p->tree.rootfd, copy[0] ? copy : ".",
	                                      O_PATH | O_DIRECTORY, 0, NULL);
	if (fd < 0 || fstatat(fd, *ret_name, ret_st, AT_SYMLINK_NOFOLLOW) < 0)
		return kn_fail(err, EBADMSG, "hard link to '%s', which is not in the image",
		               tree_show(path->ptr, shown));
	if (S_ISDIR(ret_st->st_mode))
		return kn_fail(err, EBADMSG, "hard link to the folder '%s'",
		               tree_show(path->ptr, shown));
	return kn_take_fd(fd);
}

static int place_hardlink(struct place *p, int parent, const char *name, const char *target,
                          struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf path = KN_BUF_INIT;
	struct stat to, old;
	const char *to_name;

	int r = tree_clean(&p->tree, target, &path, err);
	if (r <= 0)
		return r < 0 ? kn_while(err, "hard link") : kn_fail(err, EBADMSG, "hard link to '/'");
	kn_auto(kn_close) int to_dir = link_target(p, &path, &to_name, &to, err);
	if (to_dir < 0)
		return to_dir;
	if (fstatat(parent, name, &old, AT_SYMLINK_NOFOLLOW) == 0 && old.st_ino == to.st_ino)
		return 0;                /* it is that file already, perhaps the very same name */
	r = tree_clear(&p->tree, parent, name, err);
	if (r == 0 && linkat(to_dir, to_name, parent, name, 0) < 0)
		r = tree_fail(errno, "make hard link", name, err);
	return r;
}

/* ---- whiteouts ----------------------------------------------------------------------------- */

#define WHITEOUT ".wh."

/* layer.md: ".wh.NAME" hides NAME, ".wh..wh..opq" hides all that lower layers put there. */
static int place_whiteout(struct place *p, int parent, const char *name, struct kn_err *err)
{
	const char *hidden = name + sizeof(WHITEOUT) - 1;

	p->stats->whiteouts++;
	tree_forget(&p->tree);
	if (strcmp(name, WHITEOUT WHITEOUT ".opq") == 0)
		return tree_hide_all(&p->tree, parent, err);
	if (strncmp(hidden, WHITEOUT, sizeof(WHITEOUT) - 1) == 0)
		return 0;                /* AUFS' own book-keeping: .wh..wh.plnk and the like */
	if (!hidden[0] || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
		return kn_fail(err, EBADMSG, "whiteout '%s' hides no name", name);
	return tree_hide(&p->tree, parent, hidden, err);
}

/* ---- one entry ----------------------------------------------------------------------------- */

/* A folder stays when a folder takes its place; anything else makes way. */
static int make_way(struct place *p, int parent, const char *name, bool folder, struct kn_err *err)
{
	struct stat st;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : tree_fail(errno, "look at", name, err);
	if (folder && S_ISDIR(st.st_mode))
		return 0;
	return tree_clear(&p->tree, parent, name, err);
}

static int place_root(struct place *p, struct archive_entry *e, struct kn_err *err)
{
	struct timespec mtime = entry_time(e);

	if (archive_entry_filetype(e) != AE_IFDIR)
		return kn_fail(err, EBADMSG, "the root must be a folder");
	kn_auto(kn_close) int fd = kn_open_in(p->tree.rootfd, ".", O_RDONLY | O_DIRECTORY, 0, err);
	if (fd < 0)
		return fd;
	mode_t mode = (archive_entry_perm(e) & 07777) | (geteuid() != 0 ? 0700 : 0);
	int r = set_attributes(p, fd, ".", fd, e, mode, err);
	return r < 0 ? r : tree_folder_time(&p->tree, fd, &mtime, err);
}

static int place_named(struct place *p, struct kn_buf *path, struct archive_entry *e,
                       struct kn_err *err)
{
	const char *target = archive_entry_hardlink(e), *name;
	struct kn_view folder;
	bool is_folder = !target && archive_entry_filetype(e) == AE_IFDIR;

	split_name(path, &folder, &name);
	int shared = tree_folder(&p->tree, folder, err);
	if (shared < 0)
		return shared;
	/* Our own copy: removing things below makes the tree forget its. */
	kn_auto(kn_close) int parent = fcntl(shared, F_DUPFD_CLOEXEC, 3);
	if (parent < 0)
		return tree_fail(errno, "open folder", path->ptr, err);
	if (strncmp(name, WHITEOUT, sizeof(WHITEOUT) - 1) == 0)
		return place_whiteout(p, parent, name, err);
	int r;
	if (target) {
		r = place_hardlink(p, parent, name, target, err);
	} else {
		r = make_way(p, parent, name, is_folder, err);
		if (r == 0)
			r = place_by_kind(p, parent, name, e, err);
	}
	return r < 0 ? r : tree_made(&p->tree, parent, name, err);
}

int place_entry(struct place *p, struct archive_entry *e, struct kn_err *err)
{
	const char *name = archive_entry_pathname(e);
	char shown[128];

	if (!name)
		return kn_fail(err, EBADMSG, "an entry's name cannot be read");
	if (++p->stats->entries > p->tree.limits->max_entries)
		return kn_fail(err, EFBIG, "the image has more than %llu entries",
		               (unsigned long long)p->tree.limits->max_entries);
	int r = tree_clean(&p->tree, name, &p->path, err);
	if (r < 0)
		return r;
	if (r > 0)
		r = owner_check(e, name, err);
	if (r == 0)
		r = p->path.len ? place_named(p, &p->path, e, err) : place_root(p, e, err);
	return r < 0 ? kn_while(err, "'%s'", tree_show(name, shown)) : 0;
}
