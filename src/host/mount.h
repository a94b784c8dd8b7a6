/*
 * Building a root for a jail or a container: a small tmpfs, a few things bound into it, and the step
 * into it. Used by host/jail and by kiln-agent.
 *
 * Everything here may run in the `setup` of kn_spawn(): no allocation, no locks.
 *
 * Thread  acts on the calling thread's mount namespace
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

/** From now on mounts and unmounts of this namespace stay in it. Source: mount_namespaces(7). */
kn_must_use int kn_mount_private(struct kn_err *err);

/**
 * mount(2) with the error told. flags are MS_*; options may be NULL.
 * Errors  what mount said, with source and target
 */
kn_must_use int kn_mount(const char *source, const char *target, const char *type,
                         unsigned long flags, const char *options, struct kn_err *err);

struct kn_bind {
	const char *source;   /* absolute path outside */
	const char *target;   /* absolute path inside the new root; NULL: the same as source */
	bool writable;
	bool optional;        /* a missing source is fine */
};

/**
 * Bind source into root, nosuid, nodev and, unless bind says else, read-only. The target is made
 * (an empty file for a file, a folder for a folder) with its parents.
 * Errors  what mkdir, open or mount said; ENAMETOOLONG
 */
kn_must_use int kn_bind_into(const char *root, const struct kn_bind *bind, struct kn_err *err);

/**
 * Make a node of the same device as source below root, for uid and gid alone: a device that only
 * root may open becomes usable without opening it to others. root must not be mounted nodev.
 * Errors  ENODEV when source is not a device; what mknod said
 */
kn_must_use int kn_device_into(const char *root, const char *source, uid_t uid, gid_t gid,
                               struct kn_err *err);

/**
 * Make root (a mount point) the root of this mount namespace and detach what was there.
 * Errors  what pivot_root said. Not for an initramfs: the kernel refuses (EINVAL).
 */
kn_must_use int kn_pivot_root(const char *root, struct kn_err *err);
