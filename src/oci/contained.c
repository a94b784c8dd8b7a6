#include "oci/contained.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
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

/* Where each hierarchy will be seen: /sys/fs/cgroup/memory, or all at /sys/fs/cgroup. */
static int count_cgroups(struct kn_contained *c, struct kn_err *err)
{
	struct kn_view rest = kn_view_of(c->names), name;

	while (rest.len > 0 && kn_view_split(&rest, ':', &name)) {
		if (c->n_cgroups == KN_CGROUP_MAX_DIRS || name.len == 0 || memchr(name.ptr, '/', name.len))
			return kn_fail(err, EINVAL, "cgroups '%.100s'", c->names);
		char *target = c->cgroups[c->n_cgroups++].target;
		if (kn_view_is(name, KN_VIEW(KN_CONTAINED_UNIFIED)))
			snprintf(target, sizeof(c->cgroups[0].target), "/sys/fs/cgroup");
		else
			snprintf(target, sizeof(c->cgroups[0].target), "/sys/fs/cgroup/%.*s",
			         (int)kn_min(name.len, (size_t)63), name.ptr);
	}
	return 0;
}

int kn_contained_init(struct kn_contained *c, int argc, char *const *argv, struct kn_err *err)
{
	uint64_t id = 0, bytes = 0;

	if (argc != KN_CONTAINED_ARGS)
		return kn_fail(err, EINVAL, "%d arguments; %d are expected", argc,
		               KN_CONTAINED_ARGS);
	int r = number(argv[KN_CONTAINED_ID_FIRST], UINT32_MAX, &id, err);
	if (r == 0)
		r = number(argv[KN_CONTAINED_ROOT_BYTES], UINT64_MAX, &bytes, err);
	if (r < 0)
		return r;
	*c = (struct kn_contained){ .dir = argv[KN_CONTAINED_DIR],
		                    .id_first = (uid_t)id,
		                    .root_bytes = bytes,
		                    .oom_fd = -1,
		                    .names = argv[KN_CONTAINED_CGROUPS] };
	r = count_cgroups(c, err);
	/* None of these is the function's business. */
	for (int fd = KN_CONTAINED_PIPE_FD; fd < KN_CONTAINED_CGROUP_FD + (int)c->n_cgroups; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	return r;
}

/* Its path on the host, which this mount namespace still has. Without one it is not shown. */
static void find_source(int fd, struct kn_contained_cgroup *g)
{
	char link[32];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, g->source, sizeof(g->source) - 1);
	g->source[n > 0 ? n : 0] = '\0';
}

/* The folders of the cgroup lead to the host's: they must not stay open. The first is memory's. */
static int join_cgroup(struct kn_contained *c, struct kn_err *err)
{
	bool unified = strcmp(c->names, KN_CONTAINED_UNIFIED) == 0;   /* it began in it */
	int r = 0;

	if (c->n_cgroups > 0)
		c->oom_fd = kn_cgroup_open_events(KN_CONTAINED_CGROUP_FD);
	for (unsigned i = 0; i < c->n_cgroups; i++) {
		int fd = KN_CONTAINED_CGROUP_FD + (int)i;
		if (r == 0 && !unified)
			r = kn_cgroup_join(fd, err);
		find_source(fd, &c->cgroups[i]);
		close(fd);
	}
	/* Now, so that this cgroup is the root of what the container sees. */
	if (r == 0 && unshare(CLONE_NEWCGROUP) < 0)
		r = kn_fail(err, errno, "a cgroup namespace: %s", strerror(errno));
	return r;
}

/*
 * Programs size their heaps by the limits that they find in /sys/fs/cgroup. There they see their own
 * cgroup and no other, and change nothing.
 */
static size_t list_mounts(struct kn_contained *c)
{
	static const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	bool unified = strcmp(c->names, KN_CONTAINED_UNIFIED) == 0;
	size_t n = kn_container_n_mounts;

	memcpy(c->mounts, kn_container_mounts, n * sizeof(c->mounts[0]));
	if (c->n_cgroups > 0 && !unified)
		c->mounts[n++] = (struct kn_container_mount){ .target = "/sys/fs/cgroup",
			                                      .type = "tmpfs",
			                                      .flags = flags,
			                                      .options = "size=4k,mode=0555" };
	for (unsigned i = 0; i < c->n_cgroups; i++)
		if (c->cgroups[i].source[0])
			c->mounts[n++] = (struct kn_container_mount){
				.target = c->cgroups[i].target,
				.type = "bind",
				.source = c->cgroups[i].source,
				.flags = MS_BIND | MS_RDONLY | flags,
			};
	return n;
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
		.mounts = c->mounts,
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
	c->config.n_mounts = list_mounts(c);
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
