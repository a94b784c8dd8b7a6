#include <stdio.h>
#include <stdlib.h>

#include "base/time.h"
#include "faas/engine/service.h"

/* Upper bounds of the histogram, those of the Prometheus client libraries that OpenFaaS uses. */
static const struct {
	uint64_t ns;
	const char *text;
} BUCKETS[KN_COUNT_BUCKETS] = {
	{ 5 * KN_NS_PER_MS, "0.005" },	{ 10 * KN_NS_PER_MS, "0.01" },
	{ 25 * KN_NS_PER_MS, "0.025" }, { 50 * KN_NS_PER_MS, "0.05" },
	{ 100 * KN_NS_PER_MS, "0.1" },	{ 250 * KN_NS_PER_MS, "0.25" },
	{ 500 * KN_NS_PER_MS, "0.5" },	{ KN_NS_PER_S, "1" },
	{ 2500 * KN_NS_PER_MS, "2.5" }, { 5 * KN_NS_PER_S, "5" },
	{ 10 * KN_NS_PER_S, "10" },
};

static void count_code(struct kn_counts *c, int code)
{
	for (size_t i = 0; i < KN_COUNT_CODES - 1; i++) {
		if (c->codes[i].n == 0)
			c->codes[i].code = code;
		if (c->codes[i].code == code) {
			c->codes[i].n++;
			return;
		}
	}
	c->codes[KN_COUNT_CODES - 1].n++;
}

