/*
 * The SDK's own code beside the C library's, which is the reference: the parts of libkiln-bare that
 * know neither rings nor registers, with the names that clash given a prefix (sdk/meson.build).
 */
#include "test.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "kiln/bare.h"

void *sdk_memcpy(void *to, const void *from, size_t n);
void *sdk_memmove(void *to, const void *from, size_t n);
void *sdk_memset(void *to, int byte, size_t n);
int sdk_memcmp(const void *a, const void *b, size_t n);
void *sdk_memchr(const void *p, int byte, size_t n);
size_t sdk_strlen(const char *s);
int sdk_strcmp(const char *a, const char *b);
char *sdk_strchr(const char *s, int c);
void kiln_heap_init(void *at, size_t bytes);
void kiln_heap_end_request(void);

static uint64_t seed = 1;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static void same_text(const char *fmt, ...)
{
	char ours[600], theirs[600];
	va_list ap;

	va_start(ap, fmt);
	int a = kiln_vsnprintf(ours, sizeof(ours), fmt, ap);
	va_end(ap);
	va_start(ap, fmt);
	int b = vsnprintf(theirs, sizeof(theirs), fmt, ap);
	va_end(ap);
	if (a != b || strcmp(ours, theirs) != 0)
		fail_msg("%s: '%s' (%d), not '%s' (%d)", fmt, ours, a, theirs, b);
}
#pragma GCC diagnostic pop

static void integers_print_as_in_c(void **state)
{
	(void)state;
	static const char *const formats[] = { "%d", "%5d", "%-5d|", "%05d", "%+d", "% d", "%.3d",
		                               "%8.3d", "%-8.3d|", "%x", "%#x", "%X", "%08x", "%o",
		                               "%u", "%i", "%hd", "%hhd", "%hhx", "%hu" };
	static const int values[] = { 0, 1, -1, 42, 255, -32769, 65535, INT32_MAX, INT32_MIN };

	for (size_t f = 0; f < KN_ARRAY_LEN(formats); f++)
		for (size_t v = 0; v < KN_ARRAY_LEN(values); v++)
			same_text(formats[f], values[v]);
	same_text("%ld %lu %lx %lld %zu %jd %td", LONG_MIN, ULONG_MAX, ULONG_MAX, LLONG_MIN, SIZE_MAX,
	          INTMAX_MAX, (ptrdiff_t)-1);
	same_text("%*d|%-*d|%.*d", 6, 7, 6, 7, 4, 7);
	same_text("%p", (void *)0x1234);
}

static void text_prints_as_in_c(void **state)
{
	(void)state;
	char small[4];

	same_text("%s|%5s|%-5s|%.2s|%c|%3c|%%", "abc", "abc", "abc", "abc", 'x', 'y');
	same_text("%.*s", 2, "abcdef");
	same_text("no conversions");
	assert_int_equal(kiln_snprintf(small, sizeof(small), "%s", "abcdef"), 6);
	assert_string_equal(small, "abc");
	assert_int_equal(kiln_snprintf(NULL, 0, "%d", 12345), 5);
}

static void doubles_print_as_in_c(void **state)
{
	(void)state;
	static const char *const formats[] = { "%f", "%.0f", "%.1f", "%.17f", "%10.2f|", "%-10.2f|",
		                               "%010.2f", "%+f", "%e", "%.0e", "%.15e", "%g", "%.15g",
		                               "%.17g", "%.1g", "%.0g" };
	static const double values[] = { 0, -0.0, 1, -1, 0.5, 1.5, 2.5, 0.1, 0.125, 9.995, 99.95, 1e10,
		                         123456789, 1e15, 1e16, 1e17, 1e-4, 1e-5, 5e-324, 1e22, 1e23,
		                         0.0001234, 999999.5, 9999995, DBL_MIN, 3.0e-310 };

	for (size_t f = 0; f < KN_ARRAY_LEN(formats); f++)
		for (size_t v = 0; v < KN_ARRAY_LEN(values); v++)
			same_text(formats[f], values[v]);
	same_text("%g %g %f %10f|", INFINITY, -INFINITY, INFINITY, INFINITY);
	for (int i = 0; i < 20000; i++) {
		uint64_t bits = next_random();
		double d;
		memcpy(&d, &bits, sizeof(d));
		if (!isfinite(d))
			continue;
		same_text("%.17g %g %.3e", d, d, d);
		if (fabs(d) < 1e30)
			same_text("%f %.2f", d, d);
	}
}

