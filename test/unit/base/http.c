/* Server and client against each other and against raw sockets, on one loop. */
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test.h"

#include "base/http.h"

struct fixture {
	struct kn_loop *loop;
	struct kn_http_server *server;
	char addr[64];
	int gone, finished, requests;
	struct kn_buf got; /* what the client or raw reader collected */
	int status;
	bool ended, reusable;
	struct kn_err failed;
	struct kn_http_exchange *held;
};

static struct fixture f;

static void answer_echo(struct kn_http_exchange *x, struct kn_view body, void *arg)
{
	(void)arg;
	kn_http_reply(x, 200, NULL, 0, body);
}

static void on_gone(struct kn_http_exchange *x, void *arg)
{
	(void)x;
	(void)arg;
	f.gone++;
}

static void on_finished(struct kn_http_exchange *x, void *arg)
{
	(void)x;
	(void)arg;
	f.finished++;
}

static void stream_data(struct kn_http_exchange *x, struct kn_view data, void *arg)
{
	(void)arg;
	kn_http_write(x, data);
	if (kn_http_unsent(x) > KN_HTTP_HIGH_WATER)
		kn_http_pause(x, true);
}

static void stream_end(struct kn_http_exchange *x, void *arg)
{
	(void)arg;
	kn_http_finish(x);
}

static void stream_drain(struct kn_http_exchange *x, void *arg)
{
	(void)arg;
	kn_http_pause(x, false);
}

static void on_request(struct kn_http_exchange *x, void *arg)
{
	const struct kn_http_head *h = kn_http_head(x);

	(void)arg;
	f.requests++;
	kn_http_set_hooks(x, &(struct kn_http_hooks){ .gone = on_gone,
						      .finished = on_finished,
						      .data = stream_data,
						      .end = stream_end,
						      .drain = stream_drain });
	if (kn_view_is(h->path, KN_VIEW("/now")))
		kn_http_reply_text(x, 200, "text/plain", "now\n");
	else if (kn_view_is(h->path, KN_VIEW("/echo")))
		kn_http_collect(x, 1000, answer_echo, NULL);
	else if (kn_view_is(h->path, KN_VIEW("/stream")))
		kn_http_begin(x, 200, NULL, 0, h->content_length);
	else if (kn_view_is(h->path, KN_VIEW("/hold")))
		f.held = x;
	else if (kn_view_is(h->path, KN_VIEW("/short"))) {
		kn_http_begin(x, 200, NULL, 0, 10);
		kn_http_write(x, KN_VIEW("123"));
		kn_http_finish(x);
	} else
		kn_http_reply_text(x, 404, "text/plain", "no such path\n");
}

static int set_up_with(struct kn_http_server_config config)
{
	f = (struct fixture){ .status = 0 };
	config.request = on_request;
	if (kn_loop_new(&f.loop, NULL) < 0)
		return -1;
	int fd = kn_tcp_listen("127.0.0.1:0", NULL);
	kn_tcp_name(fd, f.addr, sizeof(f.addr));
	return kn_http_server_new(f.loop, fd, &config, &f.server, NULL);
}

static int set_up(void **state)
{
	(void)state;
	return set_up_with(KN_HTTP_SERVER_DEFAULTS);
}

static int tear_down(void **state)
{
	(void)state;
	kn_http_server_free(f.server);
	kn_loop_free(f.loop);
	kn_buf_fini(&f.got);
	return 0;
}

/* Run rounds until the raw socket has been closed by the server or `bytes` came. */
static void read_raw(int fd, size_t bytes)
{
	char part[65536];

	for (int i = 0; i < 2000 && f.got.len < bytes; i++) {
		kn_loop_once(f.loop, 1);
		ssize_t n = recv(fd, part, sizeof(part), MSG_DONTWAIT);
		if (n == 0)
			return;
		if (n > 0)
			kn_buf_add(&f.got, part, (size_t)n);
	}
}

static int send_raw(const char *text)
{
	int fd = kn_tcp_connect(f.addr, NULL);

	assert_true(fd >= 0);
	assert_int_equal(kn_write_all(fd, text, strlen(text)), 0);
	return fd;
}

