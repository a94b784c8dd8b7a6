/*
 * The rules, in the language of nft(8), run by libnftables: whoever knows that language can check
 * them here, and on a live host by `nft list ruleset`. One start costs about a millisecond for it
 * (2026-11-28).
 *
 * In a gateway a packet of the function passes: guard (is it who it says?), then forward. There a
 * rule with exactly one address comes first, then what is never open, then ranges and names. A name's
 * rule reads a set that the name server fills before it answers. Nothing is open by default.
 *
 * In the node's namespace a packet that leaves a gateway for one of this host's own addresses is
 * refused unless a policy names that address; that is decided before any address translation of
 * others (a published port of a container engine, say). Between gateways nothing passes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <nftables/libnftables.h>
#include <stdlib.h>

#include "host/network/network.h"

enum { MAX_ADDRESSES = 4096 };   /* that one rule with a name has open at once */

/* ---- running ------------------------------------------------------------------------------- */

/* The first line of what nft says, which is the one with the reason. */
static int tell(const char *said, struct kn_err *err)
{
	struct kn_view line = kn_view_of(said), rest = line;
	int code = strstr(said, "not permitted") ? EPERM : strstr(said, "not supported") ? ENOTSUP
	                                                                                  : EIO;

	(void)!kn_view_split(&rest, '\n', &line);
	return kn_fail(err, code, "nftables: %.*s", (int)kn_min(line.len, (size_t)200), line.ptr);
}

int rules_keep(struct nft_ctx **nft, const char *commands, struct kn_err *err)
{
	if (!*nft) {
		*nft = nft_ctx_new(NFT_CTX_DEFAULT);
		if (!*nft)
			return kn_fail(err, ENOMEM, "memory for nftables");
		nft_ctx_buffer_error(*nft);
		nft_ctx_buffer_output(*nft);
	}
	if (nft_run_cmd_from_buffer(*nft, commands) != 0)
		return tell(nft_ctx_get_error_buffer(*nft), err);
	return 0;
}

void rules_end(struct nft_ctx *nft)
{
	if (nft)
		nft_ctx_free(nft);
}

int rules_run(const char *commands, struct kn_err *err)
{
	struct nft_ctx *nft = NULL;

	int r = rules_keep(&nft, commands, err);
	rules_end(nft);
	return r;
}

bool rules_have_table(const char *name)
{
	char command[64];

	snprintf(command, sizeof(command), "list table inet %s", name);
	return rules_run(command, NULL) == 0;
}

/* ---- text ---------------------------------------------------------------------------------- */

static void add_address(struct kn_buf *out, uint32_t address)
{
	struct in_addr a = { .s_addr = htonl(address) };
	char text[INET_ADDRSTRLEN];

	kn_buf_adds(out, inet_ntop(AF_INET, &a, text, sizeof(text)));
}

static void add_range(struct kn_buf *out, uint32_t address, uint8_t prefix)
{
	add_address(out, address);
	kn_buf_printf(out, "/%u", prefix);
}

static void add_ports(struct kn_buf *out, const struct kn_egress_rule *r)
{
	static const char *const protocols[] = { [KN_EGRESS_TCP] = "tcp", [KN_EGRESS_UDP] = "udp",
		                                 [KN_EGRESS_BOTH] = "{ tcp, udp }" };

	kn_buf_printf(out, " meta l4proto %s", protocols[r->protocols]);
	if (r->port_first > 0 || r->port_last < 65535)
		kn_buf_printf(out, " th dport %u-%u", r->port_first, r->port_last);
}

static bool is_exact(const struct kn_egress_rule *r)
{
	return !r->name && r->prefix == 32;
}

/* Rules of the one kind or the other, in the policy's order. */
static void add_rules(struct kn_buf *out, const struct kn_egress *policy, bool exact)
{
	for (size_t i = 0; i < policy->n_rules; i++) {
		const struct kn_egress_rule *r = &policy->rules[i];
		if (is_exact(r) != exact)
			continue;
		kn_buf_adds(out, "\t\tip daddr ");
		if (r->name)
			kn_buf_printf(out, "@name%zu", i);
		else
			add_range(out, r->address, r->prefix);
		add_ports(out, r);
		kn_buf_adds(out, " jump open\n");
	}
}

static void add_sets(struct kn_buf *out, const struct kn_egress *policy)
{
	for (size_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].name)
			kn_buf_printf(out, "\tset name%zu { type ipv4_addr; flags timeout; size %d; }\n",
			              i, MAX_ADDRESSES);
}

/*
 * open: a function that scans or floods is held at its own gateway, before it costs the host's table
 * of connections anything that others need.
 */
