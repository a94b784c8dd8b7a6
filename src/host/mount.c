#include "host/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

enum { PATH_BYTES = 1024 };

int kn_mount(const char *source, const char *target, const char *type, unsigned long flags,
             const char *options, struct kn_err *err)
{
	if (mount(source, target, type, flags, options) < 0)
		return kn_fail(err, errno, "mount %s on %s: %s", source ? source : "nothing", target,
		               strerror(errno));
	return 0;
}

int kn_mount_private(struct kn_err *err)
{
	return kn_mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL, err);
}

/* mkdir -p of everything before the last slash. path is changed and restored on the way. */
static int make_parents(char *path, struct kn_err *err)
{
	for (char *at = path + 1; (at = strchr(at, '/')); at++) {
		*at = '\0';
		int r = mkdir(path, 0755);
		int saved = errno;
		*at = '/';
		if (r < 0 && saved != EEXIST)
			return kn_fail(err, saved, "make the folders of %s: %s", path,
			               strerror(saved));
	}
	return 0;
}

static int make_target(const char *path, bool folder, struct kn_err *err)
{
	if (folder) {
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return kn_fail(err, errno, "make folder %s: %s", path, strerror(errno));
		return 0;
	}
	kn_auto(kn_close) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0444);
	if (fd < 0)
		return kn_fail(err, errno, "make file %s: %s", path, strerror(errno));
	return 0;
}

int kn_bind_into(const char *root, const struct kn_bind *bind, struct kn_err *err)
{
	const char *inside = bind->target ? bind->target : bind->source;
	unsigned long flags = MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV;
	char target[PATH_BYTES];
	struct stat st;

	if (snprintf(target, sizeof(target), "%s%s", root, inside) >= (int)sizeof(target))
		return kn_fail(err, ENAMETOOLONG, "path too long: %.64s...", inside);
	if (stat(bind->source, &st) < 0) {
		if (errno == ENOENT && bind->optional)
			return 0;
		return kn_fail(err, errno, "bind %s: %s", bind->source, strerror(errno));
	}
	int r = make_parents(target, err);
	if (r == 0)
		r = make_target(target, S_ISDIR(st.st_mode), err);
	if (r == 0)
		r = kn_mount(bind->source, target, NULL, MS_BIND, NULL, err);
	if (r < 0)
		return r;
	/* A bind takes its flags only when it is mounted again: mount(2). */
	flags |= bind->writable ? 0 : MS_RDONLY;
	return kn_mount(NULL, target, NULL, flags, NULL, err);
}

int kn_device_into(const char *root, const char *source, uid_t uid, gid_t gid, struct kn_err *err)
{
	char target[PATH_BYTES];
	struct stat st;

	if (snprintf(target, sizeof(target), "%s%s", root, source) >= (int)sizeof(target))
		return kn_fail(err, ENAMETOOLONG, "path too long: %.64s...", source);
	if (stat(source, &st) < 0)
		return kn_fail(err, errno, "device %s: %s", source, strerror(errno));
	if (!S_ISCHR(st.st_mode))
		return kn_fail(err, ENODEV, "%s is not a device", source);
	int r = make_parents(target, err);
	if (r < 0)
		return r;
	if (mknod(target, S_IFCHR | 0600, st.st_rdev) < 0 || chown(target, uid, gid) < 0)
		return kn_fail(err, errno, "make device %s: %s", target, strerror(errno));
	return 0;
}

int kn_pivot_root(const char *root, struct kn_err *err)
{
	if (chdir(root) < 0)
		return kn_fail(err, errno, "enter %s: %s", root, strerror(errno));
	/* The old root lies under the new one, at the same place, until it is detached. */
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return kn_fail(err, errno, "pivot_root to %s: %s", root, strerror(errno));
	if (umount2(".", MNT_DETACH) < 0)
		return kn_fail(err, errno, "detach the old root: %s", strerror(errno));
	if (chdir("/") < 0)
		return kn_fail(err, errno, "enter the new root: %s", strerror(errno));
	return 0;
}
