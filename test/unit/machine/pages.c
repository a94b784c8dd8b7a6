#include "test.h"

#include <stdlib.h>

#include "machine/pages.h"

enum { TABLES = 16 };
#define GPA UINT64_C(0x200000)
#define MIB (UINT64_C(1) << 20)

static char *memory;

static struct kn_pages fresh(uint32_t max)
{
	memset(memory, 0, TABLES * 4096);
	return kn_pages_init(memory, GPA, max);
}

static int setup(void **state)
{
	(void)state;
	memory = aligned_alloc(4096, TABLES * 4096);
	return memory ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	free(memory);
	return 0;
}

static void maps(const struct kn_pages *p, uint64_t va, uint64_t gpa, unsigned rights)
{
	uint64_t found;
	unsigned has;
	if (!kn_pages_find(p, va, &found, &has))
		fail_msg("0x%llx is not mapped", (unsigned long long)va);
	assert_int_equal(found, gpa);
	assert_int_equal(has, rights);
}

static void lacks(const struct kn_pages *p, uint64_t va)
{
	uint64_t found;
	unsigned has;
	assert_false(kn_pages_find(p, va, &found, &has));
}

static void pages_get_exactly_their_rights(void **state)
{
	(void)state;
	static const unsigned rights[] = {
		KN_PAGE_READ, KN_PAGE_WRITE, KN_PAGE_EXEC, KN_PAGE_USER,
		KN_PAGE_USER | KN_PAGE_WRITE, KN_PAGE_USER | KN_PAGE_EXEC,
	};
	struct kn_err err = KN_ERR_INIT;
	struct kn_pages p = fresh(TABLES);

	for (unsigned i = 0; i < KN_ARRAY_LEN(rights); i++)
		assert_ok(kn_pages_map(&p, 0x400000 + i * 4096, 0x900000 + i * 4096, 4096, rights[i],
		                       &err), &err);
	for (unsigned i = 0; i < KN_ARRAY_LEN(rights); i++)
		maps(&p, 0x400000 + i * 4096 + 5, 0x900000 + i * 4096 + 5, rights[i]);
	lacks(&p, 0x3fffff);
	lacks(&p, 0x400000 + KN_ARRAY_LEN(rights) * 4096);
	assert_int_equal(p.used, 4);
}

/* From the middle of a 2 MiB page to the middle of another: small, large, small. */
static void large_pages_are_used_where_both_sides_allow(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_pages p = fresh(TABLES);

	assert_ok(kn_pages_map(&p, 5 * MIB, 5 * MIB, 6 * MIB, KN_PAGE_USER, &err), &err);
	for (uint64_t va = 5 * MIB; va < 11 * MIB; va += 4096)
		maps(&p, va, va, KN_PAGE_USER);
	lacks(&p, 5 * MIB - 1);
	lacks(&p, 11 * MIB);
	assert_int_equal(p.used, 5);   /* root, two levels, two tables of small pages */

	p = fresh(TABLES);
	assert_ok(kn_pages_map(&p, 4 * MIB, 5 * MIB, 4 * MIB, KN_PAGE_USER, &err), &err);
	maps(&p, 4 * MIB, 5 * MIB, KN_PAGE_USER);
	maps(&p, 8 * MIB - 1, 9 * MIB - 1, KN_PAGE_USER);
	assert_int_equal(p.used, 5);   /* the offsets differ: only small pages */
}

static void ranges_over_a_gigabyte_cross_tables(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_pages p = fresh(TABLES);

	assert_ok(kn_pages_map(&p, 1022 * MIB, 1022 * MIB, 1028 * MIB, KN_PAGE_USER, &err), &err);
	maps(&p, 1022 * MIB, 1022 * MIB, KN_PAGE_USER);
	maps(&p, 1024 * MIB, 1024 * MIB, KN_PAGE_USER);
	maps(&p, 2050 * MIB - 1, 2050 * MIB - 1, KN_PAGE_USER);
	lacks(&p, 2050 * MIB);
}

static void nothing_is_mapped_twice(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_pages p = fresh(TABLES);

	assert_ok(kn_pages_map(&p, 4 * MIB, 4 * MIB, 2 * MIB, 0, &err), &err);
	assert_fails(kn_pages_map(&p, 4 * MIB + 4096, 0, 4096, 0, &err), EEXIST, &err, "2 MiB page");
	assert_ok(kn_pages_map(&p, 8 * MIB, 8 * MIB, 4096, 0, &err), &err);
	assert_fails(kn_pages_map(&p, 8 * MIB, 0, 4096, 0, &err), EEXIST, &err, "mapped twice");
	assert_fails(kn_pages_map(&p, 8 * MIB, 8 * MIB, 2 * MIB, 0, &err), EEXIST, &err,
	             "mapped twice");
}

static void bad_ranges_and_full_tables_are_refused(void **state)
{
	(void)state;
	static const uint64_t bad[][3] = {
		{ 1, 0, 4096 }, { 0, 1, 4096 }, { 0, 0, 1 }, { 0, 0, 0 },
		{ UINT64_C(1) << 47, 0, 4096 }, { (UINT64_C(1) << 47) - 4096, 0, 8192 },
		{ 0, UINT64_MAX & ~UINT64_C(4095), 8192 },
	};
	struct kn_err err = KN_ERR_INIT;
	struct kn_pages p = fresh(3);

	for (size_t i = 0; i < KN_ARRAY_LEN(bad); i++)
		assert_fails(kn_pages_map(&p, bad[i][0], bad[i][1], bad[i][2], 0, &err), EINVAL, &err,
		             "cannot map");
	assert_fails(kn_pages_map(&p, 0x1000, 0x1000, 4096, 0, &err), ENOMEM, &err, "more than 3");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_get_exactly_their_rights),
		cmocka_unit_test(large_pages_are_used_where_both_sides_allow),
		cmocka_unit_test(ranges_over_a_gigabyte_cross_tables),
		cmocka_unit_test(nothing_is_mapped_twice),
		cmocka_unit_test(bad_ranges_and_full_tables_are_refused),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
