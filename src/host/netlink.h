/*
 * Interfaces, addresses and routes of the calling thread's network namespace, by rtnetlink. Used by
 * host/network to build what a function's packets pass; nothing here knows of functions.
 *
 * A kn_netlink belongs to the namespace in which it was opened, wherever its thread goes later.
 *
 * Thread  one at a time
 * Source  rtnetlink(7)
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

struct kn_netlink;

/** Errors: what socket and bind said. */
kn_must_use int kn_netlink_open(struct kn_netlink **ret, struct kn_err *err);

/** NULL is fine. */
void kn_netlink_close(struct kn_netlink *nl);
KN_AUTO(kn_netlink_close, struct kn_netlink *);

/**
 * Make a pair of veth interfaces, down: name here, peer in another namespace.
 *
 * mac, peer_mac  hardware addresses; NULL: the kernel's choice
 * peer_ns        descriptor of that namespace
 *
 * Errors  EEXIST; EPERM; ENOTSUP: the kernel has no veth; what else the kernel said
 */
kn_must_use int kn_netlink_add_veth(struct kn_netlink *nl, const char *name, const uint8_t *mac,
                                    const char *peer, const uint8_t *peer_mac, int peer_ns,
                                    struct kn_err *err);

/** Set it up. Errors: ENODEV. */
kn_must_use int kn_netlink_up(struct kn_netlink *nl, const char *name, struct kn_err *err);

/** Give it an IPv4 address (host byte order). Errors: EEXIST, ENODEV. */
kn_must_use int kn_netlink_add_address(struct kn_netlink *nl, const char *name, uint32_t address,
                                       uint8_t prefix, struct kn_err *err);

/** The default route goes through gateway, which must be on a network of ours. Errors: EEXIST ... */
kn_must_use int kn_netlink_add_default(struct kn_netlink *nl, uint32_t gateway, struct kn_err *err);

/** Say once and for all which hardware address has this IPv4 address on the interface. */
kn_must_use int kn_netlink_add_neighbour(struct kn_netlink *nl, const char *name, uint32_t address,
                                         const uint8_t mac[6], struct kn_err *err);

/** Remove an interface (a veth takes its peer with it). One that is missing is fine. */
kn_must_use int kn_netlink_remove(struct kn_netlink *nl, const char *name, struct kn_err *err);

/** Call each for every interface. Returns what the kernel said. */
kn_must_use int kn_netlink_links(struct kn_netlink *nl, void (*each)(const char *name, void *arg),
                                 void *arg, struct kn_err *err);

/** Call each for every IPv4 route of every table, local addresses and prefix 0 included. */
kn_must_use int kn_netlink_routes(struct kn_netlink *nl,
                                  void (*each)(uint32_t address, uint8_t prefix, void *arg),
                                  void *arg, struct kn_err *err);
