/*
 * The registry: the OCI Distribution API (/v2/) over the images of the node. What is pushed is an
 * image of kn_images like one that was imported, and the other way round: a tag is a name of the
 * node. kilnd mounts it on its listener and hands in who may do what. Part of the image flow.
 *
 * Bodies of blobs are streamed: written, hashed and read by worker threads, a piece at a time, with
 * back-pressure; a manifest (at most 4 MiB) is collected. An upload lives in this process only; what
 * it had written is swept at the next start. Errors have the form that the specification gives them:
 * {"errors": [{"code": ..., "message": ...}]}.
 *
 * Thread  the loop's
 * Source  OCI distribution-spec 1.1, end-1 to end-13; Docker's _catalog
 */
#pragma once

#include "base/http.h"
#include "base/work.h"
#include "oci/image.h"

struct kn_registry;

enum kn_registry_right { KN_REGISTRY_PULL, KN_REGISTRY_PUSH };

typedef void (*kn_registry_done)(struct kn_http_exchange *x, void *arg);

struct kn_registry_config {
	struct kn_loop *loop;
	struct kn_work *work;
	struct kn_images *images;
	uint64_t max_blob_bytes;
	/**
	 * Let a request in (then done runs, now or later) or answer it. repository is checked and
	 * stays valid as long as the exchange; its ptr is NULL where the request is for none. NULL:
	 * nobody is asked.
	 */
	void (*allow)(struct kn_http_exchange *x, enum kn_registry_right right,
	              struct kn_view repository, kn_registry_done done, void *done_arg, void *arg);
	/** A tag now stands for this image. May be NULL. */
	void (*pushed)(const struct kn_image *image, void *arg);
	/** What uses an image, such as a function's name; NULL: nothing does. May be NULL. */
	const char *(*user)(const struct kn_image *image, void *arg);
	void *arg;
};

/** Everything in config is borrowed for the registry's life. Errors: ENOMEM. */
kn_must_use int kn_registry_new(const struct kn_registry_config *config, struct kn_registry **ret,
                                struct kn_err *err);

/** Free the HTTP server and the worker threads first; the images after this. NULL is fine. */
void kn_registry_free(struct kn_registry *reg);
KN_AUTO(kn_registry_free, struct kn_registry *);

/** Is this path the registry's: /v2, /v2/ and what is below? */
bool kn_registry_path(struct kn_view path);

/** Answer a request to such a path, now or later. */
void kn_registry_request(struct kn_registry *reg, struct kn_http_exchange *x);

/** Uploads that have begun and not ended. */
size_t kn_registry_uploads(const struct kn_registry *reg);

/**
 * Answer with an error of the specification's form. For who answers in the registry's place.
 *
 * code      "UNAUTHORIZED", "DENIED", ...
 * header    one more field, or NULL
 */
void kn_registry_error(struct kn_http_exchange *x, int status, const char *code,
                       const char *message, const struct kn_header *header);
