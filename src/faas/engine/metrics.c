/*
 * The engine's families on the page of metrics: those that OpenFaaS' gateway has, under its names
 * and with its label function_name, and Kiln's own. Numbers of a function that was removed vanish
 * with it. CPU time is asked of the drivers; what an instance used last is kept when it ends, so
 * that the sum never falls.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/metric.h"
#include "base/time.h"
#include "faas/engine/service.h"

/* Drivers read /proc for it, a millisecond for a large guest: not at every question. */
#define USAGE_AGE_NS (5 * KN_NS_PER_S)

/* ---- what instances use ----------------------------------------------------------------------- */

static void look(struct kn_instance *i, uint64_t now)
{
	struct kn_sandbox_stats stats;

	if (!i->sandbox || !i->sandbox->ops->stats ||
	    (i->usage.at_ns && now - i->usage.at_ns < USAGE_AGE_NS) ||
	    i->sandbox->ops->stats(i->sandbox, &stats, NULL) < 0)
		return;
	i->usage.at_ns = now;
	i->usage.memory_bytes = stats.memory_bytes;
	i->usage.cpu_ns = kn_max(i->usage.cpu_ns, stats.cpu_ns);
}

void kn_usage_keep(struct kn_service *s, struct kn_instance *i)
{
	i->usage.at_ns = 0;
	look(i, kn_now_ns());
	s->counts.ended_cpu_ns += i->usage.cpu_ns;
}

/* ---- what is asked of a function -------------------------------------------------------------- */

enum { STARTING, READY, BUSY, DRAINING, STOPPING, STATES };

static const char *const STATE_NAMES[STATES] = { "starting", "ready", "busy", "draining",
						 "stopping" };

/* Everything that the page says of one function at this moment. */
struct now {
	const struct kn_service *s;
	char name[160]; /* OpenFaaS' label: NAME.NAMESPACE */
	uint64_t states[STATES];
	uint64_t memory_bytes, cpu_ns;
};

static int state_of(const struct kn_instance *i)
{
	switch (i->state) {
	case KN_INSTANCE_STARTING:
		return STARTING;
	case KN_INSTANCE_READY:
		return i->in_flight ? BUSY : READY;
	case KN_INSTANCE_DRAINING:
		return DRAINING;
	case KN_INSTANCE_STOPPING:
		break;
	}
	return STOPPING;
}

static void add_pool(struct now *n, const struct kn_pool *p, uint64_t now)
{
	for (struct kn_instance *i = p ? kn_pool_first(p) : NULL; i; i = i->next) {
		look(i, now);
		n->states[state_of(i)]++;
		n->memory_bytes += i->usage.memory_bytes;
		n->cpu_ns += i->usage.cpu_ns;
	}
}

static void look_at(struct now *n, const struct kn_service *s, uint64_t now)
{
	*n = (struct now){ .s = s, .cpu_ns = s->counts.ended_cpu_ns };
	snprintf(n->name, sizeof(n->name), "%s.%s", s->fn->name, s->fn->ns);
	add_pool(n, s->pool, now);
	add_pool(n, s->coming.pool, now);
	for (size_t i = 0; i < s->n_old; i++)
		add_pool(n, s->old[i], now);
}

/* ---- one number a function -------------------------------------------------------------------- */

static uint64_t came(const struct now *n)
{
	return n->s->counts.came;
}

static uint64_t in_flight(const struct now *n)
{
	return n->s->in_flight;
}

static uint64_t replicas(const struct now *n)
{
	return n->states[STARTING] + n->states[READY] + n->states[BUSY];
}

static uint64_t ready_replicas(const struct now *n)
{
	return n->states[READY] + n->states[BUSY];
}

static uint64_t min_replicas(const struct now *n)
{
	return kn_service_floor(n->s);
}

static uint64_t target(const struct now *n)
{
	uint32_t wanted = n->s->fn->scale_target;

	return wanted ? wanted : kn_pool_concurrency(n->s->pool);
}

static uint64_t waiting(const struct now *n)
{
	return n->s->waiting;
}

static uint64_t failed_starts(const struct now *n)
{
	return n->s->counts.failed_starts;
}

static uint64_t crashes(const struct now *n)
{
	return n->s->counts.crashes;
}

static uint64_t memory(const struct now *n)
{
	return n->memory_bytes;
}

