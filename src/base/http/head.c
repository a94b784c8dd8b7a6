/*
 * Theory of operation. A head is parsed when it is there whole, so every span that llhttp reports is
 * one view into the caller's buffer. llhttp 8.1 runs with all lenient flags off; it still takes bare
 * LF, lone CR, folded fields and several blanks in the start line, which proxies frame differently,
 * so those are refused here before and after it runs. Bodies are framed by a decoder of our own for
 * the same reason: it takes CRLF and nothing else, and costs nothing for Content-Length.
 */
#include "base/http.h"

#include <errno.h>
#include <llhttp.h>
#include <stdlib.h>
#include <string.h>

enum body_kind { BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_UNTIL_EOF };

enum chunk_state {
	CHUNK_SIZE,
	CHUNK_EXTENSION,
	CHUNK_SIZE_LF,
	CHUNK_DATA,
	CHUNK_DATA_CR,
	CHUNK_DATA_LF,
	TRAILER_START,
	TRAILER_LINE,
	TRAILER_LF,
	LAST_LF,
	BODY_DONE,
};

enum { MAX_CHUNK_LINE = 256, MAX_TRAILERS = 8192, MAX_CHUNK_DIGITS = 15 };

struct kn_http_parser {
	enum kn_http_kind kind;
	bool head_request;
	enum body_kind body;
	enum chunk_state chunk;
	uint64_t left; /* bytes left of the body, or of the chunk */
	uint32_t line; /* bytes of framing text seen: digits, extension or trailers */
	llhttp_t ll;
	struct kn_http_head head;
	struct kn_header headers[KN_HTTP_MAX_HEADERS];
	bool too_many;
	bool folded;
};

/* ---- llhttp's callbacks: only remember where things stand ------------------------------------ */

static struct kn_http_parser *self(llhttp_t *ll)
{
	return kn_container_of(ll, struct kn_http_parser, ll);
}

static int on_method(llhttp_t *ll, const char *at, size_t len)
{
	self(ll)->head.method = (struct kn_view){ at, len };
	return 0;
}

static int on_url(llhttp_t *ll, const char *at, size_t len)
{
	self(ll)->head.target = (struct kn_view){ at, len };
	return 0;
}

static int on_field(llhttp_t *ll, const char *at, size_t len)
{
	struct kn_http_parser *p = self(ll);

	if (p->head.n_headers == KN_HTTP_MAX_HEADERS) {
		p->too_many = true;
		return -1;
	}
	p->headers[p->head.n_headers++] = (struct kn_header){ .name = { at, len } };
	return 0;
}

static int on_value(llhttp_t *ll, const char *at, size_t len)
{
	struct kn_http_parser *p = self(ll);
	struct kn_header *h = &p->headers[p->head.n_headers - 1];

	if (h->value.ptr) {
		p->folded = true;
		return -1;
	}
	h->value = (struct kn_view){ at, len };
	return 0;
}

/* 1: llhttp is done after the head; bodies are framed below. */
static int on_headers_complete(llhttp_t *ll)
{
	ll->upgrade = 0;
	return 1;
}

static int on_message_complete(llhttp_t *ll)
{
	(void)ll;
	return HPE_PAUSED;
}

static const llhttp_settings_t SETTINGS = {
	.on_method = on_method,
	.on_url = on_url,
	.on_header_field = on_field,
	.on_header_value = on_value,
	.on_headers_complete = on_headers_complete,
	.on_message_complete = on_message_complete,
};

/* ---- parser's life --------------------------------------------------------------------------- */

int kn_http_parser_new(enum kn_http_kind kind, struct kn_http_parser **ret, struct kn_err *err)
{
	struct kn_http_parser *p = calloc(1, sizeof(*p));

	if (!p)
		return kn_fail(err, ENOMEM, "out of memory for an HTTP parser");
	p->kind = kind;
	*ret = p;
	return 0;
}

void kn_http_parser_free(struct kn_http_parser *p)
{
	free(p);
}

void kn_http_parser_reset(struct kn_http_parser *p, bool head_request)
{
	p->head_request = head_request;
	p->body = BODY_NONE;
	p->chunk = CHUNK_SIZE;
	p->left = 0;
	p->line = 0;
}

