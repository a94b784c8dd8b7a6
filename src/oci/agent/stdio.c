/*
 * Contract STDIO: the agent serves HTTP/1.1 and runs one process a request. The body goes to its
 * standard input, its standard output is the reply's body, its standard error is the log.
 *
 * The reply's status depends on how the process ends, so the first HELD_BYTES of output are held
 * back: a program that fails before it wrote that much is answered 500 with its last words. Once the
 * head is out, output is streamed, and a late failure can only cut the connection.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/process.h"
#include "oci/agent/agent.h"

enum { HELD_BYTES = 64 * 1024, INPUT_LIMIT = 256 * 1024, UNSENT_LIMIT = 256 * 1024 };

struct call {
	struct process process;
	struct kn_agent *agent;
	struct call *next, **prev;
	struct kn_http_exchange *x;     /* NULL when it is answered or the client is gone */
	struct kn_watch in, out;        /* our ends of its input and output */
	struct kn_buf body;             /* what its input does not take yet */
	bool body_ended;
	struct kn_buf held;
	bool begun;                     /* the reply's head is out */
	uint64_t sent;
	struct kn_timer limit;
};

/* ---- the end of a call --------------------------------------------------------------------- */

static void close_watch(struct kn_watch *w)
{
	kn_watch_stop(w);
	kn_close(kn_take_fd(w->fd));
}

static void free_call(struct call *c)
{
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	kn_timer_stop(&c->limit);
	close_watch(&c->in);
	close_watch(&c->out);
	kn_buf_fini(&c->body);
	kn_buf_fini(&c->held);
	free(c);
}

/* The exchange without this call: it must not be told of what the client still does. */
static struct kn_http_exchange *take_exchange(struct call *c)
{
	static const struct kn_http_hooks none = { .data = NULL };
	struct kn_http_exchange *x = kn_take_ptr(c->x);

	if (x)
		kn_http_set_hooks(x, &none);
	return x;
}

/* Answer a failure: in words while that is possible, else by cutting the connection. */
static void refuse(struct call *c, int status, const char *fmt, ...) kn_printf(3, 4);
static void refuse(struct call *c, int status, const char *fmt, ...)
{
	struct kn_http_exchange *x = take_exchange(c);
	char text[768];
	va_list ap;

	if (!x)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (c->begun)
		kn_http_abort(x);
	else
		kn_http_reply_text(x, status, "text/plain", "%s\n", text);
}

static void succeed(struct call *c)
{
	static const struct kn_header type[] = { { KN_VIEW("Content-Type"),
		                                   KN_VIEW("application/octet-stream") } };
	struct kn_http_exchange *x = take_exchange(c);

	if (!x)
		return;
	if (c->begun)
		kn_http_finish(x);
	else
		kn_http_reply(x, 200, type, KN_ARRAY_LEN(type), kn_buf_view(&c->held));
}

static void kill_call(struct call *c)
{
	process_signal(&c->process, SIGKILL);
}

/* ---- output -------------------------------------------------------------------------------- */

static void begin(struct call *c)
{
	static const struct kn_header type[] = { { KN_VIEW("Content-Type"),
		                                   KN_VIEW("application/octet-stream") } };

	c->begun = true;
	kn_http_begin(c->x, 200, type, KN_ARRAY_LEN(type), -1);
	kn_http_write(c->x, kn_buf_view(&c->held));
	kn_buf_fini(&c->held);
	c->held = KN_BUF_INIT;
}

static void reply_bytes(struct call *c, const char *bytes, size_t n)
{
	c->sent += n;
	if (c->agent->fn.max_reply_bytes && c->sent > c->agent->fn.max_reply_bytes) {
		refuse(c, 502, "the function's reply is larger than %llu bytes",
		       (unsigned long long)c->agent->fn.max_reply_bytes);
		kill_call(c);
		return;
	}
	if (c->begun) {
		kn_http_write(c->x, (struct kn_view){ bytes, n });
		return;
	}
	kn_buf_add(&c->held, bytes, n);
	if (c->held.failed) {
		refuse(c, 503, "memory for the function's reply is out");
		kill_call(c);
	} else if (c->held.len >= HELD_BYTES) {
		begin(c);
	}
}

/* One read; false when there is nothing more, now or ever. */
static bool read_output(struct call *c)
{
	char bytes[16 * 1024];

	ssize_t n = read(c->out.fd, bytes, sizeof(bytes));
	if (n < 0)
		return errno == EINTR;
	if (n == 0)
		return false;
	if (c->x)
		reply_bytes(c, bytes, (size_t)n);
	return true;
}

