/*
 * Theory of operation. A connection holds one exchange at a time and goes round
 *
 *     HEAD -> BODY -> WAIT -> HEAD ...      (WAIT: the request is in, the reply is not out)
 *
 * Input that arrives during WAIT is the next, pipelined request: it is kept, up to one read. A
 * connection is freed only by its own deferred call, never inside a hook, so handlers may answer,
 * abort or do nothing anywhere. Replies gather in the output buffer and leave at the end of the
 * loop's round. Each connection has one timer that is re-armed lazily: activity only moves a
 * deadline, and the timer looks at it when it fires.
 *
 * When there is no room for another client, the connection without a request that idles for longest
 * makes it; when none does, clients wait in the kernel's queue.
 *
 * syscalls: accept4 recv setsockopt
 */
#include "base/http/io.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum state { HEAD, BODY, WAIT, CLOSING };
enum reply { REPLY_NONE, REPLY_BEGUN, REPLY_DONE };

/* What is read and thrown away so that a refused upload can keep its connection. */
enum { DISCARD_AT_MOST = 256 * 1024 };

/* How long a closing connection waits for its peer's end. */
enum { LINGER_MS = 2000, DRAIN_LINGER_MS = 200 };

/* How long accepting rests when there is no descriptor for a client. */
enum { ACCEPT_PAUSE_MS = 100 };

struct kn_http_exchange {
	struct kn_http_server *server;
	struct kn_http_exchange *next, **prev;
	struct kn_http_io io;
	struct kn_timer timer;
	struct kn_defer later; /* flush, go on, or free: at the end of the round */
	uint64_t deadline_ns;

	enum state state;
	enum reply reply;
	bool active; /* a handler knows this exchange and has not seen its end */
	bool paused;
	bool resumed;
	bool eof;
	bool keep_alive;
	bool chunked;	/* the reply */
	bool head_only; /* the request was HEAD */
	bool discard;	/* answered early: the rest of the body is dropped */
	bool lost;	/* the connection cannot be used any more */
	uint64_t body_limit, body_seen;
	int64_t reply_left; /* -1: length not known */

	struct kn_http_parser *parser;
	struct kn_http_head head;
	struct kn_arena arena;
	struct kn_http_hooks hooks;

	struct kn_buf collected;
	void (*collect_done)(struct kn_http_exchange *x, struct kn_view body, void *arg);
	void *collect_arg;
};

struct kn_http_server {
	struct kn_loop *loop;
	struct kn_http_server_config config;
	struct kn_watch listen;
	struct kn_timer accept_again;
	struct kn_http_exchange *all;
	size_t n_connections, n_busy;
	bool draining;
	char date[KN_HTTP_DATE_LEN];
	uint64_t date_s;
};

static void on_later(struct kn_defer *d);
static void on_timer(struct kn_timer *t);
static void on_io(struct kn_watch *w, uint32_t events);

/* ---- connection's life ----------------------------------------------------------------------- */

static void free_connection(struct kn_http_exchange *x)
{
	struct kn_http_server *s = x->server;

	*x->prev = x->next;
	if (x->next)
		x->next->prev = x->prev;
	kn_timer_stop(&x->timer);
	kn_defer_stop(&x->later);
	kn_http_io_fini(&x->io);
	kn_http_parser_free(x->parser);
	kn_arena_fini(&x->arena);
	kn_buf_fini(&x->collected);
	free(x);
	s->n_connections--;
	if (!s->draining)
		kn_watch_want(&s->listen, EPOLLIN);
}

static void do_later(struct kn_http_exchange *x)
{
	kn_defer_start(x->io.loop, &x->later);
}

static void set_deadline(struct kn_http_exchange *x, uint64_t ms)
{
	x->deadline_ns = kn_loop_now(x->io.loop) + ms * KN_NS_PER_MS;
	if (x->timer.loop && x->timer.due_ns <= x->deadline_ns)
		return;
	if (kn_timer_start(x->io.loop, &x->timer, x->deadline_ns, NULL) < 0)
		x->lost = true;
}

