#include "test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"

static void arena_memory_is_zeroed_aligned_and_apart(void **state)
{
	(void)state;
	static const size_t sizes[] = { 0, 1, 15, 16, 17, 4000, 4096, 100000, 1 };
	struct kn_arena a;
	char *at[KN_ARRAY_LEN(sizes)];

	kn_arena_init(&a);
	for (size_t i = 0; i < KN_ARRAY_LEN(sizes); i++) {
		at[i] = kn_arena_alloc(&a, sizes[i]);
		assert_non_null(at[i]);
		assert_int_equal((uintptr_t)at[i] % 16, 0);
		for (size_t k = 0; k < sizes[i]; k++)
			assert_int_equal(at[i][k], 0);
		memset(at[i], (int)i + 1, sizes[i]);
	}
	for (size_t i = 0; i < KN_ARRAY_LEN(sizes); i++)
		for (size_t k = 0; k < sizes[i]; k++)
			assert_int_equal(at[i][k], (int)i + 1);
	kn_arena_fini(&a);
	assert_int_equal(a.total, 0);
}

static void arena_reset_zeroes_again_and_keeps_one_block(void **state)
{
	(void)state;
	struct kn_arena a;

	kn_arena_init(&a);
	kn_arena_reset(&a);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 100; i++) {
			char *p = kn_arena_alloc(&a, 100);
			assert_non_null(p);
			for (int k = 0; k < 100; k++)
				assert_int_equal(p[k], 0);
			memset(p, 0xff, 100);
		}
		kn_arena_reset(&a);
		assert_true(a.total > 0 && a.total <= 32768);
	}
	kn_arena_fini(&a);
}

static void one_huge_request_does_not_pin_its_memory(void **state)
{
	(void)state;
	struct kn_arena a;

	kn_arena_init(&a);
	assert_non_null(kn_arena_alloc(&a, 8 << 20));
	assert_true(a.total >= 8 << 20);
	kn_arena_reset(&a);
	assert_int_equal(a.total, 0);
	assert_non_null(kn_arena_alloc(&a, 1));
	kn_arena_fini(&a);
}

static void absurd_sizes_are_refused(void **state)
{
	(void)state;
	struct kn_arena a;

	kn_arena_init(&a);
	assert_null(kn_arena_alloc(&a, SIZE_MAX));
	assert_null(kn_arena_alloc(&a, SIZE_MAX - 15));
	assert_null(kn_arena_copy(&a, "", SIZE_MAX));
	assert_int_equal(a.total, 0);
	kn_arena_fini(&a);
}

static void copies_end_with_nul(void **state)
{
	(void)state;
	struct kn_arena a;

	kn_arena_init(&a);
	assert_string_equal(kn_arena_copy(&a, "abcdef", 3), "abc");
	assert_string_equal(kn_arena_copy(&a, NULL, 0), "");
	assert_string_equal(kn_arena_printf(&a, "%s-%d", "x", 42), "x-42");
	assert_string_equal(kn_arena_printf(&a, "%s", ""), "");
	kn_arena_fini(&a);
}

static int fd_of_scope(int *ret_fd)
{
	kn_auto(kn_close) int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	*ret_fd = fd;
	return fd < 0 ? -1 : 0;
}

static void scope_closes_its_descriptor(void **state)
{
	(void)state;
	int fd = -1;

	assert_int_equal(fd_of_scope(&fd), 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_int_equal(errno, EBADF);
}

static void taking_leaves_nothing_behind(void **state)
{
	(void)state;
	kn_auto(kn_free) char *text = strdup("x");
	kn_auto(kn_free) char *owner = kn_take_ptr(text);
	int fd = 7;

	assert_null(text);
	assert_string_equal(owner, "x");
	assert_int_equal(kn_take_fd(fd), 7);
	assert_int_equal(fd, -1);
}

static void close_keeps_errno(void **state)
{
	(void)state;

	errno = EPERM;
	kn_close(-1);
	kn_close(123456);
	assert_int_equal(errno, EPERM);
}

static void container_is_found_from_its_member(void **state)
{
	(void)state;
	struct box {
		int before, member;
	} box = { 1, 2 };
	int *member = &box.member;

	assert_ptr_equal(kn_container_of(member, struct box, member), &box);
	assert_int_equal(kn_min(box.before, box.member), 1);
	assert_int_equal(kn_max(box.before, box.member), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arena_memory_is_zeroed_aligned_and_apart),
		cmocka_unit_test(arena_reset_zeroes_again_and_keeps_one_block),
		cmocka_unit_test(one_huge_request_does_not_pin_its_memory),
		cmocka_unit_test(absurd_sizes_are_refused),
		cmocka_unit_test(copies_end_with_nul),
		cmocka_unit_test(scope_closes_its_descriptor),
		cmocka_unit_test(taking_leaves_nothing_behind),
		cmocka_unit_test(close_keeps_errno),
		cmocka_unit_test(container_is_found_from_its_member),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
