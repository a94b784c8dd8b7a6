#include "host/caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int kn_become(uid_t uid, gid_t gid, const gid_t *groups, size_t n, struct kn_err *err)
{
	/* syscalls: setgroups setresgid setresuid */
	if (syscall(SYS_setgroups, n, groups) < 0)
		return kn_fail(err, errno, "setgroups: %s", strerror(errno));
	if (syscall(SYS_setresgid, gid, gid, gid) < 0)
		return kn_fail(err, errno, "become group %u: %s", gid, strerror(errno));
	if (syscall(SYS_setresuid, uid, uid, uid) < 0)
		return kn_fail(err, errno, "become user %u: %s", uid, strerror(errno));
	return 0;
}

int kn_caps_bound(uint64_t mask, struct kn_err *err)
{
	for (int cap = 0; cap < 64; cap++) {
		int there = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
		if (there < 0)
			break;   /* past the last one that this kernel knows */
		if (there == 0 || (mask >> cap & 1))
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return kn_fail(err, errno, "drop capability %d: %s", cap, strerror(errno));
	}
	return 0;
}

static int raise_ambient(uint64_t mask, struct kn_err *err)
{
	for (int cap = 0; cap < 64; cap++)
		if ((mask >> cap & 1) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0 &&
		    errno != EINVAL && errno != EPERM)
			return kn_fail(err, errno, "ambient capability %d: %s", cap,
			               strerror(errno));
	return 0;
}

int kn_caps_set(const struct kn_caps *caps, struct kn_err *err)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct now[2], want[2];

	int r = kn_caps_bound(caps->bounding, err);
	if (r < 0)
		return r;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return kn_fail(err, errno, "clear ambient capabilities: %s", strerror(errno));
	/* syscalls: capget capset */
	if (syscall(SYS_capget, &head, now) < 0)
		return kn_fail(err, errno, "capget: %s", strerror(errno));
	for (int i = 0; i < 2; i++) {
		uint32_t have = now[i].permitted;
		uint32_t permitted = have & (uint32_t)(caps->permitted >> (32 * i));
		want[i] = (struct __user_cap_data_struct){
			.effective = permitted & (uint32_t)(caps->effective >> (32 * i)),
			.permitted = permitted,
			.inheritable = have & (uint32_t)(caps->inheritable >> (32 * i)),
		};
	}
	if (syscall(SYS_capset, &head, want) < 0)
		return kn_fail(err, errno, "capset: %s", strerror(errno));
	return raise_ambient(caps->ambient, err);
}

int kn_caps_limit(uint64_t mask, struct kn_err *err)
{
	return kn_caps_set(&(struct kn_caps){ .bounding = mask, .permitted = mask, .effective = mask },
	                   err);
}

int kn_no_new_privs(struct kn_err *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return kn_fail(err, errno, "PR_SET_NO_NEW_PRIVS: %s", strerror(errno));
	return 0;
}
