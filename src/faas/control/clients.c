#include "faas/control/private.h"

void list_clients(const struct call *c)
{
	kn_reply_json(c->x, 200, kn_client_list(c->ctl->config.auth));
}

static void on_made(const char *client_id, const char *secret, const struct kn_err *err, void *arg)
{
	struct kn_http_exchange *x = wait_end(arg);

	if (!x)
		return;
	if (err)
		kn_reply_fail(x, err, NULL);
	else
		kn_reply_json(x, 201, json_pack("{s:s, s:s}", "client_id", client_id,
		                                "client_secret", secret));
}

static void add_parsed(const struct call *c, const json_t *body)
{
	static const char *const known[] = { "description", "scope" };
	static const char *const needed[] = { "scope", NULL };
	const char *description = "", *scope = "";
	struct kn_err err = KN_ERR_INIT;
	uint32_t scopes = 0;

	if (kn_json_require(body, needed, &err) < 0 ||
	    kn_json_known(body, known, KN_ARRAY_LEN(known), &err) < 0 ||
	    kn_json_str(body, "description", &description, &err) < 0 ||
	    kn_json_str(body, "scope", &scope, &err) < 0 ||
	    kn_scope_parse(kn_view_of(scope), &scopes, &err) < 0) {
		kn_reply_fail(c->x, &err, "send {\"description\": \"...\", \"scope\": \"function:invoke\"}");
		return;
	}
	struct waiting *w = wait_new(c->ctl, c->x);
	if (!w)
		return;
	if (kn_client_add(c->ctl->config.auth, kn_view_of(description), scopes, on_made, w, &err) < 0) {
		wait_end(w);
		kn_reply_fail(c->x, &err, NULL);
	}
}

void add_client(const struct call *c)
{
	with_body(c, add_parsed);
}

static void on_removed(const struct kn_err *err, void *arg)
{
	struct kn_http_exchange *x = wait_end(arg);

	if (!x)
		return;
	if (err)
		kn_reply_fail(x, err, "the client is refused until kilnd starts again");
	else
		kn_http_reply(x, 204, NULL, 0, KN_VIEW_NULL);
}

void remove_client(const struct call *c)
{
	struct kn_err err = KN_ERR_INIT;
	struct waiting *w = wait_new(c->ctl, c->x);

	if (!w)
		return;
	if (kn_client_remove(c->ctl->config.auth, c->rest, on_removed, w, &err) < 0) {
		wait_end(w);
		kn_reply_fail(c->x, &err, NULL);
	}
}
