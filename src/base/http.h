/*
 * HTTP/1.1 over the event loop: a strict parser (llhttp, all lenient flags off, plus our own checks
 * for ambiguous framing), a server and a client. Serves the gateway, the control API, the monitor's
 * API socket and the agent alike; part of the event flow. Bodies are streamed both ways with
 * back-pressure; every size and every wait has a limit.
 *
 * Thread  everything belongs to the loop's thread. The parser keeps no global state.
 * Source  RFC 9110, RFC 9112
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/mem.h"
#include "base/str.h"

struct kn_header {
	struct kn_view name, value;   /* value without blanks around it */
};

/** The start line and the fields of one message. Views point into the connection's buffer. */
struct kn_http_head {
	struct kn_view method;        /* requests: "GET" */
	struct kn_view target;        /* requests, as sent: "/a/b?x=1" */
	struct kn_view path;          /* the part of target before '?' */
	struct kn_view query;         /* the part after it, without '?' */
	int status;                   /* replies */
	int minor;                    /* HTTP/1.minor: 0 or 1 */
	struct kn_header *headers;    /* in order of arrival */
	size_t n_headers;
	int64_t content_length;       /* -1: none was given */
	bool chunked;
	bool keep_alive;              /* the peer will take another message on this connection */
	bool expect_continue;
};

/** The first field of this name, or KN_VIEW_NULL. */
struct kn_view kn_http_header(const struct kn_http_head *h, const char *name);

/** The value of key in "a=1&b=2", still encoded; false when it is missing. */
bool kn_http_query(struct kn_view query, const char *key, struct kn_view *ret);

/** Percent-decoding ('+' stays); NUL and broken escapes refused. Into the arena. */
kn_must_use int kn_http_decode(struct kn_arena *a, struct kn_view v, struct kn_view *ret,
                               struct kn_err *err);

/** "Not Found" for 404; never NULL. */
const char *kn_http_reason(int status);

/* ---- parser: (pointer, length) in, no socket; the unit that is fuzzed ---------------------- */

enum kn_http_kind { KN_HTTP_REQUEST, KN_HTTP_REPLY };

enum { KN_HTTP_MAX_HEADERS = 128, KN_HTTP_MAX_HEAD = 64 * 1024 };

struct kn_http_parser;

/** Errors: ENOMEM. */
kn_must_use int kn_http_parser_new(enum kn_http_kind kind, struct kn_http_parser **ret,
                                   struct kn_err *err);
void kn_http_parser_free(struct kn_http_parser *p);

/** Begin the next message. head_request: the reply now due answers HEAD, so it has no body. */
void kn_http_parser_reset(struct kn_http_parser *p, bool head_request);

/**
 * Parse a message's head at the start of buf.
 *
 * max     largest head in bytes
 * ret     filled on success; views into buf, headers[] owned by the parser until its reset
 *
 * Returns the head's length in bytes, 0 when buf holds only a part of one, or
 *         -EBADMSG malformed or ambiguous (answer 400), -EMSGSIZE too large (431),
 *         -EPROTONOSUPPORT version (505), -ENOSYS transfer coding (501)
 */
ssize_t kn_http_parse_head(struct kn_http_parser *p, struct kn_view buf, size_t max,
                           struct kn_http_head *ret, struct kn_err *err);

/** One step of body parsing: what of the input was body, how much was used, and whether it ended. */
struct kn_http_body_step {
	size_t used;            /* bytes of the input consumed, framing included */
	struct kn_view data;    /* body bytes inside the input; at most one run per step */
	bool done;              /* the message is complete; what follows belongs to the next */
};

/** Parse body bytes. Errors: EBADMSG. Call again while used < len and not done. */
kn_must_use int kn_http_parse_body(struct kn_http_parser *p, struct kn_view input,
                                   struct kn_http_body_step *ret, struct kn_err *err);

/** The peer closed: true when that ends the message rightly (a reply without a length). */
bool kn_http_parse_eof(struct kn_http_parser *p);

/* Unsent bytes above which a source should pause, on servers and clients. */
enum { KN_HTTP_HIGH_WATER = 64 * 1024 };

/* ---- server -------------------------------------------------------------------------------- */

struct kn_http_server;
struct kn_http_exchange;      /* one request and its reply */

struct kn_http_server_config {
	size_t max_head;          /* bytes */
	uint64_t max_body;        /* bytes; larger ones are answered 413 */
	uint64_t head_timeout_ms; /* from a connection's first byte to the end of the head */
	uint64_t idle_timeout_ms; /* between requests, and without progress inside a body */
	size_t max_connections;   /* idle ones are closed for more; else those wait in the listen queue */
	const char *server;       /* Server field, or NULL */
	/** The head of a request is here. Answer now or later; set hooks to receive the body. */
	void (*request)(struct kn_http_exchange *x, void *arg);
	void *arg;
};

#define KN_HTTP_SERVER_DEFAULTS                                                                    \
	((struct kn_http_server_config){ .max_head = 32 * 1024,                                    \
	                                 .max_body = UINT64_C(64) << 20,                           \
	                                 .head_timeout_ms = 10 * 1000,                             \
	                                 .idle_timeout_ms = 60 * 1000,                             \
	                                 .max_connections = 4096 })

/**
 * Serve on a listening socket (TCP or Unix), which the server then owns.
 * Errors  ENOMEM; what epoll said
 */
kn_must_use int kn_http_server_new(struct kn_loop *loop, int listen_fd,
                                   const struct kn_http_server_config *config,
                                   struct kn_http_server **ret, struct kn_err *err);

/** Stop accepting; close idle connections; busy ones close after their reply. */
void kn_http_server_drain(struct kn_http_server *s);

