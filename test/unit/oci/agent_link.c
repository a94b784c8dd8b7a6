/* The host's end against an agent that this test plays. */
#include "oci/agent_link.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "oci/agent_message.h"
#include "test.h"

static struct {
	struct kn_loop *loop;
	struct kn_agent_link *link;
	struct kn_mux *agent;
	unsigned hello, started, ready, ended, failed, greeted, streams;
	bool broken;
	int status;
	struct kn_err why;
	struct kn_buf log, configured;
} t;

static void on_hello(void *arg)
{
	(void)arg;
	t.hello++;
}

static void on_started(void *arg)
{
	(void)arg;
	t.started++;
}

static void on_ready(void *arg)
{
	(void)arg;
	t.ready++;
}

static void on_log(enum kn_stream stream, struct kn_view line, void *arg)
{
	(void)arg;
	kn_buf_printf(&t.log, "%d:%.*s\n", stream, (int)line.len, line.ptr);
}

static void on_ended(const struct kn_err *why, int wait_status, void *arg)
{
	(void)arg;
	t.ended++;
	t.why = *why;
	t.status = wait_status;
}

static void on_failed(const struct kn_err *why, bool broken, void *arg)
{
	(void)arg;
	t.failed++;
	t.why = *why;
	t.broken = broken;
}

/* The agent hears a message: it is kept in words. */
static void on_control(struct kn_mux *m, struct kn_view message, void *arg)
{
	struct kn_agent_message msg;
	struct kn_arena a;

	(void)m;
	(void)arg;
	kn_arena_init(&a);
	assert_int_equal(kn_agent_decode(message, &a, &msg, NULL), 0);
	t.greeted += msg.type == KN_AGENT_GREET && msg.wall_ns > 0 && msg.entropy.len == 64;
	if (msg.type == KN_AGENT_CONFIGURE) {
		kn_buf_printf(&t.configured, "host %.*s ro %d", (int)msg.hostname.len,
		              msg.hostname.ptr, (int)msg.read_only_root);
		for (size_t i = 0; i < msg.n_argv; i++)
			kn_buf_printf(&t.configured, " %.*s", (int)msg.argv[i].len, msg.argv[i].ptr);
		for (size_t i = 0; i < msg.n_file_paths; i++)
			kn_buf_printf(&t.configured, " %.*s(%.*s)=%.*s", (int)msg.file_paths[i].len,
			              msg.file_paths[i].ptr, (int)msg.file_modes[i].len,
			              msg.file_modes[i].ptr, (int)msg.file_bytes[i].len,
			              msg.file_bytes[i].ptr);
	} else if (msg.type == KN_AGENT_STOP) {
		kn_buf_printf(&t.configured, "stop %d", (int)msg.grace_ms);
	}
	kn_arena_fini(&a);
}

static int on_open(struct kn_mux *m, void *arg)
{
	(void)m;
	(void)arg;
	t.streams++;
	return -ECONNREFUSED;
}

static int setup(void **state)
{
	struct kn_agent_link_events events = { .hello = on_hello, .started = on_started,
		                               .ready = on_ready, .log = on_log,
		                               .ended = on_ended, .failed = on_failed };
	struct kn_mux_config c = { .events = { .control = on_control, .open = on_open } };
	struct kn_err err = KN_ERR_INIT;
	int p[2];

	(void)state;
	memset(&t, 0, sizeof(t));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p), 0);
	assert_ok(kn_loop_new(&t.loop, &err), &err);
	assert_ok(kn_agent_link_new(t.loop, p[0], &events, &t.link, &err), &err);
	assert_ok(kn_mux_new(t.loop, p[1], &c, &t.agent, &err), &err);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kn_agent_link_free(t.link);
	kn_mux_free(t.agent);
	kn_loop_free(t.loop);
	kn_buf_fini(&t.log);
	kn_buf_fini(&t.configured);
	return 0;
}

static void rounds(void)
{
	for (int i = 0; i < 8; i++)
		assert_true(kn_loop_once(t.loop, 0) >= 0);
}

static void agent_says(const struct kn_agent_message *m)
{
	struct kn_buf b = KN_BUF_INIT;

	kn_agent_encode(m, &b);
	assert_int_equal(kn_mux_control(t.agent, kn_buf_view(&b), NULL), 0);
	kn_buf_fini(&b);
	rounds();
}

static void says(enum kn_agent_message_type type)
{
	agent_says(&(struct kn_agent_message){ .type = type });
}

