/*
 * The gateway between a raw TCP client and functions that this file plays: bytes in, bytes out, on
 * one loop and a fake clock.
 */
#include "play.h"

#include <sys/socket.h>

#include "faas/gateway.h"

enum { MANY = 100 };

/* A connection that the gateway made to the function. */
struct conn {
	int fd;
	struct kn_buf got;
};

static struct {
	struct kn_engine *engine;
	struct kn_gateway *gateway;
	char addr[64];
	struct conn conn[MANY];
	int n_conn;
	/* messages */
	kn_message_done done;
	void *done_arg;
	char message[512];
	/* what the caller may do */
	bool let_in;
	int asked;
} f;

static void serve(struct kn_sandbox *sb, int fd, void *arg)
{
	(void)sb;
	(void)arg;
	assert_true(f.n_conn < MANY);
	f.conn[f.n_conn++] = (struct conn){ .fd = fd };
}

static int invoke(struct kn_sandbox *sb, const struct kn_message *request, kn_message_done done,
		  void *done_arg, void *arg)
{
	(void)sb;
	(void)arg;
	snprintf(f.message, sizeof(f.message), "%.*s %.*s %.*s [%.*s]", (int)request->method.len,
		 request->method.ptr, (int)request->path.len, request->path.ptr,
		 (int)request->content_type.len, request->content_type.ptr, (int)request->body.len,
		 request->body.ptr);
	f.done = done;
	f.done_arg = done_arg;
	return 0;
}

static void allow(struct kn_http_exchange *x, uint32_t scope, kn_auth_done done, void *done_arg,
		  void *arg)
{
	struct kn_caller caller = { .client_id = "test", .scopes = scope };

	(void)arg;
	f.asked++;
	if (f.let_in)
		done(x, &caller, done_arg);
	else
		kn_http_reply_text(x, 401, "text/plain", "no token\n");
}

/* What the control plane would know of functions that the engine does not have. */
static bool why_not(struct kn_view name, const char **ret_why, void *arg)
{
	(void)arg;
	*ret_why = kn_view_is(name, KN_VIEW("spoiled")) ? "the image is spoiled" : NULL;
	return *ret_why || kn_view_is(name, KN_VIEW("early"));
}

static void other(struct kn_http_exchange *x, void *arg)
{
	(void)arg;
	kn_http_reply_text(x, 200, "text/plain", "control\n");
}

static int setup(void **state)
{
	struct kn_engine_config config = KN_ENGINE_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;

	play_setup(state);
	memset(&f, 0, sizeof(f));
	play.fake.serve = serve;
	play.fake.invoke = invoke;
	config.run_dir = play.dir;
	config.drain_ms = 1000;
	config.max_body_bytes = 100 * 1000;
	config.max_reply_bytes = 300 * 1000;
	config.classes[KN_CLASS_MICROVM] =
		(struct kn_engine_class){ .ops = &kn_sandbox_fake, .driver = &play.driver };
	config.classes[KN_CLASS_BARE] =
		(struct kn_engine_class){ .ops = &kn_sandbox_fake_message, .driver = &play.driver };
	config.classes[KN_CLASS_NF] =
		(struct kn_engine_class){ .ops = &kn_sandbox_fake_frames, .driver = &play.driver };
	assert_ok(kn_engine_new(play.loop, &config, &f.engine, &err), &err);

	int fd = kn_tcp_listen("127.0.0.1:0", &err);
	assert_ok(fd, &err);
	assert_ok(kn_tcp_name(fd, f.addr, sizeof(f.addr)), NULL);
	struct kn_gateway_config gateway = { .loop = play.loop,
					     .engine = f.engine,
					     .http = KN_HTTP_SERVER_DEFAULTS,
					     .allow = allow,
					     .other = other,
					     .why_not = why_not };
	gateway.http.max_connections = MANY + 20;
	assert_ok(kn_gateway_new(&gateway, fd, &f.gateway, &err), &err);
	return 0;
}

static void note_done(void *arg)
{
	*(bool *)arg = true;
}

static int teardown(void **state)
{
	bool done = false;

	kn_gateway_free(f.gateway);
	for (int i = 0; i < f.n_conn; i++) {
		kn_close(f.conn[i].fd);
		kn_buf_fini(&f.conn[i].got);
	}
	kn_engine_drain(f.engine, note_done, &done);
	for (int i = 0; i < 5 && !done; i++)
		play_pass(1000);
	assert_true(done); /* so every call was given back */
	kn_engine_free(f.engine);
	return play_teardown(state);
}

static void deploy(struct kn_function *fn)
{
	static const struct kn_engine_image IMAGE = { .path = "/image" };
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_engine_put(f.engine, fn, &IMAGE, &err), &err);
	kn_function_unref(fn);
}

