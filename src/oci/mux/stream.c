/* One stream: a socket on this side, credits and half-closes on the other. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "oci/mux/mux.h"

static void on_socket(struct kn_watch *w, uint32_t events);

struct stream *stream_find(struct kn_mux *m, uint32_t id)
{
	for (struct stream *s = m->streams; s; s = s->next)
		if (s->id == id)
			return s;
	return NULL;
}

int stream_add(struct kn_mux *m, uint32_t id, int fd_owned, struct kn_err *err)
{
	kn_auto(kn_close) int fd = fd_owned;

	if (m->n_streams >= KN_MUX_MAX_STREAMS)
		return kn_fail(err, EMFILE, "%d streams are open already", KN_MUX_MAX_STREAMS);
	struct stream *s = calloc(1, sizeof(*s));
	if (!s)
		return kn_fail(err, ENOMEM, "memory for a stream");
	s->mux = m;
	s->id = id;
	s->credit = KN_MUX_WINDOW;
	s->watch = (struct kn_watch){ .fd = fd, .events = m->full ? 0 : EPOLLIN,
		                      .call = on_socket };
	int r = kn_watch_start(m->loop, &s->watch, err);
	if (r < 0) {
		free(s);
		return r;
	}
	(void)kn_take_fd(fd);
	s->next = m->streams;
	s->prev = &m->streams;
	if (s->next)
		s->next->prev = &s->next;
	m->streams = s;
	m->n_streams++;
	return 0;
}

void stream_drop(struct stream *s)
{
	kn_watch_stop(&s->watch);
	kn_close(s->watch.fd);
	kn_buf_fini(&s->inbound);
	*s->prev = s->next;
	if (s->next)
		s->next->prev = s->prev;
	s->mux->n_streams--;
	free(s);
}

static void reset(struct stream *s, int code)
{
	mux_send_u32(s->mux, KN_MUX_RESET, s->id, (uint32_t)code);
	stream_drop(s);
}

/* Drops the stream when nothing more can happen on it; true then. */
static bool finish(struct stream *s)
{
	bool written = s->inbound.len == 0;

	if ((s->got_reset && written) || (s->sent_end && s->got_end && s->shut)) {
		stream_drop(s);
		return true;
	}
	return false;
}

static uint32_t wanted(const struct stream *s)
{
	uint32_t events = 0;

	if (!s->sent_end && !s->got_reset && s->credit > 0 && !s->mux->full)
		events |= EPOLLIN;
	if (s->inbound.len > 0)
		events |= EPOLLOUT;
	return events;
}

/*
 * A hang-up is reported whether it is waited for or not. While nothing may be done about it (no
 * credit to send what is left to read) the watch is taken out, or the loop would spin.
 */
void stream_update(struct stream *s)
{
	uint32_t events = wanted(s);

	if (s->watch.loop) {
		kn_watch_want(&s->watch, events);
	} else if (events) {
		s->watch.events = events;
		if (kn_watch_start(s->mux->loop, &s->watch, NULL) < 0)
			reset(s, ENOMEM);
	}
}

static void grant(struct stream *s, size_t bytes)
{
	s->ungranted += (uint32_t)bytes;
	if (s->ungranted < KN_MUX_WINDOW / 4 || s->got_end)
		return;
	mux_send_u32(s->mux, KN_MUX_CREDIT, s->id, s->ungranted);
	s->ungranted = 0;
}

/*
 * The socket's owner reads no more: a server that refuses a body answers and closes. What comes for it
 * is dropped, and what it has said is still read; the end of that ends the stream.
 */
static void become_deaf(struct stream *s)
{
	size_t bytes = s->inbound.len;

	s->deaf = true;
	kn_buf_clear(&s->inbound);
	grant(s, bytes);
}

/* Write what came from the peer; true when the stream was dropped. */
static bool write_inbound(struct stream *s)
{
	while (s->inbound.len > 0) {
		ssize_t n = send(s->watch.fd, s->inbound.ptr, s->inbound.len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return false;
		if (n < 0 && s->sent_end && !s->got_reset) {
			reset(s, errno);        /* it has nothing more to say either */
			return true;
		}
		if (n < 0) {
			become_deaf(s);
			break;
		}
		kn_buf_drop(&s->inbound, (size_t)n);
		grant(s, (size_t)n);
	}
	if (s->got_end && !s->shut) {
		shutdown(s->watch.fd, SHUT_WR);
		s->shut = true;
	}
	return finish(s);
}

/*
 * Send one frame of what the socket has; true when the stream was dropped. An end of file together
 * with a hang-up means that the owner of the other end closed it and reads nothing any more: the peer
 * should stop sending, so that is a RESET unless it had ended anyway.
 */
static bool read_socket(struct stream *s, uint32_t events)
{
	char data[KN_MUX_MAX_PAYLOAD];
	size_t max = kn_min((size_t)s->credit, sizeof(data));

	ssize_t n = read(s->watch.fd, data, max);
	if (n > 0) {
		s->credit -= (uint32_t)n;
		mux_send(s->mux, KN_MUX_DATA, 0, s->id, (struct kn_view){ data, (size_t)n });
		return false;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0 || (((events & EPOLLHUP) || s->deaf) && !s->got_end)) {
		reset(s, n < 0 ? errno : EPIPE);
		return true;
	}
	s->sent_end = true;
	mux_send(s->mux, KN_MUX_END, 0, s->id, KN_VIEW_NULL);
	return finish(s);
}

static void on_socket(struct kn_watch *w, uint32_t events)
{
	struct stream *s = kn_container_of(w, struct stream, watch);
	uint32_t want = wanted(s);

	if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) && (want & EPOLLOUT) && write_inbound(s))
		return;
	if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) && (want & EPOLLIN) &&
	    read_socket(s, events))
		return;
	if ((events & (EPOLLERR | EPOLLHUP)) && !wanted(s))
		kn_watch_stop(w);
	stream_update(s);
}

/* ---- frames of the peer -------------------------------------------------------------------- */

int stream_data(struct stream *s, struct kn_view data, struct kn_err *err)
{
	if (s->got_end)
		return kn_fail(err, EBADMSG, "data after the end of stream %u", s->id);
	if (s->inbound.len + s->ungranted + data.len > KN_MUX_WINDOW)
		return kn_fail(err, EBADMSG, "more data on stream %u than was granted", s->id);
	if (s->deaf) {
		grant(s, data.len);
		return 0;
	}
	kn_buf_add_view(&s->inbound, data);
	if (s->inbound.failed)
		return kn_fail(err, ENOMEM, "memory for stream %u", s->id);
	if (!write_inbound(s))
		stream_update(s);
	return 0;
}

int stream_end(struct stream *s, struct kn_err *err)
{
	if (s->got_end)
		return kn_fail(err, EBADMSG, "second end of stream %u", s->id);
	s->got_end = true;
	if (!write_inbound(s))
		stream_update(s);
	return 0;
}

int stream_credit(struct stream *s, uint32_t bytes, struct kn_err *err)
{
	if (bytes > KN_MUX_WINDOW - s->credit)
		return kn_fail(err, EBADMSG, "stream %u was granted more than the window", s->id);
	s->credit += bytes;
	stream_update(s);
	return 0;
}

/* What came before the reset is still written, as a TCP receiver would have read it. */
void stream_reset(struct stream *s)
{
	s->got_reset = true;
	if (!write_inbound(s))
		stream_update(s);
}
