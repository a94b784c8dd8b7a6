/*
 * What this host's /dev/kvm can do, measured and not guessed: `kiln doctor` shows it, and kilnd
 * chooses by it which hypervisor runs which class of function. A tiny guest runs the same loop in
 * ring 3 and in ring 0; where KVM is built on PVM, ring 0 is emulated about a thousand times slower
 * than ring 3, so that a kernel never finishes booting while bare guests run at native speed.
 *
 * Thread  any; blocks for at most 0.3 s (some milliseconds on usual hosts)
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum kn_probe_verdict {
	KN_PROBE_NONE,   /* no guest can run; reason says why */
	KN_PROBE_RING3,  /* bare guests only: ring 0 is emulated */
	KN_PROBE_FULL,   /* bare and Linux guests */
};

struct kn_probe {
	enum kn_probe_verdict verdict;
	bool present;               /* the device exists */
	bool permitted;             /* and this process may open it */
	int api_version;            /* KVM_GET_API_VERSION; 12 */
	uint64_t create_ns;         /* a VM with one vCPU, made and run to its first exit */
	uint64_t exit_ns;           /* one leaving of the guest and return, mean */
	uint64_t ring3_ps;          /* picoseconds per instruction of a simple loop in ring 3 */
	uint64_t ring0_ps;          /* the same in ring 0 */
	char reason[256];           /* one sentence for people */
};

/**
 * Measure a KVM device.
 *
 * device  usually KN_KVM_DEVICE
 * ret     always filled: a host without KVM is an answer, not an error
 */
void kn_probe_run(const char *device, struct kn_probe *ret);

/** "none", "bare only" or "full". */
const char *kn_probe_verdict_name(enum kn_probe_verdict v);
