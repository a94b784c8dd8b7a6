/*
 * One connection's bytes, shared by server and client: a socket, what was read and not yet parsed,
 * what was written and not yet sent. Writes gather until the end of the loop's round, so that a head,
 * a body and a chunk's frame leave in one send(2). Private to base/http.
 */
#pragma once

#include "base/http.h"

struct kn_http_io {
	struct kn_loop *loop;
	struct kn_watch watch;
	struct kn_buf in;
	size_t in_at; /* bytes of in that were parsed */
	struct kn_buf out;
	size_t out_at;	/* bytes of out that were sent */
	bool streaming; /* the last read filled its room: read more at a time */
	bool was_full;	/* out was above the high-water mark: drain is owed */
};

/** Read once. Bytes read, 0 at end of stream, -EAGAIN, or -errno. */
ssize_t kn_http_io_fill(struct kn_http_io *io);

/** Send what can be sent and wait for the rest. 0, or -errno when the peer is gone. */
int kn_http_io_flush(struct kn_http_io *io);

/** Above the high-water mark now? Remembers it: drain is owed. */
bool kn_http_io_full(struct kn_http_io *io);

/** True once after unsent bytes fell from above the high-water mark to below half of it. */
bool kn_http_io_drained(struct kn_http_io *io);

static inline struct kn_view kn_http_io_input(const struct kn_http_io *io)
{
	return (struct kn_view){ io->in.ptr + io->in_at, io->in.len - io->in_at };
}

static inline size_t kn_http_io_unsent(const struct kn_http_io *io)
{
	return io->out.len - io->out_at;
}

/** Mark n input bytes as parsed; gives big buffers back when all is. */
void kn_http_io_used(struct kn_http_io *io, size_t n);

/** Wait for input or not; output is waited for by itself. */
void kn_http_io_want_input(struct kn_http_io *io, bool wanted);

/** Stop watching, close, free. */
void kn_http_io_fini(struct kn_http_io *io);

/** "Name: value\r\n" for each field that does not belong to one hop (RFC 9110, 7.6.1). */
void kn_http_put_headers(struct kn_buf *out, const struct kn_header *headers, size_t n);

/** Body bytes with or without a chunk's frame; nothing for no bytes. */
void kn_http_put_body(struct kn_buf *out, struct kn_view data, bool chunked);

/** Decimal digits appended; several times cheaper than printf on the gateway's path. */
void kn_http_put_u64(struct kn_buf *out, uint64_t n);