static void deploy_bare(const char *name)
{
	struct kn_function *fn = play_function(name);

	fn->class = KN_CLASS_BARE;
	fn->contract = KN_CONTRACT_MESSAGE;
	fn->concurrency = 1;
	deploy(fn);
}

/* ---- a raw client ----------------------------------------------------------------------------- */

static int dial(void)
{
	struct kn_err err = KN_ERR_INIT;
	int fd = kn_tcp_connect(f.addr, &err);

	assert_ok(fd, &err);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(kn_write_all(fd, text, strlen(text)), 0);
	play_settle();
}

/* What has arrived; end tells whether the peer closed. */
static const char *hear(int fd, bool *end)
{
	static char text[512 * 1024];
	size_t len = 0;
	ssize_t n;

	*end = false;
	for (int i = 0; i < 50; i++) {
		play_settle();
		while ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
			len += (size_t)n;
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			*end = true;
			break;
		}
	}
	text[len] = '\0';
	return text;
}

static void assert_says(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' is not in:\n%.2000s", part, text);
}

static void assert_silent(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("'%s' is in:\n%.2000s", part, text);
}

/* One request on a connection of its own; the answer. */
static const char *talk(const char *request)
{
	bool end;
	int fd = dial();

	say(fd, request);
	const char *text = hear(fd, &end);
	close(fd);
	play_settle();
	return text;
}

/* What the function got on its n-th connection. */
static const char *function_heard(int n)
{
	bool end;

	assert_true(n < f.n_conn);
	return hear(f.conn[n].fd, &end);
}

static void function_says(int n, const char *text)
{
	say(f.conn[n].fd, text);
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"
#define OK(body)  "HTTP/1.1 200 OK\r\nContent-Length: " body

/* ---- routes ----------------------------------------------------------------------------------- */

static void packet_functions_answer_no_http(void **state)
{
	struct kn_function *fn = play_function("firewall");
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	(void)state;
	fn->class = KN_CLASS_NF;
	fn->contract = KN_CONTRACT_FRAMES;
	fn->scale_min = 1;
	deploy(fn);
	assert_int_equal(play.fake.starts, 1);
	const char *answer = talk(GET("/function/firewall"));
	assert_says(answer, "405 Method Not Allowed");
	assert_says(answer, "Allow: \r\n");
	assert_says(answer, "frames at its ports are its events");
	assert_int_equal(play.fake.starts, 1);
}

static void paths_reach_functions_or_control(void **state)
{
	bool end;

	(void)state;
	f.let_in = true;
	assert_says(talk(GET("/system/functions")), "control\n");
	assert_says(talk(GET("/function")), "control\n");
	assert_says(talk(GET("/functionx/hello")), "control\n");
	assert_says(talk(GET("/metrics")), "control\n");
	assert_says(talk(GET("/function/")), "404 Not Found");
	assert_says(talk(GET("/function/none")), "there is no function 'none'");
	assert_says(talk(GET("/function/spoiled")), "the image is spoiled");
	assert_says(talk(GET("/function/spoiled")), "503");
	assert_says(talk(GET("/function/early")), "Retry-After: 1");
	deploy(play_function("hello"));
	assert_says(talk(GET("/function/hello.elsewhere")), "404 Not Found");

	int fd = dial();
	say(fd, GET("/function/hello.openfaas-fn/a/b?c=d%20e"));
	play_pass(5);
	assert_says(function_heard(0), "GET /a/b?c=d%20e HTTP/1.1\r\n");
	function_says(0, OK("2\r\n\r\nhi"));
	assert_says(hear(fd, &end), "\r\n\r\nhi");
	say(fd, GET("/function/hello?q"));
	assert_says(function_heard(0), "GET /?q HTTP/1.1\r\n");
	function_says(0, OK("0\r\n\r\n"));
	assert_says(hear(fd, &end), "200 OK");
	say(fd, GET("/function/hello"));
	assert_says(function_heard(0), "GET / HTTP/1.1\r\n");
	function_says(0, OK("0\r\n\r\n"));
	assert_says(hear(fd, &end), "200 OK");
	say(fd, GET("http://node:80/function/hello/x?y")); /* absolute form, RFC 9112 3.2.2 */
	assert_says(function_heard(0), "GET /x?y HTTP/1.1\r\n");
	function_says(0, OK("0\r\n\r\n"));
	assert_says(hear(fd, &end), "200 OK");
	close(fd);
}

/* ---- fields and labels ------------------------------------------------------------------------ */

static void fields_of_the_hop_stay_and_ours_are_added(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd,
	    "GET /function/hello HTTP/1.1\r\nHost: example.org\r\nX-Call-Id: my-id.1\r\n"
	    "Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
	    "Upgrade: websocket\r\nX-Start-Time: 0\r\nX-Other: 2\r\nAuthorization: Bearer t\r\n\r\n");
	play_pass(5);
	const char *got = function_heard(0);
	assert_says(got, "Host: example.org\r\n");
	assert_says(got, "X-Call-Id: my-id.1\r\n");
	assert_says(got, "X-Start-Time: 17000000");
	assert_says(got, "X-Other: 2\r\n");
	assert_says(got, "Authorization: Bearer t\r\n"); /* an open function checks by itself */
	assert_silent(got, "X-Mine");
	assert_silent(got, "Upgrade");
	assert_silent(got, "Keep-Alive");
	assert_silent(got, "X-Start-Time: 0\r\n");
	function_says(0, "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\n"
			 "X-Hop: 1\r\nDate: yesterday\r\nX-Kiln-Start: tepid\r\nX-Fn: 3\r\n\r\nhi");
	got = hear(fd, &end);
	assert_says(got, "HTTP/1.1 201 Created\r\n");
	assert_says(got, "X-Fn: 3\r\n");
	assert_says(got, "X-Call-Id: my-id.1\r\n");
	assert_says(got, "X-Kiln-Start: cold\r\n");
	assert_says(got, "Server-Timing: queue;dur=0.000, boot;dur=5.000, function;dur=");
	assert_silent(got, "X-Hop");
	assert_silent(got, "yesterday");
	assert_silent(got, "tepid");
	assert_false(end); /* the function's Connection: close is between it and the gateway */

	say(fd, "GET /function/hello HTTP/1.1\r\nHost: x\r\nX-Call-Id: bad id;\r\n\r\n");
	function_says(1, OK("0\r\n\r\n"));
	got = hear(fd, &end);
	assert_says(got, "X-Kiln-Start: warm\r\n");
	assert_silent(got, "bad id");
	const char *id = strstr(got, "X-Call-Id: ");
	assert_non_null(id);
	assert_int_equal(strcspn(id, "\r"), strlen("X-Call-Id: ") + 36);
	close(fd);
}

