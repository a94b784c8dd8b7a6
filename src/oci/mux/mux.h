/* Private to oci/mux: what the engine (engine.c) and the streams (stream.c) share. */
#pragma once

#include "oci/mux.h"

enum {
	HEADER_BYTES = 8,
	HELLO_BYTES = 16,               /* magic and generation */
	OUT_LIMIT = 256 * 1024,         /* above it streams are not read any more */
	READ_BYTES = 64 * 1024,
};

struct stream {
	struct kn_mux *mux;
	struct stream *next, **prev;
	uint32_t id;
	struct kn_watch watch;          /* .fd is the stream's socket; it is owned */
	struct kn_buf inbound;          /* from the peer, not yet written; at most KN_MUX_WINDOW */
	uint32_t credit;                /* bytes that we may still send */
	uint32_t ungranted;             /* bytes written to the socket, not yet given back as credit */
	bool sent_end;                  /* we told the peer that nothing more comes */
	bool got_end;                   /* the peer told us so */
	bool got_reset;                 /* close as soon as inbound is written */
	bool shut;                      /* the socket was told of got_end */
	bool deaf;                      /* the socket takes nothing more; it may still say something */
};

struct kn_mux {
	struct kn_loop *loop;
	struct kn_mux_config config;
	struct kn_watch watch;          /* .fd is the pipe; owned */
	struct kn_timer retry;
	struct kn_defer flush;
	struct kn_buf in, out, control;
	struct stream *streams;
	size_t n_streams;
	uint32_t next_id;
	bool greeted;                   /* the peer's HELLO is here */
	bool high;                      /* out passed half of OUT_LIMIT: told when it falls */
	bool full;                      /* out passed OUT_LIMIT: streams pause until it is half */
	bool broken;                    /* failed() was called, or must not be any more */
	unsigned busy;                  /* frames of this module on the stack: memory must stay */
	bool dying;                     /* freed while busy */
};

/** The bytes of the HELLO frame of a generation. */
void mux_hello_bytes(uint32_t generation, char out[HEADER_BYTES + HELLO_BYTES]);

/** Send a frame; the pipe is written to at the end of this round. */
void mux_send(struct kn_mux *m, enum kn_mux_frame_type type, uint8_t flags, uint32_t stream,
              struct kn_view payload);
void mux_send_u32(struct kn_mux *m, enum kn_mux_frame_type type, uint32_t stream, uint32_t value);

/** Add a stream for a socket, which is owned from now on, even on failure. */
int stream_add(struct kn_mux *m, uint32_t id, int fd, struct kn_err *err);
struct stream *stream_find(struct kn_mux *m, uint32_t id);

/** Close the socket and forget the stream. */
void stream_drop(struct stream *s);

/** A frame of the peer for this stream. Errors: EBADMSG when it breaks a rule. */
int stream_data(struct stream *s, struct kn_view data, struct kn_err *err);
int stream_end(struct stream *s, struct kn_err *err);
int stream_credit(struct stream *s, uint32_t bytes, struct kn_err *err);
void stream_reset(struct stream *s);

/** What the stream may do has changed from outside (the pipe is full, or no longer). */
void stream_update(struct stream *s);
