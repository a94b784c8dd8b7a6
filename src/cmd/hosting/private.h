/* What the files of cmd/hosting share. */
#pragma once

#include "cmd/hosting.h"
#include "machine/probe.h"
#include "oci/sandbox_kvm.h"
#include "oci/sandbox_nf.h"
#include "oci/sandbox_ns.h"
#include "oci/sandbox_qemu.h"

/* How a class stands on this host. */
enum kn_class_state {
	KN_CLASS_WORKS,
	KN_CLASS_LACKS,	  /* a part is missing that a command installs, or a right */
	KN_CLASS_REFUSED, /* this host cannot, whatever is installed */
	KN_CLASS_PLANNED, /* no such driver yet */
};

enum kn_part_state {
	KN_PART_GOOD,
	KN_PART_LIMITED, /* works with a loss that `found` tells */
	KN_PART_MISSING,
};

/* One thing that was looked for. Strings live in the arena or are static. */
struct kn_part {
	const char *name;
	enum kn_part_state state;
	const char *found; /* what is there: path, version, measurement */
	const char *needed_for;
	const char *fix; /* the command that brings it; NULL when it is good */
};

enum { KN_MAX_PARTS = 16 };

struct kn_hosting {
	struct kn_arena arena;
	const char *lib_dir, *vmm, *nf, *agent, *kvm_device;
	struct kn_probe probe;
	struct kn_sandbox_qemu_config qemu;
	struct kn_sandbox_kvm_config kvm;
	struct kn_ns_config ns_config;
	struct kn_ns *ns; /* NULL: containers are refused */
	struct kn_nf *chains; /* NULL: packet functions are refused */
	struct kn_engine_class classes[KN_CLASSES];
	enum kn_class_state states[KN_CLASSES];
	const char *security[KN_CLASSES]; /* what isolates, and what is promised */
	struct kn_part parts[KN_MAX_PARTS];
	size_t n_parts;
	bool network; /* functions can have one */
	bool failed; /* memory was out */
};

/** Look at everything that the classes need; fills h->parts. */
void kn_hosting_look(struct kn_hosting *h);

/** The part of this name; NULL: it was not looked for. */
const struct kn_part *kn_hosting_part(const struct kn_hosting *h, const char *name);

const char *kn_class_state_name(enum kn_class_state s);
const char *kn_part_state_name(enum kn_part_state s);
