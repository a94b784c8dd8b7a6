#include "test.h"

#include "packet/frame.h"

static void a_pool_gives_its_frames_and_no_more(void **state)
{
	struct kn_pool_config config = { .frames = 3, .frame_bytes = 128 };
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	struct kn_frame *f[4];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(kn_pool_new(&config, &pool, &err), &err);
	assert_int_equal(kn_pool_take(pool, 4, f), 3);
	assert_int_equal(kn_pool_take(pool, 1, f + 3), 0);
	assert_int_equal(kn_pool_available(pool), 0);
	assert_ptr_not_equal(f[0]->data, f[1]->data);
	kn_frames_put(f, 3);
	assert_int_equal(kn_pool_available(pool), 3);
}

static void the_frame_given_last_comes_out_first(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	struct kn_frame *f[3], *again;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(kn_pool_new(&KN_POOL_DEFAULTS, &pool, &err), &err);
	assert_int_equal(kn_pool_take(pool, 3, f), 3);
	kn_frames_put(f, 3);
	assert_int_equal(kn_pool_take(pool, 1, &again), 1);
	assert_ptr_equal(again, f[2]);
	assert_int_equal(again->len, 0);
	kn_frames_put(&again, 1);
}

static void frames_of_two_pools_go_home(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *a = NULL;
	kn_auto(kn_pool_free) struct kn_pool *b = NULL;
	struct kn_frame *f[5];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(kn_pool_new(&KN_POOL_DEFAULTS, &a, &err), &err);
	assert_ok(kn_pool_new(&KN_POOL_DEFAULTS, &b, &err), &err);
	kn_pool_take(a, 2, f);
	kn_pool_take(b, 2, f + 2);
	kn_pool_take(a, 1, f + 4);
	kn_frames_put(f, 5);
	assert_int_equal(kn_pool_available(a), kn_pool_size(a));
	assert_int_equal(kn_pool_available(b), kn_pool_size(b));
}

static void a_frame_takes_what_fits_and_nothing_longer(void **state)
{
	struct kn_pool_config config = { .frames = 2, .frame_bytes = 100 };
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	struct kn_frame *f[2];
	struct kn_err err = KN_ERR_INIT;
	uint8_t bytes[200];

	(void)state;
	memset(bytes, 0xab, sizeof(bytes));
	assert_ok(kn_pool_new(&config, &pool, &err), &err);
	assert_int_equal(kn_pool_frame_bytes(pool), 128);
	kn_pool_take(pool, 2, f);
	assert_int_equal(kn_frame_room(f[0]), 128);
	assert_false(kn_frame_fill(f[0], bytes, 129));
	assert_int_equal(f[0]->len, 0);
	assert_true(kn_frame_fill(f[0], bytes, 128));
	assert_int_equal(f[0]->wire_len, 128);
	assert_int_equal(f[1]->data[-KN_FRAME_HEADROOM], 0);
	f[1]->data += 28;
	assert_int_equal(kn_frame_room(f[1]), 100);
	kn_frames_put(f, 2);
}

static void headers_do_not_share_cache_sets(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	struct kn_frame *f[64];
	struct kn_err err = KN_ERR_INIT;
	uint64_t sets = 0;

	(void)state;
	assert_ok(kn_pool_new(&KN_POOL_DEFAULTS, &pool, &err), &err);
	kn_pool_take(pool, 64, f);
	for (int i = 0; i < 64; i++) {
		assert_int_equal((uintptr_t)f[i]->data % 64, 0);
		sets |= UINT64_C(1) << ((uintptr_t)f[i]->data / 64 % 64);
	}
	assert_true(sets == UINT64_MAX);
	kn_frames_put(f, 64);
}

static void a_pool_refuses_what_makes_no_sense(void **state)
{
	const struct kn_pool_config wrong[] = {
		{ .frames = 0, .frame_bytes = 2048 },
		{ .frames = KN_POOL_FRAMES_MAX + 1, .frame_bytes = 2048 },
		{ .frames = 1, .frame_bytes = KN_FRAME_BYTES_MIN - 1 },
		{ .frames = 1, .frame_bytes = KN_FRAME_BYTES_MAX + 1 },
	};
	struct kn_pool *pool = NULL;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(wrong); i++) {
		struct kn_err err = KN_ERR_INIT;
		assert_fails(kn_pool_new(&wrong[i], &pool, &err), EINVAL, &err, "not");
		assert_null(pool);
	}
	kn_pool_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pool_gives_its_frames_and_no_more),
		cmocka_unit_test(the_frame_given_last_comes_out_first),
		cmocka_unit_test(frames_of_two_pools_go_home),
		cmocka_unit_test(a_frame_takes_what_fits_and_nothing_longer),
		cmocka_unit_test(headers_do_not_share_cache_sets),
		cmocka_unit_test(a_pool_refuses_what_makes_no_sense),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
