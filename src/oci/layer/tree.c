#include "oci/layer/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"

struct made {
	ino_t parent;
	const char *name;
};

struct folder {
	ino_t ino;
	const char *path;            /* from the root on */
	struct timespec mtime;
};

enum { NAME_BYTES = 255, REAL_PATH = 4096 };

const char *tree_show(const char *name, char ret[static 128])
{
	size_t n = 0;

	for (; n < 120 && name[n]; n++)
		ret[n] = (unsigned char)name[n] < 32 || name[n] == 127 ? '?' : name[n];
	memcpy(ret + n, name[n] ? "..." : "", name[n] ? 4 : 1);
	return ret;
}

int tree_fail(int code, const char *what, const char *name, struct kn_err *err)
{
	char shown[128];

	if (code == ENOSPC || code == EDQUOT)
		return kn_fail(err, code, "%s '%s': no space left to unpack the image; remove "
		               "images or make room", what, tree_show(name, shown));
	/* What the layer's own names and links lead to is the layer's fault. */
	if (code == ELOOP || code == ENOTDIR || code == ENAMETOOLONG || code == EISDIR ||
	    code == EEXIST || code == ENOENT || code == EXDEV || code == EMLINK)
		return kn_fail(err, EBADMSG, "%s '%s': %s", what, tree_show(name, shown),
		               strerror(code));
	return kn_fail(err, code, "%s '%s': %s", what, tree_show(name, shown), strerror(code));
}

static int no_memory(struct kn_err *err)
{
	return kn_fail(err, ENOMEM, "unpack layer: out of memory");
}

/* ---- names --------------------------------------------------------------------------------- */

int tree_clean(const struct tree *t, const char *name, struct kn_buf *ret, struct kn_err *err)
{
	struct kn_view rest = kn_view_of(name), part;
	uint32_t depth = 0;
	char shown[128];

	kn_buf_clear(ret);
	if (rest.len == 0)
		return kn_fail(err, EBADMSG, "an entry has no name");
	while (kn_view_split(&rest, '/', &part)) {
		if (part.len == 0 || kn_view_is(part, KN_VIEW(".")))
			continue;
		if (kn_view_is(part, KN_VIEW("..")))
			return kn_fail(err, EBADMSG, "'%s' climbs out of the image with '..'",
			               tree_show(name, shown));
		if (part.len > NAME_BYTES || ret->len + part.len + 1 > t->limits->max_path)
			return kn_fail(err, EFBIG, "the name '%s' is too long",
			               tree_show(name, shown));
		if (++depth > t->limits->max_depth)
			return kn_fail(err, EFBIG, "'%s' lies more than %u folders deep",
			               tree_show(name, shown), t->limits->max_depth);
		if (ret->len)
			kn_buf_add(ret, "/", 1);
		kn_buf_add_view(ret, part);
	}
	kn_buf_add(ret, "", 0);
	return ret->failed ? no_memory(err) : (int)depth;
}

/* ---- what is remembered -------------------------------------------------------------------- */

static int made_compare(const void *a, const void *b)
{
	const struct made *x = a, *y = b;

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int folder_compare(const void *a, const void *b)
{
	const struct folder *x = a, *y = b;

	return x->ino == y->ino ? 0 : x->ino < y->ino ? -1 : 1;
}

static int inode_of(int fd, ino_t *ret, struct kn_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return kn_fail(err, errno, "stat folder: %s", strerror(errno));
	*ret = st.st_ino;
	return 0;
}

int tree_made(struct tree *t, int parent, const char *name, struct kn_err *err)
{
	struct made key = { .name = name };

	if (t->lowest)
		return 0;
	int r = inode_of(parent, &key.parent, err);
	if (r < 0 || tfind(&key, &t->made, made_compare))
		return r;
	struct made *m = kn_arena_alloc(&t->arena, sizeof(*m));
	if (!m)
		return no_memory(err);
	*m = key;
	m->name = kn_arena_copy(&t->arena, name, strlen(name));
	return m->name && tsearch(m, &t->made, made_compare) ? 0 : no_memory(err);
}

static bool was_made(const struct tree *t, ino_t parent, const char *name)
{
	struct made key = { parent, name };

	return tfind(&key, &t->made, made_compare) != NULL;
}

/* Where a descriptor really is, from the root on: links may have led to another depth. */
static int real_path(const struct tree *t, int fd, char ret[static REAL_PATH], struct kn_err *err)
{
	char link[64];
	char full[REAL_PATH + 1];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, full, sizeof(full));
	if (n < 0)
		return tree_fail(errno, "find", link, err);
	size_t root = t->root_path.len;
	if (n > REAL_PATH || (size_t)n < root || memcmp(full, t->root_path.ptr, root) != 0)
		return kn_fail(err, EBADMSG, "a folder lies too deep");
	const char *rest = full + root;
	size_t len = (size_t)n - root;
	if (len && *rest == '/') {
		rest++;
		len--;
	}
	uint32_t depth = 0;
	for (size_t i = 0; i < len; i++)
		depth += rest[i] == '/';
	if (len > t->limits->max_path || depth > t->limits->max_depth)
		return kn_fail(err, EFBIG, "links lead to a folder that lies too deep");
	memcpy(ret, rest, len);
	ret[len] = '\0';
	return 0;
}

