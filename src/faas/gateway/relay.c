/*
 * Theory of operation. A relay lives from the moment its caller was let in until nothing refers to
 * it: the client (exchange), the instance (connection or message) and the engine (call). Each of
 * them can end first:
 *
 *     the reply is complete          finish the exchange, keep the connection, release the call
 *     the client goes                close the connection, release the call (a message that is at
 *                                    its driver keeps the relay until the driver calls back)
 *     the function or Kiln fails     502, 503 or 504 with the reason, when no byte of a reply went
 *                                    out; else the client's connection is cut, so that nobody takes
 *                                    a part for the whole
 *     the deadline passes            504, or a cut
 *
 * kn_relay_end() is the one way out of all four.
 */
#include "faas/gateway/relay.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/log.h"
#include "base/time.h"

/* How long to wait for the driver's reason when a connection ended without an answer. */
enum { WHY_WAIT_MS = 100 };

/* ---- routes ----------------------------------------------------------------------------------- */

bool kn_relay_route(const struct kn_http_head *head, struct kn_view *ret_name,
		    struct kn_view *ret_path, bool *ret_later)
{
	static const struct kn_view NOW = KN_VIEW("/function/"), LATER = KN_VIEW("/async-function/");

	*ret_later = kn_view_starts(head->path, LATER);
	const struct kn_view prefix = *ret_later ? LATER : NOW;
	if (!kn_view_starts(head->path, prefix))
		return false;
	/* The path and its query, also of a target in absolute form. */
	struct kn_view rest = { head->path.ptr,
		                (size_t)(head->target.ptr + head->target.len - head->path.ptr) };
	size_t end = prefix.len;
	while (end < head->path.len && head->path.ptr[end] != '/')
		end++;
	*ret_name = (struct kn_view){ rest.ptr + prefix.len, end - prefix.len };
	*ret_path = (struct kn_view){ rest.ptr + end, rest.len - end };
	return true;
}

/* ---- errors ----------------------------------------------------------------------------------- */

static void put_error(struct kn_buf *b, const char *error, const char *hint)
{
	kn_auto(json_decref) json_t *body = json_pack("{s:s}", "error", error);

	if (body && hint)
		json_object_set_new(body, "hint", json_string(hint));
	if (body)
		kn_json_print(b, body, 0);
	else /* out of memory, or a reason that is no UTF-8 */
		kn_buf_adds(b, "{\"error\":\"failed; the reason cannot be shown\"}");
	kn_buf_adds(b, "\n");
}

void kn_gateway_error(struct kn_http_exchange *x, const struct kn_relay *r, int status,
		      unsigned retry_after_s, const char *hint, const char *error)
{
	struct kn_header fields[4] = { { KN_VIEW("Content-Type"), KN_VIEW(KN_HTTP_JSON) } };
	char retry[16];
	size_t n = 1;
	kn_auto(kn_buf_fini) struct kn_buf body = KN_BUF_INIT;

	if (r) {
		fields[n++] = (struct kn_header){ KN_VIEW("X-Call-Id"), r->call_id };
		fields[n++] =
			(struct kn_header){ KN_VIEW("X-Start-Time"), kn_view_of(r->start_text) };
	}
	if (retry_after_s) {
		snprintf(retry, sizeof(retry), "%u", retry_after_s);
		fields[n++] = (struct kn_header){ KN_VIEW("Retry-After"), kn_view_of(retry) };
	}
	put_error(&body, error, hint);
	kn_http_reply(x, status, fields, n, kn_buf_view(&body));
}

