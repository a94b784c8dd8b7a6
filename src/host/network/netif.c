/* One instance's gateway: made in its own namespace, from inside out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "host/network/network.h"

/* Settings of a namespace that forwards one function's IPv4 and knows nothing else. */
static const char *const settings[][2] = {
	{ "ipv4/ip_forward", "1" },
	{ "ipv4/conf/all/rp_filter", "1" },
	{ "ipv4/conf/all/accept_redirects", "0" },
	{ "ipv4/conf/all/send_redirects", "0" },
	{ "ipv4/conf/default/send_redirects", "0" },
	{ "ipv6/conf/all/disable_ipv6", "1" },
	{ "ipv6/conf/default/disable_ipv6", "1" },
};

static int set_all(struct kn_err *err)
{
	int r = 0;

	for (size_t s = 0; s < KN_ARRAY_LEN(settings) && r == 0; s++) {
		r = space_set(settings[s][0], settings[s][1], err);
		/* a kernel without IPv6 has nothing to switch off */
		if (r == -ENOENT && settings[s][0][3] == '6')
			r = 0;
	}
	return r;
}

static int load_rules(const struct kn_netif *i, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	rules_gateway(&text, i->policy, i->network->range);
	return text.failed ? kn_fail(err, ENOMEM, "memory for rules") : rules_run(text.ptr, err);
}

/* The veth pair towards the node. The node's end gets its address where the netlink socket lives. */
static int connect_uplink(struct kn_netif *i, struct kn_netlink *inside, struct kn_err *err)
{
	struct kn_network *n = i->network;

	int r = kn_netlink_add_veth(n->netlink, i->name, NULL, UPLINK, NULL, i->ns, err);
	if (r == 0)
		r = kn_netlink_add_address(n->netlink, i->name, pair_node(n, i->pair), 31, err);
	if (r == 0)
		r = kn_netlink_up(n->netlink, i->name, err);
	if (r == 0)
		r = kn_netlink_add_address(inside, UPLINK, pair_gateway(n, i->pair), 31, err);
	if (r == 0)
		r = kn_netlink_up(inside, UPLINK, err);
	return r < 0 ? r : kn_netlink_add_default(inside, pair_node(n, i->pair), err);
}

/* In the new namespace. Rules first: no interface is ever there without them. */
static int furnish(struct kn_netif *i, struct kn_err *err)
{
	kn_auto(kn_netlink_close) struct kn_netlink *inside = NULL;

	int r = set_all(err);
	if (r == 0)
		r = load_rules(i, err);
	if (r == 0)
		r = kn_netlink_open(&inside, err);
	if (r == 0)
		r = connect_uplink(i, inside, err);
	return r < 0 ? r : names_start(i, err);
}

/* Addresses of the host that the policy names exactly, where the node's rules look for them. */
static int set_named(struct kn_netif *i, bool open, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	bool any = rules_named(&text, i, open);
	if (text.failed)
		return kn_fail(err, ENOMEM, "memory for rules");
	return any ? rules_keep(&i->network->nft, text.ptr, err) : 0;
}

static int build(struct kn_netif *i, struct kn_err *err)
{
	struct kn_network *n = i->network;

	int r = network_take(n, &i->pair, err);
	if (r < 0)
		return r;
	i->has_pair = true;
	snprintf(i->name, sizeof(i->name), "kn%.6s%x", n->owner, i->pair & 0xffffff);
	i->ns = space_new(err);
	if (i->ns < 0)
		return i->ns;
	r = furnish(i, err);
	space_leave(n->home);
	if (r < 0)
		return r;
	i->has_named = true;
	return set_named(i, true, err);
}

int kn_netif_new(struct kn_network *n, const struct kn_egress *policy,
                 const struct kn_netif_events *events, struct kn_netif **ret, struct kn_err *err)
{
	kn_auto(kn_netif_free) struct kn_netif *i = calloc(1, sizeof(*i));

	if (!i)
		return kn_fail(err, ENOMEM, "memory for a function's network");
	*i = (struct kn_netif){ .network = n, .ns = -1, .dns.fd = -1 };
	if (events)
		i->events = *events;
	kn_arena_init(&i->arena);
	i->policy = kn_egress_copy(policy, &i->arena);
	int r = i->policy ? build(i, err) : kn_fail(err, ENOMEM, "memory for an egress policy");
	if (r < 0)
		return kn_while(err, "the function's network");
	*ret = kn_take_ptr(i);
	return 0;
}

/*
 * The namespace is not taken down here but by the kernel, when the last descriptor of it is closed:
 * that takes tens of milliseconds and would hold up the loop.
 */
void kn_netif_free(struct kn_netif *i)
{
	if (!i)
		return;
	names_stop(i);
	rules_end(i->nft);
	if (i->has_named)
		(void)!set_named(i, false, NULL);
	kn_close(i->ns);
	if (i->has_pair)
		network_give(i->network, i->pair);
	kn_arena_fini(&i->arena);
	free(i);
}

/* ---- towards the instance ------------------------------------------------------------------ */

/* The gateway's end. The neighbour is fixed, so that no ARP of a guest says anything here. */
static int set_up_guest(struct kn_netlink *inside, struct kn_err *err)
{
	int r = kn_netlink_add_address(inside, GUEST, GATEWAY_ADDRESS, GUEST_PREFIX, err);

	if (r == 0)
		r = kn_netlink_add_neighbour(inside, GUEST, GUEST_ADDRESS,
		                             (const uint8_t *)GUEST_MAC, err);
	return r < 0 ? r : kn_netlink_up(inside, GUEST, err);
}

int kn_netif_open_tap(struct kn_netif *i, struct kn_err *err)
{
	kn_auto(kn_netlink_close) struct kn_netlink *inside = NULL;

	int r = space_enter(i->ns, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int tap = space_tap(GUEST, (const uint8_t *)GATEWAY_MAC, err);
	r = tap < 0 ? tap : kn_netlink_open(&inside, err);
	if (r == 0)
		r = set_up_guest(inside, err);
	space_leave(i->network->home);
	return r < 0 ? kn_while(err, "the function's network") : kn_take_fd(tap);
}

static int set_up_container(int netns, struct kn_err *err)
{
	kn_auto(kn_netlink_close) struct kn_netlink *there = NULL;

	int r = space_enter(netns, err);
	if (r == 0)
		r = kn_netlink_open(&there, err);
	if (r == 0)
		r = kn_netlink_add_address(there, "eth0", GUEST_ADDRESS, GUEST_PREFIX, err);
	if (r == 0)
		r = kn_netlink_up(there, "eth0", err);
	return r < 0 ? r : kn_netlink_add_default(there, GATEWAY_ADDRESS, err);
}

int kn_netif_join(struct kn_netif *i, int netns, struct kn_err *err)
{
	kn_auto(kn_netlink_close) struct kn_netlink *inside = NULL;

	int r = space_enter(i->ns, err);
	if (r < 0)
		return r;
	r = kn_netlink_open(&inside, err);
	if (r == 0)
		r = kn_netlink_add_veth(inside, GUEST, (const uint8_t *)GATEWAY_MAC, "eth0",
		                        (const uint8_t *)GUEST_MAC, netns, err);
	if (r == 0)
		r = set_up_guest(inside, err);
	if (r == 0)
		r = set_up_container(netns, err);
	space_leave(i->network->home);
	return r < 0 ? kn_while(err, "the container's network") : 0;
}
