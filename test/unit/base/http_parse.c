/* The parser alone: (pointer, length) in, no socket. */
#include <errno.h>
#include <stdlib.h>

#include "test.h"

#include "base/http.h"

static struct kn_http_parser *new_parser(enum kn_http_kind kind)
{
	struct kn_http_parser *p = NULL;

	assert_int_equal(kn_http_parser_new(kind, &p, NULL), 0);
	kn_http_parser_reset(p, false);
	return p;
}

/* An exact heap copy, so that the sanitizer sees a read past the end. */
static ssize_t parse_exact(struct kn_http_parser *p, const char *text, size_t len,
			   struct kn_http_head *ret, char **ret_copy)
{
	struct kn_err err = KN_ERR_INIT;
	char *copy = malloc(len ? len : 1);

	memcpy(copy, text, len);
	ssize_t n =
		kn_http_parse_head(p, (struct kn_view){ copy, len }, KN_HTTP_MAX_HEAD, ret, &err);
	if (n < 0)
		assert_true(err.text[0] != 0);
	*ret_copy = copy;
	return n;
}

static void a_request_head_is_taken_apart(void **state)
{
	static const char TEXT[] = "POST /function/a/b?x=1&y HTTP/1.1\r\nHost: h\r\n"
				   "Content-Length: 5\r\nX-Empty:\r\nX-Pad: \t v \r\n\r\nhello";
	struct kn_http_parser *p = new_parser(KN_HTTP_REQUEST);
	struct kn_http_head h;
	char *copy;

	(void)state;
	ssize_t n = parse_exact(p, TEXT, sizeof(TEXT) - 1, &h, &copy);
	assert_int_equal(n, sizeof(TEXT) - 1 - 5);
	assert_true(kn_view_is(h.method, KN_VIEW("POST")));
	assert_true(kn_view_is(h.path, KN_VIEW("/function/a/b")));
	assert_true(kn_view_is(h.query, KN_VIEW("x=1&y")));
	assert_int_equal(h.content_length, 5);
	assert_int_equal(h.n_headers, 4);
	assert_true(kn_view_is(kn_http_header(&h, "x-pad"), KN_VIEW("v")));
	assert_int_equal(kn_http_header(&h, "x-empty").len, 0);
	assert_null(kn_http_header(&h, "x-missing").ptr);
	assert_true(h.keep_alive);

	struct kn_view v;
	assert_true(kn_http_query(h.query, "x", &v) && kn_view_is(v, KN_VIEW("1")));
	assert_true(kn_http_query(h.query, "y", &v) && v.len == 0);
	assert_false(kn_http_query(h.query, "z", &v));
	free(copy);
	kn_http_parser_free(p);
}

static void every_prefix_of_a_head_is_incomplete(void **state)
{
	static const char TEXT[] = "GET /x HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n";
	struct kn_http_parser *p = new_parser(KN_HTTP_REQUEST);

	(void)state;
	for (size_t n = 0; n < sizeof(TEXT) - 1; n++) {
		struct kn_http_head h;
		char *copy;
		assert_int_equal(parse_exact(p, TEXT, n, &h, &copy), 0);
		free(copy);
	}
	kn_http_parser_free(p);
}

struct bad {
	const char *text;
	int code;
};