void kn_relay_fail(struct kn_relay *r, int status, unsigned retry_after_s, const char *hint,
		   const char *fmt, ...)
{
	struct kn_http_exchange *x = r->x;
	char text[KN_ERR_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* Whoever may call can make as many of these as they like. */
	kn_log_often(KN_INFO, r->begun ? "reply cut" : "invocation failed", KN_V("fn", r->name),
		     KN_V("call", r->call_id), KN_I("status", status), KN_S("error", text));
	if (x) {
		kn_http_set_hooks(x, &(struct kn_http_hooks){ .data = NULL });
		if (r->begun)
			kn_http_abort(x);
		else
			kn_gateway_error(x, r, status, retry_after_s, hint, text);
	}
	kn_relay_end(r, r->begun ? 0 : status, true);
}

/* ---- a relay's life --------------------------------------------------------------------------- */

static struct kn_relay *take_relay(struct kn_gateway *g)
{
	struct kn_relay *r = g->unused;

	if (r)
		g->unused = r->next;
	else if (!(r = malloc(sizeof(*r))))
		return NULL;
	/* The text buffers at the end are written before they are read. */
	memset(r, 0, offsetof(struct kn_relay, why));
	r->gateway = g;
	r->next = g->used;
	r->prev = &g->used;
	if (r->next)
		r->next->prev = &r->next;
	g->used = r;
	g->n_used++;
	return r;
}

static void give_relay(struct kn_relay *r)
{
	struct kn_gateway *g = r->gateway;

	*r->prev = r->next;
	if (r->next)
		r->next->prev = r->prev;
	g->n_used--;
	r->next = g->unused;
	g->unused = r;
}

/* One line a call, for who looks for one. The exchange, and the views into it, may be gone. */
static void log_call(const struct kn_relay *r, int status)
{
	const struct kn_call *call = &r->call;
	const char *fn = kn_service_function(call->service)->name;
	const char *start = call->granted_ns ? kn_start_name(call->start) : "none";
	uint64_t us = call->began_ns ? (kn_now_ns() - call->began_ns) / KN_NS_PER_US : 0;

	kn_log(KN_DEBUG, "call", KN_S("fn", fn), KN_S("call", r->id),
	       KN_I("status", status), KN_S("start", start), KN_U("us", us));
}

void kn_relay_end(struct kn_relay *r, int status, bool ours)
{
	struct kn_http_client *client = kn_take_ptr(r->client);

	r->x = NULL;
	kn_timer_stop(&r->deadline);
	if (r->invoking) { /* the driver still has the message; on_reply() ends it */
		r->status = status;
		return;
	}
	kn_http_client_free(client);
	if (r->called) {
		log_call(r, status);
		r->called = false;
		kn_engine_release(&r->call, status, ours);
	}
	give_relay(r);
}

/* ---- what the engine tells -------------------------------------------------------------------- */

static struct kn_relay *relay_of(struct kn_call *call)
{
	return kn_container_of(call, struct kn_relay, call);
}

static void on_granted(struct kn_call *call)
{
	struct kn_relay *r = relay_of(call);

	if (kn_sandbox_streams(call->instance->sandbox))
		kn_relay_stream(r);
	else
		kn_relay_invoke(r);
}

static const char *hint_for(int status)
{
	switch (status) {
	case 429:
		return "try again later, or raise kiln.queue, kiln.concurrency or "
		       "com.openfaas.scale.max";
	case 502:
	case 503:
		return "kiln logs FUNCTION shows what the function and its monitor said";
	case 504:
		return "raise the annotation kiln.timeout, or make the function answer sooner";
	default:
		return NULL;
	}
}

static void on_refused(struct kn_call *call, int status, unsigned retry_after_s,
		       const struct kn_err *why)
{
	struct kn_relay *r = relay_of(call);

	r->called = false;
	kn_relay_fail(r, status, retry_after_s, hint_for(status), "%s", kn_err_text(why));
}

static void on_lost(struct kn_call *call, const struct kn_err *why)
{
	struct kn_relay *r = relay_of(call);

	r->why = *why;
	if (r->dying)
		kn_relay_fail(r, 502, 0, hint_for(502), "the function ended without an answer: %s",
			      kn_err_text(why));
	else if (r->client) /* what it sent before its end may be a whole answer */
		kn_relay_await(r);
	/* a message's end is told by the driver */
}

void kn_relay_await(struct kn_relay *r)
{
	struct kn_loop *loop = r->gateway->config.loop;

	r->dying = true;
	kn_timer_stop(&r->deadline);
	if (kn_timer_start(loop, &r->deadline, kn_loop_now(loop) + WHY_WAIT_MS * KN_NS_PER_MS,
			   NULL))
		kn_relay_fail(r, 502, 0, hint_for(502), "%s", kn_err_text(&r->why));
}

/* ---- what the client and the clock tell ------------------------------------------------------- */

void kn_relay_on_gone(struct kn_http_exchange *x, void *arg)
{
	struct kn_relay *r = arg;

	(void)x;
	kn_relay_end(r, 499, true); /* nginx's number for a client that left */
}

static void on_deadline(struct kn_timer *t)
{
	struct kn_relay *r = kn_container_of(t, struct kn_relay, deadline);

	if (r->dying) {
		kn_relay_fail(r, 502, 0, hint_for(502), "%s", kn_err_text(&r->why));
		return;
	}
	kn_relay_fail(r, 504, 0, hint_for(504), "'%.*s' did not answer within %llu ms (%s)",
		      (int)r->name.len, r->name.ptr, (unsigned long long)r->timeout_ms,
		      !r->called		? "its request was not complete"
		      : r->call.granted_ns == 0 ? "no instance was ready"
						: "the function was working");
}

void kn_relay_start(struct kn_gateway *g, struct kn_http_exchange *x, struct kn_service *s,
		    struct kn_view name, struct kn_view path, bool hide_authorization)
{
	const struct kn_function *fn = kn_service_function(s);
	const struct kn_http_head *head = kn_http_head(x);
	struct kn_relay *r = take_relay(g);

	if (!r) {
		kn_gateway_error(x, NULL, 503, 1, NULL, "out of memory for a request");
		return;
	}
	r->x = x;
	r->name = name;
	r->path = path;
	r->hide_authorization = hide_authorization;
	r->timeout_ms = fn->timeout_ms;
	r->has_body = head->chunked || head->content_length > 0;
	r->body_done = !r->has_body;
	r->deadline.call = on_deadline;
	r->call.granted = on_granted;
	r->call.refused = on_refused;
	r->call.lost = on_lost;
	kn_service_limits(s, &r->max_body, &r->max_reply);
	kn_relay_stamp(r);
	kn_http_set_hooks(x, &(struct kn_http_hooks){ .gone = kn_relay_on_gone, .arg = r });
	uint64_t due = kn_loop_now(g->config.loop) + fn->timeout_ms * KN_NS_PER_MS;
	if (kn_timer_start(g->config.loop, &r->deadline, due, NULL) < 0) {
		kn_relay_fail(r, 503, 1, NULL, "out of memory for a timer");
		return;
	}
	if (head->content_length > 0 && (uint64_t)head->content_length > r->max_body) {
		kn_service_count(s, 413);
		kn_relay_fail(r, 413, 0, NULL, "the request body of %lld bytes is larger than %llu",
			      (long long)head->content_length, (unsigned long long)r->max_body);
	} else if (fn->contract == KN_CONTRACT_MESSAGE)
		kn_relay_collect(r);
	else
		kn_relay_open(r, s);
}
