/*
 * The parser: looks at each live frame of a batch once, fills the batch's columns, and drops what
 * is malformed under the reason that says how. Ethernet, up to two VLAN tags, ARP, IPv4 with
 * options and fragments, IPv6 with at most 8 extension headers, TCP, UDP, ICMP and ICMPv6. What it
 * does not know stays live: as family "other", or as IP with a protocol number and no ports.
 *
 * A later fragment has no ports: operators that compare ports never match it. Lengths inside the
 * packet are held against the frame's length on the wire and against each other; a frame that its
 * capture cut is refused only if a header is missing.
 *
 * Thread  as the batch.
 * Source  IEEE 802.1Q; RFC 791, 792, 826, 768, 9293, 8200, 4443, 4302; RFC 1858 (tiny fragments)
 */
#pragma once

#include "packet/batch.h"

enum { KN_IPV6_EXT_MAX = 8, KN_VLAN_MAX = 2 };

struct kn_parse_options {
	bool verify_ipv4_checksum; /* costs a sum over the header; off where NICs offload it */
};

/**
 * Parse every live frame of a batch.
 *
 * options  may be NULL: nothing but the headers' structure is checked
 */
void kn_parse_batch(struct kn_batch *b, const struct kn_parse_options *options);

/* What one frame's parse gives; a batch's columns by the same names. */
struct kn_parsed {
	uint32_t meta, src4, dst4, ports;
	uint16_t l3, l4, payload, payload_len;
};

/**
 * Parse one frame step by step: the complete parser. The batch form takes it for everything but
 * the plainest frames, and gives the same values for those.
 *
 * len       bytes at data
 * wire_len  bytes that were on the wire, at least len
 * ret       filled on success only
 *
 * Returns KN_REASON_NONE, or why the frame must be dropped.
 */
enum kn_reason kn_parse_frame(const uint8_t *data, uint32_t len, uint32_t wire_len,
			      const struct kn_parse_options *options, struct kn_parsed *ret);

/** Tests and measurements: parse plain frames with vector instructions or step by step, too. */
void kn_parse_use_vectors(bool yes);
