#include "test.h"

#include "machine/fcapi.h"

/* A machine of the test's own behind the hooks. */
struct machine {
	enum kn_vmm_state state;
	int starts, logs;
	uint64_t mib, time_limit_ms;
	char level[16];
	bool refuse;
};

static enum kn_vmm_state get_state(void *arg)
{
	return ((struct machine *)arg)->state;
}

static int check_image(const char *path, void *arg, struct kn_err *err)
{
	(void)arg;
	return strcmp(path, "/missing") == 0 ? kn_fail(err, ENOENT, "no '%s'", path) : 0;
}

static int start(const struct kn_fcapi_settings *s, void *arg, struct kn_err *err)
{
	struct machine *m = arg;
	if (m->refuse)
		return kn_fail(err, ENOENT, "no KVM");
	m->starts++;
	m->mib = s->mem_size_mib;
	m->time_limit_ms = s->time_limit_ms;
	m->state = KN_VMM_RUNNING;
	return 0;
}

static int pause_it(void *arg, struct kn_err *err)
{
	(void)err;
	((struct machine *)arg)->state = KN_VMM_PAUSED;
	return 0;
}

static int resume_it(void *arg, struct kn_err *err)
{
	(void)err;
	((struct machine *)arg)->state = KN_VMM_RUNNING;
	return 0;
}

static int set_log(const struct kn_fcapi_log *log, void *arg, struct kn_err *err)
{
	struct machine *m = arg;
	(void)err;
	m->logs++;
	snprintf(m->level, sizeof(m->level), "%s", log->level ? log->level : "");
	return 0;
}

static struct kn_fcapi make(struct machine *m)
{
	const struct kn_fcapi_hooks hooks = { get_state, check_image, start, pause_it, resume_it,
		                              set_log, m };
	struct kn_fcapi api;
	*m = (struct machine){ .state = KN_VMM_NOT_STARTED };
	kn_fcapi_init(&api, "vm-1", &hooks);
	return api;
}

static struct kn_buf reply;

static void asks(struct kn_fcapi *api, const char *method, const char *path, const char *body,
                 int status, const char *part)
{
	int got = kn_fcapi_answer(api, kn_view_of(method), kn_view_of(path), kn_view_of(body), &reply);
	const char *text = reply.ptr && reply.len ? reply.ptr : "";
	if (got != status || !strstr(text, part))
		fail_msg("%s %s %s: %d '%s', expected %d '%s'", method, path, body, got, text, status,
		         part);
	if (status == 204)
		assert_int_equal(reply.len, 0);
}

