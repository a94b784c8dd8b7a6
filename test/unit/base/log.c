#include "test.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"

static int pipe_fds[2];

static int capture(void **state)
{
	(void)state;
	kn_fake_clock(0, UINT64_C(1769860800123000000));
	return pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK);
}

static int release(void **state)
{
	(void)state;
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	kn_log_setup(&KN_LOG_DEFAULTS);
	kn_real_clock();
	return 0;
}

static void set(bool json, enum kn_level level, const char *program)
{
	struct kn_log_config c = KN_LOG_DEFAULTS;

	c.json = json;
	c.level = level;
	c.program = program;
	c.fd = pipe_fds[1];
	kn_log_setup(&c);
}

static const char *line(void)
{
	static char text[8192];
	ssize_t n = read(pipe_fds[0], text, sizeof(text) - 1);

	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static void text_line_has_time_level_event_and_fields(void **state)
{
	(void)state;

	set(false, KN_INFO, "kilnd");
	kn_log(KN_INFO, "replica ready", KN_S("fn", "telemetry"), KN_U("boot_us", 71),
	       KN_I("delta", -3), KN_V("view", KN_VIEW("v")), KN_S("none", NULL));
	assert_string_equal(line(), "2026-01-31T12:00:00.123Z info kilnd: replica ready "
	                            "fn=telemetry boot_us=71 delta=-3 view=v none=\"\"\n");
	set(false, KN_INFO, NULL);
	kn_log(KN_WARN, "plain");
	assert_string_equal(line(), "2026-01-31T12:00:00.123Z warn plain\n");
}

static void text_values_cannot_forge_fields_or_lines(void **state)
{
	(void)state;
	static const struct {
		const char *value, *printed;
	} cases[] = {
		{ "a b", "\"a b\"" },
		{ "a=b", "\"a=b\"" },
		{ "a\nerror forged", "\"a\\u000aerror forged\"" },
		{ "\"", "\"\\\"\"" },
		{ "\\", "\"\\\\\"" },
		{ "\x1b[2J", "\"\\u001b[2J\"" },
		{ "gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\"" },
		{ "\xff", "\"\\ufffd\"" },
	};

	set(false, KN_INFO, NULL);
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		char expected[128];
		kn_log(KN_INFO, "e", KN_S("v", cases[i].value));
		snprintf(expected, sizeof(expected), "2026-01-31T12:00:00.123Z info e v=%s\n",
		         cases[i].printed);
		assert_string_equal(line(), expected);
	}
}

static void logfmt_line_is_pairs_alone(void **state)
{
	struct kn_log_config c = KN_LOG_DEFAULTS;

	(void)state;
	c.logfmt = true;
	c.program = "kilnd";
	c.fd = pipe_fds[1];
	kn_log_setup(&c);
	kn_log(KN_WARN, "replica ready", KN_S("fn", "a b"), KN_U("us", 7), KN_S("q", "say \"x\"\n"));
	assert_string_equal(line(), "time=2026-01-31T12:00:00.123Z level=warn program=kilnd "
	                            "event=\"replica ready\" fn=\"a b\" us=7 "
	                            "q=\"say \\\"x\\\"\\u000a\"\n");
	c.program = NULL;
	kn_log_setup(&c);
	kn_log(KN_INFO, "plain");
	assert_string_equal(line(), "time=2026-01-31T12:00:00.123Z level=info event=plain\n");
}

static void log_often(unsigned times)
{
	for (unsigned i = 0; i < times; i++)
		kn_log_often(KN_INFO, "refused", KN_U("i", i));
}

static void floods_are_cut_and_counted(void **state)
{
	unsigned lines = 0;

	(void)state;
	set(false, KN_INFO, NULL);
	log_often(1000);
	for (const char *at = line(); *at; at++)
		lines += *at == '\n';
	assert_int_equal(lines, KN_LOG_PER_S);
	kn_fake_advance(KN_NS_PER_S);
	log_often(1);
	assert_non_null(strstr(line(), "refused i=0 dropped=980\n"));
	log_often(1);
	assert_non_null(strstr(line(), "refused i=0\n"));
}

