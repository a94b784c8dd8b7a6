#include <errno.h>
#include <sys/random.h>

#include "base/time.h"
#include "faas/gateway/relay.h"

/* Ours, at most: X-Call-Id, X-Start-Time, X-Kiln-Start, Server-Timing. */
enum { ADDED = 4 };

/* ---- call ids --------------------------------------------------------------------------------- */

static void take_random(struct kn_gateway *g, uint8_t *out, size_t n)
{
	if (g->n_random < n) {
		if (getrandom(g->random, sizeof(g->random), 0) != (ssize_t)sizeof(g->random))
			memset(g->random, 0, sizeof(g->random)); /* cannot happen for 1 KiB */
		g->n_random = sizeof(g->random);
	}
	g->n_random -= n;
	memcpy(out, g->random + g->n_random, n);
}

/* A version 4 UUID, as OpenFaaS makes them (RFC 9562, 5.4). */
static void make_id(struct kn_gateway *g, char *out)
{
	static const char HEX[] = "0123456789abcdef";
	uint8_t b[16];

	take_random(g, b, sizeof(b));
	b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	for (size_t i = 0; i < sizeof(b); i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = HEX[b[i] >> 4];
		*out++ = HEX[b[i] & 15];
	}
	*out = '\0';
}

/* Ids end up in logs and in other people's fields: only what cannot be misread there. */
static bool id_is_plain(struct kn_view v)
{
	if (v.len == 0 || v.len > KN_CALL_ID_MAX)
		return false;
	for (size_t i = 0; i < v.len; i++) {
		char c = v.ptr[i];
		bool word = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
		if (!word && c != '-' && c != '_' && c != '.')
			return false;
	}
	return true;
}

static size_t put_u64(char *out, uint64_t v)
{
	char digits[20];
	size_t n = 0, len = 0;

	do
		digits[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n > 0)
		out[len++] = digits[--n];
	out[len] = '\0';
	return len;
}

void kn_gateway_call_id(struct kn_gateway *g, struct kn_http_exchange *x,
			char out[KN_CALL_ID_MAX + 1])
{
	struct kn_view given = kn_http_header(kn_http_head(x), "X-Call-Id");

	if (id_is_plain(given)) {
		memcpy(out, given.ptr, given.len);
		out[given.len] = '\0';
	} else {
		make_id(g, out);
	}
}

void kn_relay_stamp(struct kn_relay *r)
{
	kn_gateway_call_id(r->gateway, r->x, r->id);
	r->call_id = kn_view_of(r->id);
	r->start_wall_ns = kn_wall_ns();
	put_u64(r->start_text, r->start_wall_ns);
}

/* ---- which fields pass ------------------------------------------------------------------------ */

/* Connection: a, b - fields that the peer meant for this hop alone (RFC 9110, 7.6.1). */
static bool nominated(struct kn_view connection, struct kn_view name)
{
	struct kn_view item;

	while (kn_view_split(&connection, ',', &item)) {
		if (kn_view_is_nocase(kn_view_trim(item), name))
			return true;
	}
	return false;
}

static bool is(struct kn_view name, struct kn_view other)
{
	return name.len == other.len && kn_view_is_nocase(name, other);
}

static bool passes_up(const struct kn_relay *r, struct kn_view name)
{
	switch (name.len) {
	case 9:
		return !is(name, KN_VIEW("X-Call-Id"));
	case 12:
		return !is(name, KN_VIEW("X-Start-Time"));
	case 13:
		return !r->hide_authorization || !is(name, KN_VIEW("Authorization"));
	default:
		return true;
	}
}

static bool passes_down(struct kn_view name)
{
	switch (name.len) {
	case 4:
		return !is(name, KN_VIEW("Date")); /* the server puts its own */
	case 9:
		return !is(name, KN_VIEW("X-Call-Id"));
	case 12:
		return !is(name, KN_VIEW("X-Start-Time")) && !is(name, KN_VIEW("X-Kiln-Start"));
	default:
		return true;
	}
}

