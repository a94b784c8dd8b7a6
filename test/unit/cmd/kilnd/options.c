#include <stdlib.h>
#include <unistd.h>

#include "test.h"

#include "cmd/kilnd/options.h"

static struct kn_kilnd_options o;
static struct kn_err err;

/* argv from the words that follow the program's name. */
static int read_words(int n, ...)
{
	static char words[16][128];
	char *argv[17] = { words[0] };
	va_list ap;

	strcpy(words[0], "kilnd");
	va_start(ap, n);
	for (int i = 1; i <= n; i++) {
		snprintf(words[i], sizeof(words[i]), "%s", va_arg(ap, const char *));
		argv[i] = words[i];
	}
	va_end(ap);
	err = KN_ERR_INIT;
	return kn_kilnd_options_read(n + 1, argv, &o, &err);
}

/* A configuration file that lives as long as the test. */
static const char *file_with(const char *text)
{
	static char path[64];

	snprintf(path, sizeof(path), "/tmp/kilnd-options-%d.yaml", (int)getpid());
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	return path;
}

static int remove_file(void **state)
{
	(void)state;
	unlink(file_with(""));
	unsetenv("KILN_LISTEN");
	return 0;
}

static void only_the_state_folder_is_needed(void **state)
{
	(void)state;
	assert_fails(read_words(0), EINVAL, &err, "--state DIR");
	assert_ok(read_words(2, "--state", "/s"), &err);
	assert_string_equal(o.state, "/s");
	assert_string_equal(o.listen, "127.0.0.1:8080");
	assert_int_equal(o.max_body, 64 << 20);
	assert_int_equal(o.idle_ms, 5 * 60 * 1000);
	assert_in_range(o.memory, UINT64_C(64) << 20, UINT64_C(1) << 50); /* this machine's */
	assert_false(o.functions_need_token);
	assert_false(o.allow_unix_functions);
	assert_int_equal(o.log_level, KN_INFO);
	kn_kilnd_options_fini(&o);
}

static void flags_win_over_environment_over_file_over_defaults(void **state)
{
	const char *path = file_with("state: /from-file\nlisten: 127.0.0.1:1\nmax-body: 1Mi\n"
				     "idle-timeout: 5\nhead-timeout: 2s\nworkers: 3\n"
				     "allow-unix-functions: true\nfunction-auth: token\n"
				     "memory: 1Gi\nidle: 0\n");

	(void)state;
	setenv("KILN_LISTEN", "127.0.0.1:2", 1);
	assert_ok(read_words(4, "--config", path, "--workers", "4"), &err);
	assert_string_equal(o.state, "/from-file");
	assert_string_equal(o.listen, "127.0.0.1:2");
	assert_int_equal(o.max_body, 1 << 20);
	assert_int_equal(o.idle_timeout_ms, 5000);
	assert_int_equal(o.head_timeout_ms, 2000);
	assert_int_equal(o.workers, 4);
	assert_true(o.allow_unix_functions);
	assert_true(o.functions_need_token);
	assert_int_equal(o.drain_ms, 30000);
	assert_int_equal(o.idle_ms, 0);
	assert_int_equal(o.memory, 1 << 30);
	kn_kilnd_options_fini(&o);
}

static void empty_file_says_nothing(void **state)
{
	(void)state;
	assert_ok(read_words(4, "--config", file_with("# nothing\n"), "--state", "/s"), &err);
	assert_string_equal(o.state, "/s");
	kn_kilnd_options_fini(&o);
}

static void what_is_wrong_is_told_with_the_way_out(void **state)
{
	static const struct {
		const char *file, *flag, *value, *says;
	} CASES[] = {
		{ "listn: x\n", NULL, NULL, "'listen'" },
		{ "max-body: lots\n", NULL, NULL, "max-body" },
		{ "workers: -1\n", NULL, NULL, "workers" },
		{ "workers: many\n", NULL, NULL, "workers" },
		{ "listen: [1]\n", NULL, NULL, "listen" },
		{ "- a\n", NULL, NULL, "list of keys" },
		{ "state: [\n", NULL, NULL, ".yaml:" },
		{ NULL, "--listn", "x", "--listen" },
		{ NULL, "--workers", "0", "from 1 to 64" },
		{ NULL, "--function-auth", "maybe", "'open' or 'token'" },
		{ NULL, "--log-level", "loud", "debug" },
		{ NULL, "--log-format", "xml", "'text', 'logfmt' or 'json'" },
		{ NULL, "--config", "/none.yaml", "/none.yaml" },
		{ NULL, "--max-instances", "0", "from 1" },
		{ NULL, "--memory", "lots", "--memory" },
		{ NULL, "--idle", "soon", "not a duration" },
		{ NULL, "--token-life", "0s", "--token-life" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(CASES); i++) {
		int r = CASES[i].file
				? read_words(4, "--state", "/s", "--config",
					     file_with(CASES[i].file))
				: read_words(4, "--state", "/s", CASES[i].flag, CASES[i].value);
		if (r >= 0 || !strstr(err.text, CASES[i].says))
			fail_msg("case %zu: %d, '%s' does not say '%s'", i, r, err.text,
				 CASES[i].says);
	}
}

static void help_names_every_option(void **state)
{
	static const char *const NAMES[] = { "--state",	   "--listen",
					     "--config",   "--function-auth",
					     "--max-body", "--allow-unix-functions",
					     "KILN_STATE" };
	struct kn_buf page = KN_BUF_INIT;

	(void)state;
	assert_int_equal(read_words(1, "--help"), KN_ARGS_HELP);
	kn_kilnd_help(&page);
	for (size_t i = 0; i < KN_ARRAY_LEN(NAMES); i++) {
		if (!strstr(page.ptr, NAMES[i]))
			fail_msg("%s is missing", NAMES[i]);
	}
	kn_buf_fini(&page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_state_folder_is_needed),
		cmocka_unit_test_teardown(flags_win_over_environment_over_file_over_defaults,
					  remove_file),
		cmocka_unit_test_teardown(empty_file_says_nothing, remove_file),
		cmocka_unit_test_teardown(what_is_wrong_is_told_with_the_way_out, remove_file),
		cmocka_unit_test(help_names_every_option),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
