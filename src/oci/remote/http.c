/*
 * One exchange with a registry. What it takes to be let in is learnt from its refusal: a challenge
 * names where a token is to be had, or asks for name and password; then the request is sent again. A
 * token goes to the registry's own host and to no other, also when the registry sends its clients on
 * to where it keeps its blobs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "oci/remote/private.h"

enum { CONNECT_TIMEOUT_MS = 10 * 1000, STALL_S = 60, MAX_REDIRECTS = 5, MAX_TOKEN_REPLY = 1 << 20 };

/* ---- life ------------------------------------------------------------------------------------- */

bool kn_remote_is_loopback(struct kn_view host)
{
	struct kn_view name = host;
	const char *colon = host.len ? memrchr(host.ptr, ':', host.len) : NULL;

	if (kn_view_starts(host, KN_VIEW("[::1]")))
		return true;
	if (colon)
		name.len = (size_t)(colon - host.ptr);
	if (kn_view_is(name, KN_VIEW("localhost")))
		return true;
	if (!kn_view_starts(name, KN_VIEW("127.")))
		return false;
	for (size_t i = 0; i < name.len; i++)   /* "127.example.org" is a name */
		if (name.ptr[i] != '.' && (name.ptr[i] < '0' || name.ptr[i] > '9'))
			return false;
	return true;
}

static int no_memory(struct kn_err *err)
{
	return kn_fail(err, ENOMEM, "registry: out of memory");
}

static void global_init(void)
{
	static bool done;

	if (!__atomic_exchange_n(&done, true, __ATOMIC_SEQ_CST))
		curl_global_init(CURL_GLOBAL_DEFAULT);
}

int kn_remote_open(const struct kn_remote_config *config, struct kn_remote **ret,
                   struct kn_err *err)
{
	kn_auto(kn_remote_close) struct kn_remote *r = calloc(1, sizeof(*r));

	if (!r)
		return no_memory(err);
	if (config->host.len == 0)
		return kn_fail(err, EINVAL, "which registry? The reference names none");
	global_init();
	r->curl = curl_easy_init();
	r->plain = config->plain_http || kn_remote_is_loopback(config->host);
	r->host = strndup(config->host.ptr, config->host.len);
	r->user = config->user && config->user[0] ? strdup(config->user) : NULL;
	r->password = r->user && config->password ? strdup(config->password) : NULL;
	r->token = config->token ? strdup(config->token) : NULL;
	r->progress = config->progress;
	r->phase = "connect";
	if (!r->host || asprintf(&r->base, "http%s://%s", r->plain ? "" : "s", r->host) < 0)
		r->base = NULL;
	if (!r->curl || !r->base || (config->token && !r->token) || (config->user && config->user[0] && !r->password))
		return no_memory(err);
	*ret = kn_take_ptr(r);
	return 0;
}

void kn_remote_close(struct kn_remote *r)
{
	if (!r)
		return;
	curl_easy_cleanup(r->curl);
	free(r->base);
	free(r->host);
	free(r->user);
	free(r->password);
	free(r->token);
	free(r);
}

void remote_reply_fini(struct remote_reply *r)
{
	kn_buf_fini(&r->body);
}

/* ---- one exchange ----------------------------------------------------------------------------- */

struct exchange {
	struct kn_remote *remote;
	const struct remote_call *call;
	struct remote_reply *reply;
	struct kn_err *err;
	uint64_t sent, received;
	int failed;               /* -errno: of the sink, of the body's file */
};

static void keep_field(struct kn_view value, char *out, size_t room)
{
	if (value.len < room) {
		memcpy(out, value.ptr, value.len);
		out[value.len] = '\0';
	}
}

static size_t take_header(char *ptr, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	struct kn_view value = { ptr, size * n }, name;

	if (kn_view_starts(value, KN_VIEW("HTTP/"))) {   /* also behind an interim reply or a redirect */
		x->reply->location[0] = x->reply->type[0] = x->reply->challenge[0] = '\0';
		return size * n;
	}
	if (!kn_view_split(&value, ':', &name) || !value.ptr)
		return size * n;
	value = kn_view_trim(value);
	if (kn_view_is_nocase(name, KN_VIEW("location")))
		keep_field(value, x->reply->location, sizeof(x->reply->location));
	else if (kn_view_is_nocase(name, KN_VIEW("content-type")))
		keep_field(value, x->reply->type, sizeof(x->reply->type));
	else if (kn_view_is_nocase(name, KN_VIEW("www-authenticate")) && !x->reply->challenge[0])
		keep_field(value, x->reply->challenge, sizeof(x->reply->challenge));
	return size * n;
}

