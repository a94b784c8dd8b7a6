/*
 * What implementations of ports share. Private to packet/port.
 */
#pragma once

#include "packet/port.h"

/* Fill the common part: operations, and the kind as name. */
void kn_port_setup(struct kn_port *port, const struct kn_port_ops *ops);

/* One more frame. */
static inline void kn_traffic_add(struct kn_traffic *t, const struct kn_frame *frame)
{
	t->frames++;
	t->bytes += frame->wire_len;
}
