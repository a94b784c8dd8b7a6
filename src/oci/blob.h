/*
 * Blobs by digest in a folder: <root>/blobs/sha256/<hex>. A blob is written to a temporary file
 * while it is hashed, synced, then renamed to its digest, so that a name always stands for whole
 * and right content: a crash leaves a temporary file, which the next open removes. Blobs are readable
 * by everybody and writable by nobody; the folder, mode 0700, decides who reaches them. Used by the
 * image store and the registry; part of the image flow.
 *
 * Thread  any; calls may run side by side. kn_blobs_collect() must not run beside writers whose
 *         blobs nothing refers to yet: its caller sees to that.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "oci/digest.h"

struct kn_blobs;

/**
 * Open the store in root, making what is missing, and remove what an interrupted write left.
 *
 * root    made with mode 0700 when missing; one process at a time may have it open
 * Errors  EBUSY another process has it; what the file system said
 */
kn_must_use int kn_blobs_open(const char *root, struct kn_blobs **ret, struct kn_err *err);
void kn_blobs_close(struct kn_blobs *b);
KN_AUTO(kn_blobs_close, struct kn_blobs *);

/** The root folder's descriptor, borrowed: what belongs to the store is opened relative to it. */
int kn_blobs_root(const struct kn_blobs *b);

/** Its name, borrowed. */
const char *kn_blobs_path(const struct kn_blobs *b);

/* ---- writing ------------------------------------------------------------------------------- */

struct kn_blob_writer;

/**
 * Begin a blob.
 *
 * expect  the digest that it must have; NULL takes whatever comes, named by its SHA-256
 * max     bytes that it may have at most
 */
kn_must_use int kn_blob_writer_new(struct kn_blobs *b, const struct kn_digest *expect, uint64_t max,
                                   struct kn_blob_writer **ret, struct kn_err *err);

/** Errors: EFBIG past max; ENOSPC and what else write(2) said. */
kn_must_use int kn_blob_write(struct kn_blob_writer *w, const void *ptr, size_t len,
                              struct kn_err *err);

/** The digest that it must have, for a writer that began without; before kn_blob_commit(). */
void kn_blob_expect(struct kn_blob_writer *w, const struct kn_digest *expect);

/** Bytes written so far. */
uint64_t kn_blob_written(const struct kn_blob_writer *w);

/**
 * Check the digest and give the blob its name; durable when this returns. It takes the place of a
 * blob of that name, which is the same unless the disk spoiled it.
 *
 * Errors  EBADMSG another digest than expected: nothing is kept; ENOSPC ...
 */
kn_must_use int kn_blob_commit(struct kn_blob_writer *w, struct kn_digest *ret, uint64_t *ret_bytes,
                               struct kn_err *err);

/** Free the writer; what was not committed is removed. NULL is fine. */
void kn_blob_writer_free(struct kn_blob_writer *w);
KN_AUTO(kn_blob_writer_free, struct kn_blob_writer *);

/** A whole blob from memory: new, write, commit. */
kn_must_use int kn_blob_put(struct kn_blobs *b, const void *ptr, size_t len, struct kn_digest *ret,
                            struct kn_err *err);

/* ---- reading ------------------------------------------------------------------------------- */

/** Open for reading. Errors: ENOENT names the digest. */
kn_must_use int kn_blob_open(struct kn_blobs *b, const struct kn_digest *d, uint64_t *ret_bytes,
                             struct kn_err *err);

/** True when the blob is there whole; its content is not read. */
bool kn_blob_has(struct kn_blobs *b, const struct kn_digest *d);

/**
 * Read a small blob whole (appended to ret) and check its digest again: what is parsed is what was
 * named, whatever the disk did.
 *
 * Errors  ENOENT; EFBIG more than max; EBADMSG changed on disk
 */
kn_must_use int kn_blob_read(struct kn_blobs *b, const struct kn_digest *d, size_t max,
                             struct kn_buf *ret, struct kn_err *err);

/** The path of a blob; free with kn_free(). NULL when memory is out. */
char *kn_blob_path(const struct kn_blobs *b, const struct kn_digest *d);

/* ---- removing ------------------------------------------------------------------------------ */

struct kn_blobs_freed {
	uint64_t blobs, bytes;
};

/** Remove every blob for which keep says false. Errors: what the file system said. */
kn_must_use int kn_blobs_collect(struct kn_blobs *b,
                                 bool (*keep)(const struct kn_digest *d, void *arg), void *arg,
                                 struct kn_blobs_freed *ret, struct kn_err *err);
