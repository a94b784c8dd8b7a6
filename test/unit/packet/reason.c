#include "test.h"

#include "packet/reason.h"

static void every_reason_has_its_own_name(void **state)
{
	(void)state;
	for (unsigned i = 0; i < KN_REASON_COUNT; i++) {
		assert_true(strlen(kn_reason_name((enum kn_reason)i)) > 2);
		assert_true(strlen(kn_reason_text((enum kn_reason)i)) > 10);
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(kn_reason_name((enum kn_reason)i),
						kn_reason_name((enum kn_reason)k));
	}
}

static void what_is_no_reason_is_none(void **state)
{
	(void)state;
	assert_string_equal(kn_reason_name(KN_REASON_NONE), "none");
	assert_string_equal(kn_reason_name(KN_REASON_COUNT), "none");
	assert_string_equal(kn_reason_text(KN_REASON_NONE), "not dropped");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_reason_has_its_own_name),
		cmocka_unit_test(what_is_no_reason_is_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