static void assert_got(const char *part)
{
	if (!f.got.ptr || !strstr(f.got.ptr, part))
		fail_msg("'%s' is not in '%s'", part, f.got.ptr ? f.got.ptr : "");
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	(void)state;
	int fd = send_raw("GET /now HTTP/1.1\r\nHost: a\r\n\r\n"
			  "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
			  "GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	read_raw(fd, SIZE_MAX);
	const char *now = strstr(f.got.ptr, "now\n"), *abc = strstr(f.got.ptr, "abc"),
		   *none = strstr(f.got.ptr, "no such path");
	assert_true(now && abc && none && now < abc && abc < none);
	assert_got("Connection: close");
	assert_int_equal(f.finished, 3);
	assert_int_equal(f.gone, 0);
	close(fd);
}

static void a_malformed_request_is_answered_400_and_closed(void **state)
{
	(void)state;
	int fd = send_raw(
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
		"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	read_raw(fd, SIZE_MAX);
	assert_got("HTTP/1.1 400 ");
	assert_null(strstr(f.got.ptr, "now\n"));
	assert_int_equal(f.requests, 0);
	close(fd);
}

static void a_body_over_the_limit_is_answered_413(void **state)
{
	(void)state;
	int fd = send_raw("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
	read_raw(fd, SIZE_MAX);
	assert_got("HTTP/1.1 413 ");
	assert_int_equal(f.gone, 1);
	close(fd);

	kn_buf_clear(&f.got);
	kn_auto(kn_buf_fini) struct kn_buf big = KN_BUF_INIT;
	kn_buf_adds(&big,
		    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n");
	for (int i = 0; i < 0x800; i++)
		kn_buf_adds(&big, "x");
	fd = send_raw(big.ptr);
	read_raw(fd, SIZE_MAX);
	assert_got("HTTP/1.1 413 ");
	assert_int_equal(f.gone, 2);
	close(fd);
}

static void expect_continue_is_answered_when_the_body_is_wanted(void **state)
{
	(void)state;
	int fd = send_raw("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
			  "Expect: 100-continue\r\n\r\n");
	read_raw(fd, 10);
	assert_got("HTTP/1.1 100 Continue\r\n\r\n");
	assert_int_equal(kn_write_all(fd, "hi", 2), 0);
	read_raw(fd, 60);
	assert_got("\r\n\r\nhi");
	close(fd);
}

static void a_reply_shorter_than_announced_cuts_the_connection(void **state)
{
	(void)state;
	int fd = send_raw("GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
	read_raw(fd, SIZE_MAX);
	assert_int_equal(f.got.len, 0);
	close(fd);
}

static void a_client_that_leaves_is_told_to_the_handler(void **state)
{
	(void)state;
	int fd = send_raw("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	for (int i = 0; i < 100 && !f.held; i++)
		kn_loop_once(f.loop, 1);
	assert_int_equal(kn_http_server_busy(f.server), 1);
	close(fd);
	for (int i = 0; i < 100 && !f.gone; i++)
		kn_loop_once(f.loop, 1);
	assert_int_equal(f.gone, 1);
	assert_int_equal(kn_http_server_busy(f.server), 0);
}

static void a_head_that_drips_in_is_answered_408(void **state)
{
	struct kn_http_server_config config = KN_HTTP_SERVER_DEFAULTS;

	(void)state;
	config.head_timeout_ms = 30;
	config.idle_timeout_ms = 60000;
	assert_int_equal(set_up_with(config), 0);
	int fd = send_raw("GET /now HTT");
	for (int i = 0; i < 10; i++) {
		kn_loop_once(f.loop, 5);
		(void)!write(fd, "P", 1); /* progress must not prolong it */
	}
	read_raw(fd, 12);
	assert_got("HTTP/1.1 408 ");
	close(fd);
	tear_down(state);
}

static void http10_replies_end_with_the_connection(void **state)
{
	(void)state;
	int fd = send_raw("POST /stream HTTP/1.0\r\nContent-Length: 2\r\n\r\nok");
	read_raw(fd, SIZE_MAX);
	assert_got("\r\n\r\nok");
	assert_got("Connection: close");
	close(fd);
}

/* ---- client ---- */

static void c_head(struct kn_http_client *c, const struct kn_http_head *h, void *arg)
{
	(void)c;
	(void)arg;
	f.status = h->status;
}

static void c_data(struct kn_http_client *c, struct kn_view data, void *arg)
{
	(void)c;
	(void)arg;
	kn_buf_add_view(&f.got, data);
}

static void c_end(struct kn_http_client *c, bool reusable, void *arg)
{
	(void)c;
	(void)arg;
	f.ended = true;
	f.reusable = reusable;
}

static void c_failed(struct kn_http_client *c, const struct kn_err *err, void *arg)
{
	(void)arg;
	f.failed = *err;
	f.ended = true;
	kn_http_client_free(c);
}

static const struct kn_http_client_hooks HOOKS = {
	.head = c_head, .data = c_data, .end = c_end, .failed = c_failed
};

static struct kn_http_client *connect_client(void)
{
	struct kn_http_client *c = NULL;
	int fd = kn_tcp_connect(f.addr, NULL);

	assert_int_equal(kn_http_client_new(f.loop, fd, &c, NULL), 0);
	return c;
}

static void run_until_ended(void)
{
	for (int i = 0; i < 5000 && !f.ended; i++)
		kn_loop_once(f.loop, 1);
	assert_true(f.ended);
}

static void one_connection_carries_many_requests(void **state)
{
	struct kn_http_client *c = connect_client();

	(void)state;
	for (int i = 0; i < 5; i++) {
		f.ended = false;
		kn_buf_clear(&f.got);
		kn_http_client_begin(c, KN_VIEW("POST"), KN_VIEW("/echo"), NULL, 0, 5, &HOOKS);
		kn_http_client_write(c, KN_VIEW("hello"));
		kn_http_client_finish(c);
		run_until_ended();
		assert_int_equal(f.status, 200);
		assert_true(f.reusable && kn_http_client_idle(c));
		assert_true(kn_view_is(kn_buf_view(&f.got), KN_VIEW("hello")));
	}
	kn_http_client_free(c);
}

static void a_large_body_streams_both_ways_with_bounded_memory(void **state)
{
	enum { TOTAL = 8 << 20, PART = 32 << 10 };
	static char part[PART];
	struct kn_http_client *c = connect_client();
	size_t sent = 0;

	(void)state;
	memset(part, 'z', sizeof(part));
	kn_http_client_begin(c, KN_VIEW("POST"), KN_VIEW("/stream"), NULL, 0, -1, &HOOKS);
	while (sent < TOTAL) {
		if (kn_http_client_unsent(c) <= KN_HTTP_HIGH_WATER) {
			kn_http_client_write(c, (struct kn_view){ part, PART });
			sent += PART;
		}
		assert_true(kn_http_client_unsent(c) <= KN_HTTP_HIGH_WATER + PART + 64);
		kn_loop_once(f.loop, 0);
	}
	kn_http_client_finish(c);
	run_until_ended();
	assert_int_equal(f.got.len, TOTAL);
	kn_http_client_free(c);
}

static void a_server_that_closes_without_an_answer_fails_the_request(void **state)
{
	struct kn_http_client *c = connect_client();

	(void)state;
	kn_http_client_begin(c, KN_VIEW("GET"), KN_VIEW("/short"), NULL, 0, 0, &HOOKS);
	run_until_ended();
	assert_int_equal(f.failed.code, ECONNRESET);
}

static void on_closed(struct kn_http_client *c, void *arg)
{
	(void)c;
	*(bool *)arg = true;
}

static void the_close_of_an_idle_connection_is_told(void **state)
{
	struct kn_http_client *c = connect_client();
	bool closed = false;

	(void)state;
	kn_http_client_begin(c, KN_VIEW("GET"), KN_VIEW("/now"), NULL, 0, 0, &HOOKS);
	run_until_ended();
	kn_http_client_on_close(c, on_closed, &closed);
	kn_http_server_drain(f.server);
	for (int i = 0; i < 100 && !closed; i++)
		kn_loop_once(f.loop, 1);
	assert_true(closed);
	assert_false(kn_http_client_idle(c));

	f.ended = false;
	kn_http_client_begin(c, KN_VIEW("GET"), KN_VIEW("/now"), NULL, 0, 0, &HOOKS);
	run_until_ended(); /* fails and frees it */
	assert_int_equal(f.failed.code, ECONNRESET);
}

#define CASE(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)

/* ---- more clients than there is room for ------------------------------------------------------ */

static int set_up_for_two(void **state)
{
	struct kn_http_server_config config = KN_HTTP_SERVER_DEFAULTS;

	(void)state;
	config.max_connections = 2;
	return set_up_with(config);
}

static bool is_closed(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void rounds(int n)
{
	while (n-- > 0)
		kn_loop_once(f.loop, 0);
}

static const char HOLD[] = "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n";

static void idle_connections_make_room_and_busy_ones_do_not(void **state)
{
	(void)state;
	int busy = send_raw(HOLD);
	rounds(5);
	int silent = send_raw("");
	rounds(5);
	assert_false(is_closed(silent));   /* it fills the last place, and nobody waits for one */
	int third = send_raw("GET /now HTTP/1.1\r\nHost: x\r\n\r\n");
	read_raw(third, 17);
	assert_got("200 OK");
	assert_true(is_closed(silent));
	assert_false(is_closed(busy));
	assert_int_equal(f.gone, 0);

	/* Two that work: the next one waits until one of them is done. */
	struct kn_http_exchange *first = f.held;
	assert_int_equal(kn_write_all(third, HOLD, strlen(HOLD)), 0);
	rounds(5);
	assert_ptr_not_equal(f.held, first);
	int fourth = send_raw("GET /now HTTP/1.1\r\nHost: x\r\n\r\n");
	rounds(20);
	assert_int_equal(f.requests, 3);
	kn_http_reply_text(first, 200, "text/plain", "done\n");
	rounds(5);
	kn_close(busy);
	kn_buf_clear(&f.got);
	read_raw(fourth, 17);
	assert_got("200 OK");
	kn_close(silent);
	kn_close(third);
	kn_close(fourth);
}

/* The listener stays readable then; the loop must rest, and come back by itself. */
static void without_descriptors_accepting_rests_and_goes_on(void **state)
{
	struct rlimit before, tight;

	(void)state;
	kn_fake_clock(1000 * KN_NS_PER_S, 1700000000 * KN_NS_PER_S);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	int client = send_raw("GET /now HTTP/1.1\r\nHost: x\r\n\r\n");
	int next = dup(client);
	assert_true(next >= 0);
	close(next);
	tight = before;
	tight.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	rounds(5);
	assert_int_equal(f.requests, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	rounds(5);
	assert_int_equal(f.requests, 0); /* it rests: the readable listener wakes nobody */
	kn_fake_advance(100 * KN_NS_PER_MS);
	rounds(5);
	kn_real_clock();
	assert_int_equal(f.requests, 1);
	read_raw(client, 17);
	assert_got("200 OK");
	kn_close(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(pipelined_requests_are_answered_in_order),
		CASE(a_malformed_request_is_answered_400_and_closed),
		CASE(a_body_over_the_limit_is_answered_413),
		CASE(expect_continue_is_answered_when_the_body_is_wanted),
		CASE(a_reply_shorter_than_announced_cuts_the_connection),
		CASE(a_client_that_leaves_is_told_to_the_handler),
		cmocka_unit_test(a_head_that_drips_in_is_answered_408),
		CASE(http10_replies_end_with_the_connection),
		CASE(one_connection_carries_many_requests),
		CASE(a_large_body_streams_both_ways_with_bounded_memory),
		CASE(a_server_that_closes_without_an_answer_fails_the_request),
		CASE(the_close_of_an_idle_connection_is_told),
		cmocka_unit_test_setup_teardown(idle_connections_make_room_and_busy_ones_do_not,
						set_up_for_two, tear_down),
		CASE(without_descriptors_accepting_rests_and_goes_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
