/*
 * The images of a node: names, manifests and blobs in one folder that is itself an OCI image layout
 * (skopeo and umoci can read it), plus a cache of root file systems. kilnd opens one; the control
 * API imports, lists and removes; the engine asks for an image and its root file system. Part of
 * the image flow.
 *
 * Thread  any: find, list and the cached path return at once; remove waits for the disk (tens of
 *         milliseconds); import and rootfs block for long, so worker threads. One process at a time
 *         may have the folder open.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "oci/archive.h"
#include "oci/layer.h"
#include "oci/ref.h"
#include "oci/spec.h"

struct kn_images;

enum kn_image_kind { KN_IMAGE_CONTAINER, KN_IMAGE_BARE, KN_IMAGE_NF };

/** "container", "bare", "nf". */
const char *kn_image_kind_name(enum kn_image_kind kind);

/** An image under one name. Never changes; shared by reference. */
struct kn_image {
	const char *reference;             /* "telemetry:latest" */
	struct kn_digest digest;           /* of its manifest */
	uint64_t bytes;                    /* config and layers, as stored */
	enum kn_image_kind kind;
	const char *const *argv;           /* entrypoint, then cmd; NULL-terminated; empty for bare and nf */
	const char *const *env;            /* NULL-terminated "NAME=value" */
	const char *cwd;                   /* "/" when the image says nothing */
	const char *user;                  /* "" when the image says nothing */
	const char *stop_signal;           /* "SIGTERM" when the image says nothing */
	const char *created;               /* RFC 3339 as the image says, or "" */
	const uint16_t *ports;             /* exposed TCP ports, in order; n_ports */
	size_t n_ports;
	struct kn_spec_pairs labels;
};

/** One reference more, or one less; the last one frees it. unref(NULL) is fine. */
struct kn_image *kn_image_ref(struct kn_image *image);
void kn_image_unref(struct kn_image *image);
KN_AUTO(kn_image_unref, struct kn_image *);

struct kn_images_config {
	const char *dir;                 /* made when missing, mode 0700 */
	const char *mkfs;                /* NULL: "mkfs.erofs" from the search path */
	struct kn_layer_limits limits;
	uint64_t max_archive_bytes;      /* all files of one archive, unpacked from the archive */
};

#define KN_IMAGES_DEFAULTS                                                                         \
	((struct kn_images_config){ .limits = KN_LAYER_LIMITS,                                     \
	                            .max_archive_bytes = UINT64_C(16) << 30 })

/**
 * Open the store and remove what an interrupted import or build left. Strings are copied.
 *
 * Errors  EBUSY another process has it; EUCLEAN its index cannot be read; what the system said
 */
kn_must_use int kn_images_open(const struct kn_images_config *config, struct kn_images **ret,
                               struct kn_err *err);

/** No call may be under way. NULL is fine; images still referenced stay valid. */
void kn_images_close(struct kn_images *images);
KN_AUTO(kn_images_close, struct kn_images *);

/**
 * Images that were left out when the store was opened, because their blobs are missing or spoiled,
 * with the reasons; NULL when all is well. Borrowed. Nothing is collected until the next change.
 */
const char *kn_images_trouble(const struct kn_images *images);

struct kn_images_import {
	const char *path;      /* layout folder or archive; or NULL */
	int fd;                /* archive, read from its start, when path is NULL; borrowed */
	const char *name;      /* reference to give it; NULL: what the archive says */
	const struct kn_progress *progress;
};

/**
 * Import an image and give it a name, which it takes from an image that had it. Blocks.
 *
 * ret     a new reference
 * Errors  those of kn_archive_read(); EINVAL no name, or a bad one
 */
kn_must_use int kn_images_import(struct kn_images *images, const struct kn_images_import *what,
                                 struct kn_image **ret, struct kn_err *err);

/**
 * The image of a reference ("telemetry", "telemetry:latest", "telemetry@sha256:...", or a digest
 * alone).
 *
 * ret     a new reference
 * Errors  ENOENT says how to import it, with "did you mean"; EINVAL bad reference
 */
kn_must_use int kn_images_find(struct kn_images *images, struct kn_view reference,
                               struct kn_image **ret, struct kn_err *err);

/** All images, sorted by name. */
struct kn_image_list {
	struct kn_image **at;   /* a reference each */
	size_t n;
};

/** Errors: ENOMEM. */
kn_must_use int kn_images_list(struct kn_images *images, struct kn_image_list *ret,
                               struct kn_err *err);
void kn_image_list_fini(struct kn_image_list *list);
static inline void kn_image_list_fini_auto(struct kn_image_list *list)
{
	kn_image_list_fini(list);
}

/**
 * Take a name away; blobs and root file system go with the last name.
 *
 * user    asked before the last name of a digest goes: the name of a function that uses it, or
 *         NULL when none does; runs in this call, may be NULL
 * Errors  ENOENT; EBUSY names the function; what the file system said
 */
kn_must_use int kn_images_remove(struct kn_images *images, struct kn_view reference,
                                 const char *(*user)(const struct kn_image *image, void *arg),
                                 void *arg, struct kn_err *err);

/**
 * The file that a sandbox starts from: the erofs root file system of a container image, built when
 * it is not in the cache (callers of the same digest wait for the one that builds), or the ELF file
 * of a bare one, or the YAML file of a packet function. Blocks when it has to build.
 *
 * ret     the path; kn_free() it. It stays valid until the image is removed.
 * Errors  those of kn_rootfs_build(); ENOENT the image was removed
 */
kn_must_use int kn_images_rootfs(struct kn_images *images, const struct kn_image *image,
                                 const struct kn_progress *progress, char **ret,
                                 struct kn_err *err);

/** The same path when it is there already, without blocking; NULL when it must be built first. */
char *kn_images_rootfs_cached(struct kn_images *images, const struct kn_image *image);

/** Bytes of the root file system (or ELF, or YAML) as cached; 0 when it is not built. */
uint64_t kn_images_rootfs_bytes(struct kn_images *images, const struct kn_image *image);
