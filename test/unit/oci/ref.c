#include "oci/ref.h"

#include "test.h"

#define DIGEST "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static void references_are_taken_apart(void **state)
{
	static const struct {
		const char *text, *name, *tag, *digest, *canonical;
	} cases[] = {
		{ "telemetry", "telemetry", "latest", "", "telemetry:latest" },
		{ "telemetry:1.0-rc_2", "telemetry", "1.0-rc_2", "", "telemetry:1.0-rc_2" },
		{ "a/b/c:T", "a/b/c", "T", "", "a/b/c:T" },
		{ "localhost/a", "localhost/a", "latest", "", "localhost/a:latest" },
		{ "localhost:5000/a", "localhost:5000/a", "latest", "", "localhost:5000/a:latest" },
		{ "Reg.Example:443/a__b.c--d:x", "Reg.Example:443/a__b.c--d", "x", "",
		  "Reg.Example:443/a__b.c--d:x" },
		{ "a@" DIGEST, "a", "", DIGEST, "a@" DIGEST },
		{ "a:t@" DIGEST, "a", "t", DIGEST, "a:t" },
		{ "localhost:5000", "localhost", "5000", "", "localhost:5000" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_ref ref;
		char text[KN_REF_MAX];
		assert_ok(kn_ref_parse(kn_view_of(cases[i].text), &ref, &err), &err);
		assert_string_equal(ref.name, cases[i].name);
		assert_string_equal(ref.tag, cases[i].tag);
		assert_string_equal(ref.digest.text, cases[i].digest);
		kn_ref_text(&ref, text);
		assert_string_equal(text, cases[i].canonical);
	}
}

static void wrong_references_are_refused(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "needs a name" },
		{ ":tag", "needs a name" },
		{ "@" DIGEST, "needs a name" },
		{ "Upper", "'Upper' is not a name" },
		{ "a//b", "'' is not a name" },
		{ "/a", "'' is not a name" },
		{ "a/", "'' is not a name" },
		{ "../a", "'..' is not a registry" },
		{ "a/../b", "'..' is not a name" },
		{ "a/b_", "'b_' is not a name" },
		{ "a___b", "is not a name" },
		{ "-a", "is not a name" },
		{ "a b", "is not a name" },
		{ "a:", "tag ''" },
		{ "a:-x", "tag '-x'" },
		{ "a:x y", "tag 'x y'" },
		{ "host.x:0/a", "is not a registry" },
		{ "host.x:99999/a", "is not a registry" },
		{ "host.x:/a", "is not a registry" },
		{ ".x/a", "is not a registry" },
		{ "x..y/a", "is not a registry" },
		{ "x-.y/a", "is not a registry" },
		{ "x.y:/a", "is not a registry" },
		{ "a@sha256:12", "64 lower-case hex" },
		{ "a@b@c", "not a digest" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_ref ref;
		assert_fails(kn_ref_parse(kn_view_of(cases[i].text), &ref, &err), EINVAL, &err,
		             cases[i].says);
	}
}

static void lengths_have_limits(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_ref ref;
	char name[300], tag[200] = "a:";

	(void)state;
	memset(name, 'a', sizeof(name));
	assert_ok(kn_ref_parse((struct kn_view){ name, 255 }, &ref, &err), &err);
	assert_fails(kn_ref_parse((struct kn_view){ name, 256 }, &ref, &err), EINVAL, &err,
	             "longer than 255");
	memset(tag + 2, 't', 150);
	assert_ok(kn_ref_parse((struct kn_view){ tag, 2 + 128 }, &ref, &err), &err);
	assert_fails(kn_ref_parse((struct kn_view){ tag, 2 + 129 }, &ref, &err), EINVAL, &err,
	             "1 to 128");
}

static void nul_bytes_are_no_way_around(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_ref ref;

	(void)state;
	assert_fails(kn_ref_parse(KN_VIEW("a\0b"), &ref, &err), EINVAL, &err, "not a name");
	assert_fails(kn_ref_parse(KN_VIEW("a:t\0b"), &ref, &err), EINVAL, &err, "tag");
}

static void registry_is_told_from_the_repository(void **state)
{
	static const struct {
		const char *text, *host, *repository;
	} cases[] = {
		{ "localhost:5000/a/b:1", "localhost:5000", "a/b" },
		{ "r.example/a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		  "r.example", "a" },
		{ "localhost/a", "localhost", "a" },
		{ "team/app:1", NULL, NULL },
		{ "app", NULL, NULL },
		{ "r.example", NULL, NULL },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_view host = KN_VIEW_NULL, repository = KN_VIEW_NULL;
		struct kn_err err = KN_ERR_INIT;
		struct kn_ref ref;
		assert_ok(kn_ref_parse(kn_view_of(cases[i].text), &ref, &err), &err);
		assert_int_equal(kn_ref_registry(&ref, &host, &repository), cases[i].host != NULL);
		assert_true(kn_view_is(host, kn_view_of(cases[i].host)));
		assert_true(kn_view_is(repository, kn_view_of(cases[i].repository)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registry_is_told_from_the_repository),
		cmocka_unit_test(references_are_taken_apart),
		cmocka_unit_test(wrong_references_are_refused),
		cmocka_unit_test(lengths_have_limits),
		cmocka_unit_test(nul_bytes_are_no_way_around),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
