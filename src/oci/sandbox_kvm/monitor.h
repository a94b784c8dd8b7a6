/* kiln-vmm processes: spawning one, and the pool of prepared ones. */
#pragma once

#include <spawn.h>

#include "oci/sandbox_kvm.h"

/* A monitor that waits for its hello, or has it. */
struct kvm_monitor {
	pid_t pid;                  /* our child, not yet reaped */
	int sock;                   /* ours; its end ends the monitor */
};

/*
 * Spawn a monitor. hello is called with our end of the socket before the process exists, so that it
 * finds everything when it looks; NULL makes a prepared shell.
 */
int kvm_monitor_spawn(const char *vmm, const char *device,
                      int (*hello)(int sock, void *arg, struct kn_err *err), void *arg,
                      struct kvm_monitor *ret, struct kn_err *err);

/* Take a prepared one. False when there is none. */
bool kvm_shells_take(struct kn_shells *s, struct kvm_monitor *ret);
