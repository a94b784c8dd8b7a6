#include "host/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/caps.h"

enum { MAX_UIDS = 65536 };

/* The whole story of a jail, in the child, between clone and execve. */
static int mount_root(const struct kn_jail_config *j, struct kn_err *err)
{
	int r = kn_mount_private(err);
	if (r == 0)
		r = kn_mount("jail", j->root_dir, "tmpfs", MS_NOSUID | MS_NODEV, "size=256k,mode=0755",
		             err);
	for (size_t i = 0; i < j->n_binds && r == 0; i++)
		r = kn_bind_into(j->root_dir, &j->binds[i], err);
	return r;
}

/* The one place of the root where device nodes work; nothing else is in it. */
static int make_devices(const struct kn_jail_config *j, struct kn_err *err)
{
	static const unsigned long flags = MS_NOSUID | MS_NOEXEC;
	char dev[512];
	int r = 0;

	if (!j->devices)
		return 0;
	snprintf(dev, sizeof(dev), "%.500s/dev", j->root_dir);
	if (mkdir(dev, 0755) < 0)
		return kn_fail(err, errno, "make folder %s: %s", dev, strerror(errno));
	r = kn_mount("devices", dev, "tmpfs", flags, "size=16k,mode=0755", err);
	for (size_t i = 0; r == 0 && j->devices[i]; i++)
		r = kn_device_into(j->root_dir, j->devices[i], j->uid, j->gid, err);
	return r < 0 ? r : kn_mount(NULL, dev, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL,
	                            err);
}

static int make_folders(const struct kn_jail_config *j, struct kn_err *err)
{
	char path[512];

	for (size_t i = 0; j->folders && j->folders[i]; i++) {
		snprintf(path, sizeof(path), "%.255s%.255s", j->root_dir, j->folders[i]);
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return kn_fail(err, errno, "make folder %s: %s", path, strerror(errno));
	}
	return 0;
}

static int close_root(struct kn_err *err)
{
	return kn_mount(NULL, "/", NULL,
	                MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL,
	                err);
}

static int set_name(const struct kn_jail_config *j, struct kn_err *err)
{
	const char *name = j->hostname ? j->hostname : "kiln";

	if (sethostname(name, strlen(name)) < 0)
		return kn_fail(err, errno, "name the jail: %s", strerror(errno));
	return 0;
}

/* Cgroup first, since it needs the host's paths no more but root's rights; the user last. */
static int enter(void *arg, struct kn_err *err)
{
	const struct kn_jail_config *j = arg;

	int r = j->cgroup ? kn_cgroup_add(j->cgroup, 0, err) : 0;
	if (r == 0)
		r = mount_root(j, err);
	if (r == 0)
		r = make_devices(j, err);
	if (r == 0)
		r = make_folders(j, err);
	if (r == 0)
		r = kn_pivot_root(j->root_dir, err);
	if (r == 0)
		r = close_root(err);
	if (r == 0)
		r = set_name(j, err);
	if (r == 0)
		r = kn_caps_bound(0, err);
	if (r == 0)
		r = kn_become(j->uid, j->gid, NULL, 0, err);
	if (r == 0)
		r = kn_caps_limit(0, err);
	return r < 0 ? r : kn_no_new_privs(err);
}

int kn_jail_spawn(const struct kn_jail_config *jail, const struct kn_spawn_config *spawn,
                  pid_t *ret_pid, int *ret_pidfd, struct kn_err *err)
{
	struct kn_spawn_config s = *spawn;

	s.namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
	s.new_session = true;
	s.die_with_us = true;
	s.setup = enter;
	s.arg = (void *)(uintptr_t)jail;
	if (kn_spawn(&s, ret_pid, ret_pidfd, err) < 0)
		return kn_while(err, "jail");
	return 0;
}

int kn_jail_self(uid_t uid, gid_t gid, struct kn_err *err)
{
	static const int namespaces = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
	static const char root[] = "/tmp";   /* any folder will do: it is covered and then left */

	if (unshare(namespaces) < 0)
		return kn_fail(err, errno, "jail: namespaces: %s", strerror(errno));
	int r = kn_mount_private(err);
	if (r == 0)
		r = kn_mount("jail", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=4k,mode=0755", err);
	if (r == 0)
		r = kn_pivot_root(root, err);
	if (r == 0)
		r = close_root(err);
	if (r == 0)
		r = kn_caps_bound(0, err);
	if (r == 0)
		r = kn_become(uid, gid, NULL, 0, err);
	if (r == 0)
		r = kn_caps_limit(0, err);
	if (r == 0)
		r = kn_no_new_privs(err);
	return r < 0 ? kn_while(err, "jail") : 0;
}

int kn_jail_check(struct kn_err *err)
{
	static const int needed[] = { CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_SETPCAP };
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct now[2];

	if (syscall(SYS_capget, &head, now) < 0)
		return kn_fail(err, errno, "capget: %s", strerror(errno));
	for (size_t i = 0; i < KN_ARRAY_LEN(needed); i++)
		if (!(now[0].effective >> needed[i] & 1))
			return kn_fail(err, EPERM, "a jail needs root (capability %d is missing): start "
			               "kilnd as root, or with CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID "
			               "and CAP_SETPCAP", needed[i]);
	return 0;
}

/* ---- user ids ------------------------------------------------------------------------------ */

/* Which ids are taken, by offset from the first one of the process's range; a bit each. */
static struct {
	pthread_mutex_t lock;
	uid_t first;
	size_t taken;
	uint64_t bits[MAX_UIDS / 64];
	uint32_t next;   /* the search goes on where it ended: an id rests before it is used again */
} uids = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int take_locked(uid_t first, uint32_t count, uid_t *ret, struct kn_err *err)
{
	if (uids.taken == 0)
		uids.first = first;
	else if (uids.first != first)
		return kn_fail(err, EINVAL, "two ranges of user ids for jails: %u and %u",
		               uids.first, first);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t at = (uids.next + i) % count;
		if (uids.bits[at / 64] >> (at % 64) & 1)
			continue;
		uids.bits[at / 64] |= UINT64_C(1) << (at % 64);
		uids.taken++;
		uids.next = at + 1;
		*ret = first + at;
		return 0;
	}
	return kn_fail(err, EUSERS, "all %u user ids for jails are in use", count);
}

int kn_jail_take_uid(uid_t first, uint32_t count, uid_t *ret, struct kn_err *err)
{
	if (first == 0 || count == 0 || count > MAX_UIDS || first > UINT32_MAX - count)
		return kn_fail(err, EINVAL, "user ids for jails: %u from %u on; 1 to %d are possible, "
		               "never 0", count, first, MAX_UIDS);
	pthread_mutex_lock(&uids.lock);
	int r = take_locked(first, count, ret, err);
	pthread_mutex_unlock(&uids.lock);
	return r;
}

void kn_jail_give_uid(uid_t uid)
{
	pthread_mutex_lock(&uids.lock);
	uint32_t at = uid - uids.first;
	if (uid >= uids.first && at < MAX_UIDS && (uids.bits[at / 64] >> (at % 64) & 1)) {
		uids.bits[at / 64] &= ~(UINT64_C(1) << (at % 64));
		uids.taken--;
	}
	pthread_mutex_unlock(&uids.lock);
}
