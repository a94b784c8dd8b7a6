/*
 * Another registry, as its client: pulls an image into the node's store, and pushes one out of a
 * store. Speaks the OCI Distribution API through libcurl, over HTTPS, or plain HTTP where the host is
 * this machine or the caller says so; gets the tokens that a registry asks for, with the name and
 * password that the caller has. Used by kilnd (deploy by reference, `kiln image pull`) and by `kiln
 * image push`. Part of the image flow.
 *
 * Thread  any, one at a time for a remote; everything blocks
 * Source  OCI distribution-spec 1.1; distribution/distribution, spec/auth/token.md; Docker's
 *         config.json for credentials
 */
#pragma once

#include "oci/archive.h"
#include "oci/image.h"

struct kn_remote;

struct kn_remote_config {
	struct kn_view host;              /* "registry.example:5000" */
	bool plain_http;                  /* no TLS; loopback hosts need not say so */
	const char *user, *password;      /* or NULL */
	const char *token;                /* of the registry, to begin with; or NULL */
	const struct kn_progress *progress;   /* or NULL */
};

/** Errors: EINVAL the host; ENOMEM. Nothing is connected yet. Strings are copied. */
kn_must_use int kn_remote_open(const struct kn_remote_config *config, struct kn_remote **ret,
                               struct kn_err *err);
void kn_remote_close(struct kn_remote *r);
KN_AUTO(kn_remote_close, struct kn_remote *);

/**
 * Pull the image of a reference, for linux/amd64 where it is an index, and name it as the reference
 * says. Blobs that are here already are not asked for; every digest and size is checked.
 *
 * ref        with the registry before its name
 * max_bytes  of all that is pulled
 * ret        a new reference
 * Errors     ENOENT not there; EACCES credentials; ENOEXEC nothing here runs it; EBADMSG a wrong
 *            digest or size; EFBIG; ENOSPC; EHOSTUNREACH, ECONNREFUSED, ETIMEDOUT, EPROTO the
 *            registry; ECANCELED
 */
kn_must_use int kn_remote_pull(struct kn_remote *r, struct kn_images *images,
                               const struct kn_ref *ref, uint64_t max_bytes, struct kn_image **ret,
                               struct kn_err *err);

/**
 * Push a manifest and its blobs. Blobs that the registry has already are not sent.
 *
 * d           the manifest, in blobs
 * repository  "team/app"
 * tag         its tag there
 * Errors      as kn_remote_pull()
 */
kn_must_use int kn_remote_push(struct kn_remote *r, struct kn_blobs *blobs,
                               const struct kn_digest *d, const char *repository, const char *tag,
                               struct kn_err *err);

/** Is this host this machine, so that plain HTTP to it is nobody else's to read? */
bool kn_remote_is_loopback(struct kn_view host);

/* ---- credentials ------------------------------------------------------------------------------ */

enum { KN_REMOTE_CREDENTIAL = 4096 };

struct kn_remote_login {
	char user[KN_REMOTE_CREDENTIAL], password[KN_REMOTE_CREDENTIAL];   /* "" when there is none */
};

/**
 * What Docker's config.json (podman's auth.json) has for a registry: "auths", the longest key that
 * is the host or leads to the repository.
 *
 * name    "registry.example:5000/team/app"
 * ret     filled, with empty strings when nothing fits
 * Errors  EINVAL the document
 */
kn_must_use int kn_remote_login_find(struct kn_view json, struct kn_view name,
                                     struct kn_remote_login *ret, struct kn_err *err);

/** "USER:PASSWORD" taken apart. Errors: EINVAL. */
kn_must_use int kn_remote_login_parse(struct kn_view text, struct kn_remote_login *ret,
                                      struct kn_err *err);
