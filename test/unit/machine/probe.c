#include "test.h"

#include "machine/probe.h"

/* What a measured device says is proven by test/host/bare.py; here are hosts that have none. */
static void refused(const char *device, bool present, const char *why)
{
	struct kn_probe p;

	kn_probe_run(device, &p);
	assert_int_equal(p.verdict, KN_PROBE_NONE);
	assert_int_equal(p.present, present);
	assert_false(p.permitted);
	if (!strstr(p.reason, why))
		fail_msg("'%s' does not say '%s'", p.reason, why);
}

static void missing_device_is_an_answer_with_a_remedy(void **state)
{
	(void)state;
	refused("/nonexistent/kvm", false, "load kvm_intel or kvm_amd");
}

static void device_that_is_not_kvm_is_told_apart(void **state)
{
	(void)state;
	refused("/dev/null", true, "no KVM device");
	refused("/", true, "open /");
}

static void verdicts_have_names(void **state)
{
	(void)state;
	assert_string_equal(kn_probe_verdict_name(KN_PROBE_NONE), "none");
	assert_string_equal(kn_probe_verdict_name(KN_PROBE_RING3), "bare only");
	assert_string_equal(kn_probe_verdict_name(KN_PROBE_FULL), "full");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(missing_device_is_an_answer_with_a_remedy),
		cmocka_unit_test(device_that_is_not_kvm_is_told_apart),
		cmocka_unit_test(verdicts_have_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
