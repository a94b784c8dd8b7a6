#include "test.h"

#include <stdlib.h>

#include "base/str.h"

/* A copy of exactly its bytes on the heap, so that the sanitizer sees a read past the end. */
static struct kn_view exact(const char *text, size_t len, char **ret_own)
{
	*ret_own = malloc(len ? len : 1);
	assert_non_null(*ret_own);
	memcpy(*ret_own, text, len);
	return (struct kn_view){ *ret_own, len };
}

static void views_compare(void **state)
{
	(void)state;
	struct kn_view abc = KN_VIEW("abc");

	assert_true(kn_view_is(abc, KN_VIEW("abc")));
	assert_false(kn_view_is(abc, KN_VIEW("ab")));
	assert_true(kn_view_is(KN_VIEW_NULL, KN_VIEW("")));
	assert_true(kn_view_is(kn_view_of(NULL), KN_VIEW_NULL));
	assert_true(kn_view_is_nocase(KN_VIEW("Content-Type"), KN_VIEW("content-tYPE")));
	assert_false(kn_view_is_nocase(KN_VIEW("["), KN_VIEW("{")));
	assert_false(kn_view_is_nocase(KN_VIEW("\xc4"), KN_VIEW("\xe4")));
	assert_true(kn_view_starts(abc, KN_VIEW("ab")));
	assert_true(kn_view_starts(abc, KN_VIEW_NULL));
	assert_false(kn_view_starts(abc, KN_VIEW("abcd")));
	assert_int_equal(kn_view_order(abc, KN_VIEW("abc")), 0);
	assert_true(kn_view_order(abc, KN_VIEW("abd")) < 0);
	assert_true(kn_view_order(abc, KN_VIEW("ab")) > 0);
	assert_true(kn_view_order(KN_VIEW("ab"), abc) < 0);
	assert_true(kn_view_order(KN_VIEW_NULL, abc) < 0);
	assert_true(kn_view_order(abc, KN_VIEW_NULL) > 0);
	assert_int_equal(kn_view_order(KN_VIEW_NULL, KN_VIEW_NULL), 0);
	assert_true(kn_view_order(KN_VIEW("\xff"), KN_VIEW("a")) > 0);
	assert_true(kn_view_ends(abc, KN_VIEW("bc")));
	assert_true(kn_view_ends(KN_VIEW_NULL, KN_VIEW_NULL));
	assert_false(kn_view_ends(abc, KN_VIEW("ab")));
	assert_false(kn_view_ends(abc, KN_VIEW("xabc")));
}

static void trim_takes_blanks_off_both_ends(void **state)
{
	(void)state;
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "", "" }, { "a", "a" }, { " \t\r\na b\n ", "a b" }, { " \t ", "" },
		{ "\va", "\va" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++)
		assert_view(kn_view_trim(kn_view_of(cases[i].in)), cases[i].out);
	assert_int_equal(kn_view_trim(KN_VIEW_NULL).len, 0);
}

static void split_gives_each_part_once(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		const char *parts[5];
	} cases[] = {
		{ "a,b,c", { "a", "b", "c" } },
		{ "a", { "a" } },
		{ "", { "" } },
		{ ",", { "", "" } },
		{ "a,,b,", { "a", "", "b", "" } },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_view rest = kn_view_of(cases[i].in), part;
		size_t n = 0;
		for (; kn_view_split(&rest, ',', &part); n++) {
			assert_non_null(cases[i].parts[n]);
			assert_view(part, cases[i].parts[n]);
		}
		assert_null(cases[i].parts[n]);
		assert_null(rest.ptr);
	}
	struct kn_view nothing = KN_VIEW_NULL, part;
	assert_false(kn_view_split(&nothing, ',', &part));
}

static void buffer_grows_and_stays_terminated(void **state)
{
	(void)state;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	for (unsigned i = 0; i < 10000; i++) {
		kn_buf_printf(&b, "%04u", i);
		assert_int_equal(b.ptr[b.len], 0);
	}
	assert_false(b.failed);
	assert_int_equal(b.len, 40000);
	assert_memory_equal(b.ptr + 4 * 1234, "12341235", 8);

	kn_buf_drop(&b, 39996);
	assert_view(kn_buf_view(&b), "9999");
	kn_buf_drop(&b, 1000);
	assert_string_equal(b.ptr, "");
	kn_buf_add(&b, "a\0b", 3);
	assert_int_equal(b.len, 3);
	kn_buf_clear(&b);
	kn_buf_adds(&b, "x");
	kn_buf_add_view(&b, KN_VIEW("yz"));
	kn_buf_add(&b, NULL, 0);
	assert_string_equal(b.ptr, "xyz");
}