static void numbers_are_read_back(void **state)
{
	(void)state;
	char text[64];

	for (int i = 0; i < 20000; i++) {
		double wanted = (double)(int64_t)next_random() / 1048576.0 / 4096.0, got;
		int n = snprintf(text, sizeof(text), i % 2 ? "%.17g" : "%.15e", wanted);
		double reference = strtod(text, NULL);
		const char *p = text;
		assert_true(kiln_parse_double(&p, text + n, &got));
		assert_ptr_equal(p, text + n);
		if (got < nextafter(reference, -INFINITY) || got > nextafter(reference, INFINITY))
			fail_msg("'%s' was read as %.17g", text, got);
	}
	static const char *const exact[] = { "0", "-0", "1", "-12.5", "0.1", "20.25", "1e3", "1E+3",
		                             "12e-1", ".5", "5.", "123456789012345", "1e22" };
	for (size_t i = 0; i < KN_ARRAY_LEN(exact); i++) {
		const char *p = exact[i], *end = exact[i] + strlen(exact[i]);
		double got;
		assert_true(kiln_parse_double(&p, end, &got));
		assert_ptr_equal(p, end);
		assert_true(got == strtod(exact[i], NULL));
	}
	static const char *const none[] = { "", "-", ".", "e5", "abc", "+1", "1e999", "-.e1" };
	for (size_t i = 0; i < KN_ARRAY_LEN(none); i++) {
		const char *p = none[i];
		double got;
		assert_false(kiln_parse_double(&p, none[i] + strlen(none[i]), &got));
		assert_ptr_equal(p, none[i]);
	}
	const char *p = "1e", *end = p + 2;
	double one;
	assert_true(kiln_parse_double(&p, end, &one));
	assert_int_equal(*p, 'e');

	uint64_t u;
	p = "18446744073709551615x";
	assert_true(kiln_parse_u64(&p, p + 21, &u));
	assert_true(u == UINT64_MAX && *p == 'x');
	p = "18446744073709551616";
	assert_false(kiln_parse_u64(&p, p + 20, &u));
}

static void memory_functions_agree_with_c(void **state)
{
	(void)state;
	enum { N = 1400 };
	static unsigned char a[N], b[N], c[N];

	for (int i = 0; i < 20000; i++) {
		size_t n = next_random() % (i % 4 ? 70 : 700), from = next_random() % (N - n);
		size_t to = i % 2 ? next_random() % (N - n) : (from + next_random() % 40) % (N - n);
		int byte = (int)(next_random() & 0xff);
		for (size_t k = 0; k < 24; k++)
			a[next_random() % N] = (unsigned char)next_random();
		memcpy(b, a, N);
		memcpy(c, a, N);
		assert_ptr_equal(sdk_memmove(b + to, b + from, n), b + to);
		memmove(c + to, c + from, n);
		assert_memory_equal(b, c, N);
		sdk_memcpy(b + to, a + from, n);
		memcpy(c + to, a + from, n);
		assert_memory_equal(b, c, N);
		sdk_memset(b + to, byte, n);
		memset(c + to, byte, n);
		assert_memory_equal(b, c, N);
		int x = sdk_memcmp(a + from, a + to, n), y = memcmp(a + from, a + to, n);
		assert_int_equal((x > 0) - (x < 0), (y > 0) - (y < 0));
		assert_ptr_equal(sdk_memchr(a + from, byte, n), memchr(a + from, byte, n));
	}
	assert_int_equal(sdk_strlen("abc"), 3);
	assert_true(sdk_strcmp("a", "b") < 0 && sdk_strcmp("b", "a") > 0 && !sdk_strcmp("ab", "ab"));
	assert_true(sdk_strcmp("a", "ab") < 0);
	assert_string_equal(sdk_strchr("hello", 'l'), "llo");
	assert_null(sdk_strchr("hello", 'x'));
}

