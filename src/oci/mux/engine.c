#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "oci/mux/mux.h"

/* ---- life ---------------------------------------------------------------------------------- */

static void on_pipe(struct kn_watch *w, uint32_t events);
static void on_retry(struct kn_timer *t);
static void on_flush(struct kn_defer *d);

static void drop_streams(struct kn_mux *m)
{
	while (m->streams)
		stream_drop(m->streams);
}

static void release(struct kn_mux *m)
{
	kn_buf_fini(&m->in);
	kn_buf_fini(&m->out);
	kn_buf_fini(&m->control);
	free(m);
}

void kn_mux_free(struct kn_mux *m)
{
	if (!m)
		return;
	m->broken = true;
	drop_streams(m);
	kn_watch_stop(&m->watch);
	kn_timer_stop(&m->retry);
	kn_defer_stop(&m->flush);
	kn_close(kn_take_fd(m->watch.fd));
	if (m->busy)
		m->dying = true;
	else
		release(m);
}

static void enter(struct kn_mux *m)
{
	m->busy++;
}

static void leave(struct kn_mux *m)
{
	if (--m->busy == 0 && m->dying)
		release(m);
}

static void fail(struct kn_mux *m, const struct kn_err *why)
{
	if (m->broken)
		return;
	m->broken = true;
	drop_streams(m);
	kn_watch_stop(&m->watch);
	kn_timer_stop(&m->retry);
	if (m->config.events.failed)
		m->config.events.failed(m, why, m->config.events.arg);
}

static void greet(struct kn_mux *m, uint32_t generation)
{
	char hello[HEADER_BYTES + HELLO_BYTES];

	mux_hello_bytes(generation, hello);
	kn_buf_add(&m->out, hello, sizeof(hello));
	kn_defer_start(m->loop, &m->flush);
}

int kn_mux_new(struct kn_loop *loop, int fd, const struct kn_mux_config *config,
               struct kn_mux **ret, struct kn_err *err)
{
	struct kn_mux *m = calloc(1, sizeof(*m));

	if (!m) {
		kn_close(fd);
		return kn_fail(err, ENOMEM, "memory for a mux");
	}
	m->loop = loop;
	m->config = *config;
	m->next_id = 1;
	m->watch = (struct kn_watch){ .fd = fd, .events = EPOLLIN, .call = on_pipe };
	m->retry.call = on_retry;
	m->flush.call = on_flush;
	int r = kn_watch_start(loop, &m->watch, err);
	if (r < 0) {
		kn_mux_free(m);
		return r;
	}
	if (config->host)
		greet(m, config->generation);
	*ret = m;
	return 0;
}

/* ---- out ----------------------------------------------------------------------------------- */

static void set_full(struct kn_mux *m, bool full)
{
	struct stream *next;

	if (m->full == full)
		return;
	m->full = full;
	for (struct stream *s = m->streams; s; s = next) {
		next = s->next;
		stream_update(s);
	}
}

static void set_high(struct kn_mux *m, bool high)
{
	bool fell = m->high && !high;

	m->high = high;
	if (fell && m->config.events.drain)
		m->config.events.drain(m, m->config.events.arg);
}

void mux_send(struct kn_mux *m, enum kn_mux_frame_type type, uint8_t flags, uint32_t stream,
              struct kn_view payload)
{
	kn_mux_put(&m->out, type, flags, stream, payload);
	kn_defer_start(m->loop, &m->flush);
}

void mux_send_u32(struct kn_mux *m, enum kn_mux_frame_type type, uint32_t stream, uint32_t value)
{
	char le[4] = { (char)value, (char)(value >> 8), (char)(value >> 16), (char)(value >> 24) };

	mux_send(m, type, 0, stream, (struct kn_view){ le, sizeof(le) });
}

