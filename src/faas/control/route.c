#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "faas/control/private.h"

/* ---- what is not a handler of its own ------------------------------------------------------ */

static void oauth_token(const struct call *c)
{
	kn_auth_token(c->ctl->config.auth, c->x);
}

static void oauth_keys(const struct call *c)
{
	kn_auth_jwks(c->ctl->config.auth, c->x);
}

static void oauth_metadata(const struct call *c)
{
	kn_auth_metadata(c->ctl->config.auth, c->x);
}

/*
 * The table of the control API. A path that ends with '*' matches what is longer by at least one
 * byte. OPEN needs no caller, scope 0 takes any. Method NULL: the handler looks itself.
 */
enum { OPEN = 1 << 30 };

static const struct route {
	const char *method, *path;
	uint32_t scope;
	handler handle;
} ROUTES[] = {
	{ "GET", "/healthz", OPEN, show_health },
	{ "GET", "/openapi.json", OPEN, show_openapi },
	{ NULL, "/oauth/token", OPEN, oauth_token },
	{ NULL, "/.well-known/jwks.json", OPEN, oauth_keys },
	{ NULL, "/.well-known/oauth-authorization-server", OPEN, oauth_metadata },
	{ NULL, "/.well-known/openid-configuration", OPEN, oauth_metadata },

	{ "GET", "/system/functions", KN_SCOPE_FUNCTION_READ, list_functions },
	{ "POST", "/system/functions", KN_SCOPE_FUNCTION_WRITE, create_function },
	{ "PUT", "/system/functions", KN_SCOPE_FUNCTION_WRITE, update_function },
	{ "DELETE", "/system/functions", KN_SCOPE_FUNCTION_WRITE, delete_function },
	{ "GET", "/system/function/*", KN_SCOPE_FUNCTION_READ, describe_function },
	{ "POST", "/system/scale-function/*", KN_SCOPE_FUNCTION_WRITE, scale_function },
	{ "GET", "/system/secrets", KN_SCOPE_SECRET_READ, list_secrets },
	{ "POST", "/system/secrets", KN_SCOPE_SECRET_WRITE, create_secret },
	{ "PUT", "/system/secrets", KN_SCOPE_SECRET_WRITE, update_secret },
	{ "DELETE", "/system/secrets", KN_SCOPE_SECRET_WRITE, remove_secret },
	{ "GET", "/system/logs", KN_SCOPE_FUNCTION_READ, read_logs },
	{ "GET", "/system/info", 0, show_info },
	{ "GET", "/system/namespaces", 0, show_namespaces },
	{ "GET", "/system/namespace/*", 0, show_namespace },
	{ "POST", "/system/namespace/", KN_SCOPE_ADMIN, refuse_namespace },
	{ "POST", "/system/namespace/*", KN_SCOPE_ADMIN, refuse_namespace },
	{ "PUT", "/system/namespace/*", KN_SCOPE_ADMIN, refuse_namespace },
	{ "DELETE", "/system/namespace/*", KN_SCOPE_ADMIN, refuse_namespace },
	{ "GET", "/metrics", KN_SCOPE_NODE_READ, show_metrics },

	{ "GET", "/kiln/v1/functions/*", KN_SCOPE_FUNCTION_READ, describe_instances },
	{ "GET", "/kiln/v1/images", KN_SCOPE_IMAGE_READ, list_images },
	{ "POST", "/kiln/v1/images", KN_SCOPE_IMAGE_WRITE, import_image },
	{ "POST", "/kiln/v1/images/pull", KN_SCOPE_IMAGE_WRITE, pull_image },
	{ "DELETE", "/kiln/v1/images", KN_SCOPE_IMAGE_WRITE, remove_image },
	{ "DELETE", "/kiln/v1/images/*", KN_SCOPE_IMAGE_WRITE, remove_image },
	{ "GET", "/kiln/v1/node", KN_SCOPE_NODE_READ, show_node },
	{ "GET", "/kiln/v1/doctor", KN_SCOPE_NODE_READ, show_node },
	{ "GET", "/kiln/v1/clients", KN_SCOPE_ADMIN, list_clients },
	{ "POST", "/kiln/v1/clients", KN_SCOPE_ADMIN, add_client },
	{ "DELETE", "/kiln/v1/clients/*", KN_SCOPE_ADMIN, remove_client },
};

