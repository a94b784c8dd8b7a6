#include "cmd/kiln/exchange.h"

#include <errno.h>
#include <stdio.h>

enum {
	REPLY_MAX = 64 * 1024 * 1024, /* a reply that is kept whole */
	CONNECT_TIMEOUT_MS = 5000,
};

int kn_exchange_init(struct kn_node *c, struct kn_err *err)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
	c->curl = curl_easy_init();
	return c->curl ? 0 : kn_fail(err, ENOMEM, "out of memory");
}

void kn_exchange_fini(struct kn_node *c)
{
	curl_easy_cleanup(c->curl);
	c->curl = NULL;
}

struct exchange {
	struct kn_node *client;
	const struct kn_node_request *req;
	struct kn_node_reply *reply;
	size_t sent; /* of req->body */
	int failed;  /* -errno of a callback */
};

static size_t take_header(char *ptr, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	struct kn_view line = { ptr, size * n };

	if (kn_view_starts(line, KN_VIEW("HTTP/"))) /* also after an interim 100 reply */
		kn_buf_clear(&x->reply->head);
	else
		kn_buf_add_view(&x->reply->head, line);
	return size * n;
}

static size_t take_body(char *ptr, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	long status = 0;

	curl_easy_getinfo(x->client->curl, CURLINFO_RESPONSE_CODE, &status);
	if (x->req->download && status < 400) {
		x->failed = x->req->download(ptr, size * n, x->req->arg);
		return x->failed < 0 ? 0 : size * n;
	}
	if (x->reply->body.len + size * n > REPLY_MAX) {
		x->failed = -EMSGSIZE;
		return 0;
	}
	kn_buf_add(&x->reply->body, ptr, size * n);
	return size * n;
}

static size_t give_body(char *ptr, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	size_t room = size * n;

	if (!x->req->upload) {
		size_t len = kn_min(room, x->req->body.len - x->sent);
		memcpy(ptr, x->req->body.ptr + x->sent, len);
		x->sent += len;
		return len;
	}
	ssize_t len = x->req->upload(ptr, room, x->req->arg);
	if (len < 0) {
		x->failed = (int)len;
		return CURL_READFUNC_ABORT;
	}
	return (size_t)len;
}

static bool add_header(struct curl_slist **list, const char *line)
{
	struct curl_slist *grown = curl_slist_append(*list, line);

	if (grown)
		*list = grown;
	return grown != NULL;
}

static bool has_body(const struct kn_node_request *req)
{
	return req->upload || req->body.len > 0 || req->content_type;
}

static int make_headers(const struct kn_node *c, const struct kn_node_request *req,
			struct curl_slist **ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf line = KN_BUF_INIT;
	bool ok = true;

	if (has_body(req)) {
		kn_buf_printf(&line, "Content-Type: %s",
			      req->content_type ? req->content_type : "application/json");
		ok = !line.failed && add_header(ret, line.ptr);
	}
	if (c->token && !req->basic) {
		kn_buf_clear(&line);
		kn_buf_printf(&line, "Authorization: Bearer %s", c->token);
		ok = ok && !line.failed && add_header(ret, line.ptr);
	}
	for (size_t i = 0; i < req->n_headers; i++) /* the last word is the user's */
		ok = ok && add_header(ret, req->headers[i]);
	return ok ? 0 : kn_fail(err, ENOMEM, "out of memory");
}

static bool is_loopback(const char *gateway)
{
	struct kn_view host = kn_view_of(strstr(gateway, "://") + 3);

	return kn_view_starts(host, KN_VIEW("127.")) ||
	       kn_view_starts(host, KN_VIEW("localhost")) || kn_view_starts(host, KN_VIEW("[::1]"));
}

static void set_body(CURL *curl, const struct kn_node_request *req)
{
	if (!has_body(req)) {
		if (req->method && strcmp(req->method, "POST") == 0)
			curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0);
		return;
	}
	curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
	if (!req->upload)
		curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)req->body.len);
	else if (req->upload_bytes > 0)
		curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)req->upload_bytes);
}

