/*
 * What ports on interfaces share. Private to packet/port.
 */
#pragma once

#include "packet/port/kinds.h"

/* An interface as it was found. */
struct interface {
	int index;
	uint32_t mtu;
	uint8_t mac[6];
};

/* Both are called in the interface's namespace. */
int kn_af_packet_open(const struct kn_binding *b, const struct interface *i, struct kn_port **ret,
		      struct kn_err *err);
int kn_af_xdp_open(const struct kn_binding *b, const struct interface *i, struct kn_port **ret,
		   struct kn_err *err);

/*
 * Enter the binding's namespace, and leave it: *ret_home is where we were, -1 when it is the same.
 * Needs CAP_SYS_ADMIN when it is another.
 */
int kn_netns_enter(const struct kn_binding *b, int *ret_home, struct kn_err *err);
int kn_netns_leave(int home, struct kn_err *err);

/*
 * Is the interface that this socket's namespace knows by index still there, and up? Fills *ret_up;
 * -ENODEV with err told when it is gone.
 */
int kn_interface_state(int sock, const struct kn_binding *b, int index, bool *ret_up,
		       struct kn_err *err);

/* The port's data of an interface, at the end of the implementation's own struct. */
void kn_live_setup(struct kn_live *live, const struct kn_binding *b, int fd);
