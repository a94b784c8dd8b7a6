/*
 * Private to oci/archive: where an image comes from, a layout folder or an archive, made to look
 * alike. An archive is a stream that cannot be read twice, so all of its blobs go into the store as
 * they come by; a folder is asked for the blobs that are wanted.
 */
#pragma once

#include "oci/archive.h"

/* A file of a `docker save` archive, which names files as it likes. */
struct source_file {
	const char *name;
	struct kn_digest digest;
	uint64_t bytes;
	const char *link;            /* symbolic link: the name it stands for; else NULL */
};

struct source {
	struct kn_blobs *blobs;
	struct kn_arena *arena;
	const struct kn_archive_config *config;
	int dirfd;                   /* of a layout folder; -1: an archive */
	uint64_t bytes;              /* unpacked so far */
	struct kn_buf layout, index, docker;   /* oci-layout, index.json, manifest.json; as found */
	struct source_file *files;
	size_t n_files, cap_files;
};

/** Open it; an archive is read to its end. source_fini() is due even after an error. */
int source_init(struct source *src, struct kn_blobs *blobs, struct kn_arena *arena,
                const struct kn_archive_config *config, struct kn_err *err);
void source_fini(struct source *src);

/** Make sure that the blob is in the store, with the size that its descriptor says. */
int source_fetch(struct source *src, const struct kn_descriptor *d, struct kn_err *err);

/** Fetch a JSON document and read it; appended to ret. */
int source_document(struct source *src, const struct kn_descriptor *d, struct kn_buf *ret,
                    struct kn_err *err);

/** The file of a docker archive, links followed; NULL when there is none. */
const struct source_file *source_file(const struct source *src, const char *name);

/** Take the manifest, the config and the layers of what manifest.json says. (docker.c) */
int docker_select(struct source *src, struct kn_archive_image *ret, struct kn_err *err);

/** Is it for linux/amd64? Else what it is for is added to others. (select.c) */
bool platform_fits(const struct kn_platform *p, struct kn_buf *others);

/** ENOEXEC with the list. (select.c) */
int platform_fail(const struct kn_buf *others, struct kn_err *err);

/** Are the two names the same image? "latest" alone is a tag, as umoci writes it. (select.c) */
bool name_matches(const char *name, const char *wanted);
