#include "packet/pipeline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct kn_pipeline {
	struct kn_batch batch;
	struct kn_stage *stages[KN_STAGES_MAX];
	size_t n;
	struct kn_port *in, *out;
	struct kn_traffic sent; /* by this pipeline: others may send to the same port */
	bool parsed;
	uint64_t drops[KN_REASON_COUNT];
	void (*observe)(void *context, const struct kn_batch *b);
	void *context;
};

int kn_pipeline_new(struct kn_pipeline **ret, struct kn_err *err)
{
	/* calloc does not promise the columns' alignment. */
	struct kn_pipeline *p = aligned_alloc(_Alignof(struct kn_pipeline), sizeof(*p));
	if (!p)
		return kn_fail(err, ENOMEM, "no memory for a pipeline");
	memset(p, 0, sizeof(*p));
	p->batch.drops = p->drops;
	*ret = p;
	return 0;
}

void kn_pipeline_free(struct kn_pipeline *p)
{
	if (!p)
		return;
	for (size_t i = p->n; i-- > 0;)
		kn_stage_free(p->stages[i]);
	free(p);
}

static bool is_kind(const struct kn_stage *stage, const char *kind)
{
	return strcmp(stage->ops->kind, kind) == 0;
}

static int check_place(const struct kn_pipeline *p, const struct kn_stage *stage,
		       struct kn_err *err)
{
	bool receives = is_kind(stage, "receive");
	bool reads_columns = is_kind(stage, "acl") || is_kind(stage, "filter") ||
			     is_kind(stage, "map") || is_kind(stage, "count");

	if (p->n == KN_STAGES_MAX)
		return kn_fail(err, EINVAL, "a chain has at most %d stages", KN_STAGES_MAX);
	if (receives != (p->n == 0))
		return kn_fail(err, EINVAL, "a chain begins with 'receive', and has it once");
	if (p->out)
		return kn_fail(err, EINVAL, "nothing comes behind 'send': '%s' does", stage->name);
	if (reads_columns && !p->parsed)
		return kn_fail(err, EINVAL, "'%s' needs 'parse' before it", stage->name);
	return 0;
}

int kn_pipeline_add(struct kn_pipeline *p, struct kn_stage *stage, struct kn_err *err)
{
	int r = check_place(p, stage, err);
	if (r < 0)
		return r;
	if (is_kind(stage, "receive"))
		p->in = kn_stage_port(stage);
	if (is_kind(stage, "send"))
		p->out = kn_stage_port(stage);
	p->parsed |= is_kind(stage, "parse");
	p->stages[p->n++] = stage;
	return 0;
}

static int port_failure(const struct kn_port *port, struct kn_err *err)
{
	if (!port || !port->err.code)
		return 0;
	if (err)
		*err = port->err;
	return -port->err.code;
}

/* Tell who looks, then give back what was not sent. */
static void finish_batch(struct kn_pipeline *p, kn_lanes all)
{
	struct kn_batch *b = &p->batch;

	kn_batch_drop(b, b->live, KN_DROP_NOT_SENT);
	if (__builtin_expect(p->observe != NULL, 0))
		p->observe(p->context, b);
	kn_batch_release(b, all & ~b->sent);
}

static void begin_batch(struct kn_pipeline *p)
{
	struct kn_batch *b = &p->batch;

	b->n = 0;
	b->live = b->sent = 0;
	b->observed = p->observe != NULL;
	if (b->observed) {
		memset(b->why, KN_REASON_NONE, sizeof(b->why));
		memset(b->rule, 0, sizeof(b->rule));
	}
}

int kn_pipeline_step(struct kn_pipeline *p, struct kn_err *err)
{
	struct kn_batch *b = &p->batch;

	if (!p->in)
		return kn_fail(err, EINVAL, "the chain is empty");
	begin_batch(p);
	const struct kn_traffic before = p->out ? p->out->tx : (struct kn_traffic){ 0 };
	for (size_t i = 0; i < p->n; i++) {
		p->stages[i]->ops->run(p->stages[i], b);
		if (!b->live)
			break;
	}
	if (b->n)
		finish_batch(p, kn_lanes_first(b->n));
	if (p->out) {
		p->sent.frames += p->out->tx.frames - before.frames;
		p->sent.bytes += p->out->tx.bytes - before.bytes;
	}
	int r = port_failure(p->out, err);
	if (r == 0 && b->n == 0)
		r = port_failure(p->in, err);
	return r < 0 ? r : (int)b->n;
}

bool kn_pipeline_ended(const struct kn_pipeline *p)
{
	return p->in && p->in->ended;
}

int kn_pipeline_run(struct kn_pipeline *p, const volatile sig_atomic_t *stop, struct kn_err *err)
{
	int r = 1;

	while (!*stop && (r = kn_pipeline_step(p, err)) >= 0)
		if (r == 0 && kn_pipeline_ended(p))
			break;
	/* The signal that stops us also interrupts a read that waits: that is no failure. */
	if (r < 0 && *stop && port_failure(p->out, NULL) == 0)
		r = 0;
	/* Also after a failure: what went out before it stays. The first story is the one to tell. */
	if (p->out) {
		int f = kn_port_flush(p->out, r < 0 ? NULL : err);
		if (r >= 0 && f < 0)
			r = f;
	}
	return r < 0 ? r : 0;
}

void kn_pipeline_observe(struct kn_pipeline *p,
			 void (*call)(void *context, const struct kn_batch *), void *context)
{
	p->observe = call;
	p->context = context;
}

struct kn_port *kn_pipeline_in(const struct kn_pipeline *p)
{
	return p->in;
}

struct kn_port *kn_pipeline_out(const struct kn_pipeline *p)
{
	return p->out;
}

struct kn_traffic kn_pipeline_received(const struct kn_pipeline *p)
{
	return p->in ? p->in->rx : (struct kn_traffic){ 0 };
}

struct kn_traffic kn_pipeline_sent(const struct kn_pipeline *p)
{
	return p->sent;
}

uint64_t kn_pipeline_drops(const struct kn_pipeline *p, enum kn_reason reason)
{
	return reason < KN_REASON_COUNT ? p->drops[reason] : 0;
}

static json_t *traffic_report(struct kn_traffic t)
{
	return json_pack("{s:I, s:I}", "frames", (json_int_t)t.frames, "bytes",
			 (json_int_t)t.bytes);
}

static json_t *drops_report(const struct kn_pipeline *p)
{
	json_t *reasons = json_object();
	json_int_t total = 0;

	for (unsigned i = 0; i < KN_REASON_COUNT; i++) {
		json_int_t n = (json_int_t)p->drops[i];
		total += n;
		if (n)
			json_object_set_new(reasons, kn_reason_name((enum kn_reason)i),
					    json_integer(n));
	}
	return json_pack("{s:I, s:o}", "frames", total, "by_reason", reasons);
}

static json_t *stages_report(const struct kn_pipeline *p)
{
	json_t *stages = json_array();

	for (size_t i = 0; i < p->n; i++) {
		const struct kn_stage *s = p->stages[i];
		json_t *one = json_pack("{s:s, s:s}", "stage", s->ops->kind, "name", s->name);
		if (one && s->ops->report)
			s->ops->report(s, one);
		json_array_append_new(stages, one);
	}
	return stages;
}

json_t *kn_pipeline_report(const struct kn_pipeline *p)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "received",
			 traffic_report(kn_pipeline_received(p)), "sent",
			 traffic_report(kn_pipeline_sent(p)), "dropped", drops_report(p), "stages",
			 stages_report(p));
}