static void life_of_a_microvm_over_the_api(void **state)
{
	(void)state;
	struct machine m;
	struct kn_fcapi api = make(&m);

	asks(&api, "GET", "/", "", 200, "{\"id\":\"vm-1\",\"state\":\"Not started\"");
	asks(&api, "GET", "/version", "", 200, "firecracker_version");
	asks(&api, "PUT", "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64}", 204, "");
	asks(&api, "PATCH", "/machine-config", "{\"mem_size_mib\":32}", 204, "");
	asks(&api, "GET", "/machine-config", "", 200, "\"mem_size_mib\":32");
	asks(&api, "PUT", "/boot-source", "{\"kernel_image_path\":\"/a\",\"boot_args\":\"x\"}", 204, "");
	asks(&api, "PUT", "/kiln/channel", "{\"uds_path\":\"/c\",\"time_limit_ms\":7}", 204, "");
	asks(&api, "PUT", "/logger", "{\"level\":\"Debug\",\"show_level\":true}", 204, "");
	assert_string_equal(m.level, "Debug");
	asks(&api, "GET", "/vm/config", "", 200, "\"boot_args\":\"x\"");
	asks(&api, "GET", "/vm/config", "", 200, "\"uds_path\":\"/c\"");
	asks(&api, "PATCH", "/vm", "{\"state\":\"Paused\"}", 400, "before starting");
	asks(&api, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", 204, "");
	assert_int_equal(m.starts, 1);
	assert_int_equal(m.mib, 32);
	assert_int_equal(m.time_limit_ms, 7);
	asks(&api, "GET", "/", "", 200, "\"state\":\"Running\"");
	asks(&api, "PATCH", "/vm", "{\"state\":\"Paused\"}", 204, "");
	asks(&api, "GET", "/", "", 200, "\"state\":\"Paused\"");
	asks(&api, "PATCH", "/vm", "{\"state\":\"Resumed\"}", 204, "");
	asks(&api, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", 400, "after starting");
	asks(&api, "PUT", "/boot-source", "{\"kernel_image_path\":\"/b\"}", 400, "after starting");
	asks(&api, "PATCH", "/machine-config", "{\"mem_size_mib\":1}", 400, "after starting");
	asks(&api, "GET", "/machine-config", "", 200, "\"mem_size_mib\":32");
	kn_fcapi_fini(&api);
}

static void refusals_say_why_and_change_nothing(void **state)
{
	(void)state;
	static const struct {
		const char *method, *path, *body, *why;
	} cases[] = {
		{ "GET", "/nothing", "", "Invalid request method and/or path: GET /nothing." },
		{ "DELETE", "/", "", "Invalid request method" },
		{ "PUT", "/drives/rootfs", "{}", "no block devices" },
		{ "PUT", "/network-interfaces/eth0", "{}", "frames come over rings" },
		{ "PUT", "/vsock", "{}", "PUT /kiln/channel" },
		{ "PUT", "/snapshot/create", "{}", "cannot be saved" },
		{ "PUT", "/drivesx", "{}", "Invalid request method" },
		{ "PUT", "/boot-source", "", "the request's body" },
		{ "PUT", "/boot-source", "{", "the request's body" },
		{ "PUT", "/boot-source", "[]", "must be an object" },
		{ "PUT", "/boot-source", "{}", "kernel_image_path" },
		{ "PUT", "/boot-source", "{\"kernel_image_path\":1}", "must be a string" },
		{ "PUT", "/boot-source", "{\"kernel_image_path\":\"/missing\"}", "no '/missing'" },
		{ "PUT", "/boot-source", "{\"kernel_image_path\":\"/a\",\"initrd_path\":\"/i\"}",
		  "no initial RAM disk" },
		{ "PUT", "/boot-source", "{\"kernel_image_path\":\"/a\",\"kernel\":1}", "kernel" },
		{ "PUT", "/machine-config", "{\"vcpu_count\":1}", "mem_size_mib" },
		{ "PUT", "/machine-config", "{\"vcpu_count\":2,\"mem_size_mib\":64}", "1 vCPU" },
		{ "PUT", "/machine-config", "{\"vcpu_count\":-1,\"mem_size_mib\":64}", "vcpu_count" },
		{ "PUT", "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":0}", "at least 1" },
		{ "PATCH", "/machine-config", "{\"smt\":true}", "smt" },
		{ "PATCH", "/machine-config", "{\"huge_pages\":\"2M\"}", "huge_pages" },
		{ "PATCH", "/machine-config", "{\"cpu_template\":\"T2\"}", "cpu_template" },
		{ "PATCH", "/machine-config", "{\"track_dirty_pages\":true}", "no snapshots" },
		{ "PUT", "/kiln/channel", "{}", "uds_path" },
		{ "PUT", "/kiln/channel", "{\"uds_path\":\"/c\",\"slots\":0}", "1 to 64 slots" },
		{ "PUT", "/kiln/channel", "{\"uds_path\":\"/c\",\"slots\":65}", "slots" },
		{ "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", "without kernel" },
		{ "PUT", "/actions", "{\"action_type\":\"FlushMetrics\"}", "no metrics" },
		{ "PUT", "/actions", "{\"action_type\":\"SendCtrlAltDel\"}", "no keyboard" },
		{ "PUT", "/actions", "{\"action_type\":\"Explode\"}", "unknown action_type" },
		{ "PUT", "/logger", "{\"module\":\"x\"}", "module" },
	};
	struct machine m;
	struct kn_fcapi api = make(&m);

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++)
		asks(&api, cases[i].method, cases[i].path, cases[i].body, 400, cases[i].why);
	asks(&api, "GET", "/vm/config", "", 200,
	     "{\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128");
	assert_int_equal(m.starts, 0);

	asks(&api, "PUT", "/boot-source", "{\"kernel_image_path\":\"/a\"}", 204, "");
	m.refuse = true;
	asks(&api, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", 400, "no KVM");
	kn_fcapi_fini(&api);
}

static void configuration_file_is_the_same_json(void **state)
{
	(void)state;
	static const struct {
		const char *text, *why;
	} bad[] = {
		{ "", "configuration" },
		{ "[]", "must be an object" },
		{ "{\"bootsource\":{}}", "boot-source" },
		{ "{\"boot-source\":{}}", "boot-source: " },
		{ "{\"drives\":[{\"drive_id\":\"a\"}]}", "no block devices" },
		{ "{\"machine-config\":[]}", "machine-config" },
	};
	struct kn_err err = KN_ERR_INIT;
	struct machine m;
	struct kn_fcapi api = make(&m);

	for (size_t i = 0; i < KN_ARRAY_LEN(bad); i++)
		assert_fails(kn_fcapi_configure(&api, kn_view_of(bad[i].text), &err), EINVAL, &err,
		             bad[i].why);
	assert_ok(kn_fcapi_configure(&api,
	                             KN_VIEW("{\"boot-source\":{\"kernel_image_path\":\"/a\"},"
	                                     "\"drives\":[],\"vsock\":null,"
	                                     "\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":9},"
	                                     "\"kiln-channel\":{\"uds_path\":\"/c\"}}"),
	                             &err), &err);
	assert_string_equal(api.settings.kernel_image_path, "/a");
	assert_string_equal(api.settings.channel_path, "/c");
	assert_int_equal(api.settings.mem_size_mib, 9);
	assert_int_equal(m.starts, 0);
	kn_fcapi_fini(&api);
}

static void ids_follow_the_rule(void **state)
{
	(void)state;
	char long_id[66] = { 0 };
	struct kn_err err = KN_ERR_INIT;

	memset(long_id, 'a', 65);
	assert_ok(kn_fcapi_check_id("a-B-9", &err), &err);
	assert_ok(kn_fcapi_check_id(long_id + 1, &err), &err);
	assert_fails(kn_fcapi_check_id("", &err), EINVAL, &err, "1 to 64");
	assert_fails(kn_fcapi_check_id(long_id, &err), EINVAL, &err, "1 to 64");
	assert_fails(kn_fcapi_check_id("a/b", &err), EINVAL, &err, "character 2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(life_of_a_microvm_over_the_api),
		cmocka_unit_test(refusals_say_why_and_change_nothing),
		cmocka_unit_test(configuration_file_is_the_same_json),
		cmocka_unit_test(ids_follow_the_rule),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	kn_buf_fini(&reply);
	return r;
}
