/*
 * What makes a process the first one of a container: its root, its mounts, its names, and then the
 * rights that it keeps. Called by kiln-agent, both in a Linux guest and as a container's first process
 * on the host (oci/sandbox_ns); shaped so that a runtime-spec config.json maps onto it.
 *
 * The caller starts the process with the namespaces that it wants (kn_spawn()) and lets it do, in
 * this order: kn_container_root(), what it has to put into the root, kn_container_close(),
 * kn_container_limit(). Until close() the process has its caller's rights and runs trusted code only.
 *
 * The root is entered before anything is mounted in it. So every path of the image, links included,
 * is resolved inside it, and nothing of an image can make a mount or a folder appear outside.
 *
 * Thread  the only one of its process
 * Source  OCI runtime-spec 1.1, config.md and config-linux.md
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/str.h"
#include "host/caps.h"
#include "host/process.h"

/** One entry of `mounts`. */
struct kn_container_mount {
	const char *target;          /* absolute, in the container */
	const char *type;            /* "proc", "tmpfs" ...; "bind": source is a path of the caller's */
	const char *source;          /* NULL: the type's name */
	unsigned long flags;         /* MS_* */
	const char *options;         /* or NULL */
	bool optional;               /* a kernel without this file system is fine */
};

/** A character device that is made in /dev. */
struct kn_container_device {
	const char *path;
	unsigned major, minor;
	mode_t mode;
};

struct kn_container_sysctl {
	const char *name;            /* "net.ipv4.ip_unprivileged_port_start" */
	const char *value;
};

/** A namespace that is entered instead of made. */
struct kn_container_join {
	int type;                    /* CLONE_NEWNET ... */
	const char *path;            /* "/proc/PID/ns/net" */
};

enum { KN_CONTAINER_MAX_BINDS = 64 };

struct kn_container_config {
	uint64_t namespaces;         /* CLONE_NEW...: what the process has of its own */
	const struct kn_container_join *joins;
	size_t n_joins;
	const char *root;            /* a mount point */
	bool initramfs;              /* the root under the process cannot be pivoted away from */
	bool read_only_root;         /* from kn_container_close() on; /tmp stays writable */
	const struct kn_container_mount *mounts;
	size_t n_mounts;
	const struct kn_container_device *devices;
	size_t n_devices;
	const char *const *masked_paths;      /* NULL-terminated, or NULL */
	const char *const *read_only_paths;
	const struct kn_container_sysctl *sysctls;
	size_t n_sysctls;
	const char *hostname;        /* NULL: stays; needs a UTS namespace */
	int userns_fd;               /* entered by kn_container_close(); 0: none */
	uid_t id_first;              /* what its user and group 0 are outside: owns what is made */
};

/** What the specification asks for when a config says nothing, and what every engine's default has. */
extern const struct kn_container_mount kn_container_mounts[];
extern const size_t kn_container_n_mounts;
extern const struct kn_container_device kn_container_devices[];
extern const size_t kn_container_n_devices;
extern const char *const kn_container_masked[];
extern const char *const kn_container_read_only[];

/**
 * Would this work, as far as the config alone tells? Everything that is refused is named: a path that
 * is not absolute or holds "..", a namespace that is made and joined at once, a sysctl of a namespace
 * that the container does not have, a host name without a UTS namespace.
 *
 * Errors  EINVAL
 */
kn_must_use int kn_container_check(const struct kn_container_config *c, struct kn_err *err);

/**
 * Enter the root and build what belongs into it: namespaces joined, mounts, devices, links of /dev,
 * /tmp, /etc/hosts and /etc/hostname where the image has none, masked and read-only paths, sysctls,
 * host name, loopback interface up.
 *
 * Errors  those of kn_container_check(); what the kernel said, told for the author of an image
 */
kn_must_use int kn_container_root(const struct kn_container_config *c, struct kn_err *err);

/**
 * mkdir -p in the root, for user and group owner.
 * Errors  what mkdir said
 */
kn_must_use int kn_container_mkdirs(const char *path, uid_t owner, struct kn_err *err);

/** Make the root read-only if asked, and enter the user namespace if there is one. */
kn_must_use int kn_container_close(const struct kn_container_config *c, struct kn_err *err);

struct kn_container_overlay {
	const char *dir;             /* an existing folder; the root will be dir/root */
	int image_fd;                /* a mount of the image (kn_mount_open()); -1: */
	const char *device;          /*   an erofs image on this device */
	uint64_t bytes;              /* what may be written; 0: half of the memory */
};

/**
 * Make a root of an image and a writable layer in memory, for kn_container_config.root.
 *
 * Errors  what mount said; EINVAL a folder that overlay cannot name
 */
kn_must_use int kn_container_overlay(const struct kn_container_overlay *o, struct kn_err *err);

/** What a process of the container may do. */
struct kn_container_process {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;         /* supplementary */
	size_t n_groups;
	bool has_umask;
	mode_t umask;
	const char *cwd;             /* NULL: stays */
	struct kn_caps caps;
	const struct kn_rlimit *rlimits;
	size_t n_rlimits;
	bool has_oom_score_adj;
	int oom_score_adj;
	bool no_new_privs;
	struct kn_view seccomp;      /* a compiled filter (host/seccomp.h); empty: none */
};

/**
 * Reduce the calling process to this, for good. Raw system calls without allocation: fit for
 * kn_spawn()'s setup.
 *
 * Errors  what the kernel said
 */
kn_must_use int kn_container_limit(const struct kn_container_process *p, struct kn_err *err);
