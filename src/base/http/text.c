#include "base/http.h"

#include <errno.h>

struct kn_view kn_http_header(const struct kn_http_head *h, const char *name)
{
	struct kn_view want = kn_view_of(name);

	for (size_t i = 0; i < h->n_headers; i++) {
		if (kn_view_is_nocase(h->headers[i].name, want))
			return h->headers[i].value;
	}
	return KN_VIEW_NULL;
}

bool kn_http_query(struct kn_view query, const char *key, struct kn_view *ret)
{
	struct kn_view want = kn_view_of(key), pair;

	while (kn_view_split(&query, '&', &pair)) {
		const char *eq = pair.len ? memchr(pair.ptr, '=', pair.len) : NULL;
		size_t n = eq ? (size_t)(eq - pair.ptr) : pair.len;
		if (!kn_view_is((struct kn_view){ pair.ptr, n }, want))
			continue;
		*ret = eq ? (struct kn_view){ eq + 1, pair.len - n - 1 } : KN_VIEW("");
		return true;
	}
	return false;
}

int kn_http_decode(struct kn_arena *a, struct kn_view v, struct kn_view *ret, struct kn_err *err)
{
	char *out = kn_arena_alloc(a, v.len + 1);
	if (!out)
		return kn_fail(err, ENOMEM, "out of memory for a path");

	size_t n = 0;
	for (size_t i = 0; i < v.len; i++) {
		unsigned char c = (unsigned char)v.ptr[i];
		if (c == '%') {
			if (v.len - i < 3 ||
			    kn_unhex((struct kn_view){ v.ptr + i + 1, 2 }, &c, 1, NULL) < 0 ||
			    c == 0)
				return kn_fail(err, EINVAL, "a broken %%-escape");
			i += 2;
		}
		out[n++] = (char)c;
	}
	*ret = (struct kn_view){ out, n };
	return 0;
}

const char *kn_http_reason(int status)
{
	switch (status) {
	case 100:
		return "Continue";
	case 200:
		return "OK";
	case 201:
		return "Created";
	case 202:
		return "Accepted";
	case 204:
		return "No Content";
	case 206:
		return "Partial Content";
	case 301:
		return "Moved Permanently";
	case 302:
		return "Found";
	case 303:
		return "See Other";
	case 304:
		return "Not Modified";
	case 307:
		return "Temporary Redirect";
	case 308:
		return "Permanent Redirect";
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 408:
		return "Request Timeout";
	case 409:
		return "Conflict";
	case 411:
		return "Length Required";
	case 413:
		return "Content Too Large";
	case 415:
		return "Unsupported Media Type";
	case 416:
		return "Range Not Satisfiable";
	case 422:
		return "Unprocessable Content";
	case 429:
		return "Too Many Requests";
	case 431:
		return "Request Header Fields Too Large";
	case 500:
		return "Internal Server Error";
	case 501:
		return "Not Implemented";
	case 502:
		return "Bad Gateway";
	case 503:
		return "Service Unavailable";
	case 504:
		return "Gateway Timeout";
	case 505:
		return "HTTP Version Not Supported";
	case 507:
		return "Insufficient Storage";
	default:
		return status < 300 ? "Success" : status < 400 ? "Redirect" : "Error";
	}
}
