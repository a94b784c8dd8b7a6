/* The node's part: whose interfaces are whose, addresses, and what is set up in its own namespace. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "host/network/network.h"

#define FENCE "kiln-fence"

/* ---- can it be done ------------------------------------------------------------------------ */

static int try_all(struct kn_err *err)
{
	static const struct kn_egress_rule rules[] = { { .name = "name", .protocols = KN_EGRESS_BOTH,
		                                         .port_last = 65535 } };
	static const struct kn_egress policy = { .rules = rules, .n_rules = 1 };
	struct kn_network node = { .owner = "0", .table = "kiln-check", .range = { 0x64400000, 16 } };
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(kn_netlink_close) struct kn_netlink *netlink = NULL;

	kn_auto(kn_close) int tap = space_tap(GUEST, (const uint8_t *)GATEWAY_MAC, err);
	if (tap < 0)
		return tap;
	kn_auto(kn_close) int ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	int r = kn_netlink_open(&netlink, err);
	if (r == 0)
		r = kn_netlink_add_veth(netlink, "kn0", NULL, UPLINK, NULL, ns, err);
	if (r == 0)
		r = space_set("ipv4/ip_forward", "1", err);
	if (r < 0)
		return r;
	rules_gateway(&text, &policy, node.range);
	rules_node(&text, &node);
	return text.failed ? kn_fail(err, ENOMEM, "memory for rules") : rules_run(text.ptr, err);
}

int kn_network_check(struct kn_err *err)
{
	kn_auto(kn_close) int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	if (home < 0)
		return kn_fail(err, errno, "open this network namespace: %s", strerror(errno));
	kn_auto(kn_close) int ns = space_new(err);
	if (ns < 0)
		return ns;
	int r = try_all(err);
	space_leave(home);
	return r;
}

/* ---- addresses ----------------------------------------------------------------------------- */

enum { PREFIX_LEAST = 8, PREFIX_MOST = 28, PREFIX_CHOSEN = 16, PREFIX_WIDE = 4 };

static uint32_t mask_of(unsigned prefix)
{
	return prefix == 0 ? 0 : UINT32_MAX << (32 - prefix);
}

struct search {
	struct range range;
	bool hit;
};

/* Routes that mean "everything else" (0.0.0.0/0, or its halves that VPNs set) do not count. */
static void on_route(uint32_t address, uint8_t prefix, void *arg)
{
	struct search *s = arg;
	uint32_t mask = mask_of(prefix < s->range.prefix ? prefix : s->range.prefix);

	if (prefix >= PREFIX_WIDE && ((address ^ s->range.first) & mask) == 0)
		s->hit = true;
}

static int is_free(struct kn_network *n, struct range range, struct kn_err *err)
{
	struct search s = { .range = range };
	int r = kn_netlink_routes(n->netlink, on_route, &s, err);

	return r < 0 ? r : !s.hit;
}

/*
 * The shared address space of carriers first (RFC 6598), which no home or office uses; of its 64
 * parts, the owner's name says where the search begins, so that two nodes rarely meet.
 */
static int choose_range(struct kn_network *n, struct kn_err *err)
{
	static const struct range pools[] = { { 0x64400000, 10 }, { 0x0a000000, 8 } };
	uint32_t start = (uint32_t)kn_hash(n->owner, strlen(n->owner));

	for (size_t p = 0; p < KN_ARRAY_LEN(pools); p++) {
		uint32_t parts = 1u << (PREFIX_CHOSEN - pools[p].prefix);
		for (uint32_t i = 0; i < parts; i++) {
			struct range range = { pools[p].first + ((start + i) % parts << 16),
				               PREFIX_CHOSEN };
			int r = is_free(n, range, err);
			if (r < 0)
				return r;
			if (r > 0) {
				n->range = range;
				return 0;
			}
		}
	}
	return kn_fail(err, EADDRINUSE, "this host has routes into all of 100.64.0.0/10 and 10.0.0.0/8: "
	               "give functions a range of addresses of their own, --egress-range");
}

