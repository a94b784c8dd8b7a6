/*
 * User namespaces that stand for themselves: made once with a range of ids, kept as a descriptor,
 * entered by whoever needs it. Used by oci/sandbox_ns (a range for each container) and by the idmapped
 * mounts that go with it; serves the event flow.
 *
 * Thread  any
 * Source  user_namespaces(7)
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/**
 * Make a user namespace in which ids 0 .. count - 1 are first .. first + count - 1 of ours, users and
 * groups alike. It has no process.
 *
 * Returns a close-on-exec descriptor
 * Errors  EPERM without CAP_SETUID and CAP_SETGID; ENOSPC: user.max_user_namespaces, with what to do
 */
kn_must_use int kn_userns_new(uid_t first, uint32_t count, struct kn_err *err);

/**
 * Enter it as its user and group 0, with every capability there and none outside. Only for a process
 * with one thread; the death signal is cleared (prctl(2), PR_SET_PDEATHSIG).
 *
 * Errors  what setns and setresuid said
 */
kn_must_use int kn_userns_enter(int userns_fd, struct kn_err *err);
