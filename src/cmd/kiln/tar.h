/*
 * A folder as a tar archive, made piece by piece as it is sent: `kiln image import` of an OCI
 * layout folder needs no second copy on the disk. Only regular files and folders are taken.
 *
 * Thread  one
 */
#pragma once

#include <sys/types.h>

#include "base/str.h"

struct kn_tar;

/** Begin. Errors: ENOENT, ENOTDIR, EACCES; ENOMEM */
kn_must_use int kn_tar_open(const char *folder, struct kn_tar **ret, struct kn_err *err);
void kn_tar_close(struct kn_tar *t);
KN_AUTO(kn_tar_close, struct kn_tar *);

/**
 * The next bytes of the archive.
 *
 * Returns their count (at most len), 0 at the end, or -errno with err told: what reading said,
 *         EINVAL for a link, device or socket, ESTALE for a file that became shorter meanwhile
 */
ssize_t kn_tar_read(struct kn_tar *t, void *ptr, size_t len, struct kn_err *err);

/** Bytes of all regular files below folder, for a progress line; 0 when they cannot be counted. */
uint64_t kn_tar_bytes(const char *folder);
