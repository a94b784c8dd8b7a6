#include "packet/fixture.h"

static void lanes_are_counted_and_visited_in_order(void **state)
{
	const kn_lanes sets[] = { 0, 1, 0x80000000, 0xffffffff, 0x0f0f0001, 0xaaaaaaaa };

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(sets); i++) {
		uint32_t seen = 0;
		kn_lanes again = 0;
		kn_each_lane(lane, sets[i])
		{
			assert_true(again == 0 || kn_lane(lane) > again);
			again |= kn_lane(lane);
			seen++;
		}
		assert_int_equal(again, sets[i]);
		assert_int_equal(kn_lanes_count(sets[i]), seen);
		assert_int_equal(seen, __builtin_popcount(sets[i]));
	}
	assert_int_equal(kn_lanes_first(0), 0);
	assert_int_equal(kn_lanes_first(5), 0x1f);
	assert_int_equal(kn_lanes_first(32), 0xffffffff);
}

static void a_drop_clears_counts_and_tells(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];

	(void)state;
	batch_init(&b, drops);
	memset(b.why, KN_REASON_NONE, sizeof(b.why));
	b.live = 0xff;
	b.observed = true;
	kn_batch_drop(&b, 0x0e, KN_DROP_TTL);
	kn_batch_drop(&b, 0, KN_DROP_FILTER);
	assert_int_equal(b.live, 0xf1);
	assert_int_equal(drops[KN_DROP_TTL], 3);
	assert_int_equal(drops[KN_DROP_FILTER], 0);
	assert_int_equal(b.why[0], KN_REASON_NONE);
	assert_int_equal(b.why[3], KN_DROP_TTL);
}

static void released_frames_are_back_in_their_pool(void **state)
{
	static struct kn_batch b;
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	uint64_t drops[KN_REASON_COUNT];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	batch_init(&b, drops);
	assert_ok(kn_pool_new(&KN_POOL_DEFAULTS, &pool, &err), &err);
	b.n = kn_pool_take(pool, KN_BATCH, b.frame);
	kn_batch_release(&b, 0xffff0000);
	assert_int_equal(kn_pool_available(pool), KN_POOL_FRAMES - 16);
	kn_batch_release(&b, 0x0000ffff);
	assert_int_equal(kn_pool_available(pool), KN_POOL_FRAMES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lanes_are_counted_and_visited_in_order),
		cmocka_unit_test(a_drop_clears_counts_and_tells),
		cmocka_unit_test(released_frames_are_back_in_their_pool),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
