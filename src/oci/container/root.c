/*
 * The root: bind sources are opened while the caller's paths still mean something, then the root is
 * entered, then everything else is mounted inside it.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/mount.h"
#include "host/userns.h"
#include "oci/container.h"

enum { PATH_BYTES = 512 };

struct binds {
	size_t n;
	int fd[KN_CONTAINER_MAX_BINDS];
};

/* ---- before the root is entered ------------------------------------------------------------ */

static int join(const struct kn_container_join *j, struct kn_err *err)
{
	kn_auto(kn_close) int fd = open(j->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, j->type) < 0)
		return kn_fail(err, errno, "enter namespace %s: %s", j->path, strerror(errno));
	return 0;
}

static bool is_bind(const struct kn_container_mount *m)
{
	return strcmp(m->type, "bind") == 0;
}

static int open_binds(const struct kn_container_config *c, struct binds *b, struct kn_err *err)
{
	for (size_t i = 0; i < c->n_mounts; i++) {
		const struct kn_container_mount *m = &c->mounts[i];
		if (!is_bind(m))
			continue;
		unsigned all = m->flags & MS_REC ? AT_RECURSIVE : 0;
		int fd = open_tree(AT_FDCWD, m->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | all);
		if (fd < 0)
			return kn_fail(err, errno, "bind %s: %s", m->source, strerror(errno));
		b->fd[b->n++] = fd;
	}
	return 0;
}

/* An initramfs cannot be pivoted away from: the new root is moved over it (switch_root(8)). */
static int move_root(const char *root, struct kn_err *err)
{
	if (chdir(root) < 0)
		return kn_fail(err, errno, "enter the root: %s", strerror(errno));
	int r = kn_mount(".", "/", NULL, MS_MOVE, NULL, err);
	if (r == 0 && (chroot(".") < 0 || chdir("/") < 0))
		r = kn_fail(err, errno, "change the root: %s", strerror(errno));
	return r;
}

static int enter_root(const struct kn_container_config *c, struct kn_err *err)
{
	if (c->initramfs)
		return move_root(c->root, err);
	return kn_pivot_root(c->root, err);
}

/* ---- mounts -------------------------------------------------------------------------------- */

/* Made by us, owned by the container's root. */
static void give(const char *path, uid_t owner)
{
	if (owner)
		(void)!lchown(path, owner, owner);
}

int kn_container_mkdirs(const char *path, uid_t owner, struct kn_err *err)
{
	char part[PATH_BYTES];
	size_t len = strlen(path);

	if (len >= sizeof(part))
		return kn_fail(err, ENAMETOOLONG, "path too long: %.64s...", path);
	for (size_t i = 1; i <= len; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, 0755) == 0)
			give(part, owner);
		else if (errno != EEXIST)
			return kn_fail(err, errno, "make folder %s: %s", part, strerror(errno));
	}
	return 0;
}

/* Of a link of the image it is not clear what its author wants to see mounted. */
static int make_target(const char *path, bool folder, uid_t owner, struct kn_err *err)
{
	struct stat st;

	if (lstat(path, &st) == 0) {
		if (S_ISLNK(st.st_mode))
			return kn_fail(err, ELOOP, "the image's %s is a link", path);
		if (S_ISDIR(st.st_mode) != folder)
			return kn_fail(err, ENOTDIR, "the image's %s is %s folder", path,
			               folder ? "no" : "a");
		return 0;
	}
	if (folder)
		return kn_container_mkdirs(path, owner, err);
	char parent[PATH_BYTES];
	snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(path, '/') - path), path);
	int r = parent[0] ? kn_container_mkdirs(parent, owner, err) : 0;
	kn_auto(kn_close) int fd = r < 0 ? -1 : open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (r == 0 && fd < 0)
		return kn_fail(err, errno, "make %s: %s", path, strerror(errno));
	return r;
}

