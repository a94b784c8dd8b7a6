/*
 * The registry's door: it hangs below /v2/, its callers are this node's clients, and what is pushed
 * moves the functions that run an image of that name. A client of the registry is told where it gets
 * a token (GET /v2/token, as Docker's and containers' tools ask for one), and may also send a token
 * of /oauth/token, or HTTP basic.
 *
 * Source  distribution/distribution, spec/auth/token.md: the challenge and the token's request
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "faas/control/private.h"

enum { MAX_HOST = 280 };

/* ---- the challenge ---------------------------------------------------------------------------- */

struct asked {
	struct kn_control *ctl;
	enum kn_registry_right right;
	struct kn_view repository;
	kn_registry_done done;
	void *done_arg;
};

static bool host_ok(struct kn_view host)
{
	for (size_t i = 0; i < host.len; i++) {
		const char c = host.ptr[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      strchr(".-:[]_", c)) || c == '\0')
			return false;
	}
	return host.len > 0 && host.len < MAX_HOST;
}

/* How the client reaches this node: as the operator says, else as the client does. */
static void base_url(const struct kn_control *ctl, const struct kn_http_head *head,
                     char out[MAX_HOST + 16])
{
	const struct kn_view host = kn_http_header(head, "host");
	const struct kn_view proto = kn_http_header(head, "x-forwarded-proto");
	const bool tls = kn_view_is_nocase(proto, KN_VIEW("https"));

	if (ctl->config.public_url)
		snprintf(out, MAX_HOST + 16, "%s", ctl->config.public_url);
	else
		snprintf(out, MAX_HOST + 16, "http%s://%.*s", tls ? "s" : "",
		         host_ok(host) ? (int)host.len : 0, host.ptr ? host.ptr : "");
}

/* code: of RFC 6750, or NULL */
static void challenge(struct kn_http_exchange *x, const struct asked *a, const char *code,
                      const char *error)
{
	char base[MAX_HOST + 16], value[MAX_HOST + 512];

	base_url(a->ctl, kn_http_head(x), base);
	int n = snprintf(value, sizeof(value), "Bearer realm=\"%s/v2/token\",service=\"kiln\"", base);
	if (a->repository.ptr)
		snprintf(value + n, sizeof(value) - (size_t)n, ",scope=\"repository:%.*s:pull%s\"",
		         (int)a->repository.len, a->repository.ptr,
		         a->right == KN_REGISTRY_PUSH ? ",push" : "");
	const size_t len = strlen(value);
	if (code)
		snprintf(value + len, sizeof(value) - len, ",error=\"%s\"", code);
	const struct kn_header header = { KN_VIEW("WWW-Authenticate"), kn_view_of(value) };
	kn_registry_error(x, 401, "UNAUTHORIZED", error, &header);
}

/* A token for less than this asks its owner for another one, as Docker's registry does. */
static void on_refused(struct kn_http_exchange *x, int status, const char *error, void *arg)
{
	const struct kn_view with = kn_http_header(kn_http_head(x), "authorization");
	const bool narrow = status == 403 && with.len > 7 &&
	                    kn_view_is_nocase((struct kn_view){ with.ptr, 7 }, KN_VIEW("bearer "));

	if (status == 401 || narrow)
		challenge(x, arg, narrow ? "insufficient_scope" : NULL, error);
	else if (status == 429)
		kn_registry_error(x, status, "TOOMANYREQUESTS", error, NULL);
	else
		kn_registry_error(x, status, "DENIED", error, NULL);
}

static void on_allowed(struct kn_http_exchange *x, const struct kn_caller *caller, void *arg)
{
	const struct asked *a = arg;

	(void)caller;
	a->done(x, a->done_arg);
}

static void allow(struct kn_http_exchange *x, enum kn_registry_right right,
                  struct kn_view repository, kn_registry_done done, void *done_arg, void *arg)
{
	struct kn_control *ctl = arg;
	struct asked *a = kn_arena_alloc(kn_http_arena(x), sizeof(*a));

	if (!a) {
		kn_registry_error(x, 503, "UNAVAILABLE", "out of memory", NULL);
		return;
	}
	*a = (struct asked){ ctl, right, repository, done, done_arg };
	kn_auth_ask(ctl->config.auth, x,
	            right == KN_REGISTRY_PUSH ? KN_SCOPE_IMAGE_WRITE : KN_SCOPE_IMAGE_READ, on_allowed,
	            on_refused, a);
}

/* ---- the token -------------------------------------------------------------------------------- */

