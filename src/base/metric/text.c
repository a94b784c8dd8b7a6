#include "base/metric.h"

#include <inttypes.h>

#include "base/time.h"

/* Those of Prometheus' client libraries, which OpenFaaS has, and two below: warm calls are quick. */
static const struct {
	uint64_t ns;
	const char *text;
} BOUNDS[KN_HISTOGRAM_BUCKETS] = {
	{ 500 * KN_NS_PER_US, "0.0005" }, { KN_NS_PER_MS, "0.001" },
	{ 5 * KN_NS_PER_MS, "0.005" },    { 10 * KN_NS_PER_MS, "0.01" },
	{ 25 * KN_NS_PER_MS, "0.025" },   { 50 * KN_NS_PER_MS, "0.05" },
	{ 100 * KN_NS_PER_MS, "0.1" },    { 250 * KN_NS_PER_MS, "0.25" },
	{ 500 * KN_NS_PER_MS, "0.5" },    { KN_NS_PER_S, "1" },
	{ 2500 * KN_NS_PER_MS, "2.5" },   { 5 * KN_NS_PER_S, "5" },
	{ 10 * KN_NS_PER_S, "10" },
};

void kn_metric_escape(struct kn_buf *b, const char *text)
{
	for (; *text; text++) {
		if (*text == '\n')
			kn_buf_adds(b, "\\n");
		else if (*text == '\\' || *text == '"')
			kn_buf_printf(b, "\\%c", *text);
		else
			kn_buf_add(b, text, 1);
	}
}

void kn_metric_family(struct kn_buf *b, const char *name, enum kn_metric_type type,
                      const char *help)
{
	static const char *const types[] = { [KN_COUNTER] = "counter", [KN_GAUGE] = "gauge",
		                             [KN_HISTOGRAM] = "histogram" };

	kn_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, types[type]);
}

/* name, suffix and labels; le: the bound of a bucket, or NULL. */
static void begin_line(struct kn_buf *b, const char *name, const char *suffix,
                       const struct kn_label *labels, size_t n, const char *le)
{
	const char *before = "{";

	kn_buf_adds(b, name);
	kn_buf_adds(b, suffix);
	for (size_t i = 0; i < n; i++) {
		kn_buf_printf(b, "%s%s=\"", before, labels[i].name);
		kn_metric_escape(b, labels[i].value);
		kn_buf_adds(b, "\"");
		before = ",";
	}
	if (le)
		kn_buf_printf(b, "%sle=\"%s\"", before, le);
	kn_buf_adds(b, n > 0 || le ? "} " : " ");
}

static void end_u64(struct kn_buf *b, uint64_t value)
{
	kn_buf_printf(b, "%" PRIu64 "\n", value);
}

static void end_seconds(struct kn_buf *b, uint64_t ns)
{
	kn_buf_printf(b, "%" PRIu64 ".%09" PRIu64 "\n", ns / KN_NS_PER_S, ns % KN_NS_PER_S);
}

void kn_metric_u64(struct kn_buf *b, const char *name, const struct kn_label *labels, size_t n,
                   uint64_t value)
{
	begin_line(b, name, "", labels, n, NULL);
	end_u64(b, value);
}

void kn_metric_seconds(struct kn_buf *b, const char *name, const struct kn_label *labels, size_t n,
                       uint64_t ns)
{
	begin_line(b, name, "", labels, n, NULL);
	end_seconds(b, ns);
}

void kn_histogram_add(struct kn_histogram *h, uint64_t ns)
{
	h->count++;
	h->sum_ns += ns;
	for (size_t i = 0; i < KN_HISTOGRAM_BUCKETS; i++) {
		if (ns <= BOUNDS[i].ns) {
			h->buckets[i]++;
			return;
		}
	}
}

void kn_metric_histogram(struct kn_buf *b, const char *name, const struct kn_label *labels,
                         size_t n, const struct kn_histogram *h)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < KN_HISTOGRAM_BUCKETS; i++) {
		sum += h->buckets[i];
		begin_line(b, name, "_bucket", labels, n, BOUNDS[i].text);
		end_u64(b, sum);
	}
	begin_line(b, name, "_bucket", labels, n, "+Inf");
	end_u64(b, h->count);
	begin_line(b, name, "_sum", labels, n, NULL);
	end_seconds(b, h->sum_ns);
	begin_line(b, name, "_count", labels, n, NULL);
	end_u64(b, h->count);
}
