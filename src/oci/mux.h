/*
 * Many byte streams and one control channel over one byte pipe: how the host reaches kiln-agent
 * through a single virtio-serial port, and later through anything else that carries bytes. The same
 * code runs at both ends; serves the event flow.
 *
 * Theory of operation. Frames have a header of eight bytes, little endian:
 *
 *     u8 type   u8 flags   u16 length of what follows   u32 stream
 *
 *     HELLO    stream 0: magic, version, u32 generation; a new generation drops every stream
 *     CONTROL  stream 0: a piece of one control message; flag MORE when it goes on
 *     OPEN     the host asks for a new stream; the guest answers with data, END or RESET
 *     DATA     bytes; the receiver has granted credit for them
 *     END      the sender will send no more DATA on this stream (half-close)
 *     RESET    the stream is over in both directions; u32 errno says why
 *     CREDIT   u32: so many more bytes may be sent; each direction starts with KN_MUX_WINDOW
 *
 * A stream is forgotten when both directions ended, or at a RESET. Frames for a stream that is not
 * known (any more) are dropped: a RESET may cross DATA under way. Credits keep one slow reader from
 * blocking the pipe for the others and bound what either end must hold: KN_MUX_WINDOW a stream.
 * Everything else that breaks the rules ends the mux with an error, since no later byte can be
 * trusted.
 *
 * The host greets with HELLO (a generation that it never used before) and drops everything that
 * arrives until the guest's HELLO with the same number. So an agent that was restored from a
 * snapshot starts with a clean slate: nothing in this module outlives a generation.
 *
 * Thread  the loop's
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/str.h"

enum {
	KN_MUX_WINDOW = 128 * 1024,       /* bytes in flight a stream and direction */
	KN_MUX_MAX_PAYLOAD = 16 * 1024,   /* of one frame */
	KN_MUX_DRAINED = 128 * 1024,  /* unsent bytes; who queues more waits for drain() */
	KN_MUX_MAX_CONTROL = 512 * 1024,  /* of one control message */
	KN_MUX_MAX_STREAMS = 256,
};

enum kn_mux_frame_type {
	KN_MUX_HELLO = 1,
	KN_MUX_CONTROL,
	KN_MUX_OPEN,
	KN_MUX_DATA,
	KN_MUX_END,
	KN_MUX_RESET,
	KN_MUX_CREDIT,
};

enum { KN_MUX_MORE = 1 };   /* flag of CONTROL */

struct kn_mux_frame {
	enum kn_mux_frame_type type;
	uint8_t flags;
	uint32_t stream;
	struct kn_view payload;   /* into the input */
};

/**
 * Parse one frame at the start of in.
 *
 * ret     filled when a whole frame is there; every rule that needs no state was checked
 *
 * Returns the frame's length, 0 when in holds only a part of one
 * Errors  EBADMSG
 */
kn_must_use ssize_t kn_mux_parse(struct kn_view in, struct kn_mux_frame *ret, struct kn_err *err);

/** Append one frame to out. payload has at most KN_MUX_MAX_PAYLOAD bytes. */
void kn_mux_put(struct kn_buf *out, enum kn_mux_frame_type type, uint8_t flags, uint32_t stream,
                struct kn_view payload);

struct kn_mux;

struct kn_mux_events {
	/** The other end's HELLO of this generation is here. On the guest: everything was dropped. */
	void (*hello)(struct kn_mux *m, uint32_t generation, void *arg);
	/** One control message. */
	void (*control)(struct kn_mux *m, struct kn_view message, void *arg);
	/**
	 * Guest: the host opened a stream. Return a connected non-blocking stream socket that the mux
	 * then owns, or -errno to refuse.
	 */
	int (*open)(struct kn_mux *m, void *arg);
	/** kn_mux_unsent() fell to KN_MUX_DRAINED or below after it was above. */
	void (*drain)(struct kn_mux *m, void *arg);
	/** The pipe is broken or the peer broke the rules. Last call. The guest's end tries again on
	 *  a pipe that may come back (retry_ms) and calls this only for a peer that broke the rules. */
	void (*failed)(struct kn_mux *m, const struct kn_err *err, void *arg);
	void *arg;
};

struct kn_mux_config {
	bool host;                /* opens streams and greets; else the guest */
	uint32_t generation;      /* host: of its HELLO */
	unsigned retry_ms;        /* guest: how often to look whether the host is there; 0: an end of
	                             file is the end */
	struct kn_mux_events events;
};

/**
 * Run a mux over a connected non-blocking byte pipe, which the mux then owns.
 * Errors  ENOMEM; what epoll said
 */
kn_must_use int kn_mux_new(struct kn_loop *loop, int fd, const struct kn_mux_config *config,
                           struct kn_mux **ret, struct kn_err *err);

/** Close the pipe and every stream; no event is called any more. NULL is fine. */
void kn_mux_free(struct kn_mux *m);
KN_AUTO(kn_mux_free, struct kn_mux *);

/** Queue a control message. Errors: EMSGSIZE, ENOMEM, EPIPE after failed(). */
kn_must_use int kn_mux_control(struct kn_mux *m, struct kn_view message, struct kn_err *err);

/**
 * Host: open a stream whose other end is fd (owned from now on), a connected non-blocking socket:
 * what is read from it goes to the guest, half-close included, and what comes back is written to it.
 * Errors  EMFILE with KN_MUX_MAX_STREAMS open; ENOMEM; EPIPE after failed()
 */
kn_must_use int kn_mux_open(struct kn_mux *m, int fd, struct kn_err *err);

/** Bytes that wait to be written to the pipe. */
size_t kn_mux_unsent(const struct kn_mux *m);

/** Streams that are open. */
size_t kn_mux_streams(const struct kn_mux *m);