/* What proxies are known to frame differently, and what is malformed. */
static const struct bad BAD_REQUESTS[] = {
	{ "GET / HTTP/1.1\r\n\r\n", EBADMSG },
	{ "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", EBADMSG },
	{ "GET / HTTP/1.1\nHost: a\n\n", EBADMSG },
	{ "GET / HTTP/1.1\r\nHost: a\n\r\n", EBADMSG },
	{ "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", EBADMSG },
	{ "GET / HTTP/1.1\r\nHost: a\r\n\tfold\r\n\r\n", EBADMSG },
	{ "GET / HTTP/1.1\r\n Host: a\r\n\r\n", EBADMSG },
	{ "GET / HTTP/1.1\r\nHost : a\r\n\r\n", EBADMSG },
	{ "GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", EBADMSG },
	{ "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", EBADMSG },
	{ "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01"
	  "b\r\n\r\n",
	  EBADMSG },
	{ "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", EBADMSG },
	{ "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", EBADMSG },
	{ "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", EBADMSG },
	{ "GET x HTTP/1.1\r\nHost: a\r\n\r\n", EBADMSG },
	{ "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", EBADMSG },
	{ "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", EBADMSG },
	{ "GET / HTTP/2.0\r\nHost: a\r\n\r\n", EPROTONOSUPPORT },
	{ "GET / HTTP/0.9\r\nHost: a\r\n\r\n", EPROTONOSUPPORT },
	{ "GET / HTTP/1.10\r\nHost: a\r\n\r\n", EPROTONOSUPPORT },
	{ "GET /\r\n\r\n", EPROTONOSUPPORT },
	{ "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", ENOSYS },
	{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\n", EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
	  EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
	  EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
	  "Transfer-Encoding: chunked\r\n\r\n",
	  EBADMSG },
	{ "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", EBADMSG },
	{ "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ENOSYS },
};

static void ambiguous_and_malformed_requests_are_refused(void **state)
{
	struct kn_http_parser *p = new_parser(KN_HTTP_REQUEST);

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(BAD_REQUESTS); i++) {
		struct kn_http_head h;
		char *copy;
		const struct bad *b = &BAD_REQUESTS[i];
		kn_http_parser_reset(p, false);
		ssize_t n = parse_exact(p, b->text, strlen(b->text), &h, &copy);
		if (n != -b->code)
			fail_msg("request %zu gave %zd instead of %d: %s", i, n, -b->code, b->text);
		free(copy);
	}
	kn_http_parser_free(p);
}

static void transfer_coding_tricks_are_refused_with_either_status(void **state)
{
	static const char *const TRICKS[] = { "xchunked",    "chunked, identity", "\vchunked",
					      "chunked;q=1", "identity",	  "chunked chunked",
					      "\"chunked\"" };
	struct kn_http_parser *p = new_parser(KN_HTTP_REQUEST);

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(TRICKS); i++) {
		char text[200], *copy;
		struct kn_http_head h;
		int len = snprintf(text, sizeof(text),
				   "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: %s\r\n\r\n",
				   TRICKS[i]);
		kn_http_parser_reset(p, false);
		ssize_t n = parse_exact(p, text, (size_t)len, &h, &copy);
		if (n != -EBADMSG && n != -ENOSYS)
			fail_msg("coding '%s' gave %zd", TRICKS[i], n);
		free(copy);
	}
	kn_http_parser_free(p);
}

static void nul_bytes_and_too_many_fields_are_refused(void **state)
{
	static const char NUL[] = "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n";
	struct kn_http_parser *p = new_parser(KN_HTTP_REQUEST);
	struct kn_http_head h;
	char *copy;

	(void)state;
	assert_int_equal(parse_exact(p, NUL, sizeof(NUL) - 1, &h, &copy), -EBADMSG);
	free(copy);

	kn_auto(kn_buf_fini) struct kn_buf many = KN_BUF_INIT;
	kn_buf_adds(&many, "GET / HTTP/1.1\r\nHost: a\r\n");
	for (int i = 0; i < KN_HTTP_MAX_HEADERS; i++)
		kn_buf_adds(&many, "A: b\r\n");
	kn_buf_adds(&many, "\r\n");
	kn_http_parser_reset(p, false);
	assert_int_equal(parse_exact(p, many.ptr, many.len, &h, &copy), -EMSGSIZE);
	free(copy);

	kn_http_parser_reset(p, false);
	assert_int_equal(kn_http_parse_head(p, KN_VIEW("GET /aaaaaaaaaaaaaaaa"), 16, &h, NULL),
			 -EMSGSIZE);
	kn_http_parser_free(p);
}

