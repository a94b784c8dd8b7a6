#include "oci/contained.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/mount.h"

enum { MAX_FILTER = 64 * 1024 };

static int number(const char *text, uint64_t max, uint64_t *ret, struct kn_err *err)
{
	return kn_parse_u64(kn_view_of(text), max, ret, err);
}

int kn_contained_init(struct kn_contained *c, int argc, char *const *argv, struct kn_err *err)
{
	uint64_t id = 0, bytes = 0, cgroups = 0;

	if (argc != KN_CONTAINED_ARGS)
		return kn_fail(err, EINVAL, "%d arguments; %d are expected", argc,
		               KN_CONTAINED_ARGS);
	int r = number(argv[KN_CONTAINED_ID_FIRST], UINT32_MAX, &id, err);
	if (r == 0)
		r = number(argv[KN_CONTAINED_ROOT_BYTES], UINT64_MAX, &bytes, err);
	if (r == 0)
		r = number(argv[KN_CONTAINED_CGROUPS], KN_CGROUP_MAX_DIRS, &cgroups, err);
	if (r < 0)
		return r;
	*c = (struct kn_contained){ .dir = argv[KN_CONTAINED_DIR],
		                    .id_first = (uid_t)id,
		                    .root_bytes = bytes,
		                    .oom_fd = -1,
		                    .cgroups = (unsigned)cgroups };
	/* None of these is the function's business. */
	for (int fd = KN_CONTAINED_PIPE_FD; fd < KN_CONTAINED_CGROUP_FD + (int)cgroups; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	return 0;
}

/* The folders of the cgroup lead to the host's: they must not stay open. The first is memory's. */
static int join_cgroup(struct kn_contained *c, struct kn_err *err)
{
	int r = 0;

	if (c->cgroups > 0)
		c->oom_fd = kn_cgroup_open_events(KN_CONTAINED_CGROUP_FD);
	for (unsigned i = 0; i < c->cgroups; i++) {
		int fd = KN_CONTAINED_CGROUP_FD + (int)i;
		if (r == 0)
			r = kn_cgroup_join(fd, err);
		close(fd);
	}
	/* Now, so that this cgroup is the root of what the container sees. */
	if (r == 0 && unshare(CLONE_NEWCGROUP) < 0)
		r = kn_fail(err, errno, "a cgroup namespace: %s", strerror(errno));
	return r;
}

/* The node's session keyring is inherited otherwise. A kernel without keys is fine. */
static void leave_keyring(void)
{
	/* syscalls: keyctl */
	(void)syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
}

static int make_root(struct kn_contained *c, struct kn_err *err)
{
	struct kn_container_overlay o = { .dir = c->dir,
		                          .image_fd = KN_CONTAINED_IMAGE_FD,
		                          .bytes = c->root_bytes };
	int r = kn_mount_private(err);

	if (r == 0)
		r = kn_container_overlay(&o, err);
	close(KN_CONTAINED_IMAGE_FD);
	return r;
}

int kn_contained_prepare(struct kn_contained *c, const struct kn_agent_message *m,
                         struct kn_err *err)
{
	/* The network namespace is the container's own: who binds which port there is its business. */
	static const struct kn_container_sysctl sysctls[] = {
		{ "net.ipv4.ip_unprivileged_port_start", "0" },
	};

	snprintf(c->hostname, sizeof(c->hostname), "%.*s", (int)kn_min(m->hostname.len, (size_t)64),
	         m->hostname.ptr ? m->hostname.ptr : "");
	snprintf(c->root, sizeof(c->root), "%.400s/root", c->dir);
	c->config = (struct kn_container_config){
		.namespaces = KN_CONTAINED_NAMESPACES | CLONE_NEWCGROUP,
		.root = c->root,
		.read_only_root = m->read_only_root,
		.mounts = kn_container_mounts,
		.n_mounts = kn_container_n_mounts,
		.devices = kn_container_devices,
		.n_devices = kn_container_n_devices,
		.masked_paths = kn_container_masked,
		.read_only_paths = kn_container_read_only,
		.sysctls = sysctls,
		.n_sysctls = KN_ARRAY_LEN(sysctls),
		.hostname = c->hostname[0] ? c->hostname : NULL,
		.userns_fd = KN_CONTAINED_USERNS_FD,
		.id_first = c->id_first,
	};
	int r = join_cgroup(c, err);
	leave_keyring();
	if (r == 0)
		r = make_root(c, err);
	return r < 0 ? r : kn_container_root(&c->config, err);
}

uint64_t kn_contained_oom_kills(const struct kn_contained *c)
{
	return c->oom_fd < 0 ? 0 : kn_oom_kills(c->oom_fd);
}

static int read_filter(struct kn_buf *ret, struct kn_err *err)
{
	char at[4096];
	ssize_t n;

	while ((n = pread(KN_CONTAINED_SECCOMP_FD, at, sizeof(at), (off_t)ret->len)) > 0 &&
	       ret->len < MAX_FILTER)
		kn_buf_add(ret, at, (size_t)n);
	close(KN_CONTAINED_SECCOMP_FD);
	if (n < 0 || ret->failed)
		return kn_fail(err, n < 0 ? errno : ENOMEM, "read the system call filter");
	return 0;
}

int kn_contained_seal(struct kn_contained *c, struct kn_err *err)
{
	static const struct kn_caps caps = { .bounding = KN_CAPS_CONTAINER,
		                             .permitted = KN_CAPS_CONTAINER,
		                             .effective = KN_CAPS_CONTAINER };
	struct kn_container_process p = { .caps = caps, .no_new_privs = true };
	kn_auto(kn_buf_fini) struct kn_buf filter = KN_BUF_INIT;

	int r = read_filter(&filter, err);
	if (r == 0)
		r = kn_container_close(&c->config, err);
	close(KN_CONTAINED_USERNS_FD);
	if (r < 0)
		return r;
	p.seccomp = kn_buf_view(&filter);
	r = kn_container_limit(&p, err);
	/* Cleared by the change of users. The pipe's end tells the same, a moment later. */
	if (r == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		r = kn_fail(err, errno, "PR_SET_PDEATHSIG: %s", strerror(errno));
	return r;
}