/* Tell the handler that its exchange is over without a whole reply. */
static void tell_gone(struct kn_http_exchange *x)
{
	if (!x->active)
		return;
	x->active = false;
	x->server->n_busy--;
	if (x->hooks.gone)
		x->hooks.gone(x, x->hooks.arg);
}

/* The connection is of no use any more; freed at the end of the round. */
static void lose(struct kn_http_exchange *x)
{
	x->lost = true;
	tell_gone(x);
	do_later(x);
}

static int add_connection(struct kn_http_server *s, int fd)
{
	struct kn_http_exchange *x = calloc(1, sizeof(*x));

	if (!x || kn_http_parser_new(KN_HTTP_REQUEST, &x->parser, NULL) < 0) {
		free(x);
		return -ENOMEM;
	}
	x->server = s;
	x->io = (struct kn_http_io){
		.loop = s->loop,
		.watch = { .fd = fd, .events = EPOLLIN | EPOLLRDHUP, .call = on_io }
	};
	x->timer.call = on_timer;
	x->later.call = on_later;
	kn_arena_init(&x->arena);
	int r = kn_watch_start(s->loop, &x->io.watch, NULL);
	if (r < 0) {
		kn_http_parser_free(x->parser);
		free(x);
		return r;
	}
	x->next = s->all;
	x->prev = &s->all;
	if (x->next)
		x->next->prev = &x->next;
	s->all = x;
	s->n_connections++;
	set_deadline(x, s->config.idle_timeout_ms);
	return 0;
}

enum room { ROOM, ROOM_SOON, NO_ROOM };

/* ---- room for connections --------------------------------------------------------------------- */

static bool is_idle(const struct kn_http_exchange *x)
{
	return x->state == HEAD && !x->lost && kn_http_io_input(&x->io).len == 0 &&
	       kn_http_io_unsent(&x->io) == 0;
}