static void json_line_is_json(void **state)
{
	(void)state;

	set(true, KN_DEBUG, "kilnd");
	kn_log(KN_DEBUG, "a \"quoted\" event", KN_S("s", "x\ty"), KN_U("u", UINT64_MAX),
	       KN_I("i", INT64_MIN), KN_S("n", NULL));
	assert_string_equal(line(),
	                    "{\"time\":\"2026-01-31T12:00:00.123Z\",\"level\":\"debug\","
	                    "\"program\":\"kilnd\",\"event\":\"a \\\"quoted\\\" event\","
	                    "\"s\":\"x\\u0009y\",\"u\":18446744073709551615,"
	                    "\"i\":-9223372036854775808,\"n\":\"\"}\n");
}

/* RFC 3629: overlong forms, surrogates, what is past U+10FFFF, and cut sequences are no UTF-8. */
static void bytes_that_are_no_utf8_are_replaced(void **state)
{
	(void)state;
	static const struct {
		const char *value, *printed;
	} cases[] = {
		{ "\xe2\x82\xac", "\xe2\x82\xac" },
		{ "\xf0\x9f\x94\xa5", "\xf0\x9f\x94\xa5" },
		{ "\xc0\xaf", "\\ufffd\\ufffd" },
		{ "\xe0\x80\xaf", "\\ufffd\\ufffd\\ufffd" },
		{ "\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd" },
		{ "\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd" },
		{ "a\xe2\x82", "a\\ufffd\\ufffd" },
		{ "\x80z", "\\ufffdz" },
		{ "\xe2\x82z", "\\ufffd\\ufffdz" },
	};

	set(true, KN_INFO, NULL);
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		char expected[128];
		kn_log(KN_INFO, "e", KN_S("v", cases[i].value));
		snprintf(expected, sizeof(expected), "\"v\":\"%s\"}\n", cases[i].printed);
		const char *got = strstr(line(), "\"v\":");
		assert_non_null(got);
		assert_string_equal(got, expected);
	}
}

static int calls;

static const char *expensive(void)
{
	calls++;
	return "x";
}

static void lines_above_the_level_cost_nothing(void **state)
{
	(void)state;

	set(false, KN_WARN, NULL);
	kn_log(KN_INFO, "no", KN_S("x", expensive()));
	kn_log(KN_DEBUG, "no", KN_S("x", expensive()));
	assert_string_equal(line(), "");
	assert_int_equal(calls, 0);
	kn_log(KN_ERROR, "yes", KN_S("x", expensive()));
	assert_int_equal(calls, 1);
	assert_true(kn_log_wants(KN_WARN) && !kn_log_wants(KN_INFO));
}

static void logging_keeps_errno_and_survives_a_closed_descriptor(void **state)
{
	(void)state;
	struct kn_log_config c = KN_LOG_DEFAULTS;

	c.fd = -1;
	kn_log_setup(&c);
	errno = ENOTTY;
	kn_log(KN_ERROR, "lost");
	assert_int_equal(errno, ENOTTY);
}

static void levels_parse(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	enum kn_level level = KN_INFO;

	assert_ok(kn_parse_level(KN_VIEW("debug"), &level, &err), &err);
	assert_int_equal(level, KN_DEBUG);
	assert_fails(kn_parse_level(KN_VIEW("loud"), &level, &err), EINVAL, &err, "warn, info");
	assert_fails(kn_parse_level(KN_VIEW("DEBUG"), &level, &err), EINVAL, &err, "DEBUG");
	assert_int_equal(level, KN_DEBUG);
}

#define CAPTURED(test) cmocka_unit_test_setup_teardown(test, capture, release)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CAPTURED(text_line_has_time_level_event_and_fields),
		CAPTURED(text_values_cannot_forge_fields_or_lines),
		CAPTURED(logfmt_line_is_pairs_alone),
		CAPTURED(floods_are_cut_and_counted),
		CAPTURED(json_line_is_json),
		CAPTURED(bytes_that_are_no_utf8_are_replaced),
		CAPTURED(lines_above_the_level_cost_nothing),
		CAPTURED(logging_keeps_errno_and_survives_a_closed_descriptor),
		cmocka_unit_test(levels_parse),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