static void set_options(struct exchange *x, const char *url, struct curl_slist *headers)
{
	CURL *curl = x->client->curl;
	const struct kn_node_request *req = x->req;

	curl_easy_reset(curl);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "kiln/" KN_VERSION);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, x->client->curl_err);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)req->timeout_ms);
	curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, x);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(curl, CURLOPT_READFUNCTION, give_body);
	curl_easy_setopt(curl, CURLOPT_READDATA, x);
	if (is_loopback(x->client->gateway))
		curl_easy_setopt(curl, CURLOPT_PROXY, "");
	set_body(curl, req);
	if (req->method && strcmp(req->method, "HEAD") == 0)
		curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, req->method ? req->method : "GET");
	if (req->basic) {
		curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		curl_easy_setopt(curl, CURLOPT_USERNAME, req->user);
		curl_easy_setopt(curl, CURLOPT_PASSWORD, req->password);
	}
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
}

/* What libcurl says, as what a person can do about it. */
static int tell_curl(const struct exchange *x, CURLcode code, struct kn_err *err)
{
	const char *gateway = x->client->gateway;
	const char *why = x->client->curl_err[0] ? x->client->curl_err : curl_easy_strerror(code);

	if (x->failed == -EMSGSIZE)
		return kn_fail(err, EMSGSIZE, "the reply is larger than %d MiB", REPLY_MAX >> 20);
	if (x->failed < 0)
		return err && err->code ? -err->code
					: kn_fail(err, -x->failed, "%s", strerror(-x->failed));
	if (code == CURLE_COULDNT_CONNECT)
		return kn_fail(err, ECONNREFUSED,
			       "no node answers at %s: start one with 'kilnd --state DIR', or name "
			       "another with --gateway URL",
			       gateway);
	if (code == CURLE_COULDNT_RESOLVE_HOST)
		return kn_fail(err, EHOSTUNREACH, "the name in %s is not known: %s", gateway, why);
	if (code == CURLE_OPERATION_TIMEDOUT)
		return kn_fail(err, ETIMEDOUT, "%s gave no answer in time: %s", gateway, why);
	if (code == CURLE_URL_MALFORMAT)
		return kn_fail(err, EINVAL, "gateway '%s' must look like http://ADDRESS:PORT",
			       gateway);
	return kn_fail(err, EPROTO, "%s: %s", gateway, why);
}

int kn_exchange(struct kn_node *c, const struct kn_node_request *req, struct kn_node_reply *ret,
		struct kn_err *err)
{
	struct exchange x = { .client = c, .req = req, .reply = ret };
	kn_auto(kn_buf_fini) struct kn_buf url = KN_BUF_INIT;
	struct curl_slist *headers = NULL;
	long status = 0;

	kn_buf_printf(&url, "%s%s", c->gateway, req->path);
	if (url.failed)
		return kn_fail(err, ENOMEM, "out of memory");
	int r = make_headers(c, req, &headers, err);
	if (r == 0) {
		kn_buf_clear(&ret->head);
		kn_buf_clear(&ret->body);
		c->curl_err[0] = '\0';
		set_options(&x, url.ptr, headers);
		CURLcode code = curl_easy_perform(c->curl);
		curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
		/* A node may refuse an upload before all of it is sent: its reason counts then. */
		if (code != CURLE_OK && !(code == CURLE_SEND_ERROR && status >= 400))
			r = tell_curl(&x, code, err);
	}
	curl_slist_free_all(headers);
	if (r == 0 && (ret->body.failed || ret->head.failed))
		r = kn_fail(err, ENOMEM, "out of memory");
	ret->status = (int)status;
	return r;
}

void kn_node_reply_fini(struct kn_node_reply *r)
{
	kn_buf_fini(&r->head);
	kn_buf_fini(&r->body);
}

struct kn_view kn_node_reply_header(const struct kn_node_reply *r, const char *name)
{
	struct kn_view rest = kn_buf_view(&r->head);
	struct kn_view line, field;

	while (kn_view_split(&rest, '\n', &line)) {
		if (kn_view_split(&line, ':', &field) && line.ptr &&
		    kn_view_is_nocase(kn_view_trim(field), kn_view_of(name)))
			return kn_view_trim(line);
	}
	return KN_VIEW_NULL;
}
