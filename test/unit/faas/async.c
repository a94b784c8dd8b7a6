#include "test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/http.h"
#include "base/log.h"
#include "base/time.h"
#include "faas/async.h"

#include "probe.h"

/*
 * A queue over a real store. The gateway that it calls is a server that answers as the test says and
 * notes what it was asked; it also takes callbacks.
 */
struct fixture {
	char dir[64], socket[96], callback[96];
	int dir_fd;
	struct kn_loop *loop;
	struct kn_store *store;
	struct kn_async *queue;
	struct kn_http_server *door, *functions, *callbacks;
	struct probe probe;
	int statuses[8]; /* of the answers, in turn; the last one stays */
	size_t asked, called_back;
	char seen[512], told[512];
};

static void note(struct kn_http_exchange *x, struct kn_view body, char out[512], const char *field)
{
	const struct kn_http_head *head = kn_http_head(x);
	struct kn_view value = kn_http_header(head, field);

	snprintf(out, 512, "%.*s %.*s %s=%.*s %.*s", (int)head->method.len, head->method.ptr,
		 (int)head->target.len, head->target.ptr, field, (int)value.len, value.ptr,
		 (int)body.len, body.ptr);
}

static void function_asked(struct kn_http_exchange *x, struct kn_view body, void *arg)
{
	struct fixture *f = arg;
	size_t last = 0;

	while (last + 1 < KN_ARRAY_LEN(f->statuses) && f->statuses[last + 1])
		last++;
	note(x, body, f->seen, "X-Call-Id");
	assert_int_equal(kn_http_header(kn_http_head(x), "Authorization").len, 0);
	kn_http_reply_text(x, f->statuses[kn_min(f->asked++, last)], "text/x-answer", "answer");
}

static void on_function(struct kn_http_exchange *x, void *arg)
{
	kn_http_collect(x, 1 << 20, function_asked, arg);
}

static void told(struct kn_http_exchange *x, struct kn_view body, void *arg)
{
	struct fixture *f = arg;

	f->called_back++;
	note(x, body, f->told, "X-Function-Status");
	kn_http_reply_text(x, 200, "text/plain", "thanks");
}

static void on_callback(struct kn_http_exchange *x, void *arg)
{
	kn_http_collect(x, 1 << 20, told, arg);
}

/* As the gateway does: it looked the function up and let the caller in. */
static void on_door(struct kn_http_exchange *x, void *arg)
{
	struct fixture *f = arg;

	kn_async_take(f->queue, x, KN_VIEW("fn"), KN_VIEW("/sub?q=1"), KN_VIEW("id-1"));
}

static void open_queue(struct fixture *f)
{
	const struct kn_store_config store = { .dir = f->dir_fd, .dir_name = f->dir,
					       .loop = f->loop };
	struct kn_async_config config = KN_ASYNC_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_store_open(&store, &f->store, &err), &err);
	config.loop = f->loop;
	config.store = f->store;
	config.socket = f->socket;
	config.max_waiting = 3;
	config.attempts = 3;
	assert_ok(kn_async_new(&config, &f->queue, &err), &err);
}

static void close_queue(struct fixture *f)
{
	kn_store_close(f->store);
	kn_async_free(f->queue);
}

static struct kn_http_server *serve(struct fixture *f, int fd,
				    void (*request)(struct kn_http_exchange *x, void *arg))
{
	struct kn_http_server_config config = KN_HTTP_SERVER_DEFAULTS;
	struct kn_http_server *server;
	struct kn_err err = KN_ERR_INIT;

	assert_true(fd >= 0);
	config.request = request;
	config.arg = f;
	assert_ok(kn_http_server_new(f->loop, fd, &config, &server, &err), &err);
	return server;
}

