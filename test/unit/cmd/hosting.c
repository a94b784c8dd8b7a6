#include "test.h"

#include "cmd/hosting.h"

static json_t *report_of(const struct kn_hosting_config *config, struct kn_hosting **ret)
{
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_hosting_find(config, ret, &err), &err);
	json_t *report = kn_hosting_report(*ret);
	assert_non_null(report);
	return report;
}

static const char *field(const json_t *list, const char *key, const char *name, const char *what)
{
	size_t i;
	json_t *one;

	json_array_foreach(list, i, one)
		if (strcmp(json_string_value(json_object_get(one, key)), name) == 0)
			return json_string_value(json_object_get(one, what));
	fail_msg("no '%s' in the report", name);
	return NULL;
}

static void host_without_kvm_refuses_bare_with_the_reason(void **state)
{
	(void)state;
	const struct kn_hosting_config config = { .kvm_device = "/nonexistent/kvm" };
	kn_auto(kn_hosting_free) struct kn_hosting *h = NULL;
	kn_auto(json_decref) json_t *report = report_of(&config, &h);
	const struct kn_engine_class *bare = kn_hosting_class(h, KN_CLASS_BARE);

	assert_null(bare->ops);
	assert_non_null(strstr(bare->why, "/nonexistent/kvm"));
	assert_string_equal(field(json_object_get(report, "classes"), "class", "bare", "state"),
	                    "impossible");
	assert_string_equal(json_string_value(json_object_get(json_object_get(report, "kvm"),
	                                                      "verdict")), "none");
	/* What no command can mend on this host does not make it unready. */
	assert_null(strstr(json_string_value(json_object_get(report, "verdict")), "bare lacks"));
}

static void missing_parts_come_with_what_brings_them(void **state)
{
	(void)state;
	const struct kn_hosting_config config = { .lib_dir = "/nonexistent",
		                                  .qemu = "/nonexistent/qemu" };
	kn_auto(kn_hosting_free) struct kn_hosting *h = NULL;
	kn_auto(json_decref) json_t *report = report_of(&config, &h);
	const json_t *parts = json_object_get(report, "parts");

	assert_null(kn_hosting_class(h, KN_CLASS_MICROVM)->ops);
	assert_null(kn_hosting_class(h, KN_CLASS_BARE)->ops);
	assert_string_equal(field(parts, "name", "QEMU", "fix"), "apt-get install qemu-system-x86");
	assert_string_equal(field(parts, "name", "QEMU", "state"), "missing");
	assert_string_equal(field(parts, "name", "guest kernel", "state"), "missing");
	assert_non_null(strstr(field(parts, "name", "guest kernel", "found"),
	                       "/nonexistent/guest/vmlinux"));
	assert_non_null(field(parts, "name", "guest initramfs", "fix"));
	assert_false(json_is_true(json_object_get(report, "ok")));
}

static void unix_functions_are_told_only_when_allowed(void **state)
{
	(void)state;
	const struct kn_hosting_config allowed = { .kvm_device = "/nonexistent",
		                                   .unix_functions = true };
	const struct kn_hosting_config not_allowed = { .kvm_device = "/nonexistent" };
	kn_auto(kn_hosting_free) struct kn_hosting *yes = NULL;
	kn_auto(kn_hosting_free) struct kn_hosting *no = NULL;
	kn_auto(json_decref) json_t *with = report_of(&allowed, &yes);
	kn_auto(json_decref) json_t *without = report_of(&not_allowed, &no);

	assert_int_equal(json_array_size(json_object_get(with, "classes")), KN_CLASSES);
	assert_int_equal(json_array_size(json_object_get(without, "classes")), KN_CLASSES - 1);
	assert_non_null(kn_hosting_class(yes, KN_CLASS_UNIX)->ops);
	assert_null(kn_hosting_class(no, KN_CLASS_UNIX)->ops);
	assert_non_null(strstr(kn_hosting_class(no, KN_CLASS_UNIX)->why, "--allow-unix-functions"));
}

static void every_class_has_a_reason_and_every_choice_a_driver(void **state)
{
	(void)state;
	kn_auto(kn_hosting_free) struct kn_hosting *h = NULL;
	kn_auto(json_decref) json_t *report = report_of(NULL, &h);

	for (int c = 0; c < KN_CLASSES; c++) {
		const struct kn_engine_class *k = kn_hosting_class(h, (enum kn_class)c);
		assert_non_null(k->why);
		assert_true(strlen(k->why) > 0);
		assert_true(!k->ops == !k->hypervisor);
	}
	assert_non_null(json_object_get(report, "verdict"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(host_without_kvm_refuses_bare_with_the_reason),
		cmocka_unit_test(missing_parts_come_with_what_brings_them),
		cmocka_unit_test(unix_functions_are_told_only_when_allowed),
		cmocka_unit_test(every_class_has_a_reason_and_every_choice_a_driver),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
