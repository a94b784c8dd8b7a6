#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "faas/auth/private.h"
#include "faas/reply.h"

static const char GET_TOKEN[] =
	"get a token with POST /oauth/token (grant_type=client_credentials), or run: kiln login; the "
	"first administrator's credentials are in the file 'credentials' of kilnd's state folder";

struct request {
	struct kn_auth *auth;
	uint32_t scope;
	kn_auth_done done;
	kn_auth_refused refused;   /* NULL: answered here */
	void *arg;
};

struct fault_text {
	const char *error, *hint;
};

static struct fault_text explain(enum kn_token_fault fault)
{
	switch (fault) {
	case KN_TOKEN_EXPIRED:
		return (struct fault_text){ "the access token has expired", GET_TOKEN };
	case KN_TOKEN_EARLY:
		return (struct fault_text){ "the access token is not valid yet",
			                    "compare the clocks of this node and of its issuer" };
	case KN_TOKEN_CLIENT:
		return (struct fault_text){ "the access token belongs to a client that was removed",
			                    GET_TOKEN };
	case KN_TOKEN_SIGNATURE:
	case KN_TOKEN_HEADER:
	case KN_TOKEN_CLAIMS:
		return (struct fault_text){ "the access token was not issued by this node",
			                    GET_TOKEN };
	case KN_TOKEN_MALFORMED:
	case KN_TOKEN_GOOD:
	default:
		return (struct fault_text){ "the access token is malformed", GET_TOKEN };
	}
}

/* RFC 6750, 3: the challenge names the error; scope names are quoted-string safe. */
static void challenge(struct kn_http_exchange *x, int status, const char *code, const char *scope,
                      const char *error, const char *hint)
{
	kn_auto(json_decref) json_t *o = json_pack("{s:s, s:s}", "error", error, "hint", hint);
	kn_auto(kn_buf_fini) struct kn_buf body = KN_BUF_INIT;
	char value[256];

	snprintf(value, sizeof(value), "Bearer realm=\"kiln\", error=\"%s\"%s%s%s", code,
	         scope ? ", scope=\"" : "", scope ? scope : "", scope ? "\"" : "");
	kn_json_print(&body, o, 0);
	kn_buf_add(&body, "\n", 1);
	const struct kn_header headers[] = {
		{ KN_VIEW("Content-Type"), KN_VIEW(KN_HTTP_JSON) },
		{ KN_VIEW("WWW-Authenticate"), kn_view_of(value) },
	};
	kn_http_reply(x, status, headers, KN_ARRAY_LEN(headers), kn_buf_view(&body));
}

/* code: of RFC 6750, where there is one; scope: what is missing. */
static void refuse(struct kn_http_exchange *x, const struct request *rq, int status,
                   const char *code, const char *scope, struct fault_text why)
{
	if (rq->refused)
		rq->refused(x, status, why.error, rq->arg);
	else if (code)
		challenge(x, status, code, scope, why.error, why.hint);
	else
		kn_reply_error(x, status, why.error, why.hint);
}

static bool may(uint32_t has, uint32_t wanted)
{
	return (has & KN_SCOPE_ADMIN) || (has & wanted) == wanted;
}

static void decide(struct kn_http_exchange *x, const struct request *rq,
                   const struct kn_caller *caller)
{
	char scope[KN_SCOPE_TEXT], error[KN_SCOPE_TEXT + 64], hint[KN_SCOPE_TEXT + 128];

	if (may(caller->scopes, rq->scope)) {
		rq->done(x, caller, rq->arg);
		return;
	}
	kn_scope_text(rq->scope, scope);
	snprintf(error, sizeof(error), "this needs the scope '%s'", scope);
	snprintf(hint, sizeof(hint),
	         "ask /oauth/token for it with scope=%s, with a client that may have it", scope);
	refuse(x, rq, 403, "insufficient_scope", scope, (struct fault_text){ error, hint });
}

static void secret_checked(struct kn_http_exchange *x, enum secret_verdict verdict,
                           const struct client *client, void *arg)
{
	const struct request *rq = arg;

	switch (verdict) {
	case SECRET_RIGHT:
		decide(x, rq, &(struct kn_caller){ client->id, client->scopes });
		break;
	case SECRET_WRONG:
		refuse(x, rq, 401, NULL, NULL,
		       (struct fault_text){ "client id or secret is wrong", GET_TOKEN });
		break;
	case SECRET_BUSY:
		refuse(x, rq, 429, NULL, NULL,
		       (struct fault_text){ "too many secrets are being checked",
		                            "try again in a second" });
		break;
	}
}

