/*
 * Installing a filter of system calls. Apart from the compilation of a container's
 * (host/seccomp_profile), so that what runs inside it needs no library for it; and the short filter of
 * a program of our own that knows what it calls. Used by oci/container and kiln-nf.
 *
 * Thread  the calling thread and what it starts from now on
 */
#pragma once

#include "base/str.h"

/**
 * Install a filter for good: an array of struct sock_filter, as kn_seccomp_compile() makes it. Raw,
 * without allocation: fit for kn_spawn()'s setup.
 *
 * Errors  EINVAL not such an array; EACCES without no_new_privs and without CAP_SYS_ADMIN
 * Source  seccomp(2)
 */
kn_must_use int kn_seccomp_load(struct kn_view filter, struct kn_err *err);

enum { KN_SECCOMP_LIST_MAX = 128 };

/**
 * Install a filter for good that lets only these system calls through, by their numbers on x86-64
 * (SYS_...); every other one fails with EPERM, and one of another kind of machine ends the process.
 *
 * Errors  EINVAL more than KN_SECCOMP_LIST_MAX; else as kn_seccomp_load()
 */
kn_must_use int kn_seccomp_allow(const long *calls, size_t n, struct kn_err *err);