static void absolute_targets_and_leading_empty_lines_are_taken(void **state)
{
	static const char TEXT[] =
		"\r\n\r\nGET http://h:80/p?q HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
	struct kn_http_parser *p = new_parser(KN_HTTP_REQUEST);
	struct kn_http_head h;
	char *copy;

	(void)state;
	assert_int_equal(parse_exact(p, TEXT, sizeof(TEXT) - 1, &h, &copy), sizeof(TEXT) - 1);
	assert_true(kn_view_is(h.path, KN_VIEW("/p")));
	assert_true(kn_view_is(h.query, KN_VIEW("q")));
	assert_int_equal(h.minor, 0);
	assert_true(h.keep_alive);
	free(copy);
	kn_http_parser_free(p);
}

/* ---- bodies ---- */

static int read_whole_body(struct kn_http_parser *p, struct kn_view in, size_t step_bytes,
			   struct kn_buf *out, size_t *ret_used)
{
	size_t at = 0;
	bool done = false;

	while (at < in.len && !done) {
		struct kn_http_body_step s;
		size_t n = kn_min(step_bytes, in.len - at);
		char *exact = malloc(n);
		memcpy(exact, in.ptr + at, n);
		int r = kn_http_parse_body(p, (struct kn_view){ exact, n }, &s, NULL);
		if (r == 0)
			kn_buf_add_view(out, s.data);
		free(exact);
		if (r < 0)
			return r;
		at += s.used;
		done = s.done;
	}
	*ret_used = at;
	return done;
}

static struct kn_http_parser *chunked_parser(void)
{
	struct kn_http_parser *p = new_parser(KN_HTTP_REQUEST);
	struct kn_http_head h;

