#include <errno.h>

#include "base/time.h"
#include "faas/gateway/relay.h"

static const char LOOK_AT_LOGS[] = "kiln logs FUNCTION shows what the function printed";

static void send_request(struct kn_relay *r, bool fresh);

/* ---- the reply: from the instance to the client ---------------------------------------------- */

static void on_reply_head(struct kn_http_client *c, const struct kn_http_head *head, void *arg)
{
	struct kn_relay *r = arg;
	struct kn_header *fields;
	size_t n;

	(void)c;
	if (head->content_length > 0 && (uint64_t)head->content_length > r->max_reply) {
		kn_relay_fail(r, 502, 0, NULL,
			      "the function's reply of %lld bytes is larger than %llu",
			      (long long)head->content_length, (unsigned long long)r->max_reply);
		return;
	}
	if (kn_relay_reply_fields(r, head, &fields, &n) < 0) {
		kn_relay_fail(r, 503, 1, NULL, "out of memory for a reply");
		return;
	}
	r->status = head->status;
	r->begun = true;
	kn_http_begin(r->x, head->status, fields, n, head->content_length);
}

static void on_reply_data(struct kn_http_client *c, struct kn_view data, void *arg)
{
	struct kn_relay *r = arg;

	r->replied += data.len;
	if (r->replied > r->max_reply) {
		kn_relay_fail(r, 502, 0, NULL, "the function's reply is larger than %llu bytes",
			      (unsigned long long)r->max_reply);
		return;
	}
	kn_http_write(r->x, data);
	if (kn_http_unsent(r->x) > KN_HTTP_HIGH_WATER)
		kn_http_client_pause(c, true);
}

static void on_reply_end(struct kn_http_client *c, bool reusable, void *arg)
{
	struct kn_relay *r = arg;
	struct kn_http_exchange *x = r->x;

	kn_http_set_hooks(x, &(struct kn_http_hooks){ .data = NULL });
	kn_http_finish(x);
	if (reusable && r->call.instance) {
		r->client = NULL;
		kn_instance_keep(r->call.instance, c);
	}
	kn_relay_end(r, r->status, false);
}

/* The method alone says that a second try does no harm (RFC 9110, 9.2.2). */
static bool is_idempotent(struct kn_view method)
{
	static const struct kn_view METHODS[] = { KN_VIEW("GET"),     KN_VIEW("HEAD"),
						  KN_VIEW("PUT"),     KN_VIEW("DELETE"),
						  KN_VIEW("OPTIONS"), KN_VIEW("TRACE") };

	for (size_t i = 0; i < KN_ARRAY_LEN(METHODS); i++) {
		if (kn_view_is(method, METHODS[i]))
			return true;
	}
	return false;
}

/* A kept connection that closed before any byte of a reply: the function had given it up. */
static bool may_retry(const struct kn_relay *r, const struct kn_http_client *c,
		      const struct kn_err *err)
{
	return r->kept && !r->retried && !r->begun && !r->has_body && !r->dying &&
	       err->code != EBADMSG && kn_http_client_untouched(c) &&
	       is_idempotent(kn_http_head(r->x)->method);
}

static void on_reply_failed(struct kn_http_client *c, const struct kn_err *err, void *arg)
{
	struct kn_relay *r = arg;

	if (may_retry(r, c, err)) {
		r->retried = true;
		kn_http_client_free(kn_take_ptr(r->client));
		send_request(r, true);
		return;
	}
	if (r->dying) { /* lost() has told the reason already */
		kn_relay_fail(r, 502, 0, LOOK_AT_LOGS, "the function ended without an answer: %s",
			      kn_err_text(&r->why));
	} else if (err->code == EBADMSG || r->begun) {
		kn_relay_fail(r, 502, 0, LOOK_AT_LOGS, "the function's answer is no good HTTP: %s",
			      kn_err_text(err));
	} else {
		r->why = *err;
		kn_http_client_free(kn_take_ptr(r->client));
		kn_relay_await(r);
	}
}

/* ---- the request: from the client to the instance --------------------------------------------- */