/* A bind takes its flags only when it is mounted again: mount(2). */
static int mount_bind(const struct kn_container_mount *m, int fd, uid_t owner, struct kn_err *err)
{
	unsigned long flags = m->flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME);
	struct stat st;

	if (fstat(fd, &st) < 0)
		return kn_fail(err, errno, "look at %s: %s", m->source, strerror(errno));
	int r = make_target(m->target, S_ISDIR(st.st_mode), owner, err);
	if (r == 0)
		r = kn_mount_place(fd, m->target, err);
	if (r == 0 && flags)
		r = kn_mount(NULL, m->target, NULL, MS_REMOUNT | MS_BIND | flags, NULL, err);
	return r;
}

static int mount_one(const struct kn_container_mount *m, uid_t owner, struct kn_err *err)
{
	int r = make_target(m->target, true, owner, err);

	if (r < 0)
		return r;
	if (mount(m->source ? m->source : m->type, m->target, m->type, m->flags, m->options) == 0) {
		if (strcmp(m->type, "tmpfs") == 0)
			give(m->target, owner);
		return 0;
	}
	if (errno == ENODEV && m->optional)
		return 0;
	return kn_fail(err, errno, "mount %s on %s: %s", m->type, m->target, strerror(errno));
}

static int mount_all(const struct kn_container_config *c, const struct binds *b, struct kn_err *err)
{
	size_t bind = 0;
	int r = 0;

	for (size_t i = 0; i < c->n_mounts && r == 0; i++)
		r = is_bind(&c->mounts[i])
		            ? mount_bind(&c->mounts[i], b->fd[bind++], c->id_first, err)
		            : mount_one(&c->mounts[i], c->id_first, err);
	return r;
}

/* ---- /dev ---------------------------------------------------------------------------------- */

static int make_devices(const struct kn_container_config *c, struct kn_err *err)
{
	static const char *const links[][2] = { { "/proc/self/fd", "/dev/fd" },
		                                { "/proc/self/fd/0", "/dev/stdin" },
		                                { "/proc/self/fd/1", "/dev/stdout" },
		                                { "/proc/self/fd/2", "/dev/stderr" },
		                                { "pts/ptmx", "/dev/ptmx" } };

	for (size_t i = 0; i < c->n_devices; i++) {
		const struct kn_container_device *d = &c->devices[i];
		if (mknod(d->path, S_IFCHR | d->mode, makedev(d->major, d->minor)) < 0 ||
		    chmod(d->path, d->mode) < 0)
			return kn_fail(err, errno, "make %s: %s", d->path, strerror(errno));
		give(d->path, c->id_first);
	}
	for (size_t i = 0; i < KN_ARRAY_LEN(links) && c->n_devices > 0; i++)
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			return kn_fail(err, errno, "make %s: %s", links[i][1], strerror(errno));
	return 0;
}

/* ---- what programs look for and images need not have --------------------------------------- */

/* Only where there is nothing, or an empty file as some tools leave it. */
static void fill_file(const char *path, const char *text, uid_t owner)
{
	struct stat st;

	if (lstat(path, &st) == 0 && (!S_ISREG(st.st_mode) || st.st_size > 0))
		return;
	kn_auto(kn_close) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return;
	(void)!kn_write_all(fd, text, strlen(text));
	give(path, owner);
}

static void add_missing(const char *hostname, uid_t owner)
{
	char hosts[256], name[80];

	if (mkdir("/tmp", 01777) == 0) {
		(void)!chmod("/tmp", 01777);
		give("/tmp", owner);
	}
	(void)!kn_container_mkdirs("/etc", owner, NULL);
	snprintf(name, sizeof(name), "%.64s\n", hostname ? hostname : "localhost");
	snprintf(hosts, sizeof(hosts), "127.0.0.1\tlocalhost %.64s\n::1\tlocalhost\n",
	         hostname ? hostname : "");
	fill_file("/etc/hosts", hosts, owner);
	fill_file("/etc/hostname", name, owner);
}

/* ---- what must not be seen or changed ------------------------------------------------------ */