static size_t take_body(char *ptr, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	long status = 0;

	curl_easy_getinfo(x->remote->curl, CURLINFO_RESPONSE_CODE, &status);
	x->received += size * n;
	if (x->call->sink && status >= 200 && status < 300) {
		x->failed = x->call->sink(ptr, size * n, x->call->arg, x->err);
		return x->failed < 0 ? 0 : size * n;
	}
	if (x->reply->body.len + size * n > KN_SPEC_MAX_BYTES) {
		x->failed = kn_fail(x->err, EFBIG, "the registry's reply is larger than %d bytes",
		                    KN_SPEC_MAX_BYTES);
		return 0;
	}
	kn_buf_add(&x->reply->body, ptr, size * n);
	return size * n;
}

static size_t give_body(char *ptr, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	size_t room = size * n;

	if (x->call->body_fd < 0) {
		room = kn_min(room, x->call->body.len - (size_t)x->sent);
		memcpy(ptr, x->call->body.ptr + x->sent, room);
		x->sent += room;
		return room;
	}
	ssize_t got = pread(x->call->body_fd, ptr, room, (off_t)x->sent);
	if (got < 0) {
		x->failed = kn_fail(x->err, errno, "read a blob: %s", strerror(errno));
		return CURL_READFUNC_ABORT;
	}
	x->sent += (uint64_t)got;
	return (size_t)got;
}

static int seek_body(void *arg, curl_off_t offset, int origin)
{
	if (origin != SEEK_SET || offset < 0)
		return CURL_SEEKFUNC_CANTSEEK;
	((struct exchange *)arg)->sent = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

static int tell_progress(void *arg, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                         curl_off_t up)
{
	const struct exchange *x = arg;
	const struct kn_remote *r = x->remote;

	(void)down_total, (void)down, (void)up_total, (void)up;
	return kn_progress_step(r->progress, r->phase, r->told + x->received + x->sent, r->total) ? 0 : 1;
}

static bool add_header(struct curl_slist **list, const char *name, const char *value)
{
	kn_auto(kn_buf_fini) struct kn_buf line = KN_BUF_INIT;

	if (!value)
		return true;
	kn_buf_printf(&line, "%s%s", name, value);
	struct curl_slist *grown = line.failed ? NULL : curl_slist_append(*list, line.ptr);
	if (grown)
		*list = grown;
	return grown != NULL;
}

static void set_body(CURL *curl, struct exchange *x)
{
	const struct remote_call *call = x->call;
	const uint64_t bytes = call->body_fd >= 0 ? call->body_bytes : call->body.len;
	const char *method = call->method ? call->method : "GET";

	if (strcmp(method, "PUT") == 0 || bytes > 0) {
		curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)bytes);
	} else if (strcmp(method, "POST") == 0) {
		curl_easy_setopt(curl, CURLOPT_POST, 1L);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
	} else if (strcmp(method, "HEAD") == 0) {
		curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	}
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(curl, CURLOPT_READFUNCTION, give_body);
	curl_easy_setopt(curl, CURLOPT_READDATA, x);
	curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, seek_body);
	curl_easy_setopt(curl, CURLOPT_SEEKDATA, x);
}

/* Does this URL lead to the registry itself? Its Location may name another host. */
static bool is_own(const struct kn_remote *r, const char *url)
{
	const size_t len = strlen(r->base);

	return strncmp(url, r->base, len) == 0 && (url[len] == '/' || url[len] == '?' || !url[len]);
}

static void set_login(CURL *curl, const struct kn_remote *r)
{
	if (r->token) {
		curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
		curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, r->token);
	} else if (r->basic && r->user) {
		curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		curl_easy_setopt(curl, CURLOPT_USERNAME, r->user);
		curl_easy_setopt(curl, CURLOPT_PASSWORD, r->password);
	}
}