static void a_function_is_configured_started_and_reached(void **state)
{
	static const struct kn_sandbox_file files[] = { { "/key", { "s3", 2 }, 0440 } };
	const char *argv[] = { "/app", "-x", NULL };
	struct kn_sandbox_config c = { .id = "box", .argv = argv, .files = files, .n_files = 1,
		                       .read_only_root = true };
	struct kn_err err = KN_ERR_INIT;
	int fd;

	(void)state;
	assert_ok(kn_agent_link_configure(t.link, &c, &err), &err);
	rounds();
	assert_int_equal(t.hello, 1);
	assert_int_equal(t.greeted, 1);
	assert_string_equal(t.configured.ptr, "host box ro 1 /app -x /key(0440)=s3");
	assert_fails(kn_agent_link_connect(t.link, &fd, &err), ENOTCONN, &err, "not ready");
	says(KN_AGENT_STARTED);
	says(KN_AGENT_READY);
	assert_int_equal(t.started, 1);
	assert_int_equal(t.ready, 1);
	assert_ok(kn_agent_link_connect(t.link, &fd, &err), &err);
	rounds();
	assert_int_equal(t.streams, 1);
	close(fd);
	agent_says(&(struct kn_agent_message){ .type = KN_AGENT_LOG, .stream = KN_STDERR,
	                                       .text = KN_VIEW("words") });
	assert_string_equal(t.log.ptr, "1:words\n");
	kn_buf_clear(&t.configured);
	assert_ok(kn_agent_link_stop(t.link, 70, &err), &err);
	rounds();
	assert_string_equal(t.configured.ptr, "stop 70");
}

static void what_comes_too_early_or_twice_means_nothing(void **state)
{
	(void)state;
	rounds();
	says(KN_AGENT_READY);
	assert_int_equal(t.ready, 0);
	says(KN_AGENT_STARTED);
	says(KN_AGENT_STARTED);
	says(KN_AGENT_READY);
	says(KN_AGENT_READY);
	assert_int_equal(t.started, 1);
	assert_int_equal(t.ready, 1);
	agent_says(&(struct kn_agent_message){ .type = KN_AGENT_LOG, .stream = 9,
	                                       .text = KN_VIEW("x") });
	assert_null(t.log.ptr);
	/* Messages that only a host says. */
	says(KN_AGENT_CONFIGURE);
	assert_int_equal(t.failed, 0);
}

static void an_end_is_told_once(void **state)
{
	(void)state;
	rounds();
	agent_says(&(struct kn_agent_message){ .type = KN_AGENT_EXITED, .status = SIGKILL,
	                                       .text = KN_VIEW("killed") });
	agent_says(&(struct kn_agent_message){ .type = KN_AGENT_FAILED, .status = ENOENT,
	                                       .text = KN_VIEW("no") });
	assert_int_equal(t.ended, 1);
	assert_int_equal(t.status, SIGKILL);
	assert_string_equal(t.why.text, "killed");
}

static void a_failure_has_its_number(void **state)
{
	(void)state;
	rounds();
	agent_says(&(struct kn_agent_message){ .type = KN_AGENT_FAILED, .status = ENOENT,
	                                       .text = KN_VIEW("no program") });
	assert_int_equal(t.why.code, ENOENT);
	assert_int_equal(t.status, 0);
}

static void broken_rules_and_a_closed_pipe_are_told_apart(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	rounds();
	assert_int_equal(kn_mux_control(t.agent, KN_VIEW("\x10\x01"), &err), 0);
	rounds();
	assert_int_equal(t.failed, 1);
	assert_true(t.broken);
	assert_non_null(strstr(t.why.text, "the agent said"));
	teardown(NULL);
	setup(NULL);
	rounds();
	kn_mux_free(kn_take_ptr(t.agent));
	rounds();
	assert_int_equal(t.failed, 1);
	assert_false(t.broken);
}

static void too_much_is_refused(void **state)
{
	static const char *argv[KN_AGENT_MAX_LIST + 2];
	struct kn_sandbox_config c = { .id = "box", .argv = argv };
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	for (size_t i = 0; i < KN_AGENT_MAX_LIST + 1; i++)
		argv[i] = "x";
	assert_fails(kn_agent_link_configure(t.link, &c, &err), E2BIG, &err, "more than 1024");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_function_is_configured_started_and_reached),
		TEST(what_comes_too_early_or_twice_means_nothing),
		TEST(an_end_is_told_once),
		TEST(a_failure_has_its_number),
		TEST(broken_rules_and_a_closed_pipe_are_told_apart),
		TEST(too_much_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
