#include "faas/gateway.h"

#include <errno.h>
#include <stdlib.h>

#include "faas/gateway/relay.h"

/* ---- functions -------------------------------------------------------------------------------- */

/* "NAME" or "NAME.NAMESPACE"; this node has one namespace. */
static struct kn_service *find(const struct kn_gateway *g, struct kn_view *name)
{
	struct kn_view ns = *name, first;

	if (!kn_view_split(&ns, '.', &first))
		return NULL;
	if (ns.ptr && !kn_view_is(ns, KN_VIEW(KN_NAMESPACE)))
		return NULL;
	*name = first;
	return kn_engine_find(g->config.engine, first);
}

static void answer_unknown(const struct kn_gateway *g, struct kn_http_exchange *x,
			   struct kn_view name)
{
	const char *why = NULL;
	char text[160];

	if (g->config.why_not && g->config.why_not(name, &why, g->config.arg)) {
		if (why)
			kn_gateway_error(x, NULL, 503, 0, "kiln describe tells more", why);
		else
			kn_gateway_error(x, NULL, 503, 1, "try again soon",
					 "the function is being made ready");
		return;
	}
	snprintf(text, sizeof(text), "there is no function '%.*s'",
		 (int)kn_min(name.len, (size_t)80), name.ptr);
	kn_gateway_error(x, NULL, 404, 0, "kiln list shows the functions of this node", text);
}

/* Its resource takes no method at all, which an empty Allow says (RFC 9110, 10.2.1). */
static void answer_uncallable(struct kn_http_exchange *x, struct kn_view name)
{
	static const struct kn_header fields[] = {
		{ KN_VIEW("Content-Type"), KN_VIEW(KN_HTTP_JSON) },
		{ KN_VIEW("Allow"), KN_VIEW("") },
	};
	char body[256];

	snprintf(body, sizeof(body),
		 "{\"error\":\"'%.*s' is a packet function: frames at its ports are its events, it "
		 "answers no HTTP\",\"hint\":\"see what it counts with: kiln describe %.*s\"}\n",
		 (int)name.len, name.ptr, (int)name.len, name.ptr);
	kn_http_reply(x, 405, fields, KN_ARRAY_LEN(fields), kn_view_of(body));
}

static void invoke(struct kn_gateway *g, struct kn_http_exchange *x, bool let_in)
{
	struct kn_view name = KN_VIEW_NULL, path = KN_VIEW_NULL;
	char id[KN_CALL_ID_MAX + 1];
	bool later = false;

	(void)kn_relay_route(kn_http_head(x), &name, &path, &later);
	struct kn_service *s = find(g, &name);
	if (s && kn_service_function(s)->contract == KN_CONTRACT_FRAMES)
		answer_uncallable(x, name);
	else if (s && later) {
		kn_gateway_call_id(g, x, id);
		kn_async_take(g->config.async, x, name, path, kn_view_of(id));
	} else if (s)
		kn_relay_start(g, x, s, name, path, let_in);
	else
		answer_unknown(g, x, name);
}

static void on_allowed(struct kn_http_exchange *x, const struct kn_caller *caller, void *arg)
{
	(void)caller;
	invoke(arg, x, true);
}

static bool needs_token(const struct kn_gateway *g, const struct kn_function *fn)
{
	return g->config.allow &&
	       (fn->needs_token || (g->config.functions_need_token && !fn->open));
}

static void on_function(struct kn_gateway *g, struct kn_http_exchange *x, struct kn_view name)
{
	const struct kn_service *s = find(g, &name);

	if (!s && g->config.allow && g->config.functions_need_token)
		/* who has no token does not learn which functions there are */
		g->config.allow(x, KN_SCOPE_FUNCTION_INVOKE, on_allowed, g, g->config.arg);
	else if (s && needs_token(g, kn_service_function(s)))
		g->config.allow(x, KN_SCOPE_FUNCTION_INVOKE, on_allowed, g, g->config.arg);
	else
		invoke(g, x, false);
}

/* ---- the listener ----------------------------------------------------------------------------- */

static void on_request(struct kn_http_exchange *x, void *arg)
{
	struct kn_gateway *g = arg;
	const struct kn_http_head *head = kn_http_head(x);
	struct kn_view name, path;
	bool later;

	if (g->draining)
		kn_gateway_error(x, NULL, 503, 1, NULL, "this node is shutting down");
	else if (kn_relay_route(head, &name, &path, &later) && (!later || g->config.async))
		on_function(g, x, name);
	else
		g->config.other(x, g->config.arg);
}

int kn_gateway_new(const struct kn_gateway_config *config, int listen_fd, struct kn_gateway **ret,
		   struct kn_err *err)
{
	struct kn_gateway *g = calloc(1, sizeof(*g));
	if (!g) {
		kn_close(listen_fd);
		return kn_fail(err, ENOMEM, "out of memory for the gateway");
	}
	g->config = *config;
	g->config.http.request = on_request;
	g->config.http.arg = g;
	int r = kn_http_server_new(config->loop, listen_fd, &g->config.http, &g->server, err);
	if (r < 0) {
		kn_close(listen_fd);
		free(g);
		return r;
	}
	*ret = g;
	return 0;
}

void kn_gateway_drain(struct kn_gateway *g)
{
	g->draining = true;
	kn_http_server_drain(g->server);
}

size_t kn_gateway_busy(const struct kn_gateway *g)
{
	return kn_http_server_busy(g->server);
}

void kn_gateway_free(struct kn_gateway *g)
{
	if (!g)
		return;
	kn_http_server_free(g->server); /* gone() ends the relays; those with a message stay */
	while (g->used) {
		struct kn_relay *r = g->used;
		r->invoking = false;
		kn_relay_end(r, 0, true);
	}
	while (g->unused) {
		struct kn_relay *r = g->unused;
		g->unused = r->next;
		free(r);
	}
	free(g);
}
