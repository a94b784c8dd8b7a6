/*
 * kiln-agent as the first process of a container: what oci/sandbox_ns hands over when it starts it,
 * and what it then does to itself. In a guest oci/guest has this place.
 *
 * The first process starts with the node's rights in namespaces of its own. On version 2 it begins in
 * its cgroup; on version 1 it joins by itself, since that may wait for a grace period of the kernel
 * (6 ms measured), which is not the node's loop's business.
 *
 * Thread  the only one
 */
#pragma once

#include <sched.h>

#include "host/cgroup.h"
#include "oci/agent.h"
#include "oci/container.h"

/* Arguments after the program's name, in this order; numbers are decimal. */
enum {
	KN_CONTAINED_MODE = 1,       /* KN_CONTAINED */
	KN_CONTAINED_DIR,            /* an empty folder: where the root is put together */
	KN_CONTAINED_ID_FIRST,       /* what user 0 of the user namespace is outside */
	KN_CONTAINED_ROOT_BYTES,     /* what may be written to the root */
	KN_CONTAINED_CGROUPS,        /* the cgroup's folders, whose descriptors come last: names of the
	                              * hierarchies with ':' between, or KN_CONTAINED_UNIFIED */
	KN_CONTAINED_ARGS,
};

#define KN_CONTAINED "container"
#define KN_CONTAINED_UNIFIED "."

/* Descriptors. */
enum {
	KN_CONTAINED_PIPE_FD = 3,    /* to the host, see oci/agent.h */
	KN_CONTAINED_IMAGE_FD,       /* a mount of the image, seen through the user namespace */
	KN_CONTAINED_USERNS_FD,
	KN_CONTAINED_SECCOMP_FD,     /* a file with the compiled filter */
	KN_CONTAINED_CGROUP_FD,      /* the first of KN_CONTAINED_CGROUPS */
};

/* The default mounts, and /sys/fs/cgroup with what is in it. */
enum { KN_CONTAINED_MAX_MOUNTS = 16 };

/* A folder of the cgroup: where it is on the host, and where the container sees it, read-only. */
struct kn_contained_cgroup {
	char source[256], target[96];
};

struct kn_contained {
	const char *dir;
	uid_t id_first;
	uint64_t root_bytes;
	const char *names;           /* KN_CONTAINED_CGROUPS */
	unsigned n_cgroups;
	struct kn_contained_cgroup cgroups[KN_CGROUP_MAX_DIRS];
	struct kn_container_mount mounts[KN_CONTAINED_MAX_MOUNTS];
	int oom_fd;                  /* counts kills for memory; -1: not known */
	struct kn_container_config config;
	char hostname[65], root[512];
};

/** The namespaces that the first process must be started with. */
#define KN_CONTAINED_NAMESPACES                                                                    \
	(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

/** Read the arguments. Errors: EINVAL. */
kn_must_use int kn_contained_init(struct kn_contained *c, int argc, char *const *argv,
                                  struct kn_err *err);

/** For kn_agent_config.prepare: cgroup, root, mounts. */
kn_must_use int kn_contained_prepare(struct kn_contained *c, const struct kn_agent_message *m,
                                     struct kn_err *err);

/** For kn_agent_config.oom_kills. */
uint64_t kn_contained_oom_kills(const struct kn_contained *c);

/** For kn_agent_config.seal: user namespace, capabilities, system call filter. */
kn_must_use int kn_contained_seal(struct kn_contained *c, struct kn_err *err);
