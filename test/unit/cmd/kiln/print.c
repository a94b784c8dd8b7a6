#include "test.h"

#include <stdlib.h>

#include "base/time.h"
#include "cmd/kiln/print.h"

static void sizes_have_three_digits_and_a_unit(void **state)
{
	(void)state;
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{ 0, "0 B" },
		{ 999, "999 B" },
		{ 1000, "1.0 kB" },
		{ 12400000, "12.4 MB" },
		{ 999949, "999.9 kB" },
		{ 999950, "1.0 MB" },
		{ UINT64_MAX, "18.4 EB" },
	};
	char out[KN_SHORT];

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		kn_show_bytes(cases[i].bytes, out);
		assert_string_equal(out, cases[i].text);
	}
}

static void durations_keep_their_digits(void **state)
{
	(void)state;
	static const struct {
		uint64_t ns;
		const char *text;
	} cases[] = {
		{ 0, "0 ns" },          { 740000, "740 us" },       { 1234567, "1.23 ms" },
		{ 57100000, "57.1 ms" }, { 1240000000, "1.24 s" }, { UINT64_MAX, "18446744073.71 s" },
	};
	char out[KN_SHORT];

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		kn_show_ns(cases[i].ns, out);
		assert_string_equal(out, cases[i].text);
	}
}

static void ages_count_from_now(void **state)
{
	(void)state;
	static const struct {
		const char *then, *text;
	} cases[] = {
		{ "2026-01-31T12:00:00Z", "now" },
		{ "2026-01-31T11:59:48Z", "12 s ago" },
		{ "2026-01-31T11:30:00Z", "30 min ago" },
		{ "2026-01-31T09:00:00Z", "3 h ago" },
		{ "2026-01-29T11:00:00Z", "2 d ago" },
		{ "2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z" },   /* to come: as it is */
		{ "yesterday", "yesterday" },
	};
	char out[KN_SHORT];
	uint64_t now_ns = 0;

	assert_ok(kn_parse_rfc3339(KN_VIEW("2026-01-31T12:00:00Z"), &now_ns, NULL), NULL);
	kn_fake_clock(0, now_ns);
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		kn_show_age(cases[i].then, out);
		assert_string_equal(out, cases[i].text);
	}
	kn_show_age(NULL, out);
	assert_string_equal(out, "");
	kn_real_clock();
}

/* What a function writes must not steer the terminal of who reads it. */
static void control_characters_are_shown(void **state)
{
	(void)state;
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	kn_show_text(f, KN_VIEW("a\tb\x1b[2J\r\x7f\0ü\n"));
	fclose(f);
	assert_string_equal(text, "a\tb\\x1b[2J\\x0d\\x7f\\x00ü\n");
	free(text);
}

static void grid_columns_fit_their_widest_cell(void **state)
{
	(void)state;
	kn_auto(kn_grid_fini) struct kn_grid g;
	struct kn_err err = KN_ERR_INIT;
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	kn_grid_init(&g, 2);
	kn_grid_add(&g, "%s", "NAME");
	kn_grid_add(&g, "%s", "N");
	kn_grid_add(&g, "%s", "tür\x1b");
	kn_grid_add(&g, "%d", 12);
	assert_ok(kn_grid_print(&g, f, &err), &err);
	fclose(f);
	assert_string_equal(text, "NAME  N\ntür?  12\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_have_three_digits_and_a_unit),
		cmocka_unit_test(durations_keep_their_digits),
		cmocka_unit_test(ages_count_from_now),
		cmocka_unit_test(control_characters_are_shown),
		cmocka_unit_test(grid_columns_fit_their_widest_cell),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
