#include "oci/agent_user.h"

#include "test.h"

static const struct kn_view PASSWD = KN_VIEW("root:x:0:0:root:/root:/bin/sh\n"
                                             "# a comment\n"
                                             "broken:x:not:1::\n"
                                             "app:x:1000:1001:An App:/home/app:/bin/false\n"
                                             "bare:x:7:8\n");
static const struct kn_view GROUP = KN_VIEW("root:x:0:\nstaff:x:50:app,other\n"
                                            "app:x:1001:\naudio:x:63:other,app");

static void users_and_groups_are_found(void **state)
{
	static const struct {
		const char *user;
		uid_t uid;
		gid_t gid;
		size_t n_groups;
		const char *home;
	} cases[] = {
		{ "", 0, 0, 0, "/root" },
		{ "root", 0, 0, 0, "/root" },
		{ "app", 1000, 1001, 2, "/home/app" },
		{ "1000", 1000, 1001, 2, "/home/app" },
		{ "app:staff", 1000, 50, 0, "/home/app" },
		{ "app:77", 1000, 77, 0, "/home/app" },
		{ "app:", 1000, 1001, 2, "/home/app" },
		{ "4242", 4242, 0, 0, "" },
		{ "4242:4343", 4242, 4343, 0, "" },
		{ "bare", 7, 8, 0, "" },
		{ ":staff", 0, 50, 0, "/root" },
	};
	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_user u;
		assert_ok(kn_user_resolve(kn_view_of(cases[i].user), PASSWD, GROUP, &u, &err), &err);
		if (u.uid != cases[i].uid || u.gid != cases[i].gid || u.n_groups != cases[i].n_groups)
			fail_msg("'%s' is %u:%u with %zu groups", cases[i].user, u.uid, u.gid,
			         u.n_groups);
		assert_view(u.home, cases[i].home);
	}
}

static void supplementary_groups_in_order(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_user u;

	(void)state;
	assert_ok(kn_user_resolve(KN_VIEW("app"), PASSWD, GROUP, &u, &err), &err);
	assert_int_equal(u.groups[0], 50);
	assert_int_equal(u.groups[1], 63);
}

static void unknown_names_are_told(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_user u;

	(void)state;
	assert_fails(kn_user_resolve(KN_VIEW("web"), PASSWD, GROUP, &u, &err), ENOENT, &err,
	             "no user 'web' in the image's /etc/passwd");
	assert_fails(kn_user_resolve(KN_VIEW("broken"), PASSWD, GROUP, &u, &err), ENOENT, &err, "broken");
	assert_fails(kn_user_resolve(KN_VIEW("app:nobody"), PASSWD, GROUP, &u, &err), ENOENT, &err,
	             "no group 'nobody'");
	assert_fails(kn_user_resolve(KN_VIEW("4294967295"), PASSWD, GROUP, &u, &err), ENOENT, &err,
	             "4294967295");
	assert_fails(kn_user_resolve(KN_VIEW("app"), KN_VIEW_NULL, KN_VIEW_NULL, &u, &err), ENOENT, &err,
	             "app");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(users_and_groups_are_found),
		cmocka_unit_test(supplementary_groups_in_order),
		cmocka_unit_test(unknown_names_are_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
