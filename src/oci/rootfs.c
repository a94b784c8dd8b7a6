#include "oci/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

/* One for all images: the file's name says which image it is, its content stays reproducible. */
#define UUID "6b696c6e-0000-4000-8000-726f6f746673"

extern char **environ;

/* ---- unpacking ----------------------------------------------------------------------------- */

static int apply_one(const struct kn_rootfs_config *c, size_t i, int rootfd,
                     struct kn_layer_stats *stats, struct kn_err *err)
{
	const struct kn_descriptor *d = &c->manifest->layers[i];
	static const struct kn_layer_limits defaults = KN_LAYER_LIMITS;
	struct kn_layer_config layer = {
		.bytes = d->bytes,
		.diff_id = &c->image->diff_ids[i],
		.limits = c->limits ? c->limits : &defaults,
		.progress = c->progress,
	};

	kn_auto(kn_close) int fd = kn_blob_open(c->blobs, &d->digest, NULL, err);
	if (fd < 0)
		return fd;
	layer.fd = fd;
	return kn_layer_apply(rootfd, &layer, stats, err);
}

static int apply_all(const struct kn_rootfs_config *c, int rootfd, struct kn_layer_stats *stats,
                     struct kn_err *err)
{
	size_t n = c->manifest->n_layers;

	if (c->image->n_diff_ids != n)
		return kn_fail(err, EBADMSG, "the image has %zu layers, but its config names %zu", n,
		               c->image->n_diff_ids);
	for (size_t i = 0; i < n; i++) {
		int r = apply_one(c, i, rootfd, stats, err);
		if (r < 0)
			return kn_while(err, "layer %zu of %zu", i + 1, n);
	}
	return 0;
}

static int unpack(const struct kn_rootfs_config *c, int workfd, struct kn_layer_stats *stats,
                  struct kn_err *err)
{
	/* What the root is when no layer says; the umask has no say. */
	static const struct timespec epoch[2] = { { 0, 0 }, { 0, 0 } };

	if (mkdirat(workfd, "root", 0755) < 0 || fchmodat(workfd, "root", 0755, 0) < 0 ||
	    utimensat(workfd, "root", epoch, 0) < 0)
		return kn_fail(err, errno, "make a staging folder in '%s': %s", c->work_dir,
		               strerror(errno));
	kn_auto(kn_close) int rootfd = openat(workfd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (rootfd < 0)
		return kn_fail(err, errno, "open the staging folder: %s", strerror(errno));
	return apply_all(c, rootfd, stats, err);
}

/* ---- packing ------------------------------------------------------------------------------- */

static int spawn_mkfs(const char *mkfs, char *const argv[], int log_fd, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, log_fd, 1);
	posix_spawn_file_actions_adddup2(&actions, log_fd, 2);
	/* Worker threads of a daemon block signals; a child must not inherit that. */
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	int r = posix_spawnp(ret, mkfs, &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

/* Wait for the child, asking several times a second whether to go on. */
static int wait_for(pid_t pid, const struct kn_progress *progress, int *ret_status,
                    struct kn_err *err)
{
	kn_auto(kn_close) int pidfd = pidfd_open(pid, 0);
	bool cancelled = false;

	for (struct pollfd p = { .fd = pidfd, .events = POLLIN }; pidfd >= 0 && !cancelled;) {
		if (poll(&p, 1, 100) > 0)
			break;
		cancelled = !kn_progress_step(progress, "pack", 0, 0);
	}
	if (cancelled)
		kill(pid, SIGKILL);
	while (waitpid(pid, ret_status, 0) < 0)
		if (errno != EINTR)
			return kn_fail(err, errno, "wait for mkfs.erofs: %s", strerror(errno));
	return cancelled ? kn_fail(err, ECANCELED, "packing was cancelled") : 0;
}

static struct kn_view last_line(const struct kn_buf *text)
{
	struct kn_view v = kn_view_trim(kn_buf_view(text));
	const char *nl = v.len ? memrchr(v.ptr, '\n', v.len) : NULL;

	return nl ? (struct kn_view){ nl + 1, (size_t)(v.ptr + v.len - nl) - 1 } : v;
}

/* mkfs.erofs tells its reasons as text only. */
static int mkfs_fail(int log_fd, int status, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf log = KN_BUF_INIT;
	enum { LOG_MAX = 64 * 1024 };

	if (kn_buf_reserve(&log, LOG_MAX + 1)) {
		ssize_t n = pread(log_fd, log.ptr, LOG_MAX, 0);
		log.len = n > 0 ? (size_t)n : 0;
		log.ptr[log.len] = '\0';
	}
	struct kn_view why = last_line(&log);
	bool full = log.ptr && strstr(log.ptr, strerror(ENOSPC));
	if (WIFSIGNALED(status))
		return kn_fail(err, EIO, "mkfs.erofs was ended by signal %d", WTERMSIG(status));
	if (full)
		return kn_fail(err, ENOSPC, "mkfs.erofs: no space left for the root file system; "
		               "remove images or make room");
	return kn_fail(err, EIO, "mkfs.erofs failed with exit code %d: %.*s", WEXITSTATUS(status),
	               (int)kn_min(why.len, (size_t)300), why.len ? why.ptr : "");
}

static int run_mkfs(const struct kn_rootfs_config *c, char *const argv[], int log_fd,
                    struct kn_err *err)
{
	const char *mkfs = c->mkfs ? c->mkfs : "mkfs.erofs";
	pid_t pid;
	int status;

	int r = spawn_mkfs(mkfs, argv, log_fd, &pid);
	if (r == -ENOENT)
		return kn_fail(err, ENOENT, "'%s' is not installed: apt-get install erofs-utils",
		               mkfs);
	if (r < 0)
		return kn_fail(err, -r, "run '%s': %s", mkfs, strerror(-r));
	r = wait_for(pid, c->progress, &status, err);
	if (r < 0)
		return r;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : mkfs_fail(log_fd, status, err);
}

/*
 * Times of files are kept (no -T): Python compares them with its caches, make with its targets. No
 * compression: it would cost every guest that runs under TCG. Who is not root could not give files
 * to their owners, so they all become root's.
 */
static int pack(const struct kn_rootfs_config *c, int workfd, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf out = KN_BUF_INIT, root = KN_BUF_INIT;

	kn_buf_printf(&out, "%s/image", c->work_dir);
	kn_buf_printf(&root, "%s/root", c->work_dir);
	if (out.failed || root.failed)
		return kn_fail(err, ENOMEM, "pack: out of memory");
	char name[] = "mkfs.erofs", uuid[] = "-U" UUID, owner[] = "--all-root";
	char *as_root[] = { name, uuid, out.ptr, root.ptr, NULL };
	char *as_other[] = { name, uuid, owner, out.ptr, root.ptr, NULL };
	kn_auto(kn_close) int log_fd = openat(workfd, "log", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
	                                      0600);
	if (log_fd < 0)
		return kn_fail(err, errno, "make the log of mkfs.erofs: %s", strerror(errno));
	return run_mkfs(c, geteuid() == 0 ? as_root : as_other, log_fd, err);
}

/* ---- the hour of packing ------------------------------------------------------------------- */

/* CRC-32C, reflected, without the final inversion: what the kernel's erofs compares. */
static uint32_t crc32c(const unsigned char *p, size_t len)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0x82f63b78) : 0);
	}
	return crc;
}

