/*
 * What runs in a microVM, as a table of operations: a boot protocol recognises an image, lays out
 * guest memory, loads it, sets the first registers, and afterwards handles the leavings of the guest
 * that KVM itself does not. The run loop (machine/vmm) knows nothing more about the guest. `bare`
 * (machine/bare) is the protocol that there is; a Linux protocol becomes a second table.
 *
 * Thread  the one that runs the vCPU, after load
 */
#pragma once

#include "base/str.h"
#include "machine/memory.h"

enum { KN_END_JSON = 1536 };

enum kn_end_kind {
	KN_END_EXIT,              /* the program ended itself */
	KN_END_FAULT,             /* it did what the processor or the monitor refuses */
	KN_END_LIMIT,             /* it ran past its time limit */
	KN_END_STOPPED,           /* somebody asked for it */
	KN_END_FAILED,            /* the monitor or KVM failed */
};

/** How a microVM ended. */
struct kn_end {
	enum kn_end_kind kind;
	int exit_code;            /* EXIT: the program's */
	struct kn_err err;        /* the story for people; code 0 after a clean end */
	char json[KN_END_JSON];   /* the same with address and registers, one JSON object; or "" */
};

struct kn_boot_ops;

/** The parts of one microVM. Zero it, then set kvm and vcpu to their null values. */
struct kn_machine {
	struct kn_kvm kvm;
	struct kn_vcpu vcpu;
	struct kn_memory memory;
	const struct kn_boot_ops *boot;   /* NULL until something is loaded */
	void *guest;                      /* the protocol's own */
};

#define KN_MACHINE_NULL ((struct kn_machine){ .kvm = KN_KVM_NULL, .vcpu = KN_VCPU_NULL })

struct kn_boot_config {
	int image;                /* file to load; borrowed */
	uint64_t memory_bytes;    /* what the guest may use */
	int channel;              /* memfd of the channel, or -1 */
	uint64_t channel_bytes;
};

enum kn_step {
	KN_STEP_RUN,              /* enter the guest again */
	KN_STEP_NOTIFY,           /* tell the host to look at the channel, then enter again */
	KN_STEP_WAIT,             /* sleep until the bell; tell the host first when *ret_note */
	KN_STEP_END,              /* *end says how */
};

struct kn_boot_ops {
	const char *name;
	/** Is this image ours? head: its first KN_ELF_HEAD bytes, or all of a shorter one. */
	bool (*match)(struct kn_view head);
	/** Before the image is known: spend what time can be spent. The vCPU may be run. */
	int (*prepare)(struct kn_machine *m, struct kn_err *err);
	/** Lay out memory, load the image, set the registers. */
	int (*load)(struct kn_machine *m, const struct kn_boot_config *config, struct kn_err *err);
	/** The guest is about to be entered, for the first time or after waiting. */
	void (*enter)(struct kn_machine *m);
	/** KVM left the guest for a reason of its own. */
	enum kn_step (*exit)(struct kn_machine *m, bool *ret_note, struct kn_end *end);
	/** A number that changes when the guest has finished something: for time limits. */
	uint64_t (*progress)(const struct kn_machine *m);
	/** Has it begun with a call? Until then it is still starting. */
	bool (*called)(const struct kn_machine *m);
	/** Put where the guest is into a story of why it was ended from outside. */
	void (*describe)(struct kn_machine *m, struct kn_end *end);
	void (*unload)(struct kn_machine *m);
};

/** Release everything in reverse order. Fine on a null machine. */
static inline void kn_machine_fini(struct kn_machine *m)
{
	kn_vcpu_close(&m->vcpu);
	kn_kvm_close(&m->kvm);
	if (m->boot)
		m->boot->unload(m);
	kn_memory_fini(&m->memory);
	*m = KN_MACHINE_NULL;
}