static void set_options(struct exchange *x, const char *url)
{
	const struct kn_remote *r = x->remote;
	CURL *curl = r->curl;
	const char *protocols = r->plain ? "http,https" : "https";

	curl_easy_reset(curl);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, protocols);
	curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, protocols);
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
	curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "kiln/" KN_VERSION);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, r->why);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, x);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, tell_progress);
	curl_easy_setopt(curl, CURLOPT_XFERINFODATA, x);
	if (kn_remote_is_loopback(kn_view_of(r->host)))
		curl_easy_setopt(curl, CURLOPT_PROXY, "");
}

static int tell_curl(const struct exchange *x, CURLcode code, struct kn_err *err)
{
	const struct kn_remote *r = x->remote;
	const char *why = r->why[0] ? r->why : curl_easy_strerror(code);

	switch ((int)code) {
	case CURLE_ABORTED_BY_CALLBACK:
		return kn_fail(err, ECANCELED, "the transfer was cancelled");
	case CURLE_COULDNT_CONNECT:
		return kn_fail(err, ECONNREFUSED, "registry %s: %s", r->host, why);
	case CURLE_COULDNT_RESOLVE_HOST:
		return kn_fail(err, EHOSTUNREACH, "registry %s: %s", r->host, why);
	case CURLE_OPERATION_TIMEDOUT:
		return kn_fail(err, ETIMEDOUT, "registry %s: %s", r->host, why);
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
		return kn_fail(err, EPROTO, "registry %s: %s; a registry without TLS must be named: "
		               "kilnd --plain-http %s", r->host, why, r->host);
	default:
		return kn_fail(err, EPROTO, "registry %s: %s", r->host, why);
	}
}

static int send_once(struct kn_remote *r, const struct remote_call *call, const char *url,
                     bool login, struct remote_reply *reply, struct kn_err *err)
{
	struct kn_err why = KN_ERR_INIT;
	struct exchange x = { .remote = r, .call = call, .reply = reply, .err = &why };
	struct curl_slist *headers = NULL;
	long status = 0;

	kn_buf_clear(&reply->body);
	r->why[0] = '\0';
	set_options(&x, url);
	set_body(r->curl, &x);
	if (login)
		set_login(r->curl, r);
	const bool ok = add_header(&headers, "Accept: ", call->accept) &&
	                add_header(&headers, "Content-Type: ", call->content_type) &&
	                add_header(&headers, "", "Expect:");
	curl_easy_setopt(r->curl, CURLOPT_HTTPHEADER, headers);
	CURLcode code = ok ? curl_easy_perform(r->curl) : CURLE_OUT_OF_MEMORY;
	curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_slist_free_all(headers);
	reply->status = (int)status;
	if (!ok || reply->body.failed)
		return no_memory(err);
	if (x.failed < 0) {
		if (err)
			*err = why;
		return x.failed;
	}
	/* A registry may refuse a blob before all of it is sent: its reason counts then. */
	if (code != CURLE_OK && !(code == CURLE_SEND_ERROR && status >= 400))
		return tell_curl(&x, code, err);
	return 0;
}

/* ---- being let in ----------------------------------------------------------------------------- */

static void encode(struct kn_buf *b, CURL *curl, const char *text)
{
	char *escaped = curl_easy_escape(curl, text, 0);

	kn_buf_adds(b, escaped ? escaped : "");
	b->failed |= !escaped;
	curl_free(escaped);
}

static int token_take(struct kn_remote *r, const struct remote_reply *reply, struct kn_err *err)
{
	kn_auto(json_decref) json_t *o = NULL;
	const char *token = NULL;

	int code = kn_json_parse(kn_buf_view(&reply->body), &o, err);
	if (code == 0)
		code = kn_json_str(o, "token", &token, err);
	if (code == 0 && !token)
		code = kn_json_str(o, "access_token", &token, err);
	if (code < 0)
		return kn_while(err, "token of registry %s", r->host);
	if (!token || !token[0] || strlen(token) > MAX_TOKEN_REPLY)
		return kn_fail(err, EPROTO, "registry %s: its token service gave no token", r->host);
	free(r->token);
	r->token = strdup(token);
	return r->token ? 0 : no_memory(err);
}