/* ---- what llhttp lets pass and we do not ----------------------------------------------------- */

static bool is_token_char(unsigned char c)
{
	static const char EXTRA[] = "!#$%&'*+-.^_`|~";

	if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
		return true;
	return c && strchr(EXTRA, c);
}

static bool is_token(struct kn_view v)
{
	for (size_t i = 0; i < v.len; i++) {
		if (!is_token_char((unsigned char)v.ptr[i]))
			return false;
	}
	return v.len > 0;
}

/*
 * Length of the head including its empty line; 0: not there yet; -EBADMSG: CR or LF that stands
 * alone, NUL, or a line that begins with a blank (obsolete folding).
 */
static ssize_t find_head(struct kn_view buf, struct kn_err *err)
{
	const char *p = buf.ptr, *end = buf.ptr + buf.len;

	while (p < end) {
		const char *lf = memchr(p, '\n', (size_t)(end - p));
		const char *line_end = lf ? lf : end;
		const char *cr = memchr(p, '\r', (size_t)(line_end - p));
		if (lf && (!cr || cr != lf - 1))
			return kn_fail(err, EBADMSG, "a line does not end with CR LF");
		if (!lf && cr && cr != end - 1)
			return kn_fail(err, EBADMSG, "a CR stands alone");
		if (p > buf.ptr && p < line_end && (*p == ' ' || *p == '\t'))
			return kn_fail(err, EBADMSG, "a header line begins with a blank");
		if (memchr(p, '\0', (size_t)(line_end - p)))
			return kn_fail(err, EBADMSG, "a NUL byte in the head");
		if (!lf)
			return 0;
		if (lf == p + 1)
			return lf + 1 - buf.ptr;
		p = lf + 1;
	}
	return 0;
}

static int fail_llhttp(struct kn_http_parser *p, enum llhttp_errno e, struct kn_err *err)
{
	if (p->too_many)
		return kn_fail(err, EMSGSIZE, "more than %d header fields", KN_HTTP_MAX_HEADERS);
	if (p->folded)
		return kn_fail(err, EBADMSG, "a folded header line");
	if (e == HPE_INVALID_VERSION)
		return kn_fail(err, EPROTONOSUPPORT, "HTTP version is not 1.0 or 1.1");
	const char *why = llhttp_get_error_reason(&p->ll);
	return kn_fail(err, EBADMSG, "%s", why && *why ? why : llhttp_errno_name(e));
}

static int check_fields(const struct kn_http_head *h, struct kn_err *err)
{
	for (size_t i = 0; i < h->n_headers; i++) {
		if (!is_token(h->headers[i].name))
			return kn_fail(err, EBADMSG,
				       "a header name with other than token characters");
		struct kn_view v = h->headers[i].value;
		for (size_t k = 0; k < v.len; k++) {
			unsigned char c = (unsigned char)v.ptr[k];
			if ((c < 0x20 && c != '\t') || c == 0x7f)
				return kn_fail(err, EBADMSG,
					       "a control character in a header value");
		}
	}
	return 0;
}

/* Method SP target SP HTTP/1.x, one blank each. */
static int check_request_line(struct kn_http_head *h, const char *start, struct kn_err *err)
{
	const char *target_end = h->target.ptr + h->target.len;

	if (h->method.ptr != start || h->target.ptr != start + h->method.len + 1 ||
	    memcmp(target_end, " HTTP/1.", 8) != 0 || memcmp(target_end + 9, "\r\n", 2) != 0)
		return kn_fail(err, EBADMSG,
			       "the request line must be METHOD SP TARGET SP VERSION");
	if (kn_view_is(h->method, KN_VIEW("CONNECT")))
		return kn_fail(err, ENOSYS, "CONNECT is not served here");
	if (memchr(h->target.ptr, '#', h->target.len))
		return kn_fail(err, EBADMSG, "a fragment in the request target");
	return 0;
}