static void on_sent(struct kn_http_client *c, void *arg)
{
	struct kn_relay *r = arg;

	(void)c;
	kn_http_pause(r->x, false);
}

static void on_data(struct kn_http_exchange *x, struct kn_view data, void *arg)
{
	struct kn_relay *r = arg;

	if (!r->client)
		return; /* the instance is gone; the answer says so in a moment */
	kn_http_client_write(r->client, data);
	if (kn_http_client_unsent(r->client) > KN_HTTP_HIGH_WATER)
		kn_http_pause(x, true);
}

static void on_body_end(struct kn_http_exchange *x, void *arg)
{
	struct kn_relay *r = arg;

	(void)x;
	r->body_done = true;
	if (r->client)
		kn_http_client_finish(r->client);
}

static void on_reply_sent(struct kn_http_exchange *x, void *arg)
{
	struct kn_relay *r = arg;

	(void)x;
	if (r->client)
		kn_http_client_pause(r->client, false);
}

/* "/rest?query", never empty: the function has a root, too. */
static struct kn_view target_of(struct kn_relay *r)
{
	if (r->path.len > 0 && r->path.ptr[0] == '/')
		return r->path;
	if (r->path.len == 0)
		return KN_VIEW("/");
	char *text = kn_arena_printf(kn_http_arena(r->x), "/%.*s", (int)r->path.len, r->path.ptr);
	return text ? kn_view_of(text) : KN_VIEW("/");
}

static void send_request(struct kn_relay *r, bool fresh)
{
	static const struct kn_http_client_hooks HOOKS = { .head = on_reply_head,
							   .data = on_reply_data,
							   .end = on_reply_end,
							   .failed = on_reply_failed,
							   .drain = on_sent };
	const struct kn_http_head *head = kn_http_head(r->x);
	struct kn_http_client_hooks hooks = HOOKS;
	struct kn_err err = KN_ERR_INIT;
	struct kn_header *fields;
	size_t n;

	if (kn_relay_request_fields(r, &fields, &n) < 0) {
		kn_relay_fail(r, 503, 1, NULL, "out of memory for a request");
		return;
	}
	if (kn_instance_connect(r->call.instance, fresh, &r->client, &r->kept, &err) < 0) {
		kn_relay_fail(r, 502, 0, LOOK_AT_LOGS, "%s", kn_err_text(&err));
		return;
	}
	hooks.arg = r;
	int64_t length = head->chunked ? -1 : head->content_length > 0 ? head->content_length : 0;
	kn_http_client_begin(r->client, head->method, target_of(r), fields, n, length, &hooks);
}

/* The request waited for a revision that takes messages, and an update came to one that streams. */
static void send_collected(struct kn_relay *r)
{
	kn_http_set_hooks(r->x, &(struct kn_http_hooks){
					.drain = on_reply_sent, .gone = kn_relay_on_gone, .arg = r });
	send_request(r, false);
	if (!r->client || !r->has_body)
		return; /* it failed, and the relay has ended; or there is no more to send */
	kn_http_client_write(r->client, r->body);
	kn_http_client_finish(r->client);
}

void kn_relay_stream(struct kn_relay *r)
{
	struct kn_http_exchange *x = r->x;
	bool waited = r->waited;

	if (r->collected) {
		send_collected(r);
		return;
	}
	send_request(r, false);
	if (waited)
		kn_http_pause(x,
			      false); /* when the relay has failed meanwhile, this does no harm */
}

void kn_relay_open(struct kn_relay *r, struct kn_service *s)
{
	struct kn_http_exchange *x = r->x;
	struct kn_http_hooks hooks = { .data = on_data,
				       .end = on_body_end,
				       .drain = on_reply_sent,
				       .gone = kn_relay_on_gone,
				       .arg = r };
	bool has_body = r->has_body;

	kn_http_limit_body(x, r->max_body);
	kn_http_set_hooks(x, &hooks);
	r->called = true;
	if (kn_engine_acquire(s, &r->call) && has_body) {
		r->waited = true;
		kn_http_pause(x, true);
	}
}
