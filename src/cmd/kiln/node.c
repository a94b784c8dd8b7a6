#include "cmd/kiln/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/time.h"
#include "cmd/kiln/config.h"
#include "cmd/kiln/exchange.h"

enum {
	EARLY_S = 30, /* a token is renewed so long before it expires */
};

/* ---- which node, which token --------------------------------------------------------------- */

static const char *choose_gateway(const struct kn_node_args *args, const json_t *config)
{
	if (args->gateway && *args->gateway)
		return args->gateway;

	const char *openfaas = getenv("OPENFAAS_URL");
	if (openfaas && *openfaas)
		return openfaas;

	const char *last = json_string_value(json_object_get(config, "gateway"));
	return last ? last : KN_GATEWAY_DEFAULT;
}

/* One spelling for one node, so that logins are found again: a scheme, and no slash at the end. */
static int normalize(const char *url, char **ret, struct kn_err *err)
{
	bool scheme = strstr(url, "://") != NULL;
	kn_auto(kn_free) char *text = NULL;

	if (scheme && strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
		return kn_fail(err, EINVAL, "gateway '%s': only http:// and https:// are spoken",
			       url);
	if (strpbrk(url, "?#@ "))
		return kn_fail(err, EINVAL, "gateway '%s' must look like http://ADDRESS:PORT", url);
	if (asprintf(&text, "%s%s", scheme ? "" : "http://", url) < 0)
		return kn_fail(err, ENOMEM, "out of memory");
	for (size_t n = strlen(text); n > 0 && text[n - 1] == '/'; n--)
		text[n - 1] = '\0';
	if (strlen(text) <= strlen("http://"))
		return kn_fail(err, EINVAL, "gateway '%s' must look like http://ADDRESS:PORT", url);
	*ret = kn_take_ptr(text);
	return 0;
}

static int set_token(struct kn_node *c, const char *token, struct kn_err *err)
{
	char *copy = strdup(token);

	if (!copy)
		return kn_fail(err, ENOMEM, "out of memory");
	kn_free(c->token);
	c->token = copy;
	return 0;
}

int kn_node_open(const struct kn_node_args *args, struct kn_node **ret, struct kn_err *err)
{
	kn_auto(kn_node_close) struct kn_node *c = calloc(1, sizeof(*c));

	if (!c)
		return kn_fail(err, ENOMEM, "out of memory");
	int r = kn_config_load(&c->config, err);
	if (r == 0)
		r = normalize(choose_gateway(args, c->config), &c->gateway, err);
	if (r == 0 && args->token && *args->token) {
		c->given = true;
		r = set_token(c, args->token, err);
	}
	if (r < 0)
		return r;
	r = kn_exchange_init(c, err);
	if (r < 0)
		return r;
	*ret = kn_take_ptr(c);
	return 0;
}

void kn_node_close(struct kn_node *c)
{
	if (!c)
		return;
	kn_exchange_fini(c);
	json_decref(c->config);
	kn_free(c->token);
	kn_free(c->gateway);
	kn_free(c);
}

const char *kn_node_gateway(const struct kn_node *c)
{
	return c->gateway;
}

const char *kn_node_token(const struct kn_node *c)
{
	return c->token;
}

/* ---- tokens -------------------------------------------------------------------------------- */

static int keep_login(struct kn_node *c, const char *client_id, const char *secret,
		      const json_t *grant, struct kn_err *err)
{
	const char *token = NULL;
	uint64_t expires_in = 3600;
	char expires[KN_RFC3339_LEN];

	int r = kn_json_str(grant, "access_token", &token, err);
	if (r == 0)
		r = kn_json_u64(grant, "expires_in", UINT32_MAX, &expires_in, err);
	if (r == 0 && !token)
		r = kn_fail(err, EPROTO, "the reply has no access_token");
	if (r < 0)
		return kn_while(err, "%s/oauth/token", c->gateway);

	kn_rfc3339(kn_wall_ns() + expires_in * KN_NS_PER_S, expires);
	json_t *node = kn_config_node_make(c->config, c->gateway);
	if (!node || json_object_set_new(node, "client_id", json_string(client_id)) < 0 ||
	    json_object_set_new(node, "client_secret", json_string(secret)) < 0 ||
	    json_object_set_new(node, "token", json_string(token)) < 0 ||
	    json_object_set_new(node, "expires", json_string(expires)) < 0)
		return kn_fail(err, ENOMEM, "out of memory");
	return set_token(c, token, err);
}

static int get_token(struct kn_node *c, const char *client_id, const char *secret,
		     struct kn_err *err)
{
	kn_auto(kn_node_reply_fini) struct kn_node_reply reply = KN_NODE_REPLY_INIT;
	kn_auto(json_decref) json_t *grant = NULL;
	const struct kn_node_request req = {
		.method = "POST",
		.path = "/oauth/token",
		.content_type = "application/x-www-form-urlencoded",
		.body = KN_VIEW("grant_type=client_credentials"),
		.basic = true,
		.user = client_id,
		.password = secret,
	};

	int r = kn_exchange(c, &req, &reply, err);
	if (r < 0)
		return r;
	if (reply.status == 401 || reply.status == 400)
		return kn_fail(err, EACCES,
			       "%s does not know this client id with this secret: the "
			       "first ones stand in the file 'credentials' of its state folder",
			       c->gateway);
	r = kn_node_check(c, &reply, err);
	if (r == 0)
		r = kn_json_parse(kn_buf_view(&reply.body), &grant, err);
	if (r < 0)
		return kn_while(err, "get a token");
	return keep_login(c, client_id, secret, grant, err);
}

int kn_node_login(struct kn_node *c, const char *client_id, const char *secret, struct kn_err *err)
{
	int r = get_token(c, client_id, secret, err);

	if (r < 0)
		return r;
	if (json_object_set_new(c->config, "gateway", json_string(c->gateway)) < 0)
		return kn_fail(err, ENOMEM, "out of memory");
	return kn_config_save(c->config, err);
}

static int renew(struct kn_node *c, const json_t *node, struct kn_err *err)
{
	const char *id = json_string_value(json_object_get(node, "client_id"));
	const char *secret = json_string_value(json_object_get(node, "client_secret"));

	if (!id || !secret)
		return 0;
	/* Copies: keep_login() replaces the values that these are borrowed from. */
	kn_auto(kn_free) char *id_copy = strdup(id);
	kn_auto(kn_free) char *secret_copy = strdup(secret);
	if (!id_copy || !secret_copy)
		return kn_fail(err, ENOMEM, "out of memory");
	int r = get_token(c, id_copy, secret_copy, err);
	if (r < 0)
		return kn_while(err, "renew the token");
	return kn_config_save(c->config, err);
}

static bool fresh(const json_t *node)
{
	const char *expires = json_string_value(json_object_get(node, "expires"));
	uint64_t expires_ns = 0;

	return expires && kn_parse_rfc3339(kn_view_of(expires), &expires_ns, NULL) == 0 &&
	       kn_wall_ns() + EARLY_S * KN_NS_PER_S < expires_ns;
}

/* A token that was not given comes from the login; without a login the request goes without. */
static int have_token(struct kn_node *c, struct kn_err *err)
{
	const json_t *node = kn_config_node(c->config, c->gateway);
	const char *token = json_string_value(json_object_get(node, "token"));

	if (c->token || !node)
		return 0;
	return token && fresh(node) ? set_token(c, token, err) : renew(c, node, err);
}

int kn_node_send(struct kn_node *c, const struct kn_node_request *req, struct kn_node_reply *ret,
		 struct kn_err *err)
{
	int r = req->basic ? 0 : have_token(c, err);

	if (r == 0)
		r = kn_exchange(c, req, ret, err);
	if (r < 0 || ret->status != 401 || c->given || req->basic || req->upload)
		return r;

	/* The node may have been made anew since: one fresh token, one more try. */
	const json_t *node = kn_config_node(c->config, c->gateway);
	if (!node || renew(c, node, NULL) < 0)
		return 0;
	return kn_exchange(c, req, ret, err);
}

/* ---- replies ------------------------------------------------------------------------------- */

static int code_of(int status)
{
	switch (status) {
	case 400:
	case 413:
	case 422:
		return EINVAL;
	case 401:
		return EACCES;
	case 403:
		return EPERM;
	case 404:
		return ENOENT;
	case 409:
		return EEXIST;
	case 429:
	case 503:
		return EAGAIN;
	case 504:
		return ETIMEDOUT;
	default:
		return EIO;
	}
}

/* The first line of a reply that is no JSON; a proxy's page is not worth more. */
static struct kn_view first_line(struct kn_view body)
{
	struct kn_view rest = kn_view_trim(body);
	struct kn_view line = KN_VIEW_NULL;

	kn_view_split(&rest, '\n', &line);
	line = kn_view_trim(line);
	line.len = kn_min(line.len, (size_t)200);
	return line;
}

int kn_node_check(const struct kn_node *c, const struct kn_node_reply *r, struct kn_err *err)
{
	kn_auto(json_decref) json_t *body = NULL;
	int code = code_of(r->status);

	if (r->status < 400)
		return 0;
	(void)!kn_json_parse(kn_buf_view(&r->body), &body, NULL);
	const char *reason = json_string_value(json_object_get(body, "error"));
	const char *hint = json_string_value(json_object_get(body, "hint"));
	struct kn_view line = reason ? kn_view_of(reason) : first_line(kn_buf_view(&r->body));

	if (r->status == 401)
		return kn_fail(err, code,
			       "%s: log in with 'kiln login --gateway %s --credentials "
			       "FILE' (FILE is 'credentials' in the node's state folder)",
			       c->given	  ? "the node refused this token"
			       : c->token ? "the node refused the login's token"
					  : "not logged in",
			       c->gateway);
	if (line.len == 0)
		return kn_fail(err, code, "the node answered %d without a reason", r->status);
	if (hint)
		return kn_fail(err, code, "%.*s (%s)", (int)line.len, line.ptr, hint);
	return kn_fail(err, code, "%.*s", (int)line.len, line.ptr);
}

int kn_node_json(struct kn_node *c, const struct kn_node_request *req, json_t **ret,
		 struct kn_err *err)
{
	kn_auto(kn_node_reply_fini) struct kn_node_reply reply = KN_NODE_REPLY_INIT;

	int r = kn_node_send(c, req, &reply, err);
	if (r == 0)
		r = kn_node_check(c, &reply, err);
	if (r < 0 || !ret)
		return r;
	r = kn_json_parse(kn_buf_view(&reply.body), ret, err);
	return r < 0 ? kn_while(err, "%s%s is no Kiln node's reply", c->gateway, req->path) : 0;
}

void kn_url_encode(struct kn_buf *b, struct kn_view text)
{
	static const char plain[] = "-._~";

	for (size_t i = 0; i < text.len; i++) {
		unsigned char ch = (unsigned char)text.ptr[i];
		bool alnum = (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') ||
			     (ch >= 'A' && ch <= 'Z');
		if (alnum || (ch && strchr(plain, ch)))
			kn_buf_add(b, &ch, 1);
		else
			kn_buf_printf(b, "%%%02X", ch);
	}
}
