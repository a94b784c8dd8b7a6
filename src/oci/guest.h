/*
 * What makes a Linux guest ready for the agent, and for a function: kernel file systems, drivers, the
 * port to the host, the function's root, clock, entropy, loopback. Called by kiln-agent as the first
 * process of a guest, nowhere else.
 *
 * Thread  the only one
 */
#pragma once

#include "base/str.h"

/**
 * From the initramfs to a machine that can reach its host: /proc, /sys, /dev, drivers from /modules
 * in the order of /modules/order, loopback. Errors: what failed; the guest is of no use then.
 *
 * Drivers of devices that differ from function to function (/modules/late) wait for kn_guest_root():
 * a guest that is restored from a snapshot of this moment looks at its own disk, not at the one that
 * the snapshot was made with.
 */
kn_must_use int kn_guest_boot(struct kn_err *err);

/**
 * Open the virtio-serial port that is named so ("kiln.agent"), non-blocking.
 * Errors  ENODEV; what open said
 */
kn_must_use int kn_guest_port(const char *name, struct kn_err *err);

/**
 * Make the image the root: /dev/vda (erofs) with a writable layer in memory, /proc, /sys, /dev, /tmp
 * and what programs expect beside them. The initramfs is emptied: nothing of it is needed any more.
 *
 * hostname  of the guest; empty: "kiln"
 *
 * Errors  what mount said, as the author of an image would understand it
 */
kn_must_use int kn_guest_root(struct kn_view hostname, struct kn_err *err);

/**
 * Give the guest its interface: load the driver from /modules/network, set address and default route.
 * Before kn_guest_root(), which removes the modules.
 *
 * address  "169.254.75.2/30"; gateway "169.254.75.1"
 *
 * Errors  EINVAL; ENODEV: QEMU was started without the device; what the kernel said
 */
kn_must_use int kn_guest_network(struct kn_view address, struct kn_view gateway,
                                 struct kn_err *err);

/** Make dns the name server of the function: /etc/resolv.conf, after kn_guest_root(). */
kn_must_use int kn_guest_resolver(struct kn_view dns, struct kn_err *err);

/**
 * Give this machine its name and new identifiers (boot id, machine id): at the root's making, and
 * again when the guest was restored from a snapshot, which has those of another. Greet first.
 */
kn_must_use int kn_guest_name(struct kn_view hostname, struct kn_err *err);

/**
 * Make a place for the function's processes, of which there may be max at once (threads count).
 * Before kn_guest_root(): afterwards nothing of it can be reached by a path. Returns the descriptor
 * for kn_guest_enter().
 *
 * Errors  what mount and the kernel's cgroups said
 */
kn_must_use int kn_guest_processes(uint64_t max, struct kn_err *err);

/** Put the calling process there. Between fork and exec. */
kn_must_use int kn_guest_enter(int processes, struct kn_err *err);

/** Set the wall clock and stir entropy in. Failures are left alone: a guest runs without. */
void kn_guest_greet(uint64_t wall_ns, struct kn_view entropy);

/** Power off; does not return. */
_Noreturn void kn_guest_power_off(void);