/*
 * mkfs.erofs 1.5 either sets all times or writes the present one into the superblock. We want
 * neither, so that time becomes 0 afterwards. struct erofs_super_block stands at byte 1024, little
 * endian: magic at 0, checksum at 4 (over the rest of the first block), build_time at 24 (64 bits),
 * build_time_nsec at 32.
 */
static int forget_hour(int fd, struct kn_err *err)
{
	enum { BLOCK = 4096, SUPER = 1024, CHECKSUM = 4, BUILD_TIME = 24, BUILD_TIME_BYTES = 12 };
	static const unsigned char magic[4] = { 0xe2, 0xe1, 0xf5, 0xe0 };
	unsigned char block[BLOCK];
	unsigned char *super = block + SUPER;

	if (pread(fd, block, BLOCK, 0) != BLOCK || memcmp(super, magic, sizeof(magic)) != 0)
		return kn_fail(err, EIO, "mkfs.erofs wrote no erofs image");
	memset(super + BUILD_TIME, 0, BUILD_TIME_BYTES);
	memset(super + CHECKSUM, 0, 4);
	uint32_t crc = crc32c(super, BLOCK - SUPER);
	for (int i = 0; i < 4; i++)
		super[CHECKSUM + i] = (unsigned char)(crc >> 8 * i);
	if (pwrite(fd, super, 64, SUPER) != 64)
		return kn_fail(err, EIO, "write the superblock: %s", strerror(errno));
	return 0;
}

static int publish(const struct kn_rootfs_config *c, int workfd, struct kn_err *err)
{
	kn_auto(kn_close) int fd = openat(workfd, "image", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, EIO, "mkfs.erofs wrote no image: %s", strerror(errno));
	int r = forget_hour(fd, err);
	if (r < 0)
		return r;
	if (fchmod(fd, 0444) < 0 || fsync(fd) < 0 ||
	    renameat(workfd, "image", AT_FDCWD, c->path) < 0)
		return kn_fail(err, errno, "store '%s': %s", c->path, strerror(errno));
	return 0;
}

int kn_rootfs_build(const struct kn_rootfs_config *config, struct kn_layer_stats *stats,
                    struct kn_err *err)
{
	struct kn_layer_stats local = { 0 };

	kn_auto(kn_close) int workfd = open(config->work_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (workfd < 0)
		return kn_fail(err, errno, "open '%s': %s", config->work_dir, strerror(errno));
	int r = unpack(config, workfd, &local, err);
	if (r == 0)
		r = pack(config, workfd, err);
	if (r == 0)
		r = publish(config, workfd, err);
	/* What failed is the story; staging that cannot be removed goes at the next start. */
	int gone = kn_remove_tree(workfd, "root", NULL);
	unlinkat(workfd, "image", 0);
	unlinkat(workfd, "log", 0);
	if (r == 0 && gone < 0)
		return kn_fail(err, -gone, "remove '%s/root': %s", config->work_dir,
		               strerror(-gone));
	if (r == 0 && stats)
		*stats = local;
	return r;
}
