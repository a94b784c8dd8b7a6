/* What a config alone tells about whether it can work. */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "oci/container.h"

static bool plain_path(const char *path)
{
	struct kn_view rest = kn_view_of(path), part;

	if (!path || path[0] != '/')
		return false;
	while (kn_view_split(&rest, '/', &part))
		if (kn_view_is(part, KN_VIEW("..")))
			return false;
	return true;
}

static int check_path(const char *path, const char *what, struct kn_err *err)
{
	if (!plain_path(path))
		return kn_fail(err, EINVAL, "%s '%.100s' is not absolute, or holds '..'", what,
		               path ? path : "");
	return 0;
}

static int check_paths(const char *const *list, const char *what, struct kn_err *err)
{
	int r = 0;

	for (; list && *list && r == 0; list++)
		r = check_path(*list, what, err);
	return r;
}

static int check_mounts(const struct kn_container_config *c, struct kn_err *err)
{
	size_t binds = 0;
	int r = 0;

	for (size_t i = 0; i < c->n_mounts && r == 0; i++) {
		const struct kn_container_mount *m = &c->mounts[i];
		r = check_path(m->target, "mount target", err);
		if (r == 0 && !m->type)
			return kn_fail(err, EINVAL, "mount on %s has no type", m->target);
		if (r == 0 && strcmp(m->type, "bind") == 0) {
			r = check_path(m->source, "source of a bind mount", err);
			binds++;
		}
	}
	if (r == 0 && binds > KN_CONTAINER_MAX_BINDS)
		return kn_fail(err, EINVAL, "%zu bind mounts, at most %d", binds,
		               KN_CONTAINER_MAX_BINDS);
	return r;
}

static int check_devices(const struct kn_container_config *c, struct kn_err *err)
{
	int r = 0;

	for (size_t i = 0; i < c->n_devices && r == 0; i++) {
		r = check_path(c->devices[i].path, "device", err);
		if (r == 0 && strncmp(c->devices[i].path, "/dev/", 5) != 0)
			r = kn_fail(err, EINVAL, "device %s is not in /dev", c->devices[i].path);
	}
	return r;
}

static bool joined(const struct kn_container_config *c, int type)
{
	for (size_t i = 0; i < c->n_joins; i++)
		if (c->joins[i].type == type)
			return true;
	return false;
}

static int check_joins(const struct kn_container_config *c, struct kn_err *err)
{
	static const int possible[] = { CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP };

	for (size_t i = 0; i < c->n_joins; i++) {
		bool known = false;
		for (size_t k = 0; k < KN_ARRAY_LEN(possible); k++)
			known = known || possible[k] == c->joins[i].type;
		if (!known)
			return kn_fail(err, EINVAL, "namespace %s: of this type (0x%x) none can be "
			               "entered by a process that runs already", c->joins[i].path,
			               (unsigned)c->joins[i].type);
		if (c->namespaces & (uint64_t)c->joins[i].type)
			return kn_fail(err, EINVAL, "namespace %s is to be entered, but the process "
			               "has one of its own", c->joins[i].path);
		int r = check_path(c->joins[i].path, "namespace", err);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool has(const struct kn_container_config *c, int type)
{
	return (c->namespaces & (uint64_t)type) || joined(c, type);
}

/* A sysctl of the host's must not be written: only those that a namespace keeps apart. */
static int check_sysctl(const struct kn_container_config *c, const char *name, struct kn_err *err)
{
	static const struct {
		const char *prefix;
		int namespace;
	} apart[] = { { "net.", CLONE_NEWNET },          { "fs.mqueue.", CLONE_NEWIPC },
		      { "kernel.msg", CLONE_NEWIPC },    { "kernel.shm", CLONE_NEWIPC },
		      { "kernel.sem", CLONE_NEWIPC },    { "kernel.domainname", CLONE_NEWUTS },
		      { "kernel.hostname", CLONE_NEWUTS } };

	if (strchr(name, '/') || strstr(name, ".."))
		return kn_fail(err, EINVAL, "sysctl '%.60s': write its name with single dots", name);
	for (size_t i = 0; i < KN_ARRAY_LEN(apart); i++) {
		if (strncmp(name, apart[i].prefix, strlen(apart[i].prefix)) != 0)
			continue;
		if (c->namespaces & (uint64_t)apart[i].namespace)
			return 0;
		return kn_fail(err, EINVAL, "sysctl %.60s needs a namespace of the container's own",
		               name);
	}
	return kn_fail(err, EINVAL, "sysctl %.60s belongs to the host: no namespace keeps it apart",
	               name);
}

int kn_container_check(const struct kn_container_config *c, struct kn_err *err)
{
	int r = check_path(c->root, "root", err);

	if (r == 0 && !c->initramfs && !(c->namespaces & CLONE_NEWNS))
		r = kn_fail(err, EINVAL, "a container needs a mount namespace of its own");
	if (r == 0 && c->hostname && !c->initramfs && !has(c, CLONE_NEWUTS))
		r = kn_fail(err, EINVAL, "host name '%.64s' without a UTS namespace would be the "
		            "host's", c->hostname);
	if (r == 0)
		r = check_joins(c, err);
	if (r == 0)
		r = check_mounts(c, err);
	if (r == 0)
		r = check_devices(c, err);
	if (r == 0)
		r = check_paths(c->masked_paths, "masked path", err);
	if (r == 0)
		r = check_paths(c->read_only_paths, "read-only path", err);
	for (size_t i = 0; i < c->n_sysctls && r == 0; i++)
		r = check_sysctl(c, c->sysctls[i].name, err);
	return r;
}
