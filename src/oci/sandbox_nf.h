/*
 * The sandbox driver `nf`: a chain of packet operators in a kiln-nf process of its own, between the
 * interfaces that config.ports names. Called by faas/pool through oci/sandbox.h; serves the packet
 * flow. It can neither be connected to nor invoked: frames are its events.
 *
 * kiln-nf opens the interfaces, gives up root, and is then a process with a user of its own, an empty
 * root, no network but the open sockets, and no capabilities, in a cgroup. It dies with the thread
 * that started it.
 *
 * An interface has one running instance. A second one of the same function waits, with everything
 * but the traffic ready, until the first has stopped, and then takes over: that is how an update
 * goes. One of another function is refused.
 *
 * Thread  the loop's
 */
#pragma once

#include "oci/sandbox.h"

/** Strings are copied. */
struct kn_nf_config {
	const char *program; /* path of kiln-nf */
	const char *cgroup;  /* parent cgroup, below the hierarchy's root: "kiln" */
	uid_t uid_first;     /* user ids of instances; the same range as that of other jails */
	uint32_t uid_count;
};

#define KN_NF_DEFAULTS                                                                             \
	((struct kn_nf_config){ .program = "kiln-nf",                                              \
				.cgroup = "kiln",                                                  \
				.uid_first = 2000000,                                              \
				.uid_count = 4096 })

/* What all instances of a node share: who has which interface. */
struct kn_nf;

/** Errors: ENOMEM. */
kn_must_use int kn_nf_new(const struct kn_nf_config *config, struct kn_nf **ret, struct kn_err *err);

/** Instances must have ended. NULL is fine. */
void kn_nf_free(struct kn_nf *nf);
KN_AUTO(kn_nf_free, struct kn_nf *);

/**
 * Operations; `driver` is a struct kn_nf. Phases of a start: "spawn" (until the process runs),
 * "open" (interfaces opened, rights given up, chain read). Counters: kiln_nf_packets_total,
 * kiln_nf_bytes_total, kiln_nf_missed_total, kiln_nf_port_up, kiln_nf_drops_total,
 * kiln_nf_rule_packets_total; at most a second old.
 */
extern const struct kn_sandbox_ops kn_sandbox_nf;

/** Remove the empty cgroups of instances that a killed daemon left. Returns how many. */
size_t kn_sandbox_nf_sweep(const struct kn_nf *nf);
