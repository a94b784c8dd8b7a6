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
	bool index;                        /* the reference stands for one */
	struct kn_digest *needs;           /* what must be here with it: blobs; of an index, manifests */
	size_t n_needs;
	struct kn_err why;                 /* code 0: it can run, and the rest is filled */
	struct kn_manifest manifest;       /* the one that runs */
	struct kn_image_config config;
};

static inline struct held *held_of(const struct kn_image *image)
{
	return kn_container_of(image, struct held, image);
}

/* What a document is to become: an image under a name. */
struct held_source {
	struct kn_blobs *blobs;
	struct kn_view repository, tag;    /* tag: ptr NULL where the digest names it */
	const char *media_type;            /* as told; NULL or "": look into the document */
	struct kn_digest digest;
	struct kn_view document;
	bool partial;                      /* what an index names may be missing */
};

/**
 * Make an image of a document and of the blobs that it names, which must be here.
 *
 * Errors  EINVAL no manifest and no index; ENOENT names a blob; EBADMSG a spoiled one; ENOMEM.
 *         That nothing here runs it is none: held.why
 */
int held_make(const struct held_source *from, struct held **ret, struct kn_err *err);

/** The same with a document that is read from the blobs. Errors: ENOENT and EBADMSG of it, too */
int held_load(const struct held_source *from, struct held **ret, struct kn_err *err);

/* One line of the table: an image under a name. */
struct row {
	struct kn_image *image;
	/* Of those without a tag: */
	bool owned;                        /* an index named it: it goes when none does any more */
	bool attached;                     /* its subject was here: it goes when that goes */
	uint64_t until_ns;                 /* monotonic: it goes then, and is not on disk; 0: stays */
};

struct table {
	struct row *at;                    /* sorted by reference */
	size_t n;
};

/* An image that has no name any more, but a holder. */
struct retired {
	struct kn_image *image;
	uint64_t free_ns;                  /* since when nobody else holds it; 0: somebody does */
};

/* A blob that waits for its manifest. */
struct pin {
	char *repository;
	struct kn_digest digest;
	uint64_t until_ns;
};

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
	unsigned held;                     /* kn_images_hold() */

	pthread_mutex_t lock;
	pthread_cond_t built;
	struct table table;
	struct retired *retired;
	size_t n_retired;
	struct pin *pins;
	size_t n_pins;
	struct build *builds;
	atomic_uint next_build;
};

/* ---- the table (table.c); for writers, who hold `writing` ------------------------------------ */

enum { MAX_NAMES = KN_SPEC_MAX_MANIFESTS };

void table_fini(struct table *t);
static inline void table_fini_auto(struct table *t)
{
	table_fini(t);
}

/** A copy with references of its own and room for two more. */
int table_copy(const struct kn_images *images, struct table *ret, struct kn_err *err);

/** Put row in its place, instead of one of that reference. Takes the reference over. */
void table_put(struct table *t, struct row row);
void table_remove(struct table *t, size_t i);

/** Remove rows without a tag that nothing keeps. Returns whether there were any. */
bool table_settle(struct table *t, uint64_t now);

/** Make t the store's table, on disk first. t holds the old one afterwards. Errors: ENOSPC ... */
int table_commit(struct kn_images *images, struct table *t, struct kn_err *err);

/** Why nothing here runs it, as an error; 0 when something does. */
int held_check(const struct held *h, struct kn_err *err);

/** Read index.json into the empty table. Errors: EUCLEAN */
int table_read(struct kn_images *images, struct kn_err *err);

/* ---- removing (collect.c) -------------------------------------------------------------------- */

/** Keep those of old that are not in the table any more but have holders. Empties old. */
void images_retire(struct kn_images *images, struct table *old);

/** Remove what no image needs; not while somebody holds. Called by writers. */
void images_collect(struct kn_images *images);

/** Forget the pins that a manifest makes needless. */
void images_unpin_all(struct kn_images *images, const struct held *h);

/** Is the image still there, under a name or for a holder? Takes the lock. */
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