static void protected_function_asks_and_keeps_the_token_from_it(void **state)
{
	struct kn_function *fn = play_function("secret");
	bool end;

	(void)state;
	fn->needs_token = true;
	deploy(fn);
	assert_says(talk(GET("/function/secret")), "401 Unauthorized");
	assert_int_equal(play.fake.starts, 0);
	f.let_in = true;
	int fd = dial();
	say(fd, "GET /function/secret HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n");
	play_pass(5);
	assert_silent(function_heard(0), "Authorization");
	function_says(0, OK("0\r\n\r\n"));
	assert_says(hear(fd, &end), "200 OK");
	close(fd);
}

/* ---- streaming -------------------------------------------------------------------------------- */

static void bodies_stream_both_ways_at_once(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd, "POST /function/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		"3\r\nabc\r\n");
	play_pass(5);
	const char *got = function_heard(0);
	assert_says(got, "Transfer-Encoding: chunked\r\n");
	assert_says(got, "\r\n\r\n3\r\nabc\r\n");
	function_says(0, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n");
	assert_says(hear(fd, &end), "\r\n\r\n2\r\nxy\r\n");
	say(fd, "2\r\nde\r\n0\r\n\r\n");
	assert_string_equal(function_heard(0), "2\r\nde\r\n0\r\n\r\n");
	function_says(0, "1\r\nz\r\n0\r\n\r\n");
	assert_string_equal(hear(fd, &end), "1\r\nz\r\n0\r\n\r\n");
	close(fd);
}

static void body_waits_for_the_cold_start(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd, "POST /function/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234");
	say(fd, "56789");
	play_pass(5);
	assert_says(function_heard(0), "Content-Length: 10\r\n\r\n0123456789");
	function_says(0, OK("1\r\n\r\n!"));
	assert_says(hear(fd, &end), "\r\n\r\n!");
	close(fd);
}

static void slow_reader_holds_the_function_back(void **state)
{
	static char part[64 * 1024];
	size_t sent = 0;
	ssize_t n;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd, GET("/function/hello"));
	play_pass(5);
	(void)function_heard(0);
	function_says(0, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
	/* the announced length is above the limit: refused, not begun */
	bool end;
	assert_says(hear(fd, &end), "502 Bad Gateway");
	say(fd, GET("/function/hello"));
	(void)function_heard(1);
	function_says(1, "HTTP/1.1 200 OK\r\n\r\n"); /* until it closes */
	memset(part, 'x', sizeof(part));
	for (int i = 0; i < 100; i++) {
		n = send(f.conn[1].fd, part, sizeof(part), MSG_NOSIGNAL);
		if (n > 0)
			sent += (size_t)n;
		play_settle();
	}
	/* too much: the client's connection is cut, whatever it had got */
	assert_true(sent < 100 * sizeof(part));
	(void)hear(fd, &end);
	assert_true(end);
	close(fd);
}

