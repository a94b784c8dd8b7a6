/*
 * One layer onto a folder: a tar stream (plain, gzip or zstd) applied as the OCI image
 * specification says, whiteouts included. The layer is hostile: nothing outside the folder is ever
 * read, made, changed or removed, whatever names and links it holds. Part of the image flow.
 *
 * How it is confined: the folder of an entry is opened by openat2(RESOLVE_IN_ROOT), so links and
 * ".." end inside; the last component is only ever used relative to that descriptor and without
 * following links. Names with ".." are refused as well, since no honest tool writes them.
 *
 * What is kept: files, folders, links, fifos; owner (when we may change it), mode with setuid and
 * setgid, time, the extended attributes user.* and security.capability. What is left out, and
 * counted: device nodes (a guest has its own /dev; a node on the host's disk would be a door),
 * sockets, other attributes.
 *
 * Thread  any; blocks, so worker threads
 * Source  OCI image-spec, layer.md
 */
#pragma once

#include <stdint.h>

#include "oci/archive.h"
#include "oci/digest.h"

struct kn_layer_limits {
	uint64_t max_bytes;       /* file contents of the image, holes included */
	uint64_t max_stream;      /* the tar stream of one layer */
	uint64_t max_entries;     /* of the image */
	uint32_t max_ratio;       /* stream bytes for one compressed byte ... */
	uint64_t ratio_from;      /* ... once the stream is longer than this */
	uint32_t max_depth;       /* folders above an entry */
	uint32_t max_path;        /* bytes of a name from the root on */
	uint32_t max_xattrs;      /* bytes of kept attributes of one entry */
};

#define KN_LAYER_LIMITS                                                                            \
	((struct kn_layer_limits){ .max_bytes = UINT64_C(16) << 30,                                \
	                           .max_stream = UINT64_C(16) << 30,                               \
	                           .max_entries = 1000 * 1000,                                     \
	                           .max_ratio = 200,                                               \
	                           .ratio_from = UINT64_C(64) << 20,                               \
	                           .max_depth = 100,                                               \
	                           .max_path = 2048,                                               \
	                           .max_xattrs = 64 * 1024 })

/** Adds up over the layers of an image; start from zero. */
struct kn_layer_stats {
	uint64_t entries, bytes;
	uint64_t whiteouts;
	uint64_t skipped_devices, skipped_xattrs, skipped_owners;
};

struct kn_layer_config {
	int fd;                             /* the blob, from its start; borrowed */
	uint64_t bytes;                     /* of the blob, for progress */
	const struct kn_digest *diff_id;    /* of the uncompressed stream; NULL: not checked */
	const struct kn_layer_limits *limits;
	const struct kn_progress *progress;
};

/**
 * Apply a layer to the folder rootfd. After an error the folder holds a part of it: remove it.
 *
 * stats   counts so far; limits hold for the image as a whole
 * Errors  EBADMSG damaged, hostile or another DiffID; EFBIG past a limit; ENOSPC; ECANCELED
 */
kn_must_use int kn_layer_apply(int rootfd, const struct kn_layer_config *config,
                               struct kn_layer_stats *stats, struct kn_err *err);
