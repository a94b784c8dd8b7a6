/*
 * What the network of a function reaches: an allow-list of addresses, ports and names, read from the
 * annotation `kiln.egress`. Used by faas/function, which keeps it, and by host/network, which makes
 * it true. Serves the event flow.
 *
 *     kiln.egress: "broker.example:8883/tcp, 10.20.0.0/16:5432, *.example.org:443, 192.0.2.7"
 *
 * A rule is HOST[:PORT[-PORT]][/tcp|/udp]; rules stand between commas or blanks. HOST is an IPv4
 * address, a range of them (CIDR), a DNS name, or "*.NAME" for every name below NAME. Without a port
 * all ports are meant, without a protocol TCP and UDP. "none" alone is the empty list: no network.
 *
 * Whatever the list says, a range or a name never opens: this node's own addresses, link-local
 * addresses (the cloud's metadata service among them), loopback, multicast, other functions. The
 * first two are opened by a rule with exactly that address, since there somebody meant it.
 *
 * There is no IPv6: a node that forwards IPv6 no longer takes its own address from router
 * advertisements, and Kiln does not change that behind its operator's back.
 *
 * Thread  keeps no state
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

enum { KN_EGRESS_TCP = 1, KN_EGRESS_UDP = 2, KN_EGRESS_BOTH = 3 };
enum { KN_EGRESS_MAX_RULES = 64, KN_EGRESS_MAX_TEXT = 8192, KN_DNS_MAX_NAME = 253 };

struct kn_egress_rule {
	const char *name;          /* lower case, no dot at the end; NULL: an address */
	bool below;                /* name: those below it, not the name itself */
	uint32_t address;          /* host byte order, no bits below the prefix */
	uint8_t prefix;            /* 32: exactly this address */
	uint8_t protocols;         /* KN_EGRESS_* */
	uint16_t port_first, port_last;
};

struct kn_egress {
	const struct kn_egress_rule *rules;
	size_t n_rules;            /* at least 1 */
};

/**
 * Read a policy.
 *
 * arena   what ret points to lives there
 * ret     NULL for "none"
 *
 * Errors  EINVAL, told for the one who deploys, with what to write instead where that is clear;
 *         E2BIG more than KN_EGRESS_MAX_RULES or KN_EGRESS_MAX_TEXT bytes; ENOMEM
 */
kn_must_use int kn_egress_parse(struct kn_view text, struct kn_arena *arena,
                                const struct kn_egress **ret, struct kn_err *err);

/** A copy that lives in arena; NULL when memory is out. */
const struct kn_egress *kn_egress_copy(const struct kn_egress *e, struct kn_arena *arena);

/** Does this rule open name (any case, a dot at the end is fine)? Never true for address rules. */
bool kn_egress_names(const struct kn_egress_rule *rule, struct kn_view name);

/** Could a rule name this, as a DNS name of RFC 1123: labels of letters, digits and hyphens? */
bool kn_egress_name_ok(struct kn_view name);

/** Addresses that ranges and names never open: loopback, link-local, multicast, reserved. */
bool kn_egress_never(uint32_t address);

/** The ranges of kn_egress_never() as one text: "127.0.0.0/8, ..."; static. */
const char *kn_egress_never_text(void);
