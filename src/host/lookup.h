/*
 * Looking up a name's IPv4 addresses as this node does: its hosts file, then the name servers of its
 * resolv.conf, both read anew for each lookup. Used by host/network for functions that may reach a
 * name. The library is c-ares.
 *
 * Thread  the loop's; packets leave in the network namespace in which the thread is at the start
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"

struct kn_lookup;

enum { KN_LOOKUP_MAX = 32 };

struct kn_lookup_result {
	int status;                /* 0; -ENOENT: no such name; -ENODATA: a name without an IPv4
	                            * address; -ETIMEDOUT, -EIO: nothing is known */
	uint32_t addresses[KN_LOOKUP_MAX];   /* host byte order */
	size_t n;
	uint32_t ttl_s;            /* the shortest of all; 0 for the hosts file */
};

/**
 * Start a lookup. done runs once, never before this returns, unless it is cancelled.
 *
 * name  of RFC 1123, without a dot at its end; taken as it is, no search list
 *
 * Errors  ENOMEM; EIO: what c-ares said
 */
kn_must_use int kn_lookup_start(struct kn_loop *loop, const char *name,
                                void (*done)(const struct kn_lookup_result *r, void *arg), void *arg,
                                struct kn_lookup **ret, struct kn_err *err);

/** Forget it: done does not run. Not after it ran. NULL is fine. */
void kn_lookup_cancel(struct kn_lookup *l);
