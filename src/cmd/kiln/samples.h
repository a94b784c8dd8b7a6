/*
 * Reading Prometheus' text format (version 0.0.4), as far as `kiln top` needs it: the samples of a
 * page, in order. Comments and lines that are none are passed over. Nothing is copied.
 *
 * Thread  keeps no state
 */
#pragma once

#include <stdbool.h>

#include "base/str.h"

struct kn_sample {
	struct kn_view name, labels; /* labels: what stands between the braces */
	double value;
};

/** Visit each sample of a page. Returns how many there were. */
size_t kn_samples_each(struct kn_view page, void (*each)(const struct kn_sample *s, void *arg),
		       void *arg);

/** A label's value, still escaped; KN_VIEW_NULL when the sample does not have it. */
struct kn_view kn_sample_label(const struct kn_sample *s, const char *name);
