/*
 * A node on this machine that `kiln up` starts and `kiln down` ends, known by its state folder.
 *
 * Thread  one
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"

enum { KN_LOCAL_PATH = 4096 };

/**
 * The state folder: what was given, else KILN_STATE, else /var/lib/kiln for root and
 * ~/.local/state/kiln for others; into out.
 *
 * Errors  ENOENT no HOME; ENAMETOOLONG
 */
kn_must_use int kn_local_state(const char *given, char out[KN_LOCAL_PATH], struct kn_err *err);

/**
 * Is there a kilnd that holds the lock of this folder? A number in a stale file is not believed.
 *
 * ret_pid    its process; 0: there is none
 * ret_pidfd  of it, yours to close; may be NULL
 *
 * Errors  what opening the folder's lock said, but not that it is missing; EPERM it is another
 *         program
 */
kn_must_use int kn_local_find(const char *state, pid_t *ret_pid, int *ret_pidfd,
			      struct kn_err *err);

/** A program beside this one, or in PATH. Errors: ENOENT; ENAMETOOLONG */
kn_must_use int kn_local_program(const char *name, char out[KN_LOCAL_PATH], struct kn_err *err);
