/*
 * Bindings: which network interface a chain's port is, in the words of a command line or of the
 * annotation kiln.ports. Read by faas/function (is it right?), by the driver `nf` (who has this
 * interface?) and by kiln-nf (open it), so that the three never disagree. Serves the packet flow.
 *
 * Thread  keeps no state.
 */
#pragma once

#include "base/str.h"

/* How frames are taken from an interface; packet/port.h says what each is good for. */
enum kn_port_kind {
	KN_PORT_INTERFACE, /* whichever is best for this interface */
	KN_PORT_AF_PACKET,
	KN_PORT_AF_XDP,
};

enum { KN_BINDING_PORT = 31, KN_BINDING_INTERFACE = 15, KN_BINDING_NETNS = 200 };

struct kn_binding {
	char port[KN_BINDING_PORT + 1]; /* as the chain calls it */
	enum kn_port_kind kind;
	char interface[KN_BINDING_INTERFACE + 1];
	char netns[KN_BINDING_NETNS + 1]; /* absolute path of its network namespace; "": ours */
};

/**
 * "PORT=[KIND:]INTERFACE[@/PATH/OF/NETNS]": "lan=eth1", "wan=af_xdp:eth2@/run/netns/edge".
 *
 * Errors  EINVAL, what is wrong with it
 */
kn_must_use int kn_binding_parse(struct kn_view text, struct kn_binding *ret, struct kn_err *err);

/** The same interface, by name and path: one could still be mounted at two paths. */
bool kn_binding_same(const struct kn_binding *a, const struct kn_binding *b);

/** "interface", "af_packet", "af_xdp". */
const char *kn_port_kind_name(enum kn_port_kind kind);