/** Connections with a request under way. */
size_t kn_http_server_busy(const struct kn_http_server *s);

/** Close everything; exchanges get gone(). */
void kn_http_server_free(struct kn_http_server *s);

/*
 * What an exchange tells its handler. All optional. `gone` is the last call of an exchange that the
 * handler has not finished: the client left or a limit was passed; the exchange is invalid after it.
 * `finished` is the last call of one whose reply went out whole.
 */
struct kn_http_hooks {
	void (*data)(struct kn_http_exchange *x, struct kn_view data, void *arg);
	void (*end)(struct kn_http_exchange *x, void *arg);       /* the request body is complete */
	void (*drain)(struct kn_http_exchange *x, void *arg);     /* unsent bytes fell below half */
	void (*gone)(struct kn_http_exchange *x, void *arg);
	void (*finished)(struct kn_http_exchange *x, void *arg);
	void *arg;
};

/** Replace what the exchange calls; hooks are copied. */
void kn_http_set_hooks(struct kn_http_exchange *x, const struct kn_http_hooks *hooks);

/** The request's head; valid as long as the exchange. */
const struct kn_http_head *kn_http_head(const struct kn_http_exchange *x);

/** Memory that dies with the exchange. */
struct kn_arena *kn_http_arena(struct kn_http_exchange *x);

/** Let this request's body be larger or smaller than the server's max_body. */
void kn_http_limit_body(struct kn_http_exchange *x, uint64_t max_bytes);

/** Stop or go on reading the request body (back-pressure from where it goes). */
void kn_http_pause(struct kn_http_exchange *x, bool paused);

/**
 * Collect the whole body (at most max bytes; more is answered 413 here), then call done once.
 * body is valid until the exchange ends. Replaces the data and end hooks.
 */
void kn_http_collect(struct kn_http_exchange *x, uint64_t max,
                     void (*done)(struct kn_http_exchange *x, struct kn_view body, void *arg),
                     void *arg);

/**
 * Send a whole reply. headers are extra fields (Content-Length, Connection, Date and Server are
 * added). Safe to call inside request(); the unread rest of the body is discarded or the
 * connection closed.
 */
void kn_http_reply(struct kn_http_exchange *x, int status, const struct kn_header *headers,
                   size_t n_headers, struct kn_view body);

/** The same with a body made by printf. */
#define KN_HTTP_JSON "application/json"
void kn_http_reply_text(struct kn_http_exchange *x, int status, const char *content_type,
                        const char *fmt, ...) kn_printf(4, 5);

/**
 * Begin a streamed reply. length -1 sends chunked (or until close for HTTP/1.0 clients).
 * fields of headers that belong to the hop (Connection, Transfer-Encoding ...) are left out.
 */
void kn_http_begin(struct kn_http_exchange *x, int status, const struct kn_header *headers,
                   size_t n_headers, int64_t length);
void kn_http_write(struct kn_http_exchange *x, struct kn_view data);
void kn_http_finish(struct kn_http_exchange *x);

/**
 * Unsent reply bytes. Pause the source when this is above KN_HTTP_HIGH_WATER; drain() comes when it
 * has fallen below half of that.
 */
size_t kn_http_unsent(const struct kn_http_exchange *x);

/** Cut the connection: the reply cannot be completed honestly. gone() is not called. */
void kn_http_abort(struct kn_http_exchange *x);

/* ---- client -------------------------------------------------------------------------------- */

struct kn_http_client;        /* one connection; one request at a time, kept alive between them */

struct kn_http_client_hooks {
	void (*head)(struct kn_http_client *c, const struct kn_http_head *head, void *arg);
	void (*data)(struct kn_http_client *c, struct kn_view data, void *arg);
	/**
	 * The reply is complete; reusable tells whether another request may follow on c. May free c.
	 */
	void (*end)(struct kn_http_client *c, bool reusable, void *arg);
	/** Nothing more will come: err says why. before any reply byte: retry is safe for the caller
	 *  to judge (kn_http_client_untouched). May free c. */
	void (*failed)(struct kn_http_client *c, const struct kn_err *err, void *arg);
	void (*drain)(struct kn_http_client *c, void *arg);
	void *arg;
};

/** Take a connected non-blocking stream socket (owned from now on). Errors: ENOMEM, epoll's. */
kn_must_use int kn_http_client_new(struct kn_loop *loop, int fd, struct kn_http_client **ret,
                                   struct kn_err *err);
void kn_http_client_free(struct kn_http_client *c);

/**
 * Send a request's head. length is that of the body: 0 none, -1 chunked.
 * headers are sent as they are, less hop-by-hop fields and Content-Length.
 */
void kn_http_client_begin(struct kn_http_client *c, struct kn_view method, struct kn_view target,
                          const struct kn_header *headers, size_t n_headers, int64_t length,
                          const struct kn_http_client_hooks *hooks);
void kn_http_client_write(struct kn_http_client *c, struct kn_view data);
void kn_http_client_finish(struct kn_http_client *c);
void kn_http_client_pause(struct kn_http_client *c, bool paused);
size_t kn_http_client_unsent(const struct kn_http_client *c);

/** True while no byte of a reply has arrived for the request under way. */
bool kn_http_client_untouched(const struct kn_http_client *c);

/**
 * Between requests: call closed once when the peer closes the idle connection (or sends what nobody
 * asked for). May free c. NULL: not told; the next request fails instead.
 */
void kn_http_client_on_close(struct kn_http_client *c,
                             void (*closed)(struct kn_http_client *c, void *arg), void *arg);

/** True while the connection can take another request. */
bool kn_http_client_idle(const struct kn_http_client *c);