bool authorization_split(struct kn_view value, struct kn_view *ret_scheme, struct kn_view *ret_rest)
{
	struct kn_view rest = value;

	if (!kn_view_split(&rest, ' ', ret_scheme) || rest.ptr == NULL)
		return false;
	*ret_rest = kn_view_trim(rest);
	return true;
}

int basic_parse(struct kn_arena *arena, struct kn_view encoded, struct kn_view *ret_id,
                struct kn_view *ret_secret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	if (encoded.len > 4 * MAX_CREDENTIAL)
		return kn_fail(err, EINVAL, "the credentials are too long");
	int r = kn_unbase64(encoded, &text, err);
	if (r < 0)
		return r;
	const char *colon = text.len ? memchr(text.ptr, ':', text.len) : NULL;
	if (!colon || memchr(text.ptr, 0, text.len))
		return kn_fail(err, EINVAL, "the credentials are not ID:SECRET");
	char *copy = kn_arena_copy(arena, text.ptr, text.len);
	if (!copy)
		return kn_fail(err, ENOMEM, "no memory for credentials");
	size_t id_len = (size_t)(colon - text.ptr);
	*ret_id = (struct kn_view){ copy, id_len };
	*ret_secret = (struct kn_view){ copy + id_len + 1, text.len - id_len - 1 };
	return 0;
}

static void check_basic(struct kn_http_exchange *x, struct kn_view encoded, const struct request *rq)
{
	struct kn_view id, secret;
	struct kn_err err = KN_ERR_INIT;
	struct request *kept = kn_arena_alloc(kn_http_arena(x), sizeof(*kept));

	if (!kept) {
		refuse(x, rq, 503, NULL, NULL, (struct fault_text){ "out of memory", "try again soon" });
		return;
	}
	if (basic_parse(kn_http_arena(x), encoded, &id, &secret, &err) < 0) {
		refuse(x, rq, 401, NULL, NULL,
		       (struct fault_text){ kn_err_text(&err), "send: Authorization: Basic "
		                                               "base64(CLIENT_ID:CLIENT_SECRET)" });
		return;
	}
	*kept = *rq;
	secret_check(rq->auth, x, id, secret, secret_checked, kept);
}

static void check_bearer(struct kn_http_exchange *x, struct kn_view token, const struct request *rq)
{
	struct kn_caller caller;

	enum kn_token_fault fault =
		kn_auth_check_token(rq->auth, token, &caller.scopes, &caller.client_id);
	if (fault == KN_TOKEN_GOOD) {
		decide(x, rq, &caller);
		return;
	}
	refuse(x, rq, 401, "invalid_token", NULL, explain(fault));
}

/* Two Authorization fields: a proxy before us may have checked the other one. */
static int only_authorization(const struct kn_http_head *head, struct kn_view *ret)
{
	int n = 0;

	for (size_t i = 0; i < head->n_headers; i++) {
		if (kn_view_is_nocase(head->headers[i].name, KN_VIEW("authorization"))) {
			*ret = head->headers[i].value;
			n++;
		}
	}
	return n;
}

void kn_auth_ask(struct kn_auth *a, struct kn_http_exchange *x, uint32_t scope, kn_auth_done done,
                 kn_auth_refused refused, void *arg)
{
	const struct request rq = {
		.auth = a, .scope = scope, .done = done, .refused = refused, .arg = arg
	};
	struct kn_view value = KN_VIEW_NULL, scheme, rest;
	struct fault_text why = { NULL, GET_TOKEN };

	int n = only_authorization(kn_http_head(x), &value);
	if (n == 0)
		why.error = "this needs a token, or a client id and secret";
	else if (n > 1)
		why = (struct fault_text){ "more than one Authorization field", "send one" };
	else if (!authorization_split(value, &scheme, &rest))
		why.error = "the Authorization field is malformed";
	else if (kn_view_is_nocase(scheme, KN_VIEW("bearer")))
		check_bearer(x, rest, &rq);
	else if (kn_view_is_nocase(scheme, KN_VIEW("basic")))
		check_basic(x, rest, &rq);
	else
		why.error = "only Bearer and Basic authorization are known";
	if (why.error)
		refuse(x, &rq, n > 1 ? 400 : 401, NULL, NULL, why);
}

void kn_auth_request(struct kn_auth *a, struct kn_http_exchange *x, uint32_t scope,
                     kn_auth_done done, void *arg)
{
	kn_auth_ask(a, x, scope, done, NULL, arg);
}
