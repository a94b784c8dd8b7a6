/*
 * Building a root for a jail or a container: a small tmpfs, a few things bound into it, and the step
 * into it. Used by host/jail and by kiln-agent.
 *
 * All but kn_mount_open() and kn_loop_device() may run in the `setup` of kn_spawn(): no allocation, no locks.
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

/**
 * Mount a file system image (a device, or a regular file) without giving it a place yet: read-only,
 * nosuid, nodev. It lives as long as the descriptor, or from kn_mount_place() on as its place. A file
 * is mounted as it is where the kernel can do that (erofs since Linux 6.12), else through a loop
 * device that goes with the mount.
 *
 * source  absolute path
 *
 * Returns a close-on-exec descriptor
 * Errors  ENODEV no such file system in this kernel; what the kernel said, with its own words where
 *         it has some
 * Thread  waits for the disk; may not run in kn_spawn()'s setup
 */
kn_must_use int kn_mount_open(const char *source, const char *type, struct kn_err *err);

/**
 * A read-only loop device of a file, which goes with its last user.
 *
 * ret     "/dev/loop7"
 *
 * Returns a close-on-exec descriptor that keeps it
 */
kn_must_use int kn_loop_device(const char *file, char ret[32], struct kn_err *err);

/**
 * Another mount of the same tree, not placed yet.
 * Errors  EINVAL: before Linux 6.15 a mount without a place cannot be copied
 */
kn_must_use int kn_mount_copy(int mount_fd, struct kn_err *err);

/**
 * Let the owners of a mount that has no place yet be seen through a user namespace: what is user 0
 * on the disk is user 0 of that namespace.
 *
 * Errors  EINVAL a kernel or a file system that cannot do this
 * Source  mount_setattr(2), MOUNT_ATTR_IDMAP
 */
kn_must_use int kn_mount_shift(int mount_fd, int userns_fd, struct kn_err *err);

/** Give a mount its place. Errors: what move_mount said. */
kn_must_use int kn_mount_place(int mount_fd, const char *target, struct kn_err *err);

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