/* "/path?query", "http://authority/path?query" or "*" (RFC 9112, 3.2). */
static int split_target(struct kn_http_head *h, struct kn_err *err)
{
	struct kn_view t = h->target;

	if (kn_view_starts(t, KN_VIEW("http://")) || kn_view_starts(t, KN_VIEW("https://"))) {
		const char *authority = memchr(t.ptr, ':', t.len);
		authority += 3;
		size_t left = (size_t)(t.ptr + t.len - authority);
		const char *slash = memchr(authority, '/', left);
		t = slash ? (struct kn_view){ slash, (size_t)(t.ptr + t.len - slash) }
			  : KN_VIEW("/");
	} else if (t.len == 0 || (t.ptr[0] != '/' && !kn_view_is(t, KN_VIEW("*")))) {
		return kn_fail(err, EBADMSG, "the request target must begin with '/'");
	}
	const char *mark = memchr(t.ptr, '?', t.len);
	h->path = (struct kn_view){ t.ptr, mark ? (size_t)(mark - t.ptr) : t.len };
	h->query = mark ? (struct kn_view){ mark + 1, (size_t)(t.ptr + t.len - mark - 1) }
			: KN_VIEW_NULL;
	return 0;
}

/* What the framing fields of a head said. */
struct framing {
	size_t hosts, lengths, codings;
	struct kn_view length, coding;
	bool close, keep;
};

/* Connection: a, b, c */
static void read_connection(struct framing *f, struct kn_view list)
{
	struct kn_view item;

	while (kn_view_split(&list, ',', &item)) {
		item = kn_view_trim(item);
		f->close |= kn_view_is_nocase(item, KN_VIEW("close"));
		f->keep |= kn_view_is_nocase(item, KN_VIEW("keep-alive"));
	}
}

static void read_framing(struct kn_http_head *h, struct framing *f)
{
	for (size_t i = 0; i < h->n_headers; i++) {
		struct kn_view name = h->headers[i].name, value = h->headers[i].value;
		/* Framing names have 4, 6, 10, 14 or 17 letters: most fields end here. */
		if (name.len == 4 && kn_view_is_nocase(name, KN_VIEW("host"))) {
			f->hosts++;
		} else if (name.len == 6 && kn_view_is_nocase(name, KN_VIEW("expect"))) {
			h->expect_continue = kn_view_is_nocase(value, KN_VIEW("100-continue"));
		} else if (name.len == 10 && kn_view_is_nocase(name, KN_VIEW("connection"))) {
			read_connection(f, value);
		} else if (name.len == 14 && kn_view_is_nocase(name, KN_VIEW("content-length"))) {
			f->lengths++;
			f->length = value;
		} else if (name.len == 17 &&
			   kn_view_is_nocase(name, KN_VIEW("transfer-encoding"))) {
			f->codings++;
			f->coding = value;
		}
	}
}

/* Exactly one way to tell where the message ends, or none at all (RFC 9112, 6.3). */
static int check_framing(struct kn_http_parser *p, struct kn_http_head *h, struct kn_err *err)
{
	struct framing f = { .hosts = 0 };

	read_framing(h, &f);
	if (p->kind == KN_HTTP_REQUEST && (f.hosts > 1 || (f.hosts == 0 && h->minor == 1)))
		return kn_fail(err, EBADMSG, "a request needs one Host field, not %zu", f.hosts);
	if (f.lengths && f.codings)
		return kn_fail(err, EBADMSG, "both Content-Length and Transfer-Encoding");
	if (f.lengths > 1 || f.codings > 1)
		return kn_fail(err, EBADMSG, "a framing field stands more than once");
	if (f.codings && h->minor == 0)
		return kn_fail(err, EBADMSG, "Transfer-Encoding in an HTTP/1.0 message");
	if (f.codings && !kn_view_is_nocase(f.coding, KN_VIEW("chunked")))
		return kn_fail(err, ENOSYS, "Transfer-Encoding other than 'chunked'");
	if (f.lengths) {
		uint64_t n;
		if (kn_parse_u64(f.length, INT64_MAX, &n, NULL) < 0)
			return kn_fail(err, EBADMSG, "Content-Length is not a number");
		h->content_length = (int64_t)n;
	}
	h->chunked = f.codings > 0;
	h->keep_alive = h->minor == 1 ? !f.close : f.keep && !f.close;
	return 0;
}

static bool reply_has_no_body(const struct kn_http_parser *p, int status)
{
	return p->head_request || status < 200 || status == 204 || status == 304;
}