static void reply_that_ends_early_is_cut(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd, GET("/function/hello"));
	play_pass(5);
	(void)function_heard(0);
	function_says(0, OK("10\r\n\r\n12345"));
	kn_close(kn_take_fd(f.conn[0].fd));
	const char *got = hear(fd, &end);
	assert_says(got, "200 OK");
	assert_says(got, "12345");
	assert_true(end);
	close(fd);

	fd = dial();
	say(fd, GET("/function/hello"));
	function_says(1, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
	kn_fake_end(play.fake.newest, "page fault at 0x10");
	kn_close(kn_take_fd(f.conn[1].fd));
	got = hear(fd, &end);
	assert_silent(got, "0\r\n\r\n");
	assert_true(end);
	close(fd);
}

/* ---- failures --------------------------------------------------------------------------------- */

static void crash_before_the_reply_is_told_with_its_reason(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd, GET("/function/hello"));
	play_pass(5);
	kn_close(kn_take_fd(f.conn[0].fd)); /* first the connection, then the driver's news */
	play_settle();
	kn_fake_end(play.fake.newest, "exited with code 139");
	const char *got = hear(fd, &end);
	assert_says(got, "502 Bad Gateway");
	assert_says(got, "exited with code 139");
	assert_says(got, "X-Call-Id: ");
	assert_false(end);

	say(fd, GET("/function/hello")); /* a new instance */
	play_pass(5);
	kn_fake_end(play.fake.newest, "killed"); /* the other order */
	play_settle();
	kn_close(kn_take_fd(f.conn[1].fd));
	got = hear(fd, &end);
	assert_says(got, "502 Bad Gateway");
	assert_says(got, "killed");
	close(fd);
	assert_int_equal(play.fake.starts, 2);
}

static void answer_sent_before_the_end_counts(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("once"));
	int fd = dial();
	say(fd, GET("/function/once"));
	play_pass(5);
	(void)function_heard(0);
	const char answer[] = OK("3\r\n\r\nbye");
	assert_int_equal(kn_write_all(f.conn[0].fd, answer, strlen(answer)), 0);
	kn_close(kn_take_fd(f.conn[0].fd));
	kn_fake_end(play.fake.newest, "exited with code 0");
	assert_says(hear(fd, &end), "\r\n\r\nbye");
	close(fd);
}

static void connection_closed_without_an_answer_by_a_living_function(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd, GET("/function/hello"));
	play_pass(5);
	kn_close(kn_take_fd(f.conn[0].fd));
	play_settle();
	play_pass(100);
	assert_says(hear(fd, &end), "502 Bad Gateway");
	close(fd);
}

static void garbage_is_a_bad_gateway(void **state)
{
	static const char *const ANSWERS[] = {
		"SSH-2.0-OpenSSH_9.2\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
	};
	bool end;

	(void)state;
	deploy(play_function("hello"));
	talk(GET("/function/hello"));
	play_pass(5);
	for (size_t i = 0; i < KN_ARRAY_LEN(ANSWERS); i++) {
		int fd = dial(), n = f.n_conn;
		say(fd, GET("/function/hello"));
		function_says(n, ANSWERS[i]);
		play_pass(200);
		const char *got = hear(fd, &end);
		if (!strstr(got, "502 Bad Gateway"))
			fail_msg("answer %zu: %s", i, got);
		close(fd);
		play_settle();
	}
}

static void stale_connection_is_tried_again_when_that_is_safe(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd, GET("/function/hello"));
	play_pass(5);
	function_says(0, OK("1\r\n\r\n1"));
	assert_says(hear(fd, &end), "\r\n\r\n1");
	/* the request goes out on the kept connection, which the function closes unread */
	const char again[] = GET("/function/hello");
	assert_int_equal(kn_write_all(fd, again, strlen(again)), 0);
	while (kn_gateway_busy(f.gateway) == 0)
		assert_true(kn_loop_once(play.loop, 0) >= 0);
	kn_close(kn_take_fd(f.conn[0].fd));
	play_settle();
	assert_int_equal(f.n_conn, 2);
	function_says(1, OK("1\r\n\r\n2"));
	assert_says(hear(fd, &end), "\r\n\r\n2");
	/* not so for a request that may have had its effect */
	const char post[] = "POST /function/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
	assert_int_equal(kn_write_all(fd, post, strlen(post)), 0);
	while (kn_gateway_busy(f.gateway) == 0)
		assert_true(kn_loop_once(play.loop, 0) >= 0);
	kn_close(kn_take_fd(f.conn[1].fd));
	play_settle();
	play_pass(100);
	assert_says(hear(fd, &end), "502 Bad Gateway");
	assert_int_equal(f.n_conn, 2);
	close(fd);
}

