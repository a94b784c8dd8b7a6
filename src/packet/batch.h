/*
 * A batch: up to 32 frames on their way through a pipeline, and what the parser found out about
 * them, in columns. Each frame has a lane; lanes and frames never move, and `live` is a set of
 * lanes. Dropping clears bits, branching splits the set, merging unites sets, and order is kept
 * without compaction. Columns are what lets a classifier look at 16 frames with one instruction.
 *
 * Thread  a batch belongs to one thread.
 */
#pragma once

#include <stdint.h>

#include "packet/frame.h"
#include "packet/reason.h"

enum { KN_BATCH = 32 };

typedef uint32_t kn_lanes; /* a set of lanes, bit i for frame[i] */

/*
 * The `meta` column: one word that a classifier tests under a mask.
 */
enum {
	KN_META_PROTO = 0xff, /* upper-layer protocol; 0 and not IP: see below */
	KN_META_IPV4 = 1 << 8,
	KN_META_IPV6 = 1 << 9,
	KN_META_ARP = 1 << 10,
	KN_META_OTHER = 1 << 11,    /* neither IP nor ARP: counts as one more family */
	KN_META_PORTS = 1 << 12,    /* ports column holds source and destination port */
	KN_META_ICMP = 1 << 13,	    /* ports column holds type and code */
	KN_META_FRAGMENT = 1 << 14, /* any fragment, the first one too */
	KN_META_TAGGED = 1 << 15,   /* has a VLAN tag */
	KN_META_VLAN_SHIFT = 16,    /* id of the outer tag in 12 bits from here */
	KN_META_VLAN = 0x0fff << 16,
	KN_META_QINQ = 1 << 28,	   /* has two tags */
	KN_META_OPTIONS = 1 << 29, /* IPv4 options or IPv6 extension headers */
	KN_META_FAMILY = KN_META_IPV4 | KN_META_IPV6 | KN_META_ARP | KN_META_OTHER,
};

struct kn_batch {
	kn_lanes live;	 /* frames that are still to be handled; a subset of the first n lanes */
	kn_lanes sent;	 /* frames that a port took over: no longer ours */
	uint32_t n;	 /* lanes in use */
	bool observed;	 /* somebody wants why[] and rule[] of each frame */
	uint64_t *drops; /* counters by reason, KN_REASON_COUNT of them */
	struct kn_frame *frame[KN_BATCH];

	/* Columns, filled by the parser for lanes that it left live. */
	kn_lanes ipv4, ipv6;		      /* lanes by family */
	_Alignas(64) uint32_t meta[KN_BATCH]; /* KN_META_... */
	_Alignas(64) uint32_t src4[KN_BATCH]; /* as in the packet; 0 unless IPv4 */
	_Alignas(64) uint32_t dst4[KN_BATCH];
	_Alignas(64) uint32_t ports[KN_BATCH]; /* source << 16 | destination */

	/* Where headers are, in bytes from data. All of it lies inside the frame. */
	_Alignas(64) uint16_t l3[KN_BATCH];	 /* IP or ARP header, or what follows Ethernet's */
	_Alignas(64) uint16_t l4[KN_BATCH];	 /* TCP, UDP or ICMP header; 0: there is none */
	_Alignas(64) uint16_t payload[KN_BATCH]; /* behind that header; 0 with l4 */
	_Alignas(64) uint16_t payload_len[KN_BATCH]; /* IP packet's bytes from there that we have */

	/* For observers only. */
	uint8_t why[KN_BATCH];	    /* enum kn_reason */
	const char *rule[KN_BATCH]; /* ACL rule that decided, or NULL */
};

/** The set of the first n lanes. */
static inline kn_lanes kn_lanes_first(uint32_t n)
{
	return n >= KN_BATCH ? ~(kn_lanes)0 : ((kn_lanes)1 << n) - 1;
}

/** The set of one lane. */
static inline kn_lanes kn_lane(uint32_t lane)
{
	return (kn_lanes)1 << lane;
}

/** How many lanes are in a set. No POPCNT in the baseline instruction set: a few adds instead. */
static inline uint32_t kn_lanes_count(kn_lanes set)
{
	set -= set >> 1 & 0x55555555;
	set = (set & 0x33333333) + (set >> 2 & 0x33333333);
	set = (set + (set >> 4)) & 0x0f0f0f0f;
	return set * 0x01010101 >> 24;
}

/** For each lane of a set, in order. The set expression is evaluated once. */
#define kn_each_lane(lane, set)                                                                    \
	for (uint32_t lane##_left = (set), lane;                                                   \
	     lane##_left && (lane = (uint32_t)__builtin_ctz(lane##_left), 1);                      \
	     lane##_left &= lane##_left - 1)

/** Drop these live lanes and count them. Their frames go back when the batch is done. */
static inline void kn_batch_drop(struct kn_batch *b, kn_lanes set, enum kn_reason reason)
{
	if (!set)
		return;
	b->live &= ~set;
	b->drops[reason] += kn_lanes_count(set);
	if (__builtin_expect(b->observed, 0)) {
		kn_each_lane(lane, set)
		{
			b->why[lane] = (uint8_t)reason;
		}
	}
}

/** Give the frames of these lanes back to their pools. The lanes' sets are left alone. */
static inline void kn_batch_release(const struct kn_batch *b, kn_lanes set)
{
	struct kn_frame *frames[KN_BATCH];
	uint32_t n = 0;

	kn_each_lane(lane, set)
	{
		frames[n++] = b->frame[lane];
	}
	kn_frames_put(frames, n);
}