/* A file becomes /dev/null, a folder an empty one. What is not there needs no mask. */
static int mask(const char *path, struct kn_err *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT || errno == ENOTDIR
		               ? 0 : kn_fail(err, errno, "mask %s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return kn_mount("mask", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
		                "size=0k,mode=0555", err);
	return kn_mount("/dev/null", path, NULL, MS_BIND, NULL, err);
}

static int protect(const char *path, struct kn_err *err)
{
	int r = 0;

	if (access(path, F_OK) < 0)
		return 0;
	r = kn_mount(path, path, NULL, MS_BIND | MS_REC, NULL, err);
	return r < 0 ? r : kn_mount(NULL, path, NULL,
	                            MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV |
	                                    MS_NOEXEC, NULL, err);
}

static int hide(const struct kn_container_config *c, struct kn_err *err)
{
	int r = 0;

	for (const char *const *p = c->read_only_paths; p && *p && r == 0; p++)
		r = protect(*p, err);
	for (const char *const *p = c->masked_paths; p && *p && r == 0; p++)
		r = mask(*p, err);
	return r;
}

/* ---- names, numbers, loopback -------------------------------------------------------------- */

static int set_sysctl(const struct kn_container_sysctl *s, struct kn_err *err)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "/proc/sys/%.400s", s->name);
	for (char *at = path + sizeof("/proc/sys"); *at; at++)
		if (*at == '.')
			*at = '/';
	kn_auto(kn_close) int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, s->value, strlen(s->value)) < 0)
		return kn_fail(err, errno, "sysctl %s = %s: %s", s->name, s->value, strerror(errno));
	return 0;
}

static int loopback_up(struct kn_err *err)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };

	kn_auto(kn_close) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		return kn_fail(err, errno, "loopback interface: %s", strerror(errno));
	return 0;
}

static int set_up(const struct kn_container_config *c, struct kn_err *err)
{
	int r = 0;

	for (size_t i = 0; i < c->n_sysctls && r == 0; i++)
		r = set_sysctl(&c->sysctls[i], err);
	if (r == 0 && c->hostname && sethostname(c->hostname, strlen(c->hostname)) < 0)
		r = kn_fail(err, errno, "host name: %s", strerror(errno));
	if (r == 0 && (c->namespaces & CLONE_NEWNET))
		r = loopback_up(err);
	return r;
}

/* ---- the story ----------------------------------------------------------------------------- */

static int build(const struct kn_container_config *c, const struct binds *b, struct kn_err *err)
{
	int r = enter_root(c, err);

	if (r == 0)
		r = mount_all(c, b, err);
	if (r == 0)
		r = make_devices(c, err);
	if (r < 0)
		return r;
	add_missing(c->hostname, c->id_first);
	r = set_up(c, err);
	return r < 0 ? r : hide(c, err);
}

int kn_container_root(const struct kn_container_config *c, struct kn_err *err)
{
	struct binds b = { .n = 0 };

	int r = kn_container_check(c, err);
	if (r < 0)
		return r;
	mode_t before = umask(022);
	if (!c->initramfs)
		r = kn_mount_private(err);
	for (size_t i = 0; i < c->n_joins && r == 0; i++)
		r = join(&c->joins[i], err);
	if (r == 0)
		r = open_binds(c, &b, err);
	if (r == 0)
		r = build(c, &b, err);
	while (b.n > 0)
		kn_close(b.fd[--b.n]);
	umask(before);
	return r < 0 ? kn_while(err, "the function's root") : 0;
}

static int close_root(struct kn_err *err)
{
	int r = kn_mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", err);

	return r < 0 ? r : kn_mount(NULL, "/", NULL,
	                            MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, NULL, err);
}

int kn_container_close(const struct kn_container_config *c, struct kn_err *err)
{
	int r = c->read_only_root ? close_root(err) : 0;

	if (r == 0 && c->userns_fd > 0)
		r = kn_userns_enter(c->userns_fd, err);
	return r < 0 ? kn_while(err, "close the function's root") : 0;
}
