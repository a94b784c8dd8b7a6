/*
 * Numbers for Prometheus: its text format, version 0.0.4. A module that counts has one function
 * that appends its families to a buffer (kn_engine_metrics() is one); a program calls those that it
 * has, one after the other, and that is the page. Each family is begun once, by the module that
 * owns its name, and all its lines follow at once: so no HELP is written twice.
 *
 *     kn_metric_family(b, "kiln_queue_length", KN_GAUGE, "Requests that wait for an instance.");
 *     for each function:
 *             kn_metric_u64(b, "kiln_queue_length", &KN_LABEL("function_name", name), 1, n);
 *
 * Running out of memory is kept in the buffer (kn_buf.failed), as everywhere.
 *
 * Thread  any; the functions keep no state
 */
#pragma once

#include <stdint.h>

#include "base/str.h"

enum kn_metric_type { KN_COUNTER, KN_GAUGE, KN_HISTOGRAM };

struct kn_label {
	const char *name, *value;   /* value: any bytes, escaped when they are written */
};

#define KN_LABEL(n, v) ((struct kn_label){ .name = (n), .value = (v) })

/** Begin a family: its HELP and TYPE lines. */
void kn_metric_family(struct kn_buf *b, const char *name, enum kn_metric_type type,
                      const char *help);

/** One line of the family that was begun last. */
void kn_metric_u64(struct kn_buf *b, const char *name, const struct kn_label *labels, size_t n,
                   uint64_t value);

/** The same for a time, which Prometheus wants in seconds. */
void kn_metric_seconds(struct kn_buf *b, const char *name, const struct kn_label *labels, size_t n,
                       uint64_t ns);

/** A label's value as it stands between quotes. */
void kn_metric_escape(struct kn_buf *b, const char *text);

/* ---- how long things take -------------------------------------------------------------------- */

enum { KN_HISTOGRAM_BUCKETS = 13 };

/* Zero is empty. Buckets are not cumulative; what is above the last bound is in count alone. */
struct kn_histogram {
	uint64_t buckets[KN_HISTOGRAM_BUCKETS];
	uint64_t count, sum_ns;
};

/** Count one duration. */
void kn_histogram_add(struct kn_histogram *h, uint64_t ns);

/** The lines of one histogram: its buckets, sum and count. */
void kn_metric_histogram(struct kn_buf *b, const char *name, const struct kn_label *labels,
                         size_t n, const struct kn_histogram *h);

/* ---- this process ---------------------------------------------------------------------------- */

/**
 * The families that every Prometheus client library has: process_cpu_seconds_total,
 * process_resident_memory_bytes, process_virtual_memory_bytes, process_open_fds, process_max_fds,
 * process_start_time_seconds, process_threads. What /proc does not tell is left out.
 *
 * Source  proc_pid_stat(5); Prometheus, "Writing client libraries", process metrics
 */
void kn_metric_process(struct kn_buf *b);
