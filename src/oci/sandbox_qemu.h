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

enum kn_qemu_accel { KN_QEMU_TCG, KN_QEMU_KVM };

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

/**
 * Remove what instances of a daemon that was killed left behind: empty cgroups below
 * config->cgroup. Cgroups in use, and so the instances of another daemon, stay.
 *
 * Returns the number of cgroups removed.
 */
size_t kn_sandbox_qemu_sweep(const struct kn_sandbox_qemu_config *config);