/* "repository:team/app:pull,push" and "registry:catalog:*" to what they need here. */
static uint32_t bits_of(struct kn_view scope)
{
	struct kn_view actions = scope, action;
	uint32_t bits = 0;
	const char *colon = scope.len ? memrchr(scope.ptr, ':', scope.len) : NULL;

	if (!colon)
		return 0;
	actions.ptr = colon + 1;
	actions.len = (size_t)(scope.ptr + scope.len - actions.ptr);
	const bool reads = kn_view_starts(scope, KN_VIEW("registry:"));
	while (kn_view_split(&actions, ',', &action))
		bits |= reads || kn_view_is(action, KN_VIEW("pull"))
		                ? KN_SCOPE_IMAGE_READ
		                : KN_SCOPE_IMAGE_READ | KN_SCOPE_IMAGE_WRITE;
	return bits;
}

/* All scopes of a query; a login asks for none, and gets what pushing needs. */
static uint32_t scopes_asked(struct kn_http_exchange *x)
{
	struct kn_view rest = kn_http_head(x)->query, pair, value, one;
	uint32_t bits = 0;
	bool any = false;

	while (rest.ptr && kn_view_split(&rest, '&', &pair)) {
		if (!kn_view_starts(pair, KN_VIEW("scope=")))
			continue;
		pair.ptr += strlen("scope=");
		pair.len -= strlen("scope=");
		any = true;
		if (kn_http_decode(kn_http_arena(x), pair, &value, NULL) < 0)
			continue;
		while (value.ptr && kn_view_split(&value, ' ', &one))
			bits |= bits_of(one);
	}
	return any ? bits : KN_SCOPE_IMAGE_READ | KN_SCOPE_IMAGE_WRITE;
}

/* What the client may not have is left out of its token; the registry then says what is missing. */
static void issue(struct kn_http_exchange *x, const struct kn_caller *caller, void *arg)
{
	const struct kn_control *ctl = ((const struct asked *)arg)->ctl;
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	if (kn_auth_issue(ctl->config.auth, caller->client_id, scopes_asked(x), &token, &err) < 0) {
		kn_registry_error(x, 503, "UNAVAILABLE", kn_err_text(&err), NULL);
		return;
	}
	kn_reply_json(x, 200, json_pack("{s:s, s:s, s:I}", "token", token.ptr, "access_token",
	                                token.ptr, "expires_in",
	                                (json_int_t)kn_auth_token_life(ctl->config.auth)));
}

static void token_refused(struct kn_http_exchange *x, int status, const char *error, void *arg)
{
	static const struct kn_header basic = { KN_VIEW("WWW-Authenticate"),
		                                KN_VIEW("Basic realm=\"kiln\", charset=\"UTF-8\"") };

	if (status == 401)
		kn_registry_error(x, status, "UNAUTHORIZED", error, &basic);
	else
		on_refused(x, status, error, arg);
}

static void token(struct kn_control *ctl, struct kn_http_exchange *x)
{
	static const struct kn_header get = { KN_VIEW("Allow"), KN_VIEW("GET") };

	if (!kn_view_is(kn_http_head(x)->method, KN_VIEW("GET"))) {
		kn_registry_error(x, 405, "UNSUPPORTED", "ask for a token with GET", &get);
		return;
	}
	struct asked *a = kn_arena_alloc(kn_http_arena(x), sizeof(*a));
	if (!a) {
		kn_registry_error(x, 503, "UNAVAILABLE", "out of memory", NULL);
		return;
	}
	a->ctl = ctl;
	kn_auth_ask(ctl->config.auth, x, 0, issue, token_refused, a);
}

/* ---- mounting --------------------------------------------------------------------------------- */

static void pushed(const struct kn_image *image, void *arg)
{
	kn_log(KN_INFO, "image pushed", KN_S("image", image->reference),
	       KN_S("digest", image->top.text), KN_U("bytes", image->bytes));
	change_refresh(arg, image);
}

int registry_open(struct kn_control *ctl, struct kn_err *err)
{
	const struct kn_registry_config config = {
		.loop = ctl->config.loop,
		.work = ctl->config.work,
		.images = ctl->config.images,
		.max_blob_bytes = ctl->config.max_image_bytes,
		.allow = allow,
		.pushed = pushed,
		.user = image_user,
		.arg = ctl,
	};

	return kn_registry_new(&config, &ctl->registry, err);
}

void registry_request(struct kn_control *ctl, struct kn_http_exchange *x)
{
	if (kn_view_is(kn_http_head(x)->path, KN_VIEW("/v2/token")))
		token(ctl, x);
	else
		kn_registry_request(ctl->registry, x);
}
