#include "host/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
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

/* What the kernel wrote into the context's log about a failure: "e erofs: cannot find ...". */
static int tell_context(int context, int code, const char *source, struct kn_err *err)
{
	char said[256];
	ssize_t n = read(context, said, sizeof(said) - 1);

	said[n > 0 ? n : 0] = '\0';
	return kn_fail(err, code, "mount %s: %s%s%s", source, strerror(code), n > 2 ? ": " : "",
	               n > 2 ? said + 2 : "");
}

static int open_once(const char *source, const char *type, struct kn_err *err)
{
	/* syscalls: fsopen fsconfig fsmount */
	kn_auto(kn_close) int context = fsopen(type, FSOPEN_CLOEXEC);
	if (context < 0)
		return kn_fail(err, errno, "file system %s: %s%s", type, strerror(errno),
		               errno == ENODEV ? ": this kernel does not have it" : "");
	if (fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0 ||
	    fsconfig(context, FSCONFIG_SET_STRING, "source", source, 0) < 0 ||
	    fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return tell_context(context, errno, source, err);
	int fd = fsmount(context, FSMOUNT_CLOEXEC,
	                 MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	return fd < 0 ? tell_context(context, errno, source, err) : fd;
}

int kn_loop_device(const char *file, char ret[32], struct kn_err *err)
{
	struct loop_config c = { .info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR };
	int saved = EBUSY;

	kn_auto(kn_close) int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return kn_fail(err, errno, "/dev/loop-control: %s", strerror(errno));
	kn_auto(kn_close) int backing = open(file, O_RDONLY | O_CLOEXEC);
	if (backing < 0)
		return kn_fail(err, errno, "open %s: %s", file, strerror(errno));
	c.fd = (uint32_t)backing;
	/* Somebody else may take the free one first. */
	for (int tries = 0; tries < 64 && saved == EBUSY; tries++) {
		int n = ioctl(control, LOOP_CTL_GET_FREE);
		if (n < 0)
			return kn_fail(err, errno, "a free loop device: %s", strerror(errno));
		snprintf(ret, 32, "/dev/loop%d", n);
		kn_auto(kn_close) int fd = open(ret, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &c) == 0)
			return kn_take_fd(fd);
		saved = errno;
	}
	return kn_fail(err, saved, "loop device for %s: %s", file, strerror(saved));
}

int kn_mount_open(const char *source, const char *type, struct kn_err *err)
{
	struct kn_err first = KN_ERR_INIT;
	char device[32];

	int fd = open_once(source, type, &first);
	if (fd >= 0)
		return fd;
	if (fd != -ENOTBLK) {
		if (err)
			*err = first;
		return fd;
	}
	kn_auto(kn_close) int loop = kn_loop_device(source, device, err);
	if (loop < 0)
		return loop;
	fd = open_once(device, type, err);
	return fd < 0 ? kn_while(err, "mount %s", source) : fd;
}

int kn_mount_copy(int mount_fd, struct kn_err *err)
{
	/* syscalls: open_tree */
	int fd = open_tree(mount_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

	return fd < 0 ? kn_fail(err, errno, "copy a mount: %s", strerror(errno)) : fd;
}

int kn_mount_shift(int mount_fd, int userns_fd, struct kn_err *err)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP,
		                   .userns_fd = (unsigned)userns_fd };

	/* syscalls: mount_setattr */
	if (mount_setattr(mount_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return kn_fail(err, errno, "map the owners of a mount: %s", strerror(errno));
	return 0;
}

int kn_mount_place(int mount_fd, const char *target, struct kn_err *err)
{
	/* syscalls: move_mount */
	if (move_mount(mount_fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return kn_fail(err, errno, "mount on %s: %s", target, strerror(errno));
	return 0;
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