/* Only a peer that sends more than "close" or "keep-alive" nominates anything. */
static struct kn_view nominations(const struct kn_http_head *head)
{
	struct kn_view v = kn_http_header(head, "Connection");

	return is(v, KN_VIEW("close")) || is(v, KN_VIEW("keep-alive")) ? KN_VIEW_NULL : v;
}

int kn_relay_request_fields(struct kn_relay *r, struct kn_header **ret, size_t *ret_n)
{
	const struct kn_http_head *head = kn_http_head(r->x);
	struct kn_view connection = nominations(head);
	struct kn_header *out =
		kn_arena_alloc(kn_http_arena(r->x), (head->n_headers + ADDED) * sizeof(*out));
	size_t n = 0;

	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < head->n_headers; i++) {
		struct kn_view name = head->headers[i].name;
		if (passes_up(r, name) && !(connection.len && nominated(connection, name)))
			out[n++] = head->headers[i];
	}
	out[n++] = (struct kn_header){ KN_VIEW("X-Call-Id"), r->call_id };
	out[n++] = (struct kn_header){ KN_VIEW("X-Start-Time"), kn_view_of(r->start_text) };
	*ret = out;
	*ret_n = n;
	return 0;
}

/* ---- Server-Timing ---------------------------------------------------------------------------- */

/* "name;dur=12.345", milliseconds with three digits (W3C Server Timing). */
static size_t put_phase(char *out, size_t room, const char *name, uint64_t ns)
{
	uint64_t us = (ns + 500) / 1000;
	size_t len = strlen(name);

	if (room < len + sizeof(", ;dur=.000") + 20)
		return 0;
	memcpy(out, name, len);
	memcpy(out + len, ";dur=", 5);
	len += 5;
	len += put_u64(out + len, us / 1000);
	out[len++] = '.';
	out[len++] = (char)('0' + us / 100 % 10);
	out[len++] = (char)('0' + us / 10 % 10);
	out[len++] = (char)('0' + us % 10);
	return len;
}

static struct kn_view timing(struct kn_relay *r)
{
	const struct kn_call *call = &r->call;
	size_t len = 0, room = sizeof(r->timing);

	for (size_t i = 0; i < call->n_phases; i++) {
		size_t n = put_phase(r->timing + len, room - len, call->phases[i].name,
				     call->phases[i].ns);
		if (n == 0)
			break;
		len += n;
		r->timing[len++] = ',';
		r->timing[len++] = ' ';
	}
	len += put_phase(r->timing + len, room - len, "function", kn_now_ns() - call->granted_ns);
	return (struct kn_view){ r->timing, len };
}

int kn_relay_reply_fields(struct kn_relay *r, const struct kn_http_head *reply,
			  struct kn_header **ret, size_t *ret_n)
{
	size_t n_reply = reply ? reply->n_headers : 0, n = 0;
	struct kn_view connection = reply ? nominations(reply) : KN_VIEW_NULL;
	struct kn_header *out =
		kn_arena_alloc(kn_http_arena(r->x), (n_reply + ADDED) * sizeof(*out));

	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < n_reply; i++) {
		struct kn_view name = reply->headers[i].name;
		if (passes_down(name) && !(connection.len && nominated(connection, name)))
			out[n++] = reply->headers[i];
	}
	out[n++] = (struct kn_header){ KN_VIEW("X-Call-Id"), r->call_id };
	out[n++] = (struct kn_header){ KN_VIEW("X-Start-Time"), kn_view_of(r->start_text) };
	if (r->call.granted_ns) {
		struct kn_view start = kn_view_of(kn_start_name(r->call.start));
		out[n++] = (struct kn_header){ KN_VIEW("X-Kiln-Start"), start };
		out[n++] = (struct kn_header){ KN_VIEW("Server-Timing"), timing(r) };
	}
	*ret = out;
	*ret_n = n;
	return 0;
}
