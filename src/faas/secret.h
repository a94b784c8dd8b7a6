/*
 * Secrets: names with bytes that functions get as files. Kept in the store, each encrypted with the
 * node's key (STATE/secret-key, mode 0600; AES-256-GCM, bound to the secret's name), so that a copy
 * of the database tells nothing; in memory they stay encrypted until an instance needs them. Written
 * by the control API; read when a function is deployed. Serves the event flow.
 *
 * Values are never logged and never handed out over the API. Without its key a stored secret is
 * lost: it keeps its name, and setting it again is what helps.
 *
 * Thread  the loop's
 * Source  NIST SP 800-38D
 */
#pragma once

#include "faas/store.h"

enum {
	KN_SECRET_MAX = 64 * 1024,   /* bytes of a value */
	KN_SECRET_NAME_MAX = 253,    /* bytes of a name: [a-z0-9]([-a-z0-9._]*[a-z0-9])? */
	KN_SECRETS_MAX = 4096,       /* on a node */
};

struct kn_secrets;

/**
 * Read the key, making it when there is none, and the stored secrets.
 *
 * store   borrowed; close it before kn_secrets_free(), so that no change is under way
 * dir     state folder; borrowed until this returns
 *
 * Errors  EPERM the key is open to others; EUCLEAN it is no key; what file and store said
 */
kn_must_use int kn_secrets_open(struct kn_store *store, int dir, struct kn_secrets **ret,
                                struct kn_err *err);
void kn_secrets_free(struct kn_secrets *s);
KN_AUTO(kn_secrets_free, struct kn_secrets *);

/** How many there are, and the name of the i-th in order of names; borrowed until the next change. */
size_t kn_secrets_count(const struct kn_secrets *s);
const char *kn_secrets_name(const struct kn_secrets *s, size_t i);
bool kn_secrets_has(const struct kn_secrets *s, struct kn_view name);

/**
 * Set a secret. It counts from the moment `done` is told that it is durable.
 *
 * fresh   true: it must be new; false: it must be there already
 *
 * Errors  EINVAL name or size; EEXIST, ENOENT as fresh says; EBUSY it is being changed; ENOSPC;
 *         what the store said
 */
kn_must_use int kn_secrets_put(struct kn_secrets *s, struct kn_view name, struct kn_view value,
                               bool fresh, kn_store_done done, void *arg, struct kn_err *err);

/** Errors: ENOENT; EBUSY; what the store said. */
kn_must_use int kn_secrets_remove(struct kn_secrets *s, struct kn_view name, kn_store_done done,
                                  void *arg, struct kn_err *err);

/**
 * Append the value to ret; the caller wipes it.
 * Errors  ENOENT with what to type; EUCLEAN the key is not the one that it was stored with; ENOMEM
 */
kn_must_use int kn_secrets_read(const struct kn_secrets *s, struct kn_view name, struct kn_buf *ret,
                                struct kn_err *err);
