/*
 * The token endpoint (RFC 6749, 3.2 and 4.4), the key set and the metadata document.
 */
#include <errno.h>
#include <string.h>

#include "faas/auth/private.h"
#include "faas/reply.h"

enum { MAX_FORM = 8192 };

struct grant {
	struct kn_auth *auth;
	struct kn_view scope;     /* ptr NULL: not asked for */
	bool basic;               /* how the client authenticated: RFC 6749, 5.2 */
};

/* ---- form bodies --------------------------------------------------------------------------- */

static int form_decode(struct kn_arena *arena, struct kn_view v, struct kn_view *ret,
                       struct kn_err *err)
{
	char *blank = kn_arena_copy(arena, v.ptr, v.len);

	if (!blank)
		return kn_fail(err, ENOMEM, "no memory for a form");
	/* An encoded zero byte is refused below; a plain one has no place in a form either. */
	if (memchr(blank, 0, v.len))
		return kn_fail(err, EINVAL, "the form has a zero byte");
	for (size_t i = 0; i < v.len; i++) {
		if (blank[i] == '+')
			blank[i] = ' ';
	}
	return kn_http_decode(arena, (struct kn_view){ blank, v.len }, ret, err);
}

int kn_form_value(struct kn_arena *arena, struct kn_view body, const char *key, struct kn_view *ret,
                  struct kn_err *err)
{
	struct kn_view rest = body, pair, name, value, found = KN_VIEW_NULL;

	while (rest.ptr && kn_view_split(&rest, '&', &pair)) {
		if (pair.len == 0)
			continue;
		struct kn_view after = pair;
		if (!kn_view_split(&after, '=', &name))
			continue;
		int r = form_decode(arena, name, &name, err);
		if (r < 0)
			return r;
		if (!kn_view_is(name, kn_view_of(key)))
			continue;
		if (found.ptr)
			return kn_fail(err, EINVAL, "the parameter '%s' is there twice", key);
		r = form_decode(arena, after.ptr ? after : KN_VIEW(""), &value, err);
		if (r < 0)
			return r;
		found = value.ptr ? value : KN_VIEW("");
	}
	*ret = found;
	return 0;
}

/* ---- the token endpoint -------------------------------------------------------------------- */

static void answer(struct kn_http_exchange *x, int status, bool basic_challenge, json_t *value)
{
	kn_auto(kn_buf_fini) struct kn_buf body = KN_BUF_INIT;
	const struct kn_header headers[] = {
		{ KN_VIEW("Content-Type"), KN_VIEW(KN_HTTP_JSON) },
		{ KN_VIEW("Cache-Control"), KN_VIEW("no-store") },
		{ KN_VIEW("Pragma"), KN_VIEW("no-cache") },
		{ KN_VIEW("WWW-Authenticate"), KN_VIEW("Basic realm=\"kiln\", charset=\"UTF-8\"") },
	};

	if (value)
		kn_json_print(&body, value, 0);
	json_decref(value);
	kn_buf_add(&body, "\n", 1);
	if (!value || body.failed)
		kn_reply_error(x, 503, "out of memory", "try again soon");
	else
		kn_http_reply(x, status, headers,
		              KN_ARRAY_LEN(headers) - (basic_challenge ? 0 : 1),
		              kn_buf_view(&body));
}

/* RFC 6749, 5.2: error is one of its words; the description tells what to do. */
static void refuse(struct kn_http_exchange *x, int status, const char *error,
                   const char *description)
{
	answer(x, status, status == 401,
	       json_pack("{s:s, s:s}", "error", error, "error_description", description));
}

static void issue(struct kn_http_exchange *x, const struct grant *g, const struct client *c)
{
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;
	uint32_t scopes = c->scopes;
	char text[KN_SCOPE_TEXT];

	if (g->scope.ptr && kn_scope_parse(g->scope, &scopes, &err) < 0) {
		refuse(x, 400, "invalid_scope", kn_err_text(&err));
		return;
	}
	if (g->scope.ptr && (scopes == 0 || (scopes & ~c->scopes))) {
		refuse(x, 400, "invalid_scope", "this client may not have all of these scopes");
		return;
	}
	if (kn_auth_issue(g->auth, c->id, scopes, &token, &err) < 0) {
		kn_reply_fail(x, &err, NULL);
		return;
	}
	kn_scope_text(scopes, text);
	answer(x, 200, false,
	       json_pack("{s:s, s:s, s:I, s:s}", "access_token", token.ptr, "token_type", "Bearer",
	                 "expires_in", (json_int_t)g->auth->token_s, "scope", text));
}

static void client_checked(struct kn_http_exchange *x, enum secret_verdict verdict,
                           const struct client *client, void *arg)
{
	const struct grant *g = arg;

	switch (verdict) {
	case SECRET_RIGHT:
		issue(x, g, client);
		break;
	case SECRET_WRONG:
		refuse(x, 401, "invalid_client", "client id or secret is wrong");
		break;
	case SECRET_BUSY:
		kn_reply_error(x, 429, "too many secrets are being checked", "try again in a second");
		break;
	}
}

struct form {
	struct kn_view grant_type, client_id, client_secret, scope;
};

static int read_form(struct kn_arena *arena, struct kn_view body, struct form *f, struct kn_err *err)
{
	if (kn_form_value(arena, body, "grant_type", &f->grant_type, err) < 0 ||
	    kn_form_value(arena, body, "client_id", &f->client_id, err) < 0 ||
	    kn_form_value(arena, body, "client_secret", &f->client_secret, err) < 0 ||
	    kn_form_value(arena, body, "scope", &f->scope, err) < 0)
		return -EINVAL;
	return 0;
}

