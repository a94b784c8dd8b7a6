/*
 * The complete parser, header by header with a cursor. Most frames never come here: plain.c takes
 * them eight at a time. The unit test and the fuzz target hold one against the other.
 */
#include "packet/parse.h"

#include "packet/checksum.h"
#include "packet/header.h"
#include "packet/parse/plain.h"

/* Where one frame's parse stands. */
struct walk {
	struct kn_cursor at;
	const uint8_t *data;
	uint32_t cut;	     /* bytes of the frame that the capture does not have */
	bool first_of_many;  /* a fragment that others follow: its packet's length is unknown */
	bool later_fragment; /* has no upper-layer header */
	bool verify;
	struct kn_parsed *out;
};

/* Bytes up to the end of the packet that the headers promise, those that the capture cut included. */
static size_t promised(const struct walk *w)
{
	return kn_cursor_left(&w->at) + w->cut;
}

/* There are fewer than need bytes: is that the sender's fault or the capture's? */
static enum kn_reason missing(const struct walk *w, size_t need, enum kn_reason reason)
{
	return promised(w) >= need ? KN_DROP_CAPTURE_CUT : reason;
}

static uint16_t offset(const struct walk *w)
{
	return (uint16_t)(w->at.at - w->data);
}

/* The IP header says that bytes follow: end there, in the frame and in what was cut. */
static void limit(struct walk *w, size_t bytes)
{
	size_t left = kn_cursor_left(&w->at);

	w->cut = bytes > left ? (uint32_t)(bytes - left) : 0;
	kn_cursor_limit(&w->at, bytes);
}

/* The cursor stands behind the header. */
static void set_l4(struct walk *w, const void *header, size_t bytes)
{
	w->out->l4 = (uint16_t)((const uint8_t *)header - w->data);
	w->out->payload = (uint16_t)(w->out->l4 + bytes);
	w->out->payload_len = (uint16_t)kn_cursor_left(&w->at);
}

static enum kn_reason tcp(struct walk *w)
{
	size_t segment = promised(w);
	const struct kn_tcp_header *h = KN_TAKE(&w->at, struct kn_tcp_header);
	if (!h)
		return missing(w, sizeof(*h), KN_DROP_TCP_SHORT);

	size_t bytes = (size_t)(h->offset >> 4) * 4;
	if (bytes < sizeof(*h) || (bytes > segment && !w->first_of_many))
		return KN_DROP_TCP_OFFSET;
	if (bytes > segment)
		return KN_DROP_TINY_FRAGMENT;
	if (!kn_cursor_take(&w->at, bytes - sizeof(*h)))
		return KN_DROP_CAPTURE_CUT;
	w->out->meta |= KN_META_PORTS;
	w->out->ports = (uint32_t)kn_get16(h->src_port) << 16 | kn_get16(h->dst_port);
	set_l4(w, h, bytes);
	return KN_REASON_NONE;
}

static enum kn_reason udp(struct walk *w)
{
	size_t datagram = promised(w);
	const struct kn_udp_header *h = KN_TAKE(&w->at, struct kn_udp_header);
	if (!h)
		return missing(w, sizeof(*h), KN_DROP_UDP_SHORT);

	uint16_t len = kn_get16(h->len);
	if (len < sizeof(*h) || (len > datagram && !w->first_of_many))
		return KN_DROP_UDP_LENGTH;
	w->out->meta |= KN_META_PORTS;
	w->out->ports = (uint32_t)kn_get16(h->src_port) << 16 | kn_get16(h->dst_port);
	set_l4(w, h, sizeof(*h));
	return KN_REASON_NONE;
}

static enum kn_reason icmp(struct walk *w)
{
	const struct kn_icmp_header *h = KN_TAKE(&w->at, struct kn_icmp_header);
	if (!h)
		return missing(w, sizeof(*h), KN_DROP_ICMP_SHORT);
	w->out->meta |= KN_META_ICMP;
	w->out->ports = (uint32_t)h->type << 16 | h->code;
	set_l4(w, h, sizeof(*h));
	return KN_REASON_NONE;
}

static enum kn_reason upper_layer(struct walk *w, uint8_t proto)
{
	uint32_t family = w->out->meta & KN_META_FAMILY;

	w->out->meta |= proto;
	if (w->later_fragment)
		return KN_REASON_NONE;
	switch (proto) {
	case KN_PROTO_TCP:
		return tcp(w);
	case KN_PROTO_UDP:
		return udp(w);
	case KN_PROTO_ICMP:
		return family == KN_META_IPV4 ? icmp(w) : KN_REASON_NONE;
	case KN_PROTO_ICMPV6:
		return family == KN_META_IPV6 ? icmp(w) : KN_REASON_NONE;
	default:
		return KN_REASON_NONE;
	}
}

