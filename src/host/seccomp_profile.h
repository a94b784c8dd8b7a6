/*
 * The filter of system calls that a container gets by default: what OCI engines agree on, as a table
 * of our own. Compiled once, in the node; kn_seccomp_load() installs it where it counts. Called by
 * oci/sandbox_ns; serves the event flow.
 *
 * What is not in the table fails with EPERM. What is newer than the table fails with ENOSYS, so that
 * libraries fall back to what they used before it existed; so does clone3, whose flags a filter
 * cannot see. Some calls are there only with a capability, and some only with harmless arguments:
 * clone without new namespaces, personality without address space tricks, socket without vsock.
 *
 * Thread  any; keeps no state
 * Source  OCI runtime-spec, config-linux.md, Seccomp
 */
#pragma once

#include <stdint.h>

#include "base/str.h"

/**
 * Compile the filter for a process with these capabilities (a bit each). Takes some milliseconds.
 *
 * ret     the program's bytes are appended
 *
 * Errors  ENOMEM; what libseccomp said
 */
kn_must_use int kn_seccomp_compile(uint64_t caps, struct kn_buf *ret, struct kn_err *err);
