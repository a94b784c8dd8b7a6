/*
 * What rules are compiled into, shared by the compiler and the engines. Private to packet/acl.
 *
 * A lane matches a rule when
 *     ((src4 ^ src_value) & src_mask) | ((dst4 ^ dst_value) & dst_mask) |
 *     ((meta ^ meta_value) & meta_mask) | (ports outside low..high, each half on its own)
 * is 0, and, for rules with `six`, its IPv6 addresses match too.
 */
#pragma once

#include "packet/acl.h"

struct code {
	uint32_t src_value, src_mask;
	uint32_t dst_value, dst_mask;
	uint32_t meta_value, meta_mask;
	uint32_t low, high; /* upper halves: source port or ICMP type; lower: destination or code */
	kn_lanes drop;	    /* all lanes when the rule drops, else none */
	uint32_t six;	    /* index + 1 into the IPv6 prefixes, or 0 */
};

/* Both IPv6 addresses under their masks, as machine words of the packet's bytes. */
struct six {
	uint64_t src_value[2], src_mask[2];
	uint64_t dst_value[2], dst_mask[2];
};

struct kn_acl {
	uint32_t n;
	uint32_t n_six;
	struct code *codes;
	struct six *six;
	uint64_t *counts; /* n, and one more for the fallback */
	char (*names)[KN_RULE_NAME_MAX + 1];
	kn_lanes fallback_drop;
};

/* What an engine found out about the lanes it was given. */
struct verdict {
	kn_lanes passed, dropped, unmatched;
};

/*
 * An engine judges the lanes of `set` and counts them in counts (one per rule; the fallback's is
 * the caller's). ret_names is NULL, or gets for each lane the name of the rule that decided.
 */
typedef struct verdict engine_fn(const struct kn_acl *acl, const struct kn_batch *b, kn_lanes set,
				 uint64_t *counts, const char **ret_names);

engine_fn kn_acl_portable, kn_acl_avx2, kn_acl_avx512;

/* The lanes of `lanes` whose IPv6 addresses match; the slow part of rules that have such. */
kn_lanes kn_acl_six(const struct six *six, const struct kn_batch *b, kn_lanes lanes);
