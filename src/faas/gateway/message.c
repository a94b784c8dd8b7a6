#include <errno.h>

#include "faas/gateway/relay.h"

/* ---- the reply -------------------------------------------------------------------------------- */

static void answer(struct kn_relay *r, const struct kn_message *reply)
{
	struct kn_http_exchange *x = r->x;
	struct kn_header *fields, *all;
	size_t n;

	if (reply->body.len > r->max_reply) {
		kn_relay_fail(r, 502, 0, NULL,
			      "the function's reply of %zu bytes is larger than %llu",
			      reply->body.len, (unsigned long long)r->max_reply);
		return;
	}
	if (reply->status < 200 || reply->status > 599) {
		kn_relay_fail(r, 502, 0, NULL, "the function answered with the status %d",
			      reply->status);
		return;
	}
	if (kn_relay_reply_fields(r, NULL, &fields, &n) < 0 ||
	    !(all = kn_arena_alloc(kn_http_arena(x), (n + 1) * sizeof(*all)))) {
		kn_relay_fail(r, 503, 1, NULL, "out of memory for a reply");
		return;
	}
	memcpy(all, fields, n * sizeof(*all));
	if (reply->content_type.len)
		all[n++] = (struct kn_header){ KN_VIEW("Content-Type"), reply->content_type };
	kn_http_set_hooks(x, &(struct kn_http_hooks){ .data = NULL });
	kn_http_reply(x, reply->status, all, n, reply->body);
	kn_relay_end(r, reply->status, false);
}

static void on_reply(const struct kn_message *reply, const struct kn_err *err, void *arg)
{
	struct kn_relay *r = arg;
	bool late = err && (err->code == ETIME || err->code == ETIMEDOUT);

	r->invoking = false;
	/* Whatever waits must not go to an instance that is about to end. */
	if (err && err->code != 0 && r->call.instance)
		kn_instance_fail(r->call.instance, err);
	if (!r->x) /* answered with 504, or the client left */
		kn_relay_end(r, r->status, true);
	else if (err && err->code != 0)
		kn_relay_fail(r, late ? 504 : 502, 0,
			      "kiln logs FUNCTION shows what the function and its monitor said",
			      "%s", kn_err_text(err));
	else
		answer(r, reply);
}

/* ---- the request ------------------------------------------------------------------------------ */

static void on_late_body(struct kn_http_exchange *x, struct kn_view body, void *arg)
{
	struct kn_relay *r = arg;

	(void)x;
	r->body = body;
	r->collected = true;
	if (r->call.instance)
		kn_relay_invoke(r);
	else
		kn_relay_fail(r, 502, 0, NULL, "%s", kn_err_text(&r->why));
}

void kn_relay_invoke(struct kn_relay *r)
{
	if (r->waited && r->has_body && !r->collected) {
		/* It waited for a revision that streams, and an update came to one that does not. */
		kn_http_collect(r->x, r->max_body, on_late_body, r);
		kn_http_pause(r->x, false);
		return;
	}
	const struct kn_http_head *head = kn_http_head(r->x);
	struct kn_sandbox *sb = r->call.instance->sandbox;
	struct kn_err err = KN_ERR_INIT;
	struct kn_message request = {
		.method = head->method,
		.path = r->path.len ? r->path : KN_VIEW("/"),
		.content_type = kn_http_header(head, "Content-Type"),
		.call_id = r->call_id,
		.body = r->body,
	};

	r->invoking = true;
	if (sb->ops->invoke(sb, &request, on_reply, r, &err) == 0)
		return;
	r->invoking = false;
	kn_relay_fail(r, err.code == EMSGSIZE ? 413 : 502, 0, NULL, "%s", kn_err_text(&err));
}

static void on_collected(struct kn_http_exchange *x, struct kn_view body, void *arg)
{
	struct kn_relay *r = arg;
	struct kn_service *s = kn_engine_find(r->gateway->config.engine, r->name);

	(void)x;
	if (!s) {
		kn_relay_fail(r, 404, 0, NULL, "the function '%.*s' was removed", (int)r->name.len,
			      r->name.ptr);
		return;
	}
	r->body = body;
	r->collected = true;
	r->called = true;
	(void)kn_engine_acquire(s, &r->call);
}

void kn_relay_collect(struct kn_relay *r)
{
	kn_http_collect(r->x, r->max_body, on_collected, r);
}
