/*
 * HTTP messages from the network. The first byte chooses request or reply and where the input is
 * cut, because a parser must say the same however its bytes arrive.
 */
#include "fuzz.h"

#include "base/http.h"

static void check_head(const struct kn_http_head *h, struct kn_view buf, ssize_t len)
{
	must(len > 0 && (size_t)len <= buf.len);
	must(h->n_headers <= KN_HTTP_MAX_HEADERS);
	must(!(h->chunked && h->content_length >= 0));
	for (size_t i = 0; i < h->n_headers; i++) {
		const struct kn_view *name = &h->headers[i].name, *value = &h->headers[i].value;
		must(name->len && name->ptr >= buf.ptr && name->ptr + name->len <= buf.ptr + len);
		must(!value->len || (value->ptr >= buf.ptr && value->ptr + value->len <= buf.ptr + len));
	}
}

static void parse_body(struct kn_http_parser *p, struct kn_view rest)
{
	struct kn_http_body_step step = { 0 };

	while (!step.done) {
		if (kn_http_parse_body(p, rest, &step, NULL) < 0)
			return;
		must(step.used <= rest.len && step.data.len <= rest.len);
		if (step.used == 0 && !step.done) {
			must(rest.len == 0);
			break;
		}
		rest = (struct kn_view){ rest.ptr + step.used, rest.len - step.used };
	}
	if (!step.done)
		kn_http_parse_eof(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_http_parser *p;
	struct kn_http_head head;
	struct kn_err err = KN_ERR_INIT;

	if (size < 2)
		return 0;
	struct kn_view buf = fuzz_view(data + 1, size - 1);
	enum kn_http_kind kind = data[0] & 1 ? KN_HTTP_REPLY : KN_HTTP_REQUEST;
	if (kn_http_parser_new(kind, &p, &err) < 0)
		return 0;

	/* A part first: it must be "more", or the same verdict that the whole gets. */
	struct kn_view part = { buf.ptr, buf.len * (data[0] >> 1) / 128 };
	kn_http_parser_reset(p, false);
	ssize_t early = kn_http_parse_head(p, part, KN_HTTP_MAX_HEAD, &head, &err);
	kn_http_parser_reset(p, false);
	ssize_t n = kn_http_parse_head(p, buf, KN_HTTP_MAX_HEAD, &head, &err);
	if (early > 0)
		must(n == early);
	if (n > 0) {
		check_head(&head, buf, n);
		parse_body(p, (struct kn_view){ buf.ptr + n, buf.len - (size_t)n });
	}
	kn_http_parser_free(p);
	return 0;
}