void kn_counts_add(struct kn_counts *c, int status, uint64_t ns, bool ours)
{
	c->finished++;
	c->failed += status == 0 || status >= 500 || (ours && status >= 400);
	count_code(c, status);
	c->sum_ns += ns;
	for (size_t i = 0; i < KN_COUNT_BUCKETS; i++) {
		if (ns <= BUCKETS[i].ns) {
			c->buckets[i]++;
			break;
		}
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

uint64_t kn_counts_median(const struct kn_counts *c)
{
	uint64_t sorted[KN_COUNT_RECENT];
	size_t n = (size_t)kn_min(c->n_recent, (uint64_t)KN_COUNT_RECENT);

	if (n == 0)
		return 0;
	memcpy(sorted, c->recent_ns, n * sizeof(sorted[0]));
	qsort(sorted, n, sizeof(sorted[0]), by_value);
	return sorted[n / 2];
}

enum { RATE_S = 10 };   /* what happened before tells nothing about now */

uint64_t kn_counts_wait_ns(const struct kn_counts *c, uint64_t ahead)
{
	uint64_t now = kn_now_ns(), oldest = now, n = 0;

	for (uint64_t i = 0; i < kn_min(c->n_done, (uint64_t)KN_COUNT_RECENT); i++) {
		if (now - c->done_ns[i] > RATE_S * KN_NS_PER_S)
			continue;
		oldest = kn_min(oldest, c->done_ns[i]);
		n++;
	}
	return n < 2 ? 0 : ahead * ((now - oldest) / n);
}

/* ---- exposition format: one block a metric, one line a function ------------------------------ */

static void head(struct kn_buf *b, const char *name, const char *type, const char *help)
{
	kn_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* OpenFaaS' label: NAME.NAMESPACE. Both are DNS labels, so nothing needs escaping. */
static void line(struct kn_buf *b, const char *name, const struct kn_service *s, const char *more,
		 uint64_t value)
{
	kn_buf_printf(b, "%s{function_name=\"%s.%s\"%s} %llu\n", name, s->fn->name, s->fn->ns, more,
		      (unsigned long long)value);
}

static void print_codes(struct kn_buf *b, const struct kn_service *s)
{
	char more[32];

	for (size_t i = 0; i < KN_COUNT_CODES && s->counts.codes[i].n; i++) {
		snprintf(more, sizeof(more), ",code=\"%d\"", s->counts.codes[i].code);
		line(b, "gateway_function_invocation_total", s, more, s->counts.codes[i].n);
	}
}

static void print_histogram(struct kn_buf *b, const struct kn_service *s)
{
	const struct kn_counts *c = &s->counts;
	char more[32];
	uint64_t n = 0;

	for (size_t i = 0; i < KN_COUNT_BUCKETS; i++) {
		n += c->buckets[i];
		snprintf(more, sizeof(more), ",le=\"%s\"", BUCKETS[i].text);
		line(b, "gateway_functions_seconds_bucket", s, more, n);
	}
	line(b, "gateway_functions_seconds_bucket", s, ",le=\"+Inf\"", c->finished);
	kn_buf_printf(b, "gateway_functions_seconds_sum{function_name=\"%s.%s\"} %.9f\n",
		      s->fn->name, s->fn->ns, (double)c->sum_ns / 1e9);
	line(b, "gateway_functions_seconds_count", s, "", c->finished);
}

static void print_cold(struct kn_buf *b, const struct kn_service *s)
{
	for (size_t i = 0; i < s->n_cold; i++)
		kn_buf_printf(b,
			      "kiln_function_last_start_seconds"
			      "{function_name=\"%s.%s\",phase=\"%s\"} %.9f\n",
			      s->fn->name, s->fn->ns, s->cold[i].name, (double)s->cold[i].ns / 1e9);
}

static uint64_t replicas(const struct kn_service *s)
{
	return kn_pool_count(s->pool) - kn_pool_leaving(s->pool);
}

/* One metric of the table: a value per function. */
struct metric {
	const char *name, *type, *help, *more;
	uint64_t (*value)(const struct kn_service *s);
};

static uint64_t came(const struct kn_service *s)
{
	return s->counts.came;
}
static uint64_t cold(const struct kn_service *s)
{
	return s->counts.cold;
}
static uint64_t warm(const struct kn_service *s)
{
	return s->counts.warm;
}
static uint64_t waiting(const struct kn_service *s)
{
	return s->waiting;
}
static uint64_t in_flight(const struct kn_service *s)
{
	return s->in_flight;
}
static uint64_t starts(const struct kn_service *s)
{
	return s->counts.starts;
}
static uint64_t failed_starts(const struct kn_service *s)
{
	return s->counts.failed_starts;
}
static uint64_t crashes(const struct kn_service *s)
{
	return s->counts.crashes;
}

static const struct metric METRICS[] = {
	{ "gateway_function_invocation_started", "counter", "Requests that came in.", "", came },
	{ "gateway_service_count", "gauge", "Instances of the function.", "", replicas },
	{ "kiln_function_cold_total", "counter", "Requests that waited for a start.", "", cold },
	{ "kiln_function_warm_total", "counter", "Requests that a ready instance took.", "", warm },
	{ "kiln_function_queue_length", "gauge", "Requests that wait for an instance.", "",
	  waiting },
	{ "kiln_function_in_flight", "gauge", "Requests at instances.", "", in_flight },
	{ "kiln_function_starts_total", "counter", "Instances started.", "", starts },
	{ "kiln_function_failed_starts_total", "counter", "Starts that failed.", "",
	  failed_starts },
	{ "kiln_function_crashes_total", "counter", "Ready instances that ended.", "", crashes },
};

void kn_counts_print(const struct kn_service *services, struct kn_buf *ret)
{
	head(ret, "gateway_function_invocation_total", "counter",
	     "Requests by HTTP status; 0: cut.");
	for (const struct kn_service *s = services; s; s = s->next)
		print_codes(ret, s);
	head(ret, "gateway_functions_seconds", "histogram", "Time from a request to its answer.");
	for (const struct kn_service *s = services; s; s = s->next)
		print_histogram(ret, s);
	for (size_t i = 0; i < KN_ARRAY_LEN(METRICS); i++) {
		head(ret, METRICS[i].name, METRICS[i].type, METRICS[i].help);
		for (const struct kn_service *s = services; s; s = s->next)
			line(ret, METRICS[i].name, s, METRICS[i].more, METRICS[i].value(s));
	}
	head(ret, "kiln_function_last_start_seconds", "gauge", "Phases of the last start.");
	for (const struct kn_service *s = services; s; s = s->next)
		print_cold(ret, s);
}
