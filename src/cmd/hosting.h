/*
 * How this host runs each class of functions: measured and looked up once, then chosen, with the
 * reason in words. kilnd gives the choice to the engine and serves the report at /kiln/v1/node;
 * `kiln doctor` prints the same report, so that the two never disagree. Serves the event flow.
 *
 * Thread  any; kn_hosting_find() blocks for up to a second (it measures /dev/kvm, asks QEMU for its
 *         version)
 */
#pragma once

#include "base/json.h"
#include "faas/engine.h"

struct kn_hosting;
struct kn_restores;
struct kn_sandbox_qemu_config;
struct kn_shells;

/** Strings are copied. NULL means: found by itself. */
struct kn_hosting_config {
	const char *lib_dir;      /* folder with kiln-vmm and guest/; NULL: this program's, or its
	                           * ../lib/kiln when that has them */
	const char *kvm_device;   /* NULL: /dev/kvm */
	const char *qemu;         /* NULL: the first on the search path, then Debian's */
	const char *cgroup;       /* parent cgroup of instances; NULL: "kiln" */
	bool unix_functions;      /* offer class `unix` */
};

/**
 * Look, measure and choose. What is missing is part of the answer, not an error.
 *
 * config  may be NULL
 * Errors  ENOMEM
 */
kn_must_use int kn_hosting_find(const struct kn_hosting_config *config, struct kn_hosting **ret,
                                struct kn_err *err);

/** Instances that use it must have ended. NULL is fine. */
void kn_hosting_free(struct kn_hosting *h);
KN_AUTO(kn_hosting_free, struct kn_hosting *);

/** The row for the engine's configuration; borrowed. ops is NULL when the class is refused. */
const struct kn_engine_class *kn_hosting_class(const struct kn_hosting *h, enum kn_class c);

/** Path of kiln-vmm and of the KVM device; borrowed. For kn_shells_new(). */
const char *kn_hosting_vmm(const struct kn_hosting *h);
const char *kn_hosting_kvm_device(const struct kn_hosting *h);

/** Let bare functions start from prepared monitors; borrowed until NULL is set. */
void kn_hosting_use_shells(struct kn_hosting *h, struct kn_shells *shells);

/** Can functions have a network here? Then kn_hosting_use_network() has a use. */
bool kn_hosting_has_network(const struct kn_hosting *h);

/** Networks of functions with egress; borrowed until NULL is set. */
struct kn_network;
void kn_hosting_use_network(struct kn_hosting *h, struct kn_network *network);

/**
 * The driver of Linux guests and QEMU's version, for kn_restores_new(); borrowed. NULL: the class
 * microvm is refused here.
 */
const struct kn_sandbox_qemu_config *kn_hosting_qemu(const struct kn_hosting *h,
						     const char **ret_version);

/** Let Linux functions start by restore; borrowed until NULL is set. */
void kn_hosting_use_restores(struct kn_hosting *h, struct kn_restores *restores);

/** Remove what a killed daemon's instances left (empty cgroups). Returns how many. */
size_t kn_hosting_sweep(const struct kn_hosting *h);

/**
 * The report as JSON; a new reference, NULL when memory is out:
 * {version, host{...}, kvm{...}, classes[{class, state, hypervisor, why, security}],
 *  parts[{name, state, found, needed_for, fix}], ok, verdict}
 */
json_t *kn_hosting_report(const struct kn_hosting *h);
