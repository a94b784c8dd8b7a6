/*
 * Why a frame did not come out. Every frame that enters a pipeline is either sent or counted under
 * exactly one of these reasons, so that received = sent + the sum of the counters. Used by parsers,
 * ports and operators of this plane, and by what prints their counters.
 *
 * Thread  keeps no state.
 */
#pragma once

#include <stddef.h>

/* Rows: constant, name in reports, sentence for people. */
/* clang-format off */
#define KN_REASONS(row) \
	row(KN_DROP_CAPTURE_CUT, "capture_cut", "the capture holds too few bytes of the frame") \
	row(KN_DROP_TOO_LONG, "too_long", "the frame is longer than the pool's buffers") \
	row(KN_DROP_RX_CUT, "rx_cut", "the kernel had no room for the whole frame") \
	row(KN_DROP_ETH_SHORT, "eth_short", "shorter than an Ethernet header") \
	row(KN_DROP_VLAN_SHORT, "vlan_short", "cut inside a VLAN tag") \
	row(KN_DROP_VLAN_DEEP, "vlan_deep", "more than two VLAN tags") \
	row(KN_DROP_ARP_SHORT, "arp_short", "cut inside an ARP packet") \
	row(KN_DROP_IPV4_SHORT, "ipv4_short", "cut inside an IPv4 header") \
	row(KN_DROP_IPV4_VERSION, "ipv4_version", "EtherType says IPv4, the version does not") \
	row(KN_DROP_IPV4_IHL, "ipv4_ihl", "IPv4 header length below 20 bytes or past the packet") \
	row(KN_DROP_IPV4_LENGTH, "ipv4_length", "IPv4 total length past the frame's end") \
	row(KN_DROP_IPV4_CHECKSUM, "ipv4_checksum", "wrong IPv4 header checksum") \
	row(KN_DROP_IPV6_SHORT, "ipv6_short", "cut inside an IPv6 header") \
	row(KN_DROP_IPV6_VERSION, "ipv6_version", "EtherType says IPv6, the version does not") \
	row(KN_DROP_IPV6_LENGTH, "ipv6_length", "IPv6 payload length past the frame's end") \
	row(KN_DROP_IPV6_EXT_SHORT, "ipv6_ext_short", "cut inside an IPv6 extension header") \
	row(KN_DROP_IPV6_EXT_ORDER, "ipv6_ext_order", "hop-by-hop options not in the first place") \
	row(KN_DROP_IPV6_EXT_MANY, "ipv6_ext_many", "more than 8 IPv6 extension headers") \
	row(KN_DROP_TINY_FRAGMENT, "tiny_fragment", "a fragment that splits the TCP header") \
	row(KN_DROP_FRAGMENT_LENGTH, "fragment_length", "a fragment that ends past 65535 bytes") \
	row(KN_DROP_TCP_SHORT, "tcp_short", "cut inside a TCP header") \
	row(KN_DROP_TCP_OFFSET, "tcp_offset", "TCP data offset below 5 words or past the segment") \
	row(KN_DROP_UDP_SHORT, "udp_short", "cut inside a UDP header") \
	row(KN_DROP_UDP_LENGTH, "udp_length", "UDP length below 8 or past the datagram's end") \
	row(KN_DROP_ICMP_SHORT, "icmp_short", "cut inside an ICMP header") \
	row(KN_DROP_TTL, "ttl_expired", "TTL or hop limit is used up") \
	row(KN_DROP_ACL_RULE, "acl_rule", "a rule says drop") \
	row(KN_DROP_ACL_DEFAULT, "acl_default", "no rule matched and the default is drop") \
	row(KN_DROP_FILTER, "filter", "a filter did not want it") \
	row(KN_DROP_TX_FULL, "tx_full", "the sending port took no more") \
	row(KN_DROP_TX_MTU, "tx_mtu", "longer than the sending interface may carry") \
	row(KN_DROP_TX_DOWN, "tx_down", "the sending interface is down") \
	row(KN_DROP_TX_REFUSED, "tx_refused", "the kernel would not send it") \
	row(KN_DROP_NOT_SENT, "not_sent", "the chain ended without sending it")
/* clang-format on */

enum kn_reason {
#define KN_REASON_ENUM(id, name, text) id,
	KN_REASONS(KN_REASON_ENUM)
#undef KN_REASON_ENUM
		KN_REASON_COUNT,
	KN_REASON_NONE = 255, /* the frame lives, or was sent */
};

/** The name in reports ("ipv4_length"), "none" for KN_REASON_NONE; never NULL. */
const char *kn_reason_name(enum kn_reason reason);

/** A sentence for people; never NULL. */
const char *kn_reason_text(enum kn_reason reason);
