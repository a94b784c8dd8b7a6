/*
 * The sandbox driver `kvm`: a bare function in a microVM of its own, one kiln-vmm process each.
 * Called by the pool through oci/sandbox.h; serves the event flow. The instance is reached by
 * invoke(): requests and replies are messages in shared memory. invoke() works before `ready`: the
 * request waits in the ring and is the first thing that the program sees.
 *
 * A start takes a prepared shell when there is one: a kiln-vmm that has made its VM and waits for a
 * program. Otherwise it spawns one.
 *
 * Thread  the loop's
 */
#pragma once

#include "oci/sandbox.h"

struct kn_shells;

/* Passed as `driver` to the operations; must outlive every sandbox started with it. */
struct kn_sandbox_kvm_config {
	const char *vmm;             /* path of kiln-vmm */
	const char *device;          /* "/dev/kvm" */
	struct kn_shells *shells;    /* prepared monitors, or NULL: every start spawns */
	uint64_t max_request_bytes;  /* a larger request body is refused by invoke() with EMSGSIZE */
};

#define KN_SANDBOX_KVM_DEFAULTS                                                                    \
	((struct kn_sandbox_kvm_config){ .vmm = "kiln-vmm",                                        \
	                                 .device = "/dev/kvm",                                     \
	                                 .max_request_bytes = UINT64_C(1) << 20 })

/*
 * Operations. check() says why bare functions are refused on this host. Phases of a start: "spawn"
 * (to the monitor's first instruction of its own; 0 from a shell), "boot" (VM made, program loaded),
 * "ready" (the program's start until it waits for a request). time_limit_ms is enforced by the
 * monitor; `ended` then says "time limit of X ms passed", and a fault is told with its address.
 */
extern const struct kn_sandbox_ops kn_sandbox_kvm;

/**
 * Keep monitors prepared, so that a start costs neither a process nor a VM.
 *
 * vmm, device  as above; copied
 * count        how many to keep; refilled one at a time when the loop is idle after a start
 *
 * Errors  ENOMEM. A monitor that cannot start is told by the next start(), not here.
 */
kn_must_use int kn_shells_new(struct kn_loop *loop, const char *vmm, const char *device,
                              size_t count, struct kn_shells **ret, struct kn_err *err);

/** How many are prepared right now. */
size_t kn_shells_ready(const struct kn_shells *s);

/** End the prepared monitors and wait for their ends; sandboxes already started live on. */
void kn_shells_free(struct kn_shells *s);