/* Remember a folder the first time; force: it is a new one, whose number an old one may have had. */
static int remember(struct tree *t, int fd, const struct timespec *mtime, bool force,
                    struct kn_err *err)
{
	struct folder key;
	struct stat st;
	char path[REAL_PATH];

	if (fstat(fd, &st) < 0)
		return kn_fail(err, errno, "stat folder: %s", strerror(errno));
	key = (struct folder){ .ino = st.st_ino, .mtime = mtime ? *mtime : st.st_mtim };
	struct folder **found = (struct folder **)tfind(&key, &t->folders, folder_compare);
	if (found && !force)
		return 0;
	int r = real_path(t, fd, path, err);
	if (r < 0)
		return r;
	key.path = kn_arena_copy(&t->arena, path, strlen(path));
	struct folder *f = found ? *found : kn_arena_alloc(&t->arena, sizeof(*f));
	if (!key.path || !f)
		return no_memory(err);
	*f = key;
	return found || tsearch(f, &t->folders, folder_compare) ? 0 : no_memory(err);
}

int tree_folder_time(struct tree *t, int fd, const struct timespec *mtime, struct kn_err *err)
{
	return remember(t, fd, mtime, true, err);
}

/* ---- folders ------------------------------------------------------------------------------- */

/* Asked without a kn_err: that a folder is missing may be all right. */
static int open_folder(const struct tree *t, const char *path)
{
	return kn_open_in(t->rootfd, path[0] ? path : ".", O_PATH | O_DIRECTORY, 0, NULL);
}

/* One step down, made when it is not there. "path" is where it stands from the root on. */
static int make_step(struct tree *t, int parent, const char *path, const char *name,
                     struct kn_err *err)
{
	static const struct timespec epoch = { 0, 0 };