static const struct {
	const char *name;
	enum kn_metric_type type;
	const char *help;
	uint64_t (*value)(const struct now *n);
} SIMPLE[] = {
	{ "gateway_function_invocation_started", KN_COUNTER, "Requests that came in.", came },
	{ "gateway_function_invocation_inflight", KN_GAUGE, "Requests at instances.", in_flight },
	{ "gateway_service_count", KN_GAUGE, "Instances that are not leaving.", replicas },
	{ "gateway_service_ready_count", KN_GAUGE, "Instances that take requests.",
	  ready_replicas },
	{ "gateway_service_min", KN_GAUGE, "Instances that are kept.", min_replicas },
	{ "gateway_service_target", KN_GAUGE, "Requests at once per instance.", target },
	{ "kiln_queue_length", KN_GAUGE, "Requests that wait for an instance.", waiting },
	{ "kiln_start_failures_total", KN_COUNTER, "Starts that failed.", failed_starts },
	{ "kiln_crashes_total", KN_COUNTER, "Ready instances that ended by themselves.", crashes },
	{ "kiln_memory_bytes", KN_GAUGE, "Memory of the function's instances, at most 5 s old.",
	  memory },
};

/* ---- families with more labels ---------------------------------------------------------------- */

static void print_codes(struct kn_buf *b, const struct now *n, bool times)
{
	const struct kn_counts *c = &n->s->counts;
	char code[16];

	for (size_t i = 0; i < KN_COUNT_CODES && c->codes[i].time.count; i++) {
		snprintf(code, sizeof(code), "%d", c->codes[i].code);
		const struct kn_label labels[] = { KN_LABEL("function_name", n->name),
						   KN_LABEL("code", code) };
		if (times)
			kn_metric_histogram(b, "gateway_functions_seconds", labels, 2,
					    &c->codes[i].time);
		else
			kn_metric_u64(b, "gateway_function_invocation_total", labels, 2,
				      c->codes[i].time.count);
	}
}

static void print_invocations(struct kn_buf *b, const struct now *n)
{
	print_codes(b, n, false);
}

static void print_times(struct kn_buf *b, const struct now *n)
{
	print_codes(b, n, true);
}

static void print_calls(struct kn_buf *b, const struct now *n)
{
	for (enum kn_start start = KN_WARM; start <= KN_COLD; start++) {
		const struct kn_label labels[] = { KN_LABEL("function_name", n->name),
						   KN_LABEL("start", kn_start_name(start)) };
		kn_metric_u64(b, "kiln_calls_total", labels, 2, n->s->counts.calls[start]);
	}
}

static void print_starts(struct kn_buf *b, const struct now *n)
{
	const struct kn_counts *c = &n->s->counts;

	for (size_t i = 0; i < KN_COUNT_KINDS && c->kinds[i].kind; i++) {
		const struct kn_label labels[] = { KN_LABEL("function_name", n->name),
						   KN_LABEL("kind", c->kinds[i].kind) };
		kn_metric_u64(b, "kiln_starts_total", labels, 2, c->kinds[i].n);
	}
}

static void print_waits(struct kn_buf *b, const struct now *n)
{
	kn_metric_histogram(b, "kiln_queue_wait_seconds", &KN_LABEL("function_name", n->name), 1,
			    &n->s->counts.waits);
}

static void print_states(struct kn_buf *b, const struct now *n)
{
	for (int i = 0; i < STATES; i++) {
		const struct kn_label labels[] = { KN_LABEL("function_name", n->name),
						   KN_LABEL("state", STATE_NAMES[i]) };
		kn_metric_u64(b, "kiln_instances", labels, 2, n->states[i]);
	}
}

static void print_cpu(struct kn_buf *b, const struct now *n)
{
	kn_metric_seconds(b, "kiln_cpu_seconds_total", &KN_LABEL("function_name", n->name), 1,
			  n->cpu_ns);
}

static void print_last_start(struct kn_buf *b, const struct now *n)
{
	for (size_t i = 0; i < n->s->n_cold; i++) {
		const struct kn_label labels[] = { KN_LABEL("function_name", n->name),
						   KN_LABEL("phase", n->s->cold[i].name) };
		kn_metric_seconds(b, "kiln_last_start_seconds", labels, 2, n->s->cold[i].ns);
	}
}

static const struct {
	const char *name;
	enum kn_metric_type type;
	const char *help;
	void (*print)(struct kn_buf *b, const struct now *n);
} LABELLED[] = {
	{ "gateway_function_invocation_total", KN_COUNTER, "Requests by HTTP status; 0: cut.",
	  print_invocations },
	{ "gateway_functions_seconds", KN_HISTOGRAM, "Time from a request to its answer.",
	  print_times },
	{ "kiln_calls_total", KN_COUNTER,
	  "Requests by how they got their instance: cold waited for its start, prewarmed was the "
	  "first at a ready one.",
	  print_calls },
	{ "kiln_starts_total", KN_COUNTER, "Instances that became ready, by how they were started.",
	  print_starts },
	{ "kiln_queue_wait_seconds", KN_HISTOGRAM,
	  "Time that requests waited for an instance, its start included.", print_waits },
	{ "kiln_instances", KN_GAUGE, "Instances by state.", print_states },
	{ "kiln_cpu_seconds_total", KN_COUNTER,
	  "CPU time of the function's instances, ended ones included.", print_cpu },
	{ "kiln_last_start_seconds", KN_GAUGE, "Phases of the last start.", print_last_start },
};

