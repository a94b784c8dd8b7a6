#include "oci/agent_message.h"

#include "test.h"

static void every_field_survives_the_way(void **state)
{
	struct kn_view argv[] = { KN_VIEW("/bin/app"), KN_VIEW(""), KN_VIEW("--x") };
	struct kn_view env[] = { KN_VIEW("A=\xff\xfe") };
	struct kn_view paths[] = { KN_VIEW("/var/openfaas/secrets/key") };
	struct kn_view modes[] = { KN_VIEW("0440") }, bytes[] = { KN_VIEW("s\0t") };
	struct kn_agent_message in = {
		.type = KN_AGENT_CONFIGURE, .wall_ns = 1, .entropy = KN_VIEW("e\0e"), .argv = argv,
		.n_argv = 3, .env = env, .n_env = 1, .hostname = KN_VIEW("h"), .cwd = KN_VIEW("/c"),
		.user = KN_VIEW("u:g"), .ready_path = KN_VIEW("/r"), .contract = 1, .port = 8080,
		.ready_timeout_ms = 3, .time_limit_ms = 4, .max_reply_bytes = UINT64_MAX,
		.file_paths = paths, .n_file_paths = 1, .file_modes = modes, .n_file_modes = 1,
		.file_bytes = bytes, .n_file_bytes = 1, .address = KN_VIEW("10.0.0.2/30"),
		.gateway = KN_VIEW("10.0.0.1"), .dns = KN_VIEW("10.0.0.3"), .read_only_root = 1,
		.max_pids = 7, .signal = 15, .grace_ms = 5, .stream = 2, .status = 6, .text = KN_VIEW("t"),
	};
	struct kn_agent_message out;
	struct kn_err err = KN_ERR_INIT;
	struct kn_buf b = KN_BUF_INIT;
	struct kn_arena a;

	(void)state;
	kn_arena_init(&a);
	kn_agent_encode(&in, &b);
	assert_ok(kn_agent_decode(kn_buf_view(&b), &a, &out, &err), &err);
	assert_int_equal(out.type, KN_AGENT_CONFIGURE);
	assert_int_equal(out.n_argv, 3);
	assert_view(out.argv[0], "/bin/app");
	assert_view(out.argv[1], "");
	assert_view(out.argv[2], "--x");
	assert_int_equal(out.n_env, 1);
	assert_view(out.env[0], "A=\xff\xfe");
	assert_int_equal(out.entropy.len, 3);
	assert_view(out.hostname, "h");
	assert_view(out.cwd, "/c");
	assert_view(out.user, "u:g");
	assert_view(out.ready_path, "/r");
	assert_int_equal(out.n_file_paths, 1);
	assert_view(out.file_paths[0], "/var/openfaas/secrets/key");
	assert_int_equal(out.n_file_modes, 1);
	assert_view(out.file_modes[0], "0440");
	assert_int_equal(out.n_file_bytes, 1);
	assert_int_equal(out.file_bytes[0].len, 3);
	assert_view(out.address, "10.0.0.2/30");
	assert_view(out.gateway, "10.0.0.1");
	assert_view(out.dns, "10.0.0.3");
	assert_int_equal(out.read_only_root, 1);
	assert_int_equal(out.max_pids, 7);
	assert_view(out.text, "t");
	assert_int_equal(out.wall_ns, 1);
	assert_int_equal(out.contract, 1);
	assert_int_equal(out.port, 8080);
	assert_int_equal(out.ready_timeout_ms, 3);
	assert_int_equal(out.time_limit_ms, 4);
	assert_true(out.max_reply_bytes == UINT64_MAX);
	assert_int_equal(out.signal, 15);
	assert_int_equal(out.grace_ms, 5);
	assert_int_equal(out.stream, 2);
	assert_int_equal(out.status, 6);
	kn_buf_fini(&b);
	kn_arena_fini(&a);
}

static void unknown_fields_are_skipped_and_broken_ones_refused(void **state)
{
	static const struct {
		struct kn_view bytes;
		const char *says;   /* NULL: accepted */
	} cases[] = {
		{ { "\x11", 1 }, NULL },
		{ { "\x11\xee\2\0\0\0ab", 8 }, NULL },
		{ { "", 0 }, "empty" },
		{ { "\x11\3\1\0", 4 }, "ends inside a field" },
		{ { "\x11\3\1\0\0\0", 6 }, "longer than its message" },
		{ { "\x11\3\xff\xff\xff\xff", 6 }, "longer than its message" },
		{ { "\x11\1\1\0\0\0x", 7 }, "not a number" },
	};
	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_agent_message m;
		struct kn_err err = KN_ERR_INIT;
		struct kn_arena a;

		kn_arena_init(&a);
		int r = kn_agent_decode(cases[i].bytes, &a, &m, &err);
		if (cases[i].says)
			assert_fails(r, EBADMSG, &err, cases[i].says);
		else
			assert_ok(r, &err);
		kn_arena_fini(&a);
	}
}

static void lists_are_bounded(void **state)
{
	struct kn_agent_message m;
	struct kn_err err = KN_ERR_INIT;
	struct kn_buf b = KN_BUF_INIT;
	struct kn_arena a;

	(void)state;
	kn_arena_init(&a);
	kn_buf_adds(&b, "\2");
	for (int i = 0; i < KN_AGENT_MAX_LIST; i++)
		kn_buf_add(&b, "\4\0\0\0\0", 5);
	assert_ok(kn_agent_decode(kn_buf_view(&b), &a, &m, &err), &err);
	assert_int_equal(m.n_env, KN_AGENT_MAX_LIST);
	kn_buf_add(&b, "\4\0\0\0\0", 5);
	assert_fails(kn_agent_decode(kn_buf_view(&b), &a, &m, &err), EBADMSG, &err, "more than 1024");
	kn_buf_fini(&b);
	kn_arena_fini(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_survives_the_way),
		cmocka_unit_test(unknown_fields_are_skipped_and_broken_ones_refused),
		cmocka_unit_test(lists_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
