/*
 * Is what a sandbox starts from still what was put there? Blobs are named by their digest; a root
 * file system has its own beside it, in rootfs/<algorithm>-<hex>.sum, written after it was built. An
 * image is checked once in the life of the store, by the worker that readies it for a function: 0.6 s
 * a GiB (development machine, 2026-11-28), so not at open and not at each start.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "oci/image/store.h"

enum { PIECE = 1 << 20 };

static int sum_of_file(int fd, enum kn_digest_kind kind, struct kn_digest *ret, struct kn_err *err)
{
	kn_auto(kn_hasher_free) struct kn_hasher *h = NULL;
	kn_auto(kn_free) char *piece = malloc(PIECE);

	if (!piece)
		return images_no_memory(err);
	int r = kn_hasher_new(kind, &h, err);
	if (r < 0)
		return r;
	for (;;) {
		ssize_t n = kn_read_all(fd, piece, PIECE);
		if (n < 0)
			return kn_fail(err, (int)-n, "read: %s", strerror((int)-n));
		kn_hasher_add(h, piece, (size_t)n);
		if (n < PIECE)
			break;
	}
	kn_hasher_take(h, ret);
	return 0;
}

static int sum_of(const struct kn_images *images, const char *name, struct kn_digest *ret,
                  struct kn_err *err)
{
	kn_auto(kn_close) int fd =
		openat(kn_blobs_root(images->blobs), name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "open '%s': %s", name, strerror(errno));
	return sum_of_file(fd, KN_SHA256, ret, err);
}

int image_check_layer(const struct kn_images *images, const struct held *h, struct kn_err *err)
{
	const struct kn_digest *expect = &h->manifest.layers[0].digest;
	struct kn_digest is;

	kn_auto(kn_close) int fd = kn_blob_open(images->blobs, expect, NULL, err);
	if (fd < 0)
		return fd;
	int r = sum_of_file(fd, kn_digest_kind(expect), &is, err);
	if (r == 0 && !kn_digest_is(&is, expect))
		r = kn_fail(err, EBADMSG, "blob %s was spoiled on the disk: import the image again",
		            expect->text);
	return r;
}

static void sum_name(const char *rootfs, char ret[ROOTFS_NAME])
{
	size_t stem = strlen(rootfs) - strlen(ROOTFS_SUFFIX);

	snprintf(ret, ROOTFS_NAME, "%.*s" ROOTFS_SUM_SUFFIX, (int)stem, rootfs);
}

bool rootfs_is_whole(const struct kn_images *images, const char *rootfs)
{
	char name[ROOTFS_NAME], text[KN_DIGEST_TEXT] = "";
	struct kn_digest is;

	sum_name(rootfs, name);
	kn_auto(kn_close) int fd =
		openat(kn_blobs_root(images->blobs), name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || kn_read_all(fd, text, sizeof(text) - 1) < 0)
		return false;
	return sum_of(images, rootfs, &is, NULL) == 0 && strcmp(is.text, text) == 0;
}

int rootfs_note_sum(const struct kn_images *images, const char *rootfs, struct kn_err *err)
{
	char name[ROOTFS_NAME];
	struct kn_digest is;

	sum_name(rootfs, name);
	int r = sum_of(images, rootfs, &is, err);
	return r < 0 ? r : kn_write_file(kn_blobs_root(images->blobs), name, is.text,
	                                 strlen(is.text), 0600, err);
}