/*
 * What a fragment means for the rest. at is its offset in bytes. An offset of 8 cuts through the
 * TCP header's flags (RFC 1858): nobody sends that honestly.
 */
static enum kn_reason fragment(struct walk *w, uint32_t at, bool more, uint8_t proto)
{
	w->out->meta |= KN_META_FRAGMENT;
	if (at + promised(w) > 65535)
		return KN_DROP_FRAGMENT_LENGTH;
	if (at == 8 && proto == KN_PROTO_TCP)
		return KN_DROP_TINY_FRAGMENT;
	w->later_fragment = at > 0;
	w->first_of_many = at == 0 && more;
	return KN_REASON_NONE;
}

static enum kn_reason ipv4(struct walk *w)
{
	size_t packet = promised(w);
	const struct kn_ipv4_header *h = KN_TAKE(&w->at, struct kn_ipv4_header);
	if (!h)
		return missing(w, sizeof(*h), KN_DROP_IPV4_SHORT);
	if (h->version_ihl >> 4 != 4)
		return KN_DROP_IPV4_VERSION;

	size_t header = (size_t)(h->version_ihl & 15) * 4;
	size_t total = kn_get16(h->total_len);
	if (header < sizeof(*h) || header > total)
		return KN_DROP_IPV4_IHL;
	if (total > packet)
		return KN_DROP_IPV4_LENGTH;
	if (!kn_cursor_take(&w->at, header - sizeof(*h)))
		return KN_DROP_CAPTURE_CUT;
	if (w->verify && kn_checksum(h, header) != 0)
		return KN_DROP_IPV4_CHECKSUM;

	limit(w, total - header);
	w->out->meta |= KN_META_IPV4 | (header > sizeof(*h) ? (uint32_t)KN_META_OPTIONS : 0);
	w->out->src4 = kn_load32(h->src);
	w->out->dst4 = kn_load32(h->dst);

	uint16_t bits = kn_get16(h->fragment);
	if (bits & (KN_IPV4_OFFSET | KN_IPV4_MORE)) {
		enum kn_reason why = fragment(w, (uint32_t)(bits & KN_IPV4_OFFSET) * 8,
					      bits & KN_IPV4_MORE, h->proto);
		if (why != KN_REASON_NONE)
			return why;
	}
	return upper_layer(w, h->proto);
}

static bool is_extension(uint8_t next)
{
	return next == KN_PROTO_HOP_BY_HOP || next == KN_PROTO_ROUTING ||
	       next == KN_PROTO_FRAGMENT || next == KN_PROTO_AH || next == KN_PROTO_DST_OPTIONS ||
	       next == KN_PROTO_MOBILITY || next == KN_PROTO_HIP || next == KN_PROTO_SHIM6;
}

/* One extension header other than the fragment header; *next becomes the one behind it. */
static enum kn_reason extension(struct walk *w, uint8_t *next)
{
	const struct kn_ipv6_option_header *h = KN_TAKE(&w->at, struct kn_ipv6_option_header);
	if (!h)
		return missing(w, sizeof(*h), KN_DROP_IPV6_EXT_SHORT);

	/* An AH counts in words of 4 and must fill 8-byte units: at least 8 either way. */
	size_t bytes = *next == KN_PROTO_AH ? ((size_t)h->len + 2) * 4 : ((size_t)h->len + 1) * 8;
	if (!kn_cursor_take(&w->at, bytes - sizeof(*h)))
		return missing(w, bytes - sizeof(*h), KN_DROP_IPV6_EXT_SHORT);
	*next = h->next;
	return KN_REASON_NONE;
}

static enum kn_reason ipv6_fragment(struct walk *w, uint8_t *next)
{
	const struct kn_ipv6_fragment *h = KN_TAKE(&w->at, struct kn_ipv6_fragment);
	if (!h)
		return missing(w, sizeof(*h), KN_DROP_IPV6_EXT_SHORT);

	uint16_t bits = kn_get16(h->offset_more);
	*next = h->next;
	return fragment(w, bits & KN_IPV6_OFFSET, bits & KN_IPV6_MORE, h->next);
}

/*
 * Down to the upper layer. A first fragment's chain is followed further (RFC 7112 puts all of it
 * there): stopping would let a rule on ports be passed with two extension headers.
 */
static enum kn_reason ipv6_chain(struct walk *w, uint8_t next)
{
	for (int n = 0; !w->later_fragment && is_extension(next); n++) {
		enum kn_reason why;

		w->out->meta |= KN_META_OPTIONS;
		if (n == KN_IPV6_EXT_MAX)
			return KN_DROP_IPV6_EXT_MANY;
		if (next == KN_PROTO_HOP_BY_HOP && n > 0)
			return KN_DROP_IPV6_EXT_ORDER;
		if (next == KN_PROTO_FRAGMENT)
			why = ipv6_fragment(w, &next);
		else
			why = extension(w, &next);
		if (why != KN_REASON_NONE)
			return why;
	}
	return upper_layer(w, next);
}

