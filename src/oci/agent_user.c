#include "oci/agent_user.h"

#include <errno.h>

enum { MAX_FIELDS = 7 };

/* A line's fields; false for lines that are not entries. */
static size_t split(struct kn_view line, struct kn_view fields[MAX_FIELDS])
{
	size_t n = 0;

	while (n < MAX_FIELDS && kn_view_split(&line, ':', &fields[n]))
		n++;
	return n;
}

static bool number(struct kn_view v, uint32_t *ret)
{
	uint64_t value;

	/* 2^32 - 1 means "no change" to the kernel */
	if (kn_parse_u64(v, UINT32_MAX - 1, &value, NULL) < 0)
		return false;
	*ret = (uint32_t)value;
	return true;
}

struct entry {
	struct kn_view name, home;
	uint32_t uid, gid;
};

/* passwd: name:password:uid:gid:gecos:home:shell */
static bool find_user(struct kn_view passwd, struct kn_view name, const uint32_t *uid,
                      struct entry *ret)
{
	struct kn_view line, f[MAX_FIELDS];

	while (kn_view_split(&passwd, '\n', &line)) {
		struct entry e;
		size_t n = split(line, f);
		if (n < 4 || !number(f[2], &e.uid) || !number(f[3], &e.gid))
			continue;
		if (uid ? e.uid != *uid : !kn_view_is(f[0], name))
			continue;
		e.name = f[0];
		e.home = n > 5 ? f[5] : KN_VIEW_NULL;
		*ret = e;
		return true;
	}
	return false;
}

/* group: name:password:gid:member,member */
static bool find_group(struct kn_view group, struct kn_view name, gid_t *ret)
{
	struct kn_view line, f[MAX_FIELDS];

	while (kn_view_split(&group, '\n', &line))
		if (split(line, f) >= 3 && kn_view_is(f[0], name) && number(f[2], ret))
			return true;
	return false;
}

static bool is_member(struct kn_view members, struct kn_view name)
{
	struct kn_view member;

	while (kn_view_split(&members, ',', &member))
		if (kn_view_is(member, name))
			return true;
	return false;
}

static void add_groups(struct kn_view group, struct kn_view name, struct kn_user *u)
{
	struct kn_view line, f[MAX_FIELDS];
	uint32_t gid;

	while (kn_view_split(&group, '\n', &line) && u->n_groups < KN_USER_MAX_GROUPS)
		if (split(line, f) >= 4 && number(f[2], &gid) && is_member(f[3], name))
			u->groups[u->n_groups++] = gid;
}

static int take_group(struct kn_view name, struct kn_view group, struct kn_user *u,
                      struct kn_err *err)
{
	if (number(name, &u->gid) || find_group(group, name, &u->gid))
		return 0;
	return kn_fail(err, ENOENT, "no group '%.*s' in the image's /etc/group", (int)name.len,
	               name.ptr);
}

int kn_user_resolve(struct kn_view user, struct kn_view passwd, struct kn_view group,
                    struct kn_user *ret, struct kn_err *err)
{
	struct kn_view rest = user, name = KN_VIEW_NULL, group_name = KN_VIEW_NULL;
	struct kn_user u = { .uid = 0 };
	struct entry e;
	uint32_t uid;

	(void)kn_view_split(&rest, ':', &name);
	bool has_group = kn_view_split(&rest, ':', &group_name) && group_name.len > 0;
	bool numeric = name.len == 0 || number(name, &u.uid);
	uid = u.uid;
	bool found = find_user(passwd, name, numeric ? &uid : NULL, &e);
	if (!found && !numeric)
		return kn_fail(err, ENOENT, "no user '%.*s' in the image's /etc/passwd",
		               (int)name.len, name.ptr);
	if (found) {
		u.uid = e.uid;
		u.gid = e.gid;
		u.home = e.home;
	}
	if (has_group) {
		int r = take_group(group_name, group, &u, err);
		if (r < 0)
			return r;
	} else if (found) {
		add_groups(group, e.name, &u);
	}
	*ret = u;
	return 0;
}