static void deadline_answers_504_wherever_the_time_went(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("hello"));
	play.fake.boot_ns = 60 * KN_NS_PER_S;
	int fd = dial();
	say(fd, GET("/function/hello")); /* in the queue */
	play_pass(9 * 1000);
	assert_string_equal(hear(fd, &end), "");
	play_pass(1001);
	const char *got = hear(fd, &end);
	assert_says(got, "504 Gateway Timeout");
	assert_says(got, "no instance was ready");
	play_pass(60 * 1000);
	fd = dial();
	say(fd, GET("/function/hello")); /* in the function */
	(void)function_heard(0);
	play_pass(10 * 1000 + 1);
	got = hear(fd, &end);
	assert_says(got, "504 Gateway Timeout");
	assert_says(got, "the function was working");
	(void)hear(f.conn[0].fd, &end);
	assert_true(end); /* the function's side is cut, too */
	fd = dial();
	say(fd, GET("/function/hello")); /* in the middle of its reply */
	(void)function_heard(1);
	function_says(1, OK("10\r\n\r\n12"));
	play_pass(10 * 1000 + 1);
	assert_silent(hear(fd, &end), "504");
	assert_true(end);
}

static void client_that_leaves_ends_the_upstream_request(void **state)
{
	bool end;
	struct kn_function_live live;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd, GET("/function/hello"));
	close(fd); /* while it waits */
	play_settle();
	play_pass(5);
	assert_int_equal(f.n_conn, 0);
	fd = dial();
	say(fd, GET("/function/hello"));
	(void)function_heard(0);
	close(fd); /* while the function works */
	play_settle();
	(void)hear(f.conn[0].fd, &end);
	assert_true(end);
	assert_ok(kn_engine_live(f.engine, KN_VIEW("hello"), false, &live, NULL), NULL);
	assert_int_equal(live.busy, 0);
	assert_int_equal(live.waiting, 0);
}

static void limits_answer_413_and_429(void **state)
{
	struct kn_function *fn = play_function("hello");
	static char big[120 * 1000];
	bool end;

	(void)state;
	fn->queue = 1;
	deploy(fn);
	assert_says(
		talk("POST /function/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n"),
		"413 ");
	assert_int_equal(play.fake.starts, 0);
	int fd = dial();
	say(fd, GET("/function/hello"));
	const char *got = talk(GET("/function/hello"));
	assert_says(got, "429 Too Many Requests");
	assert_says(got, "Retry-After: 1\r\n");
	play_pass(5);
	function_says(0, OK("0\r\n\r\n"));
	assert_says(hear(fd, &end), "200 OK");

	/* a chunked body shows its size only as it comes */
	say(fd,
	    "POST /function/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1d4c0\r\n");
	memset(big, 'x', sizeof(big));
	for (size_t at = 0; at < sizeof(big); at += 10000) {
		(void)!send(fd, big + at, 10000, MSG_NOSIGNAL);
		(void)function_heard(0);
	}
	assert_says(hear(fd, &end), "413 ");
	close(fd);
}

/* ---- functions that take messages ------------------------------------------------------------- */

static void message_goes_to_the_function_and_its_reply_back(void **state)
{
	struct kn_message reply = { .status = 200,
				    .content_type = KN_VIEW("text/csv"),
				    .body = KN_VIEW("1,2") };
	bool end;

	(void)state;
	deploy_bare("denoise");
	int fd = dial();
	say(fd, "POST /function/denoise/x?y HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
		"Content-Length: 4\r\n\r\n1");
	play_pass(5);
	assert_string_equal(f.message, "");
	say(fd, " 2 ");
	play_pass(5);
	assert_string_equal(f.message, "POST /x?y text/plain [1 2 ]");
	f.done(&reply, NULL, f.done_arg);
	const char *got = hear(fd, &end);
	assert_says(got, "200 OK");
	assert_says(got, "Content-Type: text/csv\r\n");
	assert_says(got, "X-Kiln-Start: cold\r\n");
	assert_says(got, "\r\n\r\n1,2");
	say(fd, GET("/function/denoise"));
	assert_string_equal(f.message, "GET /  []");
	struct kn_err err = KN_ERR_INIT;
	(void)kn_fail(&err, EFAULT, "page fault at 0x10 (rip 0x401000)");
	kn_message_done done = f.done;
	done(NULL, &err, f.done_arg);
	kn_fake_end(play.fake.newest, "page fault at 0x10 (rip 0x401000)");
	got = hear(fd, &end);
	assert_says(got, "502 Bad Gateway");
	assert_says(got, "rip 0x401000");
	close(fd);
}

