/*
 * The images of a node: names, manifests and blobs in one folder that is itself an OCI image layout
 * (skopeo and umoci can read it), plus a cache of root file systems. kilnd opens one; the control
 * API imports, lists and removes; the engine asks for an image and its root file system; the
 * registry serves what is here and puts manifests in. Part of the image flow.
 *
 * What nothing names any more is removed at once, with three exceptions: an image that somebody
 * still holds a reference to keeps its files, and for a minute longer, since an instance may be
 * starting from them; a manifest whose tag was given to another by a push stays for ten minutes,
 * for those who are pulling it; and so does, for an hour, a blob that was pushed and waits for its
 * manifest. The last two end with the process.
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

enum kn_image_kind {
	KN_IMAGE_CONTAINER,
	KN_IMAGE_BARE,
	KN_IMAGE_NF,
	KN_IMAGE_OTHER,     /* kept and served, but nothing here runs it: why_not */
};

/** "container", "bare", "nf", "other". */
const char *kn_image_kind_name(enum kn_image_kind kind);

/** An image under one name. Never changes; shared by reference. */
struct kn_image {
	const char *reference;             /* "telemetry:latest"; "telemetry@sha256:..." */
	const char *repository, *tag;      /* its parts; tag is "" where a digest stands */
	struct kn_digest top;              /* what the reference stands for: the manifest, or an index */
	const char *media_type;            /* of that */
	uint64_t top_bytes;
	struct kn_digest subject;          /* what that says something about, or none */
	const char *artifact_type;         /* for the list of referrers; "" for none */
	struct kn_spec_pairs annotations;  /* of that */
	const char *why_not;               /* KN_IMAGE_OTHER: the reason; else NULL */
	struct kn_digest digest;           /* of the manifest that runs; an index leads to one */
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
 * Errors  those of kn_archive_read(); EINVAL no name, or a bad one; ENOSPC also too many names
 */
kn_must_use int kn_images_import(struct kn_images *images, const struct kn_images_import *what,
                                 struct kn_image **ret, struct kn_err *err);

/**
 * The image of a reference ("telemetry", "telemetry:latest", "telemetry@sha256:...", or a digest
 * alone).
 *
 * ret     a new reference; never of KN_IMAGE_OTHER
 * Errors  ENOENT says how to import it, with "did you mean"; EINVAL bad reference; ENOEXEC nothing
 *         here runs it, with the reason
 */
kn_must_use int kn_images_find(struct kn_images *images, struct kn_view reference,
                               struct kn_image **ret, struct kn_err *err);

/** Images, sorted by reference. */
struct kn_image_list {
	struct kn_image **at;   /* a reference each */
	size_t n;
};

/** All that have a tag. Errors: ENOMEM. */
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

/* ---- repositories: what a registry needs ---------------------------------------------------- */

/** The blobs behind the images: for readers and writers. Borrowed. */
struct kn_blobs *kn_images_blobs(struct kn_images *images);

struct kn_images_put {
	struct kn_view repository;     /* checked by the caller: kn_ref_parse() */
	struct kn_view tag;            /* NULL: none, the manifest is known by its digest */
	const char *media_type;        /* as the client says; NULL: what the document says */
	struct kn_view content;        /* the manifest or index, at most KN_SPEC_MAX_BYTES */
	const struct kn_digest *expect;   /* or NULL */
	bool pushed;   /* what it names must be in this repository, and what lost the tag stays a while */
	bool partial;  /* an index without the manifests that are not here is fine */
	bool must_run; /* refuse what nothing here runs */
};

/**
 * Take a manifest or an index. It is durable, and its tag stands for it, when this returns. Blocks.
 *
 * ret     a new reference
 * Errors  EINVAL no manifest that can be read, or another type than the client says; EBADMSG not
 *         the digest that was expected; ENOENT names what is missing; ENOEXEC and others why nothing
 *         here runs it; ENOSPC; ENOMEM
 */
kn_must_use int kn_images_put(struct kn_images *images, const struct kn_images_put *put,
                              struct kn_image **ret, struct kn_err *err);

/**
 * What a repository holds under a tag or a digest, of any kind.
 *
 * ret     a new reference
 * Errors  ENOENT
 */
kn_must_use int kn_images_get(struct kn_images *images, struct kn_view repository,
                              struct kn_view tag_or_digest, struct kn_image **ret,
                              struct kn_err *err);

/**
 * Everything in a repository, with and without tag; of all repositories when its ptr is NULL.
 * An empty list is no error. Errors: ENOMEM.
 */
kn_must_use int kn_images_in(struct kn_images *images, struct kn_view repository,
                             struct kn_image_list *ret, struct kn_err *err);

/**
 * Take a tag away, or a manifest by digest with all its tags of that repository. Blocks.
 *
 * Errors  ENOENT; what the file system said
 */
kn_must_use int kn_images_drop(struct kn_images *images, struct kn_view repository,
                               struct kn_view tag_or_digest, struct kn_err *err);

/** Is the blob here, and in this repository: named by a manifest of it, or pinned to it? */
bool kn_images_blob_in(struct kn_images *images, struct kn_view repository,
                       const struct kn_digest *d);

/**
 * Keep a blob for an hour, and in this repository, until a manifest names it. Before it is
 * committed, so that it is never there without. Errors: ENOMEM.
 */
kn_must_use int kn_images_pin(struct kn_images *images, struct kn_view repository,
                              const struct kn_digest *d, struct kn_err *err);

/** False when it was not pinned to this repository. */
bool kn_images_unpin(struct kn_images *images, struct kn_view repository, const struct kn_digest *d);

/** Between these two nothing is removed: blobs arrive that nothing names yet. Any thread; blocks. */
void kn_images_hold(struct kn_images *images);
void kn_images_release(struct kn_images *images);

/** Is there something that time would remove? Cheap. */
bool kn_images_untidy(struct kn_images *images);

/** Remove what nothing keeps any more. Blocks. */
void kn_images_sweep(struct kn_images *images);
