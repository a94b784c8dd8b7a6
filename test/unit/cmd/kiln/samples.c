#include "test.h"

#include "cmd/kiln/samples.h"

static struct kn_buf seen;

static void on_sample(const struct kn_sample *s, void *arg)
{
	struct kn_view f = kn_sample_label(s, arg);

	kn_buf_printf(&seen, "%.*s[%.*s]=%g;", (int)s->name.len, s->name.ptr, (int)f.len,
		      f.ptr ? f.ptr : "", s->value);
}

static void assert_samples(const char *page, const char *expected)
{
	char label[] = "f";

	kn_buf_clear(&seen);
	kn_buf_adds(&seen, "");
	kn_samples_each(kn_view_of(page), on_sample, label);
	assert_string_equal(seen.ptr ? seen.ptr : "", expected);
}

static void samples_are_read(void **state)
{
	(void)state;
	assert_samples("# HELP a Things.\n# TYPE a counter\na 1\na_b{f=\"x\"} 2.5\n"
		       "c{g=\"1\",f=\"y\",h=\"2\"} +Inf\nd{f=\"z\",} 3 1700000000\n",
		       "a[]=1;a_b[x]=2.5;c[y]=inf;d[z]=3;");
}

static void values_may_hold_anything(void **state)
{
	(void)state;
	assert_samples("a{g=\"}\\\"{=,\",f=\"q\\\\\"} 1\n", "a[q\\\\]=1;");
}

static void broken_lines_are_passed_over(void **state)
{
	(void)state;
	assert_samples("a\n{}\na{\na{f=\"x} 1\na{f=\"x\"}\na{f} 1\n \na{f=\"\\", "a[]=1;");
	assert_samples("", "");
	assert_samples("b 7", "b[]=7;");
}

static int teardown(void **state)
{
	(void)state;
	kn_buf_fini(&seen);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(samples_are_read),
		cmocka_unit_test(values_may_hold_anything),
		cmocka_unit_test(broken_lines_are_passed_over),
	};
	return cmocka_run_group_tests(tests, NULL, teardown);
}