static void flush(struct kn_mux *m)
{
	struct kn_err err = KN_ERR_INIT;

	if (m->out.failed) {
		kn_fail(&err, ENOMEM, "memory for what is to be sent");
		fail(m, &err);
		return;
	}
	/* Who looks at kn_mux_unsent() between two flushes sees this: they must hear of its end. */
	if (m->out.len > (size_t)KN_MUX_DRAINED)
		set_high(m, true);
	size_t done = 0;
	while (done < m->out.len) {
		ssize_t n = write(m->watch.fd, m->out.ptr + done, m->out.len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	/* Errors of the pipe show when it is read, after everything that it still holds. */
	kn_buf_drop(&m->out, done);
	if (m->watch.loop)
		kn_watch_want(&m->watch, EPOLLIN | (m->out.len > 0 ? EPOLLOUT : 0u));
	if (m->out.len > OUT_LIMIT)
		set_full(m, true);
	else if (m->out.len <= (size_t)KN_MUX_DRAINED)
		set_full(m, false);
	if (m->out.len <= (size_t)KN_MUX_DRAINED)
		set_high(m, false);
}

static void on_flush(struct kn_defer *d)
{
	struct kn_mux *m = kn_container_of(d, struct kn_mux, flush);

	enter(m);
	if (!m->broken)
		flush(m);
	leave(m);
}

int kn_mux_control(struct kn_mux *m, struct kn_view message, struct kn_err *err)
{
	if (m->broken)
		return kn_fail(err, EPIPE, "the guest is gone");
	if (message.len == 0 || message.len > KN_MUX_MAX_CONTROL)
		return kn_fail(err, EMSGSIZE, "a message of %zu bytes to the guest; 1 to %d are "
		               "possible", message.len, KN_MUX_MAX_CONTROL);
	while (message.len > 0) {
		size_t n = kn_min(message.len, (size_t)KN_MUX_MAX_PAYLOAD);
		mux_send(m, KN_MUX_CONTROL, n < message.len ? KN_MUX_MORE : 0, 0,
		         (struct kn_view){ message.ptr, n });
		message.ptr += n;
		message.len -= n;
	}
	return m->out.failed ? kn_fail(err, ENOMEM, "memory for a message to the guest") : 0;
}

int kn_mux_open(struct kn_mux *m, int fd, struct kn_err *err)
{
	if (m->broken) {
		kn_close(fd);
		return kn_fail(err, EPIPE, "the guest is gone");
	}
	uint32_t id = m->next_id;
	while (id == 0 || stream_find(m, id))
		id++;
	int r = stream_add(m, id, fd, err);
	if (r < 0)
		return r;
	m->next_id = id + 1;
	mux_send(m, KN_MUX_OPEN, 0, id, KN_VIEW_NULL);
	return 0;
}

size_t kn_mux_unsent(const struct kn_mux *m)
{
	return m->out.len;
}

size_t kn_mux_streams(const struct kn_mux *m)
{
	return m->n_streams;
}

/* ---- in ------------------------------------------------------------------------------------ */

static uint32_t u32_of(struct kn_view v)
{
	uint32_t value = 0;

	for (size_t i = 4; i-- > 0;)
		value = value << 8 | (unsigned char)v.ptr[i];
	return value;
}

/* A greeting: whatever belonged to an earlier host is void, half-sent frames included. */
static int on_hello(struct kn_mux *m, uint32_t generation, struct kn_err *err)
{
	if (m->config.host)
		return kn_fail(err, EBADMSG, "second greeting of the guest");
	drop_streams(m);
	kn_buf_clear(&m->control);
	kn_buf_clear(&m->out);
	m->greeted = true;
	greet(m, generation);
	if (m->config.events.hello)
		m->config.events.hello(m, generation, m->config.events.arg);
	return 0;
}

static int on_control(struct kn_mux *m, const struct kn_mux_frame *f, struct kn_err *err)
{
	if (m->control.len + f->payload.len > KN_MUX_MAX_CONTROL)
		return kn_fail(err, EBADMSG, "a control message longer than %d bytes",
		               KN_MUX_MAX_CONTROL);
	kn_buf_add_view(&m->control, f->payload);
	if (m->control.failed)
		return kn_fail(err, ENOMEM, "memory for a control message");
	if (f->flags & KN_MUX_MORE)
		return 0;
	/* Handed over before the call: the handler may free the mux. */
	struct kn_buf message = m->control;
	m->control = KN_BUF_INIT;
	if (m->config.events.control)
		m->config.events.control(m, kn_buf_view(&message), m->config.events.arg);
	kn_buf_fini(&message);
	return 0;
}

static int on_open(struct kn_mux *m, uint32_t id, struct kn_err *err)
{
	if (m->config.host || stream_find(m, id))
		return kn_fail(err, EBADMSG, "stream %u opened by the wrong end or twice", id);
	int fd = m->config.events.open ? m->config.events.open(m, m->config.events.arg) : -ENOSYS;
	if (m->broken) {   /* the handler gave the mux up */
		kn_close(fd);
		return 0;
	}
	if (fd >= 0)
		fd = stream_add(m, id, fd, NULL);
	if (fd < 0)
		mux_send_u32(m, KN_MUX_RESET, id, (uint32_t)-fd);
	return 0;
}

/* Frames of streams that are gone here are dropped: they crossed our RESET. */
static int on_stream_frame(struct kn_mux *m, const struct kn_mux_frame *f, struct kn_err *err)
{
	struct stream *s = stream_find(m, f->stream);

	if (!s || s->got_reset)
		return 0;
	if (f->type == KN_MUX_DATA)
		return stream_data(s, f->payload, err);
	if (f->type == KN_MUX_END)
		return stream_end(s, err);
	if (f->type == KN_MUX_CREDIT)
		return stream_credit(s, u32_of(f->payload), err);
	stream_reset(s);
	return 0;
}

static int dispatch(struct kn_mux *m, const struct kn_mux_frame *f, struct kn_err *err)
{
	switch (f->type) {
	case KN_MUX_HELLO:
		return on_hello(m, u32_of((struct kn_view){ f->payload.ptr + HELLO_BYTES - 4, 4 }),
		                err);
	case KN_MUX_CONTROL:
		return m->greeted ? on_control(m, f, err) : 0;
	case KN_MUX_OPEN:
		return m->greeted ? on_open(m, f->stream, err) : 0;
	case KN_MUX_DATA:
	case KN_MUX_END:
	case KN_MUX_RESET:
	case KN_MUX_CREDIT:
		return on_stream_frame(m, f, err);
	}
	return kn_fail(err, EBADMSG, "frame of unknown type");
}

/*
 * Host, before the guest's greeting: look for its bytes. A restored guest may first finish a frame
 * of its earlier life, so nothing before them can be parsed. Returns what can be thrown away.
 */
static size_t find_hello(struct kn_mux *m, struct kn_view in)
{
	char hello[HEADER_BYTES + HELLO_BYTES];

	mux_hello_bytes(m->config.generation, hello);
	const char *at = memmem(in.ptr, in.len, hello, sizeof(hello));
	if (!at)
		return in.len < sizeof(hello) ? 0 : in.len - (sizeof(hello) - 1);
	m->greeted = true;
	if (m->config.events.hello)
		m->config.events.hello(m, m->config.generation, m->config.events.arg);
	return (size_t)(at - in.ptr) + sizeof(hello);
}

static void take_frames(struct kn_mux *m)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_mux_frame f;
	size_t used = 0;

	if (m->config.host && !m->greeted)
		used = find_hello(m, kn_buf_view(&m->in));
	while (!m->broken && (m->greeted || !m->config.host)) {
		ssize_t n = kn_mux_parse((struct kn_view){ m->in.ptr + used, m->in.len - used }, &f,
		                         &err);
		if (n > 0 && dispatch(m, &f, &err) < 0)
			n = -1;
		if (n < 0) {
			fail(m, &err);
			return;
		}
		if (n == 0)
			break;
		used += (size_t)n;
	}
	kn_buf_drop(&m->in, used);
}

/* The guest's end may lose its host (between snapshot and restore) and waits for the next one. */
static void pipe_ended(struct kn_mux *m, int code)
{
	struct kn_err err = KN_ERR_INIT;

	if (m->config.retry_ms == 0) {
		kn_fail(&err, code ? code : EPIPE, "the pipe to the guest: %s",
		        code ? strerror(code) : "closed");
		fail(m, &err);
		return;
	}
	kn_watch_stop(&m->watch);
	if (kn_timer_start(m->loop, &m->retry,
	                   kn_now_ns() + m->config.retry_ms * KN_NS_PER_MS, &err) < 0)
		fail(m, &err);
}

static void on_retry(struct kn_timer *t)
{
	struct kn_mux *m = kn_container_of(t, struct kn_mux, retry);
	struct kn_err err = KN_ERR_INIT;

	enter(m);
	m->watch.events = EPOLLIN | (m->out.len > 0 ? EPOLLOUT : 0u);
	if (kn_watch_start(m->loop, &m->watch, &err) < 0)
		fail(m, &err);
	leave(m);
}

static void read_pipe(struct kn_mux *m)
{
	struct kn_err err = KN_ERR_INIT;

	if (!kn_buf_reserve(&m->in, READ_BYTES)) {
		kn_fail(&err, ENOMEM, "memory for what is received");
		fail(m, &err);
		return;
	}
	ssize_t n = read(m->watch.fd, m->in.ptr + m->in.len, READ_BYTES);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		pipe_ended(m, n < 0 ? errno : 0);
		return;
	}
	m->in.len += (size_t)n;
	take_frames(m);
}

static void on_pipe(struct kn_watch *w, uint32_t events)
{
	struct kn_mux *m = kn_container_of(w, struct kn_mux, watch);

	enter(m);
	if (events & EPOLLOUT)
		flush(m);
	if (!m->broken && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		read_pipe(m);
	leave(m);
}