static enum kn_reason ipv6(struct walk *w)
{
	const struct kn_ipv6_header *h = KN_TAKE(&w->at, struct kn_ipv6_header);
	if (!h)
		return missing(w, sizeof(*h), KN_DROP_IPV6_SHORT);
	if (kn_get32(h->version_class_flow) >> 28 != 6)
		return KN_DROP_IPV6_VERSION;
	if (kn_get16(h->payload_len) > promised(w))
		return KN_DROP_IPV6_LENGTH;

	limit(w, kn_get16(h->payload_len));
	w->out->meta |= KN_META_IPV6;
	return ipv6_chain(w, h->next);
}

static enum kn_reason arp(struct walk *w)
{
	w->out->meta |= KN_META_ARP;
	if (!KN_TAKE(&w->at, struct kn_arp_header))
		return missing(w, sizeof(struct kn_arp_header), KN_DROP_ARP_SHORT);
	return KN_REASON_NONE;
}

/* Step over VLAN tags; *type becomes what follows them. */
static enum kn_reason vlan(struct walk *w, uint16_t *type)
{
	for (int n = 0; *type == KN_ETHERTYPE_VLAN || *type == KN_ETHERTYPE_QINQ; n++) {
		if (n == KN_VLAN_MAX)
			return KN_DROP_VLAN_DEEP;
		const struct kn_vlan_tag *tag = KN_TAKE(&w->at, struct kn_vlan_tag);
		if (!tag)
			return missing(w, sizeof(*tag), KN_DROP_VLAN_SHORT);
		uint32_t id = kn_get16(tag->tci) & KN_VLAN_ID_MASK;
		w->out->meta |=
			n ? (uint32_t)KN_META_QINQ : KN_META_TAGGED | id << KN_META_VLAN_SHIFT;
		*type = kn_get16(tag->type);
	}
	return KN_REASON_NONE;
}

static enum kn_reason network_layer(struct walk *w, uint16_t type)
{
	w->out->l3 = offset(w);
	switch (type) {
	case KN_ETHERTYPE_IPV4:
		return ipv4(w);
	case KN_ETHERTYPE_IPV6:
		return ipv6(w);
	case KN_ETHERTYPE_ARP:
		return arp(w);
	default:
		w->out->meta |= KN_META_OTHER;
		return KN_REASON_NONE;
	}
}

enum kn_reason kn_parse_frame(const uint8_t *data, uint32_t len, uint32_t wire_len,
			      const struct kn_parse_options *options, struct kn_parsed *ret)
{
	struct kn_parsed out = { .meta = 0 };
	struct walk w = { .at = kn_cursor_of(data, len),
			  .data = data,
			  .cut = wire_len > len ? wire_len - len : 0,
			  .verify = options && options->verify_ipv4_checksum,
			  .out = &out };

	const struct kn_eth_header *eth = KN_TAKE(&w.at, struct kn_eth_header);
	if (!eth)
		return missing(&w, sizeof(*eth), KN_DROP_ETH_SHORT);
	uint16_t type = kn_get16(eth->type);
	enum kn_reason why = vlan(&w, &type);
	if (why == KN_REASON_NONE)
		why = network_layer(&w, type);
	if (why == KN_REASON_NONE)
		*ret = out;
	return why;
}

/* The complete parser for these lanes; what it refuses is dropped. */
static __attribute__((noinline)) void slow_lanes(struct kn_batch *b, kn_lanes lanes,
						 const struct kn_parse_options *options)
{
	kn_each_lane(i, lanes)
	{
		const struct kn_frame *f = b->frame[i];
		struct kn_parsed got;
		enum kn_reason why = kn_parse_frame(f->data, f->len, f->wire_len, options, &got);

		if (why != KN_REASON_NONE) {
			kn_batch_drop(b, kn_lane(i), why);
			continue;
		}
		b->meta[i] = got.meta;
		b->src4[i] = got.src4;
		b->dst4[i] = got.dst4;
		b->ports[i] = got.ports;
		b->l3[i] = got.l3;
		b->l4[i] = got.l4;
		b->payload[i] = got.payload;
		b->payload_len[i] = got.payload_len;
		if (got.meta & KN_META_IPV4)
			b->ipv4 |= kn_lane(i);
		if (got.meta & KN_META_IPV6)
			b->ipv6 |= kn_lane(i);
	}
}

void kn_parse_batch(struct kn_batch *b, const struct kn_parse_options *options)
{
	bool verify = options && options->verify_ipv4_checksum;
	kn_lanes plain = verify ? 0 : kn_parse_plain(b);

	b->ipv4 = plain;
	b->ipv6 = 0;
	if (__builtin_expect(plain != b->live, 0))
		slow_lanes(b, b->live & ~plain, options);
}