static void on_output(struct kn_watch *w, uint32_t events)
{
	struct call *c = kn_container_of(w, struct call, out);

	(void)events;
	errno = 0;
	if (!read_output(c) && errno != EAGAIN)
		close_watch(w);
	else if (c->x && c->begun && kn_http_unsent(c->x) > UNSENT_LIMIT)
		kn_watch_stop(w);   /* on_drain() goes on */
}

static void on_drain(struct kn_http_exchange *x, void *arg)
{
	struct call *c = arg;

	(void)x;
	if (c->out.fd >= 0 && !c->out.loop)
		(void)!kn_watch_start(c->agent->loop, &c->out, NULL);
}

/* ---- input --------------------------------------------------------------------------------- */

/* A program need not read its input: then the rest of the body is thrown away. */
static void drop_input(struct call *c)
{
	close_watch(&c->in);
	kn_buf_clear(&c->body);
	if (c->x)
		kn_http_pause(c->x, false);
}

static void write_input(struct call *c)
{
	while (c->body.len > 0) {
		ssize_t n = write(c->in.fd, c->body.ptr, c->body.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			drop_input(c);
			return;
		}
		kn_buf_drop(&c->body, (size_t)n);
	}
	if (c->x)
		kn_http_pause(c->x, c->body.len > INPUT_LIMIT);
	if (c->body.len == 0 && c->body_ended)
		close_watch(&c->in);
	else
		kn_watch_want(&c->in, c->body.len > 0 ? EPOLLOUT : 0u);
}

static void on_input(struct kn_watch *w, uint32_t events)
{
	struct call *c = kn_container_of(w, struct call, in);

	if (events & EPOLLERR)
		drop_input(c);
	else
		write_input(c);
}

static void on_data(struct kn_http_exchange *x, struct kn_view data, void *arg)
{
	struct call *c = arg;

	(void)x;
	if (c->in.fd < 0)
		return;
	kn_buf_add_view(&c->body, data);
	if (c->body.failed) {
		refuse(c, 503, "memory for the request's body is out");
		kill_call(c);
		return;
	}
	write_input(c);
}

static void on_body_end(struct kn_http_exchange *x, void *arg)
{
	struct call *c = arg;

	(void)x;
	c->body_ended = true;
	if (c->in.fd >= 0)
		write_input(c);
}

static void on_gone(struct kn_http_exchange *x, void *arg)
{
	struct call *c = arg;

	(void)x;
	c->x = NULL;
	kill_call(c);
}

/* ---- the process --------------------------------------------------------------------------- */

static void on_limit(struct kn_timer *t)
{
	struct call *c = kn_container_of(t, struct call, limit);

	refuse(c, 504, "the function did not answer within %llu ms",
	       (unsigned long long)c->agent->fn.time_limit_ms);
	kill_call(c);
}

static void on_ended(struct process *p, int wait_status)
{
	struct call *c = kn_container_of(p, struct call, process);
	struct kn_agent *a = c->agent;
	char how[96], tail[512];

	/* It has ended: what it wrote is in the pipe, whether the client takes it quickly or not. */
	while (c->out.fd >= 0 && read_output(c))
		;
	if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) {
		succeed(c);
	} else {
		agent_how(a, wait_status, how, sizeof(how));
		tail_text(p->tail, p->tail_len, tail, sizeof(tail));
		refuse(c, 500, "the function %s%s%s", how, tail[0] ? ": " : "", tail);
	}
	free_call(c);
	agent_check_stopped(a);
}

/* "Http_Content_Type=text/plain", as the OpenFaaS classic watchdog names them. */
static const char *header_env(struct kn_arena *arena, const char *prefix, struct kn_view name,
                              struct kn_view value)
{
	char *text = kn_arena_printf(arena, "%s%.*s=%.*s", prefix, (int)name.len, name.ptr,
	                             (int)value.len, value.ptr ? value.ptr : "");

	for (char *at = text; at && *at != '='; at++)
		if (!isalnum((unsigned char)*at))
			*at = '_';
	return text;
}