/* ---- finding a route ----------------------------------------------------------------------- */

static bool path_matches(const struct route *r, struct kn_view path, struct kn_view *ret_rest)
{
	size_t len = strlen(r->path);

	*ret_rest = KN_VIEW_NULL;
	if (r->path[len - 1] != '*')
		return kn_view_is(path, kn_view_of(r->path));
	if (path.len < len || memcmp(path.ptr, r->path, len - 1) != 0)
		return false;
	*ret_rest = (struct kn_view){ path.ptr + len - 1, path.len - (len - 1) };
	return true;
}

static void wrong_method(struct kn_http_exchange *x, const char *allow)
{
	const struct kn_header headers[] = {
		{ KN_VIEW("Content-Type"), KN_VIEW(KN_HTTP_JSON) },
		{ KN_VIEW("Allow"), kn_view_of(allow) },
	};

	kn_http_reply(x, 405, headers, KN_ARRAY_LEN(headers),
	              KN_VIEW("{\"error\":\"the method does not fit this path\"}\n"));
}

/* The route, or NULL after answering. */
static const struct route *find_route(struct kn_http_exchange *x, struct kn_view *ret_rest)
{
	const struct kn_http_head *head = kn_http_head(x);
	char allow[64] = "";

	for (size_t i = 0; i < KN_ARRAY_LEN(ROUTES); i++) {
		const struct route *r = &ROUTES[i];
		if (!path_matches(r, head->path, ret_rest))
			continue;
		if (!r->method || kn_view_is(head->method, kn_view_of(r->method)))
			return r;
		size_t used = strlen(allow);
		snprintf(allow + used, sizeof(allow) - used, "%s%s", used ? ", " : "", r->method);
	}
	if (allow[0])
		wrong_method(x, allow);
	else
		kn_reply_error(x, 404, "there is nothing at this path",
		               "functions are at /function/NAME, the control API at /system/ and "
		               "/kiln/v1/");
	return NULL;
}

struct allowed {
	struct kn_control *ctl;
	const struct route *route;
	struct kn_view rest;
};

static void run(struct kn_control *ctl, struct kn_http_exchange *x, const struct route *r,
                struct kn_view rest)
{
	struct kn_err err = KN_ERR_INIT;
	struct call c = { .ctl = ctl, .x = x, .rest = rest };

	if (rest.len && kn_http_decode(kn_http_arena(x), rest, &c.rest, &err) < 0)
		kn_reply_fail(x, &err, NULL);
	else
		r->handle(&c);
}

static void on_allowed(struct kn_http_exchange *x, const struct kn_caller *caller, void *arg)
{
	const struct allowed *a = arg;

	(void)caller;
	run(a->ctl, x, a->route, a->rest);
}

void kn_control_request(struct kn_control *ctl, struct kn_http_exchange *x)
{
	struct kn_view rest;

	if (kn_registry_path(kn_http_head(x)->path)) {
		registry_request(ctl, x);
		return;
	}
	const struct route *r = find_route(x, &rest);
	if (!r)
		return;
	/* Now: an archive waits while the caller's secret is hashed. */
	if (r->handle == import_image)
		kn_http_limit_body(x, ctl->config.max_image_bytes);
	if (r->scope == OPEN) {
		run(ctl, x, r, rest);
		return;
	}
	struct allowed *a = kn_arena_alloc(kn_http_arena(x), sizeof(*a));
	if (!a) {
		kn_reply_error(x, 503, "out of memory", "try again soon");
		return;
	}
	*a = (struct allowed){ .ctl = ctl, .route = r, .rest = rest };
	kn_auth_request(ctl->config.auth, x, r->scope, on_allowed, a);
}

/* ---- what handlers read -------------------------------------------------------------------- */

