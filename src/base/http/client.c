/*
 * Theory of operation. A client is one connection. Between requests it only watches for the peer's
 * close. During a request, input is a reply's head and body; interim replies (1xx) are skipped. Any
 * hook may free the client: the event handler marks itself as inside, and a free asked for there is
 * carried out when it returns.
 */
#include "base/http/io.h"

#include <errno.h>
#include <stdlib.h>

enum state { IDLE, WAIT_HEAD, READ_BODY, BROKEN };

enum { MAX_REPLY_HEAD = 32 * 1024 };

struct kn_http_client {
	struct kn_http_io io;
	struct kn_defer later;
	enum state state;
	bool sent_all; /* the request is finished */
	bool chunked;  /* the request */
	bool paused;
	bool resumed;
	bool untouched;
	bool stillborn;	     /* begun on a connection that had closed: failed() is owed */
	bool unwatched;	     /* the peer hung up while reading was paused */
	bool inside, doomed; /* in an event; to be freed after it */
	bool head_request;
	struct kn_http_parser *parser;
	struct kn_http_head head;
	struct kn_http_client_hooks hooks;
	void (*closed)(struct kn_http_client *c, void *arg);
	void *closed_arg;
};

static void on_io(struct kn_watch *w, uint32_t events);
static void on_later(struct kn_defer *d);

int kn_http_client_new(struct kn_loop *loop, int fd, struct kn_http_client **ret,
		       struct kn_err *err)
{
	struct kn_http_client *c = calloc(1, sizeof(*c));

