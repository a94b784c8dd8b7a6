/*
 * The jail of a monitor (QEMU, kiln-vmm): a process that is not trusted runs with a user of its own,
 * no capabilities, no way to gain any, in namespaces of its own (mount, PID, network, IPC, UTS), with
 * an almost empty read-only root, inside a cgroup. Used by the sandbox drivers.
 *
 * It needs root: without the right to change users there is no reduced jail, since a jail that
 * silently is none would be worse than an error.
 *
 * Thread  any; the process dies with the thread that started it
 */
#pragma once

#include "host/cgroup.h"
#include "host/mount.h"
#include "host/process.h"

struct kn_jail_config {
	const char *root_dir;              /* an existing folder: where the root is put together. It
	                                      looks empty from outside: the mount is the jail's own */
	const struct kn_bind *binds;
	size_t n_binds;
	const char *const *devices;        /* made anew in /dev for uid, NULL-terminated or NULL */
	const char *const *folders;        /* empty folders wanted in the root, NULL-terminated or NULL */
	uid_t uid;
	gid_t gid;
	const struct kn_cgroup *cgroup;    /* joined; may be NULL */
	const char *hostname;              /* NULL: "kiln" */
};

/** Can this process jail? Errors: EPERM, with what to do. */
kn_must_use int kn_jail_check(struct kn_err *err);

/**
 * Start a program in a jail. spawn's namespaces, new_session, die_with_us, setup and arg are set
 * here; its path is one inside the jail.
 *
 * Errors  as kn_spawn(), and what the jail's parts said
 * Thread  see kn_spawn()
 */
kn_must_use int kn_jail_spawn(const struct kn_jail_config *jail, const struct kn_spawn_config *spawn,
                              pid_t *ret_pid, int *ret_pidfd, struct kn_err *err);

/**
 * Jail the calling process, when it has opened all that it will ever need: namespaces of its own
 * (mount, network, IPC, UTS), an empty read-only root, this user, no capabilities and no way to gain
 * any. What it holds open keeps working.
 *
 * Errors  EPERM: it may not; what the kernel said. After a failure it must end: half of it is done.
 * Thread  the only one of its process
 */
kn_must_use int kn_jail_self(uid_t uid, gid_t gid, struct kn_err *err);

/**
 * Take a user id of first .. first + count - 1 that no living jail of this process has.
 * Errors  EUSERS
 */
kn_must_use int kn_jail_take_uid(uid_t first, uint32_t count, uid_t *ret, struct kn_err *err);

/** Give it back, when no process has it any more. */
void kn_jail_give_uid(uid_t uid);
