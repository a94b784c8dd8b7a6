/* Private to host/network: what its parts share. */
#pragma once

#include "host/dns.h"
#include "host/lookup.h"
#include "host/netlink.h"
#include "host/network.h"

enum { OWNER_HEX = 6, IFACE_BYTES = 16, TABLE_BYTES = 24 };
enum { MAX_LOOKUPS = 32, QUERIES_BURST = 64, QUERIES_PER_S = 32 };

/* Interfaces of gateways, on both sides; a namespace has one of each. */
#define UPLINK "up"
#define GUEST  "guest"

#define GUEST_ADDRESS   UINT32_C(0xa9fe4b02)   /* KN_NETIF_ADDRESS */
#define GATEWAY_ADDRESS UINT32_C(0xa9fe4b01)   /* KN_NETIF_GATEWAY */
enum { GUEST_PREFIX = 30 };
#define GATEWAY_MAC "\x02\x6b\x6e\x00\x00\x01"
#define GUEST_MAC   "\x02\x6b\x6e\x00\x00\x02"   /* KN_NETIF_MAC */

struct nft_ctx;   /* libnftables */

struct range {
	uint32_t first;
	uint8_t prefix;
};

struct kn_network {
	struct kn_loop *loop;
	int home;                      /* namespace of the loop's thread */
	struct kn_netlink *netlink;    /* there */
	char owner[OWNER_HEX + 1];
	char table[TABLE_BYTES];       /* "kiln-OWNER" */
	bool chosen;                   /* range is what is used */
	bool ready;                    /* the table is there */
	struct range range;
	uint32_t next;                 /* pair of addresses that is tried next */
	uint64_t *taken;               /* a bit a pair */
	size_t n_lookups;
	struct nft_ctx *nft;           /* of the node's table; NULL before its first use */
};

/* One lookup that a guest waits for. */
struct question {
	struct kn_netif *netif;
	struct question *next, **prev;
	struct kn_lookup *lookup;
	struct kn_dns_query query;
	uint8_t peer[32];              /* struct sockaddr_in of the asker */
};

struct kn_netif {
	struct kn_network *network;
	struct kn_arena arena;         /* owns the policy */
	const struct kn_egress *policy;
	struct kn_netif_events events;
	int ns;                        /* the gateway's namespace */
	uint32_t pair;                 /* of the range; its addresses are 2 * pair and that + 1 */
	bool has_pair, has_named;
	char name[IFACE_BYTES];        /* of its veth in the node's namespace */
	struct nft_ctx *nft;           /* of the gateway's rules; NULL before a name was opened */
	struct kn_watch dns;           /* .fd -1 while there is none */
	struct question *questions;
	size_t n_questions;
	uint64_t tokens_ns;            /* of the limit on queries: a full bucket is empty time */
	uint64_t told_ns;              /* when `refused` was called last */
};

/* space.c */
/** Enter a namespace. Returns 0 or -errno; what was entered must be left. */
int space_enter(int ns, struct kn_err *err);
/** Make a namespace and enter it. Returns its descriptor. */
int space_new(struct kn_err *err);
/** Back to home. A thread that cannot go back would do the node's work in a guest's place. */
void space_leave(int home);
/** Write "1\n" and the like below /proc/sys/net of the namespace in which the thread is. */
int space_set(const char *name, const char *value, struct kn_err *err);
/** A TAP interface in the namespace in which the thread is. Returns its descriptor. */
int space_tap(const char *name, const uint8_t mac[6], struct kn_err *err);

/* rules.c */
/** Run commands of nft(8) in the namespace in which the thread is. */
int rules_run(const char *commands, struct kn_err *err);
/**
 * The same, with a connection to the kernel that is made if *nft is NULL, and kept: it belongs to the
 * namespace in which it was made. When it is closed the kernel first finishes what was deleted, which
 * takes 10 to 30 ms (Linux 6.18, 2026-11-28), so what deletes elements does not close.
 */
int rules_keep(struct nft_ctx **nft, const char *commands, struct kn_err *err);
void rules_end(struct nft_ctx *nft);
/** Is there a table inet of this name? */
bool rules_have_table(const char *name);
/** Append the rules of a gateway. range: addresses of all gateways, which no function reaches. */
void rules_gateway(struct kn_buf *out, const struct kn_egress *policy, struct range range);
/** Append the rules of the node. */
void rules_node(struct kn_buf *out, const struct kn_network *n);
/** Append what opens, or closes again, the addresses that the policy names exactly. False: none. */
bool rules_named(struct kn_buf *out, const struct kn_netif *i, bool open);
/** Append what opens addresses for rule number `rule` for a while. */
void rules_names(struct kn_buf *out, size_t rule, const uint32_t *addresses, size_t n,
                 uint32_t seconds);

/* names.c */
int names_start(struct kn_netif *i, struct kn_err *err);
void names_stop(struct kn_netif *i);

/* network.c */
/** Take a pair of addresses, make the node ready for functions if it is not yet. */
int network_take(struct kn_network *n, uint32_t *ret_pair, struct kn_err *err);
void network_give(struct kn_network *n, uint32_t pair);
static inline uint32_t pair_node(const struct kn_network *n, uint32_t pair)
{
	return n->range.first + 2 * pair;
}
static inline uint32_t pair_gateway(const struct kn_network *n, uint32_t pair)
{
	return n->range.first + 2 * pair + 1;
}