/* RFC 6749, 2.3: one way of authenticating, not two. */
static int find_client(struct kn_http_exchange *x, const struct form *f, struct kn_view *ret_id,
                       struct kn_view *ret_secret, bool *ret_basic, struct kn_err *err)
{
	struct kn_view value = kn_http_header(kn_http_head(x), "authorization"), scheme, rest;

	*ret_basic = value.ptr != NULL;
	if (!value.ptr) {
		if (!f->client_id.ptr || !f->client_secret.ptr)
			return kn_fail(err, EACCES, "send client_id and client_secret in the form, or "
			                            "as HTTP basic");
		*ret_id = f->client_id;
		*ret_secret = f->client_secret;
		return 0;
	}
	if (f->client_secret.ptr)
		return kn_fail(err, EINVAL, "client_secret in the form and an Authorization field: "
		                            "send one of them");
	if (!authorization_split(value, &scheme, &rest) ||
	    !kn_view_is_nocase(scheme, KN_VIEW("basic")) ||
	    basic_parse(kn_http_arena(x), rest, ret_id, ret_secret, NULL) < 0)
		return kn_fail(err, EACCES, "the Authorization field is not HTTP basic with client id "
		                            "and secret");
	if (f->client_id.ptr && !kn_view_is(f->client_id, *ret_id))
		return kn_fail(err, EINVAL, "client_id differs from the one in the Authorization "
		                            "field");
	return 0;
}

static void form_complete(struct kn_http_exchange *x, struct kn_view body, void *arg)
{
	struct form f;
	struct kn_view id, secret;
	struct kn_err err = KN_ERR_INIT;
	struct grant *g = kn_arena_alloc(kn_http_arena(x), sizeof(*g));

	if (!g) {
		kn_reply_error(x, 503, "out of memory", "try again soon");
		return;
	}
	if (read_form(kn_http_arena(x), body, &f, &err) < 0) {
		refuse(x, 400, "invalid_request", kn_err_text(&err));
		return;
	}
	if (!f.grant_type.ptr) {
		refuse(x, 400, "invalid_request", "send grant_type=client_credentials");
		return;
	}
	if (!kn_view_is(f.grant_type, KN_VIEW("client_credentials"))) {
		refuse(x, 400, "unsupported_grant_type", "only client_credentials is supported");
		return;
	}
	*g = (struct grant){ .auth = arg, .scope = f.scope };
	int r = find_client(x, &f, &id, &secret, &g->basic, &err);
	if (r < 0)
		refuse(x, r == -EACCES ? 401 : 400,
		       r == -EACCES ? "invalid_client" : "invalid_request", kn_err_text(&err));
	else
		secret_check(g->auth, x, id, secret, client_checked, g);
}

static bool is_form(struct kn_view content_type)
{
	struct kn_view type = KN_VIEW_NULL;

	kn_view_split(&content_type, ';', &type);
	return kn_view_is_nocase(kn_view_trim(type), KN_VIEW("application/x-www-form-urlencoded"));
}

static bool allow(struct kn_http_exchange *x, const char *method)
{
	const struct kn_header headers[] = {
		{ KN_VIEW("Content-Type"), KN_VIEW(KN_HTTP_JSON) },
		{ KN_VIEW("Allow"), kn_view_of(method) },
	};

	if (kn_view_is(kn_http_head(x)->method, kn_view_of(method)))
		return true;
	kn_http_reply(x, 405, headers, KN_ARRAY_LEN(headers),
	              KN_VIEW("{\"error\":\"the method does not fit this path\"}\n"));
	return false;
}

void kn_auth_token(struct kn_auth *a, struct kn_http_exchange *x)
{
	if (!allow(x, "POST"))
		return;
	if (!is_form(kn_http_header(kn_http_head(x), "content-type"))) {
		refuse(x, 400, "invalid_request",
		       "send the parameters as application/x-www-form-urlencoded");
		return;
	}
	kn_http_collect(x, MAX_FORM, form_complete, a);
}

void kn_auth_jwks(struct kn_auth *a, struct kn_http_exchange *x)
{
	if (allow(x, "GET"))
		kn_reply_json(x, 200, json_pack("{s:[o]}", "keys", jws_key_public(&a->key)));
}

static json_t *scope_list(void)
{
	json_t *list = json_array();
	char all[KN_SCOPE_TEXT];
	struct kn_view rest, name;

	kn_scope_text(KN_SCOPE_ALL, all);
	rest = kn_view_of(all);
	while (kn_view_split(&rest, ' ', &name))
		json_array_append_new(list, json_stringn(name.ptr, name.len));
	return list;
}

void kn_auth_metadata(struct kn_auth *a, struct kn_http_exchange *x)
{
	if (!allow(x, "GET"))
		return;
	char *token = kn_arena_printf(kn_http_arena(x), "%s/oauth/token", a->issuer);
	char *keys = kn_arena_printf(kn_http_arena(x), "%s/.well-known/jwks.json", a->issuer);
	kn_reply_json(x, 200,
	              json_pack("{s:s, s:s, s:s, s:o, s:[s], s:[s, s], s:[]}", "issuer", a->issuer,
	                        "token_endpoint", token ? token : "", "jwks_uri", keys ? keys : "",
	                        "scopes_supported", scope_list(), "grant_types_supported",
	                        "client_credentials", "token_endpoint_auth_methods_supported",
	                        "client_secret_basic", "client_secret_post",
	                        "response_types_supported"));
}
