/*
 * DNS messages as a function's name server needs them: one question in, some IPv4 addresses out.
 * Used by host/network. What it does not know (EDNS, other sections) it leaves unread: an answer
 * always fits into the 512 bytes that every client takes, so there is no truncation and no TCP.
 *
 * Thread  keeps no state
 * Source  RFC 1035, 4.1; RFC 6891, 7 (a server without EDNS)
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

enum { KN_DNS_A = 1, KN_DNS_AAAA = 28 };
enum { KN_DNS_IN = 1 };
enum kn_dns_code {
	KN_DNS_OK = 0,
	KN_DNS_FORMAT = 1,
	KN_DNS_SERVER = 2,         /* the lookup failed: try again */
	KN_DNS_NO_NAME = 3,
	KN_DNS_NOT_DONE = 4,
	KN_DNS_REFUSED = 5,
};
enum { KN_DNS_BYTES = 512, KN_DNS_MAX_ADDRESSES = 12, KN_DNS_NAME = 254 };

struct kn_dns_query {
	uint16_t id;
	bool wants_recursion;
	enum kn_dns_code code;     /* other than OK: answer with this, there is no question */
	uint16_t type, class;
	char name[KN_DNS_NAME];    /* without a dot at its end; "" for the root, and for a name with a
	                            * byte that no host name has */
	size_t n_question;
	unsigned char question[KN_DNS_NAME + 2 + 4];   /* as it came, to be said again */
};

/**
 * Read a query.
 *
 * ret     filled with an id and a code even when there is no question to answer
 *
 * Errors  EBADMSG: nothing to answer at all (too short, or itself an answer)
 */
kn_must_use int kn_dns_parse(struct kn_view packet, struct kn_dns_query *ret, struct kn_err *err);

/**
 * Write the answer to a query.
 *
 * addresses  host byte order; those beyond KN_DNS_MAX_ADDRESSES are left out
 * out        KN_DNS_BYTES
 *
 * Returns its length.
 */
size_t kn_dns_answer(const struct kn_dns_query *q, enum kn_dns_code code, const uint32_t *addresses,
                     size_t n, uint32_t ttl_s, unsigned char *out);
