/*
 * Images as files: reading OCI layout folders, OCI archives (a layout in a tar, also compressed by
 * gzip or zstd) and `docker save` archives into a blob store, and writing OCI archives. Part of the
 * image flow; used by the image store, `kiln build` and the tests.
 *
 * Thread  any; blocks, so worker threads
 * Source  OCI image-spec, image-layout.md; Docker image spec v1.2 for manifest.json
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "oci/blob.h"
#include "oci/spec.h"

/**
 * Told while blocking work goes on, several times a second; bytes counts up to total (0: unknown).
 * Returns false to cancel: the work ends with ECANCELED and leaves nothing behind.
 */
struct kn_progress {
	bool (*step)(const char *phase, uint64_t bytes, uint64_t total, void *arg);
	void *arg;
};

/** True when p is NULL, has no step, or the step says to go on. */
bool kn_progress_step(const struct kn_progress *p, const char *phase, uint64_t bytes,
                      uint64_t total);

struct kn_archive_config {
	const char *path;       /* layout folder or archive file; or NULL */
	int fd;                 /* archive file, read from its start, when path is NULL; borrowed */
	const char *pick;       /* reference of the image wanted, where there are several; or NULL */
	uint64_t max_bytes;     /* of all files of the archive together, unpacked */
	const struct kn_progress *progress;
};

#define KN_ARCHIVE_DEFAULTS                                                                        \
	((struct kn_archive_config){ .fd = -1, .max_bytes = UINT64_C(16) << 30 })

/** What an archive held, now in the store; valid as long as the arena. */
struct kn_archive_image {
	struct kn_descriptor manifest;   /* of linux/amd64, or of a bare or packet function */
	const char *name;                /* reference that the archive gives; NULL when it gives none */
};

/**
 * Copy an image into the store: its manifest for linux/amd64, config and layers, every digest
 * checked. Other blobs of the archive may come along; kn_blobs_collect() removes them.
 *
 * Errors  EINVAL not an image, or several and none picked (they are listed); ENOEXEC other
 *         architectures only (they are listed); EBADMSG damaged, cut short or a wrong digest;
 *         EFBIG past a limit; ENOSPC; ECANCELED
 */
kn_must_use int kn_archive_read(struct kn_blobs *blobs, const struct kn_archive_config *config,
                                struct kn_arena *a, struct kn_archive_image *ret,
                                struct kn_err *err);

/* ---- writing ------------------------------------------------------------------------------- */

struct kn_pack_layer {
	const char *media_type;
	int fd;                      /* from its start to its end; borrowed */
};

struct kn_pack {
	const char *reference;       /* put into the index; NULL leaves the image unnamed */
	const char *artifact_type;   /* or NULL for a container image */
	const char *config_type;
	json_t *config;              /* borrowed; container images: diff_ids are filled in */
	const struct kn_pack_layer *layers;
	size_t n_layers;
};

/**
 * Write an OCI archive. The same input gives the same bytes.
 *
 * out_fd  written from its current position on
 * ret     digest of the manifest
 * Errors  EINVAL; ENOSPC and what else write(2) said; ENOMEM
 */
kn_must_use int kn_archive_write(int out_fd, const struct kn_pack *pack, struct kn_digest *ret,
                                 struct kn_err *err);

/**
 * Write a bare function's archive: what `kiln build` makes of an ELF file.
 *
 * elf_fd  the static ELF file
 * labels  object of strings that becomes the config's Labels; may be NULL
 */
kn_must_use int kn_archive_write_bare(int out_fd, const char *reference, int elf_fd,
                                      const json_t *labels, struct kn_digest *ret,
                                      struct kn_err *err);

/**
 * Write a packet function's archive: what `kiln build` makes of a chain's YAML file.
 *
 * labels  as for kn_archive_write_bare()
 */
kn_must_use int kn_archive_write_nf(int out_fd, const char *reference, int yaml_fd,
                                    const json_t *labels, struct kn_digest *ret,
                                    struct kn_err *err);