static void appending_nothing_gives_an_empty_string(void **state)
{
	(void)state;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	kn_buf_drop(&b, 3);
	kn_buf_clear(&b);
	kn_buf_adds(&b, "");
	assert_string_equal(b.ptr, "");
	assert_int_equal(b.len, 0);
}

static void failed_buffer_takes_nothing_more(void **state)
{
	(void)state;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	kn_buf_adds(&b, "kept");
	assert_false(kn_buf_reserve(&b, SIZE_MAX));
	assert_true(b.failed);
	kn_buf_adds(&b, "lost");
	kn_buf_printf(&b, "%d", 1);
	assert_string_equal(b.ptr, "kept");
	kn_buf_clear(&b);
	kn_buf_adds(&b, "again");
	assert_string_equal(b.ptr, "again");
}

static void whole_numbers(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		uint64_t max, out;
		int error;
	} cases[] = {
		{ "0", 9, 0, 0 },
		{ "00042", 99, 42, 0 },
		{ "18446744073709551615", UINT64_MAX, UINT64_MAX, 0 },
		{ "18446744073709551616", UINT64_MAX, 0, ERANGE },
		{ "99999999999999999999999999", UINT64_MAX, 0, ERANGE },
		{ "65535", 65535, 65535, 0 },
		{ "65536", 65535, 0, ERANGE },
		{ "", 9, 0, EINVAL },
		{ "-1", 9, 0, EINVAL },
		{ "+1", 9, 0, EINVAL },
		{ " 1", 9, 0, EINVAL },
		{ "1 ", 9, 0, EINVAL },
		{ "0x10", 99, 0, EINVAL },
		{ "1e3", 9999, 0, EINVAL },
		{ "99999999999999999999999999x", UINT64_MAX, 0, EINVAL },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		char *own;
		uint64_t n = 77;
		struct kn_view v = exact(cases[i].in, strlen(cases[i].in), &own);
		int r = kn_parse_u64(v, cases[i].max, &n, &err);
		free(own);
		if (cases[i].error) {
			assert_fails(r, cases[i].error, &err, cases[i].in);
			assert_int_equal(n, 77);
		} else {
			assert_ok(r, &err);
			assert_int_equal(n, cases[i].out);
		}
	}
}

struct measure_case {
	const char *in;
	uint64_t out;
	int error;
};

static void check_measures(const struct measure_case *cases, size_t n,
                           int (*parse)(struct kn_view, uint64_t *, struct kn_err *))
{
	for (size_t i = 0; i < n; i++) {
		struct kn_err err = KN_ERR_INIT;
		uint64_t value = 77;
		char *own;
		struct kn_view v = exact(cases[i].in, strlen(cases[i].in), &own);
		int r = parse(v, &value, &err);
		free(own);
		if (cases[i].error) {
			assert_fails(r, cases[i].error, &err, cases[i].in);
			assert_int_equal(value, 77);
		} else {
			assert_ok(r, &err);
			if (value != cases[i].out)
				fail_msg("'%s' is %llu", cases[i].in, (unsigned long long)value);
		}
	}
}

static void sizes(void **state)
{
	(void)state;
	static const struct measure_case cases[] = {
		{ "0", 0, 0 },
		{ "64", 64, 0 },
		{ "64k", 64000, 0 },
		{ "64Ki", 65536, 0 },
		{ "1.5Gi", UINT64_C(3) << 29, 0 },
		{ "128M", 128000000, 0 },
		{ "128Mi", 128 << 20, 0 },
		{ "0.1Ki", 103, 0 },        /* 102.4: rounded up */
		{ "0.000000001k", 1, 0 },
		{ "16383Pi", UINT64_C(16383) << 50, 0 },
		{ "16384Pi", 0, ERANGE },
		{ "18446744073709551615", UINT64_MAX, 0 },
		{ "", 0, EINVAL },
		{ "Mi", 0, EINVAL },
		{ "128m", 0, EINVAL },
		{ "128K", 0, EINVAL },
		{ "1.Gi", 0, EINVAL },
		{ ".5Gi", 0, EINVAL },
		{ "1.0000000001Gi", 0, EINVAL },
		{ "-1Mi", 0, EINVAL },
		{ "1 Mi", 0, EINVAL },
		{ "1MiB", 0, EINVAL },
		{ "1Mi ", 0, EINVAL },
	};
	struct kn_err err = KN_ERR_INIT;
	uint64_t n;

	check_measures(cases, KN_ARRAY_LEN(cases), kn_parse_bytes);
	assert_fails(kn_parse_bytes(KN_VIEW("128m"), &n, &err), EINVAL, &err, "write M or Mi");
}

