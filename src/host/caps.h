/*
 * Giving up privileges: user and group, capabilities, no_new_privs. Raw system calls only, since
 * these run between clone and execve in a child that shares memory with its parent (host/process.h);
 * libc's setuid would change every thread of the parent.
 *
 * Thread  the calling thread alone: use it in a process with one thread
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* What a container keeps by convention (Docker's default set); bits are capability numbers. */
#define KN_CAPS_CONTAINER UINT64_C(0x00000000a80425fb)

/**
 * Become uid and gid for good, with exactly these supplementary groups (n may be 0).
 * Capabilities go when uid is not 0. Errors: EPERM.
 */
kn_must_use int kn_become(uid_t uid, gid_t gid, const gid_t *groups, size_t n, struct kn_err *err);

/**
 * Reduce the bounding set and the inheritable, permitted, effective and ambient sets to mask (0:
 * none at all). Errors: what prctl and capset said; capabilities that are not there are fine.
 */
kn_must_use int kn_caps_limit(uint64_t mask, struct kn_err *err);

/** Sets of capabilities; bits are capability numbers. */
struct kn_caps {
	uint64_t bounding, permitted, effective, inheritable, ambient;
};

/**
 * Have exactly these, of what the process has now: sets that hold more than the permitted one get
 * what is there. Ambient needs permitted and inheritable. Errors: as kn_caps_limit().
 */
kn_must_use int kn_caps_set(const struct kn_caps *caps, struct kn_err *err);

/** Reduce the bounding set alone: what a later program can ever regain. */
kn_must_use int kn_caps_bound(uint64_t mask, struct kn_err *err);

/** No program run from now on gains privileges. */
kn_must_use int kn_no_new_privs(struct kn_err *err);
