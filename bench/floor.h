/*
 * What nothing that starts programs in VMs can undercut on this machine: a process, and a VM made by
 * hand. Measured beside bare functions in the same run. Called by bench/bare.c.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"

/** Spawn argv[0] with its output thrown away, wait for its end; it must be a success. */
kn_must_use int floor_spawn(const char *const *argv, uint64_t *ret_ns, struct kn_err *err);

struct floor_vm {
	uint64_t exit_ns;    /* from nothing to the guest's first exit */
	uint64_t destroy_ns; /* closing it all */
};

/**
 * Make a VM with one vCPU and 2 MiB of memory on the open device kvm, run one instruction of ring 3
 * that leaves it, close everything.
 */
kn_must_use int floor_vm(int kvm, struct floor_vm *ret, struct kn_err *err);
