/* Every allocation of base fails once: all of it says ENOMEM, crashes never, leaks nothing. */
#include "oom.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/args.h"
#include "base/conf.h"
#include "base/fd.h"
#include "base/http.h"
#include "base/log.h"
#include "base/loop.h"

static int buffers(struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT, back = KN_BUF_INIT;

	for (int i = 0; i < 100; i++)
		kn_buf_printf(&text, "%d,", i);
	kn_base64url(&text, "x", 1);
	if (text.failed)
		return kn_fail(err, ENOMEM, "out of memory");
	return kn_unbase64url(KN_VIEW("Zm9vYmFy"), &back, err);
}

static int arenas(struct kn_err *err)
{
	struct kn_arena a;
	bool ok = true;

	kn_arena_init(&a);
	for (int i = 0; i < 100; i++)
		ok = kn_arena_printf(&a, "%0999d", i) && ok;
	kn_arena_fini(&a);
	return ok ? 0 : kn_fail(err, ENOMEM, "out of memory");
}

static int json(struct kn_err *err)
{
	static const char *const names[] = { "a", "b" };
	kn_auto(json_decref) json_t *value = NULL;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	int r = kn_json_parse(KN_VIEW("{\"a\":[1,\"two\",null,{\"x\":3.5}],\"b\":{\"c\":\"d\"}}"),
	                      &value, err);
	if (r == -EINVAL)   /* what jansson makes of a token that it has no memory for */
		return -ENOMEM;
	if (r == 0)
		r = kn_json_known(value, names, 2, err);
	if (r < 0)
		return r;
	kn_json_print(&text, value, 0);
	return text.failed ? kn_fail(err, ENOMEM, "out of memory") : 0;
}

static int yaml(struct kn_err *err)
{
	static const char text[] = "version: 1.0\nfunctions:\n  telemetry:\n    image: telemetry:1\n"
				   "    labels: {a: 1, b: 'two'}\n    list:\n    - x\n    - 0.5\n"
				   "    - [true, null]\n";
	kn_auto(json_decref) json_t *value = NULL;

	return kn_yaml_parse(KN_VIEW(text), "x", &value, err);
}

static int files(struct kn_err *err)
{
	static const char folder[] = "/tmp/kn-unit-oom";
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	int r = kn_mkdirs(AT_FDCWD, "/tmp/kn-unit-oom/a/b", 0700, err);
	if (r == 0)
		r = kn_write_file(AT_FDCWD, "/tmp/kn-unit-oom/a/file", "x", 1, 0600, err);
	if (r == 0)
		r = kn_read_file(AT_FDCWD, "/tmp/kn-unit-oom/a/file", 1, &text, err);
	if (r == 0)
		r = kn_remove_tree(AT_FDCWD, folder, err);
	return r;
}

static int leave_no_files(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	return kn_remove_tree(AT_FDCWD, "/tmp/kn-unit-oom", &err);
}

static int arguments(struct kn_err *err)
{
	struct kn_arg_list list = { 0 };
	const struct kn_arg rows[] = {
		{ "env", 'e', KN_ARG_LIST, &list, "NAME=VALUE", NULL, "A variable." },
	};
	const struct kn_command c = { "kiln try", "Try.", "[OPTION]...", NULL, rows, 1, 0, 9 };
	kn_auto(kn_buf_fini) struct kn_buf page = KN_BUF_INIT;
	char program[] = "try", option[] = "--env", value[] = "A=1", short_option[] = "-eB=2";
	char *argv[] = { program, option, value, short_option, NULL };
	const char **operands;
	size_t n;

	int r = kn_args_parse(&c, 4, argv, &operands, &n, err);
	kn_args_help(&c, &page);
	if (r == 0 && page.failed)
		r = kn_fail(err, ENOMEM, "out of memory");
	kn_free(list.at);
	return r;
}

/* A line that cannot be made is replaced by a shorter one; nothing fails. */
static int logging(struct kn_err *err)
{
	struct kn_log_config c = KN_LOG_DEFAULTS;
	char line[512];
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return kn_fail(err, errno, "pipe");
	c.fd = fds[1];
	c.json = true;
	kn_log_setup(&c);
	kn_log(KN_INFO, "event", KN_S("name", "a value that needs quotes"), KN_U("n", 1));
	kn_log_setup(&KN_LOG_DEFAULTS);
	ssize_t n = read(fds[0], line, sizeof(line));
	close(fds[0]);
	close(fds[1]);
	return n > 10 && line[n - 1] == '\n' ? 0 : kn_fail(err, EIO, "no whole line");
}

static void nothing(void *arg)
{
	(void)arg;
}

static void nothing_timed(struct kn_timer *t)
{
	(void)t;
}

static int loops(struct kn_err *err)
{
	struct kn_timer timers[40] = { { 0 } };
	kn_auto(kn_loop_free) struct kn_loop *loop = NULL;

	int r = kn_loop_new(&loop, err);
	for (size_t i = 0; r == 0 && i < KN_ARRAY_LEN(timers); i++) {
		timers[i].call = nothing_timed;
		r = kn_timer_start(loop, &timers[i], UINT64_MAX - i, err);
	}
	if (r == 0)
		r = kn_loop_post(loop, nothing, NULL);
	if (r == 0)
		r = kn_loop_once(loop, 0);
	for (size_t i = 0; i < KN_ARRAY_LEN(timers); i++)
		kn_timer_stop(&timers[i]);
	return r < 0 ? r : 0;
}

static int http(struct kn_err *err)
{
	static const char text[] = "POST /a HTTP/1.1\r\nHost: x\r\nA: 1\r\nB: 2\r\n"
				   "Content-Length: 2\r\n\r\nok";
	struct kn_http_parser *p = NULL;
	struct kn_http_head head;
	struct kn_http_body_step step;

	int r = kn_http_parser_new(KN_HTTP_REQUEST, &p, err);
	if (r < 0)
		return r;
	kn_http_parser_reset(p, false);
	ssize_t n = kn_http_parse_head(p, KN_VIEW(text), KN_HTTP_MAX_HEAD, &head, err);
	if (n > 0)
		r = kn_http_parse_body(p, (struct kn_view){ text + n, sizeof(text) - 1 - (size_t)n },
		                       &step, err);
	kn_http_parser_free(p);
	return n < 0 ? (int)n : r;
}

#define SCENARIO(name)                                                                             \
	static void name##_survive(void **state)                                                   \
	{                                                                                          \
		(void)state;                                                                       \
		oom_check(name);                                                                   \
	}

SCENARIO(buffers)
SCENARIO(arenas)
SCENARIO(json)
SCENARIO(yaml)
SCENARIO(files)
SCENARIO(arguments)
SCENARIO(logging)
SCENARIO(loops)
SCENARIO(http)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_survive),
		cmocka_unit_test(arenas_survive),
		cmocka_unit_test(json_survive),
		cmocka_unit_test(yaml_survive),
		cmocka_unit_test_teardown(files_survive, leave_no_files),
		cmocka_unit_test(arguments_survive),
		cmocka_unit_test(logging_survive),
		cmocka_unit_test(loops_survive),
		cmocka_unit_test(http_survive),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