/* Random allocations: blocks never overlap, keep their bytes, and all comes back. */
static void heap_keeps_blocks_apart(void **state)
{
	(void)state;
	enum { BYTES = 64 << 10, SLOTS = 64 };
	static _Alignas(16) char region[BYTES];
	struct {
		unsigned char *at;
		size_t n;
		unsigned char mark;
	} slot[SLOTS] = { 0 };

	kiln_heap_init(region, BYTES);
	assert_int_equal(kiln_memory_left(), BYTES);
	for (int i = 0; i < 50000; i++) {
		size_t s = next_random() % SLOTS;
		if (slot[s].at) {
			for (size_t k = 0; k < slot[s].n; k++)
				assert_int_equal(slot[s].at[k], slot[s].mark);
			if (i % 3 == 0) {
				size_t n = next_random() % 2000;
				unsigned char *moved = kiln_realloc(slot[s].at, n);
				if (!moved)
					continue;
				for (size_t k = 0; k < kn_min(n, slot[s].n); k++)
					assert_int_equal(moved[k], slot[s].mark);
				slot[s].at = moved;
				slot[s].n = n;
				memset(moved, slot[s].mark, n);
				continue;
			}
			kiln_free(slot[s].at);
			slot[s].at = NULL;
			continue;
		}
		slot[s].n = next_random() % 2000;
		slot[s].mark = (unsigned char)i;
		slot[s].at = kiln_malloc(slot[s].n);
		if (!slot[s].at)
			continue;
		assert_int_equal((uintptr_t)slot[s].at % 16, 0);
		assert_true((char *)slot[s].at >= region && (char *)slot[s].at + slot[s].n <= region + BYTES);
		memset(slot[s].at, slot[s].mark, slot[s].n);
	}
	for (size_t s = 0; s < SLOTS; s++)
		kiln_free(slot[s].at);
	assert_non_null(kiln_malloc(BYTES / 2));
	assert_null(kiln_malloc(BYTES));
	assert_null(kiln_malloc(SIZE_MAX));
	assert_null(kiln_malloc(SIZE_MAX - 15));
}

static void request_memory_is_zeroed_and_given_back(void **state)
{
	(void)state;
	static _Alignas(16) char region[4096];

	memset(region, 0xff, sizeof(region));
	kiln_heap_init(region, sizeof(region));
	for (int i = 0; i < 3; i++) {
		char *a = kiln_alloc(100), *b = kiln_alloc(1);
		assert_non_null(a);
		for (int k = 0; k < 100; k++)
			assert_int_equal(a[k], 0);
		assert_true(b + 1 <= a && (uintptr_t)b % 16 == 0);
		memset(a, 0xee, 100);
		assert_null(kiln_alloc(sizeof(region)));
		assert_null(kiln_alloc(SIZE_MAX));
		kiln_heap_end_request();
		assert_int_equal(kiln_memory_left(), sizeof(region));
	}
}

static void query_finds_its_key(void **state)
{
	(void)state;
	static const struct {
		const char *path, *key, *value;
	} cases[] = {
		{ "/x?window=5", "window", "5" },   { "/x?a=1&window=7&b=2", "window", "7" },
		{ "/x?window", "window", "" },      { "/x?window=", "window", "" },
		{ "/x", "window", NULL },           { "/x?windows=5", "window", NULL },
		{ "/x?a=window", "window", NULL },  { "", "window", NULL },
		{ "/?&&a=1", "a", "1" },            { "/?a=1?b", "a", "1?b" },
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kiln_request q = { .path = { cases[i].path, strlen(cases[i].path) } };
		struct kiln_bytes v;
		bool found = kiln_query(&q, cases[i].key, &v);
		assert_int_equal(found, cases[i].value != NULL);
		if (found)
			assert_view(((struct kn_view){ v.ptr, v.len }), cases[i].value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_print_as_in_c),
		cmocka_unit_test(text_prints_as_in_c),
		cmocka_unit_test(doubles_print_as_in_c),
		cmocka_unit_test(numbers_are_read_back),
		cmocka_unit_test(memory_functions_agree_with_c),
		cmocka_unit_test(heap_keeps_blocks_apart),
		cmocka_unit_test(request_memory_is_zeroed_and_given_back),
		cmocka_unit_test(query_finds_its_key),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
