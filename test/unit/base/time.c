#include "test.h"

#include <stdlib.h>
#include <time.h>

#include "base/time.h"

static void clocks_move_forward(void **state)
{
	(void)state;
	uint64_t mono = kn_now_ns(), cpu = kn_cpu_ns();

	for (volatile int i = 0; i < 100000; i++)
		;
	assert_true(kn_now_ns() > mono);
	assert_true(kn_cpu_ns() > cpu);
	assert_true(kn_wall_ns() > UINT64_C(1700000000) * KN_NS_PER_S);
}

static void fake_clock_moves_only_by_hand(void **state)
{
	(void)state;

	kn_fake_clock(1000, 2000);
	assert_int_equal(kn_now_ns(), 1000);
	assert_int_equal(kn_now_ns(), 1000);
	kn_fake_advance(5);
	assert_int_equal(kn_now_ns(), 1005);
	assert_int_equal(kn_wall_ns(), 2005);
	kn_real_clock();
	assert_true(kn_wall_ns() > 2005);
}

static void rate_of_the_time_stamp_counter_is_the_kernels(void **state)
{
	(void)state;
	uint64_t khz = kn_tsc_khz();

#if defined(__x86_64__)
	/* two counts of the same 20 ms cannot be a thousandth apart */
	unsigned long long before = __builtin_ia32_rdtsc();
	uint64_t from = kn_now_ns();
	while (kn_now_ns() - from < 20 * KN_NS_PER_MS)
		;
	uint64_t ticks = __builtin_ia32_rdtsc() - before, took = kn_now_ns() - from;
	uint64_t again = ticks * KN_NS_PER_MS / took;
	assert_in_range(khz, again - again / 1000, again + again / 1000);
#else
	assert_int_equal(khz, 0);
#endif
	assert_int_equal(kn_tsc_khz(), khz);   /* measured once */
}

static void times_print_and_parse(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint64_t ns;
		const char *printed;   /* NULL: the same text */
	} cases[] = {
		{ "1970-01-01T00:00:00.000Z", 0, NULL },
		{ "2000-02-29T23:59:59.999Z", UINT64_C(951868799999000000), NULL },
		{ "2026-01-31T12:00:00.123Z", UINT64_C(1769860800123000000), NULL },
		{ "2026-01-31t12:00:00z", UINT64_C(1769860800000000000),
		  "2026-01-31T12:00:00.000Z" },
		{ "2026-01-31T13:30:00.5+01:30", UINT64_C(1769860800500000000),
		  "2026-01-31T12:00:00.500Z" },
		{ "2026-01-31T04:00:00-08:00", UINT64_C(1769860800000000000),
		  "2026-01-31T12:00:00.000Z" },
		{ "2016-12-31T23:59:60Z", UINT64_C(1483228800000000000),
		  "2017-01-01T00:00:00.000Z" },
		{ "1970-01-01T00:00:00.1234567899Z", 123456789, "1970-01-01T00:00:00.123Z" },
		{ "2554-07-21T00:00:00Z", UINT64_C(18446659200000000000),
		  "2554-07-21T00:00:00.000Z" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		char text[KN_RFC3339_LEN];
		uint64_t ns;
		assert_ok(kn_parse_rfc3339(kn_view_of(cases[i].text), &ns, &err), &err);
		if (ns != cases[i].ns)
			fail_msg("%s is %llu", cases[i].text, (unsigned long long)ns);
		kn_rfc3339(ns, text);
		assert_string_equal(text, cases[i].printed ? cases[i].printed : cases[i].text);
	}
}

static void the_last_representable_time_prints(void **state)
{
	(void)state;
	char text[KN_RFC3339_LEN];

	kn_rfc3339(UINT64_MAX, text);
	assert_string_equal(text, "2554-07-21T23:34:33.709Z");
}

/* libc is the judge: the first and the last second of every day that can be told. */
static void every_day_is_libcs(void **state)
{
	(void)state;
	const uint64_t last = UINT64_MAX / KN_NS_PER_S;

	for (uint64_t s = 0; s < last; s += s % 86400 ? 1 : 86399) {
		char expected[64], text[KN_HTTP_DATE_LEN], rfc3339[KN_RFC3339_LEN];
		struct kn_err err = KN_ERR_INIT;
		time_t t = (time_t)s;
		uint64_t back;
		struct tm tm;

		gmtime_r(&t, &tm);
		strftime(expected, sizeof(expected), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		kn_http_date(s * KN_NS_PER_S, text);
		kn_rfc3339(s * KN_NS_PER_S, rfc3339);
		if (strcmp(text, expected) != 0)
			fail_msg("%s, libc: %s", text, expected);
		assert_ok(kn_parse_rfc3339(kn_view_of(rfc3339), &back, &err), &err);
		if (back != s * KN_NS_PER_S)
			fail_msg("%s, libc: %s", rfc3339, expected);
	}
}

static void bad_times_are_refused(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"", "2026", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31 12:00:00Z",
		"2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-02-29T00:00:00Z",
		"1900-02-29T00:00:00Z", "2026-01-32T00:00:00Z", "2026-01-00T00:00:00Z",
		"2026-01-31T24:00:00Z", "2026-01-31T12:60:00Z", "2026-01-31T12:00:61Z",
		"2026-01-31T12:00:00.Z", "2026-01-31T12:00:00+1:00", "2026-01-31T12:00:00+24:00",
		"2026-01-31T12:00:00+01:60", "2026-01-31T12:00:00ZZ", "2026-1-31T12:00:00Z",
		"-026-01-31T12:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00+00:01",
		"9999-12-31T23:59:59Z", "2026-01-31T12:00:00+",
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		size_t len = strlen(cases[i]);
		char *own = malloc(len + 1);
		uint64_t ns = 77;
		assert_non_null(own);
		memcpy(own, cases[i], len);
		int r = kn_parse_rfc3339((struct kn_view){ own, len }, &ns, &err);
		free(own);
		if (r != -EINVAL)
			fail_msg("'%s' was taken", cases[i]);
		assert_fails(r, EINVAL, &err, cases[i]);
		assert_int_equal(ns, 77);
	}
	struct kn_err err = KN_ERR_INIT;
	uint64_t ns;
	assert_fails(kn_parse_rfc3339(KN_VIEW_NULL, &ns, &err), EINVAL, &err, "not a time");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clocks_move_forward),
		cmocka_unit_test(fake_clock_moves_only_by_hand),
		cmocka_unit_test(rate_of_the_time_stamp_counter_is_the_kernels),
		cmocka_unit_test(times_print_and_parse),
		cmocka_unit_test(the_last_representable_time_prints),
		cmocka_unit_test(every_day_is_libcs),
		cmocka_unit_test(bad_times_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
