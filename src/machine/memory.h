/*
 * Guest-physical memory: which host memory stands behind which address. Every access of the monitor
 * to guest memory goes through kn_memory_at(), which knows the bounds. Called by the boot protocols.
 *
 * Thread  built before the first run; then any may read
 * Source  KVM API, KVM_SET_USER_MEMORY_REGION
 */
#pragma once

#include <stdint.h>

#include "machine/kvm.h"

enum { KN_MEMORY_REGIONS = 4 };

struct kn_memory {
	struct {
		uint64_t gpa, bytes;
		char *hva;
	} region[KN_MEMORY_REGIONS];
	unsigned n;
};

/**
 * Put private zeroed memory behind [gpa, gpa + bytes). Pages are only used once touched.
 *
 * Errors  EINVAL not page aligned, empty or overlapping; ENOSPC no region left; ENOMEM; KVM's own
 */
kn_must_use int kn_memory_add(struct kn_memory *m, const struct kn_kvm *k, uint64_t gpa,
                              uint64_t bytes, struct kn_err *err);

/**
 * Let [gpa, gpa + bytes), which must lie in one region, be the start of the shared memory fd
 * instead. Before the guest touched it.
 *
 * fd      a memfd of at least bytes; not owned
 * Errors  EINVAL; what mmap said
 */
kn_must_use int kn_memory_share(struct kn_memory *m, uint64_t gpa, uint64_t bytes, int fd,
                                struct kn_err *err);

/** Host address of [gpa, gpa + len), or NULL when not all of it is memory. */
void *kn_memory_at(const struct kn_memory *m, uint64_t gpa, uint64_t len);

/** Touch pages now that will be needed at once: one call instead of a fault each. */
void kn_memory_populate(const struct kn_memory *m, uint64_t gpa, uint64_t bytes);

/** Unmap everything. The VM must be closed, or never run again. */
void kn_memory_fini(struct kn_memory *m);
