/*
 * The kernel objects of one microVM: the KVM device, a VM, its vCPU and the page shared with it.
 * Nothing here knows what runs in the guest. Called by machine/vmm and machine/probe.
 *
 * Thread  a vCPU belongs to the thread that runs it; the rest any
 * Source  Linux Documentation/virt/kvm/api.rst
 */
#pragma once

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

#define KN_KVM_DEVICE "/dev/kvm"

struct kn_kvm {
	int device;               /* -1 when not open */
	int vm;
	size_t run_bytes;         /* of the page shared with a vCPU */
	bool sync_regs;           /* registers can be set through that page */
};

#define KN_KVM_NULL ((struct kn_kvm){ .device = -1, .vm = -1 })

/** Is this a KVM device that we may use? Errors: ENOENT, EACCES with what to do; ENOTSUP. */
kn_must_use int kn_kvm_check(const char *device, struct kn_err *err);

/**
 * Open the device and make an empty VM.
 *
 * Errors  ENOENT, EACCES with what to do; ENOTSUP an API version other than 12; else KVM's own
 */
kn_must_use int kn_kvm_open(const char *device, struct kn_kvm *ret, struct kn_err *err);
void kn_kvm_close(struct kn_kvm *k);

struct kn_vcpu {
	int fd;                   /* -1 when there is none */
	size_t run_bytes;
	struct kvm_run *run;      /* shared with the kernel */
};

#define KN_VCPU_NULL ((struct kn_vcpu){ .fd = -1 })

/**
 * Make the VM's vCPU. It has no CPUID table: bare programs do not ask, KVM needs none for long mode,
 * and setting one costs 60 us where CPUID itself is emulated (290 more to ask which to set).
 */
kn_must_use int kn_vcpu_open(const struct kn_kvm *k, struct kn_vcpu *ret, struct kn_err *err);
void kn_vcpu_close(struct kn_vcpu *v);

/**
 * Registers of a processor in 64-bit mode with paging, about to run its first instruction in ring 0
 * or 3. Selectors: 0x08 and 0x10 code and data of ring 0, 0x1b and 0x23 data and code of ring 3.
 * Descriptor tables and the task are empty: fill in gdt, idt and tr where exceptions should arrive.
 */
void kn_vcpu_long_mode(unsigned ring, uint64_t cr3, uint64_t entry, uint64_t stack,
                       struct kvm_regs *regs, struct kvm_sregs *sregs);

/** Set all registers before the next run. Errors: what KVM said. */
kn_must_use int kn_vcpu_set(const struct kn_kvm *k, struct kn_vcpu *v, const struct kvm_regs *regs,
                            const struct kvm_sregs *sregs, struct kn_err *err);

/** Read all registers. Errors: what KVM said. */
kn_must_use int kn_vcpu_get(struct kn_vcpu *v, struct kvm_regs *regs, struct kvm_sregs *sregs,
                            struct kn_err *err);

/** Rate of the guest's time stamp counter in kHz; 0 when KVM does not say. */
unsigned kn_vcpu_tsc_khz(const struct kn_vcpu *v);
