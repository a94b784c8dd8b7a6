/*
 * Rules over parsed frames: what a frame must look like (kn_match), and lists of them of which the
 * first that matches decides (kn_acl). Rules are compiled into words that are compared under masks,
 * 16 lanes at a time where the processor can, and what a rule takes is a set of lanes; no branch
 * depends on a frame. Used by the acl, filter and count operators.
 *
 * Thread  an ACL belongs to the thread of its pipeline; kn_match is a value.
 */
#pragma once

#include "base/str.h"
#include "packet/batch.h"

/* An address prefix. */
struct kn_prefix {
	uint8_t family;	  /* 4, 6, or 0: any address */
	uint8_t bits;	  /* at most 32 or 128; addr has only zeros behind them */
	uint8_t addr[16]; /* network order; IPv4 in the first 4 */
};

/* Both ends are in the range. */
struct kn_range {
	uint16_t low, high;
};

#define KN_RANGE_ANY ((struct kn_range){ 0, 65535 })

/*
 * What a frame must look like. Tests that are left at KN_MATCH_ANY's values accept everything. A
 * port range makes the match TCP- or UDP-like only: frames without ports (ICMP, ARP, later
 * fragments) do not match it, not even 0-65535 given by hand.
 */
struct kn_match {
	struct kn_prefix src, dst;
	struct kn_range src_port, dst_port;
	struct kn_range icmp_type, icmp_code;
	bool has_src_port, has_dst_port, has_icmp_type, has_icmp_code, has_proto;
	uint8_t proto;
	uint32_t family; /* one of KN_META_FAMILY's bits, or 0: any */
	int fragment;	 /* 1: only fragments, 0: only whole packets, -1: any */
	int vlan;	 /* id of the outer tag, or KN_VLAN_... */
};

enum { KN_VLAN_ANY = -1, KN_VLAN_UNTAGGED = -2, KN_VLAN_TAGGED = -3 };

#define KN_MATCH_ANY                                                                               \
	((struct kn_match){ .src_port = KN_RANGE_ANY,                                              \
			    .dst_port = KN_RANGE_ANY,                                              \
			    .icmp_type = KN_RANGE_ANY,                                             \
			    .icmp_code = KN_RANGE_ANY,                                             \
			    .fragment = -1,                                                        \
			    .vlan = KN_VLAN_ANY })

enum kn_action { KN_PASS, KN_DROP };

struct kn_rule {
	const char *name; /* copied by kn_acl_new() */
	struct kn_match match;
	enum kn_action action;
};

struct kn_acl;

enum { KN_ACL_RULES_MAX = 65536, KN_RULE_NAME_MAX = 63, KN_ACL_NO_RULE = 0xffffffff };

/**
 * Compile a list of rules.
 *
 * rules     n of them, in the order in which they are tried; copied
 * fallback  what happens to frames that no rule matches
 * ret       kn_acl_free() it
 *
 * Errors  EINVAL: too many rules, a name too long, or a match that contradicts itself (an IPv4
 *         source with an IPv6 destination, ports of ICMP): told with the rule's name; ENOMEM
 */
kn_must_use int kn_acl_new(const struct kn_rule *rules, uint32_t n, enum kn_action fallback,
			   struct kn_acl **ret, struct kn_err *err);

/** Release an ACL; NULL is fine. */
void kn_acl_free(struct kn_acl *acl);
KN_AUTO(kn_acl_free, struct kn_acl *);

/** Judge every live lane: count it under its rule, and drop it where that says so. */
void kn_acl_run(struct kn_acl *acl, struct kn_batch *b);

/** The live lanes that the list passes. Counts as kn_acl_run() does, but drops nothing. */
kn_lanes kn_acl_passes(struct kn_acl *acl, struct kn_batch *b);

/** How many rules there are. */
uint32_t kn_acl_size(const struct kn_acl *acl);

/** The name of rule i, borrowed; "default" for KN_ACL_NO_RULE. */
const char *kn_acl_name(const struct kn_acl *acl, uint32_t i);

/** What rule i does; for KN_ACL_NO_RULE the fallback. */
enum kn_action kn_acl_action(const struct kn_acl *acl, uint32_t i);

/** Frames that rule i decided so far; for KN_ACL_NO_RULE the fallback's. */
uint64_t kn_acl_count(const struct kn_acl *acl, uint32_t i);

/**
 * The classifier in one sentence, frame by frame, with no tricks: what tests hold the compiled form
 * against. Looks at the lane's columns and, for IPv6 addresses, into its frame.
 */
bool kn_match_lane(const struct kn_match *match, const struct kn_batch *b, uint32_t lane);

/** The instruction set that kn_acl_run() uses here: "avx512", "avx2" or "portable". */
const char *kn_acl_engine(void);

/** Tests and measurements: use this engine from now on. Errors: ENOTSUP here; EINVAL unknown. */
kn_must_use int kn_acl_use_engine(const char *name, struct kn_err *err);

/** "10.0.0.0/8", "fe80::/10", an address alone, or "any". Errors: EINVAL, bits set behind the prefix. */
kn_must_use int kn_parse_prefix(struct kn_view text, struct kn_prefix *ret, struct kn_err *err);

/** "53" or "1024-65535", up to max. Errors: EINVAL, also when high is below low. */
kn_must_use int kn_parse_range(struct kn_view text, uint16_t max, struct kn_range *ret,
			       struct kn_err *err);

/** "tcp", "udp", "icmp", "icmpv6", "sctp", "esp", ... or a number to 255. Errors: EINVAL. */
kn_must_use int kn_parse_proto(struct kn_view text, uint8_t *ret, struct kn_err *err);
