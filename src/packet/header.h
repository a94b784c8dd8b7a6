/*
 * Wire formats, and the cursor that reads them. A cursor knows where the bytes end: taking a header
 * gives a typed pointer, or NULL when the frame has fewer bytes left, so that nothing behind it can
 * be read by mistake. Multi-byte fields are byte arrays behind kn_be16/kn_be32: no alignment is
 * assumed and no field is used without saying its byte order.
 *
 *     struct kn_cursor c = kn_cursor_of(frame->data, frame->len);
 *     const struct kn_eth_header *eth = KN_TAKE(&c, struct kn_eth_header);
 *     if (!eth)
 *             return KN_DROP_ETH_SHORT;
 *     if (kn_get16(eth->type) == KN_ETHERTYPE_IPV4) ...
 *
 * Thread  keeps no state.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
	uint8_t b[2];
} kn_be16;
typedef struct {
	uint8_t b[4];
} kn_be32;

/** A big-endian field as a number. */
static inline uint16_t kn_get16(kn_be16 v)
{
	return (uint16_t)(v.b[0] << 8 | v.b[1]);
}

/** The same of 32 bits. */
static inline uint32_t kn_get32(kn_be32 v)
{
	return (uint32_t)v.b[0] << 24 | (uint32_t)v.b[1] << 16 | (uint32_t)v.b[2] << 8 | v.b[3];
}

/** A number as a big-endian field. */
static inline kn_be16 kn_put16(uint16_t v)
{
	return (kn_be16){ { (uint8_t)(v >> 8), (uint8_t)v } };
}

/** The same of 32 bits. */
static inline kn_be32 kn_put32(uint32_t v)
{
	return (kn_be32){ { (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
			    (uint8_t)v } };
}

/* Loads and stores in the machine's own order, for words that are compared or moved whole. */
static inline uint16_t kn_load16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}
static inline uint32_t kn_load32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}
static inline uint64_t kn_load64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}
static inline void kn_store32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}
static inline void kn_store64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

/* IEEE 802.3; 802.1Q, 802.1ad */
enum {
	KN_ETHERTYPE_IPV4 = 0x0800,
	KN_ETHERTYPE_ARP = 0x0806,
	KN_ETHERTYPE_VLAN = 0x8100,
	KN_ETHERTYPE_IPV6 = 0x86dd,
	KN_ETHERTYPE_QINQ = 0x88a8,
	KN_VLAN_ID_MASK = 0x0fff,
};

struct kn_eth_header {
	uint8_t dst[6], src[6];
	kn_be16 type;
};

struct kn_vlan_tag {
	kn_be16 tci;  /* priority 3, drop eligible 1, id 12 bits */
	kn_be16 type; /* of what follows */
};

/* RFC 826, for Ethernet and IPv4 */
struct kn_arp_header {
	kn_be16 hardware, protocol;
	uint8_t hardware_len, protocol_len;
	kn_be16 operation;
	uint8_t sender_mac[6], sender_ip[4], target_mac[6], target_ip[4];
};

/* RFC 791 */
enum {
	KN_IPV4_MORE = 0x2000,	 /* more fragments */
	KN_IPV4_OFFSET = 0x1fff, /* in units of 8 bytes */
};
struct kn_ipv4_header {
	uint8_t version_ihl, tos;
	kn_be16 total_len, id, fragment;
	uint8_t ttl, proto;
	kn_be16 checksum;
	uint8_t src[4], dst[4];
};

/* RFC 8200 */
enum {
	KN_IPV6_MORE = 0x0001,
	KN_IPV6_OFFSET = 0xfff8, /* in bytes, as it stands */
};
struct kn_ipv6_header {
	kn_be32 version_class_flow;
	kn_be16 payload_len;
	uint8_t next, hop_limit;
	uint8_t src[16], dst[16];
};
struct kn_ipv6_option_header {
	uint8_t next, len; /* len: 8-byte units after the first (AH: 4-byte units minus 2) */
	uint8_t data[6];
};
struct kn_ipv6_fragment {
	uint8_t next, reserved;
	kn_be16 offset_more;
	kn_be32 id;
};

/* IANA protocol numbers */
enum {
	KN_PROTO_HOP_BY_HOP = 0,
	KN_PROTO_ICMP = 1,
	KN_PROTO_TCP = 6,
	KN_PROTO_UDP = 17,
	KN_PROTO_ROUTING = 43,
	KN_PROTO_FRAGMENT = 44,
	KN_PROTO_ESP = 50,
	KN_PROTO_AH = 51,
	KN_PROTO_ICMPV6 = 58,
	KN_PROTO_NONE = 59,
	KN_PROTO_DST_OPTIONS = 60,
	KN_PROTO_SCTP = 132,
	KN_PROTO_MOBILITY = 135,
	KN_PROTO_HIP = 139,
	KN_PROTO_SHIM6 = 140,
};

/* RFC 9293 */
struct kn_tcp_header {
	kn_be16 src_port, dst_port;
	kn_be32 seq, ack;
	uint8_t offset, flags; /* offset: 4-byte words, in the upper half */
	kn_be16 window, checksum, urgent;
};

/* RFC 768 */
struct kn_udp_header {
	kn_be16 src_port, dst_port, len, checksum;
};

/* RFC 792, RFC 4443 */
struct kn_icmp_header {
	uint8_t type, code;
	kn_be16 checksum;
};

struct kn_cursor {
	const uint8_t *at;  /* next byte; at <= end */
	const uint8_t *end; /* one past the last byte that may be read */
};

/** A cursor at the first of len bytes. */
static inline struct kn_cursor kn_cursor_of(const void *ptr, size_t len)
{
	return (struct kn_cursor){ ptr, (const uint8_t *)ptr + len };
}

/** Bytes that are left. */
static inline size_t kn_cursor_left(const struct kn_cursor *c)
{
	return (size_t)(c->end - c->at);
}

/** The next bytes, and step over them; NULL, and no step, when there are fewer left. */
static inline const void *kn_cursor_take(struct kn_cursor *c, size_t bytes)
{
	const void *at = c->at;

	if (bytes > kn_cursor_left(c))
		return NULL;
	c->at += bytes;
	return at;
}

/** Let the cursor end bytes after where it is, never later than it did. */
static inline void kn_cursor_limit(struct kn_cursor *c, size_t bytes)
{
	if (bytes < kn_cursor_left(c))
		c->end = c->at + bytes;
}

/** The next header of this type, or NULL. */
#define KN_TAKE(cursor, type) ((const type *)kn_cursor_take((cursor), sizeof(type)))