static void choose_body(struct kn_http_parser *p, struct kn_http_head *h)
{
	p->left = h->content_length > 0 ? (uint64_t)h->content_length : 0;
	if (p->kind == KN_HTTP_REPLY && reply_has_no_body(p, h->status))
		p->body = BODY_NONE;
	else if (h->chunked)
		p->body = BODY_CHUNKED;
	else if (h->content_length >= 0)
		p->body = p->left ? BODY_LENGTH : BODY_NONE;
	else
		p->body = p->kind == KN_HTTP_REPLY ? BODY_UNTIL_EOF : BODY_NONE;
	if (p->body == BODY_UNTIL_EOF)
		h->keep_alive = false;
}

static int run_llhttp(struct kn_http_parser *p, struct kn_view head, struct kn_err *err)
{
	llhttp_init(&p->ll, p->kind == KN_HTTP_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE, &SETTINGS);
	p->too_many = false;
	p->folded = false;
	p->head = (struct kn_http_head){ .headers = p->headers, .content_length = -1 };

	enum llhttp_errno e = llhttp_execute(&p->ll, head.ptr, head.len);
	if (e != HPE_OK && e != HPE_PAUSED)
		return fail_llhttp(p, e, err);
	if (p->ll.http_major != 1 || p->ll.http_minor > 1)
		return kn_fail(err, EPROTONOSUPPORT, "HTTP version is not 1.0 or 1.1");
	p->head.minor = p->ll.http_minor;
	p->head.status = p->ll.status_code;
	for (size_t i = 0; i < p->head.n_headers; i++)
		p->headers[i].value = kn_view_trim(p->headers[i].value);
	return 0;
}

ssize_t kn_http_parse_head(struct kn_http_parser *p, struct kn_view buf, size_t max,
			   struct kn_http_head *ret, struct kn_err *err)
{
	struct kn_view text = buf;

	/* RFC 9112, 2.2: an empty line before a request is to be ignored. */
	while (p->kind == KN_HTTP_REQUEST && text.len >= 2 && memcmp(text.ptr, "\r\n", 2) == 0)
		text = (struct kn_view){ text.ptr + 2, text.len - 2 };

	/* Garbage is told at once, not when the time for the head is over. */
	static const struct kn_view STATUS_LINE = KN_VIEW("HTTP/");
	if (p->kind == KN_HTTP_REPLY && text.len > 0 &&
	    memcmp(text.ptr, STATUS_LINE.ptr, kn_min(text.len, STATUS_LINE.len)) != 0)
		return kn_fail(err, EBADMSG, "the reply does not begin with a status line");

	ssize_t n = find_head(text, err);
	if (n < 0)
		return n;
	if (buf.len > max && (n == 0 || (size_t)n > max))
		return kn_fail(err, EMSGSIZE, "a head of more than %zu bytes", max);
	if (n == 0)
		return 0;

	int r = run_llhttp(p, (struct kn_view){ text.ptr, (size_t)n }, err);
	if (r == 0)
		r = check_fields(&p->head, err);
	if (r == 0 && p->kind == KN_HTTP_REQUEST)
		r = check_request_line(&p->head, text.ptr, err);
	if (r == 0 && p->kind == KN_HTTP_REQUEST)
		r = split_target(&p->head, err);
	if (r == 0)
		r = check_framing(p, &p->head, err);
	if (r < 0)
		return r;
	choose_body(p, &p->head);
	*ret = p->head;
	return text.ptr + n - buf.ptr;
}

/* ---- bodies ---------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	char lower = (char)(c | 0x20);
	return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static int bad_chunk(struct kn_err *err)
{
	return kn_fail(err, EBADMSG, "a chunk of the body is malformed");
}

static int chunk_size_byte(struct kn_http_parser *p, char c, struct kn_err *err)
{
	int digit = hex_digit(c);

	if (digit >= 0) {
		if (++p->line > MAX_CHUNK_DIGITS)
			return bad_chunk(err);
		p->left = p->left << 4 | (uint64_t)digit;
		return 0;
	}
	if (p->line == 0 || (c != '\r' && c != ';'))
		return bad_chunk(err);
	p->line = 0;
	p->chunk = c == ';' ? CHUNK_EXTENSION : CHUNK_SIZE_LF;
	return 0;
}

/* Extensions are skipped, but only printable text of a bounded length is one. */
static int chunk_extension_byte(struct kn_http_parser *p, char c, struct kn_err *err)
{
	if (c == '\r')
		p->chunk = CHUNK_SIZE_LF;
	else if (++p->line > MAX_CHUNK_LINE || ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f)
		return bad_chunk(err);
	return 0;
}

