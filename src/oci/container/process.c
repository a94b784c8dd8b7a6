/* What a process of a container keeps: the order is that in which each step still has its rights. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/caps.h"
#include "host/seccomp.h"
#include "oci/container.h"

static int set_rlimits(const struct kn_container_process *p, struct kn_err *err)
{
	for (size_t i = 0; i < p->n_rlimits; i++) {
		struct rlimit64 v = { .rlim_cur = p->rlimits[i].soft, .rlim_max = p->rlimits[i].hard };
		if (syscall(SYS_prlimit64, 0, p->rlimits[i].resource, &v, NULL) < 0)
			return kn_fail(err, errno, "limit of resource %d: %s", p->rlimits[i].resource,
			               strerror(errno));
	}
	return 0;
}

static int set_oom_score(int value, struct kn_err *err)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", value);

	kn_auto(kn_close) int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)n) < 0)
		return kn_fail(err, errno, "oom_score_adj = %d: %s", value, strerror(errno));
	return 0;
}

static int become(const struct kn_container_process *p, struct kn_err *err)
{
	int r = kn_caps_bound(p->caps.bounding, err);

	/* The permitted set goes with the user, unless it is asked to stay until kn_caps_set(). */
	if (r == 0 && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		r = kn_fail(err, errno, "PR_SET_KEEPCAPS: %s", strerror(errno));
	if (r == 0)
		r = kn_become(p->uid, p->gid, p->groups, p->n_groups, err);
	if (r == 0)
		r = kn_caps_set(&p->caps, err);
	return r;
}

int kn_container_limit(const struct kn_container_process *p, struct kn_err *err)
{
	int r = set_rlimits(p, err);

	if (r == 0 && p->has_oom_score_adj)
		r = set_oom_score(p->oom_score_adj, err);
	/* A filter without no_new_privs needs CAP_SYS_ADMIN, which goes with the user. */
	if (r == 0 && p->seccomp.len > 0 && !p->no_new_privs)
		r = kn_seccomp_load(p->seccomp, err);
	if (r == 0)
		r = become(p, err);
	if (r == 0 && p->cwd && chdir(p->cwd) < 0)
		r = kn_fail(err, errno, "working directory '%s': %s", p->cwd, strerror(errno));
	if (r == 0 && p->has_umask)
		umask(p->umask);
	if (r == 0 && p->no_new_privs)
		r = kn_no_new_privs(err);
	if (r == 0 && p->seccomp.len > 0 && p->no_new_privs)
		r = kn_seccomp_load(p->seccomp, err);
	return r;
}
