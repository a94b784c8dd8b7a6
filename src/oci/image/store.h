/* Private to oci/image: an image with what stands behind it, and the store. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "oci/image.h"

/* What a struct kn_image * really points into. */
struct held {
	struct kn_image image;
	atomic_uint refs;
	atomic_bool checked;               /* what a sandbox starts from is there, and whole */
	struct kn_arena arena;             /* owns everything below and every string above */
	struct kn_descriptor descriptor;   /* of the manifest */
	struct kn_manifest manifest;
	struct kn_image_config config;
};

static inline struct held *held_of(const struct kn_image *image)
{
	return kn_container_of(image, struct held, image);
}

/**
 * Read an image from its blobs and check that Kiln can run it.
 *
 * reference  "name:tag"
 * d          of the manifest; copied
 * Errors     ENOENT, EBADMSG blobs; EINVAL documents, layer types; ENOEXEC not for this processor
 */
int held_load(struct kn_blobs *blobs, const char *reference, const struct kn_descriptor *d,
              struct held **ret, struct kn_err *err);

/* A root file system under construction; others wait for it. */
struct build {
	struct kn_digest digest;
	bool done;
	struct kn_err err;                 /* code 0: it is there */
	unsigned refs;
	struct build *next;
};

/*
 * Two locks: writers (import, remove) hold `writing` while they change disk and list, one after the
 * other; `lock` is held for moments only, so that finding never waits for the disk. Order: writing,
 * then lock.
 */
struct kn_images {
	struct kn_blobs *blobs;
	char *mkfs;
	struct kn_layer_limits limits;
	uint64_t max_archive_bytes;
	char *trouble;                     /* images left out when the store was opened; or NULL */

	pthread_mutex_t writing;
	unsigned importing;                /* blobs may be there that nothing names yet */

	pthread_mutex_t lock;
	pthread_cond_t built;
	struct kn_image **at;              /* sorted by reference */
	size_t n;
	struct build *builds;
	atomic_uint next_build;
};

/** Is the image still there under any name? Takes the lock. */
bool images_has(struct kn_images *images, const struct kn_digest *digest);

/* Files of the cache of root file systems, relative to the store's folder. */
#define ROOTFS_SUFFIX     ".erofs"
#define ROOTFS_SUM_SUFFIX ".sum"
enum { ROOTFS_NAME = sizeof("rootfs/sha512-") + 128 + sizeof(ROOTFS_SUFFIX) };

/** Does the one layer of a bare or packet function have its digest? Errors: EBADMSG names the blob. (check.c) */
int image_check_layer(const struct kn_images *images, const struct held *h, struct kn_err *err);

/** Is a root file system what was built? rootfs: "rootfs/NAME.erofs". (check.c) */
bool rootfs_is_whole(const struct kn_images *images, const char *rootfs);

/** Note the sum of one that was just built. (check.c) */
int rootfs_note_sum(const struct kn_images *images, const char *rootfs, struct kn_err *err);

/** Remove root file systems of images that are gone. (build.c) */
void images_collect_rootfs(struct kn_images *images);

int images_no_memory(struct kn_err *err);