/* ---- phases of starts, of the whole node ------------------------------------------------------ */

struct kn_phase_time {
	const char *class, *kind, *phase; /* static strings */
	struct kn_histogram time;
};

/* Few: classes, kinds and phases are what drivers have. */
static struct kn_phase_time *phase_time(struct kn_engine *e, const char *class, const char *kind,
					const char *phase)
{
	for (size_t i = 0; i < e->n_phase_times; i++) {
		struct kn_phase_time *t = &e->phase_times[i];
		if (strcmp(t->class, class) == 0 && strcmp(t->kind, kind) == 0 &&
		    strcmp(t->phase, phase) == 0)
			return t;
	}
	struct kn_phase_time *grown =
		realloc(e->phase_times, (e->n_phase_times + 1) * sizeof(*grown));
	if (!grown)
		return NULL; /* this start is missing from the page */
	e->phase_times = grown;
	grown += e->n_phase_times++;
	*grown = (struct kn_phase_time){ .class = class, .kind = kind, .phase = phase };
	return grown;
}

void kn_counts_started(struct kn_service *s, const struct kn_sandbox *sb)
{
	const char *kind = sb->kind ? sb->kind : "boot";
	const char *class = kn_class_name(s->fn->class);
	struct kn_counts *c = &s->counts;
	size_t k = 0;

	while (k < KN_COUNT_KINDS - 1 && c->kinds[k].kind && strcmp(c->kinds[k].kind, kind) != 0)
		k++;
	c->kinds[k].kind = kind;
	c->kinds[k].n++;
	for (size_t i = 0; i < kn_min(sb->n_phases, (size_t)KN_MAX_PHASES); i++) {
		struct kn_phase_time *t = phase_time(s->engine, class, kind, sb->phases[i].name);
		if (t)
			kn_histogram_add(&t->time, sb->phases[i].ns);
	}
}

static void print_phases(const struct kn_engine *e, struct kn_buf *b)
{
	static const char name[] = "kiln_start_phase_seconds";

	kn_metric_family(b, name, KN_HISTOGRAM, "Phases of the starts of this node's instances.");
	for (size_t i = 0; i < e->n_phase_times; i++) {
		const struct kn_phase_time *t = &e->phase_times[i];
		const struct kn_label labels[] = { KN_LABEL("class", t->class),
						   KN_LABEL("kind", t->kind),
						   KN_LABEL("phase", t->phase) };
		kn_metric_histogram(b, name, labels, KN_ARRAY_LEN(labels), &t->time);
	}
}

/* ---- the page --------------------------------------------------------------------------------- */

static void print_functions(struct kn_buf *b, const struct now *all, size_t n)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(SIMPLE); i++) {
		kn_metric_family(b, SIMPLE[i].name, SIMPLE[i].type, SIMPLE[i].help);
		for (size_t k = 0; k < n; k++)
			kn_metric_u64(b, SIMPLE[i].name, &KN_LABEL("function_name", all[k].name), 1,
				      SIMPLE[i].value(&all[k]));
	}
	for (size_t i = 0; i < KN_ARRAY_LEN(LABELLED); i++) {
		kn_metric_family(b, LABELLED[i].name, LABELLED[i].type, LABELLED[i].help);
		for (size_t k = 0; k < n; k++)
			LABELLED[i].print(b, &all[k]);
	}
}

static void print_node(const struct kn_engine *e, struct kn_buf *b)
{
	kn_metric_family(b, "kiln_node_functions", KN_GAUGE, "Functions that can be called.");
	kn_metric_u64(b, "kiln_node_functions", NULL, 0, e->n_services);
	kn_metric_family(b, "kiln_node_instances", KN_GAUGE, "Instances on this node.");
	kn_metric_u64(b, "kiln_node_instances", NULL, 0, e->n_instances);
	kn_metric_family(b, "kiln_node_max_instances", KN_GAUGE, "Instances that it may have.");
	kn_metric_u64(b, "kiln_node_max_instances", NULL, 0, e->config.max_instances);
	kn_metric_family(b, "kiln_node_promised_bytes", KN_GAUGE, "Memory promised to instances.");
	kn_metric_u64(b, "kiln_node_promised_bytes", NULL, 0, e->memory_bytes);
}

void kn_engine_metrics(const struct kn_engine *e, struct kn_buf *ret)
{
	kn_auto(kn_free) struct now *all = calloc(e->n_services + 1, sizeof(*all));
	uint64_t now = kn_now_ns();
	size_t n = 0;

	if (!all) {
		ret->failed = true;
		return;
	}
	for (const struct kn_service *s = e->all; s && n < e->n_services; s = s->next)
		look_at(&all[n++], s, now);
	print_functions(ret, all, n);
	kn_series_print(e->all, ret);
	print_phases(e, ret);
	print_node(e, ret);
}
