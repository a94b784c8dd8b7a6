/*
 * Content digests of OCI blobs: "sha256:<64 hex>" and "sha512:<128 hex>". Everything that comes
 * from outside is named by one and checked against it. Part of the image flow.
 *
 * Thread  a hasher belongs to one thread at a time; the rest keeps no state.
 * Source  OCI image-spec, descriptor.md, "Digests"
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum kn_digest_kind { KN_SHA256, KN_SHA512 };

enum { KN_DIGEST_TEXT = sizeof("sha512:") + 128 };

/** A checked digest; compare with kn_digest_is(). All zero is "none". */
struct kn_digest {
	char text[KN_DIGEST_TEXT];   /* "sha256:..." in lower case, NUL-terminated */
};

/** Errors: EINVAL not of that form; ENOTSUP another algorithm. */
kn_must_use int kn_digest_parse(struct kn_view text, struct kn_digest *ret, struct kn_err *err);

/** Which algorithm it is of. */
enum kn_digest_kind kn_digest_kind(const struct kn_digest *d);

/** "sha256" or "sha512": the folder of a blob. */
const char *kn_digest_algorithm(const struct kn_digest *d);

/** What follows the colon: the file name of a blob. Borrowed from d. */
const char *kn_digest_hex(const struct kn_digest *d);

static inline bool kn_digest_is(const struct kn_digest *a, const struct kn_digest *b)
{
	return strcmp(a->text, b->text) == 0;
}

struct kn_hasher;

/** Errors: ENOMEM. */
kn_must_use int kn_hasher_new(enum kn_digest_kind kind, struct kn_hasher **ret, struct kn_err *err);
void kn_hasher_add(struct kn_hasher *h, const void *ptr, size_t len);

/** The digest of everything added since the start or the last call; the hasher begins anew. */
void kn_hasher_take(struct kn_hasher *h, struct kn_digest *ret);
void kn_hasher_free(struct kn_hasher *h);
KN_AUTO(kn_hasher_free, struct kn_hasher *);

/** The digest of bytes in memory. Errors: ENOMEM. */
kn_must_use int kn_digest_of(enum kn_digest_kind kind, const void *ptr, size_t len,
                             struct kn_digest *ret, struct kn_err *err);