static int parse_range(const char *text, struct range *ret, struct kn_err *err)
{
	struct kn_view rest = kn_view_of(text), head;
	struct in_addr a = { 0 };
	char address[INET_ADDRSTRLEN] = "";
	uint64_t prefix = 0;

	(void)!kn_view_split(&rest, '/', &head);
	memcpy(address, head.ptr, kn_min(head.len, sizeof(address) - 1));
	bool good = head.len < sizeof(address) && inet_pton(AF_INET, address, &a) == 1 && rest.ptr &&
	            kn_parse_u64(rest, PREFIX_MOST, &prefix, NULL) == 0 && prefix >= PREFIX_LEAST &&
	            (ntohl(a.s_addr) & ~mask_of((unsigned)prefix)) == 0 &&
	            !kn_egress_never(ntohl(a.s_addr));
	if (!good)
		return kn_fail(err, EINVAL, "'%.64s' is not a range for functions, such as 10.9.0.0/16: "
		               "an IPv4 network with a prefix of %d to %d", text, PREFIX_LEAST,
		               PREFIX_MOST);
	*ret = (struct range){ ntohl(a.s_addr), (uint8_t)prefix };
	return 0;
}

static uint32_t count_pairs(const struct kn_network *n)
{
	return 1u << (31 - n->range.prefix);
}

static int take_pair(struct kn_network *n, uint32_t *ret, struct kn_err *err)
{
	uint32_t pairs = count_pairs(n);

	for (uint32_t i = 0; i < pairs; i++) {
		uint32_t pair = (n->next + i) % pairs;
		if (n->taken[pair / 64] >> (pair % 64) & 1)
			continue;
		n->taken[pair / 64] |= UINT64_C(1) << (pair % 64);
		n->next = pair + 1;
		*ret = pair;
		return 0;
	}
	return kn_fail(err, EUSERS, "all %u networks of functions are in use: give a wider "
	               "--egress-range", pairs);
}

void network_give(struct kn_network *n, uint32_t pair)
{
	n->taken[pair / 64] &= ~(UINT64_C(1) << (pair % 64));
}

/* ---- this host's part ---------------------------------------------------------------------- */

static int forwards(bool *ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	int r = kn_read_file(AT_FDCWD, "/proc/sys/net/ipv4/ip_forward", 16, &text, err);
	*ret = r == 0 && text.len > 0 && text.ptr[0] != '0';
	return r;
}

/*
 * A host that did not forward packets must not become a router for its neighbours because a function
 * may reach something: first the fence, then the switch.
 */
static int switch_forwarding_on(struct kn_err *err)
{
	static const char fence[] =
		"table inet " FENCE " {\n"
		"	chain forward {\n"
		"		type filter hook forward priority filter - 20; policy accept;\n"
		"		iifname != \"kn*\" oifname != \"kn*\" drop\n"
		"	}\n"
		"}\n";
	bool on;

	int r = forwards(&on, err);
	if (r < 0 || on)
		return r;
	if (!rules_have_table(FENCE))
		r = rules_run(fence, err);
	if (r == 0)
		r = space_set("ipv4/ip_forward", "1", err);
	if (r < 0)
		return kn_while(err, "let functions' packets through this host");
	kn_log(KN_WARN, "net.ipv4.ip_forward was off and is on now, for functions alone; to forward for "
	       "others too: nft delete table inet " FENCE);
	return 0;
}