bool query_text(struct kn_http_exchange *x, const char *key, struct kn_view *ret)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_view raw;

	*ret = KN_VIEW_NULL;
	if (!kn_http_query(kn_http_head(x)->query, key, &raw))
		return true;
	if (kn_http_decode(kn_http_arena(x), raw, ret, &err) == 0)
		return true;
	kn_while(&err, "query parameter '%s'", key);
	kn_reply_fail(x, &err, NULL);
	return false;
}

bool query_is_true(struct kn_http_exchange *x, const char *key)
{
	struct kn_view v;

	return kn_http_query(kn_http_head(x)->query, key, &v) &&
	       (kn_view_is(v, KN_VIEW("1")) || kn_view_is_nocase(v, KN_VIEW("true")));
}

struct body_call {
	struct call call;
	void (*parsed)(const struct call *c, const json_t *body);
};

static void body_complete(struct kn_http_exchange *x, struct kn_view body, void *arg)
{
	const struct body_call *b = arg;
	kn_auto(json_decref) json_t *o = NULL;
	struct kn_err err = KN_ERR_INIT;

	if (kn_json_parse(body, &o, &err) < 0) {
		kn_while(&err, "request body");
		kn_reply_fail(x, &err, NULL);
	} else {
		b->parsed(&b->call, o);
	}
}

void with_body(const struct call *c, void (*parsed)(const struct call *c, const json_t *body))
{
	struct body_call *b = kn_arena_alloc(kn_http_arena(c->x), sizeof(*b));

	if (!b) {
		kn_reply_error(c->x, 503, "out of memory", "try again soon");
		return;
	}
	*b = (struct body_call){ .call = *c, .parsed = parsed };
	kn_http_collect(c->x, c->ctl->config.max_body_bytes, body_complete, b);
}

/* ---- life ---------------------------------------------------------------------------------- */

/* The stored functions, all read before the first is started: a damaged one stops the start clean. */
struct stored {
	struct kn_function **at;
	size_t n;
};

static int load(struct kn_view name, struct kn_view value, void *arg, struct kn_err *err)
{
	struct stored *s = arg;
	struct kn_function **grown = realloc(s->at, (s->n + 1) * sizeof(struct kn_function *));

	if (!grown)
		return kn_fail(err, ENOMEM, "no memory for stored functions");
	s->at = grown;
	int r = kn_function_load(value, &s->at[s->n], err);
	if (r < 0)
		return kn_while(err, "function '%.*s'", (int)name.len, name.ptr);
	s->n++;
	return 0;
}

/* Listed from the first moment on, whatever its image takes. Takes fn over. */
static int restore(struct kn_control *ctl, struct kn_function *fn, struct kn_err *err)
{
	if (entry_put(ctl, kn_function_ref(fn), NULL, "it is being made ready") < 0) {
		kn_function_unref(fn);
		return kn_fail(err, ENOMEM, "no memory for stored functions");
	}
	change_start(ctl, NULL, fn, CHANGE_RESTORE);
	return 0;
}

int kn_control_new(const struct kn_control_config *config, struct kn_control **ret,
                   struct kn_err *err)
{
	struct kn_control *ctl = calloc(1, sizeof(*ctl));
	struct stored s = { .at = NULL };

	if (!ctl)
		return kn_fail(err, ENOMEM, "no memory for the control API");
	ctl->config = *config;
	kn_engine_on_rolled(config->engine, change_rolled, ctl);
	int r = registry_open(ctl, err);
	if (r == 0)
		r = pulls_open(ctl, err);
	if (r == 0)
		r = kn_store_each(config->store, KN_TABLE_FUNCTION, load, &s, err);
	for (size_t i = 0; i < s.n; i++) {
		if (r == 0)
			r = restore(ctl, s.at[i], err);
		else
			kn_function_unref(s.at[i]);
	}
	free(s.at);
	if (r < 0) {
		kn_control_free(ctl);
		return r;
	}
	*ret = ctl;
	return 0;
}

void kn_control_free(struct kn_control *ctl)
{
	if (!ctl)
		return;
	kn_engine_on_rolled(ctl->config.engine, NULL, NULL);
	pulls_close(ctl);
	kn_registry_free(ctl->registry);
	entries_free(ctl);
	free(ctl);
}