static void durations(void **state)
{
	(void)state;
	static const struct measure_case cases[] = {
		{ "250ms", 250, 0 },
		{ "30s", 30000, 0 },
		{ "5m", 300000, 0 },
		{ "1h", 3600000, 0 },
		{ "2m30s", 150000, 0 },
		{ "1h2m3s4ms", 3723004, 0 },
		{ "30", 30000, 0 },
		{ "1.5", 1500, 0 },
		{ "1.5s", 1500, 0 },
		{ "0", 0, 0 },
		{ "", 0, EINVAL },
		{ "s", 0, EINVAL },
		{ "5m30", 0, EINVAL },
		{ "5 m", 0, EINVAL },
		{ "5d", 0, EINVAL },
		{ "5S", 0, EINVAL },
		{ "-5s", 0, EINVAL },
		{ "5s-", 0, EINVAL },
		{ "18446744073709551615h", 0, ERANGE },
		{ "18446744073709551615ms1ms", 0, ERANGE },
	};

	check_measures(cases, KN_ARRAY_LEN(cases), kn_parse_duration);
}

static void cores(void **state)
{
	(void)state;
	static const struct measure_case cases[] = {
		{ "1", 1000, 0 },       { "0.5", 500, 0 },      { "500m", 500, 0 },
		{ "0.0001", 1, 0 },     { "2.25", 2250, 0 },    { "0", 0, 0 },
		{ "", 0, EINVAL },      { "m", 0, EINVAL },     { "500mm", 0, EINVAL },
		{ "1 core", 0, EINVAL }, { "18446744073709551615", 0, ERANGE },
	};

	check_measures(cases, KN_ARRAY_LEN(cases), kn_parse_millicores);
}

static void hex_goes_both_ways(void **state)
{
	(void)state;
	const unsigned char bytes[] = { 0x00, 0x1f, 0xa0, 0xff };
	unsigned char back[4] = { 1, 2, 3, 4 };
	struct kn_err err = KN_ERR_INIT;
	char text[9];

	kn_hex(bytes, sizeof(bytes), text);
	assert_string_equal(text, "001fa0ff");
	assert_ok(kn_unhex(KN_VIEW("001FA0fF"), back, sizeof(back), &err), &err);
	assert_memory_equal(back, bytes, sizeof(bytes));
	assert_fails(kn_unhex(KN_VIEW("00"), back, sizeof(back), &err), EINVAL, &err, "8 hex digits");
	assert_fails(kn_unhex(KN_VIEW("001fa0ff0"), back, 4, &err), EINVAL, &err, "got 9");
	assert_fails(kn_unhex(KN_VIEW("001fa0fg"), back, 4, &err), EINVAL, &err, "not hex");
	assert_memory_equal(back, bytes, sizeof(bytes));
}