static const char **request_env(struct kn_http_exchange *x, const struct kn_http_head *h)
{
	struct kn_arena *arena = kn_http_arena(x);
	size_t n = 0;

	const char **env = kn_arena_alloc(arena, (h->n_headers + 4) * sizeof(*env));
	if (!env)
		return NULL;
	env[n++] = header_env(arena, "Http_", KN_VIEW("Method"), h->method);
	env[n++] = header_env(arena, "Http_", KN_VIEW("Path"), h->path);
	env[n++] = header_env(arena, "Http_", KN_VIEW("Query"), h->query);
	for (size_t i = 0; i < h->n_headers && env[n - 1]; i++)
		env[n++] = header_env(arena, "Http_", h->headers[i].name, h->headers[i].value);
	return env[n - 1] ? env : NULL;
}

static int start_process(struct call *c, const char *const *env, struct kn_err *err)
{
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) < 0)
		return kn_fail(err, errno, "pipe: %s", strerror(errno));
	if (pipe2(out, O_CLOEXEC) < 0) {
		close(in[0]);
		close(in[1]);
		return kn_fail(err, errno, "pipe: %s", strerror(errno));
	}
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	c->in = (struct kn_watch){ .fd = in[1], .events = 0, .call = on_input };
	c->out = (struct kn_watch){ .fd = out[0], .events = EPOLLIN, .call = on_output };
	int r = kn_watch_start(c->agent->loop, &c->in, err);
	if (r == 0)
		r = kn_watch_start(c->agent->loop, &c->out, err);
	if (r == 0)
		r = process_start(c->agent, &c->process, in[0], out[1], env, err);
	close(in[0]);
	close(out[1]);
	return r;
}

static void on_request(struct kn_http_exchange *x, void *arg)
{
	struct kn_agent *a = arg;
	struct kn_err err = KN_ERR_INIT;

	struct call *c = a->stopping ? NULL : calloc(1, sizeof(*c));
	const char **env = request_env(x, kn_http_head(x));
	if (!c || !env) {
		free(c);
		kn_http_reply_text(x, 503, "text/plain", a->stopping ? "stopping\n" : "no memory\n");
		return;
	}
	c->agent = a;
	c->process.ended = on_ended;
	c->process.err.agent = a;
	c->in.fd = c->out.fd = -1;
	c->limit.call = on_limit;
	c->prev = &a->calls;
	c->next = a->calls;
	if (c->next)
		c->next->prev = &c->next;
	a->calls = c;
	if (start_process(c, env, &err) < 0) {
		kn_http_reply_text(x, 500, "text/plain", "%s\n", kn_err_text(&err));
		free_call(c);
		return;
	}
	c->x = x;
	struct kn_http_hooks hooks = { .data = on_data, .end = on_body_end, .drain = on_drain,
		                       .gone = on_gone, .arg = c };
	kn_http_set_hooks(x, &hooks);
	if (a->fn.time_limit_ms)
		(void)!kn_timer_start(a->loop, &c->limit,
		                      kn_now_ns() + a->fn.time_limit_ms * KN_NS_PER_MS, NULL);
}

/* ---- the server ---------------------------------------------------------------------------- */

/* The kernel chooses an abstract address: autobind, unix(7). */
static int listen_somewhere(struct kn_agent *a, struct kn_err *err)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(at);

	kn_auto(kn_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(sa_family_t)) < 0 ||
	    listen(fd, 128) < 0 || getsockname(fd, (struct sockaddr *)&at, &len) < 0)
		return kn_fail(err, errno, "a socket for requests: %s", strerror(errno));
	a->server_name_len = len - sizeof(sa_family_t);
	memcpy(a->server_name, at.sun_path, a->server_name_len);
	return kn_take_fd(fd);
}

int stdio_start(struct kn_agent *a, struct kn_err *err)
{
	struct kn_http_server_config c = KN_HTTP_SERVER_DEFAULTS;

	int fd = listen_somewhere(a, err);
	if (fd < 0)
		return fd;
	/* The gateway in front has the platform's limits; here only memory is guarded. */
	c.max_body = UINT64_MAX / 2;
	c.max_connections = KN_MUX_MAX_STREAMS;
	c.idle_timeout_ms = 24 * 3600 * 1000;
	c.request = on_request;
	c.arg = a;
	return kn_http_server_new(a->loop, fd, &c, &a->server, err);
}

int stdio_connect(const struct kn_agent *a)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	kn_auto(kn_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	memcpy(at.sun_path, a->server_name, a->server_name_len);
	if (connect(fd, (struct sockaddr *)&at,
	            (socklen_t)(sizeof(sa_family_t) + a->server_name_len)) < 0)
		return -errno;
	return kn_take_fd(fd);
}

void stdio_stop(struct kn_agent *a)
{
	if (a->server)
		kn_http_server_free(kn_take_ptr(a->server));
}
