/*
 * What all ports share: counting, and the null port.
 */
#include "packet/port.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "packet/port/kinds.h"

void kn_port_setup(struct kn_port *port, const struct kn_port_ops *ops)
{
	*port = (struct kn_port){ .ops = ops };
	kn_port_rename(port, ops->kind);
}

void kn_port_rename(struct kn_port *port, const char *name)
{
	snprintf(port->name, sizeof(port->name), "%.*s", KN_PORT_NAME_MAX, name);
}

void kn_port_close(struct kn_port *port)
{
	if (port)
		port->ops->close(port);
}

int kn_port_rx(struct kn_port *port, struct kn_batch *b)
{
	b->n = 0;
	b->live = b->sent = 0;
	if (!port->ops->rx)
		return kn_fail(&port->err, ENOTSUP, "port '%s' cannot receive", port->name);
	return port->ops->rx(port, b);
}

void kn_port_tx(struct kn_port *port, struct kn_batch *b)
{
	if (!b->live || !port->ops->tx)
		return;
	kn_lanes taken = port->ops->tx(port, b, b->live);
	b->live &= ~taken;
	b->sent |= taken;
}

int kn_port_flush(struct kn_port *port, struct kn_err *err)
{
	int r = port->ops->flush ? port->ops->flush(port) : 0;

	if (r < 0 && err)
		*err = port->err;
	return r;
}

static int null_rx(struct kn_port *port, struct kn_batch *b)
{
	(void)b;
	port->ended = true;
	return 0;
}

static kn_lanes null_tx(struct kn_port *port, struct kn_batch *b, kn_lanes lanes)
{
	kn_each_lane(i, lanes)
	{
		kn_traffic_add(&port->tx, b->frame[i]);
	}
	kn_batch_release(b, lanes);
	return lanes;
}

static void null_close(struct kn_port *port)
{
	free(port);
}

static const struct kn_port_ops null_ops = {
	.kind = "null",
	.rx = null_rx,
	.tx = null_tx,
	.close = null_close,
};

int kn_port_null_new(struct kn_port **ret, struct kn_err *err)
{
	struct kn_port *port = calloc(1, sizeof(*port));
	if (!port)
		return kn_fail(err, ENOMEM, "no memory for a null port");
	kn_port_setup(port, &null_ops);
	*ret = port;
	return 0;
}
