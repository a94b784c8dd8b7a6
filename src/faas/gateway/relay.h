/*
 * One request to a function on its way through the gateway. Private to faas/gateway.
 */
#pragma once

#include "faas/gateway.h"
#include "faas/pool.h"

enum { KN_CALL_ID_MAX = 64 };

struct kn_relay {
	struct kn_gateway *gateway;
	struct kn_relay *next, **prev; /* in use, or free (next alone) */
	struct kn_http_exchange *x;    /* NULL once it was answered or the client is gone */
	struct kn_http_client *client; /* the instance's side, while there is one */
	struct kn_call call;
	bool called; /* acquire was called and not yet given back */
	struct kn_timer deadline;

	struct kn_view name; /* of the function; all views are into the exchange */
	struct kn_view path; /* what the function sees: "/rest?query" */
	struct kn_view call_id;
	uint64_t start_wall_ns;
	uint64_t timeout_ms;
	uint64_t max_body, max_reply;
	int status;	  /* of the reply; 0 before */
	uint64_t replied; /* body bytes */
	bool has_body;
	bool hide_authorization; /* it was for Kiln, not for the function */
	bool body_done;		 /* the request's body is complete */
	bool begun;		 /* the reply's head is out */
	bool kept;		 /* the connection had served before */
	bool retried;
	bool waited;	     /* the body was held back until there was an instance */
	bool collected;	     /* body has it, as a whole */
	bool invoking;	     /* a message is at the driver, which will call back */
	bool dying;	     /* no answer will come; waiting to hear why */
	struct kn_view body; /* of a message */
	struct kn_err why;
	char id[KN_CALL_ID_MAX + 1];
	char start_text[24];
	char timing[512];
};

struct kn_gateway {
	struct kn_gateway_config config;
	struct kn_http_server *server;
	struct kn_relay *used, *unused;
	size_t n_used;
	bool draining;
	/* random bytes for call ids, fetched many at a time */
	uint8_t random[1024];
	size_t n_random;
};

/**
 * "/function/NAME[.NAMESPACE][/rest]", or "/async-function/...": false when it is no function's
 * path. Views into head.
 */
bool kn_relay_route(const struct kn_http_head *head, struct kn_view *ret_name,
		    struct kn_view *ret_path, bool *ret_later);

/** Begin: the caller was let in. */
void kn_relay_start(struct kn_gateway *g, struct kn_http_exchange *x, struct kn_service *s,
		    struct kn_view name, struct kn_view path, bool hide_authorization);

/** Answer with an error of Kiln's own (or cut the reply that has begun), and end the relay. */
void kn_relay_fail(struct kn_relay *r, int status, unsigned retry_after_s, const char *hint,
		   const char *fmt, ...) kn_printf(5, 6);

/** The exchange's gone() hook while a relay has it. */
void kn_relay_on_gone(struct kn_http_exchange *x, void *arg);

/** Give everything back and forget the exchange, which was answered or is gone. */
void kn_relay_end(struct kn_relay *r, int status, bool ours);

/** Answer what never became a relay. */
void kn_gateway_error(struct kn_http_exchange *x, const struct kn_relay *r, int status,
		      unsigned retry_after_s, const char *hint, const char *error);

/** No answer is to be expected: wait a moment for the reason, or for what was sent before. */
void kn_relay_await(struct kn_relay *r);

/** stream.c: take the body as it comes, and ask for an instance. */
void kn_relay_open(struct kn_relay *r, struct kn_service *s);

/** stream.c: the call was granted an instance that speaks HTTP. */
void kn_relay_stream(struct kn_relay *r);

/** message.c: collect the body, then ask for an instance. */
void kn_relay_collect(struct kn_relay *r);

/** message.c: the call was granted an instance that takes messages. */
void kn_relay_invoke(struct kn_relay *r);

/* ---- fields.c: what is passed on and what is added --------------------------------------------- */

/** The id of a call: the client's own when it is plain, else a new one. */
void kn_gateway_call_id(struct kn_gateway *g, struct kn_http_exchange *x,
			char out[KN_CALL_ID_MAX + 1]);

/** X-Call-Id and X-Start-Time of this request. */
void kn_relay_stamp(struct kn_relay *r);

/** The fields for the function. Errors: -ENOMEM. In the exchange's arena. */
kn_must_use int kn_relay_request_fields(struct kn_relay *r, struct kn_header **ret, size_t *ret_n);

/** The fields for the client: those of the reply (may be NULL) and ours. */
kn_must_use int kn_relay_reply_fields(struct kn_relay *r, const struct kn_http_head *reply,
				      struct kn_header **ret, size_t *ret_n);
