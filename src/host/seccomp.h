/*
 * Installing a compiled filter of system calls. Apart from its compilation (host/seccomp_profile), so
 * that what runs inside a container needs no library for it. Used by oci/container.
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
