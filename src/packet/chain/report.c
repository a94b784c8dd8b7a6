/*
 * What a chain has counted.
 */
#include "packet/chain.h"

static json_t *traffic_json(struct kn_traffic t)
{
	return json_pack("{s:I, s:I}", "frames", (json_int_t)t.frames, "bytes",
			 (json_int_t)t.bytes);
}

static json_t *live_json(const struct kn_port *port)
{
	const struct kn_live *l = port->live;
	json_t *o = json_pack("{s:s, s:s, s:s, s:b, s:o, s:o, s:I}", "interface",
			      l->binding.interface, "kind", port->ops->kind, "why", l->why, "up",
			      l->up, "rx", traffic_json(port->rx), "tx", traffic_json(port->tx),
			      "missed", (json_int_t)l->missed);

	if (o && l->binding.netns[0])
		json_object_set_new(o, "netns", json_string(l->binding.netns));
	if (o && l->refused[0])
		json_object_set_new(o, "refused", json_string(l->refused));
	return o;
}

static json_t *ports_json(struct kn_chain *chain)
{
	json_t *ports = json_object();
	struct kn_port *port;

	for (size_t i = 0; (port = kn_chain_port_at(chain, i)); i++)
		if (port->live)
			json_object_set_new(ports, port->name, live_json(port));
	return ports;
}

json_t *kn_chain_report(struct kn_chain *chain)
{
	json_t *o = kn_chain_named(chain) ? json_object()
					  : kn_pipeline_report(kn_chain_pipeline(chain, 0));
	json_t *ports = ports_json(chain);

	if (o && kn_chain_named(chain)) {
		json_t *chains = json_object();
		for (size_t i = 0; i < kn_chain_lines(chain); i++)
			json_object_set_new(chains, kn_chain_name(chain, i),
					    kn_pipeline_report(kn_chain_pipeline(chain, i)));
		json_object_set_new(o, "chains", chains);
	}
	if (o && json_object_size(ports))
		json_object_set(o, "ports", ports);
	json_decref(ports);
	return o;
}
