/*
 * From the layers of an image to one read-only erofs file: unpacked one over the other into a
 * private folder, then packed by mkfs.erofs, then renamed into place. The same layers give the same
 * bytes. Part of the image flow; the file becomes the root disk of Linux guests.
 *
 * Thread  any; blocks, so worker threads
 */
#pragma once

#include "oci/blob.h"
#include "oci/layer.h"
#include "oci/spec.h"

struct kn_rootfs_config {
	struct kn_blobs *blobs;
	const struct kn_manifest *manifest;
	const struct kn_image_config *image;
	const char *work_dir;        /* made by the caller, on the same file system, mode 0700 */
	const char *path;            /* the file to make */
	const char *mkfs;            /* NULL: "mkfs.erofs" from the search path */
	const struct kn_layer_limits *limits;   /* NULL: KN_LAYER_LIMITS */
	const struct kn_progress *progress;
};

/**
 * Build the file. Whatever happens, the staging folder is gone when this returns.
 *
 * stats   what the layers held; may be NULL
 * Errors  ENOENT mkfs.erofs is missing (what to install is told); those of kn_layer_apply()
 */
kn_must_use int kn_rootfs_build(const struct kn_rootfs_config *config, struct kn_layer_stats *stats,
                                struct kn_err *err);