	assert_true(
		kn_http_parse_head(
			p,
			KN_VIEW("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
			KN_HTTP_MAX_HEAD, &h, NULL) > 0);
	assert_true(h.chunked);
	return p;
}

static void chunks_give_the_same_body_however_they_are_cut(void **state)
{
	struct kn_view in = KN_VIEW(
		"5\r\nhello\r\n1;ext=\"v\"\r\n \r\n00006\r\nworld!\r\n0\r\nT: x\r\n\r\nNEXT");

	(void)state;
	for (size_t step = 1; step <= in.len; step++) {
		struct kn_http_parser *p = chunked_parser();
		kn_auto(kn_buf_fini) struct kn_buf out = KN_BUF_INIT;
		size_t used;
		assert_int_equal(read_whole_body(p, in, step, &out, &used), 1);
		assert_int_equal(used, in.len - 4);
		assert_true(kn_view_is(kn_buf_view(&out), KN_VIEW("hello world!")));
		kn_http_parser_free(p);
	}
}

static void malformed_chunks_are_refused(void **state)
{
	static const char *const BAD[] = {
		"5\nhello\r\n0\r\n\r\n",
		"0x5\r\nhello\r\n",
		"+5\r\nhello\r\n",
		" 5\r\nhello\r\n",
		"5 \r\nhello\r\n",
		"5\r\nhelloX\r\n",
		"5\r\nhello\n0\r\n\r\n",
		"-1\r\n",
		"\r\n",
		"g\r\n",
		"1000000000000000\r\n",
		"5;a\nb\r\nhello\r\n",
		"0\r\n bad: x\r\n\r\n",
		"0\r\nA: b\n\r\n",
		"5_0\r\n",
		"0\r\nA: b\r\r\n",
		"5;\x01\r\nhello\r\n",
		"0\r\n\r",
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(BAD); i++) {
		struct kn_http_parser *p = chunked_parser();
		kn_auto(kn_buf_fini) struct kn_buf out = KN_BUF_INIT;
		size_t used;
		bool last = i + 1 == KN_ARRAY_LEN(BAD); /* only incomplete */
		assert_int_equal(read_whole_body(p, kn_view_of(BAD[i]), 1, &out, &used),
				 last ? 0 : -EBADMSG);
		kn_http_parser_free(p);
	}
}

static void endless_extensions_and_trailers_are_bounded(void **state)
{
	(void)state;
	for (int trailers = 0; trailers < 2; trailers++) {
		struct kn_http_parser *p = chunked_parser();
		kn_auto(kn_buf_fini) struct kn_buf in = KN_BUF_INIT;
		kn_auto(kn_buf_fini) struct kn_buf out = KN_BUF_INIT;
		size_t used;
		kn_buf_adds(&in, trailers ? "0\r\n" : "5;");
		for (int i = 0; i < 20000; i++)
			kn_buf_adds(&in, trailers ? "A: b\r\n" : "x");
		assert_int_equal(read_whole_body(p, kn_buf_view(&in), 4096, &out, &used), -EBADMSG);
		kn_http_parser_free(p);
	}
}

struct reply_case {
	const char *text;
	bool head_request;
	size_t body; /* bytes of "BODYBODY" that belong to it */
	bool until_eof;
};

static void replies_end_where_the_specification_says(void **state)
{
	static const struct reply_case CASES[] = {
		{ "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", false, 4, false },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", true, 0, false },
		{ "HTTP/1.1 204 No\r\n\r\n", false, 0, false },
		{ "HTTP/1.1 304 Not\r\nContent-Length: 4\r\n\r\n", false, 0, false },
		{ "HTTP/1.1 200\r\n\r\n", false, 8, true },
		{ "HTTP/1.0 200 OK\r\n\r\n", false, 8, true },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(CASES); i++) {
		struct kn_http_parser *p = new_parser(KN_HTTP_REPLY);
		struct kn_http_head h;
		char *copy;
		kn_http_parser_reset(p, CASES[i].head_request);
		assert_true(parse_exact(p, CASES[i].text, strlen(CASES[i].text), &h, &copy) > 0);
		kn_auto(kn_buf_fini) struct kn_buf out = KN_BUF_INIT;
		size_t used;
		int done = read_whole_body(p, KN_VIEW("BODYBODY"), 8, &out, &used);
		assert_int_equal(out.len, CASES[i].body);
		assert_int_equal(kn_http_parse_eof(p), CASES[i].until_eof);
		assert_int_equal(done, !CASES[i].until_eof);
		assert_int_equal(h.keep_alive, !CASES[i].until_eof);
		free(copy);
		kn_http_parser_free(p);
	}
}

static void escapes_are_decoded_or_refused(void **state)
{
	struct kn_arena a;
	struct kn_view v;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	kn_arena_init(&a);
	assert_int_equal(kn_http_decode(&a, KN_VIEW("a%20b%2Fc+"), &v, &err), 0);
	assert_true(kn_view_is(v, KN_VIEW("a b/c+")));
	assert_int_equal(kn_http_decode(&a, KN_VIEW("a%2"), &v, &err), -EINVAL);
	assert_int_equal(kn_http_decode(&a, KN_VIEW("a%zz"), &v, &err), -EINVAL);
	assert_int_equal(kn_http_decode(&a, KN_VIEW("a%00"), &v, &err), -EINVAL);
	kn_arena_fini(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_head_is_taken_apart),
		cmocka_unit_test(every_prefix_of_a_head_is_incomplete),
		cmocka_unit_test(ambiguous_and_malformed_requests_are_refused),
		cmocka_unit_test(transfer_coding_tricks_are_refused_with_either_status),
		cmocka_unit_test(nul_bytes_and_too_many_fields_are_refused),
		cmocka_unit_test(absolute_targets_and_leading_empty_lines_are_taken),
		cmocka_unit_test(chunks_give_the_same_body_however_they_are_cut),
		cmocka_unit_test(malformed_chunks_are_refused),
		cmocka_unit_test(endless_extensions_and_trailers_are_bounded),
		cmocka_unit_test(replies_end_where_the_specification_says),
		cmocka_unit_test(escapes_are_decoded_or_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