static int setup(void **state)
{
	static struct fixture f;
	char name[64];

	f = (struct fixture){ .dir = "/tmp/kiln-async-XXXXXX", .statuses = { 200 } };
	assert_non_null(mkdtemp(f.dir));
	snprintf(f.socket, sizeof(f.socket), "%s/sock", f.dir);
	f.dir_fd = open(f.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	kn_log_setup(
		&(struct kn_log_config){ .level = KN_ERROR, .fd = open("/dev/null", O_WRONLY) });
	kn_fake_clock(1000 * KN_NS_PER_S, 1700000000 * KN_NS_PER_S);
	assert_ok(kn_loop_new(&f.loop, NULL), NULL);
	open_queue(&f);
	int fd = kn_tcp_listen("127.0.0.1:0", NULL);
	assert_ok(kn_tcp_name(fd, f.probe.addr, sizeof(f.probe.addr)), NULL);
	f.door = serve(&f, fd, on_door);
	f.functions = serve(&f, kn_unix_listen(f.socket, NULL), on_function);
	fd = kn_tcp_listen("127.0.0.1:0", NULL);
	assert_ok(kn_tcp_name(fd, name, sizeof(name)), NULL);
	snprintf(f.callback, sizeof(f.callback), "http://%s/told", name);
	f.callbacks = serve(&f, fd, on_callback);
	f.probe.loop = f.loop;
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	kn_http_server_free(f->door);
	kn_http_server_free(f->functions);
	kn_http_server_free(f->callbacks);
	close_queue(f);
	kn_buf_fini(&f->probe.reply);
	kn_loop_free(f->loop);
	close(f->dir_fd);
	kn_real_clock();
	assert_ok(kn_remove_tree(AT_FDCWD, f->dir, NULL), NULL);
	return 0;
}

static int post(struct fixture *f, const char *callback, const char *body)
{
	char head[256];

	snprintf(head, sizeof(head),
		 "POST /async-function/fn HTTP/1.1\nAuthorization: Bearer secret\n%s%s%s",
		 callback ? "X-Callback-Url: " : "", callback ? callback : "", callback ? "\n" : "");
	return probe_call(&f->probe, head, body);
}

static int count_row(struct kn_view name, struct kn_view value, void *arg, struct kn_err *err)
{
	(void)name;
	(void)value;
	(void)err;
	++*(size_t *)arg;
	return 0;
}

static size_t stored(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;
	size_t n = 0;

	assert_ok(kn_store_each(f->store, KN_TABLE_CALL, count_row, &n, &err), &err);
	return n;
}

/* Until *what is at least so many: other threads have a part in it. */
static void turn_until(struct fixture *f, const size_t *what, size_t least)
{
	for (int i = 0; i < 10000 && *what < least; i++)
		assert_true(kn_loop_once(f->loop, 1) >= 0);
	assert_int_equal(*what, least);
}

static void turn_until_forgotten(struct fixture *f)
{
	for (int i = 0; i < 10000 && stored(f) > 0; i++)
		assert_true(kn_loop_once(f->loop, 1) >= 0);
	assert_int_equal(stored(f), 0);
	assert_ok(kn_store_sync(f->store, NULL), NULL); /* and the queue knows it */
}

static void turn(struct fixture *f)
{
	for (int i = 0; i < 50; i++)
		assert_true(kn_loop_once(f->loop, 0) >= 0);
}

static void call_is_taken_then_made_once(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(post(f, NULL, "body"), 202);
	assert_reply_has(&f->probe, "X-Call-Id: id-1\r\n");
	turn_until(f, &f->asked, 1);
	assert_string_equal(f->seen, "POST /function/fn/sub?q=1 X-Call-Id=id-1 body");
	turn_until_forgotten(f);
	turn(f);
	assert_int_equal(f->asked, 1);
}

static void call_of_an_earlier_life_is_made(void **state)
{
	struct fixture *f = *state;

	kn_async_drain(f->queue);
	assert_int_equal(post(f, NULL, "durable"), 202);
	turn(f);
	assert_int_equal(f->asked, 0);
	close_queue(f);
	open_queue(f);
	turn_until(f, &f->asked, 1);
	assert_string_equal(f->seen, "POST /function/fn/sub?q=1 X-Call-Id=id-1 durable");
	turn_until_forgotten(f);
}

/* The wait doubles, and what comes back in the end is told. */
static void busy_function_is_asked_again_later(void **state)
{
	struct fixture *f = *state;

	memcpy(f->statuses, (int[]){ 503, 429, 200 }, 3 * sizeof(int));
	assert_int_equal(post(f, NULL, "x"), 202);
	turn_until(f, &f->asked, 1);
	turn(f);
	assert_int_equal(f->asked, 1);
	kn_fake_advance(1000 * KN_NS_PER_MS);
	turn_until(f, &f->asked, 2);
	turn(f);
	kn_fake_advance(1999 * KN_NS_PER_MS);
	turn(f);
	assert_int_equal(f->asked, 2);
	kn_fake_advance(KN_NS_PER_MS);
	turn_until(f, &f->asked, 3);
	turn_until_forgotten(f);
}

static void attempts_end(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf page = KN_BUF_INIT;

	f->statuses[0] = 502;
	assert_int_equal(post(f, f->callback, "x"), 202);
	for (size_t i = 1; i <= 3; i++) {
		turn_until(f, &f->asked, i);
		turn(f);
		kn_fake_advance(60 * KN_NS_PER_S);
	}
	turn_until(f, &f->called_back, 1);
	turn_until_forgotten(f);
	assert_non_null(strstr(f->told, "X-Function-Status=502"));
	kn_async_metrics(f->queue, &page);
	assert_non_null(strstr(page.ptr, "kiln_async_accepted_total 1\n"));
	assert_non_null(strstr(page.ptr, "kiln_async_failed_total 1\n"));
	assert_non_null(strstr(page.ptr, "kiln_async_retries_total 2\n"));
	assert_non_null(strstr(page.ptr, "kiln_async_waiting 0\n"));
}

/* What a function answers, 404 and 500 included, is an answer. */
static void answer_is_posted_to_who_asked_for_it(void **state)
{
	struct fixture *f = *state;

	f->statuses[0] = 404;
	assert_int_equal(post(f, f->callback, "x"), 202);
	turn_until(f, &f->called_back, 1);
	assert_string_equal(f->told, "POST /told X-Function-Status=404 answer");
	assert_int_equal(f->asked, 1);
	turn_until_forgotten(f);
}

static void callback_that_nobody_takes_is_given_up(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(post(f, "http://127.0.0.1:9/", "x"), 202);
	turn_until(f, &f->asked, 1);
	for (int i = 0; i < 10000 && stored(f) > 0; i++) {
		kn_fake_advance(KN_NS_PER_S);
		assert_true(kn_loop_once(f->loop, 1) >= 0);
	}
	assert_int_equal(stored(f), 0);
	assert_int_equal(f->asked, 1);
}

static void what_cannot_be_kept_is_refused(void **state)
{
	struct fixture *f = *state;
	size_t big = 800 * 1024;
	kn_auto(kn_free) char *text = malloc(big + 1);

	assert_non_null(text);
	memset(text, 'x', big);
	text[big] = '\0';
	assert_int_equal(post(f, NULL, text), 413);
	assert_int_equal(post(f, "file:///etc/passwd", "x"), 400);
	assert_int_equal(post(f, "http://a b/", "x"), 400);
	kn_async_drain(f->queue);
	for (int i = 0; i < 3; i++)
		assert_int_equal(post(f, NULL, "x"), 202);
	assert_int_equal(post(f, NULL, "x"), 429);
	assert_int_equal(stored(f), 3);
}

static void bytes_of_any_kind_come_through(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(post(f, NULL, "\x01\xff\x7f \xc3\x28"), 202);
	turn_until(f, &f->asked, 1);
	assert_string_equal(f->seen,
			    "POST /function/fn/sub?q=1 X-Call-Id=id-1 \x01\xff\x7f \xc3\x28");
	turn_until_forgotten(f);
}

#define ASYNC(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ASYNC(call_is_taken_then_made_once),
		ASYNC(call_of_an_earlier_life_is_made),
		ASYNC(busy_function_is_asked_again_later),
		ASYNC(attempts_end),
		ASYNC(answer_is_posted_to_who_asked_for_it),
		ASYNC(callback_that_nobody_takes_is_given_up),
		ASYNC(what_cannot_be_kept_is_refused),
		ASYNC(bytes_of_any_kind_come_through),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