static const char GATEWAY[] =
	"	chain guard {\n"
	"		type filter hook prerouting priority raw; policy accept;\n"
	"		iifname != \"" GUEST "\" accept\n"
	"		ether saddr != " KN_NETIF_MAC " drop\n"
	"		meta nfproto ipv6 drop\n"
	"		ip saddr != 169.254.75.2 drop\n"
	"	}\n"
	"	chain input {\n"
	"		type filter hook input priority filter; policy drop;\n"
	"		iifname \"" GUEST "\" ip daddr " KN_NETIF_DNS " udp dport 53 limit rate 100/second "
	"burst 200 packets accept\n"
	"		iifname \"" GUEST "\" reject with icmp port-unreachable\n"
	"	}\n"
	"	chain open {\n"
	"		limit rate over 200/second burst 400 packets drop\n"
	"		ct count over 1024 drop\n"
	"		accept\n"
	"	}\n"
	"	chain leave {\n"
	"		type nat hook postrouting priority srcnat; policy accept;\n"
	"		oifname \"" UPLINK "\" masquerade\n"
	"	}\n"
	"	chain forward {\n"
	"		type filter hook forward priority filter; policy drop;\n"
	"		ct state established,related accept\n"
	"		ct state invalid drop\n"
	"		iifname != \"" GUEST "\" drop\n"
	"		oifname != \"" UPLINK "\" drop\n";

/* Nobody needs ARP here but the function for its gateway, and the two ends of the veth pair. */
static const char GATEWAY_ARP[] =
	"table arp kiln {\n"
	"	chain input {\n"
	"		type filter hook input priority filter; policy drop;\n"
	"		iifname \"" UPLINK "\" accept\n"
	"		iifname \"" GUEST "\" arp saddr ip 169.254.75.2 arp saddr ether " KN_NETIF_MAC
	" arp daddr ip " KN_NETIF_GATEWAY " accept\n"
	"	}\n"
	"}\n";

void rules_gateway(struct kn_buf *out, const struct kn_egress *policy, struct range range)
{
	kn_buf_adds(out, "table inet kiln {\n");
	add_sets(out, policy);
	kn_buf_adds(out, GATEWAY);
	kn_buf_adds(out, "\t\tip daddr ");
	add_range(out, range.first, range.prefix);
	kn_buf_adds(out, " reject with icmp admin-prohibited\n");
	add_rules(out, policy, true);
	kn_buf_printf(out, "\t\tip daddr { %s } reject with icmp admin-prohibited\n",
	              kn_egress_never_text());
	add_rules(out, policy, false);
	kn_buf_adds(out, "\t\treject with icmp admin-prohibited\n\t}\n}\n");
	kn_buf_adds(out, GATEWAY_ARP);
}

void rules_node(struct kn_buf *out, const struct kn_network *n)
{
	kn_buf_printf(out, "table inet %s\ndelete table inet %s\ntable inet %s {\n", n->table, n->table,
	              n->table);
	kn_buf_printf(out,
	              "	set named { type ipv4_addr . ipv4_addr; }\n"
	              "	chain guard {\n"
	              "		type filter hook prerouting priority mangle; policy accept;\n"
	              "		iifname != \"kn%s*\" accept\n"
	              "		meta nfproto ipv6 drop\n"
	              "		ip saddr . ip daddr @named accept\n"
	              "		fib daddr type { local, broadcast, multicast, anycast } reject with icmp "
	              "admin-prohibited\n"
	              "	}\n"
	              "	chain forward {\n"
	              "		type filter hook forward priority filter - 10; policy accept;\n"
	              "		iifname \"kn%s*\" oifname \"kn*\" reject with icmpx admin-prohibited\n"
	              "		oifname \"kn%s*\" ct state != { established, related } drop\n"
	              "	}\n"
	              "	chain leave {\n"
	              "		type nat hook postrouting priority srcnat; policy accept;\n"
	              "		oifname != \"kn*\" ip saddr ", n->owner, n->owner, n->owner);
	add_range(out, n->range.first, n->range.prefix);
	kn_buf_adds(out, " masquerade\n\t}\n}\n");
}

bool rules_named(struct kn_buf *out, const struct kn_netif *i, bool open)
{
	const struct kn_network *n = i->network;
	const char *between = "";

	kn_buf_printf(out, "%s element inet %s named { ", open ? "add" : "delete", n->table);
	for (size_t at = 0; at < i->policy->n_rules; at++) {
		const struct kn_egress_rule *r = &i->policy->rules[at];
		if (!is_exact(r))
			continue;
		kn_buf_adds(out, between);
		add_address(out, pair_gateway(n, i->pair));
		kn_buf_adds(out, " . ");
		add_address(out, r->address);
		between = ", ";
	}
	kn_buf_adds(out, " }\n");
	return *between;
}

/* An element that is there already keeps its old time: taken out and put in again, all at once. */
void rules_names(struct kn_buf *out, size_t rule, const uint32_t *addresses, size_t n,
                 uint32_t seconds)
{
	static const char *const steps[] = { "add", "delete", "add" };

	for (size_t s = 0; s < KN_ARRAY_LEN(steps); s++) {
		kn_buf_printf(out, "%s element inet kiln name%zu { ", steps[s], rule);
		for (size_t i = 0; i < n; i++) {
			kn_buf_adds(out, i ? ", " : "");
			add_address(out, addresses[i]);
			if (*steps[s] == 'a')
				kn_buf_printf(out, " timeout %us", seconds);
		}
		kn_buf_adds(out, " }\n");
	}
}