/* Trailers are checked for framing and dropped: none of our users merges them into the head. */
static int trailer_byte(struct kn_http_parser *p, char c, struct kn_err *err)
{
	if (++p->line > MAX_TRAILERS)
		return bad_chunk(err);
	if (p->chunk == TRAILER_START) {
		if (c == '\r')
			p->chunk = LAST_LF;
		else if (is_token_char((unsigned char)c))
			p->chunk = TRAILER_LINE;
		else
			return bad_chunk(err);
		return 0;
	}
	if (c == '\r')
		p->chunk = TRAILER_LF;
	else if (((unsigned char)c < 0x20 && c != '\t') || c == 0x7f)
		return bad_chunk(err);
	return 0;
}

static int want_lf(struct kn_http_parser *p, char c, enum chunk_state next, struct kn_err *err)
{
	if (c != '\n')
		return bad_chunk(err);
	p->chunk = next;
	return 0;
}

static int chunk_byte(struct kn_http_parser *p, char c, struct kn_err *err)
{
	switch (p->chunk) {
	case CHUNK_SIZE:
		return chunk_size_byte(p, c, err);
	case CHUNK_EXTENSION:
		return chunk_extension_byte(p, c, err);
	case CHUNK_SIZE_LF:
		p->line = 0;
		return want_lf(p, c, p->left ? CHUNK_DATA : TRAILER_START, err);
	case CHUNK_DATA_CR:
		p->chunk = CHUNK_DATA_LF;
		return c == '\r' ? 0 : bad_chunk(err);
	case CHUNK_DATA_LF:
		return want_lf(p, c, CHUNK_SIZE, err);
	case TRAILER_START:
	case TRAILER_LINE:
		return trailer_byte(p, c, err);
	case TRAILER_LF:
		return want_lf(p, c, TRAILER_START, err);
	case LAST_LF:
		return want_lf(p, c, BODY_DONE, err);
	case CHUNK_DATA:
	case BODY_DONE:
		break;
	}
	return bad_chunk(err);
}

/* Take at most p->left bytes of input from offset at as data. */
static void take_data(struct kn_http_parser *p, struct kn_view input, size_t at,
		      struct kn_http_body_step *ret)
{
	size_t n = input.len - at < p->left ? input.len - at : (size_t)p->left;

	p->left -= n;
	ret->data = (struct kn_view){ input.ptr + at, n };
	ret->used = at + n;
}

static int parse_chunked(struct kn_http_parser *p, struct kn_view input,
			 struct kn_http_body_step *ret, struct kn_err *err)
{
	size_t at = 0;

	while (at < input.len && p->chunk != BODY_DONE) {
		if (p->chunk == CHUNK_DATA) {
			take_data(p, input, at, ret);
			if (p->left == 0)
				p->chunk = CHUNK_DATA_CR;
			return 0;
		}
		int r = chunk_byte(p, input.ptr[at++], err);
		if (r < 0)
			return r;
	}
	ret->used = at;
	ret->done = p->chunk == BODY_DONE;
	return 0;
}

int kn_http_parse_body(struct kn_http_parser *p, struct kn_view input,
		       struct kn_http_body_step *ret, struct kn_err *err)
{
	*ret = (struct kn_http_body_step){ .used = 0 };
	switch (p->body) {
	case BODY_NONE:
		ret->done = true;
		return 0;
	case BODY_LENGTH:
		take_data(p, input, 0, ret);
		ret->done = p->left == 0;
		return 0;
	case BODY_CHUNKED:
		return parse_chunked(p, input, ret, err);
	case BODY_UNTIL_EOF:
		ret->data = input;
		ret->used = input.len;
		return 0;
	}
	return 0;
}

bool kn_http_parse_eof(struct kn_http_parser *p)
{
	return p->body == BODY_UNTIL_EOF;
}
