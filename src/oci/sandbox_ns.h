/*
 * The sandbox driver `ns`: one container per instance, without a virtual machine. Called by
 * faas/pool through oci/sandbox.h; serves the event flow.
 *
 * An instance is a first process, kiln-agent, in mount, PID, network, IPC, UTS, cgroup and user
 * namespaces of its own, in a cgroup with the instance's limits; the function is its child. Every
 * instance has a range of user ids that nobody else has, so that even root in a container is nobody
 * on the host. The root is the image's erofs file under a writable layer in memory. There is no
 * network but loopback, and what a function's policy opens (host/network). An HTTP function is
 * reached by a socket made in its network namespace.
 *
 * The kernel is shared: an error in it that a process can use is a way out. For trusted code.
 *
 * Everything goes with the first process, and that goes with the thread that started it; what a dead
 * parent leaves is empty cgroups, which kn_sandbox_ns_sweep() removes.
 *
 * Thread  the loop's
 */
#pragma once

#include "oci/sandbox.h"

struct kn_ns_config {
	const char *agent;           /* path of kiln-agent, a static program */
	const char *cgroup;          /* parent cgroup, below the hierarchy's root: "kiln" */
	uid_t id_first;              /* ids id_first .. id_first + 65536 * id_ranges - 1 of this host, */
	uint32_t id_ranges;          /*   which nobody else may use */
	uint32_t max_pids;           /* of an instance that names no limit */
};

#define KN_NS_DEFAULTS                                                                             \
	((struct kn_ns_config){ .agent = "kiln-agent",                                             \
	                        .cgroup = "kiln",                                                  \
	                        .id_first = 0x20000000,                                            \
	                        .id_ranges = 4096,                                                 \
	                        .max_pids = 512 })

/* What all instances of a node share: the agent in memory, the filter, id ranges, mounted images. */
struct kn_ns;

/**
 * Compile the filter (some milliseconds) and load the agent. Strings are copied.
 *
 * Errors  ENOENT no agent; ENOMEM
 */
kn_must_use int kn_ns_new(const struct kn_ns_config *config, struct kn_ns **ret, struct kn_err *err);

/** Networks of functions with egress, which are refused without; borrowed until NULL is set. */
struct kn_network;
void kn_ns_use_network(struct kn_ns *ns, struct kn_network *network);

/** Instances must have ended. NULL is fine. */
void kn_ns_free(struct kn_ns *ns);
KN_AUTO(kn_ns_free, struct kn_ns *);

/**
 * Operations; `driver` is a struct kn_ns. Phases of a start: "spawn" (cgroup, ids, image, first
 * process), "start" (cgroup joined, root, mounts, rights, the function's process), "ready".
 */
extern const struct kn_sandbox_ops kn_sandbox_ns;

/**
 * Remove what instances of a daemon that was killed left behind: empty cgroups below the parent.
 * Returns the number of cgroups removed.
 */
size_t kn_sandbox_ns_sweep(const struct kn_ns *ns);
