/*
 * The JSON documents of an OCI image, read into C structs: index, manifest, config. Docker's
 * schema 2 documents have the same shape and are read alike. Unknown fields are ignored, as the
 * specification asks; what is known is held to its type and to the limits below. Part of the image
 * flow; used by the image store, the archive reader and the registry.
 *
 * Strings and arrays live in the arena that the caller gives; a failed parse may leave garbage in
 * it, never a half-filled ret.
 *
 * Thread  keeps no state.
 * Source  OCI image-spec 1.1: image-index.md, manifest.md, config.md, descriptor.md
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/mem.h"
#include "oci/digest.h"

/* What a function image may hold at most. A document is read whole, so its size is bounded too. */
enum {
	KN_SPEC_MAX_BYTES = 4 << 20,      /* one JSON document (distribution-spec: 4 MiB) */
	KN_SPEC_MAX_MANIFESTS = 1024,
	KN_SPEC_MAX_LAYERS = 512,
	KN_SPEC_MAX_STRINGS = 4096,       /* entries of Env, Entrypoint, Cmd, Labels, annotations */
	KN_SPEC_MAX_TEXT = 128 * 1024,    /* one string: what execve takes (MAX_ARG_STRLEN) */
};
#define KN_SPEC_MAX_BLOB (UINT64_C(64) << 30)

#define KN_TYPE_INDEX         "application/vnd.oci.image.index.v1+json"
#define KN_TYPE_MANIFEST      "application/vnd.oci.image.manifest.v1+json"
#define KN_TYPE_CONFIG        "application/vnd.oci.image.config.v1+json"
#define KN_TYPE_LAYER         "application/vnd.oci.image.layer.v1.tar"
#define KN_TYPE_LAYER_GZIP    "application/vnd.oci.image.layer.v1.tar+gzip"
#define KN_TYPE_LAYER_ZSTD    "application/vnd.oci.image.layer.v1.tar+zstd"
#define KN_TYPE_DOCKER_LIST   "application/vnd.docker.distribution.manifest.list.v2+json"
#define KN_TYPE_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define KN_TYPE_DOCKER_CONFIG "application/vnd.docker.container.image.v1+json"
#define KN_TYPE_DOCKER_LAYER  "application/vnd.docker.image.rootfs.diff.tar.gzip"

/* A bare function: a manifest of this artifact type with one ELF file as its only layer. */
#define KN_TYPE_BARE          "application/vnd.kiln.bare.v1"
#define KN_TYPE_BARE_CONFIG   "application/vnd.kiln.bare.config.v1+json"
#define KN_TYPE_BARE_ELF      "application/vnd.kiln.bare.elf.v1"

/* A packet function: a manifest of this artifact type with one chain in YAML as its only layer. */
#define KN_TYPE_NF            "application/vnd.kiln.nf.v1"
#define KN_TYPE_NF_CONFIG     "application/vnd.kiln.nf.config.v1+json"
#define KN_TYPE_NF_CHAIN      "application/vnd.kiln.nf.chain.v1+yaml"

enum { KN_NF_CHAIN_MAX = 1 << 20 };   /* bytes of a chain's YAML */

enum kn_media {
	KN_MEDIA_OTHER,
	KN_MEDIA_INDEX,
	KN_MEDIA_MANIFEST,
	KN_MEDIA_CONFIG,
	KN_MEDIA_LAYER,          /* tar, plain or compressed; which one is seen from its bytes */
	KN_MEDIA_BARE_CONFIG,
	KN_MEDIA_BARE_ELF,
	KN_MEDIA_NF_CONFIG,
	KN_MEDIA_NF_CHAIN,
};

/** What a media type stands for; NULL is KN_MEDIA_OTHER. */
enum kn_media kn_media_of(const char *type);

struct kn_spec_pair {
	const char *name, *value;
};

struct kn_spec_pairs {
	struct kn_spec_pair *at;
	size_t n;
};

/** The value of a name, or NULL. */
const char *kn_spec_pair(const struct kn_spec_pairs *pairs, const char *name);

/** at[n] is NULL, so that it can be handed to execve. */
struct kn_spec_strings {
	const char **at;
	size_t n;
};

struct kn_platform {
	const char *os, *architecture, *variant;   /* NULL when not given */
};

struct kn_descriptor {
	const char *media_type;          /* never NULL; "" in documents that leave it out */
	struct kn_digest digest;
	uint64_t bytes;
	const char *artifact_type;       /* or NULL */
	struct kn_platform platform;
	struct kn_spec_pairs annotations;
};

struct kn_index {
	const char *artifact_type;       /* or NULL */
	struct kn_descriptor *manifests;
	size_t n_manifests;
	struct kn_digest subject;        /* what it says something about; none when not given */
	struct kn_spec_pairs annotations;
};

struct kn_manifest {
	const char *artifact_type;       /* or NULL */
	struct kn_descriptor config;
	struct kn_descriptor *layers;    /* lowest first */
	size_t n_layers;
	struct kn_digest subject;        /* what it says something about; none when not given */
	struct kn_spec_pairs annotations;
};

/** Layers of this type stay where their licence keeps them: a registry may be without them. */
bool kn_media_is_elsewhere(const char *type);

/** True for a bare function. */
bool kn_manifest_is_bare(const struct kn_manifest *m);

/** True for a packet function. */
bool kn_manifest_is_nf(const struct kn_manifest *m);

/** What the runtime needs of an image's config. */
struct kn_image_config {
	struct kn_platform platform;
	const char *created;             /* RFC 3339, or NULL */
	const char *user, *cwd, *stop_signal;   /* NULL when not given */
	struct kn_spec_strings entrypoint, cmd, env;
	struct kn_spec_strings exposed_ports;   /* "8080/tcp" */
	struct kn_spec_pairs labels;
	struct kn_digest *diff_ids;      /* one for each layer */
	size_t n_diff_ids;
};

/** Errors: EINVAL names the field; ENOMEM. The same for the next two. */
kn_must_use int kn_spec_index(struct kn_view json, struct kn_arena *a, struct kn_index *ret,
                              struct kn_err *err);
kn_must_use int kn_spec_manifest(struct kn_view json, struct kn_arena *a, struct kn_manifest *ret,
                                 struct kn_err *err);
kn_must_use int kn_spec_config(struct kn_view json, struct kn_arena *a, struct kn_image_config *ret,
                               struct kn_err *err);

/** A descriptor as JSON: mediaType, digest, size, artifactType, platform, annotations. NULL: memory. */
json_t *kn_spec_descriptor_json(const struct kn_descriptor *d);
