/*
 * The stages. Each is its state, its run function and one table of operations.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "packet/operator.h"

/* One struct for all kinds: what a kind does not need stays zero. */
struct stage {
	struct kn_stage base;
	struct kn_port *port;	       /* receive, send */
	struct kn_parse_options parse; /* parse */
	struct kn_acl *acl;	       /* acl, filter, count; owned */
	struct kn_traffic count;       /* count */
	kn_operator *call;	       /* call */
	void *context;
};

static struct stage *stage_of(const struct kn_stage *stage)
{
	return kn_container_of((struct kn_stage *)stage, struct stage, base);
}

static void stage_free(struct kn_stage *stage)
{
	struct stage *s = stage_of(stage);

	kn_acl_free(s->acl);
	free(s);
}

/* A stage on the heap with these fields; name NULL takes the kind. */
static int stage_new(const struct kn_stage_ops *ops, const char *name, const struct stage *fields,
		     struct kn_stage **ret, struct kn_err *err)
{
	struct stage *s = malloc(sizeof(*s));
	if (!s)
		return kn_fail(err, ENOMEM, "no memory for a stage of kind %s", ops->kind);
	*s = *fields;
	s->base.ops = ops;
	snprintf(s->base.name, sizeof(s->base.name), "%s", name ? name : ops->kind);
	*ret = &s->base;
	return 0;
}

void kn_stage_free(struct kn_stage *stage)
{
	if (stage)
		stage->ops->free(stage);
}

static void receive_run(struct kn_stage *stage, struct kn_batch *b)
{
	kn_port_rx(stage_of(stage)->port, b);
}

static void port_report(const struct kn_stage *stage, json_t *into)
{
	json_object_set_new(into, "port", json_string(stage_of(stage)->port->name));
}

static const struct kn_stage_ops receive_ops = {
	.kind = "receive",
	.run = receive_run,
	.report = port_report,
	.free = stage_free,
};

int kn_stage_receive(struct kn_port *port, struct kn_stage **ret, struct kn_err *err)
{
	return stage_new(&receive_ops, NULL, &(struct stage){ .port = port }, ret, err);
}

static void parse_run(struct kn_stage *stage, struct kn_batch *b)
{
	kn_parse_batch(b, &stage_of(stage)->parse);
}

static const struct kn_stage_ops parse_ops = {
	.kind = "parse",
	.run = parse_run,
	.free = stage_free,
};

int kn_stage_parse(const struct kn_parse_options *options, struct kn_stage **ret,
		   struct kn_err *err)
{
	struct stage fields = { .port = NULL };

	if (options)
		fields.parse = *options;
	return stage_new(&parse_ops, NULL, &fields, ret, err);
}

static void acl_run(struct kn_stage *stage, struct kn_batch *b)
{
	kn_acl_run(stage_of(stage)->acl, b);
}

static json_t *rule_report(const struct kn_acl *acl, uint32_t i)
{
	return json_pack("{s:s, s:s, s:I}", "name", kn_acl_name(acl, i), "action",
			 kn_acl_action(acl, i) == KN_DROP ? "drop" : "pass", "frames",
			 (json_int_t)kn_acl_count(acl, i));
}

static void acl_report(const struct kn_stage *stage, json_t *into)
{
	const struct kn_acl *acl = stage_of(stage)->acl;
	json_t *rules = json_array();

	for (uint32_t i = 0; i < kn_acl_size(acl); i++)
		json_array_append_new(rules, rule_report(acl, i));
	json_array_append_new(rules, rule_report(acl, KN_ACL_NO_RULE));
	json_object_set_new(into, "rules", rules);
}

static const struct kn_stage_ops acl_ops = {
	.kind = "acl",
	.run = acl_run,
	.report = acl_report,
	.free = stage_free,
};

int kn_stage_acl(const char *name, struct kn_acl *acl, struct kn_stage **ret, struct kn_err *err)
{
	return stage_new(&acl_ops, name, &(struct stage){ .acl = acl }, ret, err);
}

static void filter_run(struct kn_stage *stage, struct kn_batch *b)
{
	kn_batch_drop(b, b->live & ~kn_acl_passes(stage_of(stage)->acl, b), KN_DROP_FILTER);
}

static const struct kn_stage_ops filter_ops = {
	.kind = "filter",
	.run = filter_run,
	.report = acl_report,
	.free = stage_free,
};

int kn_stage_filter(const char *name, struct kn_acl *acl, struct kn_stage **ret, struct kn_err *err)
{
	return stage_new(&filter_ops, name, &(struct stage){ .acl = acl }, ret, err);
}

static void count_run(struct kn_stage *stage, struct kn_batch *b)
{
	struct stage *s = stage_of(stage);
	kn_lanes counted = s->acl ? kn_acl_passes(s->acl, b) : b->live;
	uint64_t bytes = 0;

	kn_each_lane(i, counted)
	{
		bytes += b->frame[i]->wire_len;
	}
	s->count.frames += kn_lanes_count(counted);
	s->count.bytes += bytes;
}

static void count_report(const struct kn_stage *stage, json_t *into)
{
	const struct stage *s = stage_of(stage);

	json_object_set_new(into, "frames", json_integer((json_int_t)s->count.frames));
	json_object_set_new(into, "bytes", json_integer((json_int_t)s->count.bytes));
}

static const struct kn_stage_ops count_ops = {
	.kind = "count",
	.run = count_run,
	.report = count_report,
	.free = stage_free,
};

int kn_stage_count(const char *name, struct kn_acl *acl, struct kn_stage **ret, struct kn_err *err)
{
	return stage_new(&count_ops, name, &(struct stage){ .acl = acl }, ret, err);
}

static void call_run(struct kn_stage *stage, struct kn_batch *b)
{
	struct stage *s = stage_of(stage);

	s->call(b, s->context);
}

static const struct kn_stage_ops call_ops = {
	.kind = "map",
	.run = call_run,
	.free = stage_free,
};

int kn_stage_call(const char *name, kn_operator *call, void *context, struct kn_stage **ret,
		  struct kn_err *err)
{
	struct stage fields = { .call = call, .context = context };

	return stage_new(&call_ops, name, &fields, ret, err);
}

static void send_run(struct kn_stage *stage, struct kn_batch *b)
{
	kn_port_tx(stage_of(stage)->port, b);
	kn_batch_drop(b, b->live, KN_DROP_TX_FULL);
}

static const struct kn_stage_ops send_ops = {
	.kind = "send",
	.run = send_run,
	.report = port_report,
	.free = stage_free,
};

int kn_stage_send(struct kn_port *port, struct kn_stage **ret, struct kn_err *err)
{
	return stage_new(&send_ops, NULL, &(struct stage){ .port = port }, ret, err);
}

struct kn_port *kn_stage_port(const struct kn_stage *stage)
{
	return stage->ops == &receive_ops || stage->ops == &send_ops ? stage_of(stage)->port : NULL;
}