/* The password goes over TLS, or stays on this machine, or where plain HTTP was asked for. */
static bool may_have_password(const struct kn_remote *r, const char *realm)
{
	return strncmp(realm, "https://", 8) == 0 || (r->plain && is_own(r, realm)) ||
	       (strncmp(realm, "http://", 7) == 0 &&
	        kn_remote_is_loopback((struct kn_view){ realm + 7, strcspn(realm + 7, "/?") }));
}

static int token_get(struct kn_remote *r, const struct challenge *c, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf url = KN_BUF_INIT;
	__attribute__((cleanup(remote_reply_fini_auto))) struct remote_reply reply = REMOTE_REPLY;
	const bool basic = r->basic;

	kn_buf_printf(&url, "%s%sservice=", c->realm, strchr(c->realm, '?') ? "&" : "?");
	encode(&url, r->curl, c->service);
	if (c->scope[0]) {
		kn_buf_adds(&url, "&scope=");
		encode(&url, r->curl, c->scope);
	}
	if (url.failed)
		return no_memory(err);
	free(kn_take_ptr(r->token));
	r->basic = may_have_password(r, c->realm);
	int code = send_once(r, &REMOTE_CALL, url.ptr, true, &reply, err);
	r->basic = basic;
	if (code == 0)
		code = remote_check(r, &reply, "the token service", err);
	return code < 0 ? code : token_take(r, &reply, err);
}

static int let_in(struct kn_remote *r, const struct remote_reply *refused, struct kn_err *err)
{
	struct challenge c;

	int code = challenge_parse(kn_view_of(refused->challenge), &c, err);
	if (code < 0)
		return kn_while(err, "registry %s", r->host);
	if (c.bearer)
		return token_get(r, &c, err);
	if (!r->user)
		return kn_fail(err, EACCES, "registry %s wants a name and a password: see kilnd "
		               "--registry-auth, or kiln image pull --creds", r->host);
	free(kn_take_ptr(r->token));
	r->basic = true;
	return 0;
}

int remote_send(struct kn_remote *r, const struct remote_call *call, struct remote_reply *ret,
                struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf url = KN_BUF_INIT;
	const bool whole = strstr(call->path, "://") != NULL;

	kn_buf_printf(&url, "%s%s", whole ? "" : r->base, call->path);
	if (url.failed)
		return no_memory(err);
	const bool own = !whole || is_own(r, url.ptr);
	int code = send_once(r, call, url.ptr, own, ret, err);
	if (code < 0 || ret->status != 401 || !own)
		return code;
	code = let_in(r, ret, err);
	return code < 0 ? code : send_once(r, call, url.ptr, own, ret, err);
}

/* ---- what a registry says --------------------------------------------------------------------- */

/* The message of the first error, as the specification writes it. Into text. */
static void message_of(const struct remote_reply *reply, char *text, size_t room)
{
	kn_auto(json_decref) json_t *o = NULL;
	const char *code = NULL, *message = NULL;

	text[0] = '\0';
	if (kn_json_parse(kn_buf_view(&reply->body), &o, NULL) < 0)
		return;
	const json_t *first = json_array_get(json_object_get(o, "errors"), 0);
	code = json_string_value(json_object_get(first, "code"));
	message = json_string_value(json_object_get(first, "message"));
	if (code)
		snprintf(text, room, ": %.60s%s%.200s", code, message ? ", " : "", message ? message : "");
}

int remote_check(const struct kn_remote *r, const struct remote_reply *reply, const char *what,
                 struct kn_err *err)
{
	char says[300];
	int code = EPROTO;

	if (reply->status >= 200 && reply->status < 300)
		return 0;
	message_of(reply, says, sizeof(says));
	switch (reply->status) {
	case 401:
	case 403:
		code = EACCES;
		break;
	case 404:
		code = ENOENT;
		break;
	case 429:
	case 503:
		code = EAGAIN;
		break;
	case 507:
		code = ENOSPC;
		break;
	default:
		break;
	}
	return kn_fail(err, code, "registry %s answers %d for %.150s%s", r->host, reply->status, what,
	               says);
}
