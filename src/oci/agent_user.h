/*
 * The User of an image's configuration ("app", "1000", "app:staff", "1000:1000") turned into numbers
 * by the image's own /etc/passwd and /etc/group. Used by kiln-agent in the guest.
 *
 * Thread  keeps no state
 * Source  OCI image specification, config.md, User
 */
#pragma once

#include <sys/types.h>

#include "base/str.h"

enum { KN_USER_MAX_GROUPS = 64 };

struct kn_user {
	uid_t uid;
	gid_t gid;
	gid_t groups[KN_USER_MAX_GROUPS];   /* supplementary */
	size_t n_groups;
	struct kn_view home;                /* into passwd; empty when it names none */
};

/**
 * Resolve user.
 *
 * passwd, group   the content of the image's files; empty when it has none
 *
 * A number needs no entry. Without a group in user, the primary and supplementary groups of the
 * entry apply, or group 0 when there is no entry.
 *
 * Errors  ENOENT: "no user 'app' in the image's /etc/passwd"; EINVAL
 */
kn_must_use int kn_user_resolve(struct kn_view user, struct kn_view passwd, struct kn_view group,
                                struct kn_user *ret, struct kn_err *err);
