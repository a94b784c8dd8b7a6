/* The worker's part: bytes of large files. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "oci/digest.h"
#include "oci/snapshot/snapshot.h"

enum { PIECE = 1 << 20, HOLE = 64 << 10 };

static bool is_zero(const char *ptr, size_t len)
{
	return len == 0 || (ptr[0] == 0 && memcmp(ptr, ptr + 1, len - 1) == 0);
}

/* Guests leave much of their memory untouched. A file system without holes keeps its zeros. */
static void punch_zeros(int fd, const char *piece, size_t len, off_t at)
{
	for (size_t i = 0; i + HOLE <= len; i += HOLE)
		if (is_zero(piece + i, HOLE))
			(void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			                 at + (off_t)i, HOLE);
}

int file_digest(int fd, bool punch, char ret[65], struct kn_err *err)
{
	kn_auto(kn_hasher_free) struct kn_hasher *h = NULL;
	kn_auto(kn_free) char *piece = malloc(PIECE);
	struct kn_digest d;
	ssize_t n;

	int r = piece ? kn_hasher_new(KN_SHA256, &h, err)
	              : kn_fail(err, ENOMEM, "memory for a digest");
	if (r < 0)
		return r;
	for (off_t at = 0; (n = pread(fd, piece, PIECE, at)) != 0; at += n) {
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return kn_fail(err, errno, "read: %s", strerror(errno));
		if (punch)
			punch_zeros(fd, piece, (size_t)n, at);
		kn_hasher_add(h, piece, (size_t)n);
	}
	kn_hasher_take(h, &d);
	memcpy(ret, kn_digest_hex(&d), 65);
	return 0;
}

static uint64_t ns_of(struct timespec t)
{
	return (uint64_t)t.tv_sec * KN_NS_PER_S + (uint64_t)t.tv_nsec;
}

int file_identity(int fd, struct kn_snapshot_file *ret, struct kn_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return kn_fail(err, errno, "stat: %s", strerror(errno));
	ret->bytes = (uint64_t)st.st_size;
	ret->inode = st.st_ino;
	ret->mtime_ns = ns_of(st.st_mtim);
	ret->ctime_ns = ns_of(st.st_ctim);
	return 0;
}

bool file_is(const struct kn_snapshot_file *a, const struct kn_snapshot_file *b)
{
	return a->bytes == b->bytes && a->inode == b->inode && a->mtime_ns == b->mtime_ns &&
	       a->ctime_ns == b->ctime_ns;
}

/* QEMU writes into a mapping: a block that is missing then would kill it without a word. */
int file_reserve(int fd, uint64_t bytes, struct kn_err *err)
{
	int code = posix_fallocate(fd, 0, (off_t)bytes);

	if (code)
		return kn_fail(err, code, "reserve %llu MiB: %s",
		               (unsigned long long)bytes >> 20, strerror(code));
	return 0;
}

int file_copy(int from, int to, uint64_t bytes, struct kn_err *err)
{
	off_t at = 0, end = (off_t)bytes;

	while (at < end && (at = lseek(from, at, SEEK_DATA)) >= 0) {
		off_t hole = lseek(from, at, SEEK_HOLE), in = at, out = at;
		hole = hole < 0 || hole > end ? end : hole;
		while (in < hole) {
			/* syscalls: copy_file_range */
			ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(hole - in), 0);
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return kn_fail(err, n ? errno : EIO, "copy: %s",
				               strerror(n ? errno : EIO));
		}
		at = hole;
	}
	return at < 0 && errno != ENXIO ? kn_fail(err, errno, "copy: %s", strerror(errno)) : 0;
}
