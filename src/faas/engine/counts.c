#include <stdlib.h>

#include "base/time.h"
#include "faas/engine/service.h"

/* What a status was counted under; codes beyond the table's are counted under 0. */
static struct kn_histogram *times_of(struct kn_counts *c, int code)
{
	for (size_t i = 0; i < KN_COUNT_CODES - 1; i++) {
		if (c->codes[i].time.count == 0)
			c->codes[i].code = code;
		if (c->codes[i].code == code)
			return &c->codes[i].time;
	}
	return &c->codes[KN_COUNT_CODES - 1].time;
}

void kn_counts_add(struct kn_counts *c, int status, uint64_t ns, bool ours)
{
	c->finished++;
	c->failed += status == 0 || status >= 500 || (ours && status >= 400);
	kn_histogram_add(times_of(c, status), ns);
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
