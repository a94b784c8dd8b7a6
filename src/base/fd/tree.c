/* Folders made and removed. */
#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int make_one(int dirfd, const char *path, mode_t mode)
{
	struct stat st;

	if (mkdirat(dirfd, path, mode) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (fstatat(dirfd, path, &st, 0) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int kn_mkdirs(int dirfd, const char *path, mode_t mode, struct kn_err *err)
{
	kn_auto(kn_free) char *copy = strdup(path);
	if (!copy)
		return kn_fail(err, ENOMEM, "out of memory");

	for (char *p = copy + strspn(copy, "/");; p++) {
		p += strcspn(p, "/");
		bool last = *p == '\0';
		*p = '\0';
		int r = make_one(dirfd, copy, mode);
		if (r < 0)
			return kn_fail(err, -r, "make folder '%s': %s", copy, strerror(-r));
		if (last)
			return 0;
		*p = '/';
		if (p[strspn(p, "/")] == '\0')
			return 0;
	}
}

/*
 * Removal goes down at most DEEPEST folders, so that a hostile tree can take neither the stack nor
 * the descriptors: what lies deeper is moved up into the top folder first, under a name that no
 * unpacked layer is likely to hold, and removed in a later round.
 */
enum { DEEPEST = 48 };

struct removal {
	int top;            /* descriptor of the folder that goes */
	unsigned moved;     /* how many subtrees were moved up */
};

static int empty_folder(struct removal *job, int fd, int depth, struct kn_err *err);

/* RESOLVE_NO_XDEV stops at bind mounts too, which have the same st_dev. syscalls: openat2 */
static int open_folder(int dirfd, const char *name)
{
	struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS,
	};
	long fd = syscall(SYS_openat2, dirfd, name, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

static int move_up(struct removal *job, int dirfd, const char *name)
{
	char up[32];

	do
		snprintf(up, sizeof(up), ".kn-removed-%u", job->moved++);
	while (renameat2(dirfd, name, job->top, up, RENAME_NOREPLACE) < 0 && errno == EEXIST);
	return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ? -errno : 0;
}

static int remove_entry(struct removal *job, int dirfd, const char *name, int depth,
                        struct kn_err *err)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return kn_fail(err, errno, "remove '%s': %s", name, strerror(errno));

	kn_auto(kn_close) int fd = open_folder(dirfd, name);
	if (fd == -EXDEV)
		return kn_fail(err, EXDEV, "'%s' is a mount point; unmount it first", name);
	if (fd < 0)
		return kn_fail(err, -fd, "open '%s': %s", name, strerror(-fd));

	int r = empty_folder(job, fd, depth + 1, err);
	if (r == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0)
		r = kn_fail(err, errno, "remove '%s': %s", name, strerror(errno));
	return r;
}

static int remove_or_move(struct removal *job, int dirfd, const struct dirent *e, int depth,
                          struct kn_err *err)
{
	if (depth < DEEPEST || e->d_type != DT_DIR)
		return remove_entry(job, dirfd, e->d_name, depth, err);
	int r = move_up(job, dirfd, e->d_name);
	return r < 0 ? kn_fail(err, -r, "move '%s': %s", e->d_name, strerror(-r)) : 0;
}

static void close_dir(DIR *d)
{
	if (d)
		closedir(d);
}
KN_AUTO(close_dir, DIR *);

static bool is_dots(const char *name)
{
	return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* One pass over what the folder holds. ret_any: something was there. */
static int empty_pass(struct removal *job, int fd, int depth, bool *ret_any, struct kn_err *err)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	kn_auto(close_dir) DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	int r = 0;

	*ret_any = false;
	if (!d) {
		r = kn_fail(err, errno, "read folder: %s", strerror(errno));
		kn_close(copy);
		return r;
	}
	while (r == 0 && (errno = 0, e = readdir(d))) {
		if (is_dots(e->d_name))
			continue;
		*ret_any = true;
		r = remove_or_move(job, fd, e, depth, err);
	}
	return r;
}

/* Again until a pass finds nothing: readdir may miss what moves while it reads. */
static int empty_folder(struct removal *job, int fd, int depth, struct kn_err *err)
{
	bool any = true;
	int r = 0;

	while (r == 0 && any)
		r = empty_pass(job, fd, depth, &any, err);
	return r;
}

int kn_remove_tree(int dirfd, const char *path, struct kn_err *err)
{
	if (unlinkat(dirfd, path, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return kn_fail(err, errno, "remove '%s': %s", path, strerror(errno));

	kn_auto(kn_close) int top = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (top < 0)
		return kn_fail(err, errno, "open '%s': %s", path, strerror(errno));

	struct removal job = { .top = top };
	if (empty_folder(&job, top, 0, err) < 0)
		return kn_while(err, "remove '%s'", path);
	if (unlinkat(dirfd, path, AT_REMOVEDIR) < 0)
		return kn_fail(err, errno, "remove '%s': %s", path, strerror(errno));
	return 0;
}
