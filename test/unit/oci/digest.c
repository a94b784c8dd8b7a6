#include "oci/digest.h"

#include "test.h"

#define EMPTY_256 "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC_256   "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_512                                                                                    \
	"sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"                  \
	"2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"

static void published_vectors_match(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest d;

	(void)state;
	assert_ok(kn_digest_of(KN_SHA256, "", 0, &d, &err), &err);
	assert_string_equal(d.text, EMPTY_256);
	assert_ok(kn_digest_of(KN_SHA256, "abc", 3, &d, &err), &err);
	assert_string_equal(d.text, ABC_256);
	assert_ok(kn_digest_of(KN_SHA512, "abc", 3, &d, &err), &err);
	assert_string_equal(d.text, ABC_512);
}

static void hasher_begins_anew_after_take(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_hasher_free) struct kn_hasher *h = NULL;
	struct kn_digest d;

	(void)state;
	assert_ok(kn_hasher_new(KN_SHA256, &h, &err), &err);
	kn_hasher_add(h, "a", 1);
	kn_hasher_add(h, "bc", 2);
	kn_hasher_take(h, &d);
	assert_string_equal(d.text, ABC_256);
	kn_hasher_take(h, &d);
	assert_string_equal(d.text, EMPTY_256);
}

static void parts_are_told_apart(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest d;

	(void)state;
	assert_ok(kn_digest_parse(KN_VIEW(ABC_512), &d, &err), &err);
	assert_int_equal(kn_digest_kind(&d), KN_SHA512);
	assert_string_equal(kn_digest_algorithm(&d), "sha512");
	assert_string_equal(kn_digest_hex(&d), ABC_512 + 7);
	assert_ok(kn_digest_parse(KN_VIEW(ABC_256), &d, &err), &err);
	assert_string_equal(kn_digest_algorithm(&d), "sha256");
	assert_string_equal(kn_digest_hex(&d), ABC_256 + 7);
}

static void wrong_forms_are_refused(void **state)
{
	static const struct {
		const char *text;
		int code;
		const char *says;
	} cases[] = {
		{ "", EINVAL, "not a digest" },
		{ "sha256", EINVAL, "not a digest" },
		{ "sha256:", EINVAL, "64 lower-case hex digits" },
		{ "sha256:abc", EINVAL, "64 lower-case hex digits" },
		{ ABC_256 "0", EINVAL, "64 lower-case hex digits" },
		{ "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD", EINVAL,
		  "lower-case" },
		{ "sha256:../../../../../../../../../../../../../../../../../../../etc/passwd", EINVAL,
		  "lower-case" },
		{ "sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", EINVAL,
		  "128" },
		{ "md5:900150983cd24fb0d6963f7d28e17f72", ENOTSUP, "sha256 and sha512" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_digest d = { .text = "kept" };
		assert_fails(kn_digest_parse(kn_view_of(cases[i].text), &d, &err), cases[i].code,
		             &err, cases[i].says);
		assert_string_equal(d.text, "kept");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_vectors_match),
		cmocka_unit_test(hasher_begins_anew_after_take),
		cmocka_unit_test(parts_are_told_apart),
		cmocka_unit_test(wrong_forms_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