/* Its next request may have arrived a moment ago. */
static bool has_input(const struct kn_http_exchange *x)
{
	char byte;

	return recv(x->io.watch.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static struct kn_http_exchange *longest_idle(const struct kn_http_server *s)
{
	struct kn_http_exchange *best = NULL;

	for (struct kn_http_exchange *x = s->all; x; x = x->next) {
		if (is_idle(x) && (!best || x->deadline_ns < best->deadline_ns))
			best = x;
	}
	return best;
}

/*
 * Who holds a connection without a request must not keep others out: the one that idles for longest
 * is closed. Called outside of every hook, so it may be freed at once.
 */
static enum room make_room(struct kn_http_server *s)
{
	for (int tries = 0; tries < 8; tries++) {
		struct kn_http_exchange *x = longest_idle(s);
		if (!x)
			return NO_ROOM;
		if (!has_input(x)) {
			free_connection(x);
			return ROOM;
		}
		set_deadline(x, s->config.idle_timeout_ms);   /* it is at work, in this very round */
	}
	return ROOM_SOON;
}

/*
 * Without room for it a client stays in the kernel's queue, and the listener stays readable: without
 * a pause the loop would do nothing but ask for it. A connection that ends ends the pause.
 */
static void pause_accepting(struct kn_http_server *s)
{
	uint64_t due = kn_loop_now(s->loop) + ACCEPT_PAUSE_MS * KN_NS_PER_MS;

	kn_watch_want(&s->listen, 0);
	if (kn_timer_start(s->loop, &s->accept_again, due, NULL) < 0)
		kn_watch_want(&s->listen, EPOLLIN); /* rather busy than deaf */
}

static void on_accept_again(struct kn_timer *t)
{
	struct kn_http_server *s = kn_container_of(t, struct kn_http_server, accept_again);

	kn_watch_want(&s->listen, EPOLLIN);
}

static bool is_want_of_room(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* The last client may just have been accepted: nobody loses a connection for one who is not there. */
static bool somebody_waits(const struct kn_http_server *s)
{
	struct pollfd p = { .fd = s->listen.fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

static void on_accept(struct kn_watch *w, uint32_t events)
{
	struct kn_http_server *s = kn_container_of(w, struct kn_http_server, listen);

	(void)events;
	for (int i = 0; i < 64; i++) {
		bool full = s->n_connections >= s->config.max_connections;
		int fd = full ? -1 : accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (full && !somebody_waits(s))
			return;
		if (full || (fd < 0 && is_want_of_room(errno))) {
			enum room room = make_room(s);
			if (room == ROOM)
				continue;
			if (room == NO_ROOM)
				pause_accepting(s);
			return;
		}
		if (fd < 0)
			return;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
		if (add_connection(s, fd) < 0)
			kn_close(fd);
	}
}

/* ---- replies ---------------------------------------------------------------------------------- */

/* IMF-fixdate, made once a second. */
static const char *date_now(struct kn_http_server *s)
{
	uint64_t now_ns = kn_wall_ns(), now_s = now_ns / KN_NS_PER_S;

	if (now_s != s->date_s) {
		kn_http_date(now_ns, s->date);
		s->date_s = now_s;
	}
	return s->date;
}

static void put_head(struct kn_http_exchange *x, int status, const struct kn_header *headers,
		     size_t n_headers, int64_t length)
{
	struct kn_buf *out = &x->io.out;
	bool bodyless = status < 200 || status == 204 || status == 304;

	kn_buf_adds(out, "HTTP/1.1 ");
	kn_http_put_u64(out, (uint64_t)status);
	kn_buf_adds(out, " ");
	kn_buf_adds(out, kn_http_reason(status));
	kn_buf_adds(out, "\r\nDate: ");
	kn_buf_adds(out, date_now(x->server));
	kn_buf_adds(out, "\r\n");
	if (x->server->config.server) {
		kn_buf_adds(out, "Server: ");
		kn_buf_adds(out, x->server->config.server);
		kn_buf_adds(out, "\r\n");
	}
	kn_http_put_headers(out, headers, n_headers);
	if (length >= 0 && !bodyless) {
		kn_buf_adds(out, "Content-Length: ");
		kn_http_put_u64(out, (uint64_t)length);
		kn_buf_adds(out, "\r\n");
	} else if (x->chunked) {
		kn_buf_adds(out, "Transfer-Encoding: chunked\r\n");
	}
	if (!x->keep_alive)
		kn_buf_adds(out, "Connection: close\r\n");
	else if (x->head.minor == 0)
		kn_buf_adds(out, "Connection: keep-alive\r\n");
	kn_buf_adds(out, "\r\n");
}

/* After an early answer: read the rest away when it is small, else close behind the reply. */
static void plan_discard(struct kn_http_exchange *x)
{
	uint64_t announced = x->head.content_length > 0 ? (uint64_t)x->head.content_length : 0;
	uint64_t rest = x->head.chunked ? UINT64_MAX : announced - x->body_seen;
	bool asked = x->head.expect_continue && x->body_seen == 0;

	if (x->state != BODY || x->discard)
		return;
	x->discard = true;
	x->paused = false;
	if (rest > DISCARD_AT_MOST || (rest && asked))
		x->keep_alive = false;
}

void kn_http_begin(struct kn_http_exchange *x, int status, const struct kn_header *headers,
		   size_t n_headers, int64_t length)
{
	bool bodyless = status < 200 || status == 204 || status == 304;

	if (x->reply != REPLY_NONE)
		return;
	if (x->server->draining)
		x->keep_alive = false;
	x->chunked = length < 0 && x->head.minor == 1 && !bodyless;
	if (length < 0 && x->head.minor == 0)
		x->keep_alive = false;
	x->reply = REPLY_BEGUN;
	x->reply_left = x->head_only || bodyless ? 0 : length;
	put_head(x, status, headers, n_headers, length);
	do_later(x);
}

void kn_http_write(struct kn_http_exchange *x, struct kn_view data)
{
	if (x->reply != REPLY_BEGUN || x->lost || data.len == 0)
		return;
	if (x->reply_left >= 0) {
		/* More than was announced would be read as the next reply. */
		data.len = kn_min(data.len, (size_t)x->reply_left);
		x->reply_left -= (int64_t)data.len;
	}
	if (!x->head_only)
		kn_http_put_body(&x->io.out, data, x->chunked);
	if (kn_http_io_full(&x->io) && kn_http_io_flush(&x->io) < 0)
		x->lost = true;
	do_later(x);
}

void kn_http_finish(struct kn_http_exchange *x)
{
	if (x->reply != REPLY_BEGUN)
		return;
	if (x->reply_left > 0) {
		kn_http_abort(x); /* fewer bytes than announced: never a false success */
		return;
	}
	if (x->chunked && !x->head_only)
		kn_buf_adds(&x->io.out, "0\r\n\r\n");
	x->reply = REPLY_DONE;
	plan_discard(x);
	do_later(x);
}

void kn_http_reply(struct kn_http_exchange *x, int status, const struct kn_header *headers,
		   size_t n_headers, struct kn_view body)
{
	if (x->reply != REPLY_NONE)
		return;
	plan_discard(x); /* before the head, which says whether the connection stays */
	kn_http_begin(x, status, headers, n_headers, (int64_t)body.len);
	kn_http_write(x, body);
	kn_http_finish(x);
}

void kn_http_reply_text(struct kn_http_exchange *x, int status, const char *content_type,
			const char *fmt, ...)
{
	struct kn_header type = { KN_VIEW("Content-Type"), kn_view_of(content_type) };
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	kn_http_reply(x, n < 0 ? 500 : status, &type, 1,
		      n < 0 ? KN_VIEW_NULL : (struct kn_view){ text, (size_t)n });
	if (n >= 0)
		free(text);
}

void kn_http_abort(struct kn_http_exchange *x)
{
	if (x->active) {
		x->active = false;
		x->server->n_busy--;
	}
	/* A reset, so that a reply which lasts until the close is not taken for whole. */
	setsockopt(x->io.watch.fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 },
		   sizeof(struct linger));
	x->lost = true;
	kn_buf_clear(&x->io.out);
	x->io.out_at = 0;
	do_later(x);
}

size_t kn_http_unsent(const struct kn_http_exchange *x)
{
	return kn_http_io_unsent(&x->io);
}

/* ---- requests --------------------------------------------------------------------------------- */

static int status_of(ssize_t parse_error)
{
	switch (-parse_error) {
	case EMSGSIZE:
		return 431;
	case EPROTONOSUPPORT:
		return 505;
	case ENOSYS:
		return 501;
	default:
		return 400;
	}
}

/* Answer what never became an exchange, and close. */
static void refuse(struct kn_http_exchange *x, int status, const char *why)
{
	x->keep_alive = false;
	x->state = CLOSING;
	x->reply = REPLY_NONE;
	x->head.minor = 1;
	x->head_only = false;
	kn_http_reply_text(x, status, "text/plain; charset=utf-8", "%s\n", why);
}

/* The server answers instead of the handler: a limit was passed while the handler waited. */
static void overrule(struct kn_http_exchange *x, int status, const char *why)
{
	bool begun = x->reply != REPLY_NONE;

	tell_gone(x);
	if (begun)
		lose(x);
	else
		refuse(x, status, why);
}

static void body_complete(struct kn_http_exchange *x)
{
	x->state = WAIT;
	if (x->discard || !x->active)
		return;
	if (x->collect_done) {
		x->collect_done(x, kn_buf_view(&x->collected), x->collect_arg);
		return;
	}
	if (x->hooks.end)
		x->hooks.end(x, x->hooks.arg);
}

static void body_data(struct kn_http_exchange *x, struct kn_view data)
{
	x->body_seen += data.len;
	if (x->discard) {
		if (x->body_seen > x->body_limit + DISCARD_AT_MOST)
			x->lost = true;
		return;
	}
	if (x->body_seen > x->body_limit) {
		overrule(x, 413, "the request body is larger than this function or path takes");
		return;
	}
	if (x->collect_done) {
		kn_buf_add_view(&x->collected, data);
		if (x->collected.failed)
			overrule(x, 503, "out of memory for the request body");
	} else if (x->hooks.data) {
		x->hooks.data(x, data, x->hooks.arg);
	}
}

static void read_body(struct kn_http_exchange *x)
{
	while (x->state == BODY && !x->lost && !(x->paused && !x->discard)) {
		struct kn_http_body_step step;
		struct kn_err why = KN_ERR_INIT;
		struct kn_view input = kn_http_io_input(&x->io);
		if (kn_http_parse_body(x->parser, input, &step, &why) < 0) {
			overrule(x, 400, why.text);
			return;
		}
		if (step.data.len)
			body_data(x, step.data);
		if (x->lost || x->state != BODY)
			return;
		kn_http_io_used(&x->io, step.used);
		if (step.done)
			body_complete(x);
		else if (step.used == input.len)
			return;
	}
}

static void begin_exchange(struct kn_http_exchange *x)
{
	struct kn_http_server *s = x->server;

	x->active = true;
	s->n_busy++;
	x->state = BODY;
	x->reply = REPLY_NONE;
	x->paused = false;
	x->discard = false;
	x->head_only = kn_view_is(x->head.method, KN_VIEW("HEAD"));
	x->keep_alive = x->head.keep_alive;
	x->body_limit = s->config.max_body;
	x->body_seen = 0;
	x->hooks = (struct kn_http_hooks){ .data = NULL };
	x->collect_done = NULL;
	kn_buf_clear(&x->collected);

	s->config.request(x, s->config.arg);
	if (x->lost || x->reply != REPLY_NONE)
		return;
	if (x->head.content_length > 0 && (uint64_t)x->head.content_length > x->body_limit)
		overrule(x, 413, "the request body is larger than this function or path takes");
	else if (x->head.expect_continue && kn_http_io_input(&x->io).len == 0)
		kn_buf_adds(&x->io.out, "HTTP/1.1 100 Continue\r\n\r\n");
}

/* True when a head was there and its exchange has begun. */
static bool read_head(struct kn_http_exchange *x)
{
	struct kn_err why = KN_ERR_INIT;
	struct kn_view input = kn_http_io_input(&x->io);

	while (kn_view_starts(input, KN_VIEW("\r\n"))) { /* RFC 9112, 2.2 */
		kn_http_io_used(&x->io, 2);
		input = kn_http_io_input(&x->io);
	}
	if (input.len == 0)
		return false;
	/* Parsed from a copy: views must outlive the input buffer, which moves as the body comes. */
	kn_http_parser_reset(x->parser, false);
	const char *end = memmem(input.ptr, input.len, "\r\n\r\n", 4);
	size_t n = end ? (size_t)(end - input.ptr) + 4 : input.len;
	if (end && n <= x->server->config.max_head) {
		input.ptr = kn_arena_copy(&x->arena, input.ptr, n);
		if (!input.ptr) {
			lose(x);
			return false;
		}
		input.len = n;
	}
	ssize_t used =
		kn_http_parse_head(x->parser, input, x->server->config.max_head, &x->head, &why);
	if (used < 0) {
		refuse(x, status_of(used), why.text);
		return false;
	}
	if (used == 0)
		return false;
	kn_http_io_used(&x->io, (size_t)used);
	begin_exchange(x);
	return true;
}

/* Parse what is there until the connection has to wait for its peer or its handler. */
static void advance(struct kn_http_exchange *x)
{
	while (!x->lost) {
		if (x->state == HEAD && !read_head(x))
			return;
		if (x->state == BODY)
			read_body(x);
		if (x->state != HEAD)
			return;
	}
}

/* The reply is out: make ready for the next request, or close. */
static void end_exchange(struct kn_http_exchange *x)
{
	if (x->active) {
		x->active = false;
		x->server->n_busy--;
		if (x->hooks.finished)
			x->hooks.finished(x, x->hooks.arg);
	}
	if (!x->keep_alive || x->server->draining) {
		x->state = CLOSING;
		return;
	}
	kn_arena_reset(&x->arena);
	x->state = HEAD;
	x->reply = REPLY_NONE;
	kn_http_io_want_input(&x->io, true);
}

/* ---- events ----------------------------------------------------------------------------------- */

/*
 * Closing with unread input makes the kernel send a reset, which can destroy the reply on its way:
 * end our direction, then wait a moment for the peer's end.
 */
static void close_gently(struct kn_http_exchange *x)
{
	if (x->eof || x->lost) {
		free_connection(x);
		return;
	}
	shutdown(x->io.watch.fd, SHUT_WR);
	kn_http_io_want_input(&x->io, true);
	uint64_t ms = x->server->draining ? DRAIN_LINGER_MS : LINGER_MS;
	x->deadline_ns = kn_loop_now(x->io.loop) + ms * KN_NS_PER_MS;
	if (kn_timer_start(x->io.loop, &x->timer, x->deadline_ns, NULL) < 0)
		free_connection(x);
}

static bool reply_is_out(const struct kn_http_exchange *x)
{
	return x->reply == REPLY_DONE && kn_http_io_unsent(&x->io) == 0;
}

static void flush(struct kn_http_exchange *x)
{
	if (!x->lost && kn_http_io_flush(&x->io) < 0)
		lose(x);
	if (!x->lost && kn_http_io_drained(&x->io) && x->active && x->hooks.drain)
		x->hooks.drain(x, x->hooks.arg);
}

static void on_later(struct kn_defer *d)
{
	struct kn_http_exchange *x = kn_container_of(d, struct kn_http_exchange, later);

	if (x->resumed) {
		x->resumed = false;
		advance(x);
	}
	flush(x);
	while (!x->lost && reply_is_out(x) && (x->state == WAIT || x->state == BODY)) {
		if (x->state == BODY && x->keep_alive)
			return; /* the rest of a small body is still being read away */
		end_exchange(x);
		if (x->state != HEAD)
			break;
		set_deadline(x, x->server->config.idle_timeout_ms);
		advance(x); /* a pipelined request may be here already */
		flush(x);
	}
	if (x->lost) {
		tell_gone(x);
		free_connection(x);
	} else if (x->state == CLOSING && kn_http_io_unsent(&x->io) == 0) {
		close_gently(x);
	}
}

static void on_input(struct kn_http_exchange *x)
{
	bool was_idle = x->state == HEAD && kn_http_io_input(&x->io).len == 0;

	if (x->state == CLOSING) { /* read away until the peer closes, within the deadline */
		kn_http_io_used(&x->io, kn_http_io_input(&x->io).len);
	} else if ((x->paused && x->state == BODY) || x->state == WAIT) {
		if (kn_http_io_input(&x->io).len > 0) {
			kn_http_io_want_input(&x->io, false);
			return;
		}
	}
	ssize_t n = kn_http_io_fill(&x->io);
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		x->eof = true;
		lose(x);
		return;
	}
	if (x->state == CLOSING)
		return;
	advance(x);
	/* A head has one deadline from its first byte on, however slowly the rest drips in. */
	if (x->state != HEAD)
		set_deadline(x, x->server->config.idle_timeout_ms);
	else if (was_idle)
		set_deadline(x, x->server->config.head_timeout_ms);
	do_later(x);
}

static void on_io(struct kn_watch *w, uint32_t events)
{
	struct kn_http_exchange *x = kn_container_of(w, struct kn_http_exchange, io.watch);

	if (events & EPOLLOUT) {
		set_deadline(x, x->server->config.idle_timeout_ms);
		do_later(x);
	}
	if (x->lost)
		return;
	if (events & (EPOLLERR | EPOLLHUP)) {
		x->eof = true;
		lose(x);
	} else if (events & (EPOLLIN | EPOLLRDHUP)) {
		on_input(x);
	}
}

static void on_timer(struct kn_timer *t)
{
	struct kn_http_exchange *x = kn_container_of(t, struct kn_http_exchange, timer);

	if (x->deadline_ns > kn_loop_now(x->io.loop)) {
		if (kn_timer_start(x->io.loop, t, x->deadline_ns, NULL) < 0)
			lose(x);
		return;
	}
	bool part_of_head = x->state == HEAD && kn_http_io_input(&x->io).len > 0;
	bool stalled_body = x->state == BODY && !x->paused && x->reply == REPLY_NONE;
	if (part_of_head)
		refuse(x, 408, "the request's head did not arrive in time");
	else if (stalled_body)
		overrule(x, 408, "the request's body stopped arriving");
	else if (x->state == HEAD || x->state == CLOSING || kn_http_io_unsent(&x->io))
		lose(x); /* idle, or a client that does not read its reply */
	else
		set_deadline(
			x,
			x->server->config.idle_timeout_ms); /* the handler has its own deadline */
}

/* ---- what handlers call ----------------------------------------------------------------------- */

void kn_http_set_hooks(struct kn_http_exchange *x, const struct kn_http_hooks *hooks)
{
	x->hooks = *hooks;
}

const struct kn_http_head *kn_http_head(const struct kn_http_exchange *x)
{
	return &x->head;
}

struct kn_arena *kn_http_arena(struct kn_http_exchange *x)
{
	return &x->arena;
}

void kn_http_limit_body(struct kn_http_exchange *x, uint64_t max_bytes)
{
	x->body_limit = max_bytes;
}

void kn_http_pause(struct kn_http_exchange *x, bool paused)
{
	if (x->paused == paused || x->lost)
		return;
	x->paused = paused;
	if (paused)
		return; /* input is no longer wanted once some arrives */
	kn_http_io_want_input(&x->io, true);
	set_deadline(x, x->server->config.idle_timeout_ms);
	x->resumed = true; /* read on outside of the hook that may be calling */
	do_later(x);
}

void kn_http_collect(struct kn_http_exchange *x, uint64_t max,
		     void (*done)(struct kn_http_exchange *x, struct kn_view body, void *arg),
		     void *arg)
{
	x->collect_done = done;
	x->collect_arg = arg;
	x->body_limit = max;
}

/* ---- server's life ---------------------------------------------------------------------------- */

int kn_http_server_new(struct kn_loop *loop, int listen_fd,
		       const struct kn_http_server_config *config, struct kn_http_server **ret,
		       struct kn_err *err)
{
	struct kn_http_server *s = calloc(1, sizeof(*s));
	if (!s)
		return kn_fail(err, ENOMEM, "out of memory for an HTTP server");

	s->loop = loop;
	s->config = *config;
	s->listen = (struct kn_watch){ .fd = listen_fd, .events = EPOLLIN, .call = on_accept };
	s->accept_again.call = on_accept_again;
	int r = kn_watch_start(loop, &s->listen, err);
	if (r < 0) {
		free(s);
		return kn_while(err, "serve HTTP");
	}
	*ret = s;
	return 0;
}

void kn_http_server_drain(struct kn_http_server *s)
{
	s->draining = true;
	kn_timer_stop(&s->accept_again);
	kn_watch_stop(&s->listen);
	kn_close(kn_take_fd(s->listen.fd));
	for (struct kn_http_exchange *x = s->all, *next; x; x = next) {
		next = x->next;
		if (x->state == HEAD && kn_http_io_input(&x->io).len == 0)
			lose(x);
	}
}

size_t kn_http_server_busy(const struct kn_http_server *s)
{
	return s->n_busy;
}

void kn_http_server_free(struct kn_http_server *s)
{
	if (!s)
		return;
	s->draining = true;
	for (struct kn_http_exchange *x = s->all, *next; x; x = next) {
		next = x->next;
		tell_gone(x);
		free_connection(x);
	}
	kn_timer_stop(&s->accept_again);
	kn_watch_stop(&s->listen);
	kn_close(s->listen.fd);
	free(s);
}
