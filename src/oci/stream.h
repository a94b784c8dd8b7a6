/*
 * The uncompressed bytes of a blob that may be plain, gzip or zstd (seen from its first bytes), with
 * their digest, and with an end to bombs: a limit on the bytes and on their ratio to what was read.
 * Used where a DiffID is checked (layer) or made (archive). Part of the image flow.
 *
 * Thread  a stream belongs to one thread at a time; blocks
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "oci/digest.h"

struct kn_stream_config {
	int fd;                      /* read from where it stands; borrowed */
	enum kn_digest_kind kind;    /* of the digest over the uncompressed bytes */
	uint64_t max_bytes;
	uint32_t max_ratio;          /* uncompressed for one compressed byte, ... */
	uint64_t ratio_from;         /* ... once there are more than these; 0 with max_ratio 0: off */
};

struct kn_stream;

/** Errors: EBADMSG damaged at its very start; ENOMEM. */
kn_must_use int kn_stream_new(const struct kn_stream_config *config, struct kn_stream **ret,
                              struct kn_err *err);
void kn_stream_free(struct kn_stream *s);
KN_AUTO(kn_stream_free, struct kn_stream *);

/**
 * The next bytes; valid until the next call.
 *
 * Returns their number, 0 at the end.
 * Errors  EBADMSG damaged or cut short; EFBIG a limit
 */
kn_must_use ssize_t kn_stream_read(struct kn_stream *s, const void **ret, struct kn_err *err);

/** Compressed bytes used so far. */
uint64_t kn_stream_used(const struct kn_stream *s);

/** The digest of what was read; once, at the end. */
void kn_stream_digest(struct kn_stream *s, struct kn_digest *ret);
