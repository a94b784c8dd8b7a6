/* Whole reads and writes, and files replaced atomically. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

ssize_t kn_read_all(int fd, void *ptr, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)ptr + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int kn_write_all(int fd, const void *ptr, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const char *)ptr + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

static void cut_back(struct kn_buf *b, size_t len)
{
	b->len = len;
	if (b->ptr)
		b->ptr[len] = '\0';
}

/* Files of /proc have size 0, so read until the end instead of asking for the size. */
static int read_some(int fd, size_t max, struct kn_buf *b)
{
	enum { STEP = 16 * 1024 };
	size_t start = b->len;

	for (;;) {
		if (!kn_buf_reserve(b, STEP))
			return -ENOMEM;
		ssize_t n = kn_read_all(fd, b->ptr + b->len, STEP);
		if (n < 0)
			return (int)n;
		b->len += (size_t)n;
		b->ptr[b->len] = '\0';
		if (b->len - start > max)
			return -EFBIG;
		if (n < STEP)
			return 0;
	}
}

int kn_read_file(int dirfd, const char *path, size_t max, struct kn_buf *ret, struct kn_err *err)
{
	size_t before = ret->len;

	kn_auto(kn_close) int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "open '%s': %s", path, strerror(errno));

	int r = read_some(fd, max, ret);
	if (r < 0)
		cut_back(ret, before);
	if (r == -EFBIG)
		return kn_fail(err, EFBIG, "'%s' is larger than %zu bytes", path, max);
	if (r < 0)
		return kn_fail(err, -r, "read '%s': %s", path, strerror(-r));
	return 0;
}

/* A name beside path that nobody else uses. */
static int open_beside(int dirfd, const char *path, struct kn_buf *ret_name, struct kn_err *err)
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return kn_fail(err, errno, "getrandom: %s", strerror(errno));
	kn_buf_printf(ret_name, "%s.%016llx", path, (unsigned long long)random);
	if (ret_name->failed)
		return kn_fail(err, ENOMEM, "out of memory");

	int fd = openat(dirfd, ret_name->ptr, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return kn_fail(err, errno, "create '%s': %s", ret_name->ptr, strerror(errno));
	return fd;
}

static int sync_folder_of(int dirfd, const char *path)
{
	const char *slash = strrchr(path, '/');
	kn_auto(kn_buf_fini) struct kn_buf folder = KN_BUF_INIT;

	if (slash)
		kn_buf_add(&folder, path, (size_t)(slash - path) + 1);
	else
		kn_buf_adds(&folder, ".");
	if (folder.failed)
		return -ENOMEM;
	kn_auto(kn_close) int fd = openat(dirfd, folder.ptr, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

int kn_write_file(int dirfd, const char *path, const void *ptr, size_t len, mode_t mode,
                  struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf beside = KN_BUF_INIT;

	kn_auto(kn_close) int fd = open_beside(dirfd, path, &beside, err);
	if (fd < 0)
		return kn_while(err, "write '%s'", path);

	int r = kn_write_all(fd, ptr, len);
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0 ||
	               renameat(dirfd, beside.ptr, dirfd, path) < 0))
		r = -errno;
	if (r < 0)
		unlinkat(dirfd, beside.ptr, 0);
	else
		r = sync_folder_of(dirfd, path);
	if (r < 0)
		return kn_fail(err, -r, "write '%s': %s", path, strerror(-r));
	return 0;
}

/* syscalls: openat2 */
int kn_open_in(int dirfd, const char *path, int flags, mode_t mode, struct kn_err *err)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
		.mode = flags & (O_CREAT | __O_TMPFILE) ? mode : 0,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};

	/* EAGAIN: something was renamed meanwhile, and ".." could not be proven to stay inside. */
	for (int tries = 0;; tries++) {
		long fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
		if (fd >= 0)
			return (int)fd;
		if (errno != EAGAIN || tries == 32)
			return kn_fail(err, errno, "open '%s': %s", path, strerror(errno));
	}
}