	if (!c || kn_http_parser_new(KN_HTTP_REPLY, &c->parser, NULL) < 0) {
		free(c);
		kn_close(fd);
		return kn_fail(err, ENOMEM, "out of memory for a connection");
	}
	c->io = (struct kn_http_io){
		.loop = loop, .watch = { .fd = fd, .events = EPOLLIN | EPOLLRDHUP, .call = on_io }
	};
	c->later.call = on_later;
	int r = kn_watch_start(loop, &c->io.watch, err);
	if (r < 0) {
		kn_http_client_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

static void destroy(struct kn_http_client *c)
{
	kn_defer_stop(&c->later);
	kn_http_io_fini(&c->io);
	kn_http_parser_free(c->parser);
	free(c);
}

void kn_http_client_free(struct kn_http_client *c)
{
	if (!c)
		return;
	if (c->inside)
		c->doomed = true;
	else
		destroy(c);
}

/* ---- the request ------------------------------------------------------------------------------ */

static bool has_header(const struct kn_header *headers, size_t n, struct kn_view name)
{
	for (size_t i = 0; i < n; i++) {
		if (kn_view_is_nocase(headers[i].name, name))
			return true;
	}
	return false;
}

void kn_http_client_begin(struct kn_http_client *c, struct kn_view method, struct kn_view target,
			  const struct kn_header *headers, size_t n_headers, int64_t length,
			  const struct kn_http_client_hooks *hooks)
{
	struct kn_buf *out = &c->io.out;

	c->hooks = *hooks;
	c->head_request = kn_view_is(method, KN_VIEW("HEAD"));
	kn_http_parser_reset(c->parser, c->head_request);
	c->chunked = length < 0;
	c->sent_all = length == 0;
	c->paused = false;
	c->untouched = true;
	c->stillborn = c->state == BROKEN;
	if (!c->stillborn)
		c->state = WAIT_HEAD;

	kn_buf_add_view(out, method);
	kn_buf_add(out, " ", 1);
	kn_buf_add_view(out, target);
	kn_buf_adds(out, " HTTP/1.1\r\n");
	if (!has_header(headers, n_headers, KN_VIEW("host")))
		kn_buf_adds(out, "Host: localhost\r\n");
	kn_http_put_headers(out, headers, n_headers);
	if (c->chunked) {
		kn_buf_adds(out, "Transfer-Encoding: chunked\r\n");
	} else if (length > 0 || kn_view_is(method, KN_VIEW("POST")) ||
		   kn_view_is(method, KN_VIEW("PUT"))) {
		kn_buf_adds(out, "Content-Length: ");
		kn_http_put_u64(out, (uint64_t)length);
		kn_buf_adds(out, "\r\n");
	}
	kn_buf_adds(out, "\r\n");
	kn_defer_start(c->io.loop, &c->later);
}

void kn_http_client_write(struct kn_http_client *c, struct kn_view data)
{
	if (c->state == BROKEN)
		return;
	kn_http_put_body(&c->io.out, data, c->chunked);
	kn_http_io_full(&c->io);
	kn_defer_start(c->io.loop, &c->later);
}

void kn_http_client_finish(struct kn_http_client *c)
{
	if (c->sent_all)
		return;
	if (c->chunked)
		kn_buf_adds(&c->io.out, "0\r\n\r\n");
	c->sent_all = true;
	kn_defer_start(c->io.loop, &c->later);
}

size_t kn_http_client_unsent(const struct kn_http_client *c)
{
	return kn_http_io_unsent(&c->io);
}

bool kn_http_client_untouched(const struct kn_http_client *c)
{
	return c->untouched;
}

bool kn_http_client_idle(const struct kn_http_client *c)
{
	return c->state == IDLE && !c->doomed;
}

void kn_http_client_on_close(struct kn_http_client *c,
			     void (*closed)(struct kn_http_client *c, void *arg), void *arg)
{
	c->closed = closed;
	c->closed_arg = arg;
}

/* ---- the reply -------------------------------------------------------------------------------- */

static void fail(struct kn_http_client *c, int code, const char *why)
{
	struct kn_err err = KN_ERR_INIT;
	bool busy = c->state == WAIT_HEAD || c->state == READ_BODY;
	bool idle = c->state == IDLE;

	c->state = BROKEN;
	kn_watch_stop(&c->io.watch);
	kn_fail(&err, code, "%s", why);
	if (busy && c->hooks.failed)
		c->hooks.failed(c, &err, c->hooks.arg);
	else if (idle && c->closed)
		c->closed(c, c->closed_arg);
}

static void complete(struct kn_http_client *c)
{
	bool reusable = c->head.keep_alive && c->sent_all && kn_http_io_unsent(&c->io) == 0 &&
			kn_http_io_input(&c->io).len == 0;

	c->state = reusable ? IDLE : BROKEN;
	if (!reusable)
		kn_watch_stop(&c->io.watch);
	c->hooks.end(c, reusable, c->hooks.arg);
}

static void read_head(struct kn_http_client *c)
{
	struct kn_err why = KN_ERR_INIT;
	struct kn_view input = kn_http_io_input(&c->io);
	ssize_t used = kn_http_parse_head(c->parser, input, MAX_REPLY_HEAD, &c->head, &why);

	if (used < 0) {
		fail(c, EBADMSG, why.text);
		return;
	}
	if (used == 0)
		return;
	if (c->head.status < 200) { /* interim: the real one follows */
		kn_http_io_used(&c->io, (size_t)used);
		kn_http_parser_reset(c->parser, c->head_request);
		if (c->head.status == 101)
			fail(c, EPROTO, "the function switched protocols, which was not asked for");
		return;
	}
	c->state = READ_BODY;
	c->hooks.head(c, &c->head, c->hooks.arg);
	kn_http_io_used(&c->io, (size_t)used); /* the head's views were valid until here */
}

static void read_body(struct kn_http_client *c)
{
	struct kn_http_body_step step;
	struct kn_err why = KN_ERR_INIT;

	if (kn_http_parse_body(c->parser, kn_http_io_input(&c->io), &step, &why) < 0) {
		fail(c, EBADMSG, why.text);
		return;
	}
	if (step.data.len)
		c->hooks.data(c, step.data, c->hooks.arg);
	kn_http_io_used(&c->io, step.used);
	if (step.done && !c->doomed && c->state == READ_BODY)
		complete(c);
}

static void advance(struct kn_http_client *c)
{
	while (!c->doomed && !c->paused) {
		enum state before = c->state;
		size_t input = kn_http_io_input(&c->io).len;
		if (before == WAIT_HEAD)
			read_head(c);
		else if (before == READ_BODY)
			read_body(c);
		if (c->state == BROKEN || c->state == IDLE ||
		    (c->state == before && kn_http_io_input(&c->io).len == input))
			return;
	}
}

static void on_end_of_stream(struct kn_http_client *c, ssize_t result)
{
	if (result == 0 && c->state == READ_BODY && kn_http_parse_eof(c->parser)) {
		complete(c);
		return;
	}
	fail(c, result < 0 ? (int)-result : ECONNRESET,
	     c->untouched ? "the function closed the connection without an answer"
			  : "the function closed the connection in the middle of its answer");
}

/* A hang-up cannot be masked in epoll: not watching at all keeps the loop from spinning. */
static void leave_input_alone(struct kn_http_client *c, uint32_t events)
{
	if (events & (EPOLLHUP | EPOLLERR)) {
		kn_watch_stop(&c->io.watch);
		c->unwatched = true;
	} else {
		kn_http_io_want_input(&c->io, false);
	}
}

static void on_input(struct kn_http_client *c, uint32_t events)
{
	if (c->paused) {
		leave_input_alone(c, events);
		return;
	}
	ssize_t n = kn_http_io_fill(&c->io);
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		on_end_of_stream(c, n);
		return;
	}
	if (c->state == IDLE) {
		fail(c, EPROTO, "the function sent bytes that nobody asked for");
		return;
	}
	c->untouched = false;
	advance(c);
}

static void flush(struct kn_http_client *c)
{
	/* A peer that closes early may still have answered: its reply is read before this matters. */
	if (c->state != BROKEN && kn_http_io_flush(&c->io) < 0) {
		kn_buf_clear(&c->io.out);
		c->io.out_at = 0;
	}
	if (kn_http_io_drained(&c->io) && c->hooks.drain && c->state != IDLE)
		c->hooks.drain(c, c->hooks.arg);
}

static void leave(struct kn_http_client *c)
{
	c->inside = false;
	if (c->doomed)
		destroy(c);
}

static void on_io(struct kn_watch *w, uint32_t events)
{
	struct kn_http_client *c = kn_container_of(w, struct kn_http_client, io.watch);

	c->inside = true;
	if (events & EPOLLOUT)
		flush(c);
	if (!c->doomed && c->io.watch.loop &&
	    (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		on_input(c, events);
	leave(c);
}

static void on_later(struct kn_defer *d)
{
	struct kn_http_client *c = kn_container_of(d, struct kn_http_client, later);

	c->inside = true;
	if (c->stillborn) {
		struct kn_err err = KN_ERR_INIT;
		c->stillborn = false;
		kn_fail(&err, ECONNRESET, "the function closed the connection without an answer");
		if (c->hooks.failed)
			c->hooks.failed(c, &err, c->hooks.arg);
	}
	if (!c->doomed)
		flush(c);
	if (c->resumed && !c->doomed) {
		c->resumed = false;
		advance(c);
	}
	leave(c);
}

void kn_http_client_pause(struct kn_http_client *c, bool paused)
{
	if (c->paused == paused)
		return;
	c->paused = paused;
	if (paused)
		return;
	if (c->unwatched) {
		c->unwatched = false;
		if (kn_watch_start(c->io.loop, &c->io.watch, NULL) < 0)
			c->stillborn = true;
	}
	kn_http_io_want_input(&c->io, true);
	c->resumed = true;
	kn_defer_start(c->io.loop, &c->later);
}
