#include "test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/metric.h"
#include "base/time.h"

static void a_family_has_one_help_and_one_type(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	(void)state;
	kn_metric_family(&b, "kiln_things_total", KN_COUNTER, "Things.");
	kn_metric_u64(&b, "kiln_things_total", NULL, 0, 7);
	assert_string_equal(b.ptr, "# HELP kiln_things_total Things.\n"
				   "# TYPE kiln_things_total counter\nkiln_things_total 7\n");
}

static void labels_cannot_break_a_line(void **state)
{
	const struct kn_label labels[] = { KN_LABEL("a", "x\"y\\z\nw"), KN_LABEL("b", "") };
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	(void)state;
	kn_metric_u64(&b, "m", labels, 2, UINT64_MAX);
	assert_string_equal(b.ptr, "m{a=\"x\\\"y\\\\z\\nw\",b=\"\"} 18446744073709551615\n");
}

static void seconds_keep_nanoseconds(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	(void)state;
	kn_metric_seconds(&b, "m", NULL, 0, 3 * KN_NS_PER_S + 42);
	assert_string_equal(b.ptr, "m 3.000000042\n");
}

/* A bound belongs to its bucket; buckets are cumulative on the page; the last one has everything. */
static void a_histogram_counts_every_value_once(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
	struct kn_histogram h = { .count = 0 };

	(void)state;
	kn_histogram_add(&h, 0);
	kn_histogram_add(&h, 5 * KN_NS_PER_MS);
	kn_histogram_add(&h, 5 * KN_NS_PER_MS + 1);
	kn_histogram_add(&h, 60 * KN_NS_PER_S);
	kn_metric_histogram(&b, "m", &KN_LABEL("f", "x"), 1, &h);
	static const char *const lines[] = {
		"m_bucket{f=\"x\",le=\"0.0005\"} 1\n", "m_bucket{f=\"x\",le=\"0.005\"} 2\n",
		"m_bucket{f=\"x\",le=\"0.01\"} 3\n",   "m_bucket{f=\"x\",le=\"10\"} 3\n",
		"m_bucket{f=\"x\",le=\"+Inf\"} 4\n",   "m_sum{f=\"x\"} 60.010000001\n",
		"m_count{f=\"x\"} 4\n",
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(lines); i++)
		if (!strstr(b.ptr, lines[i]))
			fail_msg("'%s' is not in:\n%s", lines[i], b.ptr);
}

static uint64_t value_of(const struct kn_buf *b, const char *name)
{
	char line[80];

	snprintf(line, sizeof(line), "\n%s ", name);
	const char *at = strstr(b->ptr, line);
	if (!at)
		fail_msg("%s is not in:\n%s", name, b->ptr);
	return at ? strtoull(at + strlen(line), NULL, 10) : 0;
}

static void a_process_tells_what_it_uses(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf before = KN_BUF_INIT, after = KN_BUF_INIT;

	(void)state;
	kn_metric_process(&before);
	kn_auto(kn_close) int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	kn_metric_process(&after);
	assert_int_equal(value_of(&after, "process_open_fds"),
			 value_of(&before, "process_open_fds") + 1);
	assert_int_equal(value_of(&after, "process_threads"), 1);
	assert_in_range(value_of(&after, "process_resident_memory_bytes"), 4096,
			value_of(&after, "process_virtual_memory_bytes"));
	uint64_t now = kn_wall_ns() / KN_NS_PER_S;
	assert_in_range(value_of(&after, "process_start_time_seconds"), now - 3600, now + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_family_has_one_help_and_one_type),
		cmocka_unit_test(labels_cannot_break_a_line),
		cmocka_unit_test(seconds_keep_nanoseconds),
		cmocka_unit_test(a_histogram_counts_every_value_once),
		cmocka_unit_test(a_process_tells_what_it_uses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
