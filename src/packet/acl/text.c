/*
 * Prefixes, ranges and protocols as people write them, and the plain-words form of a match that
 * tests hold the compiled one against.
 */
#include "packet/acl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "packet/header.h"

static const struct {
	const char *name;
	uint8_t number;
} protocols[] = {
	{ "icmp", KN_PROTO_ICMP },
	{ "igmp", 2 },
	{ "tcp", KN_PROTO_TCP },
	{ "udp", KN_PROTO_UDP },
	{ "gre", 47 },
	{ "esp", KN_PROTO_ESP },
	{ "ah", KN_PROTO_AH },
	{ "icmpv6", KN_PROTO_ICMPV6 },
	{ "ospf", 89 },
	{ "sctp", KN_PROTO_SCTP },
};

int kn_parse_proto(struct kn_view text, uint8_t *ret, struct kn_err *err)
{
	uint64_t number;

	for (size_t i = 0; i < KN_ARRAY_LEN(protocols); i++) {
		if (kn_view_is(text, kn_view_of(protocols[i].name))) {
			*ret = protocols[i].number;
			return 0;
		}
	}
	if (kn_parse_u64(text, 255, &number, NULL) < 0)
		return kn_fail(err, EINVAL,
			       "'%.*s' is no protocol: tcp, udp, icmp, icmpv6, sctp, gre, esp, ah, "
			       "igmp, ospf or a number up to 255",
			       (int)text.len, text.ptr);
	*ret = (uint8_t)number;
	return 0;
}

int kn_parse_range(struct kn_view text, uint16_t max, struct kn_range *ret, struct kn_err *err)
{
	struct kn_view rest = text, low, high;
	uint64_t a, b;

	if (!kn_view_split(&rest, '-', &low))
		low = KN_VIEW_NULL;
	high = rest.ptr ? rest : low;
	if (kn_parse_u64(low, max, &a, NULL) < 0 || kn_parse_u64(high, max, &b, NULL) < 0)
		return kn_fail(err, EINVAL,
			       "'%.*s' is no number or range (like 53 or 1024-2047) up to %u",
			       (int)text.len, text.ptr, max);
	if (b < a)
		return kn_fail(err, EINVAL, "range '%.*s' ends before it begins", (int)text.len,
			       text.ptr);
	*ret = (struct kn_range){ (uint16_t)a, (uint16_t)b };
	return 0;
}

static bool zeros_behind(const struct kn_prefix *p, size_t bytes)
{
	for (size_t i = 0; i < bytes * 8; i++)
		if (i >= p->bits && p->addr[i / 8] >> (7 - i % 8) & 1)
			return false;
	return true;
}

static int parse_address(struct kn_view text, struct kn_prefix *ret)
{
	char copy[INET6_ADDRSTRLEN];

	if (text.len >= sizeof(copy))
		return -EINVAL;
	snprintf(copy, sizeof(copy), "%.*s", (int)text.len, text.ptr);
	if (inet_pton(AF_INET, copy, ret->addr) == 1)
		ret->family = 4;
	else if (inet_pton(AF_INET6, copy, ret->addr) == 1)
		ret->family = 6;
	else
		return -EINVAL;
	ret->bits = ret->family == 4 ? 32 : 128;
	return 0;
}

int kn_parse_prefix(struct kn_view text, struct kn_prefix *ret, struct kn_err *err)
{
	struct kn_prefix p = { .family = 0 };
	struct kn_view bits = text, address;
	uint64_t n;

	if (kn_view_is(text, KN_VIEW("any"))) {
		*ret = p;
		return 0;
	}
	if (!kn_view_split(&bits, '/', &address) || parse_address(address, &p) < 0 ||
	    (bits.ptr && kn_parse_u64(bits, p.bits, &n, NULL) < 0))
		return kn_fail(
			err, EINVAL,
			"'%.*s' is no address or prefix (like 10.0.0.0/8, 2001:db8::/32 or any)",
			(int)text.len, text.ptr);
	if (bits.ptr)
		p.bits = (uint8_t)n;
	if (!zeros_behind(&p, p.family == 4 ? 4 : 16))
		return kn_fail(err, EINVAL, "'%.*s' has bits set behind its /%u", (int)text.len,
			       text.ptr, p.bits);
	*ret = p;
	return 0;
}

static bool in_prefix(const struct kn_prefix *p, const uint8_t *addr)
{
	for (unsigned i = 0; i < p->bits; i++)
		if ((p->addr[i / 8] ^ addr[i / 8]) >> (7 - i % 8) & 1)
			return false;
	return true;
}

static bool in_range(struct kn_range r, uint32_t value)
{
	return value >= r.low && value <= r.high;
}

static bool addresses_match(const struct kn_match *m, const struct kn_batch *b, uint32_t lane)
{
	uint32_t family = b->meta[lane] & KN_META_FAMILY;
	uint8_t src[16] = { 0 }, dst[16] = { 0 };

	if (family == KN_META_IPV4) {
		memcpy(src, &b->src4[lane], 4);
		memcpy(dst, &b->dst4[lane], 4);
	} else if (family == KN_META_IPV6) {
		const struct kn_ipv6_header *h = (const void *)(b->frame[lane]->data + b->l3[lane]);
		memcpy(src, h->src, 16);
		memcpy(dst, h->dst, 16);
	}
	uint8_t number = family == KN_META_IPV4 ? 4 : family == KN_META_IPV6 ? 6 : 255;
	if (m->src.family && (m->src.family != number || !in_prefix(&m->src, src)))
		return false;
	return !m->dst.family || (m->dst.family == number && in_prefix(&m->dst, dst));
}

static bool upper_layer_matches(const struct kn_match *m, uint32_t meta, uint32_t ports)
{
	bool ip = meta & (KN_META_IPV4 | KN_META_IPV6);

	if (m->has_proto && (!ip || (meta & KN_META_PROTO) != m->proto))
		return false;
	if ((m->has_src_port || m->has_dst_port) && !(meta & KN_META_PORTS))
		return false;
	if ((m->has_icmp_type || m->has_icmp_code) && !(meta & KN_META_ICMP))
		return false;
	return (!m->has_src_port || in_range(m->src_port, ports >> 16)) &&
	       (!m->has_dst_port || in_range(m->dst_port, ports & 0xffff)) &&
	       (!m->has_icmp_type || in_range(m->icmp_type, ports >> 16)) &&
	       (!m->has_icmp_code || in_range(m->icmp_code, ports & 0xffff));
}

static bool vlan_matches(int vlan, uint32_t meta)
{
	bool tagged = meta & KN_META_TAGGED;

	switch (vlan) {
	case KN_VLAN_ANY:
		return true;
	case KN_VLAN_UNTAGGED:
		return !tagged;
	case KN_VLAN_TAGGED:
		return tagged;
	default:
		return tagged && (int)((meta & KN_META_VLAN) >> KN_META_VLAN_SHIFT) == vlan;
	}
}

bool kn_match_lane(const struct kn_match *m, const struct kn_batch *b, uint32_t lane)
{
	uint32_t meta = b->meta[lane];
	bool is_fragment = meta & KN_META_FRAGMENT;

	return (!m->family || (meta & KN_META_FAMILY) == m->family) &&
	       (m->fragment < 0 || is_fragment == (m->fragment == 1)) &&
	       vlan_matches(m->vlan, meta) && addresses_match(m, b, lane) &&
	       upper_layer_matches(m, meta, b->ports[lane]);
}
