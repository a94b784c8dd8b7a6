/* Private to oci/snapshot: what its parts share. */
#pragma once

#include "oci/snapshot.h"

/** Digest of a whole file; where it holds only zeros its blocks are given back (a writable fd). */
int file_digest(int fd, bool punch, char ret[65], struct kn_err *err);

/** What tells a file from another or a changed one, without reading it. */
int file_identity(int fd, struct kn_snapshot_file *ret, struct kn_err *err);
bool file_is(const struct kn_snapshot_file *a, const struct kn_snapshot_file *b);

/** Make fd `bytes` long with its blocks reserved, where the file system can. */
int file_reserve(int fd, uint64_t bytes, struct kn_err *err);

/** Copy what is not a hole. */
int file_copy(int from, int to, uint64_t bytes, struct kn_err *err);