/* Requests wait for a revision that never gets ready, and an update to the other kind serves them. */
static void requests_that_wait_go_to_a_revision_of_another_class(void **state)
{
	struct kn_message reply = { .status = 200, .body = KN_VIEW("fine") };
	bool end;

	(void)state;
	play.fake.never_ready = true;
	deploy(play_function("denoise"));
	int fd = dial();
	say(fd, "POST /function/denoise HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n1");
	play.fake.never_ready = false;
	deploy_bare("denoise");
	play_settle();
	play_pass(5);
	say(fd, " 2 ");
	assert_string_equal(f.message, "POST /  [1 2 ]");
	f.done(&reply, NULL, f.done_arg);
	assert_says(hear(fd, &end), "\r\n\r\nfine");
	close(fd);

	play.fake.never_ready = true;
	deploy_bare("other");
	fd = dial();
	say(fd, "POST /function/other HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n1 2 ");
	play.fake.never_ready = false;
	deploy(play_function("other"));
	play_settle();
	play_pass(5);
	assert_says(function_heard(0), "Content-Length: 4\r\n\r\n1 2 ");
	function_says(0, OK("1\r\n\r\n!"));
	assert_says(hear(fd, &end), "\r\n\r\n!");
	close(fd);
}

static void request_that_waits_behind_a_fault_gets_a_new_instance(void **state)
{
	struct kn_message reply = { .status = 200, .body = KN_VIEW("fine") };
	struct kn_err err = KN_ERR_INIT;
	bool end;
	int first, second;

	(void)state;
	deploy_bare("denoise");
	first = dial();
	say(first, GET("/function/denoise/1"));
	play_pass(5);
	second = dial();
	say(second, GET("/function/denoise/2"));
	assert_says(f.message, "/1");
	(void)kn_fail(&err, EFAULT, "page fault at 0x10");
	f.done(NULL, &err, f.done_arg); /* the driver tells the end of the instance later */
	assert_says(hear(first, &end), "page fault at 0x10");
	assert_says(f.message, "/1");
	play_pass(5);
	assert_says(f.message, "/2");
	f.done(&reply, NULL, f.done_arg);
	assert_says(hear(second, &end), "\r\n\r\nfine");
	assert_int_equal(play.fake.starts, 2);
	assert_int_equal(play.fake.ends, 1);
	struct kn_function_live live;
	assert_ok(kn_engine_live(f.engine, KN_VIEW("denoise"), false, &live, NULL), NULL);
	assert_string_equal(live.last_error, "page fault at 0x10");
	close(first);
	close(second);
}

static void message_outlives_its_client_and_its_deadline(void **state)
{
	struct kn_message reply = { .status = 200, .body = KN_VIEW("late") };
	struct kn_err err = KN_ERR_INIT;
	bool end;

	(void)state;
	deploy_bare("denoise");
	int fd = dial();
	say(fd, GET("/function/denoise"));
	play_pass(5);
	close(fd);
	play_settle();
	f.done(&reply, NULL, f.done_arg);
	fd = dial();
	say(fd, GET("/function/denoise"));
	play_pass(10 * 1000 + 1);
	assert_says(hear(fd, &end), "504 Gateway Timeout");
	(void)kn_fail(&err, ETIME, "time limit of 10000 ms passed");
	f.done(NULL, &err, f.done_arg);
	say(fd, GET("/function/denoise")); /* the instance is free again */
	f.done(&reply, NULL, f.done_arg);
	assert_says(hear(fd, &end), "\r\n\r\nlate");
	close(fd);
}

static void message_with_a_bad_reply_is_a_bad_gateway(void **state)
{
	struct kn_message reply = { .status = 99, .body = KN_VIEW("") };
	bool end;
	int fd;

	(void)state;
	deploy_bare("denoise");
	fd = dial();
	say(fd, GET("/function/denoise"));
	play_pass(5);
	f.done(&reply, NULL, f.done_arg);
	assert_says(hear(fd, &end), "502 Bad Gateway");
	say(fd, GET("/function/denoise"));
	reply = (struct kn_message){ .status = 200, .body = { f.message, 300 * 1000 + 1 } };
	f.done(&reply, NULL, f.done_arg);
	assert_says(hear(fd, &end), "larger than 300000");
	close(fd);
}

/* ---- hostile framing -------------------------------------------------------------------------- */