/* RFC 4648, section 10. */
static void base64_vectors(void **state)
{
	(void)state;
	static const struct {
		const char *plain, *padded;
	} cases[] = {
		{ "", "" },         { "f", "Zg==" },         { "fo", "Zm8=" },
		{ "foo", "Zm9v" },  { "foob", "Zm9vYg==" },  { "fooba", "Zm9vYmE=" },
		{ "foobar", "Zm9vYmFy" }, { "\xfb\xff\xfe", "+//+" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
		struct kn_err err = KN_ERR_INIT;
		kn_base64(&b, cases[i].plain, strlen(cases[i].plain));
		kn_buf_adds(&b, "");
		assert_string_equal(b.ptr, cases[i].padded);
		kn_buf_clear(&b);
		assert_ok(kn_unbase64(kn_view_of(cases[i].padded), &b, &err), &err);
		kn_buf_adds(&b, "");
		assert_string_equal(b.ptr, cases[i].plain);
	}
}

static void base64url_goes_both_ways(void **state)
{
	(void)state;
	unsigned char bytes[70];

	for (size_t len = 0; len < sizeof(bytes); len++) {
		kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT, back = KN_BUF_INIT;
		struct kn_err err = KN_ERR_INIT;
		for (size_t i = 0; i < len; i++)
			bytes[i] = (unsigned char)(251 * i + 7 * len);
		kn_base64url(&text, bytes, len);
		assert_int_equal(text.len, (4 * len + 2) / 3);
		if (text.ptr)
			assert_null(strpbrk(text.ptr, "+/="));
		assert_ok(kn_unbase64url(kn_buf_view(&text), &back, &err), &err);
		assert_int_equal(back.len, len);
		assert_memory_equal(back.ptr ? back.ptr : "", bytes, len);
	}
}

static void bad_base64_is_refused_and_leaves_nothing(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool url;
	} cases[] = {
		{ "Z", true },    { "Zg==", true },  { "Zh", true },    { "Zm9", true },
		{ "Zm9v ", true }, { "Zm+v", true }, { "Zm/v", true },  { "Zm9vA", true },
		{ "Zg", false },  { "Zg=", false },  { "Z===", false }, { "Zh==", false },
		{ "Zg==Zg==", false }, { "=", false }, { "====", false }, { "Zm-v", false },
		{ "Zm9\n", false },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
		struct kn_err err = KN_ERR_INIT;
		struct kn_view v = kn_view_of(cases[i].text);
		kn_buf_adds(&b, "before");
		int r = cases[i].url ? kn_unbase64url(v, &b, &err) : kn_unbase64(v, &b, &err);
		if (r != -EINVAL)
			fail_msg("'%s' gave %d", cases[i].text, r);
		assert_fails(r, EINVAL, &err, "base64");
		assert_string_equal(b.ptr, "before");
	}
}

static void mistyped_words_find_the_nearest(void **state)
{
	(void)state;
	static const char *const names[] = { "deploy", "describe", "list", "image import", "rm" };
	static const struct {
		const char *word, *name;
	} cases[] = {
		{ "deply", "deploy" },  { "deplyo", "deploy" }, { "LIST", "list" },
		{ "lst", "list" },      { "imageimport", "image import" },
		{ "mr", "rm" },         { "decsribe", "describe" },
		{ "frobnicate", NULL }, { "", NULL },           { "x", NULL },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		const char *found =
			kn_closest(kn_view_of(cases[i].word), names, KN_ARRAY_LEN(names));
		if (!cases[i].name)
			assert_null(found);
		else
			assert_string_equal(found ? found : "nothing", cases[i].name);
	}
	char longest[200];
	memset(longest, 'a', sizeof(longest));
	assert_null(kn_closest((struct kn_view){ longest, sizeof(longest) }, names, 5));
}

static void hash_spreads_over_low_bits(void **state)
{
	(void)state;
	unsigned used[256] = { 0 };

	assert_int_equal(kn_hash("abc", 3), kn_hash("abcd", 3));
	assert_int_not_equal(kn_hash("abc", 3), kn_hash("abd", 3));
	for (uint32_t i = 0; i < 4096; i++)
		used[kn_hash(&i, sizeof(i)) & 255]++;
	for (size_t i = 0; i < 256; i++)
		assert_in_range(used[i], 1, 48);   /* 16 on average */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(views_compare),
		cmocka_unit_test(trim_takes_blanks_off_both_ends),
		cmocka_unit_test(split_gives_each_part_once),
		cmocka_unit_test(buffer_grows_and_stays_terminated),
		cmocka_unit_test(appending_nothing_gives_an_empty_string),
		cmocka_unit_test(failed_buffer_takes_nothing_more),
		cmocka_unit_test(whole_numbers),
		cmocka_unit_test(sizes),
		cmocka_unit_test(durations),
		cmocka_unit_test(cores),
		cmocka_unit_test(hex_goes_both_ways),
		cmocka_unit_test(base64_vectors),
		cmocka_unit_test(base64url_goes_both_ways),
		cmocka_unit_test(bad_base64_is_refused_and_leaves_nothing),
		cmocka_unit_test(mistyped_words_find_the_nearest),
		cmocka_unit_test(hash_spreads_over_low_bits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