	if (mkdirat(parent, name, 0755) < 0)
		return tree_fail(errno, "make folder", path, err);
	int r = tree_made(t, parent, name, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int fd = open_folder(t, path);
	if (fd < 0)
		return tree_fail(-fd, "open folder", path, err);
	/* The umask may have had its say. */
	if (fchmodat(parent, name, 0755, 0) < 0)
		return tree_fail(errno, "change", path, err);
	r = remember(t, fd, &epoch, true, err);
	return r < 0 ? r : kn_take_fd(fd);
}

static int open_or_make(struct tree *t, int parent, const char *path, const char *name,
                        struct kn_err *err)
{
	int r = remember(t, parent, NULL, false, err);
	if (r < 0)
		return r;
	int fd = open_folder(t, path);
	if (fd == -ENOENT)
		return make_step(t, parent, path, name, err);
	return fd < 0 ? tree_fail(-fd, "open folder", path, err) : fd;
}

static int make_folders(struct tree *t, char *path, struct kn_err *err)
{
	kn_auto(kn_close) int parent = open_folder(t, "");
	if (parent < 0)
		return tree_fail(-parent, "open folder", "/", err);

	for (char *name = path, *slash; name; name = slash ? slash + 1 : NULL) {
		slash = strchr(name, '/');
		if (slash)
			*slash = '\0';
		int fd = open_or_make(t, parent, path, name, err);
		if (slash)
			*slash = '/';
		if (fd < 0)
			return fd;
		kn_close(parent);
		parent = fd;
	}
	return kn_take_fd(parent);
}

int tree_folder(struct tree *t, struct kn_view path, struct kn_err *err)
{
	if (t->cached_fd >= 0 && kn_view_is(path, kn_buf_view(&t->cached_path)))
		return t->cached_fd;
	tree_forget(t);
	kn_auto(kn_free) char *copy = path.len ? strndup(path.ptr, path.len) : strdup("");
	if (!copy)
		return no_memory(err);
	kn_auto(kn_close) int fd = open_folder(t, copy);
	if (fd < 0 && fd != -ENOENT)
		return tree_fail(-fd, "open folder", copy, err);
	if (fd == -ENOENT)
		fd = make_folders(t, copy, err);
	if (fd < 0)
		return fd;
	int r = remember(t, fd, NULL, false, err);
	if (r < 0)
		return r;
	kn_buf_add_view(&t->cached_path, path);
	if (t->cached_path.failed)
		return no_memory(err);
	t->cached_fd = kn_take_fd(fd);
	return t->cached_fd;
}

void tree_forget(struct tree *t)
{
	kn_close(t->cached_fd);
	t->cached_fd = -1;
	kn_buf_clear(&t->cached_path);
}

/* ---- removing ------------------------------------------------------------------------------ */

int tree_clear(struct tree *t, int parent, const char *name, struct kn_err *err)
{
	struct stat st;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : tree_fail(errno, "look at", name, err);
	tree_forget(t);
	if (S_ISDIR(st.st_mode))
		return kn_remove_tree(parent, name, err);
	return unlinkat(parent, name, 0) < 0 ? tree_fail(errno, "replace", name, err) : 0;
}

static void close_dir(DIR *d)
{
	if (d)
		closedir(d);
}
KN_AUTO(close_dir, DIR *);

static int hide_folder(struct tree *t, int fd, bool *ret_kept, struct kn_err *err);

static int hide_one(struct tree *t, int parent, ino_t parent_ino, const char *name, bool *ret_kept,
                    struct kn_err *err)
{
	bool made = was_made(t, parent_ino, name), kept = false;
	struct stat st;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : tree_fail(errno, "look at", name, err);
	if (S_ISDIR(st.st_mode)) {
		kn_auto(kn_close) int fd = openat(parent, name,
		                                  O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		int r = fd < 0 ? tree_fail(errno, "open folder", name, err)
		               : hide_folder(t, fd, &kept, err);
		if (r < 0)
			return r;
	}
	*ret_kept = *ret_kept || kept || made;
	if (made || kept)
		return 0;
	if (unlinkat(parent, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0)
		return tree_fail(errno, "remove", name, err);
	return 0;
}

/* As deep as real_path() lets folders lie: the limit on depth bounds the recursion. */
static int hide_folder(struct tree *t, int fd, bool *ret_kept, struct kn_err *err)
{
	ino_t ino = 0;

	int r = inode_of(fd, &ino, err);
	if (r < 0)
		return r;
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	kn_auto(close_dir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir) {
		r = tree_fail(errno, "read folder", ".", err);
		kn_close(copy);
		return r;
	}
	for (const struct dirent *e; r == 0 && (e = readdir(dir));)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = hide_one(t, fd, ino, e->d_name, ret_kept, err);
	return r;
}

int tree_hide(struct tree *t, int parent, const char *name, struct kn_err *err)
{
	bool kept = false;
	ino_t ino = 0;

	if (t->lowest)
		return 0;
	int r = inode_of(parent, &ino, err);
	return r < 0 ? r : hide_one(t, parent, ino, name, &kept, err);
}

int tree_hide_all(struct tree *t, int folder, struct kn_err *err)
{
	bool kept = false;

	return t->lowest ? 0 : hide_folder(t, folder, &kept, err);
}

/* ---- begin and end ------------------------------------------------------------------------- */

int tree_init(struct tree *t, int rootfd, const struct kn_layer_limits *limits, bool lowest,
              struct kn_err *err)
{
	char link[64];
	char path[REAL_PATH];

	*t = (struct tree){ .rootfd = rootfd, .limits = limits, .cached_fd = -1, .lowest = lowest };
	kn_arena_init(&t->arena);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", rootfd);
	ssize_t n = readlink(link, path, sizeof(path));
	if (n < 0 || n == sizeof(path))
		return kn_fail(err, n < 0 ? errno : ENAMETOOLONG, "read '%s': is /proc mounted?",
		               link);
	kn_buf_add(&t->root_path, path, (size_t)n);
	return t->root_path.failed ? no_memory(err) : 0;
}

struct finish {
	struct tree *t;
	struct kn_err *err;
	int result;
};

static void restore_time(const void *node, VISIT which, void *arg)
{
	const struct folder *f = *(struct folder *const *)node;
	struct finish *job = arg;
	struct timespec times[2] = { f->mtime, f->mtime };
	struct stat st;

	if ((which != postorder && which != leaf) || job->result < 0)
		return;
	kn_auto(kn_close) int fd = kn_open_in(job->t->rootfd, f->path[0] ? f->path : ".",
	                                      O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, NULL);
	/* Removed or replaced since: then there is nothing to restore. */
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_ino != f->ino)
		return;
	if (futimens(fd, times) < 0)
		job->result = tree_fail(errno, "set the time of", f->path, job->err);
}

int tree_finish(struct tree *t, struct kn_err *err)
{
	struct finish job = { t, err, 0 };

	tree_forget(t);
	twalk_r(t->folders, restore_time, &job);
	return job.result;
}

static void keep_node(void *node)
{
	(void)node;     /* the arena's */
}

void tree_fini(struct tree *t)
{
	tree_forget(t);
	tdestroy(t->made, keep_node);
	tdestroy(t->folders, keep_node);
	kn_arena_fini(&t->arena);
	kn_buf_fini(&t->root_path);
	kn_buf_fini(&t->cached_path);
}
