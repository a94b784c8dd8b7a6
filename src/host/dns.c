#include "host/dns.h"

#include <ctype.h>
#include <errno.h>

enum { HEADER = 12, ANSWER = 16, MAX_WIRE_NAME = 255, MAX_LABEL = 63 };

#define FLAG_ANSWER 0x8000
#define FLAG_WANTS  0x0100   /* recursion desired */
#define FLAG_CAN    0x0080   /* recursion available */
#define OPCODE      0x7800
#define POINTER     0xc00c   /* to the name in the question, which follows the header */

static uint16_t get16(const unsigned char *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(unsigned char *p, unsigned v)
{
	p[0] = (unsigned char)(v >> 8);
	p[1] = (unsigned char)v;
}

static void put32(unsigned char *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

/*
 * Labels to text. Returns the bytes of the name on the wire, 0 when it is no name. Questions use no
 * pointers: there is nothing before them to point at.
 */
static size_t read_name(const unsigned char *p, size_t len, char out[KN_DNS_NAME])
{
	size_t at = 0, n = 0;
	bool good = true;

	while (at < len && p[at] != 0) {
		size_t label = p[at++];
		if (label > MAX_LABEL || label > len - at || at + label + 1 > MAX_WIRE_NAME)
			return 0;
		if (n > 0)
			out[n++] = '.';
		for (size_t i = 0; i < label; i++, at++) {
			good = good && isascii(p[at]) && (isalnum(p[at]) || p[at] == '-');
			out[n++] = (char)tolower(p[at]);
		}
	}
	out[good ? n : 0] = '\0';
	return at < len ? at + 1 : 0;
}

int kn_dns_parse(struct kn_view packet, struct kn_dns_query *ret, struct kn_err *err)
{
	const unsigned char *p = (const unsigned char *)packet.ptr;
	struct kn_dns_query q = { .code = KN_DNS_FORMAT };

	if (packet.len < HEADER)
		return kn_fail(err, EBADMSG, "shorter than a DNS header");
	q.id = get16(p);
	q.wants_recursion = get16(p + 2) & FLAG_WANTS;
	if (get16(p + 2) & FLAG_ANSWER)
		return kn_fail(err, EBADMSG, "an answer that nobody asked for");
	if (get16(p + 2) & OPCODE) {
		q.code = KN_DNS_NOT_DONE;
	} else if (get16(p + 4) == 1) {
		size_t rest = packet.len - HEADER;
		size_t n = read_name(p + HEADER, rest, q.name);
		if (n > 0 && rest - n >= 4) {
			q.code = KN_DNS_OK;
			q.type = get16(p + HEADER + n);
			q.class = get16(p + HEADER + n + 2);
			q.n_question = n + 4;
			memcpy(q.question, p + HEADER, q.n_question);
		}
	}
	if (q.code != KN_DNS_OK)
		q.name[0] = '\0';
	*ret = q;
	return 0;
}

size_t kn_dns_answer(const struct kn_dns_query *q, enum kn_dns_code code, const uint32_t *addresses,
                     size_t n, uint32_t ttl_s, unsigned char *out)
{
	size_t at = HEADER + q->n_question;

	n = q->n_question > 0 ? kn_min(n, (size_t)KN_DNS_MAX_ADDRESSES) : 0;
	memset(out, 0, HEADER);
	put16(out, q->id);
	put16(out + 2, FLAG_ANSWER | FLAG_CAN | (q->wants_recursion ? FLAG_WANTS : 0u) |
	                       (unsigned)code);
	put16(out + 4, q->n_question > 0);
	put16(out + 6, (unsigned)n);
	memcpy(out + HEADER, q->question, q->n_question);
	for (size_t i = 0; i < n; i++, at += ANSWER) {
		put16(out + at, POINTER);
		put16(out + at + 2, KN_DNS_A);
		put16(out + at + 4, KN_DNS_IN);
		put32(out + at + 6, ttl_s);
		put16(out + at + 10, 4);
		put32(out + at + 12, addresses[i]);
	}
	return at;
}
