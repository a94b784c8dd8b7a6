/*
 * From kiln-nf's report to counters. The process handles frames of strangers, so that its words are
 * a stranger's words: what is not of the expected shape is left out, and there is a limit to how
 * much there can be.
 */
#include "oci/sandbox_nf/nf.h"

enum { SERIES_MAX = 2048 };

struct visit {
	kn_counter_visit each;
	void *arg;
	unsigned n;
};

static void give(struct visit *v, struct kn_counter c, const json_t *value)
{
	json_int_t n = json_integer_value(value);

	if (!json_is_integer(value) || n < 0 || v->n++ >= SERIES_MAX)
		return;
	c.value = (uint64_t)n;
	v->each(&c, v->arg);
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static void give_traffic(struct visit *v, const char *port, const char *direction,
			 const json_t *traffic)
{
	struct kn_counter c = {
		.name = "kiln_nf_packets_total",
		.help = "Frames that came in (rx) or went out (tx) at a port; joined segments are one.",
		.labels = { { "port", port }, { "direction", direction } },
	};

	give(v, c, json_object_get(traffic, "frames"));
	c.name = "kiln_nf_bytes_total";
	c.help = "Their bytes, Ethernet headers included.";
	give(v, c, json_object_get(traffic, "bytes"));
}

static void give_port(struct visit *v, const char *name, const json_t *port)
{
	const struct kn_counter missed = {
		.name = "kiln_nf_missed_total",
		.help = "Frames that the kernel dropped because the ring was full.",
		.labels = { { "port", name } },
	};
	const struct kn_counter up = {
		.name = "kiln_nf_port_up",
		.help = "1: the interface is up and has a carrier.",
		.gauge = true,
		.labels = { { "port", name },
			    { "interface", text(port, "interface") },
			    { "kind", text(port, "kind") } },
	};

	give_traffic(v, name, "rx", json_object_get(port, "rx"));
	give_traffic(v, name, "tx", json_object_get(port, "tx"));
	give(v, missed, json_object_get(port, "missed"));
	json_t *is_up = json_integer(json_is_true(json_object_get(port, "up")));
	give(v, up, is_up);
	json_decref(is_up);
}

static void give_drops(struct visit *v, const char *chain, const json_t *dropped)
{
	json_t *reasons = json_object_get(dropped, "by_reason"), *n;
	const char *reason;

	json_object_foreach (reasons, reason, n)
		give(v,
		     (struct kn_counter){ .name = "kiln_nf_drops_total",
					  .help = "Frames that a chain dropped, by reason.",
					  .labels = { { "chain", chain }, { "reason", reason } } },
		     n);
}

static void give_rules(struct visit *v, const char *chain, const json_t *stage)
{
	const json_t *rules = json_object_get(stage, "rules"), *rule;
	size_t i;

	json_array_foreach (rules, i, rule)
		give(v,
		     (struct kn_counter){ .name = "kiln_nf_rule_packets_total",
					  .help = "Frames that a rule decided.",
					  .labels = { { "chain", chain },
						      { "list", text(stage, "name") },
						      { "rule", text(rule, "name") } } },
		     json_object_get(rule, "frames"));
}

static void give_chain(struct visit *v, const char *name, const json_t *chain)
{
	const json_t *stages = json_object_get(chain, "stages"), *stage;
	size_t i;

	give_drops(v, name, json_object_get(chain, "dropped"));
	json_array_foreach (stages, i, stage)
		give_rules(v, name, stage);
}

void nf_counters(const json_t *report, kn_counter_visit each, void *arg)
{
	struct visit v = { .each = each, .arg = arg };
	json_t *ports = json_object_get(report, "ports");
	json_t *chains = json_object_get(report, "chains"), *one;
	const char *name;

	json_object_foreach (ports, name, one)
		give_port(&v, name, one);
	if (!chains)
		give_chain(&v, "chain", report);
	json_object_foreach (chains, name, one)
		give_chain(&v, name, one);
}