static int set_up(struct kn_network *n, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	int r = n->chosen ? 0 : choose_range(n, err);
	if (r < 0)
		return r;
	n->chosen = true;
	if (!n->taken)
		n->taken = calloc((count_pairs(n) + 63) / 64, sizeof(*n->taken));
	if (!n->taken)
		return kn_fail(err, ENOMEM, "memory for functions' networks");
	n->next %= count_pairs(n);
	rules_node(&text, n);
	r = text.failed ? kn_fail(err, ENOMEM, "memory for rules")
	                : rules_keep(&n->nft, text.ptr, err);
	if (r == 0)
		r = switch_forwarding_on(err);
	if (r < 0)
		return r;
	n->ready = true;
	struct in_addr a = { .s_addr = htonl(n->range.first) };
	char address[INET_ADDRSTRLEN];
	kn_log(KN_INFO, "functions have networks", KN_S("table", n->table),
	       KN_S("range", inet_ntop(AF_INET, &a, address, sizeof(address))),
	       KN_U("prefix", n->range.prefix));
	return 0;
}

int network_take(struct kn_network *n, uint32_t *ret_pair, struct kn_err *err)
{
	int r = n->ready ? 0 : set_up(n, err);

	return r < 0 ? r : take_pair(n, ret_pair, err);
}

/* ---- life ---------------------------------------------------------------------------------- */

static void name_owner(struct kn_network *n, const char *owner)
{
	uint64_t hash = kn_hash(owner, strlen(owner));

	kn_hex(&hash, OWNER_HEX / 2, n->owner);
	snprintf(n->table, sizeof(n->table), "kiln-%s", n->owner);
	if (getrandom(&n->next, sizeof(n->next), 0) < 0)
		n->next = 0;
}

int kn_network_new(const struct kn_network_config *config, struct kn_network **ret,
                   struct kn_err *err)
{
	kn_auto(kn_network_free) struct kn_network *n = calloc(1, sizeof(*n));

	if (!n)
		return kn_fail(err, ENOMEM, "memory for functions' networks");
	n->loop = config->loop;
	n->home = -1;
	name_owner(n, config->owner);
	if (config->range) {
		int r = parse_range(config->range, &n->range, err);
		if (r < 0)
			return r;
		n->chosen = true;
	}
	n->home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (n->home < 0)
		return kn_fail(err, errno, "open this network namespace: %s", strerror(errno));
	int r = kn_netlink_open(&n->netlink, err);
	if (r < 0)
		return r;
	*ret = kn_take_ptr(n);
	return 0;
}

static int remove_table(struct kn_network *n)
{
	char command[64];

	snprintf(command, sizeof(command), "delete table inet %s\n", n->table);
	return rules_keep(&n->nft, command, NULL);
}

void kn_network_free(struct kn_network *n)
{
	if (!n)
		return;
	if (n->ready)
		(void)!remove_table(n);
	rules_end(n->nft);
	kn_netlink_close(n->netlink);
	kn_close(n->home);
	free(n->taken);
	free(n);
}

struct leftovers {
	struct kn_network *network;
	char names[64][IFACE_BYTES];
	size_t n;
};

static void on_link(const char *name, void *arg)
{
	struct leftovers *l = arg;
	const char *owner = l->network->owner;

	if (strncmp(name, "kn", 2) == 0 && strncmp(name + 2, owner, OWNER_HEX) == 0 &&
	    l->n < KN_ARRAY_LEN(l->names))
		snprintf(l->names[l->n++], IFACE_BYTES, "%s", name);
}

size_t kn_network_sweep(struct kn_network *n)
{
	size_t swept = 0;
	struct leftovers l;

	/* A full batch may not have been all. One that cannot be removed would come again. */
	do {
		l = (struct leftovers){ .network = n };
		if (kn_netlink_links(n->netlink, on_link, &l, NULL) < 0)
			break;
		for (size_t i = 0; i < l.n; i++) {
			if (kn_netlink_remove(n->netlink, l.names[i], NULL) < 0)
				return swept;
			swept++;
		}
	} while (l.n == KN_ARRAY_LEN(l.names));
	if (!n->ready && rules_have_table(n->table) && remove_table(n) == 0)
		swept++;
	return swept;
}

size_t kn_network_lookups(const struct kn_network *n)
{
	return n->n_lookups;
}