static void ambiguous_requests_never_reach_a_function(void **state)
{
	static const struct {
		const char *name, *request, *status;
	} CASES[] = {
		{ "both lengths",
		  "POST /function/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
		  "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		  "400" },
		{ "two lengths",
		  "POST /function/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
		  "Content-Length: 5\r\n\r\nabcde",
		  "400" },
		{ "a list of lengths",
		  "POST /function/hello HTTP/1.1\r\nHost: x\r\n"
		  "Content-Length: 4, 4\r\n\r\nabcd",
		  "400" },
		{ "a signed length",
		  "POST /function/hello HTTP/1.1\r\nHost: x\r\n"
		  "Content-Length: +4\r\n\r\nabcd",
		  "400" },
		{ "a hex length",
		  "POST /function/hello HTTP/1.1\r\nHost: x\r\n"
		  "Content-Length: 0x4\r\n\r\nabcd",
		  "400" },
		{ "a length that overflows",
		  "POST /function/hello HTTP/1.1\r\nHost: x\r\n"
		  "Content-Length: 18446744073709551617\r\n\r\nabcd",
		  "400" },
		{ "bare line feeds", "GET /function/hello HTTP/1.1\nHost: x\n\n", "400" },
		{ "a bare line feed in a field",
		  "GET /function/hello HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", "400" },
		{ "a folded field", "GET /function/hello HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
		  "400" },
		{ "a blank before the colon",
		  "POST /function/hello HTTP/1.1\r\nHost: x\r\n"
		  "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		  "400" },
		{ "a coding behind chunked",
		  "POST /function/hello HTTP/1.1\r\nHost: x\r\n"
		  "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		  "400" },
		{ "an unknown coding",
		  "POST /function/hello HTTP/1.1\r\nHost: x\r\n"
		  "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		  "501" },
		{ "chunked twice",
		  "POST /function/hello HTTP/1.1\r\nHost: x\r\n"
		  "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
		  "0\r\n\r\n",
		  "400" },
		{ "chunked in HTTP/1.0",
		  "POST /function/hello HTTP/1.0\r\nHost: x\r\n"
		  "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		  "400" },
		{ "no host", "GET /function/hello HTTP/1.1\r\n\r\n", "400" },
		{ "two hosts", "GET /function/hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		  "400" },
		{ "a NUL in a field", NULL, "400" },
		{ "an unknown version", "GET /function/hello HTTP/3.0\r\nHost: x\r\n\r\n", "505" },
	};

	(void)state;
	deploy(play_function("hello"));
	for (size_t i = 0; i < KN_ARRAY_LEN(CASES); i++) {
		static const char NUL[] =
			"GET /function/hello HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n";
		bool end;
		int fd = dial();
		const char *request = CASES[i].request ? CASES[i].request : NUL;
		size_t len = CASES[i].request ? strlen(request) : sizeof(NUL) - 1;
		assert_int_equal(kn_write_all(fd, request, len), 0);
		const char *got = hear(fd, &end);
		if (strncmp(got, "HTTP/1.1 ", 9) != 0 || strncmp(got + 9, CASES[i].status, 3) != 0)
			fail_msg("%s: answered '%.200s'", CASES[i].name, got);
		if (!end)
			fail_msg("%s: the connection stays open", CASES[i].name);
		close(fd);
		play_settle();
	}
	assert_int_equal(play.fake.starts, 0);
}

static void bad_chunks_end_the_request_on_both_sides(void **state)
{
	static const char *const CHUNKS[] = {
		"5\nabcde\r\n0\r\n\r\n",    /* bare line feed */
		"5 \r\nabcde\r\n0\r\n\r\n", /* blank behind the size */
		"0x5\r\nabcde\r\n0\r\n\r\n",
		"-1\r\nabcde\r\n0\r\n\r\n",
		"fffffffffffffffff\r\nabcde\r\n",
		"5\r\nabcdefgh\r\n0\r\n\r\n", /* longer than its size */
		"\r\n0\r\n\r\n",
		"g\r\n",
	};

	(void)state;
	deploy(play_function("hello"));
	talk(GET("/function/hello"));
	play_pass(5);
	for (size_t i = 0; i < KN_ARRAY_LEN(CHUNKS); i++) {
		bool end;
		int fd = dial();
		say(fd,
		    "POST /function/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
		int n = f.n_conn - 1;
		say(fd, CHUNKS[i]);
		const char *got = hear(fd, &end);
		if (!strstr(got, "HTTP/1.1 400"))
			fail_msg("chunk %zu: answered '%.200s'", i, got);
		assert_true(end);
		(void)hear(f.conn[n].fd, &end);
		if (!end)
			fail_msg("chunk %zu: the function still waits", i);
		close(fd);
		play_settle();
	}
}

static void pipelined_requests_are_answered_in_order_and_apart(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd, "POST /function/hello/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none"
		"GET /function/hello/2 HTTP/1.1\r\nHost: x\r\n\r\n" GET("/system/info"));
	play_pass(5);
	const char *got = function_heard(0);
	assert_says(got, "POST /1 ");
	assert_silent(got, "/2");
	function_says(0, OK("1\r\n\r\nA"));
	assert_says(function_heard(0), "GET /2 ");
	function_says(0, OK("1\r\n\r\nB"));
	got = hear(fd, &end);
	assert_true(strstr(got, "\r\n\r\nA") < strstr(got, "\r\n\r\nB"));
	assert_true(strstr(got, "\r\n\r\nB") < strstr(got, "control\n"));
	close(fd);
}

static void slow_heads_and_bodies_have_an_end(void **state)
{
	bool end;
	int fd = dial();

	(void)state;
	deploy(play_function("hello"));
	for (int i = 0; i < 11; i++) { /* a byte a second */
		(void)!send(fd, "G", 1, MSG_NOSIGNAL);
		play_settle();
		play_pass(1000);
	}
	assert_says(hear(fd, &end), "408 Request Timeout");
	close(fd);
	play_pass(3000);
	fd = dial();
	say(fd, "POST /function/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
	for (int i = 0; i < 11; i++) {
		(void)!send(fd, "x", 1, MSG_NOSIGNAL);
		play_settle();
		play_pass(1000);
	}
	assert_says(hear(fd, &end), "504 Gateway Timeout"); /* the function's one deadline */
	close(fd);
}

static void drain_finishes_what_is_under_way(void **state)
{
	bool end;

	(void)state;
	deploy(play_function("hello"));
	int fd = dial();
	say(fd, GET("/function/hello"));
	play_pass(5);
	(void)function_heard(0);
	kn_gateway_drain(f.gateway);
	assert_int_equal(kn_gateway_busy(f.gateway), 1);
	function_says(0, OK("4\r\n\r\ndone"));
	const char *got = hear(fd, &end);
	assert_says(got, "\r\n\r\ndone");
	assert_true(end);
	assert_int_equal(kn_gateway_busy(f.gateway), 0);
	close(fd);
}

static void a_hundred_clients_share_one_start(void **state)
{
	static int fd[MANY];
	struct kn_function *fn = play_function("hello");
	bool end;

	(void)state;
	fn->concurrency = MANY;
	deploy(fn);
	for (int i = 0; i < MANY; i++) {
		fd[i] = dial();
		say(fd[i], GET("/function/hello"));
	}
	assert_int_equal(play.fake.starts, 1);
	play_pass(5);
	assert_int_equal(f.n_conn, MANY);
	for (int i = 0; i < MANY; i++)
		function_says(i, OK("2\r\n\r\nok"));
	for (int i = 0; i < MANY; i++) {
		assert_says(hear(fd[i], &end), "\r\n\r\nok");
		close(fd[i]);
	}
	assert_int_equal(play.fake.starts, 1);
}

#define GATEWAY(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		GATEWAY(packet_functions_answer_no_http),
		GATEWAY(paths_reach_functions_or_control),
		GATEWAY(fields_of_the_hop_stay_and_ours_are_added),
		GATEWAY(protected_function_asks_and_keeps_the_token_from_it),
		GATEWAY(bodies_stream_both_ways_at_once),
		GATEWAY(body_waits_for_the_cold_start),
		GATEWAY(slow_reader_holds_the_function_back),
		GATEWAY(reply_that_ends_early_is_cut),
		GATEWAY(crash_before_the_reply_is_told_with_its_reason),
		GATEWAY(answer_sent_before_the_end_counts),
		GATEWAY(connection_closed_without_an_answer_by_a_living_function),
		GATEWAY(garbage_is_a_bad_gateway),
		GATEWAY(stale_connection_is_tried_again_when_that_is_safe),
		GATEWAY(deadline_answers_504_wherever_the_time_went),
		GATEWAY(client_that_leaves_ends_the_upstream_request),
		GATEWAY(limits_answer_413_and_429),
		GATEWAY(message_goes_to_the_function_and_its_reply_back),
		GATEWAY(requests_that_wait_go_to_a_revision_of_another_class),
		GATEWAY(request_that_waits_behind_a_fault_gets_a_new_instance),
		GATEWAY(message_outlives_its_client_and_its_deadline),
		GATEWAY(message_with_a_bad_reply_is_a_bad_gateway),
		GATEWAY(ambiguous_requests_never_reach_a_function),
		GATEWAY(bad_chunks_end_the_request_on_both_sides),
		GATEWAY(pipelined_requests_are_answered_in_order_and_apart),
		GATEWAY(slow_heads_and_bodies_have_an_end),
		GATEWAY(drain_finishes_what_is_under_way),
		GATEWAY(a_hundred_clients_share_one_start),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
