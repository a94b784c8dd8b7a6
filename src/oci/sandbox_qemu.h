/*
 * The sandbox driver `qemu`: one Linux microVM per instance under a jailed QEMU (`-M microvm`, TCG
 * or KVM) with kiln-agent as its first process. Called by faas/pool through oci/sandbox.h; serves
 * the event flow.
 *
 * The host side of an instance is: the jailed QEMU process (host/jail), one socket that carries
 * every stream to the agent (oci/mux over a virtio-serial port), one pipe with the guest's console,
 * one with QEMU's own messages, and a cgroup. QEMU dies with the thread that started it, and what
 * remains of a dead parent (empty cgroups) is removed by kn_sandbox_qemu_sweep().
 *
 * Thread  the loop's
 */
#pragma once

#include "oci/sandbox.h"

/* What tools/guest/mkguest puts below the build folder. */
#define KN_GUEST_KERNEL    "guest/vmlinux"
#define KN_GUEST_INITRAMFS "guest/initramfs"

#define KN_QEMU_PRELOAD    "kiln-preload.so"   /* beside them: see oci/sandbox/preload.c */

enum kn_qemu_accel { KN_QEMU_TCG, KN_QEMU_KVM };

struct kn_network;
struct kn_restores;
struct kn_snapshots;

/* Passed as `driver` to the operations; must outlive every sandbox started with it. */
struct kn_sandbox_qemu_config {
	const char *qemu;            /* absolute path of qemu-system-x86_64 */
	const char *kernel;          /* an ELF kernel with a PVH note, or a bzImage */
	const char *initramfs;       /* cpio with kiln-agent as /init */
	enum kn_qemu_accel accel;
	uint32_t uid_first;          /* instances run as uid (and gid) uid_first + 0 .. uid_count - 1, */
	uint32_t uid_count;          /* each its own; nobody else may use these */
	const char *cgroup;          /* parent cgroup, below the hierarchy's root: "kiln" */
	uint64_t overhead_bytes;     /* what QEMU may use beyond the guest's memory */
	uint32_t max_pids;           /* threads of one QEMU */
	struct kn_network *network;  /* of functions with egress, which are refused without */
	const char *preload;         /* KN_QEMU_PRELOAD; needed with restores */
	struct kn_restores *restores;   /* starts by restore; NULL: every start boots */
};

#define KN_SANDBOX_QEMU_DEFAULTS                                                                   \
	((struct kn_sandbox_qemu_config){ .qemu = "/usr/bin/qemu-system-x86_64",                   \
	                                  .accel = KN_QEMU_TCG,                                    \
	                                  .uid_first = 2000000,                                    \
	                                  .uid_count = 4096,                                       \
	                                  .cgroup = "kiln",                                        \
	                                  .overhead_bytes = UINT64_C(192) << 20,                   \
	                                  .max_pids = 64 })

extern const struct kn_sandbox_ops kn_sandbox_qemu;

/*
 * Starts by restore. What is there is taken, quickest first: a prepared guest whose function waits, a
 * snapshot of the function (its readiness probe had passed), a template (a booted guest that waits for
 * its function). Without any the guest is booted. What is not there is made in the background when a
 * function has come to serve: by a builder, which is a jailed guest of its own and never serves. A
 * failing builder costs nobody anything: it is told once and tried again later.
 *
 * Every restored guest is greeted with the hour and fresh entropy and is told its own name and
 * identifiers before it is used. What programs themselves made of earlier entropy (the seed of a
 * generator of their own) is the same in all of them: such a function turns its snapshots off.
 */
struct kn_restores_config {
	struct kn_snapshots *snapshots;  /* borrowed */
	const char *run_dir;             /* folders of builders and prepared guests; made */
	uint32_t prepared;               /* guests kept waiting for functions that were started last */
	uint64_t prepared_ms;            /* and how long at most */
};

#define KN_RESTORES_DEFAULTS                                                                       \
	((struct kn_restores_config){ .prepared = 1, .prepared_ms = 60 * 1000 })

/**
 * driver must outlive it, and names it in driver->restores.
 * Errors  ENOMEM; what making the folder said
 */
kn_must_use int kn_restores_new(struct kn_loop *loop, const struct kn_sandbox_qemu_config *driver,
                                const struct kn_restores_config *config, struct kn_restores **ret,
                                struct kn_err *err);

/** End builders and prepared guests; runs the loop until they are gone. NULL is fine. */
void kn_restores_free(struct kn_restores *r);

/** Prepared guests that wait; a build that is under way or due. */
uint32_t kn_restores_prepared(const struct kn_restores *r);
bool kn_restores_busy(const struct kn_restores *r);

/** What snapshots of this driver depend on: kernel, agent, QEMU, processor. Returns their count. */
struct kn_snapshot_fact;
size_t kn_restores_facts(const struct kn_sandbox_qemu_config *driver, const char *qemu_version,
                         struct kn_snapshot_fact *ret, size_t max);

/**
 * Remove what instances of a daemon that was killed left behind: empty cgroups below
 * config->cgroup. Cgroups in use, and so the instances of another daemon, stay.
 *
 * Returns the number of cgroups removed.
 */
size_t kn_sandbox_qemu_sweep(const struct kn_sandbox_qemu_config *config);
