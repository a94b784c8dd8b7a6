/*
 * The network of a function: each instance that may reach anything at all has a network namespace of
 * its own, its gateway, that lets through what the function's policy (host/egress) opens, and nothing
 * else. Used by the sandbox drivers; made by kilnd, one for the node. Serves the event flow.
 *
 *     guest --tap--  gateway namespace: rules, name server, NAT  --veth--  this namespace: NAT -- uplink
 *     container --veth--/
 *
 * The instance itself runs elsewhere: QEMU in its jail holds the TAP's descriptor, a container has the
 * other end of a veth pair. So nothing that it can do, as root or not, changes its rules. All
 * instances have the same address, since each is alone behind its gateway: a snapshot of a started
 * function goes on in every clone.
 *
 * Gateways have no name: they live while a descriptor holds them, and end with this process, veth
 * pairs included, however it ends. What remains in this namespace then, a table of rules, is removed
 * by kn_network_sweep() of the next process with the same owner.
 *
 * What is changed in this namespace, at the first start of a function with a network and not before:
 * a table inet kiln-OWNER; net.ipv4.ip_forward, where it is off: then forwarding is refused to all
 * others by a table inet kiln-fence, which stays. Both are logged. Rules of others (a firewall that
 * refuses forwarding) are obeyed, not changed.
 *
 * Thread  the loop's; kn_network_check() any. Calls take some milliseconds: they enter namespaces.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "host/egress.h"

/* The same in every instance. Link-local, so that they hide no address that a function may want. */
#define KN_NETIF_ADDRESS "169.254.75.2/30"
#define KN_NETIF_GATEWAY "169.254.75.1"
#define KN_NETIF_DNS     KN_NETIF_GATEWAY
#define KN_NETIF_MAC     "02:6b:6e:00:00:02"

/**
 * Can this process make such networks on this kernel? Tried in a namespace that is thrown away: TAP,
 * veth, nftables with NAT and connection tracking.
 *
 * Errors  EPERM, ENOTSUP ...: what is missing and how to get it
 */
kn_must_use int kn_network_check(struct kn_err *err);

struct kn_network;

struct kn_network_config {
	struct kn_loop *loop;
	const char *owner;           /* what no other daemon of this host has: the run folder */
	const char *range;           /* addresses between gateways and this host, "10.9.0.0/16"; NULL:
	                              * a /16 of 100.64.0.0/10 or 10.0.0.0/8 to which no route leads */
};

/**
 * The node's part. Changes nothing yet.
 * Errors  EINVAL range: not a CIDR of prefix 8 to 28; ENOMEM; what opening namespaces said
 */
kn_must_use int kn_network_new(const struct kn_network_config *config, struct kn_network **ret,
                               struct kn_err *err);

/** Remove the table. Instances must have ended. NULL is fine. */
void kn_network_free(struct kn_network *n);
KN_AUTO(kn_network_free, struct kn_network *);

/** Remove what a killed process with the same owner left: interfaces, the table. Returns how many. */
size_t kn_network_sweep(struct kn_network *n);

struct kn_netif;

struct kn_netif_events {
	/** The function was refused something, in words for its log. At most one in some seconds. */
	void (*refused)(const char *text, void *arg);
	void *arg;
};

/**
 * Make the gateway of one instance.
 *
 * policy  copied
 * events  copied; may be NULL, and its slots, too
 *
 * Errors  EUSERS all addresses of the range are taken; what the kernel said
 */
kn_must_use int kn_netif_new(struct kn_network *n, const struct kn_egress *policy,
                             const struct kn_netif_events *events, struct kn_netif **ret,
                             struct kn_err *err);

/**
 * Make the TAP interface towards a guest, for `-netdev tap,fd=` with KN_NETIF_MAC. Again only when the
 * last one is closed; not together with kn_netif_join().
 *
 * Returns its descriptor, which the caller owns, or -errno with err told.
 */
kn_must_use int kn_netif_open_tap(struct kn_netif *i, struct kn_err *err);

/**
 * Give a container its interface: eth0 in the network namespace netns (a descriptor), with address
 * and default route. Once, and not together with kn_netif_open_tap().
 */
kn_must_use int kn_netif_join(struct kn_netif *i, int netns, struct kn_err *err);

/** Let go of it: it is gone when the instance has ended, too. NULL is fine. */
void kn_netif_free(struct kn_netif *i);
KN_AUTO(kn_netif_free, struct kn_netif *);

/** Names that wait for an answer, of all instances; for metrics and tests. */
size_t kn_network_lookups(const struct kn_network *n);
