/* Both ends of a socket pair: this test is QEMU. */
#include "oci/qmp.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "test.h"

static struct {
	struct kn_loop *loop;
	struct kn_qmp *qmp;
	int peer;
	unsigned replies, refusals, ends;
	char last[KN_ERR_TEXT];
} t;

static void on_done(const json_t *reply, const struct kn_err *err, void *arg)
{
	assert_ptr_equal(arg, &t);
	t.replies += reply != NULL;
	t.refusals += err != NULL;
	snprintf(t.last, sizeof(t.last), "%s", err ? err->text
	         : json_string_value(json_object_get(reply, "status")));
}

static void on_failed(const struct kn_err *why, void *arg)
{
	(void)arg;
	t.ends++;
	snprintf(t.last, sizeof(t.last), "%s", why->text);
}

static int setup(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	int p[2];

	(void)state;
	memset(&t, 0, sizeof(t));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p), 0);
	t.peer = p[1];
	assert_ok(kn_loop_new(&t.loop, &err), &err);
	assert_ok(kn_qmp_new(t.loop, p[0], on_failed, &t, &t.qmp, &err), &err);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kn_qmp_free(t.qmp);
	kn_loop_free(t.loop);
	kn_close(t.peer);
	return 0;
}

static void qemu_says(const char *text)
{
	assert_int_equal(kn_write_all(t.peer, text, strlen(text)), 0);
	for (int i = 0; i < 20; i++)
		assert_true(kn_loop_once(t.loop, 0) >= 0);
}

static void give(const char *command, json_t *arguments, int fd)
{
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_qmp_execute(t.qmp, command, arguments, fd, on_done, &t, &err), &err);
}

static void commands_are_answered_in_order(void **state)
{
	char text[1024];
	int got[1];
	size_t n;

	(void)state;
	give("query-migrate", NULL, -1);
	give("getfd", json_pack("{s:s}", "fdname", "state"), t.peer);
	ssize_t len = kn_recv_fds(t.peer, text, sizeof(text) - 1, got, 1, &n);
	while (n == 0 && len > 0)   /* a descriptor ends a read at its first byte's message */
		len = kn_recv_fds(t.peer, text, sizeof(text) - 1, got, 1, &n);
	assert_true(len > 0);
	text[len] = '\0';
	assert_non_null(strstr(text, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"state\"}}\n"));
	assert_int_equal(n, 1);
	close(got[0]);

	qemu_says("{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n{\"return\": {}}\r\n");
	assert_int_equal(t.replies, 0);
	qemu_says("{\"timestamp\": {}, \"event\": \"STOP\"}\r\n{\"return\": {\"status\"");
	assert_int_equal(t.replies, 0);
	qemu_says(": \"completed\"}}\r\n");
	assert_int_equal(t.replies, 1);
	assert_string_equal(t.last, "completed");
	qemu_says("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\r\n");
	assert_int_equal(t.refusals, 1);
	assert_non_null(strstr(t.last, "no such thing"));
	assert_int_equal(t.ends, 0);
}

static void the_end_of_qemu_answers_what_waits(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	give("quit", NULL, -1);
	qemu_says("{\"return\": {}}\n");
	close(t.peer);
	t.peer = -1;
	for (int i = 0; i < 5; i++)
		assert_true(kn_loop_once(t.loop, 0) >= 0);
	assert_int_equal(t.refusals, 1);
	assert_int_equal(t.ends, 1);
	assert_fails(kn_qmp_execute(t.qmp, "stop", NULL, -1, NULL, NULL, &err), EPIPE, &err, "gone");
}

static void what_is_no_answer_ends_it(void **state)
{
	static const struct {
		const char *says, *why;
	} cases[] = {
		{ "{\"return\": {}}\n{\"return\": {}}\n", "not given" },
		{ "nonsense\n", "" },
		{ "[1]\n", "no object" },
		{ "{\"a\": 1}\n", "neither" },
		{ "{\"error\": 5}\n", "neither" },
		{ "{\"event\": {}}\n", "neither" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		qemu_says(cases[i].says);
		assert_int_equal(t.ends, 1);
		if (!strstr(t.last, cases[i].why))
			fail_msg("'%s' does not say '%s'", t.last, cases[i].why);
		teardown(NULL);
		setup(NULL);
	}
	static char line[KN_QMP_MAX_LINE + 8192];
	memset(line, ' ', sizeof(line) - 1);
	qemu_says(line);
	assert_int_equal(t.ends, 1);
	assert_non_null(strstr(t.last, "longer"));
}

static void free_inside(const json_t *reply, const struct kn_err *err, void *arg)
{
	(void)reply;
	(void)err;
	(void)arg;
	kn_qmp_free(t.qmp);
	t.qmp = NULL;
}

static void it_may_be_freed_inside_an_answer(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(kn_qmp_execute(t.qmp, "cont", NULL, -1, free_inside, NULL, &err), &err);
	give("never-told", NULL, -1);
	qemu_says("{\"return\": {}}\n{\"return\": {}}\n{\"return\": {}}\n");
	assert_null(t.qmp);
	assert_int_equal(t.replies + t.refusals + t.ends, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		TEST(commands_are_answered_in_order),
		TEST(the_end_of_qemu_answers_what_waits),
		TEST(what_is_no_answer_ends_it),
		TEST(it_may_be_freed_inside_an_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
